//! What benchmarks may ask for when they are set up: models and persons as other parties of an episode.

use crate::engine::{EngineKind, open_user};
use crate::progress::Progress;
use rolegraft_model::{ChatModel, ModelError, Request, Sampling};
use rolegraft_suites::{Host, Speaker, SpeakerError};
use rolegraft_trajectory::{ChatArguments, EpisodeKey, Finish, Key, Message, Recorded, Seed, Spent};
use std::sync::Arc;
use tokio::runtime::Handle;

/// How a simulated user speaks (arXiv 2601.07309: temperature 0).
const SAMPLING: Sampling = Sampling { temperature: 0.0, top_p: 1.0, max_tokens: 2048 };

/// The host of suites that are played.
pub(crate) struct Players<'h> {
    /// Where a simulated user's model runs.
    pub(crate) runtime: &'h Handle,
    /// What plays a user's checkpoint.
    pub(crate) engine: EngineKind,
    /// How the agent's conversations are rendered; a user's have the day in common with them.
    pub(crate) chat: &'h ChatArguments,
    /// Who is told of work that takes long.
    pub(crate) progress: &'h dyn Progress,
    /// The person at the terminal, where one may take part.
    pub(crate) person: Option<Arc<dyn Speaker>>,
}

impl Host for Players<'_> {
    fn speaker(&self, model: &str) -> Result<Arc<dyn Speaker>, Box<dyn std::error::Error + Send + Sync>> {
        let model = self.runtime.block_on(open_user(model, self.engine, &self.chat.only_date()))?;
        Ok(Arc::new(ModelSpeaker { model, runtime: self.runtime.clone() }))
    }
    fn person(&self) -> Option<Arc<dyn Speaker>> {
        self.person.clone()
    }
    fn note(&self, text: &str) {
        self.progress.note(text);
    }
}

/// A model that speaks for somebody. Environments that wait run on the runtime's blocking threads, where waiting is
/// allowed.
struct ModelSpeaker {
    model: Arc<dyn ChatModel>,
    runtime: Handle,
}

impl Speaker for ModelSpeaker {
    fn say(&self, messages: &[Message]) -> Result<(String, Spent), SpeakerError> {
        // A conversation is known by how it begins: engines in process keep what they read of it.
        let about: String = messages.iter().take(2).map(|m| m.content.as_str()).collect();
        let request = Request {
            episode: EpisodeKey { suite: "user".into(), task: about.clone(), trial: 0 },
            turn: messages.len(),
            messages: messages.to_vec().into(),
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
