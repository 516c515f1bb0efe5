//! What servers say.

use rolegraft_trajectory::calls::{self, NativeCall};
use rolegraft_trajectory::{Message, Role, Status};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What v0.2's controller says of a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// The task; nothing while it runs.
    #[serde(default)]
    pub index: Value,
    /// `running`, or how it ended.
    pub status: String,
    /// What the task makes of it.
    #[serde(default)]
    pub result: Value,
    /// The conversation as the agent is to see it.
    #[serde(default)]
    pub history: Vec<Said>,
}

/// A message of v0.2: the agent's role is `agent`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Said {
    /// `user` or `agent`.
    pub role: String,
    /// The text, or upstream's mark of what the agent did instead.
    #[serde(default)]
    pub content: Value,
}

impl Output {
    /// The conversation.
    #[must_use]
    pub fn messages(&self) -> Vec<Message> {
        let text = |said: &Said| said.content.as_str().map_or_else(|| said.content.to_string(), str::to_owned);
        let message = |said: &Said| match said.role.as_str() {
            "agent" => Message::assistant(text(said)),
            _ => Message::user(text(said)),
        };
        self.history.iter().map(message).collect()
    }

    /// The output in a refusal's text: a worker's failure comes wrapped twice.
    #[must_use]
    pub fn of_failure(detail: &str) -> Option<Self> {
        let inner: Value = serde_json::from_str(detail.get(detail.find('{')?..)?).ok()?;
        let output = inner.pointer("/detail/output").or_else(|| inner.get("output"))?;
        serde_json::from_value(output.clone()).ok()
    }
}

/// Whether a session goes on: its status in our words if it does not.
#[must_use]
pub fn ended(status: &str) -> Option<Status> {
    match status {
        "running" => None,
        other => Some(serde_json::from_value(other.replace(' ', "_").into()).unwrap_or(Status::Unknown)),
    }
}

/// The score in what a task makes of an episode, where there is one.
#[must_use]
pub fn score(result: &Value) -> Option<f64> {
    let fields = ["result", "reward", "score", "success", "is_correct"];
    let found = fields.iter().find_map(|field| result.get(*field)).unwrap_or(result);
    found.as_bool().map(|right| f64::from(u8::from(right))).or_else(|| found.as_f64())
}

/// What a worker of the function-call version says of a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EnvOut {
    /// Messages since the last time, the agent's own left out.
    #[serde(default)]
    pub messages: Vec<Value>,
    /// The tools.
    #[serde(default)]
    pub tools: Vec<Value>,
    /// `running`, or how it ended.
    pub status: String,
    /// Whether it ended.
    #[serde(default)]
    pub finish: bool,
    /// 1 if the task is solved.
    #[serde(default)]
    pub reward: Value,
    /// Whatever else is measured.
    #[serde(default)]
    pub metric: Value,
}

impl EnvOut {
    /// Its messages in our form.
    #[must_use]
    pub fn said(&self) -> Vec<Message> {
        self.messages.iter().map(message).collect()
    }
}

/// A chat API's message in our form: calls are written into the text.
fn message(value: &Value) -> Message {
    let text = value["content"].as_str().unwrap_or_default();
    let role = match value["role"].as_str() {
        Some("system") => Role::System,
        Some("assistant") => Role::Assistant,
        Some("tool") => Role::Tool,
        _ => Role::User,
    };
    let field = |call: &Value, name: &str| call["function"][name].as_str().unwrap_or_default().to_owned();
    let called: Vec<NativeCall> = value["tool_calls"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|call| NativeCall {
            id: call["id"].as_str().unwrap_or_default().to_owned(),
            name: field(call, "name"),
            arguments: field(call, "arguments"),
        })
        .collect();
    Message::new(role, if called.is_empty() { text.to_owned() } else { calls::write(text, &called) })
}

/// A reply as a chat API's assistant message.
#[must_use]
pub fn assistant(reply: &str) -> Value {
    let (content, called) = calls::read(reply);
    let mut message = json!({"role": "assistant", "content": content});
    if !called.is_empty() {
        if content.is_empty() {
            message["content"] = Value::Null;
        }
        message["tool_calls"] = called
            .iter()
            .map(|c| json!({"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}))
            .collect();
    }
    message
}
