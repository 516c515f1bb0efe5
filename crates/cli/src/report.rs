//! `rolegraft report` and `rolegraft power`.

use crate::talk::{note, say};
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use rolegraft_pipeline::{logs_report, write_logs_report};
use rolegraft_report::{Format, POWER, Price, Tally, overview, power_table};
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
    /// Also write a page into this directory: tables, and any two logs side by side, turn by turn.
    #[arg(long, value_name = "DIR")]
    html: Option<PathBuf>,
    /// Compare logs of text that a server changed with logs of text as the model wrote it, and logs that were played or scored by
    /// other rules.
    #[arg(long)]
    mixed: bool,
    /// Where a trial of a task is there several times, in a log or in several of a model, let the last count. Otherwise that is
    /// an error.
    #[arg(long)]
    last: bool,
    #[command(flatten)]
    prices: Prices,
}

impl Report {
    pub(crate) fn execute(&self) -> Result<ExitCode> {
        let report = logs_report(&self.logs, self.seed, (self.prices.price, self.prices.user_price), self.last)?;
        let models = write_logs_report(&report, self.html.as_deref(), self.mixed)?;
        if models.iter().all(|(_, tally)| tally.episodes == 0) {
            bail!("the logs hold no finished episode");
        }
        remark(&models);
        for (name, tally) in models.iter().filter(|(_, tally)| tally.without_contexts > 0) {
            note(&format!(
                "`{name}`: {} of {} episodes were logged before logs said what the model was shown",
                tally.without_contexts, tally.episodes
            ));
        }
        let format = match self.format {
            FormatName::Md => Format::Markdown,
            FormatName::Csv => Format::Csv,
            FormatName::Latex => Format::Latex,
            FormatName::Html => Format::Html,
        };
        for table in overview(&models, self.seed, report.prices) {
            say(&table.render(format));
        }
        if let Some(dir) = &self.html {
            note(&format!("the page is {}", dir.join("report.html").display()));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Says what of logs does not count.
fn remark(models: &[(String, Tally)]) {
    for (name, tally) in models {
        if tally.episodes == 0 {
            note(&format!("`{name}` has no finished episode"));
        }
        if tally.torn > 0 {
            note(&format!("`{name}`: the last line is cut, as by a kill while it was written, and does not count"));
        }
    }
}

#[derive(Args)]
pub(crate) struct Power {
    /// Episode logs of models on the same tasks, or directories of runs.
    #[arg(required = true)]
    logs: Vec<PathBuf>,
    /// Differences that are to show, in points.
    #[arg(long, value_delimiter = ',', default_values_t = [5.0, 10.0], value_name = "POINTS", value_parser = points)]
    difference: Vec<f64>,
    /// The chance with which they are to show.
    #[arg(long, default_value_t = POWER, value_parser = chance)]
    power: f64,
    /// Where a trial of a task is there several times, let the last count.
    #[arg(long)]
    last: bool,
    /// As for `report`.
    #[arg(long)]
    mixed: bool,
}

fn points(text: &str) -> Result<f64, String> {
    let points = text.parse().ok().filter(|points| *points > 0.0 && *points <= 100.0);
    points.ok_or_else(|| "it must be a number of points above 0, up to 100".into())
}

fn chance(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|chance| *chance > 0.0 && *chance < 1.0)
        .ok_or_else(|| "it must lie between 0 and 1".into())
}

impl Power {
    pub(crate) fn execute(&self) -> Result<ExitCode> {
        let report = logs_report(&self.logs, 0, (None, None), self.last)?;
        let models = write_logs_report(&report, None, self.mixed)?;
        if models.iter().all(|(_, tally)| tally.episodes == 0) {
            bail!("the logs hold no finished episode");
        }
        remark(&models);
        let scores: Vec<_> = models.iter().map(|(name, tally)| tally.scores(name)).collect();
        if let [(name, _)] = models.as_slice() {
            note(&format!("`{name}` is alone: another that is as good and fails on other tasks is assumed"));
        }
        say(&power_table(&scores, &self.difference, self.power).render(Format::Markdown));
        Ok(ExitCode::SUCCESS)
    }
}
