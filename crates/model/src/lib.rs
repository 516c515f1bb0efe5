//! Who answers: the trait that the episode loop speaks to, and the models that need no engine of ours.
//!
//! A [`ChatModel`] gets a conversation and gives the next reply. [`Scripted`] replays recorded or oracle replies. A server
//! is asked by [`probe`] what it understands, and then through [`RawEndpoint`], which renders conversations itself, or
//! through its chat route, [`Endpoint`]: a score that came through a server is the model's, or there is none. [`Chooser`] picks tokens for engines in process: one draw a token,
//! keyed by run, suite, task, trial and turn, so that an episode depends on its key alone.

mod chooser;
mod client;
mod completions;
mod endpoint;
mod fields;
mod load;
mod probe;
mod refusal;
mod request;
mod scripted;

pub use chooser::Chooser;
pub use client::{EndpointConfig, KEY_VARIABLE};
pub use completions::{Completions, Continued, RawEndpoint};
pub use endpoint::Endpoint;
pub use fields::{FieldError, Fields};
pub use probe::{Probed, Wanted, probe};
pub use scripted::Scripted;

use rolegraft_trajectory::{EpisodeKey, Finish, Key, Message, Recorded, Spent};
use serde_json::Value;
use std::collections::BTreeMap;
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::sync::Arc;

/// How tokens are picked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f64,
    /// Nucleus; 1 keeps all.
    pub top_p: f64,
    /// Most new tokens.
    pub max_tokens: usize,
}

/// A request for the next reply.
#[derive(Debug, Clone)]
pub struct Request {
    /// Which episode.
    pub episode: EpisodeKey,
    /// Replies before this one.
    pub turn: usize,
    /// The conversation so far.
    pub messages: Arc<Vec<Message>>,
    /// Which of the messages are the model's earlier replies, with their token ids as given in their completions.
    pub recorded: Recorded,
    /// What the model thought before earlier replies, where its server keeps that apart, by the message's index.
    pub reasoning: BTreeMap<usize, Arc<str>>,
    /// Tools to announce through the model's own interface; earlier calls stand in the messages as
    /// [`rolegraft_trajectory::calls`] writes them.
    pub tools: Option<Arc<Vec<Value>>>,
    /// How to pick tokens.
    pub sampling: Sampling,
    /// The turn's random stream.
    pub key: Key,
}

/// A reply.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// The exact text, markup included, without the end of turn.
    pub text: String,
    /// Its token ids; empty where the engine does not give them.
    pub ids: Vec<u32>,
    /// Why it ends.
    pub finish: Finish,
    /// What it cost.
    pub spent: Spent,
    /// Whether a server took the reply apart, so that the text was put together again.
    pub inexact: bool,
    /// What the model thought, where its server keeps that apart from what it said.
    pub reasoning: String,
}

impl Completion {
    /// A reply made of `ids` after a prompt of `prompt` tokens.
    #[must_use]
    pub fn of_tokens(text: String, ids: Vec<u32>, finish: Finish, prompt: usize) -> Self {
        let spent = Spent { calls: 1, failures: 0, prompt_tokens: prompt as u64, completion_tokens: ids.len() as u64 };
        Self { text, ids, finish, spent, inexact: false, reasoning: String::new() }
    }
    /// No reply, for this reason.
    #[must_use]
    pub fn without_reply(finish: Finish) -> Self {
        Self { spent: Spent::default(), ..Self::of_tokens(String::new(), Vec::new(), finish, 0) }
    }
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum ModelError {
    #[error("{0}")]
    Fatal(String),
    #[error("{reason} (gave up after {tries} tries)")]
    Unavailable { reason: String, tries: u32 },
    #[error(
        "the server at {url} has gone, and did not come back within {seconds} s; run the same command to go on when it is back"
    )]
    Gone { url: String, seconds: u64 },
}

/// A future on the heap.
pub type Reply<'a> = Pin<Box<dyn Future<Output = Result<Completion, ModelError>> + Send + 'a>>;

/// Whatever answers.
pub trait ChatModel: Send + Sync {
    /// The next reply.
    fn complete<'a>(&'a self, request: &'a Request) -> Reply<'a>;
    /// Requests that may be open at once, now.
    fn concurrency(&self) -> usize;
    /// That an episode is over: what was kept for its next turn can go.
    fn ended(&self, episode: &EpisodeKey) {
        let _ = episode;
    }
    /// Waits until more may be open; for ever, where that does not change.
    fn grown<'a>(&'a self) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(std::future::pending())
    }
    /// Whether [`Request::tools`] are announced and calls come back in the form of [`rolegraft_trajectory::calls`].
    fn has_native_tools(&self) -> bool {
        false
    }
}

/// What sends all requests of an episode to one server: its cache holds what was said before.
fn home(episode: &EpisodeKey) -> u64 {
    let mut hasher = DefaultHasher::new();
    episode.hash(&mut hasher);
    hasher.finish()
}
