//! Model-written shell commands run here and nowhere else.
//!
//! A [`Sandbox`] is a bubblewrap container: its own mount, pid, ipc, uts, user and network namespaces, the host's
//! programs read-only, everything writable on size-limited tmpfs, no environment, no network. One `bash` lives in it
//! for the whole episode, so that the working directory and variables persist. The container's processes die with the
//! sandbox, with the thread that made it, and with us (`--die-with-parent` on a pid namespace).

use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::cgroup::Cgroup;
use crate::container::{DISK, container, entered, overlaid};
use crate::docker::Container;

pub use crate::terminal::Terminal;

/// Longest output kept of one command, in bytes.
const MAX_OUTPUT: usize = 1 << 20;
/// Starts the login shell on the terminal.
const SHELL: &str = "setsid --ctty bash --login <&9 >&9 2>&9 9>&- & exec 9>&-";
/// Where a script's output is kept for as long as it has a name.
const OUTPUT: &str = "/dev/shm/.output";
/// Address space (KiB), file size (blocks) and processes of everything inside.
const LIMITS: &str = "ulimit -v 2097152 -f 131072 -u 256 2>/dev/null";

/// Why no sandbox can be had.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum SandboxError {
    #[error("bubblewrap is not installed; install the package `bubblewrap`")]
    NotInstalled,
    #[error("bubblewrap does not work here: {0}")]
    Broken(String),
    #[error("Docker does not do what is asked: {0}")]
    Docker(String),
    #[error("Docker has no image `{0}`; build or pull it (docs/agentbench.md says how)")]
    NoImage(String),
    #[error("the sandbox failed")]
    Io(#[from] io::Error),
    #[error("the sandbox has ended: a command ran over its time limit or ended the shell")]
    Ended,
}

/// What a command left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandOutput {
    /// Standard output and error, interleaved, cut at 1 MiB.
    pub bytes: Vec<u8>,
    /// Exit status; none if the time limit ended it.
    pub status: Option<i32>,
}

impl BoxUser {
    /// The one with which most tasks work here.
    #[must_use]
    pub fn best() -> Self {
        let root = rustix::process::geteuid().is_root() && Cgroup::new().is_some();
        if root { Self::Root } else { Self::Namespace }
    }
}

/// Whether bubblewrap is there.
fn installed() -> Result<(), SandboxError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join("bwrap").is_file());
    found.then_some(()).ok_or(SandboxError::NotInstalled)
}

/// What is in the container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Image {
    /// The host's programs, read-only.
    #[default]
    Host,
    /// A root folder of its own, as `debootstrap` makes one. The episode sees it through an overlay: it may change everything,
    /// and nothing changes.
    Root {
        /// The folder.
        path: std::path::PathBuf,
        /// Who root is in it.
        user: BoxUser,
    },
    /// An image of the Docker daemon, by name: a container of its own for each episode.
    Docker(String),
}

/// Who root is in a box on an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BoxUser {
    /// Root of a user namespace: what it may do ends there. Where we are root ourselves it is the only user.
    #[default]
    Namespace,
    /// The machine's root with the capabilities that Docker leaves it, but for making devices: several users work. Needs us to be
    /// root, and a control group to bound its processes.
    Root,
}

/// What has to end with a sandbox.
enum Held {
    /// A container of ours, and its control group, which is dropped after the child has ended.
    Child(Child, #[allow(dead_code, reason = "kept for its drop")] Option<Cgroup>),
    /// Docker's.
    Container(Container),
}

impl Held {
    fn end(&mut self) {
        match self {
            Self::Child(child, _) => drop(child.kill()),
            Self::Container(container) => container.end(),
        }
    }
}

/// A running sandbox.
pub struct Sandbox {
    held: Held,
    input: Box<dyn Write + Send>,
    output: Receiver<Vec<u8>>,
    marker: String,
    count: u64,
    ended: bool,
}

impl Sandbox {
    /// Starts one.
    ///
    /// # Errors
    /// If bubblewrap is missing or may not make namespaces here.
    pub fn start() -> Result<Self, SandboxError> {
        Self::with(&Image::Host, Stdio::piped())
    }

    /// Starts one on an image, and a login shell in it on a terminal of its own.
    ///
    /// # Errors
    /// As [`Self::start`], and if there is no terminal, or no such image.
    pub fn with_terminal(image: &Image) -> Result<(Self, Terminal), SandboxError> {
        if let Image::Docker(name) = image {
            let (container, streams) = Container::start(name, &[], &["bash", "--noprofile", "--norc"])?;
            let shell = container.terminal(&["bash", "--login"])?;
            let mut sandbox = Self::over(Held::Container(container), streams.input, streams.output);
            sandbox.begin()?;
            let mut terminal = Terminal::over(shell.input, shell.output);
            // What it starts on the way to its prompt is not to be seen by the task's scripts.
            terminal.speaks();
            return Ok((sandbox, terminal));
        }
        let (mut terminal, end) = Terminal::new()?;
        // What goes wrong is said on the terminal.
        let mut sandbox = Self::with(image, Stdio::from(end)).map_err(|error| match error {
            SandboxError::Broken(reason) => {
                let said = terminal.said();
                SandboxError::Broken(if said.is_empty() { reason } else { said })
            }
            other => other,
        })?;
        sandbox.run(SHELL, Duration::from_secs(10))?;
        Ok((sandbox, terminal))
    }

    fn over(held: Held, input: Box<dyn Write + Send>, output: Receiver<Vec<u8>>) -> Self {
        Self { held, input, output, marker: marker(), count: 0, ended: false }
    }

    fn with(image: &Image, stderr: Stdio) -> Result<Self, SandboxError> {
        installed()?;
        let group = Cgroup::new();
        let mut command = match image {
            Image::Root { path, user } => overlaid(path, *user, group.as_ref())?,
            Image::Host | Image::Docker(_) => entered(group.as_ref(), container()),
        };
        command.args(["--chdir", "/", "bash", "--noprofile", "--norc"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr);
        let mut child = command.spawn()?;
        let missing = || io::Error::other("no pipe to the sandbox");
        let stdin = child.stdin.take().ok_or_else(missing)?;
        let stdout = child.stdout.take().ok_or_else(missing)?;
        let stderr = child.stderr.take();
        let (sender, output) = sync_channel(16);
        std::thread::spawn(move || forward(stdout, &sender));
        let mut sandbox = Self::over(Held::Child(child, group), Box::new(stdin), output);
        match sandbox.begin() {
            Ok(_) => Ok(sandbox),
            Err(_) => {
                let mut said = String::new();
                sandbox.held.end();
                if let Some(mut stderr) = stderr {
                    let _ = stderr.read_to_string(&mut said);
                }
                Err(SandboxError::Broken(said.trim().to_owned()))
            }
        }
    }

    /// What a box's own shell does first.
    fn begin(&mut self) -> Result<CommandOutput, SandboxError> {
        self.run(&format!("exec 9>&2 2>&1; umask 022; {LIMITS}"), Duration::from_secs(10))
    }

    /// Runs a command in the episode's shell: its working directory and variables stay.
    ///
    /// # Errors
    /// If the sandbox has ended.
    pub fn run(&mut self, command: &str, limit: Duration) -> Result<CommandOutput, SandboxError> {
        if self.ended {
            return Err(SandboxError::Ended);
        }
        self.count += 1;
        let end = format!("{}-{}", self.marker, self.count);
        // The here-document's delimiter is random, so the command is read to the letter; it cannot read our input.
        let script =
            format!("eval \"$(cat <<'{end}'\n{command}\n{end}\n)\" </dev/null\nprintf '\\n%s %s\\n' '{end}' \"$?\"\n");
        if self.input.write_all(script.as_bytes()).and_then(|()| self.input.flush()).is_err() {
            self.ended = true;
            return Err(SandboxError::Ended);
        }
        self.collect(&end, limit)
    }

    /// Runs a script in a shell of its own, with arguments, in the same sandbox.
    ///
    /// # Errors
    /// If the sandbox has ended.
    pub fn run_script(
        &mut self,
        code: &str,
        arguments: &[&str],
        limit: Duration,
    ) -> Result<CommandOutput, SandboxError> {
        let words: Vec<String> = [code, "--"].iter().chain(arguments).map(|w| quote(w)).collect();
        // Its output goes to a file without a name: what it leaves running writes there, and not among later commands' output.
        let script = format!(
            "(cd /; exec 8>{OUTPUT} 7<{OUTPUT}; rm -f {OUTPUT}; bash -c {} >&8 2>&1 7<&- 8>&-; s=$?; cat <&7; exit $s)",
            words.join(" ")
        );
        self.run(&script, limit)
    }

    fn collect(&mut self, end: &str, limit: Duration) -> Result<CommandOutput, SandboxError> {
        let read = read_to_mark(&self.output, Vec::new(), &format!("\n{end} "), b'\n', limit);
        // A command that is not done takes the shell with it.
        if !matches!(read, Ok((_, Some(_)))) {
            self.end();
        }
        let (bytes, status) = read?;
        Ok(CommandOutput { bytes, status: status.and_then(|text| text.trim().parse().ok()) })
    }

    fn end(&mut self) {
        self.ended = true;
        self.held.end();
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.held.end();
        if let Held::Child(child, _) = &mut self.held {
            let _ = child.wait();
        }
    }
}

/// A folder of the host that a single command sees.
#[derive(Debug, Clone, Copy)]
pub struct Mount<'m> {
    /// Where it is.
    pub from: &'m std::path::Path,
    /// Where the command sees it.
    pub to: &'m str,
    /// Whether it may write there.
    pub writable: bool,
}

/// What a single command left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Separate {
    /// Standard output, cut at 1 MiB.
    pub stdout: Vec<u8>,
    /// Standard error, cut at 1 MiB.
    pub stderr: Vec<u8>,
    /// Exit status; none if the time limit ended it.
    pub status: Option<i32>,
}

/// Runs one command in a container of its own, in the folder `chdir`.
///
/// # Errors
/// If bubblewrap is missing, or the container cannot be made.
pub fn run_once(mounts: &[Mount<'_>], chdir: &str, words: &[&str], limit: Duration) -> Result<Separate, SandboxError> {
    let mut command = container();
    command.args(["--size", DISK, "--tmpfs", chdir]);
    for mount in mounts {
        command.arg(if mount.writable { "--bind" } else { "--ro-bind" }).arg(mount.from).arg(mount.to);
    }
    command.args(["--chdir", chdir, "bash", "--noprofile", "--norc", "-c"]);
    command.arg(format!("umask 022; {LIMITS}; exec \"$@\"")).arg("--").args(words);
    installed()?;
    let group = Cgroup::new();
    let mut command = entered(group.as_ref(), command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let missing = || io::Error::other("no pipe to the sandbox");
    let stdout = drain(child.stdout.take().ok_or_else(missing)?);
    let stderr = drain(child.stderr.take().ok_or_else(missing)?);
    let until = Instant::now() + limit;
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status.code(),
            None if Instant::now() >= until => {
                child.kill()?;
                child.wait()?;
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    let text = |reader: std::thread::JoinHandle<Vec<u8>>| reader.join().unwrap_or_default();
    Ok(Separate { stdout: text(stdout), stderr: text(stderr), status })
}

/// Starts a program that serves for as long as the thread lives that starts it: `folder` is a tmpfs of `disk` bytes. Its standard
/// output is piped, the rest is dropped.
///
/// # Errors
/// If bubblewrap is missing, or cannot be started.
pub fn service(mounts: &[Mount<'_>], folder: &str, disk: u64, words: &[&str]) -> Result<Child, SandboxError> {
    installed()?;
    let mut command = container();
    command.args(["--size", &disk.to_string(), "--tmpfs", folder]);
    for mount in mounts {
        command.arg(if mount.writable { "--bind" } else { "--ro-bind" }).arg(mount.from).arg(mount.to);
    }
    command.args(words);
    let mut command = entered(None, command);
    Ok(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?)
}

/// Reads a pipe to its end and keeps the first [`MAX_OUTPUT`] bytes.
fn drain(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let (mut kept, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            let room = MAX_OUTPUT - kept.len();
            kept.extend_from_slice(&buffer[..n.min(room)]);
        }
        kept
    })
}

fn forward(mut from: impl Read, to: &SyncSender<Vec<u8>>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        if to.send(buffer[..n].to_vec()).is_err() {
            break;
        }
    }
}

/// Reads on after `bytes` up to a mark: the first [`MAX_OUTPUT`] bytes before it, and the text between it and `close`, if it
/// comes within the limit.
pub(crate) fn read_to_mark(
    output: &Receiver<Vec<u8>>,
    mut bytes: Vec<u8>,
    mark: &str,
    close: u8,
    limit: Duration,
) -> Result<(Vec<u8>, Option<String>), SandboxError> {
    let (mark, until) = (mark.as_bytes(), Instant::now() + limit);
    let mut searched = 0;
    loop {
        if let Some(at) = find(&bytes[searched..], mark).map(|i| i + searched) {
            let rest = &bytes[at + mark.len()..];
            if let Some(end) = rest.iter().position(|b| *b == close) {
                let said = String::from_utf8_lossy(&rest[..end]).into_owned();
                bytes.truncate(at.min(MAX_OUTPUT));
                return Ok((bytes, Some(said)));
            }
        }
        searched = bytes.len().saturating_sub(mark.len() + 16);
        match output.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(chunk) => {
                // Beyond the cap only the tail matters, where the mark will be.
                if bytes.len() > 2 * MAX_OUTPUT {
                    let tail = bytes.split_off(bytes.len() - 256);
                    bytes.truncate(MAX_OUTPUT);
                    bytes.extend(tail);
                    searched = MAX_OUTPUT;
                }
                bytes.extend(chunk);
            }
            Err(RecvTimeoutError::Timeout) => {
                bytes.truncate(MAX_OUTPUT);
                return Ok((bytes, None));
            }
            Err(RecvTimeoutError::Disconnected) => return Err(SandboxError::Ended),
        }
    }
}

/// Whether a name of ours, `PREFIX`, process id, `-` and more, is of a process that has ended.
#[must_use]
pub fn is_orphan(name: &str, prefix: &str) -> bool {
    let owner = name.strip_prefix(prefix).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
    owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

/// A word that no command can guess.
fn marker() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("end-{:016x}{:016x}", RandomState::new().hash_one(1), RandomState::new().hash_one(2))
}

/// A word for the shell, to the letter.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
#[allow(clippy::print_stderr)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn sandbox() -> Option<Sandbox> {
        match Sandbox::start() {
            Ok(sandbox) => Some(sandbox),
            Err(error) => {
                eprintln!("skipped: {error}");
                None
            }
        }
    }
    fn text(output: CommandOutput) -> String {
        String::from_utf8(output.bytes).unwrap()
    }

    #[test]
    fn state_persists_and_scripts_are_apart() {
        let Some(mut sandbox) = sandbox() else { return };
        sandbox.run("cd /home; x='a b'", SECOND).unwrap();
        assert_eq!(text(sandbox.run("pwd; echo \"$x\"; printf end", SECOND).unwrap()), "/home\na b\nend");
        assert_eq!(text(sandbox.run_script("pwd; echo \"$1|$x\"", &["it's"], SECOND).unwrap()), "/\nit's|\n");
        assert_eq!(sandbox.run("(exit 7)", SECOND).unwrap().status, Some(7));
        assert_eq!(text(sandbox.run("cat; read y; echo \"[$y]\"", SECOND).unwrap()), "[]\n");
    }

    #[test]
    fn the_host_is_out_of_reach() {
        let Some(mut sandbox) = sandbox() else { return };
        let here = std::env::current_dir().unwrap();
        for attempt in [
            &format!("ls {}", here.display()),
            "touch /usr/bin/x",
            "cat /etc/shadow",
            "echo > /dev/tcp/127.0.0.1/22",
            "mount -t tmpfs x /usr",
        ] {
            assert_ne!(sandbox.run(attempt, 5 * SECOND).unwrap().status, Some(0), "{attempt}");
        }
        assert!(!text(sandbox.run("env", SECOND).unwrap()).contains("CARGO"));
    }

    #[test]
    fn single_commands_see_their_mount_and_keep_streams_apart() {
        if sandbox().is_none() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.txt"), "hello").unwrap();
        let mount = [Mount { from: dir.path(), to: "/work/task/testbed", writable: true }];
        let words = ["sh", "-c", "cat task/testbed/a.txt; echo no >&2; echo new > task/testbed/b.txt; exit 3"];
        let done = run_once(&mount, "/work", &words, 5 * SECOND).unwrap();
        assert_eq!(done, Separate { stdout: b"hello".to_vec(), stderr: b"no\n".to_vec(), status: Some(3) });
        assert_eq!(std::fs::read_to_string(dir.path().join("b.txt")).unwrap(), "new\n");
        let begun = Instant::now();
        let stuck = run_once(&mount, "/work", &["sh", "-c", "echo a; sleep 60"], SECOND).unwrap();
        assert_eq!((stuck.stdout, stuck.status), (b"a\n".to_vec(), None));
        assert!(begun.elapsed() < 3 * SECOND);
    }

    #[test]
    fn limits_hold() {
        let Some(mut sandbox) = sandbox() else { return };
        let flood = sandbox.run("head -c 50000000 /dev/zero | tr '\\0' y", 20 * SECOND).unwrap();
        assert_eq!((flood.bytes.len(), flood.status), (MAX_OUTPUT, Some(0)));
        assert_ne!(sandbox.run("head -c 99000000 /dev/zero > /tmp/fill", 20 * SECOND).unwrap().status, Some(0));
        let start = Instant::now();
        let stuck = sandbox.run("echo before; sleep 60 & sleep 60", SECOND).unwrap();
        assert_eq!((text(stuck.clone()).as_str(), stuck.status), ("before\n", None));
        assert!(start.elapsed() < 3 * SECOND);
        assert!(matches!(sandbox.run("echo", SECOND), Err(SandboxError::Ended)));
    }
}
