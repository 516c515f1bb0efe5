//! `rolegraft conformance`.

use crate::talk::say;
use anyhow::Result;
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// Merges recorded of mergekit and the methods' own programs.
    Merge,
}

#[derive(Args)]
pub(crate) struct Conformance {
    /// What was recorded.
    #[arg(value_enum)]
    kind: Kind,
    /// The recordings: a folder with a manifest, or a folder of such folders.
    #[arg(long)]
    traces: PathBuf,
    /// The official data, for the kinds that need any.
    #[arg(long, env = "ROLEGRAFT_DATA")]
    data: Option<PathBuf>,
}

impl Conformance {
    pub(crate) fn execute(&self) -> Result<ExitCode> {
        let report = match self.kind {
            Kind::Merge => rolegraft_conformance::merge(&self.traces)?,
        };
        say(&report.to_string());
        Ok(if report.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
