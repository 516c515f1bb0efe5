//! Requests and refusals.

use crate::wire::{EnvOut, Output};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A server gives up on a turn after 240 seconds.
const LIMIT: Duration = Duration::from_secs(300);
/// How long to ask a server that has no free worker.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often.
const PAUSE: Duration = Duration::from_secs(2);
/// Longest answer read, in bytes.
const MAX_ANSWER: usize = 64 << 20;

/// Why a server cannot be used, or does not do what it is asked.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum RemoteError {
    #[error("`{url}` does not answer: {reason}")]
    Unreachable { url: String, reason: String },
    #[error("`{url}` refuses ({status}): {detail}")]
    Refused { url: String, status: u16, detail: String },
    #[error("`{url}` gives what is no answer of AgentBench's: {reason}")]
    Garbled { url: String, reason: String },
}

impl RemoteError {
    /// The status of a refusal.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// A server's address, and how to speak with it.
#[derive(Debug, Clone)]
pub struct Client {
    base: String,
    http: reqwest::blocking::Client,
    patience: Duration,
}

impl Client {
    /// A client of `http://HOST:PORT/api`.
    ///
    /// # Errors
    /// If there is no way to make requests.
    pub fn new(base: &str) -> Result<Self, RemoteError> {
        let base = base.trim_end_matches('/').to_owned();
        let http = reqwest::blocking::Client::builder().timeout(LIMIT).connect_timeout(Duration::from_secs(10)).build();
        let http = http.map_err(|e| RemoteError::Unreachable { url: base.clone(), reason: e.to_string() })?;
        Ok(Self { base, http, patience: PATIENCE })
    }

    /// The same client, asking a server that has no free worker for so long.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    fn ask<T: DeserializeOwned>(&self, path: &str, body: Option<&Value>) -> Result<T, RemoteError> {
        let url = format!("{}{path}", self.base);
        let request = match body {
            Some(body) => self.http.post(&url).json(body),
            None => self.http.get(&url),
        };
        let unreachable = |e: reqwest::Error| RemoteError::Unreachable { url: url.clone(), reason: reason_of(&e) };
        let answer = request.send().map_err(unreachable)?;
        let status = answer.status();
        let text = answer.text().map_err(unreachable)?;
        let garbled = |reason: String| RemoteError::Garbled { url: url.clone(), reason };
        if text.len() > MAX_ANSWER {
            return Err(garbled(format!("{} bytes", text.len())));
        }
        if !status.is_success() {
            let detail = match serde_json::from_str::<Value>(&text) {
                Ok(value) => value["detail"].as_str().map_or_else(|| value["detail"].to_string(), str::to_owned),
                Err(_) => text.chars().take(300).collect(),
            };
            return Err(RemoteError::Refused { url, status: status.as_u16(), detail });
        }
        serde_json::from_str(&text).map_err(|e| garbled(e.to_string()))
    }

    /// A task's samples.
    ///
    /// # Errors
    /// If the server does not know the task.
    pub fn indices(&self, task: Option<&str>) -> Result<Vec<Value>, RemoteError> {
        match task {
            Some(task) => self.ask(&format!("/get_indices?name={}", encoded(task)), None),
            None => self.ask("/get_indices", None),
        }
    }

    /// Asks for a session until a worker is free.
    fn patiently<T: DeserializeOwned>(&self, body: &Value) -> Result<T, RemoteError> {
        let until = Instant::now() + self.patience;
        loop {
            match self.ask("/start_sample", Some(body)) {
                Err(error) if error.status() == Some(406) && Instant::now() < until => std::thread::sleep(PAUSE),
                other => return other,
            }
        }
    }

    /// v0.2: starts a sample.
    ///
    /// # Errors
    /// If there is none, or no worker for it.
    pub fn start(&self, task: &str, index: &Value) -> Result<(u64, Output), RemoteError> {
        let body = json!({"name": task, "index": index});
        let answer: Value = self.patiently(&body)?;
        self.session(answer)
    }

    /// v0.2: gives a reply, or, without one, says that the conversation no longer fits the agent's context. A failure of the task is
    /// an output with its status.
    ///
    /// # Errors
    /// If the session is gone, or the server does not answer.
    pub fn interact(&self, session: u64, reply: Option<&str>) -> Result<Output, RemoteError> {
        let response = match reply {
            Some(reply) => json!({"status": "normal", "content": reply}),
            None => json!({"status": "agent context limit", "content": null}),
        };
        let body = json!({"session_id": session, "agent_response": response});
        match self.ask("/interact", Some(&body)) {
            Ok(answer) => self.session(answer).map(|(_, output)| output),
            Err(RemoteError::Refused { url, status: 501, detail }) => {
                // The controller keeps such a session, and the worker's slot with it.
                self.cancel(session);
                Output::of_failure(&detail).ok_or(RemoteError::Refused { url, status: 501, detail })
            }
            Err(other) => Err(other),
        }
    }

    fn session(&self, answer: Value) -> Result<(u64, Output), RemoteError> {
        let garbled = |reason: String| RemoteError::Garbled { url: self.base.clone(), reason };
        let session = answer["session_id"].as_u64().ok_or_else(|| garbled("no `session_id`".into()))?;
        let output = serde_json::from_value(answer["output"].clone()).map_err(|e| garbled(e.to_string()))?;
        Ok((session, output))
    }

    /// Function calls: starts a sample under a session of our choice.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_calls(&self, session: u64, index: &Value) -> Result<EnvOut, RemoteError> {
        self.patiently(&json!({"index": index, "session_id": session}))
    }

    /// Function calls: gives an assistant's message.
    ///
    /// # Errors
    /// As [`Self::interact`].
    pub fn interact_calls(&self, session: u64, message: &Value) -> Result<EnvOut, RemoteError> {
        let answer: Value = self.ask("/interact", Some(&json!({"session_id": session, "messages": [message]})))?;
        let garbled = |e: serde_json::Error| RemoteError::Garbled { url: self.base.clone(), reason: e.to_string() };
        serde_json::from_value(answer["env_out"].clone()).map_err(garbled)
    }

    /// Ends a session, if it is there.
    pub fn cancel(&self, session: u64) {
        let _ = self.ask::<Value>("/cancel", Some(&json!({"session_id": session})));
    }
}

/// What went wrong, down to its cause.
fn reason_of(error: &reqwest::Error) -> String {
    let mut reason = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        reason += &format!(": {cause}");
        source = cause.source();
    }
    reason
}

/// A text in a query.
fn encoded(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
