//! `rolegraft log` and `rolegraft export`.

use crate::talk::{note, say};
use anyhow::{Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use regex::Regex;
use rolegraft_pipeline::{ExportForm, MergeRules, each_episode, export, list_logs, merge_logs, split_log};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Subcommand)]
pub(crate) enum Log {
    /// Say what logs hold: suites, tasks, episodes, mean rewards.
    Ls {
        /// Episode logs, `.jsonl` or `.jsonl.zst`.
        #[arg(required = true)]
        logs: Vec<PathBuf>,
    },
    /// Print episodes: what was said, with the spans, violations and rewards.
    Show {
        /// The log.
        log: PathBuf,
        /// Only of this task.
        task: Option<String>,
        /// Only this trial.
        #[arg(long)]
        trial: Option<u32>,
    },
    /// Find a pattern in what was said; exit 1 if it is nowhere.
    Grep {
        /// A regular expression.
        pattern: Regex,
        /// Episode logs.
        #[arg(required = true)]
        logs: Vec<PathBuf>,
    },
    /// Put logs together into a new one.
    Merge {
        /// Episode logs.
        #[arg(required = true)]
        logs: Vec<PathBuf>,
        /// The new log, compressed where it ends in `.zst`.
        #[arg(long)]
        out: PathBuf,
        /// Where an episode is there several times, keep the last. Otherwise that is an error.
        #[arg(long)]
        last: bool,
        /// Leave out lines that are no episodes. Otherwise they are an error.
        #[arg(long)]
        skip_bad: bool,
        /// Put together logs of other tasks, models, seeds or scorers. Otherwise that is an error.
        #[arg(long)]
        mixed: bool,
    },
    /// Take a log apart into one a suite.
    Split {
        /// The log.
        log: PathBuf,
        /// The folder for the new logs.
        #[arg(long)]
        out: PathBuf,
    },
}

impl Log {
    pub(crate) fn execute(&self) -> Result<ExitCode> {
        match self {
            Self::Ls { logs } => ls(logs),
            Self::Show { log, task, trial } => show(log, task.as_deref(), *trial),
            Self::Grep { pattern, logs } => grep(pattern, logs),
            Self::Merge { logs, out, last, skip_bad, mixed } => {
                let merged = merge_logs(logs, MergeRules { last: *last, skip_bad: *skip_bad, mixed: *mixed }, out)?;
                merged.skipped.iter().for_each(|error| note(&format!("left out: {error}")));
                say(&format!("{} episodes in {}", merged.episodes, out.display()));
                Ok(ExitCode::SUCCESS)
            }
            Self::Split { log, out } => {
                for (file, episodes) in split_log(log, out)? {
                    say(&format!("{episodes} episodes in {}", file.display()));
                }
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

fn ls(logs: &[PathBuf]) -> Result<ExitCode> {
    say("log\tsuite\ttasks\tepisodes\tmean reward\tMB\tformat\tasked");
    for log in list_logs(logs)? {
        let (mb, road) = (log.bytes as f64 / 1e6, log.road.unwrap_or("-"));
        for (suite, (tasks, episodes, sum)) in &log.suites {
            let mean = 100.0 * sum / (*episodes).max(1) as f64;
            let path = log.path.display();
            say(&format!("{path}\t{suite}\t{tasks}\t{episodes}\t{mean:.1}\t{mb:.1}\t{}\t{road}", log.version));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(log: &PathBuf, task: Option<&str>, trial: Option<u32>) -> Result<ExitCode> {
    let mut found = false;
    each_episode(std::slice::from_ref(log), &mut |_, episode| {
        let key = &episode.key;
        if task.is_some_and(|task| task != key.task) || trial.is_some_and(|trial| trial != key.trial) {
            return;
        }
        found = true;
        say(&format!(
            "== {} {} trial {}: reward {}, {}",
            key.suite,
            key.task,
            key.trial,
            episode.reward,
            episode.status.as_str()
        ));
        for (at, message) in episode.messages.iter().enumerate() {
            say(&format!("[{}]\n{}", message.role.as_str(), message.content));
            let Some(turn) = episode.turns.iter().find(|turn| turn.message == at) else { continue };
            for (role, range) in &turn.spans {
                let text = message.content.get(range.clone()).unwrap_or_default();
                say(&format!("  span {} {}..{}: {text}", role.as_str(), range.start, range.end));
            }
            for violation in &turn.violations {
                say(&format!("  violation {}: {}", violation.kind.as_str(), violation.detail));
            }
        }
    })?;
    match found {
        true => Ok(ExitCode::SUCCESS),
        false => bail!("`{}` holds no such episode; `rolegraft log grep . LOG` lists what there is", log.display()),
    }
}

fn grep(pattern: &Regex, logs: &[PathBuf]) -> Result<ExitCode> {
    let mut found = false;
    each_episode(logs, &mut |path, episode| {
        for (at, message) in episode.messages.iter().enumerate() {
            for line in message.content.lines().filter(|line| pattern.is_match(line)) {
                found = true;
                let key = &episode.key;
                say(&format!("{}:{}:{}:{at}:{}: {line}", path.display(), key.task, key.trial, message.role.as_str()));
            }
        }
    })?;
    Ok(if found { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[derive(Clone, Copy, ValueEnum)]
enum FormName {
    /// inspect_ai's `.eval`.
    Inspect,
    /// Samples and results of lm-evaluation-harness.
    LmEval,
    /// Results of tau2-bench.
    Tau2,
    /// A dataset folder for the Hub.
    Hf,
}

#[derive(Args)]
pub(crate) struct Export {
    /// Episode logs, each of one model on one suite.
    #[arg(required = true)]
    logs: Vec<PathBuf>,
    /// Whom they are written for.
    #[arg(long, value_enum)]
    to: FormName,
    /// The folder for the files.
    #[arg(long)]
    out: PathBuf,
}

impl Export {
    pub(crate) fn execute(&self) -> Result<ExitCode> {
        let form = match self.to {
            FormName::Inspect => ExportForm::Inspect,
            FormName::LmEval => ExportForm::LmEval,
            FormName::Tau2 => ExportForm::Tau2,
            FormName::Hf => ExportForm::Hub,
        };
        let exported = export(&self.logs, form, &self.out)?;
        for file in &exported.files {
            say(&file.display().to_string());
        }
        note(&format!("{} episodes; the form has no place for: {}", exported.episodes, exported.lost.join("; ")));
        Ok(ExitCode::SUCCESS)
    }
}
