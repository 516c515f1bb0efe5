//! The loop itself.

use crate::chat::{Rendering, Unusable, takes, trajectory};
use crate::engine::{EngineError, open_model};
use crate::experiment::{Experiment, ExperimentError, Tokens};
use crate::merging::merge_candidate;
use crate::outputs;
use crate::progress::Progress;
use crate::store::{Store, StoreError};
use crate::suites::{SuiteLibrary, SuiteOptions, SuitesError};
use rolegraft_checkpoint::{Checkpoint, Digest, OpenError, PoolError, check_pool};
use rolegraft_evaluate::{Evaluation, EvaluationError, play};
use rolegraft_graft::{ApplyError, Candidate, Diagnosis, Plan, Selection, Signal, diagnose, plan, select};
use rolegraft_merge::MergeError;
use rolegraft_model::{ChatModel, Scripted};
use rolegraft_report::{FailureRates, ModelScores, failure_rates};
use rolegraft_saliency::{DecoderError, NeuronSet, Saliency, trace, union_overlap};
use rolegraft_suite::{Split, Task, TaskSet};
use rolegraft_trajectory::{ChatError, ChatTokenizer, Episode, EpisodeKey, EpisodeLog, LogError, Seed};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Largest shard written, in bytes.
pub(crate) const SHARD: u64 = 5_000_000_000;

/// Why a run stopped.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum RunError {
    #[error(transparent)]
    Experiment(#[from] ExperimentError),
    #[error("{role} `{name}`: {source}")]
    Open { role: &'static str, name: String, source: OpenError },
    #[error(transparent)]
    Checkpoint(#[from] OpenError),
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error(transparent)]
    Suites(#[from] SuitesError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Merge(#[from] MergeError),
    #[error(transparent)]
    Decoder(#[from] DecoderError),
    #[error(transparent)]
    Chat(#[from] ChatError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("suite `{suite}`, model `{model}`: {source}")]
    Evaluation { suite: String, model: String, source: EvaluationError },
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error("benchmark `{benchmark}` cannot be played here: it lacks {lacks}")]
    Lacking { benchmark: String, lacks: &'static str },
    #[error("benchmark `{benchmark}` cannot be traced: of {of} calibration trajectories none has a span of its role")]
    NoSpans { benchmark: String, of: usize },
    #[error("interrupted; run the same command to go on where it stopped")]
    Interrupted,
    #[error("the asynchronous runtime does not start: {0}")]
    Runtime(std::io::Error),
    #[error("suite `{suite}` has no task `{task}`; official tasks need their `--data`")]
    NoTask { suite: String, task: String },
    #[error("there is no suite `{0}` in the folder of suites")]
    UnknownSuite(String),
    #[error("suite `{suite}` cannot be played by this model: said by {roles}, {source}")]
    Refuses { suite: String, roles: String, source: ChatError },
}

impl RunError {
    /// Whether a person stopped the run.
    #[must_use]
    pub fn is_interrupt(&self) -> bool {
        matches!(
            self,
            Self::Interrupted
                | Self::Merge(MergeError::Interrupted)
                | Self::Evaluation { source: EvaluationError::Interrupted, .. }
        )
    }
    /// Whether the machine, not the input, is at fault.
    #[must_use]
    pub fn is_environment(&self) -> bool {
        matches!(
            self,
            Self::Evaluation { source: EvaluationError::Suite(rolegraft_suite::SuiteError::Environment { .. }), .. }
        ) || disk_refuses(self)
    }
}

/// Whether somewhere below an error a file system refuses to take more.
fn disk_refuses(error: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    std::iter::successors(Some(error), |e| e.source()).any(|e| {
        let kind = e.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        matches!(kind, Some(StorageFull | QuotaExceeded | ReadOnlyFilesystem | PermissionDenied))
    })
}

/// A model of the run.
pub(crate) struct Played {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    digest: Digest,
}

/// Everything the outputs are made of.
pub(crate) struct Results {
    pub(crate) models: Vec<Played>,
    pub(crate) test: BTreeMap<String, Vec<Episode>>,
    pub(crate) selection: Selection,
    pub(crate) diagnosis: Diagnosis,
    pub(crate) plan: Plan,
    pub(crate) energy: Vec<(String, [f64; 4])>,
    pub(crate) saliency_files: Vec<(String, PathBuf)>,
    pub(crate) logs: Vec<(String, PathBuf)>,
    pub(crate) overlap: (f64, f64),
    pub(crate) timings: Vec<(String, f64)>,
    pub(crate) traced: BTreeMap<String, (usize, usize)>,
}

/// What a finished run says on the terminal.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSummary {
    /// The run's directory.
    pub dir: PathBuf,
    /// The tables, in Markdown.
    pub tables: String,
}

type Opened = Result<Arc<dyn ChatModel>, RunError>;

struct Context<'a> {
    experiment: &'a Experiment,
    store: Store,
    suites: BTreeMap<String, SuiteLibrary>,
    stop: Arc<AtomicBool>,
    progress: &'a dyn Progress,
    runtime: tokio::runtime::Runtime,
    logs: Vec<(String, PathBuf)>,
    timings: Vec<(String, f64)>,
}

impl Context<'_> {
    fn stage<T>(&mut self, name: &str, work: impl FnOnce(&mut Self) -> Result<T, RunError>) -> Result<T, RunError> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(RunError::Interrupted);
        }
        self.progress.stage(name);
        let begun = Instant::now();
        let result = work(self);
        self.timings.push((name.to_owned(), begun.elapsed().as_secs_f64()));
        result
    }

    fn library(&self, suite: &str) -> Result<&SuiteLibrary, RunError> {
        self.suites.get(suite).ok_or_else(|| RunError::UnknownSuite(suite.to_owned()))
    }

    /// Plays a suite, or takes the episodes from the log where they are there already. `open` is called only if
    /// something is left to play.
    fn episodes(
        &mut self,
        suite: &str,
        split: Split,
        (count, trials): (usize, u32),
        player: (&str, &str),
        open: &mut dyn FnMut(&Self, &TaskSet) -> Opened,
    ) -> Result<Vec<Episode>, RunError> {
        let (name, identity) = player;
        let library = self.library(suite)?;
        let tasks = library.tasks(split, Some(count))?;
        let rules = library.suite.clone();
        let seed = Seed(self.experiment.seed);
        let inputs = (
            identity,
            rules.id(),
            rules.version(),
            rules.settings(),
            rules.limits(),
            rules.format().source(),
            &tasks.digest,
            seed,
        );
        let path = self.store.place("episodes", &inputs).with_extension("jsonl");
        let digest = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut log = EpisodeLog::open(&path, &digest)?;
        if log.was_torn() {
            self.progress.note(&format!(
                "`{}` ended in a torn line, which was dropped; its episode is played again",
                path.display()
            ));
        }
        let key = |task: &Task, trial| EpisodeKey { suite: rules.id().to_owned(), task: task.id.clone(), trial };
        let wanted: Vec<EpisodeKey> = tasks
            .tasks
            .iter()
            .flat_map(|task| (0..trials).map(move |trial| (task, trial)))
            .map(|(t, n)| key(t, n))
            .collect();
        let label = format!("{name} · {suite}");
        if wanted.iter().any(|k| !log.done().contains(k)) {
            let model = open(self, &tasks)?;
            let evaluation = Evaluation { suite: rules, tasks: tasks.tasks, trials, at_once: None, seed };
            let progress = self.progress;
            let mut report = |done: usize, of: usize| progress.update(done, of, &label);
            self.runtime
                .block_on(play(&evaluation, model, &mut log, &self.stop, &mut report))
                .map_err(|source| RunError::Evaluation { suite: suite.to_owned(), model: name.to_owned(), source })?;
        } else {
            self.progress.update(wanted.len(), wanted.len(), &label);
        }
        self.logs.push((format!("{}-{suite}-{name}.jsonl", split.as_str()), path.clone()));
        let (_, all) = EpisodeLog::read(&path)?;
        let mut by_key: BTreeMap<EpisodeKey, Episode> = all.into_iter().map(|e| (e.key.clone(), e)).collect();
        Ok(wanted.iter().filter_map(|k| by_key.remove(k)).collect())
    }

    fn play_model(
        &mut self,
        model: &Played,
        suites: &[String],
        split: Split,
        counts: (usize, u32),
    ) -> Result<Vec<Episode>, RunError> {
        let engine = self.experiment.engine;
        let identity = self.identity(model)?;
        let mut opened: Option<Arc<dyn ChatModel>> = None;
        let mut all = Vec::new();
        for suite in suites {
            let mut open = |context: &Self, _: &TaskSet| -> Opened {
                if let Some(model) = &opened {
                    return Ok(model.clone());
                }
                let engines = engine_count(context.experiment.engines);
                let (name, chat) = (model.dir.display().to_string(), &context.experiment.chat);
                let loaded = context.runtime.block_on(open_model(&name, engine, engines, chat))?;
                Ok(opened.insert(loaded).clone())
            };
            all.extend(self.episodes(suite, split, counts, (&model.name, &identity), &mut open)?);
        }
        Ok(all)
    }

    /// The tasks' own solutions, played in the real environments; where tasks come without, what the expert plays.
    fn calibration(&mut self, suite: &str, expert: &Played) -> Result<Vec<Episode>, RunError> {
        let counts = self.experiment.tasks;
        let tasks = self.library(suite)?.tasks(Split::Calibration, Some(counts.calibration))?;
        if tasks.tasks.iter().any(|task| task.oracle().is_none()) {
            let many = (counts.calibration, counts.trajectories);
            return self.play_model(expert, &[suite.to_owned()], Split::Calibration, many);
        }
        let mut open = |_: &Self, tasks: &TaskSet| -> Opened {
            let mut replies = Vec::new();
            for task in &tasks.tasks {
                let key = EpisodeKey { suite: suite.to_owned(), task: task.id.clone(), trial: 0 };
                replies.push((key, task.oracle().unwrap_or_default()));
            }
            Ok(Arc::new(Scripted::new(replies)))
        };
        self.episodes(suite, Split::Calibration, (counts.calibration, 1), ("oracle", "oracle"), &mut open)
    }

    /// Who a checkpoint is, and how it is spoken to.
    fn identity(&self, model: &Played) -> Result<String, RunError> {
        let rendering = Rendering::of(&model.dir, &self.experiment.chat)?;
        let rendering = serde_json::to_string(&rendering).unwrap_or_default();
        Ok(format!("{} under {:?}, {rendering}", model.digest, self.experiment.engine))
    }

    fn saliency(
        &self,
        model: &Played,
        benchmark: &str,
        episodes: &[Episode],
        tokens: Tokens,
    ) -> Result<(Saliency, PathBuf), RunError> {
        let shift = self.experiment.saliency.shift;
        let content = serde_json::to_vec(
            &episodes
                .iter()
                .map(|e| (&e.messages, e.turns.iter().map(|t| (&t.spans, &t.shown, &t.ids)).collect::<Vec<_>>()))
                .collect::<Vec<_>>(),
        );
        let rendering = Rendering::of(&model.dir, &self.experiment.chat)?;
        let inputs = (model.digest.as_str(), rendering, Digest::of(&content.unwrap_or_default()), shift, tokens);
        let path = self.store.place("saliency", &inputs).with_extension("json");
        let saliency = self.store.json(&path, || -> Result<Saliency, RunError> {
            let chat = ChatTokenizer::open(&model.dir, &self.experiment.chat)?;
            let mut unusable = Unusable::default();
            let one = |e| trajectory(&chat, e, shift, tokens, &mut unusable);
            let trajectories = episodes.iter().map(one).collect::<Result<Vec<_>, _>>()?;
            for note in unusable.notes() {
                self.progress.note(&format!("{benchmark}, traced in {}: {note}", model.name));
            }
            Ok(trace(&Checkpoint::open(&model.dir)?, &trajectories)?)
        })?;
        if saliency.traced == 0 {
            return Err(RunError::NoSpans { benchmark: benchmark.to_owned(), of: episodes.len() });
        }
        Ok((saliency, path))
    }
}

fn engine_count(asked: usize) -> usize {
    if asked > 0 { asked } else { std::thread::available_parallelism().map_or(1, usize::from) }
}

fn open_checkpoint(role: &'static str, name: &str, dir: &Path) -> Result<(Checkpoint, Played), RunError> {
    let wrap = |source| RunError::Open { role, name: name.to_owned(), source };
    let checkpoint = Checkpoint::open(dir).map_err(wrap)?;
    let digest = checkpoint.digest().map_err(wrap)?;
    Ok((checkpoint, Played { name: name.to_owned(), dir: dir.to_owned(), digest }))
}

/// Runs an experiment, or what is left of it. `stop` ends it between turns; what is finished is kept.
///
/// # Errors
/// The first thing that keeps it from finishing.
pub fn run(
    experiment: &Experiment,
    results: &Path,
    stop: Arc<AtomicBool>,
    progress: &dyn Progress,
) -> Result<RunSummary, RunError> {
    let store = Store::new(results);
    let _lock = store.lock(&experiment.name)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(RunError::Runtime)?;
    let mut suites = BTreeMap::new();
    let options = SuiteOptions {
        root: &experiment.suites,
        data: experiment.data.as_deref(),
        tau: &experiment.tau,
        office: experiment.officebench,
        agentbench: &experiment.agentbench,
        person: None,
        runtime: runtime.handle(),
        engine: experiment.engine,
        chat: &experiment.chat,
        progress: Some(progress),
    };
    let mut experiment = experiment.clone();
    let mut wanted = Vec::new();
    for benchmark in experiment.benchmark {
        let mut lacking = None;
        for name in &benchmark.suites {
            let library = SuiteLibrary::open(&options, name)?;
            lacking = lacking.or(library.lacks());
            // What is missing is said now, not after hours of play.
            let counts = experiment.tasks;
            library.tasks(Split::Test, Some(counts.test))?;
            if benchmark.expert.is_some() {
                library.tasks(Split::Calibration, Some(counts.calibration))?;
                library.tasks(Split::Dev, Some(counts.dev))?;
            }
            suites.insert(name.clone(), library);
        }
        match lacking {
            None => wanted.push(benchmark),
            // Nothing depends on a benchmark that is only looked at.
            Some(lacks) if benchmark.expert.is_none() => {
                progress.note(&format!("not run: benchmark {} lacks {lacks}", benchmark.id));
            }
            Some(lacks) => return Err(RunError::Lacking { benchmark: benchmark.id, lacks }),
        }
    }
    experiment.benchmark = wanted;
    let experiment = &experiment;
    let mut context =
        Context { experiment, store, suites, stop, progress, runtime, logs: Vec::new(), timings: Vec::new() };
    let results = all_stages(&mut context)?;
    let dir = context.store.run(&experiment.name);
    progress.stage("report");
    let tables = outputs::write(experiment, &dir, &results)?;
    Ok(RunSummary { dir, tables })
}

fn all_stages(context: &mut Context<'_>) -> Result<Results, RunError> {
    let experiment = context.experiment;
    let (base, base_played) = open_checkpoint("base", "base", &experiment.pool.base)?;
    let mut experts = Vec::new();
    for (name, dir) in &experiment.pool.experts {
        experts.push(open_checkpoint("expert", name, dir)?);
    }
    let checkpoints: Vec<&Checkpoint> = experts.iter().map(|(c, _)| c).collect();
    check_pool(&base, &checkpoints)?;
    // Merged models have the base's template or an expert's.
    for model in std::iter::once(&base_played).chain(experts.iter().map(|(_, played)| played)) {
        for suite in experiment.benchmark.iter().flat_map(|b| &b.suites) {
            takes(&model.dir, &experiment.chat, &*context.library(suite)?.suite)?;
        }
        if let Some(note) = Rendering::of(&model.dir, &experiment.chat)?.note(&model.name) {
            context.progress.note(&note);
        }
    }

    let mut candidates = context.stage("merge", |context| {
        let mut candidates = Vec::new();
        for (i, entry) in experiment.candidate.iter().enumerate() {
            let digests: Vec<&str> = experts.iter().map(|(_, p)| p.digest.as_str()).collect();
            let inputs = (base_played.digest.as_str(), digests, entry.operator, &entry.parameters, entry.seed);
            let dir = context.store.place("merge", &inputs);
            if !dir.exists() {
                let experts: Vec<(&str, PathBuf)> =
                    experts.iter().map(|(_, p)| (p.name.as_str(), p.dir.clone())).collect();
                merge_candidate(entry, ("base", &base_played.dir), &experts, &dir, &context.stop)?;
            }
            candidates.push(open_checkpoint("candidate", &entry.name, &dir)?.1);
            context.progress.update(i + 1, experiment.candidate.len(), &entry.name);
        }
        Ok(candidates)
    })?;

    let in_domain: Vec<_> = experiment.benchmark.iter().filter_map(|b| Some((b, b.expert.as_deref()?))).collect();
    let calibration: BTreeMap<String, Vec<Episode>> = context.stage("calibrate", |context| {
        let mut calibration = BTreeMap::new();
        for (benchmark, expert) in &in_domain {
            let Some((_, expert)) = experts.iter().find(|(_, p)| p.name == *expert) else { continue };
            let mut episodes = Vec::new();
            for suite in &benchmark.suites {
                episodes.extend(context.calibration(suite, expert)?);
            }
            calibration.insert(benchmark.id.clone(), episodes);
        }
        Ok(calibration)
    })?;

    let mut saliency_files = Vec::new();
    let mut traced = BTreeMap::new();
    let k = experiment.saliency.k;
    let (candidate_sets, expert_sets, overlap) = context.stage("trace", |context| {
        let total = (candidates.len() + 2) * in_domain.len();
        let mut done = 0;
        let mut sets =
            |context: &Context<'_>, model: &Played, benchmark: &str, tokens: Tokens| -> Result<NeuronSet, RunError> {
                if context.stop.load(Ordering::Relaxed) {
                    return Err(RunError::Interrupted);
                }
                let (saliency, path) = context.saliency(model, benchmark, &calibration[benchmark], tokens)?;
                if tokens == experiment.saliency.tokens {
                    saliency_files.push((format!("{}-{benchmark}.json", model.name), path));
                    traced.insert(benchmark.to_owned(), (saliency.traced, saliency.traced + saliency.without_role));
                }
                done += 1;
                context.progress.update(done, total, &format!("{} · {benchmark}", model.name));
                Ok(saliency.top(k))
            };
        let mut candidate_sets = Vec::new();
        for model in &candidates {
            let mut by_benchmark = BTreeMap::new();
            for (benchmark, _) in &in_domain {
                let set = sets(context, model, &benchmark.id, experiment.saliency.tokens)?;
                by_benchmark.insert(benchmark.id.clone(), set);
            }
            candidate_sets.push(Candidate { name: model.name.clone(), sets: by_benchmark });
        }
        let mut expert_sets = BTreeMap::new();
        let mut response_sets = Vec::new();
        for (benchmark, expert) in &in_domain {
            let Some((_, model)) = experts.iter().find(|(_, p)| p.name == *expert) else { continue };
            let set = sets(context, model, &benchmark.id, experiment.saliency.tokens)?;
            expert_sets.insert(benchmark.id.clone(), ((*expert).to_owned(), set));
            response_sets.push(sets(context, model, &benchmark.id, Tokens::Response)?);
        }
        let role_sets: Vec<NeuronSet> = expert_sets.values().map(|(_, s)| s.clone()).collect();
        Ok((candidate_sets, expert_sets, (union_overlap(&role_sets), union_overlap(&response_sets))))
    })?;

    let only_sets = expert_sets.iter().map(|(b, (_, set))| (b.clone(), set.clone())).collect();
    let selection = select(&candidate_sets, &only_sets);
    context.progress.note(&format!("selected `{}` by activation overlap", selection.chosen));
    let backbone_at = candidates.iter().position(|c| c.name == selection.chosen).unwrap_or(0);

    let diagnosis = context.stage("diagnose", |context| {
        let mut signals = Vec::new();
        for (benchmark, expert) in &in_domain {
            let Some((_, expert)) = experts.iter().find(|(_, p)| p.name == *expert) else { continue };
            let count = experiment.tasks.dev;
            let ours = context.play_model(&candidates[backbone_at], &benchmark.suites, Split::Dev, (count, 1))?;
            let theirs = context.play_model(expert, &benchmark.suites, Split::Dev, (count, 1))?;
            signals.push(signal(&outputs::benchmark(benchmark), &ours, &theirs));
        }
        Ok(diagnose(signals, &experiment.diagnosis))
    })?;

    let backbone = &candidates[backbone_at];
    let sets = &candidate_sets[backbone_at].sets;
    let (plan, arm) = context.stage("transplant", |context| {
        let plan = plan(&diagnosis.weak, sets, &expert_sets, experiment.transplant.protect);
        let donors: Vec<_> = experts.iter().map(|(_, p)| (p.name.as_str(), p.digest.as_str())).collect();
        let dir = context.store.place("arm", &(backbone.digest.as_str(), &donors, &plan));
        if !dir.exists() {
            let card = outputs::cards::arm(experiment, &backbone.name, &plan);
            let donors = experts.iter().map(|(c, p)| (p.name.clone(), c)).collect();
            plan.apply(&Checkpoint::open(&backbone.dir)?, &donors, &dir, SHARD, &card)?;
        }
        Ok((plan, open_checkpoint("result", "arm", &dir)?.1))
    })?;

    let mut energy = Vec::new();
    for (expert, played) in &experts {
        energy.push((played.name.clone(), task_vector_energy(&base, expert)?));
    }
    let mut models = vec![base_played];
    models.extend(experts.into_iter().map(|(_, p)| p));
    models.append(&mut candidates);
    models.push(arm);
    let test = context.stage("evaluate", |context| {
        let mut suites: Vec<String> = Vec::new();
        for suite in experiment.benchmark.iter().flat_map(|b| &b.suites) {
            if !suites.contains(suite) {
                suites.push(suite.clone());
            }
        }
        let mut test = BTreeMap::new();
        for model in &models {
            test.insert(
                model.name.clone(),
                context.play_model(model, &suites, Split::Test, (experiment.tasks.test, 1))?,
            );
        }
        Ok(test)
    })?;
    Ok(Results {
        models,
        test,
        selection,
        diagnosis,
        plan,
        energy,
        saliency_files,
        logs: std::mem::take(&mut context.logs),
        overlap,
        timings: std::mem::take(&mut context.timings),
        traced,
    })
}

fn signal(benchmark: &rolegraft_report::Benchmark, ours: &[Episode], theirs: &[Episode]) -> Signal {
    let score = |episodes: &[Episode]| ModelScores::new("", episodes).score(benchmark).unwrap_or(0.0);
    let rates = |episodes: &[Episode]| -> FailureRates { failure_rates(episodes) };
    let (a, b) = (rates(ours), rates(theirs));
    Signal {
        benchmark: benchmark.id.clone(),
        backbone: score(ours),
        expert: score(theirs),
        backbone_violations: a.turn_violations,
        expert_violations: b.turn_violations,
        backbone_blocked: a.blocked,
        expert_blocked: b.blocked,
    }
}

/// Shares of a task vector's squared norm: attention, MLP, embedding and head, norms.
fn task_vector_energy(base: &Checkpoint, expert: &Checkpoint) -> Result<[f64; 4], RunError> {
    let mut parts = [0.0; 4];
    let names: Vec<String> = base.tensors().filter(|(_, t)| t.dtype.is_float()).map(|(n, _)| n.to_owned()).collect();
    for name in names {
        let (a, b) = (base.f32(&name)?, expert.f32(&name)?);
        let energy: f64 = a.iter().zip(&b).map(|(x, y)| f64::from(y - x).powi(2)).sum();
        let part = match name.as_str() {
            n if n.contains("norm") => 3,
            n if n.contains(".self_attn.") => 0,
            n if n.contains(".mlp.") => 1,
            _ => 2,
        };
        parts[part] += energy;
    }
    let total = parts.iter().sum::<f64>().max(f64::MIN_POSITIVE);
    Ok(parts.map(|p| p / total))
}
