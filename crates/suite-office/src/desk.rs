//! One turn at the desk: from an action's JSON to an observation, as upstream's `exec_action` goes.

use crate::apps::{self, Action, app, apps, joined};
use crate::archive::is_refusal;
use crate::command_line::reach;
use crate::convert::Program;
use crate::files::Testbed;
use crate::fire::{Call, call};
use crate::mode::Mode;
use crate::tools::{self, Place, Printed};
use rolegraft_python::{self as literal, Object};
use rolegraft_spans::{Reading, python_json};
use rolegraft_suite::sandbox::{Mount, Separate, run_once};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a sandboxed shell starts.
const ROOM: &str = "/work";
/// Where `cd` starts to remember.
pub(crate) const MEMORY: &str = "./local_workdir";
/// How long a command may take.
const SHELL_LIMIT: Duration = Duration::from_secs(120);

/// The state that actions change.
pub(crate) struct Desk {
    /// The files.
    pub(crate) bed: Testbed,
    /// The app that is open.
    pub(crate) app: Option<String>,
    /// What the task asks for.
    pub(crate) task: String,
    /// The task's folder as the model sees it: `./local_workdir/tasks/T`.
    pub(crate) folder: String,
    /// Files that the task's author expects, where a shell can see them.
    pub(crate) reference: Option<PathBuf>,
    /// Whether upstream's oddities are kept.
    pub(crate) mode: Mode,
    /// What an opened app says, `{app}` and `{task}` filled in; upstream's own text if absent.
    pub(crate) switched: Option<String>,
    /// The folder that `cd` has led to: officially remembered, and used by nothing but the next `cd`.
    pub(crate) memory: String,
    /// The clock of new events, `YYYYMMDDTHHMMSSZ`: an episode writes the same bytes every time.
    pub(crate) now: String,
    /// Programs that a conversion asked for and that are not installed.
    pub(crate) missing: BTreeSet<Program>,
    /// Whether a command was killed, which may have been the machine's doing.
    pub(crate) killed: bool,
}

/// What came of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Done {
    /// What the model sees; upstream shows nothing for some.
    pub(crate) observation: Option<String>,
    /// Whether the action did what it was asked.
    pub(crate) succeeded: bool,
    /// Whether it got as far as a command.
    pub(crate) executed: bool,
    /// Whether it says that the task is over.
    pub(crate) finished: bool,
}

impl Done {
    fn failed(text: String) -> Self {
        Self { observation: Some(text), succeeded: false, executed: false, finished: false }
    }
    fn fine(text: String) -> Self {
        Self { observation: Some(text), succeeded: true, executed: false, finished: false }
    }
}

/// What upstream's action becomes on its way to a tool.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Passed {
    /// The words after the tool's name; `None` if no shell runs it.
    pub(crate) words: Option<Vec<String>>,
    /// What fire makes of them.
    pub(crate) call: Option<Call>,
    /// Whether what the tool prints is seen.
    pub(crate) shown: bool,
}

impl Desk {
    /// Calls a tool with its parameters' values, here.
    pub(crate) fn run_tool(&self, app: &str, action: &str, arguments: &[Object]) -> Printed {
        let place = Place { bed: &self.bed, folder: &self.folder, now: &self.now, mode: self.mode };
        tools::run(&place, app, action, arguments)
    }

    /// What any error looks like.
    pub(crate) fn error(&self, message: &str) -> Done {
        Done::failed(format!("Error: [{}] {message}", self.app.as_deref().unwrap_or("None")))
    }

    /// What a reply without the tags gets.
    pub(crate) fn malformed(&self, reply: &str) -> Done {
        self.error(&format!(
            "Malformed action string:{reply}. Expected <think>...</think>\n<answer>[JSON payload]</answer>"
        ))
    }

    /// Carries out a reply as it was read.
    pub(crate) fn answer(&mut self, reply: &str, reading: &Reading) -> Done {
        match (reading.action(), reading.spans.first()) {
            (Some(_), Some(span)) if span.text.contains("NaN") || span.text.contains("Infinity") => {
                let exact = python_json::loads_with(&span.text, literal::constant).unwrap_or_default();
                self.act(&exact)
            }
            (Some(action), _) => self.act(&action.payload),
            (None, Some(span)) => {
                let message = span.violations.first().map(|v| v.detail.clone()).unwrap_or_default();
                self.error(&format!("{message} Malformed action! You must follow the given action JSON format!"))
            }
            (None, None) => self.malformed(reply),
        }
    }

    /// Carries out a parsed answer.
    pub(crate) fn act(&mut self, payload: &Value) -> Done {
        self.execute(payload).unwrap_or_else(|message| self.error(&message))
    }

    fn execute(&mut self, payload: &Value) -> Result<Done, String> {
        let Value::Object(raw) = payload else {
            return Err(format!("'{}' object has no attribute 'items'", Object::from(payload).kind()));
        };
        let mut action = raw.clone();
        for value in action.values_mut() {
            if let Value::Array(items) = value
                && items.len() == 1
            {
                *value = items.swap_remove(0);
            }
        }
        let (Some(named), Some(name)) = (action.get("app").cloned(), action.get("action").cloned()) else {
            return Err(String::new());
        };
        let mut named = named;
        let mut name = name;
        if name == "switch_app" {
            named = "system".into();
        } else {
            let kind = || format!("'{}' object has no attribute 'split'", Object::from(&name).kind());
            let parts: Vec<String> = name.as_str().ok_or_else(kind)?.split('.').map(str::to_owned).collect();
            if let [first, second, ..] = parts.as_slice()
                && app(first).is_some()
            {
                self.app = Some(first.clone());
                named = first.as_str().into();
                name = second.as_str().into();
            }
        }
        let name = name.as_str().unwrap_or_default().to_owned();
        match named.as_str() {
            Some("scratchpad") => scratchpad(&name, &action),
            Some("shell") => self.shell(&action),
            Some("system") => self.system(&name, &action),
            _ => {
                let shown = Object::from(&named).text();
                if self.app.as_deref() != named.as_str() {
                    return Ok(Done::failed(format!(
                        "Error: you must switch to the {shown} app before executing this action. Use the switch_app action \
                         to switch apps."
                    )));
                }
                let known = app(&shown).and_then(|a| a.actions.iter().find(|x| x.action == name));
                match known {
                    Some(known) => self.tool(&shown, known, &action),
                    None => Ok(Done::failed(format!("Error: Action {name} not available in app {shown}"))),
                }
            }
        }
    }

    fn system(&mut self, name: &str, action: &Map<String, Value>) -> Result<Done, String> {
        match name {
            "switch_app" => {
                let target = action.get("target_app").ok_or(
                    "Missing target_app in json request. Use the json format specified: {\"app\": \"system\", \"action\": \
                     \"switch_app\", \"target_app\": \"<target_app>\"}",
                )?;
                let object = Object::from(target);
                if matches!(object, Object::List(_) | Object::Dict(_)) {
                    return Err(format!("unhashable type: '{}'", object.kind()));
                }
                let Some(opened) = target.as_str().and_then(app) else {
                    return Err(format!("App {} not available", object.text()));
                };
                self.app = Some(opened.app.clone());
                Ok(Done::fine(self.opened(opened)))
            }
            "finish_task" => {
                let answer = action.get("answer").map_or_else(|| "None".into(), |a| Object::from(a).text());
                let path = Path::new("data/answer.txt");
                let _ = self.bed.make_parent(path);
                let _ = self.bed.write(path, answer.replace(['\'', '"'], "").as_bytes());
                Ok(Done { finished: true, ..Done::fine("Task finished".into()) })
            }
            "got_stuck" => Ok(Done { finished: true, ..Done::failed("Task failed".into()) }),
            _ => Ok(Done { observation: None, ..Done::failed(String::new()) }),
        }
    }

    /// What an opened app says.
    fn opened(&self, opened: &apps::App) -> String {
        if let Some(own) = &self.switched {
            return own.replace("{app}", &opened.app).replace("{task}", &self.task);
        }
        let actions: Vec<String> = opened.actions.iter().map(|a| format!("- {}", a.action)).collect();
        let demos: String = opened.actions.iter().map(|a| format!(" - {}\n", a.demo)).collect();
        let others = names(|a| a.app != opened.app);
        let prompt = apps::prompt(
            "prompt_decided_app",
            &[
                ("task", &self.task),
                ("current_app", &opened.app),
                ("detailed_instruction", &demos),
                ("available_apps", &others),
            ],
        );
        format!("Successfully switched to app: {}. Available actions:\n{}\n{prompt}", opened.app, actions.join("\n"))
    }

    fn shell(&mut self, action: &Map<String, Value>) -> Result<Done, String> {
        let command = action.get("command").ok_or(
            "Missing command in json request. Use the format specified: {\"app\": \"shell\", \"action\": \"command\", \
             \"command\": \"<command>\"}",
        )?;
        let mut command = match command {
            Value::Array(items) => joined(items, " ")?,
            Value::String(text) => text.clone(),
            other => return Err(format!("'{}' object has no attribute 'startswith'", Object::from(other).kind())),
        };
        if self.mode == Mode::Sane {
            return self.sane_shell(&command);
        }
        let mut moved = None;
        if command.starts_with("cd") {
            let (_, to) = command.split_once("cd ").ok_or("substring not found")?;
            let folder = simplified(&self.memory, to.trim());
            command = format!("cd {folder}");
            moved = Some(folder);
        }
        let line = self.with_workdir(&command);
        let script = format!("/bin/bash -c \"\"\" {} \"\"\"", line.trim());
        let ran = self.run(&["/bin/sh", "-c", &script])?;
        let Some(status) = ran.status else { return Err("Command timed out".into()) };
        let (stdout, stderr) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        if status == 0
            && let Some(folder) = moved
        {
            self.memory = folder;
        }
        Ok(shell_done(&command, status, &stdout, &stderr))
    }

    /// A command as it was written, run where the last `cd` led.
    fn sane_shell(&mut self, command: &str) -> Result<Done, String> {
        let here = if self.memory == MEMORY { ROOM.to_owned() } else { self.memory.clone() };
        let moves = command.trim() == "cd" || command.trim().starts_with("cd ");
        let script = if moves { format!("{command} && pwd") } else { command.to_owned() };
        let ran = self.run(&["/bin/bash", "-c", "cd -- \"$0\"; eval \"$1\"", &here, &script])?;
        let Some(status) = ran.status else { return Err("Command timed out".into()) };
        let (stdout, stderr) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        if moves && status == 0 {
            self.memory = stdout.lines().last().unwrap_or(ROOM).to_owned();
        }
        Ok(shell_done(command, status, &stdout, &stderr))
    }

    /// Runs words in a sandbox that holds the task's files.
    fn run(&mut self, words: &[&str]) -> Result<Separate, String> {
        let inside = |what: &str| format!("{ROOM}/{}/{what}", self.folder.trim_start_matches("./"));
        let (testbed, reference) = (inside("testbed"), inside("reference"));
        let host = self.bed.host_path().ok_or("there is no folder for the shell")?;
        let mut mounts = vec![Mount { from: host, to: &testbed, writable: true }];
        mounts.extend(self.reference.as_deref().map(|from| Mount { from, to: &reference, writable: false }));
        let ran = run_once(&mounts, ROOM, words, SHELL_LIMIT).map_err(|e| e.to_string())?;
        self.killed |= ran.killed;
        Ok(ran)
    }

    /// upstream: some apps' command lines, the shell's included, are told the task's folder.
    fn with_workdir(&self, line: &str) -> String {
        match self.app.as_deref() {
            Some("calendar" | "email") => format!("{line} --workdir {}", self.folder),
            _ => line.to_owned(),
        }
    }

    /// The way of an action's arguments to its tool.
    pub(crate) fn pass(&self, known: &Action, action: &Map<String, Value>) -> Result<Passed, String> {
        if known.action == "complete_text" {
            // Quoted twice, so it arrives as it is.
            let prompt = Object::from(action.get("prompt").ok_or("'prompt'")?).text();
            let words = vec!["--prompt".to_owned(), prompt];
            let called = call(&known.parameters(), &words);
            return Ok(Passed { words: Some(words), call: Some(called), shown: true });
        }
        let line = self.with_workdir(&known.command_line(action)?);
        let glob = |pattern: &str| self.bed.glob(pattern);
        let Some(reached) = reach(line.trim(), &glob) else {
            return Ok(Passed { words: None, call: None, shown: true });
        };
        let tool = reached.words.first().is_some_and(|w| w == "python3")
            && reached.words.get(1).is_some_and(|w| w.starts_with("apps/") && w.ends_with(".py"));
        if !tool {
            return Ok(Passed { words: None, call: None, shown: true });
        }
        let words = reached.words[2..].to_vec();
        let called = call(&known.parameters(), &words);
        Ok(Passed { words: Some(words), call: Some(called), shown: reached.shown })
    }

    /// A tool's parameters as the action gives them.
    pub(crate) fn given(&self, known: &Action, action: &Map<String, Value>) -> Result<Vec<Object>, String> {
        let mut arguments = Vec::new();
        for (name, default) in known.parameters() {
            let given = match name.as_str() {
                "workdir" => Some(Object::Str(self.folder.clone())),
                name => action.get(name).map(Object::from),
            };
            arguments.push(given.or(default).ok_or_else(|| format!("'{name}'"))?);
        }
        Ok(arguments)
    }

    fn tool(&mut self, app: &str, known: &Action, action: &Map<String, Value>) -> Result<Done, String> {
        let passed = match self.mode {
            Mode::Official => self.pass(known, action)?,
            Mode::Sane => {
                let call = Call { arguments: Some(self.given(known, action)?), rejected: false };
                Passed { words: Some(Vec::new()), call: Some(call), shown: true }
            }
        };
        let Some(Call { arguments: Some(arguments), rejected }) = passed.call else {
            return Ok(Done { executed: true, ..Done::failed(String::new()) });
        };
        let printed = self.run_tool(app, &known.action, &arguments);
        self.missing.extend(printed.missing);
        let text = match (passed.shown, rejected) {
            (false, _) => String::new(),
            (true, true) => printed.before,
            (true, false) => printed.returned.map_or(printed.before, |r| format!("OBSERVATION: {r}")),
        };
        let observation = text.rsplit("OBSERVATION:").next().unwrap_or_default().trim().to_owned();
        let failed = observation.is_empty()
            || observation.starts_with("Error")
            || observation.contains("Failed")
            || observation.contains("does not exist")
            || observation.contains("already exists");
        if observation.is_empty() {
            // Upstream reads what is refused here, or dies of it: that is told in either mode.
            let reason = printed.unreadable.filter(|r| self.mode == Mode::Sane || is_refusal(r));
            let message = reason.map(|reason| format!("{} failed: {reason}", known.action));
            let message = message.or_else(|| (self.mode == Mode::Sane).then(|| format!("{} failed", known.action)));
            if let Some(message) = message {
                return Ok(Done { executed: true, ..self.error(&message) });
            }
        }
        Ok(Done { observation: Some(observation), succeeded: !failed && !rejected, executed: true, finished: false })
    }
}

/// What a command says of itself.
fn shell_done(command: &str, status: i32, stdout: &str, stderr: &str) -> Done {
    let seen = stdout.rsplit("OBSERVATION:").next().unwrap_or_default().trim().to_owned();
    let observation = if status != 0 {
        format!("Command failed with exit code {status}: {command}. The error was [{stderr}].")
    } else if seen.is_empty() {
        format!("Successfully executed command: {command}. The output was [{stdout}].")
    } else {
        seen
    };
    Done { observation: Some(observation), succeeded: status == 0, executed: true, finished: false }
}

/// Upstream's `simplify_path`: where `cd` leads, as a path from the root.
fn simplified(current: &str, to: &str) -> String {
    if to.is_empty() {
        return current.to_owned();
    }
    let current = if to.starts_with('/') { "" } else { current };
    let mut parts: Vec<&str> = Vec::new();
    for part in current.split('/').chain(to.split('/')) {
        match part {
            ".." => {
                parts.pop();
            }
            "" | "." => {}
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn scratchpad(name: &str, action: &Map<String, Value>) -> Result<Done, String> {
    if name != "write" {
        return Err(String::new());
    }
    match action.get("content") {
        None => Err("'content'".into()),
        Some(Value::Null) => Err(String::new()),
        Some(_) => Ok(Done::fine("Successfully wrote to scratchpad.".into())),
    }
}

/// Names of apps as Python shows a list of them.
pub(crate) fn names(wanted: impl Fn(&apps::App) -> bool) -> String {
    Object::List(apps().iter().filter(|a| wanted(a)).map(|a| Object::Str(a.app.clone())).collect()).repr()
}
