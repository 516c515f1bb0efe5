//! One task played by one model.

use crate::context::{Context, Recorded, Shown};
use crate::message::Message;
use rolegraft_spans::{Action, Reading, Role, Violation, ViolationKind};
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
    /// The server refused to let the model see or say something.
    ServerFiltered,
}

impl Status {
    /// Every status, in the order of tables.
    pub const ALL: [Self; 9] = [
        Self::Completed,
        Self::AgentContextLimit,
        Self::AgentValidationFailed,
        Self::AgentInvalidAction,
        Self::TaskLimitReached,
        Self::TaskError,
        Self::Unknown,
        Self::Cancelled,
        Self::ServerFiltered,
    ];
    /// What an environment's reward is worth in an episode that ended so.
    #[must_use]
    pub fn scored(self, reward: f64) -> f64 {
        if self == Self::ServerFiltered { 0.0 } else { reward }
    }
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
            Self::ServerFiltered => "server_filtered",
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
    /// The server's content filter.
    Filtered,
    /// The server failed to read what the model said: nothing is known of it.
    Unreadable,
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
        // Servers count the tokens.
        self.calls = self.calls.saturating_add(other.calls);
        self.failures = self.failures.saturating_add(other.failures);
        self.prompt_tokens = self.prompt_tokens.saturating_add(other.prompt_tokens);
        self.completion_tokens = self.completion_tokens.saturating_add(other.completion_tokens);
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
    /// Whether the server took the reply apart, so that its text was put together again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inexact: bool,
    /// What the model thought, where the server keeps that apart from what it said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reasoning: String,
}

/// Nesting of arguments that a log keeps: its reader has a limit of its own.
const MAX_DEPTH: usize = 64;

impl Turn {
    /// The turn of the reply at `message`, as it was read. Of a reply that broke its server nothing else is known.
    #[must_use]
    pub fn of(message: usize, finish: Finish, reading: &Reading, succeeded: bool) -> Self {
        let violations = if finish == Finish::Unreadable {
            let (kind, detail) =
                (ViolationKind::UnreadableByServer, "the server failed at this reply alone".to_owned());
            vec![Violation { kind, range: 0..0, detail }]
        } else {
            reading.violations().cloned().collect()
        };
        Self {
            message,
            shown: Context::All,
            ids: Vec::new(),
            finish,
            spans: reading.spans.iter().map(|span| (span.role, span.range.clone())).collect(),
            action: reading.action().filter(|action| is_shallow(&action.payload, MAX_DEPTH)).cloned(),
            violations,
            drafts: reading.drafts,
            succeeded,
            inexact: false,
            reasoning: String::new(),
        }
    }
}

fn is_shallow(value: &Value, depth: usize) -> bool {
    match value {
        Value::Array(items) => depth > 0 && items.iter().all(|v| is_shallow(v, depth - 1)),
        Value::Object(map) => depth > 0 && map.values().all(|v| is_shallow(v, depth - 1)),
        _ => true,
    }
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// Which messages of a context are the model's own earlier turns, and in which ids they were said; the context is the whole
/// conversation where none is given. Ids go with their message, wherever it stands in the context; one that was changed is
/// no longer what the model said.
#[must_use]
pub fn recorded(shown: Option<&[Shown]>, turns: &[Turn]) -> Recorded {
    own(shown, turns, |turn| Some(Arc::from(turn.ids.as_slice())))
}

/// What the model thought before its earlier turns, by their place in a context.
#[must_use]
pub fn reasoning(shown: Option<&[Shown]>, turns: &[Turn]) -> BTreeMap<usize, Arc<str>> {
    own(shown, turns, |turn| (!turn.reasoning.is_empty()).then(|| Arc::from(turn.reasoning.as_str())))
}

fn own<T>(shown: Option<&[Shown]>, turns: &[Turn], what: impl Fn(&Turn) -> Option<T>) -> BTreeMap<usize, T> {
    let Some(shown) = shown else {
        return turns.iter().filter_map(|turn| Some((turn.message, what(turn)?))).collect();
    };
    let said: BTreeMap<usize, &Turn> = turns.iter().map(|turn| (turn.message, turn)).collect();
    shown.iter().enumerate().filter_map(|(at, s)| Some((at, what(said.get(&s.of?)?)?))).collect()
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

    /// Why its turns cannot be of its texts, if they cannot.
    #[must_use]
    pub fn contradiction(&self) -> Option<String> {
        if self.messages.is_empty() {
            return None;
        }
        self.turns.iter().enumerate().find_map(|(at, turn)| {
            let Some(said) = self.messages.get(turn.message) else {
                return Some(format!("turn {} is of message {}, which is not there", at + 1, turn.message));
            };
            let outside = turn.spans.iter().find(|(_, range)| said.content.get(range.clone()).is_none());
            outside.map(|(_, range)| format!("turn {} has a span {range:?}, which is no part of its reply", at + 1))
        })
    }

    /// The first turn with a violation after which no turn succeeded, and that violation.
    #[must_use]
    pub fn blocking_violation(&self) -> Option<(usize, &Violation)> {
        let dead_from = self.turns.iter().rposition(|t| t.succeeded).map_or(0, |i| i + 1);
        self.turns[dead_from..].iter().enumerate().find_map(|(i, t)| Some((dead_from + i, t.violations.first()?)))
    }
}
