//! Model-written shell commands run here and nowhere else.
//!
//! A [`Sandbox`] is a bubblewrap container: its own mount, pid, ipc, uts, user and network namespaces, the host's
//! programs read-only, everything writable on size-limited tmpfs, no environment, no network. One `bash` lives in it
//! for the whole episode, so that the working directory and variables persist. The container's processes die with the
//! sandbox, with the thread that made it, and with us (`--die-with-parent` on a pid namespace).

use std::io::{self, Read, Write};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use crate::cgroup::Cgroup;
use crate::command::is_kill;
use crate::container::{LIMITS, container, entered, installed, overlaid};
use crate::docker::Container;
use crate::output::{forward, read_to_mark};

pub use crate::command::{Separate, run_once, service};
pub use crate::container::{BoxUser, Mount};
pub use crate::output::CommandOutput;
pub use crate::sandbox_error::SandboxError;
pub use crate::terminal::Terminal;
pub use rolegraft_files::temporary_folder;

/// Starts the login shell on the terminal.
const SHELL: &str = "setsid --ctty bash --login <&9 >&9 2>&9 9>&- & exec 9>&-";
/// Where a script's output is kept for as long as it has a name.
const OUTPUT: &str = "/dev/shm/.output";
/// How long a box that has closed its pipes may take to end.
const LAST_MOMENT: Duration = Duration::from_millis(500);

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

/// That boxes can be had here.
///
/// # Errors
/// If bubblewrap is missing, or may not make namespaces.
pub fn available() -> Result<(), SandboxError> {
    let tried = run_once(&[], "/work", &["true"], Duration::from_secs(10))?;
    match tried.status {
        Some(0) => Ok(()),
        _ => Err(SandboxError::Broken(String::from_utf8_lossy(&tried.stderr).trim().to_owned())),
    }
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
    /// Whether it ended by a kill that was not ours.
    killed: bool,
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
        Self { held, input, output, marker: marker(), count: 0, ended: false, killed: false }
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
            self.notice_kill();
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
            if read.is_err() {
                self.notice_kill();
            }
            self.end();
        }
        let (bytes, status) = read?;
        Ok(CommandOutput { bytes, status: status.and_then(|text| text.trim().parse().ok()) })
    }

    /// Whether its shell, or what holds it, was killed, from outside or from within: not by a time limit. What becomes of
    /// Docker's boxes is not known.
    pub fn killed(&mut self) -> bool {
        if let (false, Held::Child(child, _)) = (self.ended, &mut self.held) {
            self.killed |= child.try_wait().is_ok_and(|status| status.is_some_and(is_kill));
        }
        self.killed
    }

    /// The same of a box that has just closed its pipes, which it does a moment before it can be asked.
    fn notice_kill(&mut self) {
        let until = Instant::now() + LAST_MOMENT;
        while let Held::Child(child, _) = &mut self.held
            && matches!(child.try_wait(), Ok(None))
            && Instant::now() < until
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.killed();
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
    use crate::output::MAX_OUTPUT;

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
    fn a_killed_box_is_told_from_one_that_ended() {
        let kill = |id: i32| {
            let id = rustix::process::Pid::from_raw(id).unwrap();
            rustix::process::kill_process(id, rustix::process::Signal::KILL).unwrap();
        };
        let outer = |sandbox: &Sandbox| match &sandbox.held {
            Held::Child(child, _) => child.id().cast_signed(),
            Held::Container(_) => unreachable!(),
        };
        let Some(mut ended) = sandbox() else { return };
        assert!(ended.run("exit 3", SECOND).is_err() && !ended.killed());
        let mut slow = sandbox().unwrap();
        assert!(slow.run("sleep 60", SECOND / 2).unwrap().status.is_none() && !slow.killed());
        let mut suicide = sandbox().unwrap();
        assert!(suicide.run("kill -9 $$", 5 * SECOND).is_err() && suicide.killed());
        let mut outside = sandbox().unwrap();
        assert!(!outside.killed());
        kill(outer(&outside));
        assert!(outside.run(":", 5 * SECOND).is_err() && outside.killed());
        // The first process inside, which bubblewrap makes.
        let mut inside = sandbox().unwrap();
        let id = outer(&inside);
        let first = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        kill(first.trim().parse().unwrap());
        assert!(inside.run(":", 5 * SECOND).is_err() && inside.killed());
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
