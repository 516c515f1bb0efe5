//! `rolegraft plan`.

use crate::commands::ExperimentFlags;
use crate::talk::{Reporter, say};
use anyhow::Result;
use clap::Args;
use rolegraft_pipeline::{Bytes, StageForecast, duration, forecast};
use rolegraft_report::{Format, Table};
use std::process::ExitCode;

#[derive(Args)]
pub(crate) struct Plan {
    #[command(flatten)]
    given: ExperimentFlags,
    /// Tokens of an episode, where no solution says how long one is; the paper's calibration sets have 3,000.
    #[arg(long, value_name = "N", default_value_t = 3000, value_parser = clap::value_parser!(u32).range(4..))]
    episode_tokens: u32,
}

impl Plan {
    pub(crate) fn execute(&self) -> Result<ExitCode> {
        let experiment = self.given.read()?;
        let reporter = Reporter::new();
        let found = forecast(&experiment, &self.given.results, self.episode_tokens as usize, &reporter);
        reporter.done();
        let head = ["stage", "work", "reads", "writes", "memory", "tokens", "time"];
        let mut table = Table::new(&format!("What `{}` takes", experiment.name), &head);
        table.rows = found.stages.iter().map(row).collect();
        let known: f64 = found.stages.iter().filter_map(|stage| stage.seconds).sum();
        let written: u64 = found.stages.iter().filter_map(|stage| stage.written).sum();
        let unknown = found.stages.iter().any(|stage| stage.seconds.is_none());
        let known = match unknown {
            true if known < 1.0 => UNKNOWN.into(),
            true => format!("more than {}", duration(known)),
            false => duration(known),
        };
        let total = ["in all", "", "", &bytes(Some(written)), "", "", &known];
        table.rows.push(total.map(str::to_owned).into());
        say(&table.render(Format::Markdown));
        say(
            "note: times are of models, hashes and disk, as this machine did a part of each; environments' own come on top",
        );
        found.notes.iter().for_each(|note| say(&format!("note: {note}")));
        if found.missing.is_empty() {
            say("nothing is missing");
            return Ok(ExitCode::SUCCESS);
        }
        say(&format!("{} missing or wrong:", found.missing.len()));
        found.missing.iter().for_each(|what| say(&format!("- {what}")));
        Ok(ExitCode::from(3))
    }
}

/// Stands for what could not be found out.
const UNKNOWN: &str = "?";

fn bytes(bytes: Option<u64>) -> String {
    match bytes {
        None => UNKNOWN.into(),
        Some(0) => String::new(),
        Some(bytes) => Bytes(bytes as usize).to_string(),
    }
}

fn row(stage: &StageForecast) -> Vec<String> {
    let tokens = match stage.tokens {
        None | Some(0) => String::new(),
        Some(tokens @ 1..1_000_000) => format!("{:.1} k", tokens as f64 / 1e3),
        Some(tokens) => format!("{:.1} M", tokens as f64 / 1e6),
    };
    let time = stage.seconds.map_or_else(|| UNKNOWN.into(), duration);
    let StageForecast { name, work, read, written, memory, .. } = stage;
    vec![(*name).into(), work.clone(), bytes(*read), bytes(*written), bytes(*memory), tokens, time]
}
