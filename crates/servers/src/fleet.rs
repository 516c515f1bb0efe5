//! All servers of an experiment, and the checkpoint that they hold.

use crate::error::ServerError;
use crate::process::{Process, Start, tail};
use crate::record::sweep;
use crate::rules::{ServerRules, Swap};
use crate::swap::{Expected, Server};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two looks at a server.
const LOOK: Duration = Duration::from_millis(250);
/// How often a server that dies is started again.
const RESTARTS: usize = 3;

/// A checkpoint for the servers.
#[derive(Debug, Clone, Copy)]
pub struct Feed<'f> {
    /// Its directory.
    pub dir: &'f Path,
    /// Its digest: what answers' weights have to be called where a server says it.
    pub digest: &'f str,
    /// Tokens of context.
    pub context: usize,
}

/// Where a checkpoint is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fed {
    /// Base addresses ending in `/v1`.
    pub urls: Vec<String>,
    /// The model's name there.
    pub model: String,
    /// What the weights are called in answers; absent where servers were started with them.
    pub version: Option<String>,
}

/// Who is told of servers that die or lie.
pub type Tell = Arc<dyn Fn(&str) + Send + Sync>;

/// Servers that play one checkpoint after another. Those that we started end when this is dropped.
pub struct Fleet {
    rules: ServerRules,
    folder: PathBuf,
    http: reqwest::Client,
    stop: Arc<AtomicBool>,
    tell: Tell,
    workers: Vec<Worker>,
    holds: Option<(String, Fed)>,
}

/// A server, and where it stands.
struct Worker {
    /// Without `/v1`.
    url: String,
    state: State,
    /// Absent where somebody else started it.
    _own: Option<Supervised>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Holds a checkpoint, and plays it.
    Ready,
    /// Gets another, or is asked what it holds. Nothing is played meanwhile: a checkpoint's episodes are over before the next.
    Swapping,
    /// Did not take a checkpoint, or says that it did and does not: plays nothing any more.
    Quarantined,
}

/// A process that is started again when it dies.
struct Supervised {
    process: Arc<Mutex<Option<Process>>>,
    over: Arc<AtomicBool>,
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        drop(self.process.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Supervised {
    fn watch(process: Process, start: Start, tell: Tell) -> Self {
        let (process, over) = (Arc::new(Mutex::new(Some(process))), Arc::new(AtomicBool::new(false)));
        let (watched, ended) = (process.clone(), over.clone());
        std::thread::spawn(move || {
            let mut left = RESTARTS;
            while left > 0 {
                std::thread::sleep(LOOK);
                let mut held = watched.lock().unwrap_or_else(PoisonError::into_inner);
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let Some(status) = held.as_mut().and_then(Process::ended) else { continue };
                // What it started itself goes with it.
                drop(held.take());
                left -= 1;
                tell(&format!("a server died ({status}) and is started again; its log is {}", start.log.display()));
                match Process::start(&start) {
                    Ok(again) => *held = Some(again),
                    Err(error) => return tell(&error.to_string()),
                }
            }
        });
        Self { process, over }
    }
}

impl Fleet {
    /// Servers by `rules`, with records and logs in `folder`. What killed owners left there is stopped.
    ///
    /// # Errors
    /// If the rules cannot be meant.
    pub fn new(rules: ServerRules, folder: &Path, stop: Arc<AtomicBool>, tell: Tell) -> Result<Self, ServerError> {
        rules.check().map_err(ServerError::Rules)?;
        let swept = sweep(folder);
        if swept > 0 {
            tell(&format!("{swept} servers of a run that was killed are stopped"));
        }
        // The proxy of a machine knows nothing of its own servers.
        let http = reqwest::Client::builder().no_proxy().build().map_err(ServerError::Http)?;
        let folder = folder.to_owned();
        Ok(Self { rules, folder, http, stop, tell, workers: Vec::new(), holds: None })
    }

    /// Sees to it that the servers hold a checkpoint. `expected` is asked for what it says, where weights are changed in
    /// servers that go on.
    ///
    /// # Errors
    /// If no server can be started, or given it.
    pub async fn feed(&mut self, feed: Feed<'_>, expected: impl FnOnce() -> Expected) -> Result<Fed, ServerError> {
        if let Some((digest, fed)) = &self.holds
            && digest == feed.digest
        {
            return Ok(fed.clone());
        }
        self.holds = None;
        let fed = match &self.rules.urls {
            Some(urls) => {
                if self.workers.is_empty() {
                    let urls = urls.addresses().map_err(ServerError::Rules)?;
                    self.workers =
                        urls.into_iter().map(|url| Worker { url, state: State::Ready, _own: None }).collect();
                }
                self.swap(feed, &expected()).await?
            }
            None if self.workers.is_empty() => self.start(feed).await?,
            None if self.rules.swap.is_some() => self.swap(feed, &expected()).await?,
            None => {
                self.stop().await;
                self.start(feed).await?
            }
        };
        self.holds = Some((feed.digest.to_owned(), fed.clone()));
        Ok(fed)
    }

    /// Stops the servers that we started.
    async fn stop(&mut self) {
        let workers = std::mem::take(&mut self.workers);
        // Waiting for processes blocks.
        let _ = tokio::task::spawn_blocking(move || drop(workers)).await;
    }

    async fn start(&mut self, feed: Feed<'_>) -> Result<Fed, ServerError> {
        let words = self.rules.words().map_err(ServerError::Rules)?;
        let named = words.iter().any(|word| word.contains("{name}"));
        let name = format!("rolegraft-{}", std::process::id());
        let gpus = visible_gpus();
        let mut env = self.rules.env.clone();
        if self.rules.swap == Some(Swap::Vllm) {
            env.entry("VLLM_SERVER_DEV_MODE".into()).or_insert("1".into());
        }
        let mut started = Vec::new();
        for replica in 0..self.rules.replicas {
            let port = self.port(replica)?;
            let context = self.rules.context.unwrap_or(feed.context).to_string();
            let dir = feed.dir.to_string_lossy();
            let filled = [("{dir}", &*dir), ("{port}", &port.to_string()), ("{name}", &name), ("{context}", &context)];
            let filled = filled.into_iter().chain([("{digest}", feed.digest)]);
            let word =
                |word: &String| filled.clone().fold(word.clone(), |word, (place, value)| word.replace(place, value));
            let (words, mut env) = (words.iter().map(word).collect(), env.clone());
            if let Some(gpu) = gpus.get(replica % gpus.len().max(1)).filter(|_| self.rules.replicas > 1) {
                env.entry("CUDA_VISIBLE_DEVICES".into()).or_insert_with(|| gpu.clone());
            }
            let log = self.folder.join(format!("server-{replica}.log"));
            // The log of the checkpoint before is of no more use.
            let _ = std::fs::remove_file(&log);
            let start = Start { words, env, folder: self.folder.clone(), log: log.clone() };
            let process = Process::start(&start)?;
            started.push((format!("http://127.0.0.1:{port}"), process, start));
        }
        let mut model = None;
        for (url, mut process, start) in started {
            self.ready(&mut process, &url, &start.log).await?;
            let listed = Server { http: &self.http, url: &url }.models().await;
            let listed = listed.map_err(|found| another(&url, found, &name))?;
            let expected = if named { name.clone() } else { feed.dir.to_string_lossy().into_owned() };
            let found = listed.iter().find(|id| **id == expected).or(listed.first().filter(|_| !named));
            let Some(found) = found else { return Err(another(&url, listed.join(", "), &expected)) };
            model.get_or_insert(found.clone());
            // Only one that was ready once is worth starting again.
            let own = Supervised::watch(process, start, self.tell.clone());
            self.workers.push(Worker { url, state: State::Ready, _own: Some(own) });
        }
        Ok(self.fed(model.unwrap_or(name), None))
    }

    fn fed(&self, model: String, version: Option<String>) -> Fed {
        let ready = self.workers.iter().filter(|worker| worker.state == State::Ready);
        Fed { urls: ready.map(|worker| format!("{}/v1", worker.url)).collect(), model, version }
    }

    /// Waits until a server answers.
    async fn ready(&self, process: &mut Process, url: &str, log: &Path) -> Result<(), ServerError> {
        let begun = Instant::now();
        let (route, seconds) = (&self.rules.ready, self.rules.ready_within);
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(ServerError::Interrupted);
            }
            if let Some(status) = process.ended() {
                return Err(ServerError::Exited { status: status.to_string(), log: tail(log) });
            }
            let asked = self.http.get(format!("{url}{route}")).timeout(Duration::from_secs(5)).send().await;
            if asked.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if begun.elapsed() >= Duration::from_secs(seconds) {
                return Err(ServerError::NotReady { route: route.clone(), seconds, log: tail(log) });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A port for a server.
    fn port(&self, replica: usize) -> Result<u16, ServerError> {
        let wanted =
            self.rules.port.map_or(0, |first| first.saturating_add(u16::try_from(replica).unwrap_or(u16::MAX)));
        let bound = TcpListener::bind(("127.0.0.1", wanted)).and_then(|listener| listener.local_addr());
        bound.map(|address| address.port()).map_err(|_| ServerError::Taken { port: wanted })
    }

    async fn swap(&mut self, feed: Feed<'_>, expected: &Expected) -> Result<Fed, ServerError> {
        let Some(how) = self.rules.swap else { return Err(ServerError::Rules("`swap` is missing".into())) };
        let (mut reasons, mut model) = (Vec::new(), None);
        for worker in self.workers.iter_mut().filter(|worker| worker.state == State::Ready) {
            if self.stop.load(Ordering::Relaxed) {
                return Err(ServerError::Interrupted);
            }
            worker.state = State::Swapping;
            let server = Server { http: &self.http, url: &worker.url };
            let swapped = async {
                let listed = server.models().await?;
                let name = listed.first().ok_or("it lists no model")?;
                server.swap(how, feed.dir, feed.digest).await?;
                server.verify(how, name, feed.digest, expected).await?;
                Ok::<String, String>(name.clone())
            };
            match swapped.await {
                Ok(name) => {
                    worker.state = State::Ready;
                    model.get_or_insert(name);
                }
                Err(reason) => {
                    worker.state = State::Quarantined;
                    (self.tell)(&format!("the server at {} plays no more: {reason}", worker.url));
                    reasons.push(format!("{}: {reason}", worker.url));
                }
            }
        }
        let digest = feed.digest.to_owned();
        match model {
            Some(model) => Ok(self.fed(model, Some(digest))),
            None => Err(ServerError::AllQuarantined { digest, reasons: reasons.join("; ") }),
        }
    }
}

fn another(url: &str, found: String, expected: &str) -> ServerError {
    ServerError::Another { url: url.to_owned(), found, expected: expected.to_owned() }
}

/// The GPUs that may be used, by what `CUDA_VISIBLE_DEVICES` calls them.
fn visible_gpus() -> Vec<String> {
    if let Ok(listed) = std::env::var("CUDA_VISIBLE_DEVICES") {
        return listed.split(',').map(str::trim).filter(|gpu| !gpu.is_empty()).map(str::to_owned).collect();
    }
    (0..64).filter(|gpu| Path::new(&format!("/dev/nvidia{gpu}")).exists()).map(|gpu| gpu.to_string()).collect()
}
