//! Episodes: from a reply's JSON to an app and back.

use crate::desk::{Arguments, Desk, Done, MEMORY};
use crate::evaluation::{self, Evidence};
use crate::files::Testbed;
use crate::literal::Object;
use crate::workbook;
use rolegraft_spans::{Format, Reading};
use rolegraft_suite::{Environment, Limits, Outcome, Step, Suite, SuiteError, Task};
use rolegraft_trajectory::{Message, Status};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

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
                    let rows: Vec<Vec<Object>> =
                        rows.iter().map(|row| row.iter().map(Object::from).collect()).collect();
                    workbook::of_rows(&rows).map_err(&wrong)?
                }
                (None, None) => return Err(wrong(format!("file `{name}` is neither text nor xlsx rows"))),
            };
            bed.make_parent(Path::new(name))
                .and_then(|()| bed.write(Path::new(name), &bytes))
                .map_err(|e| wrong(e.to_string()))?;
        }
        let desk = Desk {
            bed,
            app: None,
            task: rules.task.clone(),
            folder: self.prompt.workdir.trim_end_matches("/testbed").to_owned(),
            reference: None,
            arguments: Arguments::Direct,
            switched: Some(self.prompt.switched.clone()),
            memory: MEMORY.into(),
            now: format!("{}T000000Z", rules.date.replace('-', "")),
            missing: BTreeSet::new(),
        };
        Ok(Box::new(Episode {
            desk,
            rules,
            format: self.format.clone(),
            prompt: self.prompt.clone(),
            turns_left: self.limits.turns,
            stuck: Stuck::default(),
        }))
    }
}

struct Episode {
    desk: Desk,
    rules: Rules,
    format: Arc<Format>,
    prompt: Prompt,
    turns_left: usize,
    stuck: Stuck,
}

/// Identical replies in a row: the fifth is taken for a crash.
#[derive(Debug, Default)]
pub(crate) struct Stuck {
    last: String,
    times: usize,
}

impl Stuck {
    /// Carries out a reply, and says whether it ends the episode.
    pub(crate) fn step(&mut self, desk: &mut Desk, reading: &Reading, reply: &str) -> (Done, bool) {
        if self.times > 0 && self.last == reply {
            self.times += 1;
        } else {
            reply.clone_into(&mut self.last);
            self.times = 1;
        }
        let stuck = self.times >= STUCK;
        let effective = if stuck { "{\"app\": \"system\", \"action\": \"got_stuck\"}" } else { reply };
        let done = if stuck { desk.malformed(effective) } else { desk.answer(effective, reading) };
        // upstream: the words anywhere in the reply end the episode.
        (done, effective.contains("finish_task") || effective.contains("got_stuck"))
    }
}

impl Environment for Episode {
    fn open(&mut self) -> Result<Vec<Message>, SuiteError> {
        let opening = self.prompt.opening.replace("{task}", &self.desk.task);
        let mut messages = Vec::new();
        if !self.prompt.system.is_empty() {
            messages.push(Message::system(&self.prompt.system));
        }
        messages.push(Message::user(opening));
        Ok(messages)
    }

    fn step(&mut self, reply: &str) -> Result<Step, SuiteError> {
        self.turns_left = self.turns_left.saturating_sub(1);
        let reading = self.format.read(reply, None);
        let (done, over) = self.stuck.step(&mut self.desk, &reading, reply);
        let ended =
            if over { Some(Status::Completed) } else { (self.turns_left == 0).then_some(Status::TaskLimitReached) };
        let observation = ended.is_none().then(|| Message::user(done.observation.unwrap_or_default()));
        Ok(Step { reading, succeeded: done.succeeded, observation, ended })
    }

    fn outcome(&mut self) -> Outcome {
        let verdict = evaluation::evaluate(&Evidence::of(&self.desk.bed), &self.rules.evaluation);
        Outcome { reward: if verdict.is_ok() { 1.0 } else { 0.0 }, detail: json!({"failed_check": verdict.err()}) }
    }
}
