//! `rolegraft doctor`: what works here, and which package would mend what does not.

use crate::commands::EndpointFlags;
use crate::suites::{ALWAYS, SuiteFlags};
use crate::talk::say;
use anyhow::Result;
use clap::Args;
use rolegraft_pipeline::{
    Bytes, Compute, DeviceName, Endpoints, Precision, Runtime, examine, free_memory, is_endpoint, names,
};
use rolegraft_suites::{Need, Settings, SuiteFile};
use serde_json::Value;
use std::path::Path;
use std::process::ExitCode;

#[derive(Args)]
pub(crate) struct Doctor {
    /// Ask this endpoint what it is and understands instead: `http://HOST/v1#MODEL` (key in ROLEGRAFT_API_KEY).
    #[arg(long, value_name = "URL", value_parser = address)]
    model: Option<String>,
    #[command(flatten)]
    endpoints: EndpointFlags,
    /// Where checkpoints would be played and traced: auto, cpu, cuda:N, metal:N.
    #[arg(long, default_value = "auto")]
    device: DeviceName,
    #[command(flatten)]
    setup: SuiteFlags<ALWAYS>,
}

fn address(text: &str) -> Result<String, String> {
    if is_endpoint(text) { Ok(text.to_owned()) } else { Err("an address such as http://HOST:8000/v1#MODEL".into()) }
}

/// Why everything runs on the CPU.
fn no_card() -> String {
    let here = Path::new("/dev/nvidia0").exists();
    let why =
        if here { "there is one, but this program was not built for it (docs/real-pools.md)" } else { "none is seen" };
    format!("{why}; everything runs on the CPU")
}

/// That a file or folder is there, or what that means.
fn there(path: &Path, otherwise: String) -> Result<(), String> {
    path.exists().then_some(()).ok_or(otherwise)
}

impl Doctor {
    pub(crate) fn execute(&self) -> Result<ExitCode> {
        if let Some(address) = &self.model {
            return self.examine(address);
        }
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
        line(true, &format!("{cores} processors, {} of memory free", Bytes(free_memory())), Ok(()));
        let place = Compute { device: self.device, memory: None }.place(Precision::F32);
        let on_card = place.as_ref().is_ok_and(|place| !place.is_cpu());
        match self.device {
            DeviceName::Auto => line(false, "GPU", on_card.then_some(()).ok_or_else(no_card)),
            wanted => line(true, &format!("device {wanted}"), place.map(drop).map_err(|e| e.to_string())),
        }
        for suite in setup.registry.iter().flat_map(|benchmark| benchmark.kinds()) {
            let path = SuiteFile::path_of(setup.suites, suite);
            let mend = format!("`{}` not found; leave out --suites, and the built-in one is played", path.display());
            line(true, &format!("suite {suite}"), there(&path, mend));
        }
        let pool = setup.suites.join("nano-pool/base");
        let mend = format!("`{}` not found; `rolegraft nano build` makes it anew", pool.display());
        line(true, "nano pool", there(&pool, mend));
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

    /// Says what a server is.
    fn examine(&self, address: &str) -> Result<ExitCode> {
        let rules = self.endpoints.over(Endpoints::default())?.agent;
        let probed = examine(&Runtime::new()?, address, &rules)?;
        let served = &probed.served;
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        for (part, value) in served.identity.as_object().into_iter().flatten() {
            let part = if part == "says" { "fingerprint" } else { part };
            say(&format!("{part:<12} {}", text(value)));
        }
        say(&format!("{:<12} {}", "asked for", served.road.as_str()));
        let exact = match served.exact {
            Some(true) => "as the model writes it",
            Some(false) => "changed by the server: figures would be marked",
            None => "not known: the model did not write the markup that would show it",
        };
        say(&format!("{:<12} {exact}", "text"));
        for (field, value) in served.fields.as_object().into_iter().flatten() {
            let value = text(value);
            say(&format!(
                "{:<12} {field} {}",
                "field",
                if value.is_empty() { "is left out".into() } else { format!("as {value}") }
            ));
        }
        for (roles, said) in &probed.refused {
            say(&format!("{:<12} {}: {said}", "not taken", names(roles)));
        }
        for text in &probed.notes {
            say(&format!("{:<12} {text}", "note"));
        }
        Ok(ExitCode::SUCCESS)
    }
}
