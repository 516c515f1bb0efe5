//! `rolegraft calibrate`, `trace`, `select`, `diagnose` and `transplant`: the loop's arrows one at a time.

use crate::commands::{ChatFlags, EndpointFlags, Engine, at_least_one, format_named};
use crate::suites::{PLAYING, SuiteFlags};
use crate::talk::{Reporter, note, say, stop_flag};
use anyhow::{Context, Result, bail};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgGroup, Args, ValueEnum};
use rolegraft_pipeline::artefact;
use rolegraft_pipeline::machine::Machine;
use rolegraft_pipeline::stages::diagnose::Diagnosed;
use rolegraft_pipeline::steps::{self, Repair};
use rolegraft_pipeline::{
    Bytes, ChatArguments, Compute, DeviceName, DiagnosisRules, Endpoints, Evidence, Precision, Protect, Runtime, Shift,
    Solo, Split, TokenWeights, Tokens, evaluate, import, play_solutions, write_log,
};
use rolegraft_suites::Alone;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What a step may use here.
fn on_machine<T>(
    reporter: &Reporter,
    chat: &ChatArguments,
    (compute, precision): (Compute, Precision),
    work: impl FnOnce(&Machine<'_>) -> std::result::Result<T, rolegraft_pipeline::RunError>,
) -> Result<T> {
    let runtime = Runtime::new()?;
    let (engine, stop) = (Engine::Candle.into(), stop_flag()?);
    let (runtime, endpoints) = (&runtime, &Endpoints::default());
    let machine = Machine::alone(runtime, stop, reporter, engine, chat, endpoints).computing(compute, precision);
    let outcome = work(&machine);
    reporter.done();
    Ok(outcome?)
}

/// A parser of the names in `all`.
fn one_of<T: Copy + Send + Sync + 'static>(
    all: &'static [T],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(all.iter().map(|one| name(*one)))
        .try_map(move |text| all.iter().copied().find(|one| name(*one) == text).ok_or("unknown name"))
}

/// `NAME=REST`.
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, rest)) if !name.is_empty() && !rest.is_empty() => Ok((name.to_owned(), rest.to_owned())),
        _ => Err("NAME=VALUE is expected".into()),
    }
}

/// `BENCHMARK=FILE`.
fn of_benchmark(text: &str) -> Result<(String, PathBuf), String> {
    pair(text).map(|(name, rest)| (name, rest.into()))
}

/// `NAME=BENCHMARK=FILE`.
fn of_candidate(text: &str) -> Result<(String, String, PathBuf), String> {
    let (name, rest) = pair(text).map_err(|_| "NAME=BENCHMARK=FILE is expected".to_owned())?;
    let (benchmark, file) = pair(&rest).map_err(|_| "NAME=BENCHMARK=FILE is expected".to_owned())?;
    Ok((name, benchmark, file.into()))
}

/// `BENCHMARK=SUITE,SUITE`.
fn of_suites(text: &str) -> Result<(String, Vec<String>), String> {
    pair(text).map(|(name, rest)| (name, rest.split(',').map(str::to_owned).collect()))
}

#[derive(Args)]
#[command(group = ArgGroup::new("what").required(true).args(["logs", "suite"]))]
pub(crate) struct Calibrate {
    /// Trajectories to turn into tokens: episode logs (needs --model).
    #[arg(requires = "model")]
    logs: Vec<PathBuf>,
    /// Make trajectories of this suite: a folder under --suites.
    #[arg(long, conflicts_with = "logs")]
    suite: Option<String>,
    /// Let this model play the calibration tasks, instead of their own solutions: a checkpoint directory or an endpoint.
    #[arg(long, requires = "suite", conflicts_with = "from")]
    expert: Option<String>,
    /// Take trajectories from elsewhere: episode logs, JSONL of OpenAI's `messages` or ShareGPT's `conversations`, results
    /// of tau2, `.eval` logs of inspect.
    #[arg(long, num_args = 1.., requires = "suite")]
    from: Vec<PathBuf>,
    /// The checkpoint whose tokenizer and template are used.
    #[arg(long, requires = "logs")]
    model: Option<PathBuf>,
    /// Find spans with this reply format (a name or a file): instead of those that are logged, or of the suite's format.
    #[arg(long)]
    format: Option<String>,
    /// The benchmark that the tokens calibrate; the logs' suite if absent.
    #[arg(long, requires = "logs")]
    benchmark: Option<String>,
    #[command(flatten)]
    setup: SuiteFlags<PLAYING>,
    /// Only the first N tasks.
    #[arg(short, long, value_parser = at_least_one)]
    n: Option<usize>,
    /// Trajectories a task, where an expert plays.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    trajectories: u32,
    /// Seed of every draw.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// What plays a checkpoint.
    #[arg(long, value_enum, default_value = "mistralrs")]
    engine: Engine,
    /// Engines side by side (0: one a core).
    #[arg(long, default_value_t = 0)]
    engines: usize,
    /// Where a checkpoint is played: auto, cpu, cuda:N, metal:N.
    #[arg(long, default_value = "auto")]
    device: DeviceName,
    #[command(flatten)]
    chat: ChatFlags,
    #[command(flatten)]
    endpoints: EndpointFlags,
    /// Where the trajectories (an episode log) or the tokens (`.calibration.jsonl`) go.
    #[arg(long)]
    out: PathBuf,
}

impl Calibrate {
    pub(crate) fn execute(&self) -> Result<ExitCode> {
        let reporter = Reporter::new();
        let chat = self.chat.arguments()?;
        if let Some(model) = &self.model {
            let format = self.format.as_deref().map(format_named).transpose()?;
            let set = on_machine(&reporter, &chat, Default::default(), |machine| {
                let benchmark = self.benchmark.as_deref();
                steps::tokenize(machine, &self.logs, model, benchmark, format.as_ref(), &self.out)
            })?;
            let tokens: usize = set.runs.iter().map(|run| run.ids.len()).sum();
            let role: usize = set.runs.iter().map(|run| run.role.len()).sum();
            say(&format!("{} contexts, {tokens} tokens, {role} of roles, in {}", set.runs.len(), self.out.display()));
            return Ok(ExitCode::SUCCESS);
        }
        let suite = self.suite.as_deref().unwrap_or_default();
        if !self.from.is_empty() {
            return self.import(suite);
        }
        let own = self.format.as_deref().map(|format| ("format", format));
        let setup = self.setup.resolve(own.as_slice())?;
        let solo = Solo {
            model: self.expert.as_deref().unwrap_or_default(),
            suite,
            setup: setup.as_setup(),
            person: None,
            split: Split::Calibration,
            tasks: self.n,
            trials: self.trajectories,
            seed: self.seed,
            engine: self.engine.into(),
            engines: self.engines,
            device: self.device,
            chat: &chat,
            endpoints: &self.endpoints.over(Endpoints::default())?,
        };
        let play = if self.expert.is_some() { evaluate } else { play_solutions };
        let played = play(&solo, &self.out, &stop_flag()?, &reporter);
        reporter.done();
        say(&format!("{} trajectories in {}", played?.len(), self.out.display()));
        Ok(ExitCode::SUCCESS)
    }

    fn import(&self, suite: &str) -> Result<ExitCode> {
        let (named, library);
        let format = match &self.format {
            Some(name) => {
                named = format_named(name)?;
                &named
            }
            None => {
                library = self.setup.resolve(&[])?.as_setup().open(suite, &Alone)?;
                library.suite.format()
            }
        };
        let (mut episodes, mut unusable, mut with_tools) = (Vec::new(), 0, 0);
        for (at, path) in self.from.iter().enumerate() {
            if self.from[..at].contains(path) {
                bail!("`{}` is given twice; give each file once", path.display());
            }
            let found = import(path, suite, format)?;
            for (at, reason) in &found.unusable {
                note(&format!("{at} cannot be used: {reason}"));
            }
            unusable += found.unusable.len();
            with_tools += found.with_tools;
            episodes.extend(found.episodes);
        }
        if with_tools > 0 {
            note(&format!(
                "{with_tools} trajectories announce tools of their own, which prompts made here do not show"
            ));
        }
        if episodes.is_empty() {
            bail!("none of the trajectories can be used ({unusable} cannot)");
        }
        write_log(&self.out, &mut episodes)?;
        let spans: usize = episodes.iter().flat_map(|e| &e.turns).map(|t| t.spans.len()).sum();
        let (all, to) = (episodes.len(), self.out.display());
        say(&format!("{all} trajectories with {spans} spans in {to}; {unusable} could not be used"));
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Args)]
pub(crate) struct Trace {
    /// The checkpoint to trace.
    #[arg(long)]
    model: PathBuf,
    /// Traces by how much each neuron differs from this checkpoint's, times the length of its column of down_proj: for
    /// experts that give to a backbone.
    #[arg(long, value_name = "BACKBONE")]
    against: Option<PathBuf>,
    /// Writes Gram matrices instead: Σ w x xᵀ / Σ w of what goes into every linear map, layer by layer in F64, of which
    /// recipes of `regmean`, `lot` and `esm` merge without the calibration sets (`calibration: {EXPERT: FILE.safetensors}`).
    #[arg(long, conflicts_with_all = ["against", "tokens", "shift", "device", "precision"])]
    gram: bool,
    /// How much tokens count in Gram matrices, by what they are.
    #[arg(long, requires = "gram", value_name = "role=W,reply=W,context=W", default_value_t = TokenWeights::default())]
    weights: TokenWeights,
    /// Calibration sets of one benchmark (with --gram: of any), as `rolegraft calibrate … --model` writes them.
    #[arg(long, required = true, num_args = 1..)]
    calibration: Vec<PathBuf>,
    /// Which tokens count.
    #[arg(long, default_value = "role", value_parser = one_of(&Tokens::ALL, Tokens::as_str))]
    tokens: Tokens,
    /// Which position stands for a token: where the model reads it, or where it predicts it.
    #[arg(long, default_value = "read", value_parser = one_of(&Shift::ALL, Shift::as_str))]
    shift: Shift,
    /// Where it is traced: auto, cpu, cuda:N, metal:N.
    #[arg(long, default_value = "auto")]
    device: DeviceName,
    /// Memory that it may use besides a layer's weights: `12GB` [default: half of what is free].
    #[arg(long)]
    memory: Option<Bytes>,
    /// How exactly a GPU multiplies; F32 is the reference, and what the CPU does.
    #[arg(long, default_value = "f32", value_parser = one_of(&Precision::ALL, Precision::as_str))]
    precision: Precision,
    /// Where the saliency goes (`.saliency.safetensors`); `OUT.partial` keeps what is done until it is whole.
    #[arg(long)]
    out: PathBuf,
}

impl Trace {
    pub(crate) fn execute(&self) -> Result<ExitCode> {
        let reporter = Reporter::new();
        let compute = (Compute { device: self.device, memory: self.memory }, self.precision);
        if self.gram {
            let tokens = on_machine(&reporter, &ChatArguments::default(), compute, |machine| {
                steps::gram(machine, &self.model, &self.calibration, self.weights, &self.out)
            })?;
            say(&format!("Gram matrices of {tokens} tokens in {}", self.out.display()));
            return Ok(ExitCode::SUCCESS);
        }
        let traced = on_machine(&reporter, &ChatArguments::default(), compute, |machine| {
            steps::trace(
                machine,
                (&self.model, self.against.as_deref()),
                &self.calibration,
                self.tokens,
                self.shift,
                &self.out,
            )
        })?;
        let s = &traced.saliency;
        say(&format!(
            "{}: {} tokens of {} trajectories traced, {} without; in {}",
            traced.benchmark,
            s.tokens,
            s.traced,
            s.without_role,
            self.out.display()
        ));
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Args)]
pub(crate) struct Select {
    /// The saliency of the expert that serves a benchmark.
    #[arg(long, required = true, num_args = 1.., value_name = "BENCHMARK=FILE", value_parser = of_benchmark)]
    expert: Vec<(String, PathBuf)>,
    /// A candidate's saliency on a benchmark; ties go to the candidate that is named first.
    #[arg(long, required = true, num_args = 1.., value_name = "NAME=BENCHMARK=FILE", value_parser = of_candidate)]
    candidate: Vec<(String, String, PathBuf)>,
    /// Share of a layer's neurons that are salient.
    #[arg(long, default_value_t = 0.1, value_parser = share)]
    k: f64,
    /// Seed of the intervals.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where the selection goes (JSON).
    #[arg(long)]
    out: Option<PathBuf>,
}

fn share(text: &str) -> Result<f64, String> {
    let k: f64 = text.parse().map_err(|_| "a number is expected".to_owned())?;
    if k > 0.0 && k <= 1.0 { Ok(k) } else { Err("it must lie in (0, 1]".into()) }
}

impl Select {
    pub(crate) fn execute(&self) -> Result<ExitCode> {
        let selected = steps::select(&self.candidate, &self.expert, self.k, self.seed, self.out.as_deref())?;
        let names: Vec<&str> = selected.selection.benchmarks.iter().map(String::as_str).collect();
        say(&format!("candidate\t{}\tmean\t95 % of its resamples", names.join("\t")));
        for ((name, overlaps, mean), interval) in selected.selection.rows.iter().zip(&selected.intervals) {
            let overlaps: Vec<String> = overlaps.iter().map(|o| format!("{o:.3}")).collect();
            let interval = interval.map_or_else(|| "-".into(), |(low, high)| format!("{low:.3} to {high:.3}"));
            say(&format!("{name}\t{}\t{mean:.3}\t{interval}", overlaps.join("\t")));
        }
        say(&format!("selected `{}`", selected.selection.chosen));
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum EvidenceName {
    /// The gap of scores alone.
    Score,
    /// The gap, and more violations or blocked episodes than the expert has.
    Spans,
}

#[derive(Args)]
pub(crate) struct Diagnose {
    /// Episode logs of the backbone on dev tasks.
    #[arg(long, required = true, num_args = 1..)]
    backbone: Vec<PathBuf>,
    /// Episode logs of the experts on the same tasks.
    #[arg(long, required = true, num_args = 1..)]
    expert: Vec<PathBuf>,
    /// Suites that are one benchmark; others are one each.
    #[arg(long, num_args = 1.., value_name = "BENCHMARK=SUITE,SUITE", value_parser = of_suites)]
    benchmark: Vec<(String, Vec<String>)>,
    /// Points that the expert must be ahead.
    #[arg(long, default_value_t = 0.0)]
    min_gap: f64,
    /// Most benchmarks called weak; the largest gaps first.
    #[arg(long)]
    max_weak: Option<usize>,
    /// What makes a benchmark weak.
    #[arg(long, value_enum, default_value = "score")]
    evidence: EvidenceName,
    /// Where the diagnosis goes (JSON).
    #[arg(long)]
    out: Option<PathBuf>,
}

impl Diagnose {
    pub(crate) fn execute(&self) -> Result<ExitCode> {
        let evidence = match self.evidence {
            EvidenceName::Score => Evidence::Score,
            EvidenceName::Spans => Evidence::Spans,
        };
        let max_weak = self.max_weak.unwrap_or(DiagnosisRules::default().max_weak);
        let rules = DiagnosisRules { min_gap: self.min_gap, max_weak, evidence };
        let diagnosed =
            steps::diagnose(&self.backbone, &self.expert, &self.benchmark, &rules, self.out.as_deref())?.diagnosis;
        say("benchmark\tbackbone\texpert\tgap\tweak");
        for s in &diagnosed.signals {
            let weak = if diagnosed.weak.iter().any(|(b, _)| *b == s.benchmark) { "yes" } else { "no" };
            say(&format!("{}\t{:.1}\t{:.1}\t{:+.1}\t{weak}", s.benchmark, s.backbone, s.expert, s.expert - s.backbone));
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum ProtectName {
    /// Neurons salient for any other benchmark.
    Strict,
    /// Those salient for benchmarks that another donor serves.
    OtherDonors,
    /// None.
    None,
}

#[derive(Args)]
#[command(group = ArgGroup::new("where").required(true).args(["out", "dry_run"]))]
pub(crate) struct Transplant {
    /// The checkpoint to repair.
    #[arg(long)]
    backbone: PathBuf,
    /// The expert that serves a benchmark.
    #[arg(long, required = true, num_args = 1.., value_name = "BENCHMARK=DIR", value_parser = of_benchmark)]
    donor: Vec<(String, PathBuf)>,
    /// Saliencies of the backbone and of the donors, on every benchmark; each says whose it is.
    #[arg(long, required = true, num_args = 1..)]
    saliency: Vec<PathBuf>,
    /// What is weak: a diagnosis (JSON), or benchmarks, the weakest first, separated by commas.
    #[arg(long)]
    weak: String,
    /// Whose neurons are left alone.
    #[arg(long, value_enum, default_value = "strict")]
    protect: ProtectName,
    /// Share of a layer's neurons that are salient.
    #[arg(long, default_value_t = 0.1, value_parser = share)]
    k: f64,
    /// Where the plan goes (JSON).
    #[arg(long)]
    plan: Option<PathBuf>,
    /// Say what would be taken from whom, and write no checkpoint.
    #[arg(long)]
    dry_run: bool,
    /// Where the repaired checkpoint goes.
    #[arg(long)]
    out: Option<PathBuf>,
}

impl Transplant {
    pub(crate) fn execute(&self) -> Result<ExitCode> {
        let weak: Vec<(String, f64)> = if Path::new(&self.weak).is_file() {
            artefact::read::<Diagnosed>(Path::new(&self.weak))?.diagnosis.weak
        } else {
            self.weak.split(',').filter(|b| !b.is_empty()).map(|b| (b.to_owned(), 0.0)).collect()
        };
        let out = self.out.as_deref().filter(|_| !self.dry_run);
        if let Some(out) = out
            && out.exists()
        {
            bail!("`{}` is there already; remove it or choose another --out", out.display());
        }
        let repair = Repair {
            backbone: &self.backbone,
            donors: &self.donor,
            saliencies: &self.saliency,
            weak: &weak,
            k: self.k,
            protect: match self.protect {
                ProtectName::Strict => Protect::Strict,
                ProtectName::OtherDonors => Protect::OtherDonors,
                ProtectName::None => Protect::None,
            },
        };
        let planned = steps::transplant(&repair, self.plan.as_deref(), out).context("cannot transplant")?;
        for graft in &planned.plan.grafts {
            let kept: usize = graft.protected_away.iter().sum();
            say(&format!(
                "{}: {} neurons from `{}`, {kept} left alone by protection",
                graft.benchmark,
                graft.neurons.len(),
                graft.donor
            ));
        }
        if planned.plan.grafts.is_empty() {
            say("no benchmark is weak: nothing is transplanted");
        }
        if let Some(out) = out {
            say(&format!("The checkpoint is in {}", out.display()));
        }
        Ok(ExitCode::SUCCESS)
    }
}
