//! The other side of an episode: what answers the agent.

use rolegraft_suite::SpeakerError;
use rolegraft_trajectory::Spent;
use std::collections::VecDeque;

/// What ends a conversation, wherever it stands in a user's message.
pub const STOP: &str = "###STOP###";

/// Why a user says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Silence {
    /// Whoever plays it does not answer; the episode cannot be scored.
    Speaker(SpeakerError),
    /// It said what cannot be read; upstream scores 0.
    Unreadable(String),
}

pub(crate) type Said = Result<String, Silence>;

/// The other side of an episode.
pub(crate) trait User: Send {
    /// The first message.
    fn open(&mut self) -> Said;
    /// The answer to the agent's message.
    fn reply(&mut self, to: &str) -> Said;
    /// What it spent.
    fn spent(&self) -> Spent {
        Spent::default()
    }
}

/// Messages that are known beforehand, for scoring a recorded episode again.
pub(crate) struct Recorded(pub(crate) VecDeque<String>);

impl User for Recorded {
    fn open(&mut self) -> Said {
        self.0.pop_front().ok_or_else(|| Silence::Unreadable("the recording holds no message of the user".into()))
    }
    fn reply(&mut self, _: &str) -> Said {
        // A log does not keep the message that ended it.
        Ok(self.0.pop_front().unwrap_or_else(|| STOP.to_owned()))
    }
}
