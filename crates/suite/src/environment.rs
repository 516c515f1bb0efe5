//! The two traits that join a benchmark to the episode loop.

use crate::Task;
use rolegraft_spans::{Format, Reading};
use rolegraft_trajectory::{Message, Status};
use serde::{Deserialize, Serialize};
use serde_json::Value;

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
    /// What the model sees next, if the episode goes on.
    pub observation: Option<Message>,
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

/// One episode of a task. Dropping it removes whatever it made.
pub trait Environment: Send {
    /// The messages before the first reply.
    fn open(&mut self) -> Vec<Message>;
    /// Takes a reply.
    fn step(&mut self, reply: &str) -> Step;
    /// Scores the episode as it stands.
    fn outcome(&mut self) -> Outcome;
}

/// Why a suite or an episode cannot start.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum SuiteError {
    #[error("suite `{suite}`, task `{task}`: {reason}")]
    Task { suite: String, task: String, reason: String },
    #[error("suite `{suite}` cannot run here: {reason}")]
    Environment { suite: String, reason: String },
}

/// A benchmark.
pub trait Suite: Send + Sync {
    /// Its id: `tau-retail`, `os`, …
    fn id(&self) -> &str;
    /// How replies are read.
    fn format(&self) -> &Format;
    /// What an episode may use.
    fn limits(&self) -> Limits;
    /// Starts a task.
    ///
    /// # Errors
    /// If the task is not one of this suite's, or the machine lacks something.
    fn start(&self, task: &Task) -> Result<Box<dyn Environment>, SuiteError>;
    /// Version of the rules: part of every digest, raised when a score could change.
    fn version(&self) -> u32;
    /// Prompts and settings that shape an episode: part of every digest.
    fn settings(&self) -> Value;
}
