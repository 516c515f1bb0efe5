//! Replies known beforehand: a task's own solution, or a recorded log.

use crate::{ChatModel, Completion, ModelError, Reply, Request};
use rolegraft_trajectory::{Episode, EpisodeKey, Finish, Spent};
use std::collections::HashMap;

/// A model that repeats given replies, and says nothing when they run out.
#[derive(Default)]
pub struct Scripted {
    replies: HashMap<EpisodeKey, Vec<(String, Vec<u32>)>>,
}

impl Scripted {
    /// Replies by episode.
    #[must_use]
    pub fn new(replies: impl IntoIterator<Item = (EpisodeKey, Vec<String>)>) -> Self {
        let with_ids = |texts: Vec<String>| texts.into_iter().map(|t| (t, Vec::new())).collect();
        Self { replies: replies.into_iter().map(|(key, texts)| (key, with_ids(texts))).collect() }
    }
    /// The replies of recorded episodes.
    #[must_use]
    pub fn replay(episodes: &[Episode]) -> Self {
        let turns = |e: &Episode| e.replies().map(str::to_owned).zip(e.turns.iter().map(|t| t.ids.clone())).collect();
        Self { replies: episodes.iter().map(|e| (e.key.clone(), turns(e))).collect() }
    }
}

impl ChatModel for Scripted {
    fn complete<'a>(&'a self, request: &'a Request) -> Reply<'a> {
        Box::pin(async move {
            let replies = self
                .replies
                .get(&request.episode)
                .ok_or_else(|| ModelError::Fatal(format!("no recorded replies for task `{}`", request.episode.task)))?;
            let (text, ids) = replies.get(request.turn).cloned().unwrap_or_default();
            Ok(Completion { spent: Spent::default(), ..Completion::of_tokens(text, ids, Finish::Stop, 0) })
        })
    }
    fn has_native_tools(&self) -> bool {
        true
    }
    fn concurrency(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }
}
