//! One server of ours, from its start to the end of its last child.

use crate::http::{models, names, said};
use crate::record::{self, Id, TOKEN_VARIABLE};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two looks whether a server is ready.
pub(crate) const LOOK: Duration = Duration::from_millis(250);
/// How long one such look may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Lines of a log in an error.
const LINES: usize = 20;
/// Bytes of a log that are searched for them.
const TAIL: u64 = 64 << 10;

/// How a server is started.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Environment variables beside ours.
    pub env: BTreeMap<String, String>,
    /// Where it listens, on this machine.
    pub port: u16,
    /// The route that answers 200 when it is ready.
    pub ready: String,
    /// How long that may take.
    pub within: Duration,
    /// What it has to list as its model; absent: it has only one.
    pub model: Option<String>,
    /// Where its output goes; what is there already stays.
    pub log: PathBuf,
    /// Where records for [`crate::sweep`] lie.
    pub records: PathBuf,
}

/// Why a server of ours does not serve.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum StartError {
    #[error("`{command}` is not found: install it, or say another `command` under [server]")]
    NotFound { command: String },
    #[error("`{command}` cannot be started")]
    Spawn { command: String, source: io::Error },
    #[error("port {port} is taken: end what listens there, or say another `port` under [server], or none")]
    PortTaken { port: u16 },
    #[error("`{}` cannot be written", path.display())]
    Files { path: PathBuf, source: io::Error },
    #[error("`{command}` ended before it was ready ({status}); the end of `{}`:\n{last}", log.display())]
    Exited { command: String, status: ExitStatus, log: PathBuf, last: String },
    #[error(
        "`{command}` was not ready within {seconds} s ({reason}); give it longer with `ready_within` under [server]; the end of `{}`:\n{last}", log.display()
    )]
    NotReady { command: String, seconds: u64, reason: String, log: PathBuf, last: String },
    #[error("port {port} answers as {listed}, not as {expected}: another server listens there")]
    OtherServer { port: u16, expected: String, listed: String },
    #[error("stopped while a server was starting")]
    Stopped,
}

/// A server of ours that runs. It ends with its children when it is dropped, which takes seconds if they are slow to go.
pub struct Process {
    launch: Launch,
    child: Mutex<Child>,
    id: Option<Id>,
    token: String,
    record: PathBuf,
    /// Where its own words begin in the log.
    log_start: u64,
}

impl Process {
    /// Starts a server in a process group of its own.
    ///
    /// # Errors
    /// If its port is taken, its command cannot be run, or nothing can be written.
    pub fn spawn(launch: Launch) -> Result<Self, StartError> {
        let [program, arguments @ ..] = launch.command.as_slice() else {
            return Err(StartError::NotFound { command: String::new() });
        };
        if TcpListener::bind(("127.0.0.1", launch.port)).is_err() {
            return Err(StartError::PortTaken { port: launch.port });
        }
        let log = OpenOptions::new().create(true).append(true).open(&launch.log).map_err(files(&launch.log))?;
        let log_start = log.metadata().map_err(files(&launch.log))?.len();
        let errors = log.try_clone().map_err(files(&launch.log))?;
        let token = record::token().map_err(files(&launch.records))?;
        // Its token is written down before it runs, and its number as soon as it has one.
        let write = |id| record::write(&launch.records, &token, id).map_err(files(&launch.records));
        let path = write(None)?;
        let spawned = Command::new(program)
            .args(arguments)
            .envs(&launch.env)
            .env(TOKEN_VARIABLE, &token)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0)
            .spawn();
        let child = match spawned {
            Ok(child) => child,
            Err(source) => {
                // The error of the start matters more.
                let _ = std::fs::remove_file(path);
                let command = program.clone();
                return Err(match source.kind() {
                    io::ErrorKind::NotFound => StartError::NotFound { command },
                    _ => StartError::Spawn { command, source },
                });
            }
        };
        let id = Id::of(child.id());
        let process = Self { child: Mutex::new(child), id, token, record: path, log_start, launch };
        record::write(&process.launch.records, &process.token, id).map_err(files(&process.launch.records))?;
        Ok(process)
    }

    /// Waits until the server is ready, and gives the name under which it lists its model.
    ///
    /// # Errors
    /// If it ends before, is not ready in time, or another server answers in its place.
    pub async fn ready(&self, http: &reqwest::Client, stop: &AtomicBool) -> Result<String, StartError> {
        let began = Instant::now();
        loop {
            if stop.load(Ordering::Relaxed) {
                return Err(StartError::Stopped);
            }
            if let Some(status) = self.exited() {
                let (command, log) = (self.program(), self.launch.log.clone());
                return Err(StartError::Exited { command, status, log, last: self.last_lines() });
            }
            let reason = match self.listed(http).await {
                Ok(listed) => return self.own_model(&listed),
                Err(reason) => reason,
            };
            if began.elapsed() >= self.launch.within {
                let (seconds, log) = (self.launch.within.as_secs(), self.launch.log.clone());
                return Err(StartError::NotReady {
                    command: self.program(),
                    seconds,
                    reason,
                    log,
                    last: self.last_lines(),
                });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The models of a server that is ready.
    pub(crate) async fn listed(&self, http: &reqwest::Client) -> Result<Vec<String>, String> {
        let (base, route) = (self.base(), &self.launch.ready);
        let ready = said(http.get(format!("{base}{route}")), PATIENCE).await?;
        if !ready.is_good() {
            return Err(format!("{route} answers {}", ready.words()));
        }
        let models = models(http, &base, PATIENCE).await?;
        Ok(names(&models).into_iter().map(str::to_owned).collect())
    }

    fn own_model(&self, listed: &[String]) -> Result<String, StartError> {
        let other = |expected: String| StartError::OtherServer {
            port: self.launch.port,
            expected,
            listed: if listed.is_empty() { "no model".into() } else { format!("`{}`", listed.join("`, `")) },
        };
        match (&self.launch.model, listed) {
            (Some(model), listed) if listed.contains(model) => Ok(model.clone()),
            (Some(model), _) => Err(other(format!("`{model}`"))),
            (None, [only]) => Ok(only.clone()),
            (None, _) => Err(other("a server of one model".into())),
        }
    }

    /// Its address, without `/v1`.
    #[must_use]
    pub fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.launch.port)
    }

    /// How it ended, if it did.
    pub fn exited(&self) -> Option<ExitStatus> {
        // A child that cannot be asked for is one that runs, until its routes tell otherwise.
        self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait().unwrap_or_default()
    }

    /// Ends it with its children: SIGTERM, ten seconds, SIGKILL. Blocks until they have gone.
    pub fn stop(&self) {
        if record::end(&self.token, self.id) {
            // It is reaped here if it was not before; a record that has gone already does no harm.
            let _ = self.exited();
            let _ = std::fs::remove_file(&self.record);
        }
    }

    fn program(&self) -> String {
        self.launch.command.first().cloned().unwrap_or_default()
    }

    fn last_lines(&self) -> String {
        // A log that cannot be read says nothing.
        last_lines(&self.launch.log, self.log_start).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

fn files(path: &Path) -> impl FnOnce(io::Error) -> StartError {
    let path = path.to_owned();
    move |source| StartError::Files { path, source }
}

/// The last lines of a log after `start`, as people may see them.
fn last_lines(log: &Path, start: u64) -> io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(start.max(length.saturating_sub(TAIL))))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LINES)..];
    Ok(last.iter().map(|line| line.chars().filter(|c| !c.is_control()).collect::<String>() + "\n").collect())
}

/// Ports that nobody listens on now, each another one.
pub(crate) fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let held: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<io::Result<_>>()?;
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}
