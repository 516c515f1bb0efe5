//! `rolegraft doctor`: what works here, and which package would mend what does not.

use crate::suites::{ALWAYS, SuiteFlags};
use crate::talk::say;
use anyhow::Result;
use clap::Args;
use rolegraft_suites::{Need, Settings, SuiteFile};
use std::path::Path;
use std::process::ExitCode;

#[derive(Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    setup: SuiteFlags<ALWAYS>,
}

/// That a file or folder is there, or what that means.
fn there(path: &Path, otherwise: String) -> Result<(), String> {
    path.exists().then_some(()).ok_or(otherwise)
}

impl Doctor {
    pub(crate) fn execute(&self) -> Result<ExitCode> {
        let resolved = self.setup.resolve(&[])?;
        let setup = resolved.as_setup();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut missing = 0;
        let mut line = |needed: bool, what: &str, found: Result<(), String>| {
            missing += usize::from(found.is_err() && needed);
            match found {
                Ok(()) => say(&format!("ok      {what}")),
                Err(otherwise) if needed => say(&format!("MISSING {what}: {otherwise}")),
                Err(otherwise) => say(&format!("absent  {what}: {otherwise}")),
            }
        };
        line(true, &format!("{cores} processors"), Ok(()));
        for suite in setup.registry.iter().flat_map(|benchmark| benchmark.kinds()) {
            let path = SuiteFile::path_of(setup.suites, suite);
            let mend = format!("`{}` not found; run from the project's root or give --suites", path.display());
            line(true, &format!("suite {suite}"), there(&path, mend));
        }
        let pool = setup.suites.join("nano-pool/base");
        let mend = format!("`{}` not found; run `rolegraft nano build`", pool.display());
        line(true, "nano pool", there(&pool, mend));
        line(false, "NVIDIA GPU", there(Path::new("/dev/nvidia0"), "everything runs on the CPU".into()));
        for benchmark in setup.registry.iter() {
            let settings = setup.settings.get(benchmark.name()).cloned().unwrap_or_else(Settings::default);
            for need in benchmark.needs(&settings, setup.data) {
                match need {
                    Need::Thing { what, found, needed } => line(needed, &what, found),
                    Need::Note(text) => say(&format!("        {text}")),
                }
            }
        }
        Ok(if missing == 0 { ExitCode::SUCCESS } else { ExitCode::from(3) })
    }
}
