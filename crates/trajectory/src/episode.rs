//! One task played by one model.

use crate::context::{Context, Recorded, Shown};
use crate::message::Message;
use rolegraft_spans::{Action, Role, Violation};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// How an episode ended, in AgentBench's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It came to its own end, right or wrong.
    Completed,
    /// The conversation no longer fits the model.
    AgentContextLimit,
    /// A reply failed the suite's validation.
    AgentValidationFailed,
    /// A reply held no action.
    AgentInvalidAction,
    /// Turns ran out.
    TaskLimitReached,
    /// The environment failed.
    TaskError,
    /// None of these.
    Unknown,
    /// Stopped from outside.
    Cancelled,
}

impl Status {
    /// Every status, in the order of tables.
    pub const ALL: [Self; 8] = [
        Self::Completed,
        Self::AgentContextLimit,
        Self::AgentValidationFailed,
        Self::AgentInvalidAction,
        Self::TaskLimitReached,
        Self::TaskError,
        Self::Unknown,
        Self::Cancelled,
    ];
    /// The name used in files and tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::AgentContextLimit => "agent_context_limit",
            Self::AgentValidationFailed => "agent_validation_failed",
            Self::AgentInvalidAction => "agent_invalid_action",
            Self::TaskLimitReached => "task_limit_reached",
            Self::TaskError => "task_error",
            Self::Unknown => "unknown",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Why a turn's text ends where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model ended its turn.
    Stop,
    /// The token limit of the turn.
    Length,
    /// The context was full before the turn began.
    ContextLimit,
}

/// What speaking cost: calls of a model, and tokens as it counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Spent {
    /// Answered requests.
    pub calls: u64,
    /// Tries that failed before one was answered.
    pub failures: u64,
    /// Tokens read.
    pub prompt_tokens: u64,
    /// Tokens written.
    pub completion_tokens: u64,
}

impl Spent {
    /// Whether nothing was spent.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl std::ops::AddAssign for Spent {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.failures += other.failures;
        self.prompt_tokens += other.prompt_tokens;
        self.completion_tokens += other.completion_tokens;
    }
}

/// What the tables need of one model turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// Index of the reply in [`Episode::messages`].
    pub message: usize,
    /// What the model was shown before it spoke.
    #[serde(default, skip_serializing_if = "Context::is_all")]
    pub shown: Context,
    /// Token ids of the reply, without the end of turn; empty where the engine does not give them.
    #[serde(default)]
    pub ids: Vec<u32>,
    /// Why the reply ends.
    pub finish: Finish,
    /// Spans of the reply that the parser found, in bytes.
    pub spans: Vec<(Role, Range<usize>)>,
    /// What the reply asked for, where it can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// What is wrong with the reply.
    pub violations: Vec<Violation>,
    /// Calls that the reply only considered, in its reasoning.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub drafts: usize,
    /// Whether the environment did what the reply asked.
    pub succeeded: bool,
}

impl Turn {
    fn recorded(&self) -> Arc<[u32]> {
        Arc::from(self.ids.as_slice())
    }
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// Which messages of a context are the model's own earlier turns, and in which ids they were said. Ids go with their
/// message, wherever it stands in the context; one that was changed is no longer what the model said.
#[must_use]
pub fn recorded(shown: &[Shown], turns: &[Turn]) -> Recorded {
    let said: BTreeMap<usize, &Turn> = turns.iter().map(|turn| (turn.message, turn)).collect();
    shown.iter().enumerate().filter_map(|(at, s)| Some((at, said.get(&s.of?)?.recorded()))).collect()
}

/// The same of a context that is the whole conversation.
#[must_use]
pub fn recorded_of_all(turns: &[Turn]) -> Recorded {
    turns.iter().map(|turn| (turn.message, turn.recorded())).collect()
}

/// Which episode of a run: the same in every model's log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EpisodeKey {
    /// The suite's id.
    pub suite: String,
    /// The task's id.
    pub task: String,
    /// From 0.
    pub trial: u32,
}

/// A finished episode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Episode {
    /// Which one.
    pub key: EpisodeKey,
    /// How it ended.
    pub status: Status,
    /// Between 0 and 1.
    pub reward: f64,
    /// The whole conversation.
    pub messages: Vec<Message>,
    /// The model's turns.
    pub turns: Vec<Turn>,
    /// What the scorer looked at.
    #[serde(default)]
    pub detail: Value,
    /// What the model spent.
    #[serde(default, skip_serializing_if = "Spent::is_nothing")]
    pub spent: Spent,
    /// What other models of the episode spent: a simulated user.
    #[serde(default, skip_serializing_if = "Spent::is_nothing")]
    pub others_spent: Spent,
    /// Seconds of wall time, for the accounting only.
    #[serde(default)]
    pub seconds: f64,
}

impl Episode {
    /// The replies, in order.
    pub fn replies(&self) -> impl Iterator<Item = &str> {
        self.turns.iter().filter_map(|t| self.messages.get(t.message)).map(|m| m.content.as_str())
    }

    /// The first turn with a violation after which no turn succeeded, and that violation.
    #[must_use]
    pub fn blocking_violation(&self) -> Option<(usize, &Violation)> {
        let dead_from = self.turns.iter().rposition(|t| t.succeeded).map_or(0, |i| i + 1);
        self.turns[dead_from..].iter().enumerate().find_map(|(i, t)| Some((dead_from + i, t.violations.first()?)))
    }
}
