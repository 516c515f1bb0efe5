//! What benchmarks may ask for when they are set up: models and persons as other parties of an episode.

use crate::ask::ask_user;
use crate::endpoints::{EndpointRules, is_endpoint};
use crate::engine::{Copies, EngineKind, open_checkpoint};
use crate::progress::Progress;
use rolegraft_decoder::DeviceName;
use rolegraft_model::{ChatModel, ModelError, Request, Sampling};
use rolegraft_suites::{Host, Speaker, SpeakerError};
use rolegraft_trajectory::{ChatArguments, EpisodeKey, Finish, Key, Message, Recorded, Seed, Spent};
use std::collections::BTreeMap;
use std::path::Path;
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
    /// Where it is played.
    pub(crate) device: DeviceName,
    /// How a user's server is asked.
    pub(crate) endpoint: &'h EndpointRules,
    /// How the agent's conversations are rendered; a user's have the day in common with them.
    pub(crate) chat: &'h ChatArguments,
    /// Who is told of work that takes long.
    pub(crate) progress: &'h dyn Progress,
    /// The person at the terminal, where one may take part.
    pub(crate) person: Option<Arc<dyn Speaker>>,
}

impl Host for Players<'_> {
    fn speaker(&self, model: &str) -> Result<Arc<dyn Speaker>, Box<dyn std::error::Error + Send + Sync>> {
        let chat = self.chat.only_date();
        let model = if is_endpoint(model) {
            let probed = self.runtime.block_on(ask_user(model, self.endpoint, &chat, SAMPLING))?;
            probed.notes.iter().for_each(|note| self.progress.note(&format!("the user's model: {note}")));
            probed.model
        } else {
            let opened = open_checkpoint(Path::new(model), self.engine, Copies::Exactly(1), &chat, self.device);
            let opened = self.runtime.block_on(opened)?;
            opened.notes.iter().for_each(|note| self.progress.note(&format!("the user's model: {note}")));
            opened.model
        };
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
            reasoning: BTreeMap::new(),
            tools: None,
            sampling: SAMPLING,
            key: Key::new(Seed(0)).child(&about).index(messages.len() as u64),
        };
        match self.runtime.block_on(self.model.complete(&request)) {
            Ok(completion) if completion.finish == Finish::ContextLimit => Err(SpeakerError::Overflow),
            Ok(completion) if matches!(completion.finish, Finish::Filtered | Finish::Unreadable) => {
                // The agent did not say it, so it is not scored.
                Err(SpeakerError::Unavailable("the user's server would not let its model speak".into()))
            }
            Ok(completion) => Ok((completion.text, completion.spent)),
            Err(error @ ModelError::Unavailable { .. }) => Err(SpeakerError::Unavailable(error.to_string())),
            Err(error) => Err(SpeakerError::Fatal(error.to_string())),
        }
    }
}
