//! Suites on servers as an entry of the registry.

use crate::{Api, Client, Controller, RemoteSuite};
use rolegraft_suite::{Benchmark, Library, Limits, OpenError, Opening, SuiteFile, TaskSet};
use serde::Deserialize;
use std::time::Duration;

/// How long to wait for a worker to report itself.
const WORKER_PATIENCE: Duration = Duration::from_secs(60);

/// Any suite on one of AgentBench's servers: a `suite.toml` with `remote` or `listen`.
pub struct Remote;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// Its address: `http://HOST:5000/api`. Absent: the worker that reports itself at `listen`.
    remote: Option<String>,
    /// Where workers of the function-call version send their heartbeats: `0.0.0.0:5020`.
    listen: Option<String>,
    /// The server's name of the task.
    task: String,
    #[serde(default)]
    api: Api,
    format: String,
    limits: Limits,
}

impl File {
    fn address(&self) -> Result<String, String> {
        match (&self.remote, &self.listen) {
            (Some(address), _) => Ok(address.clone()),
            (None, Some(listen)) => {
                let controller = Controller::listen(listen).map_err(|e| format!("`{listen}`: {e}"))?;
                let worker = controller.worker(&self.task, WORKER_PATIENCE);
                let none = || format!("no worker of `{}` reported itself at {}", self.task, controller.address());
                Ok(worker.ok_or_else(none)?.address)
            }
            (None, None) => Err("neither `remote` nor `listen`".into()),
        }
    }
}

impl Benchmark for Remote {
    fn name(&self) -> &'static str {
        "remote"
    }
    fn kinds(&self) -> &'static [&'static str] {
        &[]
    }
    fn reads(&self, file: &SuiteFile) -> bool {
        file.has("remote") || file.has("listen")
    }
    /// The server's samples are the test tasks.
    fn open(&self, file: &SuiteFile, opening: &Opening<'_>) -> Result<Library, OpenError> {
        let said: File = file.read()?;
        let address = said.address().map_err(|reason| OpenError::of(&file.name, reason))?;
        let client = Client::new(&address).map_err(|e| OpenError::of(&file.name, e))?;
        let format = opening.format(&said.format)?;
        let suite = RemoteSuite::open(&file.name, &said.task, said.api, client, format, said.limits);
        let suite = suite.map_err(|e| OpenError::of(&file.name, e))?;
        let tasks = suite.tasks();
        let names: Vec<&str> = tasks.iter().map(|task| task.id.as_str()).collect();
        let set = TaskSet::made_from(tasks.clone(), names.join("\n").as_bytes());
        Ok(Library::with_tasks(suite, [("test", set)].into()))
    }
}
