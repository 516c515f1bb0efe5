//! `rolegraft report`.

use crate::talk::{note, say};
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use rolegraft_pipeline::{Context, read_logs};
use rolegraft_report::{Format, Price, overview};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Clone, Copy, ValueEnum)]
enum FormatName {
    Md,
    Csv,
    Latex,
    Html,
}

/// Prices on the command line.
#[derive(Args)]
pub(crate) struct Prices {
    /// The agent's price a million tokens, read and written: `2.5,10`.
    #[arg(long, value_name = "IN,OUT", value_parser = price)]
    pub(crate) price: Option<Price>,
    /// The simulated user's price, likewise.
    #[arg(long, value_name = "IN,OUT", value_parser = price)]
    pub(crate) user_price: Option<Price>,
}

fn price(text: &str) -> Result<Price, String> {
    let numbers: Vec<f64> = text.split(',').filter_map(|n| n.trim().parse().ok()).collect();
    match numbers.as_slice() {
        [prompt, completion] if text.split(',').count() == 2 => Ok(Price { prompt: *prompt, completion: *completion }),
        _ => Err("two numbers, as in `2.5,10`".into()),
    }
}

#[derive(Args)]
pub(crate) struct Report {
    /// Episode logs, or directories of runs.
    #[arg(required = true)]
    logs: Vec<PathBuf>,
    /// How tables are written.
    #[arg(long, value_enum, default_value = "md")]
    format: FormatName,
    /// Seed of the intervals.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    prices: Prices,
}

impl Report {
    pub(crate) fn execute(&self) -> Result<ExitCode> {
        let models = read_logs(&self.logs)?;
        if models.iter().all(|(_, episodes)| episodes.is_empty()) {
            bail!("the logs hold no finished episode");
        }
        for (name, episodes) in &models {
            let unknown = episodes.iter().filter(|e| e.turns.iter().any(|t| t.shown == Context::Unknown)).count();
            if unknown > 0 {
                note(&format!(
                    "`{name}`: {unknown} of {} episodes were logged before logs said what the model was shown",
                    episodes.len()
                ));
            }
        }
        let format = match self.format {
            FormatName::Md => Format::Markdown,
            FormatName::Csv => Format::Csv,
            FormatName::Latex => Format::Latex,
            FormatName::Html => Format::Html,
        };
        for table in overview(&models, self.seed, (self.prices.price, self.prices.user_price)) {
            say(&table.render(format));
        }
        Ok(ExitCode::SUCCESS)
    }
}
