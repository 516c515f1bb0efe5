//! Containers of a Docker daemon: what is read from it and written to it goes through channels, as with any other box.

use crate::container::Mount;
use crate::sandbox_error::SandboxError;
use bollard::Docker;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::{
    ContainerCreateBody, ExecConfig, HostConfig, HostConfigLogConfig, MountTypeEnum, ResourcesUlimits,
};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptions, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
    StartContainerOptions,
};
use futures_util::{Stream, StreamExt};
use rolegraft_files::{is_orphan, owner};
use std::collections::HashMap;
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{LazyLock, Once, OnceLock};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// Memory of a container in bytes: upstream's, without swap.
const MEMORY: i64 = 1 << 30;
/// Processes and threads of a container.
const PROCESSES: i64 = 512;
/// Largest file in bytes.
const FILE: i64 = 128 << 20;
/// What a container may change of its image, where the daemon can bound it.
const DISK: &str = "512m";
/// Becomes a program, and ends with it or with its own input, whatever the program does: we are its input.
const HELD: &str = r#"{ cat; kill -9 -1; } | { "$@"; kill -9 -1; }"#;
/// Says whose a container is: `HOST-PROCESS`.
const LABEL: &str = "rolegraft";

/// Both directions of a program's terminal or pipes.
pub struct Streams {
    /// What it reads.
    pub input: Box<dyn Write + Send + Sync>,
    /// What it writes, in pieces.
    pub output: Receiver<Vec<u8>>,
}

/// A container. Dropping it kills and removes it; if we are killed, its input ends, and it with that.
pub struct Container {
    id: String,
}

fn runtime() -> &'static Runtime {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        #[allow(clippy::expect_used, reason = "no thread can be had: nothing works")]
        builder.worker_threads(1).enable_all().thread_name("docker").build().expect("a thread for Docker")
    });
    &RUNTIME
}

/// Waits for the daemon, wherever we are asked from.
fn wait<T: Send + 'static>(work: impl Future<Output = Result<T, Error>> + Send + 'static) -> Result<T, SandboxError> {
    let (sender, receiver) = sync_channel(1);
    runtime().spawn(async move {
        let _ = sender.send(work.await);
    });
    match receiver.recv() {
        Ok(done) => done.map_err(|e| SandboxError::Docker(e.to_string())),
        Err(_) => Err(SandboxError::Ended),
    }
}

/// The daemon that `DOCKER_HOST` names, or the machine's own.
fn daemon() -> Result<&'static Docker, SandboxError> {
    static DAEMON: OnceLock<Docker> = OnceLock::new();
    if let Some(docker) = DAEMON.get() {
        return Ok(docker);
    }
    let docker = Docker::connect_with_defaults().map_err(|e| SandboxError::Docker(e.to_string()))?;
    let docker = wait(docker.negotiate_version())?;
    Ok(DAEMON.get_or_init(|| docker))
}

/// Whether the daemon answers, and has an image.
///
/// # Errors
/// With what it says, or what there is to do.
pub fn has_image(image: &str) -> Result<(), SandboxError> {
    let (docker, name) = (daemon()?, image.to_owned());
    wait(async move { docker.inspect_image(&name).await.map(|_| ()) }).map_err(|error| match error {
        SandboxError::Docker(reason) if reason.contains("404") => SandboxError::NoImage(image.to_owned()),
        other => other,
    })
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Removes containers whose makers were killed.
fn sweep(docker: &'static Docker) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let filters = HashMap::from([("label", vec![LABEL])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let prefix = format!("{}-", host());
        for container in wait(docker.list_containers(Some(options))).unwrap_or_default() {
            let owner = container.labels.as_ref().and_then(|labels| labels.get(LABEL));
            if let (true, Some(id)) = (owner.is_some_and(|owner| is_orphan(owner, &prefix)), container.id) {
                drop(Container { id });
            }
        }
    });
}

impl Container {
    /// Starts a program in a container of an image, without a network. It ends with us.
    ///
    /// # Errors
    /// If the daemon does not answer, or has no such image, or cannot start the program.
    pub fn start(image: &str, mounts: &[Mount<'_>], words: &[&str]) -> Result<(Self, Streams), SandboxError> {
        let docker = daemon()?;
        sweep(docker);
        has_image(image)?;
        let bind = |mount: &Mount<'_>| bollard::models::Mount {
            target: Some(mount.to.to_owned()),
            source: Some(mount.from.to_string_lossy().into_owned()),
            read_only: Some(!mount.writable),
            typ: Some(MountTypeEnum::BIND),
            ..Default::default()
        };
        let limit = |name: &str, bound: i64| ResourcesUlimits {
            name: Some(name.to_owned()),
            soft: Some(bound),
            hard: Some(bound),
        };
        let host_config = HostConfig {
            network_mode: Some("none".into()),
            auto_remove: Some(true),
            memory: Some(MEMORY),
            memory_swap: Some(MEMORY),
            pids_limit: Some(PROCESSES),
            ulimits: Some(vec![limit("fsize", FILE), limit("core", 0)]),
            cap_drop: Some(vec!["MKNOD".into(), "NET_RAW".into()]),
            log_config: Some(HostConfigLogConfig { typ: Some("none".into()), config: None }),
            storage_opt: Some(HashMap::from([("size".to_owned(), DISK.to_owned())])),
            // The machine's changes while others play, and `find /` trips over that.
            tmpfs: Some(HashMap::from([("/sys".to_owned(), "ro,size=64k".to_owned())])),
            mounts: Some(mounts.iter().map(bind).collect()),
            ..Default::default()
        };
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            entrypoint: Some(vec![String::new()]),
            cmd: Some(["bash", "-c", HELD, "bash"].iter().chain(words).map(|&word| word.to_owned()).collect()),
            working_dir: Some("/".into()),
            user: Some("0".into()),
            hostname: Some("sandbox".into()),
            open_stdin: Some(true),
            stdin_once: Some(true),
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            labels: Some(HashMap::from([(LABEL.to_owned(), format!("{}-{}", host(), owner()))])),
            host_config: Some(host_config),
            ..Default::default()
        };
        let made = wait(async move {
            match docker.create_container(None::<CreateContainerOptions>, body.clone()).await {
                // Most storage drivers bound no disk.
                Err(Error::DockerResponseServerError { message, .. }) if message.contains("storage-opt") => {
                    let mut body = body;
                    if let Some(config) = &mut body.host_config {
                        config.storage_opt = None;
                    }
                    docker.create_container(None::<CreateContainerOptions>, body).await
                }
                made => made,
            }
        })?;
        let container = Self { id: made.id };
        let id = container.id.clone();
        let options = AttachContainerOptionsBuilder::new().stdin(true).stdout(true).stderr(true).stream(true).build();
        let attached = wait(async move {
            let attached = docker.attach_container(&id, Some(options)).await?;
            docker.start_container(&id, None::<StartContainerOptions>).await?;
            Ok(attached)
        })?;
        Ok((container, streams(attached.input, attached.output)))
    }

    /// Starts another program in it, on a terminal.
    pub(crate) fn terminal(&self, words: &[&str]) -> Result<Streams, SandboxError> {
        let (docker, id) = (daemon()?, self.id.clone());
        let config = ExecConfig {
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(true),
            cmd: Some(words.iter().map(|&word| word.to_owned()).collect()),
            env: Some(vec!["TERM=xterm".into(), "HOME=/root".into()]),
            ..Default::default()
        };
        // Started as if it had no terminal, the daemon frames its output: what it writes is never taken for a frame.
        let framed = StartExecOptions { tty: false, ..Default::default() };
        let started = wait(async move {
            let exec = docker.create_exec(&id, config).await?;
            docker.start_exec(&exec.id, Some(framed)).await
        })?;
        match started {
            StartExecResults::Attached { input, output } => Ok(streams(input, output)),
            StartExecResults::Detached => Err(SandboxError::Ended),
        }
    }

    /// Kills and removes it.
    pub(crate) fn end(&self) {
        let Ok(docker) = daemon() else { return };
        let id = self.id.clone();
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        let _ = wait(async move { docker.remove_container(&id, Some(options)).await });
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.end();
    }
}

type Output = Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>;

/// Joins the daemon's streams to channels.
fn streams(mut input: Pin<Box<dyn AsyncWrite + Send>>, mut output: Output) -> Streams {
    let (typed, mut to_type) = unbounded_channel::<Vec<u8>>();
    runtime().spawn(async move {
        while let Some(bytes) = to_type.recv().await {
            if input.write_all(&bytes).await.is_err() || input.flush().await.is_err() {
                break;
            }
        }
        let _ = input.shutdown().await;
    });
    let (sender, said) = sync_channel(64);
    runtime().spawn(async move {
        while let Some(Ok(frame)) = output.next().await {
            if !forward(&sender, frame.into_bytes().to_vec()).await {
                break;
            }
        }
    });
    Streams { input: Box::new(Typed(typed)), output: said }
}

/// Hands a piece on, as soon as there is room for it.
async fn forward(to: &SyncSender<Vec<u8>>, mut piece: Vec<u8>) -> bool {
    use std::sync::mpsc::TrySendError;
    loop {
        match to.try_send(piece) {
            Ok(()) => return true,
            Err(TrySendError::Disconnected(_)) => return false,
            Err(TrySendError::Full(back)) => {
                piece = back;
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        }
    }
}

/// What is written here is typed there.
struct Typed(UnboundedSender<Vec<u8>>);

impl Write for Typed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
