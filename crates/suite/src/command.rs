//! Commands in containers of their own: run once, or for as long as they serve.

use crate::cgroup::Cgroup;
use crate::container::{DISK, LIMITS, Mount, container, entered, installed};
use crate::output::drain;
use crate::sandbox_error::SandboxError;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What a single command left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Separate {
    /// Standard output, cut at 1 MiB.
    pub stdout: Vec<u8>,
    /// Standard error, cut at 1 MiB.
    pub stderr: Vec<u8>,
    /// Exit status; none if the time limit ended it, or a signal.
    pub status: Option<i32>,
    /// Whether it was killed, from outside or from within: not by the time limit.
    pub killed: bool,
}

/// Whether a box ended by SIGKILL, its own or that of what ran in it, which it tells as shells do.
pub(crate) fn is_kill(status: ExitStatus) -> bool {
    let kill = rustix::process::Signal::KILL.as_raw();
    status.signal() == Some(kill) || status.code() == Some(128 + kill)
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
    let (status, killed) = loop {
        match child.try_wait()? {
            Some(status) => break (status.code(), is_kill(status)),
            None if Instant::now() >= until => {
                child.kill()?;
                child.wait()?;
                break (None, false);
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    let text = |reader: std::thread::JoinHandle<Vec<u8>>| reader.join().unwrap_or_default();
    Ok(Separate { stdout: text(stdout), stderr: text(stderr), status, killed })
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

#[cfg(test)]
#[allow(clippy::print_stderr)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn single_commands_see_their_mount_and_keep_streams_apart() {
        if let Err(error) = crate::Sandbox::start() {
            eprintln!("skipped: {error}");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.txt"), "hello").unwrap();
        let mount = [Mount { from: dir.path(), to: "/work/task/testbed", writable: true }];
        let words = ["sh", "-c", "cat task/testbed/a.txt; echo no >&2; echo new > task/testbed/b.txt; exit 3"];
        let done = run_once(&mount, "/work", &words, 5 * SECOND).unwrap();
        assert_eq!(
            done,
            Separate { stdout: b"hello".to_vec(), stderr: b"no\n".to_vec(), status: Some(3), killed: false }
        );
        assert_eq!(std::fs::read_to_string(dir.path().join("b.txt")).unwrap(), "new\n");
        let begun = Instant::now();
        let stuck = run_once(&mount, "/work", &["sh", "-c", "echo a; sleep 60"], SECOND).unwrap();
        assert_eq!((stuck.stdout, stuck.status, stuck.killed), (b"a\n".to_vec(), None, false));
        assert!(run_once(&mount, "/work", &["sh", "-c", "kill -9 $$"], 5 * SECOND).unwrap().killed);
        assert!(begun.elapsed() < 3 * SECOND);
    }
}
