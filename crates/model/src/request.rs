//! Requests: what is asked, and how it is written.

use crate::ModelError;
use crate::fields::Fields;
use bytes::Bytes;
use rolegraft_trajectory::Key;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// SGLang's own route.
pub(crate) const GENERATE: &str = "/generate";

/// What is asked.
#[derive(Clone)]
pub(crate) enum Question<'q> {
    /// A conversation, with the tools that are announced.
    Chat { messages: Vec<Value>, tools: Option<&'q [Value]> },
    /// A text to go on with.
    Text(&'q str),
    /// Token ids to go on with.
    Ids(&'q [u32]),
    /// The same, as SGLang's own route has it.
    InputIds(&'q [u32]),
}

/// A request.
#[derive(Clone)]
pub(crate) struct Post<'p> {
    pub(crate) path: &'static str,
    pub(crate) question: Question<'p>,
    /// Its other fields, as OpenAI's API names them.
    pub(crate) fields: Map<String, Value>,
    /// The waits' jitter.
    pub(crate) draws: Key,
    /// Requests of one home go to one server.
    pub(crate) home: u64,
}

/// A request as it is sent.
struct Sent<'s> {
    model: &'s str,
    question: &'s Question<'s>,
    fields: &'s Map<String, Value>,
}

impl<'s> Serialize for Sent<'s> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if !matches!(self.question, Question::InputIds(_)) {
            map.serialize_entry("model", self.model)?;
        }
        match self.question {
            Question::Chat { messages, tools } => {
                map.serialize_entry("messages", messages)?;
                if let Some(tools) = tools {
                    map.serialize_entry("tools", tools)?;
                }
            }
            Question::Text(text) => map.serialize_entry("prompt", text)?,
            Question::Ids(ids) => map.serialize_entry("prompt", ids)?,
            Question::InputIds(ids) => {
                map.serialize_entry("input_ids", ids)?;
                let named = |(field, value): (&'s String, &'s Value)| match field.as_str() {
                    "max_tokens" => ("max_new_tokens", value),
                    "seed" => ("sampling_seed", value),
                    field => (field, value),
                };
                let sampling: BTreeMap<&str, &Value> = self.fields.iter().map(named).collect();
                map.serialize_entry("sampling_params", &sampling)?;
                return map.end();
            }
        }
        for (field, value) in self.fields {
            map.serialize_entry(field, value)?;
        }
        map.end()
    }
}

/// A request as it goes out.
pub(crate) struct Written {
    pub(crate) body: Bytes,
    /// New tokens asked for.
    pub(crate) asked: Option<u64>,
    /// Names of its fields that may be changed.
    pub(crate) fields: Vec<String>,
    pub(crate) path: &'static str,
    /// Whether the server itself reads what the model says to it.
    pub(crate) is_chat: bool,
    pub(crate) draws: Key,
    pub(crate) home: u64,
}

impl Written {
    /// Writes a request once: its bytes are what is kept of it while it is open.
    pub(crate) fn of(post: Post<'_>, model: &str, changes: &Fields) -> Result<Self, ModelError> {
        let Post { path, question, mut fields, draws, home } = post;
        let asked = fields.get("max_tokens").and_then(Value::as_u64);
        changes.apply(&mut fields);
        let sent = Sent { model, question: &question, fields: &fields };
        let body = serde_json::to_vec(&sent).map_err(unwritten)?.into();
        let (is_chat, fields) = (matches!(question, Question::Chat { .. }), Fields::open(&fields));
        Ok(Self { body, asked, fields, path, is_chat, draws, home })
    }
}

fn unwritten(error: serde_json::Error) -> ModelError {
    ModelError::Fatal(format!("a request cannot be written: {error}"))
}

/// A request with another value of a field.
pub(crate) fn with(body: &[u8], field: &str, value: Value) -> Result<Bytes, ModelError> {
    let mut sent: Map<String, Value> = serde_json::from_slice(body).map_err(unwritten)?;
    // SGLang's own route has these in a part of their own.
    let (part, field) = match sent.get_mut("sampling_params").and_then(Value::as_object_mut) {
        Some(part) => (part, "max_new_tokens"),
        None => (&mut sent, field),
    };
    part.insert(field.to_owned(), value);
    Ok(serde_json::to_vec(&sent).map_err(unwritten)?.into())
}
