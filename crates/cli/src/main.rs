//! The `rolegraft` command: arguments in, one call into a library, results on stdout, talk on stderr.
#![allow(clippy::exit, reason = "this crate alone speaks to the terminal")]

mod ablate;
mod commands;
mod conformance;
mod data;
mod doctor;
mod eval;
mod events;
mod inspect;
mod log;
mod merge;
mod plan;
mod report;
mod shell;
mod stages;
mod suites;
mod talk;
mod view;

use clap::{CommandFactory, Parser, Subcommand};
use std::process::ExitCode;

/// A run opens a dozen models one after another; glibc would keep an arena of each.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Merge expert LLM agents without training, and prove with multi-turn benchmarks what was gained and lost.
#[derive(Parser)]
#[command(name = "rolegraft", bin_name = "rolegraft", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the whole loop of an experiment file, or what is left of it.
    Run(commands::Run),
    /// Say what a run would take (bytes, memory, tokens, time on this machine) and everything that it lacks; exit 3 if it lacks
    /// anything. Nothing is run.
    Plan(plan::Plan),
    /// Vary what an experiment decides: the paper's figures 3 to 5 and three checks, as SVG, CSV and one page.
    Ablate(ablate::Ablate),
    /// Merge checkpoints by a recipe.
    #[command(visible_aliases = ["mergekit-yaml", "mergekit-multi"])]
    Merge(merge::Merge),
    /// Compare two checkpoints number by number; exit 1 if they differ by more than a tolerance.
    Diff(inspect::Diff),
    /// Write what a checkpoint changed of its base as a LoRA adapter, with the error of every tensor.
    ExtractLora(inspect::ExtractLora),
    /// Say what checkpoints hold, and how far experts are from their base.
    Inspect(inspect::Inspect),
    /// Make a calibration set: trajectories of a suite, then their tokens with the positions of roles.
    Calibrate(Box<stages::Calibrate>),
    /// Trace which neurons of a checkpoint are salient on calibration sets.
    Trace(stages::Trace),
    /// Choose the candidate whose salient neurons overlap most with the experts' (AOS).
    Select(stages::Select),
    /// Find the benchmarks on which a backbone lost what experts have.
    Diagnose(stages::Diagnose),
    /// Transplant neurons of experts into a backbone.
    Transplant(stages::Transplant),
    /// Play one suite with one model and print its score.
    Eval(Box<eval::Eval>),
    /// Score a recorded log again, without a model; exit 1 if anything differs.
    Score(eval::Score),
    /// Show what episode logs say: scores with pass^k, failures, cascades, spending; several side by side.
    Report(report::Report),
    /// Say how many tasks and trials show a difference of so many points, by what finished logs say of their spread.
    Power(report::Power),
    /// List, show, search, put together and take apart episode logs.
    #[command(subcommand)]
    Log(log::Log),
    /// Write episode logs as inspect_ai, lm-evaluation-harness, tau2-bench or the Hub's datasets read them.
    Export(log::Export),
    /// Serve a report's page to a browser on this machine.
    View(view::View),
    /// Read replies (JSONL on stdin, each a string or an object with `reply`) and print spans and violations as JSONL.
    Parse(commands::Parse),
    /// Replay what reference implementations recorded and count agreements; exit 1 if anything differs.
    Conformance(Box<conformance::Conformance>),
    /// Build the laptop-sized expert pool and its tasks.
    #[command(subcommand)]
    Nano(commands::Nano),
    /// Say which official data is there, and where to get what is not.
    Data(data::Data),
    /// Say what works on this machine and what is missing.
    Doctor(doctor::Doctor),
    /// Print completions for a shell: `rolegraft completions bash > ~/.local/share/bash-completion/completions/rolegraft`.
    Completions(shell::Completions),
    /// Write man pages.
    Man(shell::Man),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match &arguments.command {
        Command::Run(c) => c.execute(),
        Command::Plan(c) => c.execute(),
        Command::Ablate(c) => c.execute(),
        Command::Merge(c) => c.execute(),
        Command::Diff(c) => c.execute(),
        Command::Inspect(c) => c.execute(),
        Command::ExtractLora(c) => c.execute(),
        Command::Conformance(c) => c.execute(),
        Command::Calibrate(c) => c.execute(),
        Command::Trace(c) => c.execute(),
        Command::Select(c) => c.execute(),
        Command::Diagnose(c) => c.execute(),
        Command::Transplant(c) => c.execute(),
        Command::Eval(c) => c.execute(),
        Command::Score(c) => c.execute(),
        Command::Report(c) => c.execute(),
        Command::Power(c) => c.execute(),
        Command::Log(c) => c.execute(),
        Command::Export(c) => c.execute(),
        Command::View(c) => c.execute(),
        Command::Parse(c) => c.execute(),
        Command::Nano(c) => c.execute(),
        Command::Data(c) => c.execute(),
        Command::Doctor(c) => c.execute(),
        Command::Completions(c) => c.execute(Arguments::command()),
        Command::Man(c) => c.execute(Arguments::command()),
    };
    match outcome {
        Ok(code) => talk::unsaid(code),
        Err(error) => talk::failure(&error),
    }
}
