//! What shells and readers of manuals want: completions and man pages.

use crate::talk::{note, say};
use anyhow::{Context, Result};
use clap::{Args, Command};
use clap_complete::Shell;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Args)]
pub(crate) struct Completions {
    /// Whose.
    shell: Shell,
}

impl Completions {
    pub(crate) fn execute(&self, mut command: Command) -> Result<ExitCode> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "rolegraft", &mut script);
        say(String::from_utf8_lossy(&script).trim_end());
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Args)]
pub(crate) struct Man {
    /// Where they go; a page a command.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Man {
    pub(crate) fn execute(&self, command: Command) -> Result<ExitCode> {
        let wrong = || format!("cannot write man pages into `{}`", self.out.display());
        std::fs::create_dir_all(&self.out).with_context(wrong)?;
        clap_mangen::generate_to(command, &self.out).with_context(wrong)?;
        note(&format!("read them with `man -l {}`", self.out.join("rolegraft.1").display()));
        Ok(ExitCode::SUCCESS)
    }
}
