//! Replays what reference implementations recorded, case by case, and counts agreements.
//!
//! A recording's folder says which cases there are and what came out; the rules of comparison are those of the
//! recording, never of a case. Nothing is written but temporary files. Recordings of benchmarks are replayed by their own crates.

mod chat;
mod engine;
mod least_squares;
mod lora;
mod merge;
mod merge_inputs;
mod parse;
mod runner;
mod saliency;
mod tolerance;

pub use chat::chat;
pub use engine::engine;
pub use least_squares::least_squares;
pub use lora::lora;
pub use merge::merge;
pub use parse::parse;
pub use rolegraft_suites::recordings::{Report, UnreadableError, Verdict};
pub use runner::{Decoded, IN_PROCESS, Loaded, Runner, runners};
pub use saliency::saliency;
