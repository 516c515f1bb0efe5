//! The stages of an experiment, with what they make kept in the store: a stage whose inputs are known already is read.

use crate::artefact::{self, Calibration, CalibrationHead, Document, Traced};
use crate::ask::ask;
use crate::chat::{Rendering, read_template, takes};
use crate::engine::EngineKind;
use crate::engine_error::EngineError;
use crate::error::RunError;
use crate::experiment::{BenchmarkEntry, CandidateEntry, Experiment, Share, Tokens};
use crate::generation::differs;
use crate::host::Players;
use crate::machine::{Machine, Member};
use crate::plain;
use crate::progress::Progress;
use crate::servers::Servers;
use crate::stages::fit::CalibrationOf;
use crate::stages::merge::merge_candidate;
use crate::stages::trace::{Of, Passed, Reading, View};
use crate::stages::{calibrate, evaluate, select, trace, transplant};
use crate::store::{Store, StoreError};
use rolegraft_checkpoint::{Checkpoint, Digest, write_atomic};
use rolegraft_saliency::union_overlap;
use rolegraft_suites::{Library, Split, TaskSet};
use rolegraft_trajectory::{Episode, EpisodeKey, Origin};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// What the stages of one experiment share.
pub(crate) struct Kept<'k> {
    pub(crate) experiment: &'k Experiment,
    pub(crate) store: &'k Store,
    pub(crate) suites: &'k Suites,
    pub(crate) machine: &'k Machine<'k>,
    /// Files of the run by the name that they get in its directory.
    pub(crate) files: Vec<(String, PathBuf)>,
    pub(crate) timings: Vec<(String, f64)>,
    /// What went through models: whose, on which benchmark, how much.
    pub(crate) passes: Vec<(Digest, String, Passed)>,
    /// Whose arithmetic traces are of.
    arithmetic: &'static str,
}

/// Calibration trajectories by benchmark, with their digest.
pub(crate) type Trajectories = BTreeMap<String, (Vec<Episode>, String)>;

/// Where episodes are kept, of which tasks, and what the log says that it belongs to.
struct Logged<'k> {
    library: &'k Library,
    tasks: TaskSet,
    origin: Origin,
    path: PathBuf,
}

/// Models by name, their traces by benchmark.
pub(crate) type ByModel = Vec<(String, BTreeMap<String, select::File>)>;

/// What was traced.
pub(crate) struct Traces {
    /// The candidates' traces.
    pub(crate) candidates: ByModel,
    /// The trace of the expert that serves each benchmark.
    pub(crate) experts: BTreeMap<String, select::File>,
    /// How much the benchmarks' sets share: of role tokens, and of all tokens of replies.
    pub(crate) overlap: (f64, f64),
}

impl<'k> Kept<'k> {
    fn new(experiment: &'k Experiment, store: &'k Store, suites: &'k Suites, machine: &'k Machine<'k>) -> Self {
        let (files, timings, passes) = (Vec::new(), Vec::new(), Vec::new());
        Self { experiment, store, suites, machine, files, timings, passes, arithmetic: machine.arithmetic() }
    }

    /// The same stages on a machine of another seed, or that tells others.
    pub(crate) fn on<'o>(&self, machine: &'o Machine<'o>) -> Kept<'o>
    where
        'k: 'o,
    {
        Kept::new(self.experiment, self.store, self.suites, machine)
    }

    /// A stage: announced, timed, not begun after a stop.
    pub(crate) fn stage<T>(
        &mut self,
        name: &str,
        work: impl FnOnce(&mut Self) -> Result<T, RunError>,
    ) -> Result<T, RunError> {
        self.machine.goes_on()?;
        self.machine.progress.stage(name);
        let begun = Instant::now();
        let result = work(self);
        self.timings.push((name.to_owned(), begun.elapsed().as_secs_f64()));
        result
    }

    fn library(&self, suite: &str) -> Result<&'k Library, RunError> {
        self.suites.opened.get(suite).ok_or_else(|| RunError::UnknownSuite(suite.to_owned()))
    }

    /// Asks every model's chat template whether it takes what the suites say, before anything is done.
    pub(crate) fn check_templates<'m>(&self, models: impl Iterator<Item = &'m Member>) -> Result<(), RunError> {
        for model in models {
            let template = read_template(&model.dir)?;
            let names = self.experiment.suite_names();
            let libraries = names.iter().map(|suite| self.library(suite)).collect::<Result<Vec<_>, _>>()?;
            for library in &libraries {
                takes(&template, &self.experiment.chat, &*library.suite)?;
            }
            if let Some(note) = differs(&model.name, &model.dir, libraries.iter().map(|library| &*library.suite)) {
                self.machine.progress.note(&note);
            }
            if let Some(note) = Rendering::of(&template, &self.experiment.chat)?.note(&model.name) {
                self.machine.progress.note(&note);
            }
        }
        Ok(())
    }

    /// Candidates, merged. Those that are fitted to what the experts do on the benchmarks that they serve need the trajectories.
    pub(crate) fn merges(
        &mut self,
        entries: &[&CandidateEntry],
        base: &Member,
        experts: &[Member],
        trajectories: Option<&Trajectories>,
    ) -> Result<Vec<Member>, RunError> {
        let (machine, served) = (self.machine, served(self.experiment, experts));
        let fitted_to: Vec<_> = trajectories.map_or_else(Vec::new, |all| {
            served.iter().map(|(benchmark, expert)| (*expert, &benchmark.id, &all[&benchmark.id])).collect()
        });
        let head = |(expert, benchmark, (_, said)): &(&Member, &String, &(Vec<Episode>, String))| {
            calibrate::head(machine, &expert.dir, benchmark, said.clone())
        };
        let heads = fitted_to.iter().map(head).collect::<Result<Vec<_>, _>>()?;
        let digests: Vec<&str> = experts.iter().map(|e| e.digest.as_str()).collect();
        let mut candidates = Vec::new();
        for (i, entry) in entries.iter().enumerate() {
            let inputs = (base.digest.as_str(), &digests, &entry.operator, &entry.parameters, entry.seed);
            let dir = match trajectories {
                Some(_) => self.store.place("merge", &(inputs, &heads)),
                None => self.store.place("merge", &inputs),
            };
            if !dir.exists() {
                let mut sets = CalibrationOf::new();
                for (expert, benchmark, (episodes, said)) in &fitted_to {
                    let set = self.calibration(expert, benchmark, (episodes, said))?;
                    sets.entry(expert.name.clone()).or_default().sets.push(set);
                }
                let experts: Vec<(&str, PathBuf)> = experts.iter().map(|e| (e.name.as_str(), e.dir.clone())).collect();
                merge_candidate(entry, ("base", &base.dir), &experts, &sets, &dir, machine)?;
            }
            candidates.push(Member::open("candidate", &entry.name, &dir)?.1);
            machine.progress.update(i + 1, entries.len(), &entry.name);
        }
        Ok(candidates)
    }

    /// A model's episodes on suites.
    pub(crate) fn play(&mut self, model: &Member, suites: &[String], split: Split) -> Result<Vec<Episode>, RunError> {
        let mut all = Vec::new();
        for (log, wanted) in self.played(model, suites, split)? {
            all.extend(evaluate::episodes(&log, &wanted)?);
        }
        Ok(all)
    }

    /// Plays like [`play`](Self::play) and gives the logs: the episodes of all models need not fit into memory.
    pub(crate) fn logs(&mut self, model: &Member, suites: &[String], split: Split) -> Result<Vec<PathBuf>, RunError> {
        Ok(self.played(model, suites, split)?.into_iter().map(|(log, _)| log).collect())
    }

    fn played(
        &mut self,
        model: &Member,
        suites: &[String],
        split: Split,
    ) -> Result<Vec<(PathBuf, Vec<EpisodeKey>)>, RunError> {
        let identity = evaluate::identity(self.machine, model)?;
        let player = evaluate::Player { name: &model.name, identity: &identity, at_once: None };
        let machine = self.machine;
        let mut open = evaluate::opener(machine, model);
        let shares = self.shares(suites, split);
        shares.map(|(suite, share)| self.logged(suite, (split, share), &player, &mut open)).collect()
    }

    /// The same for a model behind a server.
    pub(crate) fn served_logs(
        &mut self,
        (name, address): (&str, &str),
        suites: &[String],
        split: Split,
    ) -> Result<Vec<PathBuf>, RunError> {
        let mut logs = Vec::new();
        for (suite, share) in self.shares(suites, split) {
            let probed = ask(self.machine, address, &*self.library(suite)?.suite)?;
            let identity = evaluate::served_identity(&probed.served);
            let player = evaluate::Player { name, identity: &identity, at_once: None };
            let seated = evaluate::Seated { model: probed.model, served: Some(probed.served) };
            logs.push(self.logged(suite, (split, share), &player, &mut || Ok(seated.clone()))?.0);
        }
        Ok(logs)
    }

    /// How many episodes of a model the store lacks.
    pub(crate) fn lacking_episodes(&self, model: &Member, suites: &[String], split: Split) -> Result<usize, RunError> {
        let identity = evaluate::identity(self.machine, model)?;
        let player = evaluate::Player { name: &model.name, identity: &identity, at_once: None };
        let mut lacking = 0;
        for (suite, share) in self.shares(suites, split) {
            let Logged { tasks, path, .. } = self.log_of(suite, share, &player)?;
            lacking += evaluate::lacking(suite, &tasks, share.trials, &path);
        }
        Ok(lacking)
    }

    /// Ids of the test tasks of every suite.
    pub(crate) fn test_tasks(&self) -> Result<BTreeMap<String, BTreeSet<String>>, RunError> {
        let ids = |(suite, library): (&String, &Library)| {
            let tasks = library.tasks(Split::Test, Some(self.experiment.tasks.of(suite, Split::Test).tasks))?.tasks;
            Ok((suite.clone(), tasks.into_iter().map(|task| task.id).collect()))
        };
        self.suites.opened.iter().map(ids).collect()
    }

    /// What is played of these suites for a split.
    fn shares<'s>(
        &self,
        suites: &'s [String],
        split: Split,
    ) -> impl Iterator<Item = (&'s String, Share)> + use<'s, 'k> {
        let counts = &self.experiment.tasks;
        suites.iter().map(move |suite| (suite, counts.of(suite, split))).filter(|(_, share)| share.tasks > 0)
    }

    fn log_of(&self, suite: &str, share: Share, player: &evaluate::Player<'_>) -> Result<Logged<'k>, RunError> {
        let library = self.library(suite)?;
        let tasks = library.tasks(share.split, Some(share.tasks))?;
        let inputs = evaluate::inputs(player, library, &tasks, self.machine.seed);
        let path = self.store.place("episodes", &inputs).with_extension("jsonl");
        Ok(Logged { library, tasks, origin: evaluate::origin(&inputs, library), path })
    }

    fn logged(
        &mut self,
        suite: &str,
        (split, share): (Split, Share),
        player: &evaluate::Player<'_>,
        open: &mut evaluate::Open<'_>,
    ) -> Result<(PathBuf, Vec<EpisodeKey>), RunError> {
        let Logged { library, tasks, origin, path } = self.log_of(suite, share, player)?;
        let trials = share.trials;
        let wanted = evaluate::played(self.machine, library, tasks, trials, player, (&path, origin), open)?;
        self.files.push((format!("episodes/{}-{suite}-{}.jsonl", split.as_str(), player.name), path.clone()));
        Ok((path, wanted))
    }

    /// The tasks' own solutions, played in the real environments; where tasks come without, what the expert plays.
    pub(crate) fn trajectories(&mut self, suites: &[String], expert: &Member) -> Result<Vec<Episode>, RunError> {
        let (mut all, split) = (Vec::new(), Split::Calibration);
        let identity = evaluate::identity(self.machine, expert)?;
        let player = evaluate::Player { name: &expert.name, identity: &identity, at_once: None };
        // The expert is loaded once for all that it plays.
        let mut open = evaluate::opener(self.machine, expert);
        for (suite, share) in self.shares(suites, split) {
            let tasks = self.library(suite)?.tasks(share.split, Some(share.tasks))?;
            let (log, wanted) = match calibrate::solutions(suite, &tasks) {
                Some(solutions) => {
                    let seated = evaluate::Seated { model: Arc::new(solutions), served: None };
                    // Again, they would be the same.
                    let once = Share { trials: 1, ..share };
                    self.logged(suite, (split, once), &evaluate::ORACLE, &mut || Ok(seated.clone()))?
                }
                None => self.logged(suite, (split, share), &player, &mut open)?,
            };
            all.extend(evaluate::episodes(&log, &wanted)?);
        }
        Ok(all)
    }

    /// A benchmark's trajectories, whose digest is `said`, as a model reads them.
    pub(crate) fn calibration(
        &self,
        model: &Member,
        benchmark: &str,
        (episodes, said): (&[Episode], &str),
    ) -> Result<(PathBuf, Calibration), RunError> {
        let machine = self.machine;
        let path = self.set_path(&calibrate::head(machine, &model.dir, benchmark, said.to_owned())?);
        let make = || calibrate::tokens(machine, &model.dir, benchmark, episodes, None);
        let set = self.store.file(&path, Calibration::read, make, Calibration::encode)?;
        Ok((path, set))
    }

    fn set_path(&self, head: &CalibrationHead) -> PathBuf {
        self.store.place("tokens", head).with_extension("calibration.jsonl")
    }

    /// A model's saliencies on a benchmark's trajectories, whose digest is `said`. What the store lacks is traced in one
    /// pass.
    pub(crate) fn traced(
        &mut self,
        model: &Member,
        benchmark: &str,
        said: (&[Episode], &str),
        readings: &[Reading],
    ) -> Result<Vec<select::File>, RunError> {
        let (shift, machine) = (self.experiment.saliency.shift, self.machine);
        let head = calibrate::head(machine, &model.dir, benchmark, said.1.to_owned())?;
        let set_path = self.set_path(&head);
        let paths: Vec<PathBuf> = readings.iter().map(|reading| self.saliency(model, &head, reading)).collect();
        let mut found: Vec<Option<Traced>> = paths.iter().map(|path| Traced::read(path).ok()).collect();
        let lacking: Vec<usize> = (0..readings.len()).filter(|at| found[*at].is_none()).collect();
        if !lacking.is_empty() {
            let (sets, checkpoint) = ([self.calibration(model, benchmark, said)?], Checkpoint::open(&model.dir)?);
            let wanted: Vec<Reading> = lacking.iter().map(|at| readings[*at]).collect();
            let journal = self.store.place("partial", &(&model.digest, &head, shift, &wanted));
            let of = Of { model: (&checkpoint, &model.digest), against: None };
            let (traced, passed) = trace::readings(machine, of, &sets, &wanted, shift, &journal)?;
            self.passes.push((model.digest.clone(), benchmark.to_owned(), passed));
            for (at, traced) in lacking.into_iter().zip(traced) {
                write_atomic(&paths[at], &traced.encode()).map_err(StoreError::from)?;
                found[at] = Some(traced);
            }
            // It goes when nothing hangs on it any more.
            let _ = std::fs::remove_file(journal);
        }
        if !set_path.exists() {
            self.calibration(model, benchmark, said)?;
        }
        if !self.files.iter().any(|(_, file)| *file == set_path) {
            let named = format!("calibration/{benchmark}.calibration.jsonl");
            let taken = self.files.iter().any(|(name, _)| *name == named);
            let own = format!("calibration/{benchmark}-{}.calibration.jsonl", model.name);
            self.files.push((if taken { own } else { named }, set_path));
        }
        if let Some(at) = readings.iter().position(|r| *r == Reading::whole(self.experiment.saliency.tokens)) {
            let name = format!("saliency/{}-{benchmark}.saliency.safetensors", model.name);
            self.files.push((name, paths[at].clone()));
        }
        Ok(paths.into_iter().zip(found.into_iter().flatten()).collect())
    }

    /// By how much a donor's neurons differ from a backbone's on a benchmark's trajectories, whose digest is `said`.
    pub(crate) fn change(
        &mut self,
        (donor, backbone): (&Member, &Member),
        benchmark: &str,
        said: (&[Episode], &str),
        tokens: Tokens,
    ) -> Result<select::File, RunError> {
        let (shift, machine) = (self.experiment.saliency.shift, self.machine);
        let head = calibrate::head(machine, &donor.dir, benchmark, said.1.to_owned())?;
        let inputs = (&donor.digest, &backbone.digest, head, shift, tokens, &self.arithmetic);
        let path = self.store.place("change", &inputs).with_extension("saliency.safetensors");
        let make = || {
            let sets = [self.calibration(donor, benchmark, said)?];
            let (checkpoint, other) = (Checkpoint::open(&donor.dir)?, Checkpoint::open(&backbone.dir)?);
            let of = Of { model: (&checkpoint, &donor.digest), against: Some((&other, &backbone.digest)) };
            let journal = self.store.place("partial", &inputs);
            let traced = trace::trace(machine, of, &sets, tokens, shift, &journal)?;
            // It goes when nothing hangs on it any more.
            let _ = std::fs::remove_file(journal);
            Ok::<_, RunError>(traced)
        };
        let traced = self.store.file(&path, Traced::read, make, Traced::encode)?;
        self.files.push((format!("saliency/{}-{benchmark}-change.saliency.safetensors", donor.name), path.clone()));
        Ok((path, traced))
    }

    /// Which of a model's saliencies the store lacks.
    pub(crate) fn lacking_traces(
        &self,
        model: &Member,
        benchmark: &str,
        said: &str,
        readings: &[Reading],
    ) -> Result<Vec<Reading>, RunError> {
        let head = calibrate::head(self.machine, &model.dir, benchmark, said.to_owned())?;
        let lacks = |reading: &&Reading| !self.saliency(model, &head, reading).exists();
        Ok(readings.iter().filter(lacks).copied().collect())
    }

    /// Where a saliency is kept.
    fn saliency(&self, model: &Member, head: &CalibrationHead, reading: &Reading) -> PathBuf {
        let (shift, tokens) = (self.experiment.saliency.shift, reading.tokens);
        let view = (reading.view != View::Whole).then_some(reading.view);
        let inputs = (&model.digest, head, shift, tokens, view, &self.arithmetic);
        self.store.place("saliency", &inputs).with_extension("saliency.safetensors")
    }

    /// Saliencies of models on benchmarks, a file a reading.
    pub(crate) fn read(
        &mut self,
        pairs: &[(&Member, &BenchmarkEntry)],
        trajectories: &Trajectories,
        readings: &[Reading],
        tell: impl Fn(usize, usize, &str),
    ) -> Result<Vec<Vec<select::File>>, RunError> {
        let mut all = Vec::new();
        for (at, (model, BenchmarkEntry { id, .. })) in pairs.iter().enumerate() {
            let (episodes, said) = &trajectories[id];
            all.push(self.traced(model, id, (episodes, said), readings)?);
            tell(at + 1, pairs.len(), &format!("{} · {id}", model.name));
        }
        Ok(all)
    }

    /// Every candidate's and every serving expert's saliency, by benchmark.
    pub(crate) fn traces(
        &mut self,
        candidates: &[Member],
        served: &[(&BenchmarkEntry, &Member)],
        trajectories: &Trajectories,
        tokens: Tokens,
    ) -> Result<Traces, RunError> {
        let k = self.experiment.saliency.k;
        let of_experts: Vec<_> = served.iter().map(|(benchmark, expert)| (*expert, *benchmark)).collect();
        let readings = [tokens, Tokens::Reply].map(Reading::whole);
        let progress = self.machine.progress;
        let tell = |done: usize, of: usize, what: &str| progress.update(done, of, what);
        let (mut experts, mut replies) = (BTreeMap::new(), Vec::new());
        for ((benchmark, _), mut files) in served.iter().zip(self.read(&of_experts, trajectories, &readings, tell)?) {
            replies.push(files.swap_remove(1).1.saliency.top(k));
            experts.insert(benchmark.id.clone(), files.swap_remove(0));
        }
        let candidates = self.of_candidates(candidates, served, trajectories, readings[0], tell)?;
        let roles: Vec<_> = experts.values().map(|(_, t)| t.saliency.top(k)).collect();
        let overlap = (union_overlap(&roles), union_overlap(&replies));
        Ok(Traces { candidates, experts, overlap })
    }

    /// Candidates by name, their saliencies of one reading by benchmark.
    pub(crate) fn of_candidates(
        &mut self,
        candidates: &[Member],
        served: &[(&BenchmarkEntry, &Member)],
        trajectories: &Trajectories,
        reading: Reading,
        tell: impl Fn(usize, usize, &str),
    ) -> Result<ByModel, RunError> {
        let mut files = self.read(&pairs(candidates, served), trajectories, &[reading], tell)?.into_iter().flatten();
        let by_benchmark = |model: &Member| {
            let files = served.iter().zip(&mut files).map(|((benchmark, _), file)| (benchmark.id.clone(), file));
            (model.name.clone(), files.collect())
        };
        Ok(candidates.iter().map(by_benchmark).collect())
    }

    /// A document of the run, which also gets a file in its directory.
    pub(crate) fn document<D: Document>(
        &mut self,
        name: &str,
        inputs: &impl serde::Serialize,
        make: impl FnOnce() -> Result<D, RunError>,
    ) -> Result<D, RunError> {
        let path = self.store.place(D::KIND, inputs).with_extension("json");
        let document = self.store.file(&path, artefact::read, make, artefact::encode)?;
        self.files.push((name.to_owned(), path));
        Ok(document)
    }

    /// The repaired checkpoint.
    pub(crate) fn transplanted(
        &mut self,
        planned: &transplant::Planned,
        backbone: &Member,
        experts: &[(Checkpoint, Member)],
    ) -> Result<Member, RunError> {
        let dir = self.store.place("arm", planned);
        if !dir.exists() {
            let donors = experts.iter().map(|(checkpoint, member)| (member.name.clone(), checkpoint)).collect();
            transplant::apply(planned, &Checkpoint::open(&backbone.dir)?, &donors, &dir)?;
        }
        Ok(Member::open("result", "arm", &dir)?.1)
    }
}

/// Sets up what the stages of an experiment share, and does some work with it.
///
/// # Errors
/// What the work says, or what keeps it from beginning.
pub(crate) fn with_stages<T>(
    experiment: &Experiment,
    results: &Path,
    stop: Arc<AtomicBool>,
    progress: &dyn Progress,
    work: impl FnOnce(&mut Kept<'_>) -> Result<T, RunError>,
) -> Result<T, RunError> {
    let store = Store::new(results);
    let _lock = store.lock(&experiment.name)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(RunError::Runtime)?;
    let mut experiment = experiment.clone();
    let suites = open_suites(&mut experiment, &runtime, progress)?;
    let (engine, engines, seed) = (experiment.engine, experiment.engines, experiment.seed);
    let endpoints = &experiment.endpoints();
    let servers = match engine {
        EngineKind::Server => {
            let rules = experiment.server.as_ref().ok_or(EngineError::NoServerTable)?;
            Some(Servers::new(rules, &store.servers(), stop.clone())?)
        }
        _ => None,
    };
    let (chat, servers) = (&experiment.chat.clone(), servers.as_ref());
    let (compute, precision) = (experiment.compute, experiment.trace.precision);
    let machine = Machine {
        runtime: &runtime,
        stop,
        progress,
        engine,
        engines,
        compute,
        precision,
        chat,
        servers,
        endpoints,
        seed,
    };
    plain::write(&mut experiment, &store, &machine)?;
    work(&mut Kept::new(&experiment, &store, &suites, &machine))
}

/// The suites of an experiment.
pub(crate) struct Suites {
    opened: BTreeMap<String, Library>,
    /// Titles of benchmarks that are left out, with what this machine lacks for them.
    pub(crate) left_out: Vec<(String, String)>,
}

/// Every suite of an experiment. A benchmark is left out, with a note, where the machine lacks something for it.
///
/// # Errors
/// If a suite cannot be opened or has too few tasks, or no benchmark is left that an expert serves.
fn open_suites(
    experiment: &mut Experiment,
    runtime: &tokio::runtime::Runtime,
    progress: &dyn Progress,
) -> Result<Suites, RunError> {
    let (mut suites, mut wanted, mut left_out) = (BTreeMap::new(), Vec::new(), Vec::new());
    let (benchmarks, engine, chat) = (std::mem::take(&mut experiment.benchmark), experiment.engine, &experiment.chat);
    let endpoint = &experiment.user_endpoint;
    let device = experiment.compute.device;
    let host = Players { runtime: runtime.handle(), engine, device, chat, endpoint, progress, person: None };
    for benchmark in benchmarks {
        let mut lacking = None;
        for name in &benchmark.suites {
            let library = experiment.setup().open(name, &host)?;
            library.notes.iter().for_each(|note| progress.note(note));
            lacking = lacking.or(library.lacks.clone());
            // What is missing is said now, not after hours of play.
            if let Some(error) = experiment.tasks.lacking(&benchmark, name, &library).next() {
                return Err(error.into());
            }
            suites.insert(name.clone(), library);
        }
        match lacking {
            None => wanted.push(benchmark),
            Some(lacks) => {
                let shows = match &benchmark.expert {
                    Some(expert) => format!("; what `{expert}` brings to it, this run does not show"),
                    None => String::new(),
                };
                progress.note(&format!("not run: benchmark {} lacks {lacks}{shows}", benchmark.id));
                left_out.push((benchmark, lacks));
            }
        }
    }
    let serves = |benchmark: &BenchmarkEntry| benchmark.expert.is_some() || experiment.candidate.is_empty();
    if !wanted.iter().any(serves)
        && let Some((benchmark, lacks)) = left_out.iter().find(|(benchmark, _)| serves(benchmark))
    {
        return Err(RunError::Lacking { benchmark: benchmark.id.clone(), lacks: lacks.clone() });
    }
    experiment.benchmark = wanted;
    let left_out = left_out.into_iter().map(|(benchmark, lacks)| (benchmark.title, lacks)).collect();
    Ok(Suites { opened: suites, left_out })
}

/// Every model with every served benchmark.
pub(crate) fn pairs<'m>(
    models: &'m [Member],
    served: &[(&'m BenchmarkEntry, &'m Member)],
) -> Vec<(&'m Member, &'m BenchmarkEntry)> {
    models.iter().flat_map(|model| served.iter().map(move |(benchmark, _)| (model, *benchmark))).collect()
}

/// The benchmarks that an expert serves, with it.
pub(crate) fn served<'e>(experiment: &'e Experiment, experts: &'e [Member]) -> Vec<(&'e BenchmarkEntry, &'e Member)> {
    let expert = |b: &BenchmarkEntry| experts.iter().find(|e| Some(&e.name) == b.expert.as_ref());
    experiment.benchmark.iter().filter_map(|b| Some((b, expert(b)?))).collect()
}
