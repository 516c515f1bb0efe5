//! Conversations and what became of them.

pub mod message;
pub mod seed;

pub use message::{Message, Role};
pub use seed::{Key, Rng, Seed};
