//! The subcommands: options to calls.

use crate::talk::{Reporter, say, stop_flag};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use rolegraft_nano::build::{Progress as NanoProgress, build, write_tasks};
use rolegraft_pipeline::{EngineKind, Experiment, Progress, Solo, Split, evaluate, rescore, run};
use rolegraft_spans::Format;
use serde_json::{Value, json};
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;

/// Flags shared by commands that write results.
#[derive(Args)]
pub(crate) struct Results {
    /// Where results land: `cache/` and `runs/NAME/`.
    #[arg(long, default_value = "results", env = "ROLEGRAFT_RESULTS")]
    results: PathBuf,
}

/// Engines by name.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Engine {
    /// mistral.rs in process.
    Mistralrs,
    /// The tracer's decoder: exact, for small models.
    Candle,
}

impl From<Engine> for EngineKind {
    fn from(engine: Engine) -> Self {
        match engine {
            Engine::Mistralrs => Self::Mistralrs,
            Engine::Candle => Self::Candle,
        }
    }
}

#[derive(Args)]
pub(crate) struct Run {
    /// The experiment file.
    experiment: PathBuf,
    #[command(flatten)]
    results: Results,
    /// Play with this engine instead of the file's.
    #[arg(long)]
    engine: Option<Engine>,
}

impl Run {
    pub(crate) fn execute(&self) -> Result<ExitCode> {
        let mut experiment = Experiment::read(&self.experiment)?;
        if let Some(engine) = self.engine {
            experiment.engine = engine.into();
        }
        let reporter = Reporter::new();
        let outcome = run(&experiment, &self.results.results, stop_flag()?, &reporter);
        reporter.done();
        let summary = outcome?;
        say(&summary.tables);
        say(&format!("Results in {}; open {}", summary.dir.display(), summary.dir.join("report.html").display()));
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum SplitName {
    Calibration,
    Dev,
    Test,
}

#[derive(Args)]
pub(crate) struct Eval {
    /// A checkpoint directory, or an endpoint as `http://HOST/v1#MODEL` (several: separated by commas).
    #[arg(long)]
    model: String,
    /// The suite: a folder under --suites.
    #[arg(long)]
    suite: String,
    /// Folder of the suites' folders.
    #[arg(long, default_value = "benchmarks")]
    suites: PathBuf,
    /// Play the official tasks in this folder (tau-retail, tau-airline) instead of the built-in ones. The user is
    /// scripted: scores are not comparable with published ones.
    #[arg(long, env = "ROLEGRAFT_DATA")]
    data: Option<PathBuf>,
    /// Which tasks.
    #[arg(long, value_enum, default_value = "test")]
    split: SplitName,
    /// Only the first N tasks.
    #[arg(short, long)]
    n: Option<usize>,
    /// Episodes a task.
    #[arg(long, default_value_t = 1)]
    trials: u32,
    /// Seed of every draw.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// What plays a checkpoint.
    #[arg(long, value_enum, default_value = "mistralrs")]
    engine: Engine,
    /// Engines side by side (0: one a core).
    #[arg(long, default_value_t = 0)]
    engines: usize,
    /// Episode log; an existing one is resumed.
    #[arg(long)]
    log: PathBuf,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

impl Eval {
    pub(crate) fn execute(&self) -> Result<ExitCode> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let solo = Solo {
            model: &self.model,
            suites: &self.suites,
            suite: &self.suite,
            data: self.data.as_deref(),
            split: match self.split {
                SplitName::Calibration => Split::Calibration,
                SplitName::Dev => Split::Dev,
                SplitName::Test => Split::Test,
            },
            tasks: self.n,
            trials: self.trials,
            seed: self.seed,
            engine: self.engine.into(),
            engines: if self.engines == 0 { cores } else { self.engines },
        };
        let reporter = Reporter::new();
        let outcome = evaluate(&solo, &self.log, &stop_flag()?, &reporter);
        reporter.done();
        let result = outcome?;
        let kinds: Vec<String> =
            result.rates.kinds.iter().map(|(k, r)| format!("{} {:.1} %", k.as_str(), 100.0 * r)).collect();
        if self.json {
            let kinds: serde_json::Map<String, Value> =
                result.rates.kinds.iter().map(|(k, r)| (k.as_str().to_owned(), json!(r))).collect();
            say(&json!({"suite": self.suite, "score": result.score, "episodes": result.rates.episodes,
                        "turn_violations": result.rates.turn_violations, "kinds": kinds})
            .to_string());
        } else {
            say(&format!(
                "{} {:.1} ({} episodes; turns with a violation {:.1} %: {})",
                self.suite,
                result.score,
                result.rates.episodes,
                100.0 * result.rates.turn_violations,
                kinds.join(", ")
            ));
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Args)]
pub(crate) struct Score {
    /// An episode log (JSONL).
    log: PathBuf,
    /// Folder of the suites' folders.
    #[arg(long, default_value = "benchmarks")]
    suites: PathBuf,
}

impl Score {
    pub(crate) fn execute(&self) -> Result<ExitCode> {
        let results = rescore(&self.suites, &self.log)?;
        let differ: Vec<_> = results.iter().filter(|r| !r.same || r.recorded != r.now).collect();
        for r in &differ {
            say(&format!(
                "{} {}: recorded {}, now {}{}",
                r.key.suite,
                r.key.task,
                r.recorded,
                r.now,
                if r.same { "" } else { ", and its turns are read differently" }
            ));
        }
        let mean = 100.0 * results.iter().map(|r| r.now).sum::<f64>() / results.len().max(1) as f64;
        say(&format!("score {mean:.1} over {} episodes", results.len()));
        say(&format!("{} passed, {} failed", results.len() - differ.len(), differ.len()));
        Ok(if differ.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

#[derive(Args)]
pub(crate) struct Parse {
    /// A format's name, or the path of a format file.
    #[arg(long)]
    format: String,
}

impl Parse {
    pub(crate) fn execute(&self) -> Result<ExitCode> {
        let format = if self.format.ends_with(".toml") {
            Format::load(Path::new(&self.format))?
        } else {
            Format::builtin(&self.format)?
        };
        for (i, line) in std::io::stdin().lock().lines().enumerate() {
            let line = line.with_context(|| format!("stdin, line {}: not UTF-8", i + 1))?;
            let value: Value =
                serde_json::from_str(&line).with_context(|| format!("stdin, line {}: not JSON", i + 1))?;
            let Some(reply) = value.as_str().or_else(|| value["reply"].as_str()) else {
                bail!("stdin, line {}: neither a string nor an object with `reply`", i + 1);
            };
            say(&serde_json::to_string(&format.read(reply, None))?);
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Subcommand)]
pub(crate) enum Nano {
    /// Train the pool (resumable; about half an hour on two cores).
    Build {
        /// Where the checkpoints go.
        #[arg(long, default_value = "benchmarks/nano-pool")]
        out: PathBuf,
        /// Seed of data and weights.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Write the suites' task files.
    Tasks {
        /// Folder of the suites' folders.
        #[arg(long, default_value = "benchmarks")]
        suites: PathBuf,
        /// Seed of the tasks.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Tasks a split.
        #[arg(long, default_value_t = 300)]
        count: u64,
    },
}

impl Nano {
    pub(crate) fn execute(&self) -> Result<ExitCode> {
        match self {
            Self::Build { out, seed } => {
                let reporter = Reporter::new();
                let stop = stop_flag()?;
                let mut member = None;
                let mut report = |p: NanoProgress| {
                    if member != Some(p.member) {
                        member = Some(p.member);
                        reporter.stage(&format!("training {}", p.member.id()));
                    }
                    reporter.update(p.tokens.min(p.of) as usize, p.of as usize, &format!("tokens, loss {:.3}", p.loss));
                    !stop.load(Ordering::Relaxed)
                };
                let outcome = build(out, rolegraft_nano::seed(*seed), &mut report);
                reporter.done();
                match outcome {
                    Err(rolegraft_nano::build::BuildError::Interrupted) => {
                        eprintln!("interrupted; run the same command to go on");
                        Ok(ExitCode::from(130))
                    }
                    other => {
                        other?;
                        say(&format!("The pool is in {}", out.display()));
                        Ok(ExitCode::SUCCESS)
                    }
                }
            }
            Self::Tasks { suites, seed, count } => {
                write_tasks(suites, rolegraft_nano::seed(*seed), *count)?;
                say(&format!("Tasks are in {}/*/nano", suites.display()));
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}
