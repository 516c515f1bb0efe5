//! Conversations and what became of them: messages, chat templates, episodes and their crash-safe logs.
//!
//! A trajectory is text first: [`ChatTokenizer`] turns it into token ids exactly as the model saw them, turn by turn,
//! and never guesses a position. An [`Episode`] records what a run needs to be scored again without the model.

pub mod calls;
pub mod chat;
pub mod episode;
mod log;
pub mod message;
pub mod seed;

pub use chat::{ChatError, ChatTokenizer, ReplyTokens, Sequence, text_ids};
pub use episode::{Episode, EpisodeKey, Finish, Spent, Status, Turn};
pub use log::{EpisodeLog, LogError};
pub use message::{Message, Role};
pub use seed::{Key, Rng, Seed};
