//! One turn at the desk: from an action's JSON to an observation, as upstream's `exec_action` goes.

use crate::apps::{self, Action, app, apps, joined};
use crate::command_line::reach;
use crate::files::Testbed;
use crate::fire::{Call, call};
use crate::literal::Object;
use crate::tools;
use rolegraft_spans::Reading;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::Path;

/// How arguments reach the tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arguments {
    /// Through a command line of two shells and python-fire, as published: quotes, `$` and literals change them.
    Official,
    /// As the JSON values that the model wrote.
    #[default]
    Direct,
}

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
    /// How arguments are passed.
    pub(crate) arguments: Arguments,
    /// What an opened app says, `{app}` and `{task}` filled in; upstream's own text if absent.
    pub(crate) switched: Option<String>,
    /// The clock of new events, `YYYYMMDDTHHMMSSZ`: an episode writes the same bytes every time.
    pub(crate) now: String,
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
}

impl Done {
    fn failed(text: String) -> Self {
        Self { observation: Some(text), succeeded: false, executed: false }
    }
    fn fine(text: String) -> Self {
        Self { observation: Some(text), succeeded: true, executed: false }
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
                Ok(Done::fine("Task finished".into()))
            }
            "got_stuck" => Ok(Done::failed("Task failed".into())),
            _ => Ok(Done { observation: None, succeeded: false, executed: false }),
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

    fn shell(&self, action: &Map<String, Value>) -> Result<Done, String> {
        let command = action.get("command").ok_or(
            "Missing command in json request. Use the format specified: {\"app\": \"shell\", \"action\": \"command\", \
             \"command\": \"<command>\"}",
        )?;
        let command = match command {
            Value::Array(items) => joined(items, " ")?,
            Value::String(text) => text.clone(),
            other => return Err(format!("'{}' object has no attribute 'startswith'", Object::from(other).kind())),
        };
        if command.starts_with("cd") && !command.contains("cd ") {
            return Err("substring not found".into());
        }
        // The sandboxed shell is not part of this suite yet.
        Err("the shell is not available here".into())
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
        let mut line = known.command_line(action)?;
        if matches!(self.app.as_deref(), Some("calendar" | "email")) {
            line = format!("{line} --workdir {}", self.folder);
        }
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

    fn tool(&self, app: &str, known: &Action, action: &Map<String, Value>) -> Result<Done, String> {
        let passed = match self.arguments {
            Arguments::Official => self.pass(known, action)?,
            Arguments::Direct => {
                let mut arguments = Vec::new();
                for (name, default) in known.parameters() {
                    let given = match name.as_str() {
                        "workdir" => Some(Object::Str(self.folder.clone())),
                        name => action.get(name).map(Object::from),
                    };
                    arguments.push(given.or(default).ok_or_else(|| format!("'{name}'"))?);
                }
                let call = Call { arguments: Some(arguments), rejected: false };
                Passed { words: Some(Vec::new()), call: Some(call), shown: true }
            }
        };
        let Some(Call { arguments, rejected }) = passed.call else {
            return Ok(Done { observation: Some(String::new()), succeeded: false, executed: true });
        };
        let Some(arguments) = arguments else {
            return Ok(Done { observation: Some(String::new()), succeeded: false, executed: true });
        };
        let printed = tools::run(self, app, &known.action, &arguments);
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
        Ok(Done { observation: Some(observation), succeeded: !failed && !rejected, executed: true })
    }
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
