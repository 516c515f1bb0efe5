//! A login shell on a terminal, as an agent of AgentBench uses one.

use crate::output::{CommandOutput, read_to_mark};
use crate::sandbox_error::SandboxError;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::fs::File;
use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// How long a shell may take to show its first prompt.
const FIRST: Duration = Duration::from_secs(10);
/// Silence after which a shell that was left alone is taken to be done.
const SETTLED: Duration = Duration::from_millis(300);
/// How long an interrupted command may take to end.
const GRACE: Duration = Duration::from_secs(1);

/// Our end of the terminal. Dropping it hangs up.
pub struct Terminal {
    input: Box<dyn Write + Send>,
    output: Receiver<Vec<u8>>,
    /// What the shell said and nobody has read.
    unread: Vec<u8>,
    /// The prompt that ends a command's output, once it is set.
    prompt: Option<String>,
    /// Whether nobody has waited for the shell's first prompt yet.
    fresh: bool,
}

impl Terminal {
    /// A terminal, and the end that a shell takes.
    pub(crate) fn new() -> Result<(Self, File), SandboxError> {
        let failed = |e: rustix::io::Errno| SandboxError::Io(e.into());
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).map_err(failed)?;
        grantpt(&master).map_err(failed)?;
        unlockpt(&master).map_err(failed)?;
        let name = ptsname(&master, Vec::new()).map_err(failed)?;
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
        let end = rustix::fs::open(name.as_c_str(), flags, rustix::fs::Mode::empty()).map_err(failed)?;
        let master = File::from(master);
        let mut reader = master.try_clone()?;
        let (sender, output) = sync_channel(64);
        std::thread::spawn(move || {
            let mut buffer = vec![0; 16 << 10];
            while let Ok(n @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..n].to_vec()).is_err() {
                    break;
                }
            }
        });
        Ok((Self::over(Box::new(master), output), File::from(end)))
    }

    /// A terminal that is somewhere else.
    pub(crate) fn over(input: Box<dyn Write + Send>, output: Receiver<Vec<u8>>) -> Self {
        Self { input, output, unread: Vec::new(), prompt: None, fresh: true }
    }

    /// Waits until a shell that has just started has said something and then nothing more.
    fn wait_for_prompt(&mut self) {
        if !std::mem::take(&mut self.fresh) {
            return;
        }
        if self.speaks() {
            self.settle();
        }
    }

    /// Waits until a shell that has just started says something.
    pub(crate) fn speaks(&mut self) -> bool {
        if self.unread.is_empty()
            && let Ok(chunk) = self.output.recv_timeout(FIRST)
        {
            self.unread.extend(chunk);
        }
        !self.unread.is_empty()
    }

    /// What was said so far, as one line.
    pub(crate) fn said(&mut self) -> String {
        self.settle();
        String::from_utf8_lossy(&self.unread).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn settle(&mut self) {
        while let Ok(chunk) = self.output.recv_timeout(SETTLED) {
            self.unread.extend(chunk);
        }
    }

    fn write(&mut self, text: &[u8]) -> Result<(), SandboxError> {
        self.input.write_all(text).map_err(|_| SandboxError::Ended)
    }

    /// Types a line as a person does, and leaves what comes of it unread.
    ///
    /// # Errors
    /// If the shell has ended.
    pub fn type_line(&mut self, line: &str) -> Result<(), SandboxError> {
        self.wait_for_prompt();
        self.write(format!("{line}\n").as_bytes())?;
        self.settle();
        Ok(())
    }

    /// Makes the shell quiet: no echo, and a prompt that nobody else writes. Whether it is.
    fn hush(&mut self) -> Result<bool, SandboxError> {
        use std::hash::{BuildHasher, RandomState};
        let word = format!("{:016x}", RandomState::new().hash_one(3));
        self.unread.clear();
        // In two parts, so that its own echo does not look like the prompt.
        let line = format!(
            " HISTCONTROL=ignorespace; stty -echo; bind 'set enable-bracketed-paste off' 2>/dev/null; PROMPT_COMMAND=; PS2=; \
             PS1='end''-{word} $? '\n"
        );
        self.write(line.as_bytes())?;
        self.prompt = Some(format!("end-{word} "));
        let limit = if std::mem::take(&mut self.fresh) { FIRST } else { 2 * GRACE };
        Ok(self.collect(limit)?.status.is_some())
    }

    /// Runs a command in the shell, however many lines it has, and returns what it wrote. A command that takes longer than
    /// `limit` is interrupted; the shell lives on.
    ///
    /// # Errors
    /// If the shell has ended.
    pub fn run(&mut self, command: &str, limit: Duration) -> Result<CommandOutput, SandboxError> {
        if self.prompt.is_none() && !self.hush()? {
            self.prompt = None;
            return Err(SandboxError::Ended);
        }
        self.unread.clear();
        let octal: String = command.bytes().map(|b| format!("\\{b:03o}")).collect();
        self.write(format!(" eval \"$(printf '{octal}')\"\n").as_bytes())?;
        let done = self.collect(limit)?;
        if done.status.is_none() {
            self.write(b"\x03")?;
            let more = self.collect(GRACE)?;
            // Another shell may have taken over.
            if more.status.is_none() && !self.hush()? {
                return Err(SandboxError::Ended);
            }
        }
        Ok(done)
    }

    /// Reads up to the prompt.
    fn collect(&mut self, limit: Duration) -> Result<CommandOutput, SandboxError> {
        let (unread, prompt) = (std::mem::take(&mut self.unread), self.prompt.as_deref().unwrap_or_default());
        let (bytes, status) = read_to_mark(&self.output, unread, prompt, b' ', limit)?;
        Ok(CommandOutput { bytes, status: status.map(|text| text.parse().unwrap_or(0)) })
    }

    /// Types a text as upstream does and reads what comes, in pieces: the typed line first, then what the shell wrote up to
    /// `is_prompt`, or until it says nothing for `silence`, or `limit` is over. What is not read stays for the next time.
    ///
    /// # Errors
    /// If the shell has ended.
    pub fn type_and_read(
        &mut self,
        text: &str,
        is_prompt: &dyn Fn(&[u8]) -> Option<usize>,
        silence: Duration,
        limit: Duration,
    ) -> Result<Vec<Vec<u8>>, SandboxError> {
        self.wait_for_prompt();
        self.write(format!("{text}\n").as_bytes())?;
        let until = Instant::now() + limit;
        let mut pieces: Vec<Vec<u8>> = Vec::new();
        loop {
            let end = match pieces.is_empty() {
                true => self.unread.iter().position(|b| *b == b'\n').map(|at| at + 1),
                false => is_prompt(&self.unread),
            };
            if let Some(end) = end {
                pieces.push(self.unread.drain(..end).collect());
                if pieces.len() == 2 {
                    return Ok(pieces);
                }
                continue;
            }
            let wait = silence.min(until.saturating_duration_since(Instant::now()));
            match self.output.recv_timeout(wait) {
                Ok(chunk) => self.unread.extend(chunk),
                Err(RecvTimeoutError::Timeout) => {
                    pieces.push(std::mem::take(&mut self.unread));
                    return Ok(pieces);
                }
                Err(RecvTimeoutError::Disconnected) => return Err(SandboxError::Ended),
            }
        }
    }
}
