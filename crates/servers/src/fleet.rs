//! All servers together: which of them hold a checkpoint, and which are left out.

use crate::process::{LOOK, Launch, free_ports};
use crate::rules::{Filling, RulesError, ServerRules, Swap, Urls, base};
use crate::swap::Expected;
use crate::watch::{Shared, blocking};
use crate::worker::{LeftOut, State, Told, Worker, WorkerError};
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Longest file with an address that is read, in bytes.
const LONGEST_URL: u64 = 4096;
const GPUS: &str = "CUDA_VISIBLE_DEVICES";

/// A checkpoint that servers shall hold.
#[derive(Debug, Clone)]
pub struct Feed {
    /// Its folder; servers at `urls` find it under the same path.
    pub dir: PathBuf,
    /// What tells its weights from all others.
    pub digest: String,
    /// Tokens that it takes, `max_position_embeddings`.
    pub context: usize,
    /// What people call it.
    pub name: String,
    /// What it says, which a server that was given it while it ran is asked for; nothing, where that is not known.
    pub expected: Expected,
}

/// Where a checkpoint is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serving {
    /// Addresses ending in `/v1`.
    pub urls: Vec<String>,
    /// The model to ask for.
    pub model: String,
    /// What answers have to call their weights, where they call them anything.
    pub version: Option<String>,
    /// What has to go with completions, so that none is made with what was computed of other weights.
    pub cache_salt: Option<String>,
}

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum FleetError {
    #[error(transparent)]
    Rules(#[from] RulesError),
    #[error("`{}` cannot be used", path.display())]
    Files { path: PathBuf, source: io::Error },
    #[error("`{}` does not hold a server's address: {source}", path.display())]
    UrlFile { path: PathBuf, source: RulesError },
    #[error("`{}` holds no addresses: each server writes its own into a file there, such as http://gpu01:30000", .0.display())]
    NoUrls(PathBuf),
    #[error("the path of a checkpoint is not Unicode: `{}`", .0.display())]
    Path(PathBuf),
    #[error("no server holds `{name}`:{}", left_out.iter().map(LeftOut::to_string).collect::<String>())]
    NoneLeft { name: String, left_out: Vec<LeftOut> },
    #[error("stopped while servers were being fed")]
    Stopped,
}

/// Servers that are fed with one checkpoint after another. Those that we started end when it is dropped.
pub struct Fleet {
    rules: ServerRules,
    folder: PathBuf,
    shared: Shared,
    workers: Vec<Worker>,
    /// What all of them hold.
    now: Option<(String, Serving)>,
}

impl Fleet {
    /// A fleet that has nothing to serve yet. Logs and records lie in `folder`, which [`crate::sweep`] is for; `http` carries
    /// whatever the servers want with every request; `tell` hears what people should know.
    ///
    /// # Errors
    /// If the rules cannot be meant, or there can be no folder.
    pub fn new(
        rules: ServerRules,
        folder: &Path,
        http: reqwest::Client,
        stop: Arc<AtomicBool>,
        tell: Arc<dyn Fn(&str) + Send + Sync>,
    ) -> Result<Self, FleetError> {
        rules.check()?;
        fs::create_dir_all(folder).map_err(files(folder))?;
        let folder = std::path::absolute(folder).map_err(files(folder))?;
        Ok(Self { rules, folder, shared: Shared { http, stop, tell }, workers: Vec::new(), now: None })
    }

    /// Makes every server hold a checkpoint, and gives the addresses of those that do. Nobody may ask them for anything
    /// meanwhile.
    ///
    /// # Errors
    /// If there are no servers, none of them is left, or the run is stopped.
    pub async fn serve(&mut self, feed: &Feed) -> Result<Serving, FleetError> {
        if let Some((digest, serving)) = &self.now
            && *digest == feed.digest
        {
            return Ok(serving.clone());
        }
        self.now = None;
        let stop = self.shared.stop.clone();
        let stopped = async {
            while !stop.load(Ordering::Relaxed) {
                tokio::time::sleep(LOOK).await;
            }
        };
        let serving = tokio::select! {
            biased;
            () = stopped => return Err(FleetError::Stopped),
            serving = self.feed(feed) => serving?,
        };
        self.now = Some((feed.digest.clone(), serving.clone()));
        Ok(serving)
    }

    /// Every server's address, without `/v1`, and what it is doing.
    pub fn states(&self) -> impl Iterator<Item = (&str, &State)> {
        self.workers.iter().map(|worker| (worker.base.as_str(), &worker.state))
    }

    async fn feed(&mut self, feed: &Feed) -> Result<Serving, FleetError> {
        let dir = std::path::absolute(&feed.dir).map_err(files(&feed.dir))?;
        let dir = dir.to_str().ok_or_else(|| FleetError::Path(dir.clone()))?;
        let told = Told { dir, digest: &feed.digest, expected: &feed.expected };
        match self.rules.urls.clone() {
            Some(urls) => self.find(&urls)?,
            None => self.start(feed, &told).await?,
        }
        self.swap(feed, &told).await?;
        self.agree();
        let ended = self.workers.iter().filter(|worker| matches!(worker.state, State::Quarantined(_)));
        let ended: Vec<_> = ended.filter_map(|worker| worker.own.clone()).collect();
        join_all(ended.into_iter().map(|own| blocking(move || own.close()))).await;
        let mut ready = self.workers.iter().filter(|worker| matches!(worker.state, State::Ready)).peekable();
        let Some(first) = ready.peek() else {
            let left_out = self.workers.iter().filter_map(Worker::left_out).collect();
            return Err(FleetError::NoneLeft { name: feed.name.clone(), left_out });
        };
        let digest = || Some(feed.digest.clone());
        Ok(Serving {
            model: first.model.clone(),
            version: digest().filter(|_| self.rules.versioned()),
            cache_salt: digest().filter(|_| self.rules.swap == Some(Swap::Vllm)),
            urls: ready.map(|worker| format!("{}/v1", worker.base)).collect(),
        })
    }

    /// Finds the servers that run already. Known ones stay what they are.
    fn find(&mut self, urls: &Urls) -> Result<(), FleetError> {
        let bases = match urls {
            Urls::List(urls) => urls.iter().map(|url| base(url)).collect::<Result<_, _>>()?,
            Urls::Folder(folder) => in_folder(folder)?,
        };
        let mut known: BTreeMap<String, Worker> =
            self.workers.drain(..).map(|worker| (worker.base.clone(), worker)).collect();
        let mut seen = Vec::new();
        for base in bases.into_iter().filter(|base| {
            let is_new = !seen.contains(base);
            seen.push(base.clone());
            is_new
        }) {
            let worker = known.remove(&base).unwrap_or_else(|| Worker::at(0, base));
            self.workers.push(worker);
        }
        Ok(())
    }

    /// Starts the servers that are not up, all of them where weights cannot be swapped.
    async fn start(&mut self, feed: &Feed, told: &Told<'_>) -> Result<(), FleetError> {
        let (mut stay, mut go) = (Vec::new(), Vec::new());
        for worker in self.workers.drain(..) {
            let is_ready = self.rules.swap.is_some() && matches!(worker.state, State::Ready);
            match &worker.own {
                Some(own) if is_ready && own.answers().await => stay.push(worker),
                _ => go.push(worker),
            }
        }
        let closed = go.into_iter().filter_map(|worker| worker.own);
        join_all(closed.map(|own| blocking(move || own.close()))).await;
        let missing: Vec<usize> =
            (0..self.rules.replicas).filter(|at| stay.iter().all(|worker| worker.at != *at)).collect();
        if let Some(caveat) = self.rules.caveat(&feed.dir).filter(|_| !missing.is_empty()) {
            (self.shared.tell)(&caveat);
        }
        let ports = self.ports(&missing)?;
        let mut started = Vec::new();
        for (at, port) in missing.into_iter().zip(ports) {
            started.push((at, self.launch(at, port, feed, told)?));
        }
        let rules = &self.rules;
        let started = started.into_iter().map(|(at, launch)| Worker::start(at, launch, rules, &self.shared, told));
        self.workers = join_all(started).await;
        self.workers.append(&mut stay);
        self.workers.sort_by_key(|worker| worker.at);
        Ok(())
    }

    fn ports(&self, places: &[usize]) -> Result<Vec<u16>, FleetError> {
        match self.rules.port {
            None => free_ports(places.len()).map_err(files(&self.folder)),
            // The rules' check has seen that all of them are ports.
            Some(first) => Ok(places.iter().filter_map(|at| first.checked_add(u16::try_from(*at).ok()?)).collect()),
        }
    }

    /// How a server is started with a checkpoint.
    fn launch(&self, at: usize, port: u16, feed: &Feed, told: &Told<'_>) -> Result<Launch, RulesError> {
        let Self { rules, folder, .. } = self;
        let name = rules.name(told.digest);
        let context = rules.context.unwrap_or(feed.context);
        let filling = Filling { dir: told.dir, port, name: &name, context, digest: told.digest };
        let mut env = rules.variables();
        if rules.replicas > 1 {
            let gpus = gpus(env.get(GPUS).cloned().or_else(|| std::env::var(GPUS).ok()));
            if !gpus.is_empty() {
                env.insert(GPUS.into(), gpus[at % gpus.len()].clone());
            }
        }
        Ok(Launch {
            command: rules.filled(&filling)?,
            env,
            port,
            ready: rules.ready().to_owned(),
            within: Duration::from_secs(rules.ready_within),
            model: rules.listed(&name, told.dir),
            log: folder.join(format!("{}-{at}.log", std::process::id())),
            records: folder.clone(),
        })
    }

    /// Gives the checkpoint to all servers that hold another one.
    async fn swap(&mut self, feed: &Feed, told: &Told<'_>) -> Result<(), FleetError> {
        let Some(swap) = self.rules.swap else { return Ok(()) };
        for worker in &self.workers {
            if let Some(own) = &worker.own {
                // Where it dies from now on, it comes back with this checkpoint.
                own.relaunch_with(|port| self.launch(worker.at, port, feed, told))?;
            }
        }
        let timeout = Duration::from_secs(self.rules.ready_within);
        let Self { workers, shared, .. } = self;
        join_all(workers.iter_mut().map(|worker| worker.take(swap, told, shared, timeout))).await;
        Ok(())
    }

    /// Leaves out those that hold something else than most.
    fn agree(&mut self) {
        let mut votes = BTreeMap::<String, usize>::new();
        let ready = |worker: &&mut Worker| matches!(worker.state, State::Ready);
        for worker in self.workers.iter_mut().filter(ready) {
            *votes.entry(worker.holds()).or_default() += 1;
        }
        if votes.len() < 2 {
            return;
        }
        let all: usize = votes.values().sum();
        let most = votes.iter().find(|(_, count)| **count * 2 > all).map(|(held, _)| held.clone());
        for worker in self.workers.iter_mut().filter(ready) {
            let own = worker.holds();
            match &most {
                Some(others) if *others == own => {}
                Some(others) => {
                    worker.quarantine(WorkerError::Outvoted { own, others: others.clone() }, &self.shared);
                }
                None => worker.quarantine(WorkerError::Undecided { own }, &self.shared),
            }
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        std::thread::scope(|scope| {
            for own in self.workers.iter().filter_map(|worker| worker.own.as_ref()) {
                scope.spawn(|| own.close());
            }
        });
    }
}

/// The addresses that the files of a folder hold, by the files' names.
fn in_folder(folder: &Path) -> Result<Vec<String>, FleetError> {
    let entries = fs::read_dir(folder).map_err(files(folder))?;
    let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths.map_err(files(folder))?;
    let is_hidden = |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    paths.retain(|path| path.is_file() && !is_hidden(path));
    paths.sort();
    let mut urls = Vec::new();
    for path in paths {
        let mut bytes = Vec::new();
        fs::File::open(&path).and_then(|file| file.take(LONGEST_URL).read_to_end(&mut bytes)).map_err(files(&path))?;
        let url = base(&String::from_utf8_lossy(&bytes));
        urls.push(url.map_err(|source| FleetError::UrlFile { path, source })?);
    }
    if urls.is_empty() { Err(FleetError::NoUrls(folder.to_owned())) } else { Ok(urls) }
}

/// The GPUs that may be used: those that are said, or all that the machine shows.
fn gpus(said: Option<String>) -> Vec<String> {
    if let Some(said) = said {
        return said.split(',').map(|gpu| gpu.trim().to_owned()).filter(|gpu| !gpu.is_empty()).collect();
    }
    let devices = fs::read_dir("/dev").into_iter().flatten().flatten();
    let is_gpu = |name: &str| {
        name.strip_prefix("nvidia").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    let count = devices.filter(|device| device.file_name().to_str().is_some_and(is_gpu)).count();
    (0..count).map(|gpu| gpu.to_string()).collect()
}

fn files(path: &Path) -> impl FnOnce(io::Error) -> FleetError {
    let path = path.to_owned();
    move |source| FleetError::Files { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn said_gpus_come_before_those_of_the_machine() {
        assert_eq!(gpus(Some("4, 5,GPU-a".into())), ["4", "5", "GPU-a"]);
        assert!(gpus(Some(String::new())).is_empty());
    }
}
