//! `rolegraft data`.

use crate::talk::say;
use anyhow::Result;
use clap::Args;
use rolegraft_suites::Registry;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Args)]
pub(crate) struct Data {
    /// The folder of official data.
    #[arg(long, env = "ROLEGRAFT_DATA", default_value = "data")]
    data: PathBuf,
    /// Read files over 256 MB, too, for their digests.
    #[arg(long)]
    digest: bool,
}

impl Data {
    pub(crate) fn execute(&self) -> Result<ExitCode> {
        say(&format!(
            "official data in `{}`; nothing is downloaded, and without any the built-in tasks are played",
            self.data.display()
        ));
        for one in Registry::default().iter().flat_map(|benchmark| benchmark.data(&self.data, self.digest)) {
            let mark = if one.found.is_ok() { "found  " } else { "absent " };
            say(&format!("{mark} {}", one.suite));
            match &one.found {
                Ok(files) => files.iter().for_each(|(what, digest)| say(&format!("        {what}: sha256 {digest}"))),
                Err(missing) => say(&format!("        {missing}")),
            }
            say(&format!("        from {}", one.from));
            say(&format!("        licence: {}", one.licence));
        }
        Ok(ExitCode::SUCCESS)
    }
}
