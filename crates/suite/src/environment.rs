//! The two traits that join a benchmark to the episode loop.

use crate::Task;
use rolegraft_spans::{Format, Reading};
use rolegraft_trajectory::{Message, Role, Shown, Spent, Status};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

/// Which tasks of a suite; disjoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Trajectories for tracing.
    Calibration,
    /// Diagnosis of weak benchmarks.
    Dev,
    /// The figures in the tables.
    Test,
}

impl Split {
    /// The name used in files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Calibration => "calibration",
            Self::Dev => "dev",
            Self::Test => "test",
        }
    }
}

/// What a model turn led to.
#[derive(Debug, Clone)]
pub struct Step {
    /// How the reply was read.
    pub reading: Reading,
    /// Whether the environment did what the reply asked.
    pub succeeded: bool,
    /// What the model sees next, if the episode goes on: one message, or one for each of its tool calls.
    pub observations: Vec<Message>,
    /// How the episode ended, if it did.
    pub ended: Option<Status>,
}

/// An episode's score.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Outcome {
    /// Between 0 and 1.
    pub reward: f64,
    /// What the scorer looked at.
    pub detail: Value,
}

/// What a suite allows per episode.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Model turns.
    pub turns: usize,
    /// New tokens a turn.
    pub tokens: usize,
    /// Sampling temperature.
    pub temperature: f64,
    /// Nucleus sampling.
    pub top_p: f64,
}

/// Who speaks in an episode of a suite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles {
    /// Before the first reply, in order.
    pub opening: Vec<Role>,
    /// Who may answer a reply.
    pub answers: Vec<Role>,
}

impl Roles {
    /// A system message, if there is one, and a user who answers as well.
    #[must_use]
    pub fn with_user(system: bool) -> Self {
        let opening = if system { vec![Role::System, Role::User] } else { vec![Role::User] };
        Self { opening, answers: vec![Role::User] }
    }

    /// A system message and a user; calls are answered by tools, and what is no call by the user.
    #[must_use]
    pub fn with_tools() -> Self {
        Self { opening: vec![Role::System, Role::User], answers: vec![Role::Tool, Role::User] }
    }

    /// With earlier turns after the system message, user and agent by turns.
    #[must_use]
    pub fn after(mut self, turns: usize) -> Self {
        let at = self.opening.len() - 1;
        let turn = |i: usize| if i.is_multiple_of(2) { Role::User } else { Role::Assistant };
        self.opening.splice(at..at, (0..turns).map(turn));
        self
    }
}

/// One episode of a task. Dropping it removes whatever it made.
pub trait Environment: Send {
    /// The messages before the first reply.
    ///
    /// # Errors
    /// [`SuiteError::Speaker`], if another party of the episode does not answer.
    fn open(&mut self) -> Result<Vec<Message>, SuiteError>;
    /// How the episode ended before the first reply, if it did.
    fn ended_at_once(&self) -> Option<Status> {
        None
    }
    /// The conversation as the model is to see it, where that is not simply what was said.
    fn shown(&self, messages: &[Message]) -> Option<Vec<Shown>> {
        let _ = messages;
        None
    }
    /// Takes a reply.
    ///
    /// # Errors
    /// As [`Self::open`]. What a model says is never an error.
    fn step(&mut self, reply: &str) -> Result<Step, SuiteError>;
    /// Scores the episode as it stands.
    fn outcome(&mut self) -> Outcome;
    /// Whether nothing of the episode was killed. What kills may be the machine or the model itself: the loop tells one from
    /// the other by playing such an episode a second time.
    ///
    /// # Errors
    /// [`SuiteError::Lost`], if what the episode stands on is gone: what was seen since then says nothing of the model.
    fn intact(&mut self) -> Result<bool, SuiteError> {
        Ok(true)
    }
    /// What other models of the episode spent so far.
    fn spent(&self) -> Spent {
        Spent::default()
    }
}

/// A model that takes part in an episode beside the one that is evaluated: a simulated user, a judge. Suites know
/// nothing of models; whoever sets one up gives it this way to speak. Calls block.
pub trait Speaker: Send + Sync {
    /// The next message of a conversation, and what it cost.
    ///
    /// # Errors
    /// [`SpeakerError`], which is not the fault of the model that is evaluated.
    fn say(&self, messages: &[Message]) -> Result<(String, Spent), SpeakerError>;
}

/// Why another party of an episode does not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum SpeakerError {
    #[error("{0}")]
    Unavailable(String),
    #[error("{0}")]
    Fatal(String),
    #[error("the conversation no longer fits its context")]
    Overflow,
}

/// Why a suite or an episode cannot start.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum SuiteError {
    #[error("suite `{suite}`, task `{task}`: {reason}")]
    Task { suite: String, task: String, reason: String },
    #[error("suite `{suite}` cannot run here: {reason}")]
    Environment { suite: String, reason: String },
    #[error("suite `{suite}`, task `{task}`: the {what} is gone: {reason}")]
    Lost { suite: String, task: String, what: &'static str, reason: String },
    #[error("suite `{suite}`, task `{task}`: the {party} does not answer: {source}")]
    Speaker { suite: String, task: String, party: &'static str, source: SpeakerError },
}

/// A benchmark.
pub trait Suite: Send + Sync {
    /// Its id, as in logs and tables.
    fn id(&self) -> &str;
    /// How replies are read.
    fn format(&self) -> &Format;
    /// What an episode may use.
    fn limits(&self) -> Limits;
    /// Tools to announce through the model's own interface, where the suite is played with native tool calls.
    fn tools(&self) -> Option<Arc<Vec<Value>>> {
        None
    }
    /// Whether an episode may wait for more than the processor and a file: a process, a person, another model. Episodes
    /// of suites that never do are played where they are, without a thread of their own.
    fn waits(&self) -> bool {
        true
    }
    /// Who speaks in an episode, so that a chat template can be asked whether it takes that.
    fn roles(&self) -> Roles;
    /// Starts a task.
    ///
    /// # Errors
    /// If the task is not one of this suite's, or the machine lacks something.
    fn start(&self, task: &Task) -> Result<Box<dyn Environment>, SuiteError>;
    /// Version of the rules: part of every digest, raised when a score could change.
    fn version(&self) -> u32 {
        1
    }
    /// Prompts and settings that shape an episode: part of every digest.
    fn settings(&self) -> Value {
        Value::Null
    }
}
