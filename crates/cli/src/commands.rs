//! The subcommands: options to calls.

use crate::events::EventFlags;
use crate::suites::{HERE, suites_folder};
use crate::talk::{Reporter, say, stop_flag, tell};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use rolegraft_nano::build::{Progress as NanoProgress, build, write_tasks};
use rolegraft_nano::builtin::{EXPERIMENTS, benchmarks};
use rolegraft_pipeline::{Bytes, ChatArguments, DeviceName, Endpoints, EngineKind, Experiment, Progress, run};
use rolegraft_spans::Format;
use serde_json::Value;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;

/// Engines by name.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Engine {
    /// mistral.rs in process.
    Mistralrs,
    /// The tracer's decoder: exact, for small models.
    Candle,
    /// Servers by the experiment's [server]: `run` and `ablate` alone.
    Server,
}

impl From<Engine> for EngineKind {
    fn from(engine: Engine) -> Self {
        match engine {
            Engine::Mistralrs => Self::Mistralrs,
            Engine::Candle => Self::Candle,
            Engine::Server => Self::Server,
        }
    }
}

/// How conversations are rendered for checkpoints.
#[derive(Args)]
pub(crate) struct ChatFlags {
    /// An argument of the checkpoint's chat template: `enable_thinking=false`. `date=2026-11-28` is the day that some
    /// templates write; today if absent.
    #[arg(long = "chat", value_name = "KEY=VALUE")]
    chat: Vec<String>,
}

impl ChatFlags {
    /// The arguments alone.
    pub(crate) fn arguments(&self) -> Result<ChatArguments> {
        self.over(ChatArguments::default())
    }
    /// What is said here, on top of `arguments`.
    pub(crate) fn over(&self, mut arguments: ChatArguments) -> Result<ChatArguments> {
        for pair in &self.chat {
            arguments.extend(ChatArguments::parse(pair)?);
        }
        Ok(arguments)
    }
}

/// How servers are asked.
#[derive(Args)]
pub(crate) struct EndpointFlags {
    /// A field of requests that an endpoint wants otherwise: `max_tokens=max_completion_tokens` renames it, `seed=` leaves it
    /// out, `reasoning_effort=low` adds one.
    #[arg(long = "api-field", value_name = "FIELD=VALUE")]
    fields: Vec<String>,
    /// Most requests to an endpoint at once; how many it bears is found out [default: 100].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: Option<u32>,
    /// A checkpoint directory whose tokenizer and chat template are the endpoint's model's: raw text is asked for.
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,
    /// Seconds that an endpoint is waited for that has gone [default: 120].
    #[arg(long, value_name = "SECONDS")]
    patience: Option<u64>,
    /// The same as --api-field for the model that plays the user.
    #[arg(long = "user-api-field", value_name = "FIELD=VALUE")]
    user_fields: Vec<String>,
    /// The same as --concurrency for the model that plays the user.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    user_concurrency: Option<u32>,
}

impl EndpointFlags {
    /// What is said here, on top of `endpoints`.
    pub(crate) fn over(&self, mut endpoints: Endpoints) -> Result<Endpoints> {
        for (rules, fields, flag) in [
            (&mut endpoints.agent, &self.fields, "--api-field"),
            (&mut endpoints.user, &self.user_fields, "--user-api-field"),
        ] {
            for pair in fields {
                rules.fields.change(pair).with_context(|| format!("{flag} {pair}"))?;
            }
        }
        for (rules, most) in [(&mut endpoints.agent, self.concurrency), (&mut endpoints.user, self.user_concurrency)] {
            rules.concurrency = most.map_or(rules.concurrency, |most| most as usize);
        }
        for rules in [&mut endpoints.agent, &mut endpoints.user] {
            rules.patience = self.patience.unwrap_or(rules.patience);
        }
        if self.tokenizer.is_some() {
            endpoints.agent.tokenizer.clone_from(&self.tokenizer);
        }
        Ok(endpoints)
    }
}

/// An experiment, and what of it is said on the command line.
#[derive(Args)]
pub(crate) struct ExperimentFlags {
    /// The experiment file, or the name of a built-in one: `nano`.
    experiment: PathBuf,
    /// Where results land: `cache/` and `runs/NAME/`.
    #[arg(long, default_value = "results", env = "ROLEGRAFT_RESULTS")]
    pub(crate) results: PathBuf,
    /// Play with this engine instead of the file's.
    #[arg(long)]
    engine: Option<Engine>,
    /// Play and trace here instead of where the file says: auto, cpu, cuda:N, metal:N.
    #[arg(long)]
    device: Option<DeviceName>,
    /// Trace with so much memory instead of the file's, besides a layer's weights: `12GB` [default: half of what is free].
    #[arg(long)]
    memory: Option<Bytes>,
    #[command(flatten)]
    chat: ChatFlags,
    #[command(flatten)]
    endpoints: EndpointFlags,
}

impl ExperimentFlags {
    /// The experiment as it is to be run.
    pub(crate) fn read(&self) -> Result<Experiment> {
        let mut experiment = Experiment::read(&file_of(&self.experiment)?)?;
        if let Some(engine) = self.engine {
            experiment.engine = engine.into();
        }
        experiment.compute.device = self.device.unwrap_or(experiment.compute.device);
        experiment.compute.memory = self.memory.or(experiment.compute.memory);
        experiment.chat = self.chat.over(experiment.chat)?;
        let Endpoints { agent, user } = self.endpoints.over(experiment.endpoints())?;
        (experiment.endpoint, experiment.user_endpoint) = (agent, user);
        Ok(experiment)
    }
}

/// The file of an experiment, which may be one that comes with the program.
fn file_of(said: &Path) -> Result<PathBuf> {
    match EXPERIMENTS.iter().find(|name| Path::new(name) == said) {
        Some(name) if !said.exists() => {
            let file = Path::new("experiments").join(format!("{name}.toml"));
            let here = suites_folder()?.join(&file);
            Ok(if here.is_file() { here } else { benchmarks()?.join(file) })
        }
        None if !said.exists() => {
            bail!("there is no experiment `{}`; built in: `{}`", said.display(), EXPERIMENTS.join("`, `"))
        }
        _ => Ok(said.to_owned()),
    }
}

#[derive(Args)]
pub(crate) struct Run {
    #[command(flatten)]
    given: ExperimentFlags,
    #[command(flatten)]
    events: EventFlags,
}

impl Run {
    pub(crate) fn execute(&self) -> Result<ExitCode> {
        let experiment = self.given.read()?;
        let reporter = Reporter::new();
        let events = self.events.tell(&reporter)?;
        let outcome = run(&experiment, &self.given.results, stop_flag()?, &events);
        reporter.done();
        events.end(outcome.as_ref().err().map(ToString::to_string).as_deref());
        let summary = outcome?;
        say(&summary.tables);
        say(&format!("Results in {}; open {}", summary.dir.display(), summary.dir.join("report.html").display()));
        Ok(ExitCode::SUCCESS)
    }
}

/// A number of tasks.
pub(crate) fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("it must be 1 or more".into()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}

/// A format's name, or the path of a format file.
pub(crate) fn format_named(name: &str) -> Result<Format> {
    Ok(if name.ends_with(".toml") { Format::load(Path::new(name))? } else { Format::builtin(name)? })
}

#[derive(Args)]
pub(crate) struct Parse {
    /// A format's name, or the path of a format file.
    #[arg(long)]
    format: String,
}

impl Parse {
    pub(crate) fn execute(&self) -> Result<ExitCode> {
        let format = format_named(&self.format)?;
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
        #[arg(long, default_value = HERE)]
        suites: PathBuf,
        /// Seed of the tasks.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Tasks a split.
        #[arg(long, default_value_t = 300)]
        count: u64,
    },
    /// Say in which folder the suites and, in `nano-pool`, the checkpoints are that commands take where none is named.
    Where,
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
                        tell!("interrupted; run the same command to go on");
                        Ok(ExitCode::from(130))
                    }
                    other => {
                        other?;
                        say(&format!("The pool is in {}", out.display()));
                        Ok(ExitCode::SUCCESS)
                    }
                }
            }
            Self::Where => {
                say(&suites_folder()?.display().to_string());
                Ok(ExitCode::SUCCESS)
            }
            Self::Tasks { suites, seed, count } => {
                write_tasks(suites, rolegraft_nano::seed(*seed), *count)?;
                say(&format!("Tasks are in {}/*/nano", suites.display()));
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}
