//! What a run does, for machines: JSON lines in a file, and calls of a command.

use crate::talk::{Reporter, note};
use anyhow::{Context, Result};
use clap::Args;
use rolegraft_pipeline::Progress;
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Events of progress a second.
const EVERY: Duration = Duration::from_secs(1);

#[derive(Args)]
pub(crate) struct EventFlags {
    /// Append what happens to this file, a JSON object a line: `time` (seconds since 1970), `event` (stage, progress, note, done,
    /// failed), `stage`, `finished`, `of`, `text`.
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// Run this command by `sh -c` when a stage ends (ROLEGRAFT_EVENT=stage), and at the end (done, failed), with
    /// ROLEGRAFT_STAGE and ROLEGRAFT_TEXT.
    #[arg(long, value_name = "COMMAND")]
    notify: Option<String>,
}

/// Tells a person, and whoever asked besides.
pub(crate) struct Events<'r> {
    person: &'r Reporter,
    file: Option<Mutex<File>>,
    notify: Option<String>,
    state: Mutex<State>,
}

struct State {
    stage: Option<String>,
    last: Option<Instant>,
    called: Vec<Child>,
}

impl State {
    fn wait(&mut self) {
        for mut child in self.called.drain(..) {
            if !child.wait().is_ok_and(|status| status.success()) {
                note("--notify failed");
            }
        }
    }
}

impl EventFlags {
    pub(crate) fn tell<'r>(&self, person: &'r Reporter) -> Result<Events<'r>> {
        let open = |path: &PathBuf| {
            let file = File::options().append(true).create(true).open(path);
            file.map(Mutex::new).with_context(|| format!("`{}` cannot be written", path.display()))
        };
        let file = self.events.as_ref().map(open).transpose()?;
        let state = State { stage: None, last: None, called: Vec::new() };
        Ok(Events { person, file, notify: self.notify.clone(), state: Mutex::new(state) })
    }
}

impl Events<'_> {
    fn write(&self, event: &str, stage: Option<&str>, more: Value) {
        let Some(file) = &self.file else { return };
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let mut line = json!({"time": time, "event": event, "stage": stage});
        if let (Some(line), Value::Object(more)) = (line.as_object_mut(), more) {
            line.extend(more);
        }
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = writeln!(file, "{line}") {
            note(&format!("an event cannot be written: {error}"));
        }
    }

    fn call(&self, state: &mut State, event: &str, stage: &str, text: &str) {
        let Some(command) = &self.notify else { return };
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).stdin(Stdio::null()).stdout(Stdio::null());
        shell.envs([("ROLEGRAFT_EVENT", event), ("ROLEGRAFT_STAGE", stage), ("ROLEGRAFT_TEXT", text)]);
        match shell.spawn() {
            Ok(child) => state.called.push(child),
            Err(error) => note(&format!("--notify cannot be run: {error}")),
        }
        state.called.retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))));
    }

    /// Says how it ended, and waits until everybody who was called knows.
    pub(crate) fn end(&self, error: Option<&str>) {
        let (event, text) = error.map_or(("done", ""), |error| ("failed", error));
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let stage = state.stage.take().unwrap_or_default();
        self.write(event, Some(&stage), json!({"text": text}));
        state.wait();
        self.call(&mut state, event, &stage, text);
        state.wait();
    }
}

impl Progress for Events<'_> {
    fn stage(&self, name: &str) {
        self.person.stage(name);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = state.stage.replace(name.to_owned()) {
            self.call(&mut state, "stage", &before, "");
        }
        state.last = None;
        self.write("stage", Some(name), Value::Null);
    }
    fn update(&self, finished: usize, of: usize, what: &str) {
        self.person.update(finished, of, what);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if finished == of || state.last.is_none_or(|last| last.elapsed() >= EVERY) {
            state.last = Some(Instant::now());
            let more = json!({"finished": finished, "of": of, "text": what});
            self.write("progress", state.stage.as_deref(), more);
        }
    }
    fn note(&self, text: &str) {
        self.person.note(text);
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.write("note", state.stage.as_deref(), json!({"text": text}));
    }
}
