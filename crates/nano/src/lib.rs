//! The laptop-sized expert pool: task generators with their solutions, and the training of the four checkpoints.

pub mod build;
pub mod dialogues;
pub mod tasks;
pub mod tokenizer;
pub mod train;
pub mod words;
