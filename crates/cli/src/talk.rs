//! Progress and errors for people, on stderr.

use indicatif::{ProgressBar, ProgressStyle};
use rolegraft_files::{disk_refuses, hint};
use rolegraft_nano::builtin::BuiltInError;
use rolegraft_pipeline::{Bytes, Message, Progress, RunError, Speaker, SpeakerError, Spent};
use rolegraft_report::plain;
use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Lines a second when stderr is not a terminal.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// Prints a line to stderr. Nothing ends over what cannot be said there: a log of a night's run may lie on a full disk.
macro_rules! tell {
    ($($said:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr().lock(), $($said)*);
    }};
}
pub(crate) use tell;

/// Why stdout could not be written to, the first time.
static UNSAID: OnceLock<std::io::Error> = OnceLock::new();

/// Prints to stdout; a closed pipe is not an error, and another ends nothing that is under way: [`unsaid`] tells. What models and servers
/// say reaches no terminal as it is.
pub(crate) fn say(text: &str) {
    if let Err(error) = writeln!(std::io::stdout().lock(), "{}", plain(text))
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        let _ = UNSAID.set(error);
    }
}

/// The exit code of a command that went well, once all is said: 3 if stdout did not take it.
pub(crate) fn unsaid(code: ExitCode) -> ExitCode {
    let Some(error) = UNSAID.get() else { return code };
    tell!("error: cannot write to stdout: {error}; what was done is kept");
    if code == ExitCode::SUCCESS { ExitCode::from(3) } else { code }
}

/// Prints a remark to stderr, which is no part of the result.
pub(crate) fn note(text: &str) {
    tell!("note: {}", plain(text));
}

/// Shows an error with its causes, and gives the exit code it stands for.
pub(crate) fn failure(error: &anyhow::Error) -> ExitCode {
    let run = error.downcast_ref::<RunError>();
    tell!("error: {}", plain(&error.to_string()));
    let mut shown = error.to_string();
    for cause in error.chain().skip(1) {
        let text = cause.to_string();
        if !shown.contains(&text) {
            tell!("  cause: {}", plain(text.lines().next().unwrap_or_default()));
            shown.push_str(&text);
        }
    }
    let refusal = disk_refuses(error.as_ref());
    if let Some(mend) = refusal.map(hint).filter(|mend| !shown.contains(mend.as_str())) {
        tell!("  {}", mend.trim_start_matches(": "));
    }
    match run {
        Some(e) if e.is_interrupt() => ExitCode::from(130),
        Some(e) if e.is_environment() => ExitCode::from(3),
        None if error.is::<BuiltInError>() || refusal.is_some() => ExitCode::from(3),
        _ => ExitCode::from(2),
    }
}

/// Set by the first SIGINT, SIGTERM or SIGHUP; a second one ends the process at once. What is on disk is whole either
/// way.
pub(crate) fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, stop.clone())?;
        signal_hook::flag::register(signal, stop.clone())?;
    }
    Ok(stop)
}

/// Progress on stderr: a bar on a terminal, a line now and then elsewhere.
pub(crate) struct Reporter {
    bar: Option<ProgressBar>,
    last: Mutex<Instant>,
    silent: AtomicBool,
}

impl Reporter {
    pub(crate) fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("  {bar:30} {pos}/{len} {wide_msg}");
            ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, last: Mutex::new(Instant::now()), silent: AtomicBool::new(false) }
    }
    fn line(&self, text: &str) {
        if self.silent.load(Ordering::Relaxed) {
            return;
        }
        let text = plain(text);
        match &self.bar {
            Some(bar) => bar.println(text),
            None => {
                tell!("{text}");
            }
        }
    }
    pub(crate) fn done(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Progress for Reporter {
    fn stage(&self, name: &str) {
        self.line(&format!("{name} …"));
    }
    fn update(&self, finished: usize, of: usize, what: &str) {
        if self.silent.load(Ordering::Relaxed) {
            return;
        }
        if let Some(bar) = &self.bar {
            bar.set_length(of as u64);
            bar.set_position(finished as u64);
            bar.set_message(plain(what));
            return;
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if finished == of || last.elapsed() >= PLAIN_EVERY {
            *last = Instant::now();
            self.line(&format!("  {finished}/{of} {what}"));
        }
    }
    fn note(&self, text: &str) {
        self.line(&format!("  {text}"));
    }
}

/// A person at the terminal: is shown what is said to them, control characters made visible, and types a line. Nothing is
/// drawn over that.
pub(crate) struct Terminal(pub(crate) Arc<Reporter>);

impl Speaker for Terminal {
    fn say(&self, messages: &[Message]) -> Result<(String, Spent), SpeakerError> {
        if !self.0.silent.swap(true, Ordering::Relaxed) {
            self.0.done();
        }
        let shown = messages.last().map_or("", |m| m.content.as_str());
        let _ = write!(std::io::stderr().lock(), "{}\n> ", plain(shown));
        let mut line = String::new();
        match std::io::stdin().lock().read_line(&mut line) {
            Ok(0) => Err(SpeakerError::Fatal("nobody is there: standard input has ended".into())),
            Ok(_) => Ok((line.trim_end_matches(['\n', '\r']).to_owned(), Spent::default())),
            Err(error) => Err(SpeakerError::Fatal(format!("standard input cannot be read: {error}"))),
        }
    }
}

/// Progress in bytes, with a rate and the time left.
pub(crate) struct ByteReporter {
    bar: Option<ProgressBar>,
    started: Instant,
    last: Mutex<Instant>,
}

impl ByteReporter {
    pub(crate) fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let template =
                "  {bar:30} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec}, {eta} left {wide_msg}";
            let style = ProgressStyle::with_template(template);
            ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, started: Instant::now(), last: Mutex::new(Instant::now()) }
    }
    pub(crate) fn update(&self, finished: u64, of: u64, resumed: u64, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_length(of);
            bar.set_position(finished);
            bar.set_message(what.to_owned());
            return;
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.elapsed() >= PLAIN_EVERY {
            *last = Instant::now();
            let rate = (finished - resumed) as f64 / self.started.elapsed().as_secs_f64();
            let left = (of - finished) as f64 / rate.max(1.0);
            let (finished, of, rate) = (bytes(finished), bytes(of), bytes(rate as u64));
            tell!("  {finished} of {of}, {rate}/s, {left:.0} s left");
        }
    }
    pub(crate) fn done(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A size for people, in powers of a thousand.
pub(crate) fn bytes(n: u64) -> Bytes {
    Bytes(n as usize)
}

/// The most memory this process ever held, in bytes.
pub(crate) fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()? * 1024)
}
