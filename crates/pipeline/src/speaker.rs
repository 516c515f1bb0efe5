//! Models as other parties of an episode.

use rolegraft_model::{ChatModel, ModelError, Request, Sampling};
use rolegraft_suite::{Speaker, SpeakerError};
use rolegraft_trajectory::{EpisodeKey, Finish, Key, Message, Recorded, Seed, Spent};
use std::sync::Arc;
use tokio::runtime::Handle;

/// How a simulated user speaks (arXiv 2601.07309: temperature 0).
const SAMPLING: Sampling = Sampling { temperature: 0.0, top_p: 1.0, max_tokens: 2048 };

/// A model that speaks for somebody. Environments run on the runtime's blocking threads, where waiting is allowed.
pub(crate) struct ModelSpeaker {
    pub(crate) model: Arc<dyn ChatModel>,
    pub(crate) runtime: Handle,
}

impl Speaker for ModelSpeaker {
    fn say(&self, messages: &[Message]) -> Result<(String, Spent), SpeakerError> {
        // A conversation is known by how it begins: engines in process keep what they read of it.
        let about: String = messages.iter().take(2).map(|m| m.content.as_str()).collect();
        let request = Request {
            episode: EpisodeKey { suite: "user".into(), task: about.clone(), trial: 0 },
            turn: messages.len(),
            messages: messages.to_vec(),
            recorded: Recorded::new(),
            tools: None,
            sampling: SAMPLING,
            key: Key::new(Seed(0)).child(&about).index(messages.len() as u64),
        };
        match self.runtime.block_on(self.model.complete(&request)) {
            Ok(completion) if completion.finish == Finish::ContextLimit => Err(SpeakerError::Overflow),
            Ok(completion) => Ok((completion.text, completion.spent)),
            Err(error @ ModelError::Unavailable { .. }) => Err(SpeakerError::Unavailable(error.to_string())),
            Err(ModelError::Fatal(reason)) => Err(SpeakerError::Fatal(reason)),
        }
    }
}
