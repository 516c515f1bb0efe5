//! What a format makes of a reply.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;
use std::ops::Range;

/// The kind of span that a benchmark's success hangs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A tool call (τ-bench).
    ToolCall,
    /// The answer's JSON (OfficeBench).
    FinalJson,
    /// An action with its arguments (AgentBench).
    Action,
}

impl Role {
    /// The name used in files and tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ToolCall => "tool_call",
            Self::FinalJson => "final_json",
            Self::Action => "action",
        }
    }
}

/// Why a span, or a reply without one, is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ViolationKind {
    /// No span at all where one is due.
    Missing,
    /// The payload is not JSON.
    InvalidJson,
    /// The payload is not JSON because of a backslash.
    BadEscape,
    /// An action wrapped in another, as object or as text.
    NestedJson,
    /// The wrapper of another format.
    TemplateConfusion,
    /// The action that a harness takes for a crash.
    CrashAction,
    /// JSON, but not what the schema asks for.
    Schema,
    /// An action that does not exist here.
    UnknownAction,
    /// More than one action where one is allowed.
    Multiple,
    /// Text beside an action that has to stand alone.
    Prose,
    /// What the model said broke the server that was to read it.
    UnreadableByServer,
}

impl ViolationKind {
    /// Every kind, in the order of tables.
    pub const ALL: [Self; 11] = [
        Self::Missing,
        Self::InvalidJson,
        Self::BadEscape,
        Self::NestedJson,
        Self::TemplateConfusion,
        Self::CrashAction,
        Self::Schema,
        Self::UnknownAction,
        Self::Multiple,
        Self::Prose,
        Self::UnreadableByServer,
    ];

    /// The name used in files and tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::InvalidJson => "invalid_json",
            Self::BadEscape => "bad_escape",
            Self::NestedJson => "nested_json",
            Self::TemplateConfusion => "template_confusion",
            Self::CrashAction => "crash_action",
            Self::Schema => "schema",
            Self::UnknownAction => "unknown_action",
            Self::Multiple => "multiple",
            Self::Prose => "prose",
            Self::UnreadableByServer => "unreadable_by_server",
        }
    }
    /// Whether the structured output could not even be parsed (the paper's table 6).
    #[must_use]
    pub fn is_unparsable(self) -> bool {
        !matches!(self, Self::Schema | Self::UnknownAction | Self::Multiple | Self::Prose)
    }
}

/// A violation and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// What is wrong.
    pub kind: ViolationKind,
    /// Bytes of the reply.
    pub range: Range<usize>,
    /// For people: a parser's message, or the path in the schema.
    pub detail: String,
}

/// What a span asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// The action's name.
    pub name: String,
    /// Its arguments: JSON, or a text, or null.
    pub payload: Value,
}

/// A byte range of a reply with a role.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// Why the range matters.
    pub role: Role,
    /// Bytes of the reply.
    pub range: Range<usize>,
    /// The payload's text, verbatim.
    pub text: String,
    /// What it asks for, where it can be read.
    pub action: Option<Action>,
    /// What is wrong with it.
    pub violations: Vec<Violation>,
}

/// A reply, read.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Reading {
    /// Spans in the order of the text.
    pub spans: Vec<Span>,
    /// Violations that belong to no span.
    pub violations: Vec<Violation>,
    /// What of the reply is reasoning, in formats that tell it: nothing of it acts, and nobody hears it.
    #[serde(default)]
    pub reasoning: Vec<Range<usize>>,
    /// Calls that stand in the reasoning, whole and well-formed: considered, not made.
    #[serde(default)]
    pub drafts: usize,
}

impl Reading {
    /// One span and nothing else.
    pub(crate) fn of(span: Span) -> Self {
        Self { spans: vec![span], ..Self::default() }
    }
    /// The action to execute: that of the first span that has one.
    #[must_use]
    pub fn action(&self) -> Option<&Action> {
        self.spans.iter().find_map(|s| s.action.as_ref())
    }
    /// The reply without its reasoning, and without the blanks around what is left.
    #[must_use]
    pub fn said<'r>(&self, reply: &'r str) -> Cow<'r, str> {
        if self.reasoning.is_empty() {
            return Cow::Borrowed(reply);
        }
        let starts = std::iter::once(0).chain(self.reasoning.iter().map(|r| r.end));
        let ends = self.reasoning.iter().map(|r| r.start).chain([reply.len()]);
        let said: String = starts.zip(ends).filter_map(|(start, end)| reply.get(start..end)).collect();
        Cow::Owned(said.trim().to_owned())
    }
    /// Every violation.
    pub fn violations(&self) -> impl Iterator<Item = &Violation> {
        self.violations.iter().chain(self.spans.iter().flat_map(|s| &s.violations))
    }
}
