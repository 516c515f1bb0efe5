//! Episodes.

use crate::compare;
use crate::database::{Database, open};
use crate::entry::Entry;
use crate::server::{Make, Server, ServerError};
use regex::Regex;
use rolegraft_spans::{Format, Reading};
use rolegraft_suite::{
    AgentBenchProtocol, Environment, Limits, Outcome, Roles, Step, Suite, SuiteError, Task, history,
};
use rolegraft_trajectory::{Message, Shown, Status, calls};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// The reply format of the text protocol.
pub const FORMAT: &str = "agentbench-db";

/// Which server the databases are made on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Place {
    /// A private one, started when the first episode needs it: MySQL where that is installed, else MariaDB.
    #[default]
    Private,
    /// A private one of that make.
    PrivateOf(Make),
    /// One that runs already: `mysql://USER:PASSWORD@HOST:PORT`.
    Url(String),
    /// One in a container of an image of the Docker daemon, started when the first episode needs it.
    Docker(String),
}

impl Place {
    /// What `--db` says: a URL, `docker:IMAGE`, or the make of a private one; nothing: a private one.
    #[must_use]
    pub fn named(db: Option<&str>) -> Self {
        let Some(db) = db else { return Self::Private };
        match (db.strip_prefix("docker:"), Make::named(db)) {
            (Some(image), _) => Self::Docker(image.to_owned()),
            (None, Some(make)) => Self::PrivateOf(make),
            (None, None) => Self::Url(db.to_owned()),
        }
    }

    /// Whether the server is one of our own, of this machine's programs.
    pub(crate) fn is_private(&self) -> bool {
        matches!(self, Self::Private | Self::PrivateOf(_))
    }
}

/// What stands before a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    /// The first message.
    pub text: String,
    /// The agent's answer to it.
    pub ok: String,
    /// For function calls: the system message.
    #[serde(default)]
    pub system: String,
    /// For function calls: the tools.
    #[serde(default)]
    pub tools: Vec<Value>,
}

impl Prompt {
    /// Upstream's.
    #[must_use]
    pub fn upstream() -> Self {
        static PROMPT: LazyLock<Prompt> = LazyLock::new(|| {
            serde_json::from_str(include_str!("../data/prompts.json")).unwrap_or_else(|_| Prompt {
                text: String::new(),
                ok: String::new(),
                system: String::new(),
                tools: Vec::new(),
            })
        });
        PROMPT.clone()
    }
}

/// The suite.
pub struct DbSuite {
    protocol: AgentBenchProtocol,
    format: Arc<Format>,
    limits: Limits,
    prompt: Prompt,
    place: Place,
    server: Mutex<Option<Arc<Server>>>,
}

impl DbSuite {
    /// A suite with the given reply format, limits and prompt.
    #[must_use]
    pub fn new(protocol: AgentBenchProtocol, format: Format, limits: Limits, prompt: Prompt, place: Place) -> Self {
        Self { protocol, format: Arc::new(format), limits, prompt, place, server: Mutex::default() }
    }

    /// The server, started if it does not run yet, or no longer.
    ///
    /// # Errors
    /// If there is none to be had.
    pub fn server(&self) -> Result<Arc<Server>, ServerError> {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = server.as_ref().filter(|server| !server.has_ended()) {
            return Ok(server.clone());
        }
        let started = Arc::new(match &self.place {
            Place::Private => Server::private()?,
            Place::PrivateOf(make) => Server::private_of(Some(*make))?,
            Place::Url(url) => Server::at(url)?,
            Place::Docker(image) => Server::contained(image)?,
        });
        *server = Some(started.clone());
        Ok(started)
    }
}

impl Suite for DbSuite {
    fn id(&self) -> &str {
        "dbbench"
    }
    fn format(&self) -> &Format {
        &self.format
    }
    fn limits(&self) -> Limits {
        self.limits
    }
    fn tools(&self) -> Option<Arc<Vec<Value>>> {
        (self.protocol == AgentBenchProtocol::Fc).then(|| Arc::new(self.prompt.tools.clone()))
    }
    fn version(&self) -> u32 {
        2
    }
    fn settings(&self) -> Value {
        json!({"prompt": self.prompt, "protocol": self.protocol})
    }
    fn roles(&self) -> Roles {
        match self.protocol {
            AgentBenchProtocol::Text => Roles::with_user(false).after(2),
            AgentBenchProtocol::Fc => Roles::with_tools(),
        }
    }
    fn start(&self, task: &Task) -> Result<Box<dyn Environment>, SuiteError> {
        let wrong = |reason: String| SuiteError::Task { suite: "dbbench".into(), task: task.id.clone(), reason };
        let entry: Entry = serde_json::from_value(task.fields.clone()).map_err(|e| wrong(e.to_string()))?;
        let lacking = |e: ServerError| SuiteError::Environment { suite: "dbbench".into(), reason: e.to_string() };
        let server = self.server().map_err(lacking)?;
        let database = open(&server, &entry, self.protocol == AgentBenchProtocol::Fc).map_err(|error| match error {
            ServerError::Gone(reason) => lost(&task.id, reason),
            error => lacking(error),
        })?;
        let (format, prompt, turns) = (self.format.clone(), self.prompt.clone(), self.limits.turns);
        Ok(match self.protocol {
            AgentBenchProtocol::Text => {
                let talk = Talk { rounds: turns, taken: 0, answer: String::new() };
                Box::new(TextEpisode { task: task.id.clone(), entry, database, format, prompt, talk })
            }
            AgentBenchProtocol::Fc => Box::new(CallEpisode {
                task: task.id.clone(),
                entry,
                database,
                format,
                prompt,
                turns_left: turns,
                answer: None,
                broken: false,
            }),
        })
    }
}

/// An episode without its server.
fn lost(task: &str, reason: String) -> SuiteError {
    SuiteError::Lost { suite: "dbbench".into(), task: task.to_owned(), what: "database server", reason }
}

/// That an episode's server is there.
fn standing(task: &str, database: &Database) -> Result<bool, SuiteError> {
    database.lost().map_or(Ok(true), |reason| Err(lost(task, reason.to_owned())))
}

/// The text protocol's course: what is to be done about a reply.
#[derive(Debug, Clone)]
pub struct Talk {
    /// Statements that may be run.
    pub rounds: usize,
    /// Statements that were run.
    pub taken: usize,
    /// The answer as it stands.
    pub answer: String,
}

/// What is to be done about a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// Run this SQL.
    Run(String),
    /// The episode is over.
    Over(Status),
}

impl Talk {
    /// Takes a reply as it was read.
    pub fn take(&mut self, reply: &str, reading: &Reading) -> Turn {
        static OPERATION: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"Action: (.*?)\n").ok());
        static FINAL: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\nFinal Answer:(.*)").ok());
        let first = |regex: &LazyLock<Option<Regex>>| {
            let found = regex.as_ref()?.captures(reply)?;
            Some(found.get(1)?.as_str().to_owned())
        };
        if self.taken < self.rounds && first(&OPERATION).as_deref() == Some("Operation") {
            let Some(sql) = reading.action().and_then(|action| action.payload.as_str()) else {
                return Turn::Over(Status::AgentValidationFailed);
            };
            self.taken += 1;
            return Turn::Run(sql.trim().replace('\n', " "));
        }
        let found = first(&FINAL);
        let status = match &found {
            Some(answer) if self.taken < self.rounds || !answer.is_empty() => Status::Completed,
            _ if self.taken >= self.rounds => Status::TaskLimitReached,
            _ => Status::AgentValidationFailed,
        };
        self.answer = found.unwrap_or_default();
        Turn::Over(status)
    }
}

struct TextEpisode {
    task: String,
    entry: Entry,
    database: Database,
    format: Arc<Format>,
    prompt: Prompt,
    talk: Talk,
}

impl Environment for TextEpisode {
    fn open(&mut self) -> Result<Vec<Message>, SuiteError> {
        Ok(vec![
            Message::user(&self.prompt.text),
            Message::assistant(&self.prompt.ok),
            Message::user(format!("{}\n{}", self.entry.description, self.entry.add_description)),
        ])
    }

    fn shown(&self, messages: &[Message]) -> Option<Vec<Shown>> {
        Some(history::shown(&Shown::all(messages)))
    }

    fn step(&mut self, reply: &str) -> Result<Step, SuiteError> {
        let reading = self.format.read(reply, None);
        Ok(match self.talk.take(reply, &reading) {
            Turn::Over(status) => {
                let succeeded = status == Status::Completed;
                Step { reading, succeeded, observations: Vec::new(), ended: Some(status) }
            }
            Turn::Run(sql) => {
                let said = self.database.execute(&sql, false);
                let succeeded = said.starts_with('[');
                Step { reading, succeeded, observations: vec![Message::user(said)], ended: None }
            }
        })
    }

    fn intact(&mut self) -> Result<bool, SuiteError> {
        standing(&self.task, &self.database)
    }

    fn outcome(&mut self) -> Outcome {
        let (kind, changes) = (self.entry.kind().to_owned(), self.entry.changes());
        if changes {
            // upstream: the table alone counts, however the episode ended.
            let hash = self.entry.table.all().first().map(|table| self.database.hash(table)).unwrap_or_default();
            let correct = Some(hash.as_str()) == self.entry.answer_md5.as_str();
            return outcome(correct, json!({"type": kind, "hash": hash}));
        }
        let label = self.entry.label.as_array().map_or(&[][..], Vec::as_slice);
        let correct = compare::text(&self.talk.answer, label);
        outcome(correct, json!({"type": kind, "answer": self.talk.answer}))
    }
}

fn outcome(correct: bool, detail: Value) -> Outcome {
    Outcome { reward: if correct { 1.0 } else { 0.0 }, detail }
}

/// What comes of a tool call.
#[derive(Debug, Clone, PartialEq)]
pub enum Called {
    /// The tool's message.
    Said(String),
    /// An answer was committed.
    Committed(Value),
    /// Upstream raises, which ends the episode.
    Raised,
}

/// Carries out a call of the function-call protocol; `execute` runs SQL, or says why it cannot.
pub fn carry_out(name: &str, arguments: &str, execute: &mut dyn FnMut(&str) -> Result<String, String>) -> Called {
    let Ok(arguments) = rolegraft_spans::python_json::loads(arguments) else {
        return Called::Said("Error: Failed to parse tool call. Tool call format is incorrect.".into());
    };
    // upstream: the first value, whatever its name.
    let first = match &arguments {
        Value::Object(map) => map.values().next().cloned().ok_or_else(|| "list index out of range".to_owned()),
        other => Err(format!("'{}' object has no attribute 'values'", rolegraft_python::Object::from(other).kind())),
    };
    match (name, first) {
        ("execute_sql", Ok(Value::String(sql))) => Called::Said(match execute(&sql) {
            Ok(said) if said.is_empty() => "No response from database.".into(),
            Ok(said) => said,
            Err(error) => format!("Error executing query: {error}"),
        }),
        ("execute_sql", Ok(_)) => Called::Said("Error executing query: the query is not a text".into()),
        ("execute_sql", Err(error)) => Called::Said(format!("Error executing query: {error}")),
        ("commit_final_answer", Ok(answer)) => Called::Committed(answer),
        ("commit_final_answer", Err(_)) => Called::Raised,
        _ => Called::Said("Invalid function call. Please call a tool instead.".into()),
    }
}

/// What a turn without a call is told.
pub const NO_CALL: &str = "Internal error: No tool calls found despite finish reason.";

struct CallEpisode {
    task: String,
    entry: Entry,
    database: Database,
    format: Arc<Format>,
    prompt: Prompt,
    turns_left: usize,
    answer: Option<Value>,
    broken: bool,
}

impl Environment for CallEpisode {
    fn open(&mut self) -> Result<Vec<Message>, SuiteError> {
        let entry = &self.entry;
        let mut text = String::new();
        for (before, part) in [
            ("Evidence about the question: ", &entry.evidence),
            ("Additional table information about the question: ", &entry.add_description),
        ] {
            if !part.is_empty() {
                text += &format!("{before}{part}\n");
            }
        }
        text += &format!("Question: {}\n", entry.description);
        Ok(vec![Message::system(&self.prompt.system), Message::user(text)])
    }

    fn step(&mut self, reply: &str) -> Result<Step, SuiteError> {
        let reading = self.format.read(reply, None);
        self.turns_left = self.turns_left.saturating_sub(1);
        let (mut observations, mut succeeded, mut ended) = (Vec::new(), true, None);
        let (_, called) = calls::read(&reading.said(reply));
        if called.is_empty() {
            succeeded = false;
            observations.push(Message::user(NO_CALL));
        }
        for call in called {
            let database = &mut self.database;
            match carry_out(&call.name, &call.arguments, &mut |sql| Ok(database.execute(sql, true))) {
                Called::Said(said) => {
                    succeeded &= said.starts_with('[');
                    observations.push(Message::tool(said));
                }
                Called::Committed(answer) => {
                    self.answer = Some(answer);
                    ended = Some(Status::Completed);
                    break;
                }
                Called::Raised => {
                    self.broken = true;
                    ended = Some(Status::TaskError);
                    break;
                }
            }
        }
        let limit = (self.turns_left == 0).then_some(Status::TaskLimitReached);
        Ok(Step { reading, succeeded, observations, ended: ended.or(limit) })
    }

    fn intact(&mut self) -> Result<bool, SuiteError> {
        standing(&self.task, &self.database)
    }

    fn outcome(&mut self) -> Outcome {
        let kind = self.entry.kind().to_owned();
        let Some(answer) = self.answer.clone() else { return outcome(false, json!({"type": kind})) };
        let correct = match self.entry.changes() {
            true => compare::call_changed(&combined(&mut self.database, &self.entry), &self.entry.answer_md5),
            false => compare::call(&answer, &self.entry.label),
        };
        outcome(correct, json!({"type": kind, "answer": answer}))
    }
}

/// The hashes of all tables, sorted and joined.
fn combined(database: &mut Database, entry: &Entry) -> String {
    let bare = |text: String| {
        let first = text.trim_matches(['[', ']', '(', ')']).split(',').next().unwrap_or_default().trim().to_owned();
        first.trim_matches('\'').to_owned()
    };
    let mut hashes: Vec<String> = entry.table.all().iter().map(|table| bare(database.hash(table))).collect();
    hashes.sort();
    hashes.join("_")
}
