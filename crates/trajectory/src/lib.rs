//! Conversations and what became of them: messages, chat templates, episodes and their crash-safe logs.
//!
//! A trajectory is text first: [`ChatTokenizer`] turns it into token ids exactly as the model saw them, turn by turn,
//! and never guesses a position; a [`Context`] says what it was shown where that is not all that was said. An
//! [`Episode`] records what a run needs to be scored again without the model.

pub mod calls;
pub mod chat;
pub mod context;
pub mod episode;
mod error;
mod log;
pub mod message;
pub mod seed;
pub mod template;
pub mod vocabulary;

pub use chat::{CHAT_RULES, ChatTokenizer, Contexts, ReplyTokens, Sequence, text_ids};
pub use context::{Context, Part, Recorded, Shown};
pub use episode::{Episode, EpisodeKey, Finish, Spent, Status, Turn, reasoning, recorded};
pub use error::ChatError;
pub use log::{EpisodeLog, Episodes, LogError, LogWriter, Origin, Road, Served, begins_log, log_name};
pub use message::{Message, Role};
pub use seed::{Key, Rng, Seed};
pub use template::{ArgumentError, ChatArguments, ChatTemplate, TemplateError};
pub use vocabulary::Vocabulary;
