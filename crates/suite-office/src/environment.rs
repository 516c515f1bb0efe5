//! Episodes: from a reply's JSON to an app and back.

use crate::files::Testbed;
use crate::{calendar, evaluation, excel, mail, word};
use rolegraft_spans::Format;
use rolegraft_suite::{Environment, Limits, Outcome, Step, Suite, SuiteError, Task};
use rolegraft_trajectory::{Message, Status};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::Arc;

/// Apps and their actions.
const APPS: [(&str, &[&str]); 4] = [
    ("calendar", &["create_event", "delete_event", "list_events"]),
    ("excel", &["read_file", "set_cell", "delete_cell", "create_new_file"]),
    ("word", &["create_new_file", "read_file", "write_to_file"]),
    ("email", &["send_email", "list_emails", "read_email"]),
];

/// Identical replies in a row that end an episode.
const STUCK: usize = 5;

/// What the model is told. `{task}` and `{app}` are filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    /// The system message.
    pub system: String,
    /// The first user message.
    pub opening: String,
    /// The observation after an app was opened.
    pub switched: String,
    /// The directory in which paths start, as the model sees it.
    #[serde(default)]
    pub workdir: String,
}

/// The suite.
pub struct OfficeSuite {
    format: Arc<Format>,
    limits: Limits,
    prompt: Prompt,
}

impl OfficeSuite {
    /// A suite with the given reply format and prompt.
    #[must_use]
    pub fn new(format: Format, limits: Limits, prompt: Prompt) -> Self {
        Self { format: Arc::new(format), limits, prompt }
    }
}

#[derive(Deserialize)]
struct Rules {
    task: String,
    #[serde(default)]
    date: String,
    #[serde(default)]
    files: Map<String, Value>,
    #[serde(default)]
    evaluation: Vec<Value>,
}

impl Suite for OfficeSuite {
    fn id(&self) -> &str {
        "officebench"
    }
    fn format(&self) -> &Format {
        &self.format
    }
    fn limits(&self) -> Limits {
        self.limits
    }
    fn version(&self) -> u32 {
        1
    }
    fn settings(&self) -> Value {
        json!({"prompt": self.prompt, "arguments": "direct"})
    }
    fn start(&self, task: &Task) -> Result<Box<dyn Environment>, SuiteError> {
        let wrong = |reason: String| SuiteError::Task { suite: "officebench".into(), task: task.id.clone(), reason };
        let rules: Rules = serde_json::from_value(task.fields.clone()).map_err(|e| wrong(e.to_string()))?;
        let bed = Testbed::new(&self.prompt.workdir).map_err(|e| wrong(format!("no testbed: {e}")))?;
        for (name, content) in &rules.files {
            let bytes = match (content.as_str(), content.get("xlsx")) {
                (Some(text), _) => text.as_bytes().to_vec(),
                (None, Some(rows)) => {
                    let rows: Vec<Vec<Value>> =
                        serde_json::from_value(rows.clone()).map_err(|e| wrong(e.to_string()))?;
                    excel::workbook(&rows).map_err(&wrong)?
                }
                (None, None) => return Err(wrong(format!("file `{name}` is neither text nor xlsx rows"))),
            };
            bed.make_parent(Path::new(name))
                .and_then(|()| bed.write(Path::new(name), &bytes))
                .map_err(|e| wrong(e.to_string()))?;
        }
        Ok(Box::new(Episode {
            bed,
            rules,
            format: self.format.clone(),
            prompt: self.prompt.clone(),
            turns_left: self.limits.turns,
            app: None,
            replies: Vec::new(),
        }))
    }
}

struct Episode {
    bed: Testbed,
    rules: Rules,
    format: Arc<Format>,
    prompt: Prompt,
    turns_left: usize,
    app: Option<String>,
    replies: Vec<String>,
}

/// An observation, and whether the action did what it was asked.
struct Done(String, bool);

fn failed(text: String) -> Done {
    Done(text, false)
}

/// Python's `str()` of an argument.
fn text(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Null => "None".into(),
        Value::Bool(b) => if *b { "True" } else { "False" }.into(),
        other => other.to_string(),
    }
}

impl Episode {
    fn error(&self, message: &str) -> Done {
        failed(format!("Error: [{}] {message}", self.app.as_deref().unwrap_or("None")))
    }

    fn execute(&mut self, payload: &Value) -> Done {
        let Value::Object(raw) = payload else {
            let kind = match payload {
                Value::Array(_) => "list",
                Value::String(_) => "str",
                Value::Number(n) if n.is_f64() => "float",
                Value::Number(_) => "int",
                Value::Bool(_) => "bool",
                _ => "NoneType",
            };
            return self.error(&format!("'{kind}' object has no attribute 'items'"));
        };
        let mut action = raw.clone();
        for value in action.values_mut() {
            if let Value::Array(items) = value
                && items.len() == 1
            {
                *value = items.swap_remove(0);
            }
        }
        let (Some(app), Some(name)) = (action.get("app").cloned(), action.get("action").cloned()) else {
            return self.error("");
        };
        let (mut app, mut name) = (text(&app), text(&name));
        if name == "switch_app" {
            app = "system".into();
        } else if let Some((first, rest)) = name.split_once('.')
            && APPS.iter().any(|(a, _)| *a == first)
        {
            app = first.to_owned();
            self.app = Some(app.clone());
            name = rest.split('.').next().unwrap_or_default().to_owned();
        }
        if app == "system" {
            return self.system(&name, &action);
        }
        if self.app.as_ref() != Some(&app) {
            return failed(format!(
                "Error: you must switch to the {app} app before executing this action. Use the switch_app action to switch apps."
            ));
        }
        if !APPS.iter().any(|(a, actions)| *a == app && actions.contains(&name.as_str())) {
            return failed(format!("Error: Action {name} not available in app {app}"));
        }
        match self.tool(&app, &name, &action) {
            Ok(observed) => {
                let fine = !observed.starts_with("Error")
                    && !observed.contains("Failed to")
                    && !observed.contains("already exists");
                Done(observed, fine)
            }
            Err(missing) => self.error(&missing),
        }
    }

    fn system(&mut self, name: &str, action: &Map<String, Value>) -> Done {
        match name {
            "switch_app" => match action.get("target_app") {
                None => self.error("Missing target_app in json request. Use the json format specified: {\"app\": \"system\", \"action\": \"switch_app\", \"target_app\": \"<target_app>\"}"),
                Some(target) => {
                    let target = text(target);
                    if !APPS.iter().any(|(a, _)| *a == target) {
                        return self.error(&format!("App {target} not available"));
                    }
                    self.app = Some(target.clone());
                    Done(self.prompt.switched.replace("{app}", &target).replace("{task}", &self.rules.task), true)
                }
            },
            "finish_task" => {
                let answer = text(action.get("answer").unwrap_or(&Value::Null)).replace(['\'', '"'], "");
                let _ = self.bed.write(Path::new("data/answer.txt"), answer.as_bytes());
                Done("Task finished".into(), true)
            }
            "got_stuck" => failed("Task failed".into()),
            _ => failed(String::new()),
        }
    }

    /// An app's action. The error is Python's `KeyError` text for the first missing argument.
    fn tool(&self, app: &str, name: &str, action: &Map<String, Value>) -> Result<String, String> {
        let value = |field: &str| action.get(field).ok_or_else(|| format!("'{field}'"));
        let word = |field: &str| value(field).map(text);
        let bed = &self.bed;
        Ok(match (app, name) {
            ("calendar", "create_event") => {
                let now = format!("{}T000000Z", self.rules.date.replace('-', ""));
                calendar::create_event(
                    bed,
                    &word("user")?,
                    &word("summary")?,
                    &word("time_start")?,
                    &word("time_end")?,
                    &now,
                )
            }
            // upstream: deletion never works.
            ("calendar", "delete_event") => {
                format!("Failed to delete an event named {} from {}'s calendar.", word("summary")?, word("user")?)
            }
            ("calendar", _) => calendar::list_events(bed, &word("username")?),
            ("email", "send_email") => {
                let plain = |field: &str| word(field).map(|t| t.replace(['\'', '"'], ""));
                mail::send(bed, &word("sender")?, &word("recipient")?, &plain("subject")?, &plain("content")?)
            }
            ("email", "list_emails") => mail::list(bed, &word("username")?),
            ("email", _) => mail::read(bed, &word("username")?, &word("email_id")?),
            ("excel", "read_file") => excel::read(bed, &word("file_path")?).unwrap_or_default().trim_end().to_owned(),
            ("excel", "set_cell") => {
                excel::set_cell(bed, &word("file_path")?, value("row_idx")?, value("column_idx")?, value("text")?)
            }
            ("excel", "delete_cell") => {
                excel::delete_cell(bed, &word("file_path")?, value("row_idx")?, value("column_idx")?)
            }
            ("excel", _) => excel::create(bed, &word("file_path")?),
            ("word", "create_new_file") => word::create(bed, &word("file_path")?),
            ("word", "read_file") => word::read(bed, &word("file_path")?).unwrap_or_default().trim().to_owned(),
            (_, _) => word::write(bed, &word("file_path")?, &word("contents")?.replace(['\'', '"'], "")),
        })
    }
}

impl Environment for Episode {
    fn open(&mut self) -> Result<Vec<Message>, SuiteError> {
        let opening = self.prompt.opening.replace("{task}", &self.rules.task);
        let mut messages = Vec::new();
        if !self.prompt.system.is_empty() {
            messages.push(Message::system(&self.prompt.system));
        }
        messages.push(Message::user(opening));
        Ok(messages)
    }

    fn step(&mut self, reply: &str) -> Result<Step, SuiteError> {
        self.turns_left = self.turns_left.saturating_sub(1);
        self.replies.push(reply.to_owned());
        let recent = &self.replies[self.replies.len().saturating_sub(STUCK)..];
        let stuck = recent.len() == STUCK && recent.iter().all(|r| r == reply);
        let effective = if stuck { "{\"app\": \"system\", \"action\": \"got_stuck\"}" } else { reply };
        let reading = self.format.read(reply, None);
        let done = match (stuck, reading.action().cloned(), reading.spans.first()) {
            (false, Some(action), _) => self.execute(&action.payload),
            (false, None, Some(span)) => {
                let message = span.violations.first().map(|v| v.detail.clone()).unwrap_or_default();
                let Done(text, ok) = self.error(&message);
                Done(text + " Malformed action! You must follow the given action JSON format!", ok)
            }
            _ => self.error(&format!(
                "Malformed action string:{effective}. Expected <think>...</think>\n<answer>[JSON payload]</answer>"
            )),
        };
        // upstream: the words anywhere in the reply end the episode.
        let ended = if effective.contains("finish_task") || effective.contains("got_stuck") {
            Some(Status::Completed)
        } else {
            (self.turns_left == 0).then_some(Status::TaskLimitReached)
        };
        Ok(Step { reading, succeeded: done.1, observation: ended.is_none().then(|| Message::user(done.0)), ended })
    }

    fn outcome(&mut self) -> Outcome {
        let verdict = evaluation::evaluate(&self.bed, &self.rules.evaluation);
        Outcome { reward: if verdict.is_ok() { 1.0 } else { 0.0 }, detail: json!({"failed_check": verdict.err()}) }
    }
}
