//! `rolegraft view`.

use crate::talk::{say, stop_flag};
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Args)]
pub(crate) struct View {
    /// The directory of a run, or what `report --html` wrote.
    run: PathBuf,
    /// The port; without it, one that is free.
    #[arg(long, default_value_t = 0)]
    port: u16,
}

impl View {
    pub(crate) fn execute(&self) -> Result<ExitCode> {
        rolegraft_pipeline::view(&self.run, self.port, &*stop_flag()?, &mut |address| {
            say(&format!("The page is at http://{address}/ until Ctrl-C"));
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
