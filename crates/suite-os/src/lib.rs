//! AgentBench's OS interaction: a shell, a question or an errand, eight rounds.
//!
//! Rules: THUDM/AgentBench@41e6807:`src/server/tasks/os_interaction/task.py` (text protocol, the default) and @578c5e9
//! (function calls). The shell is a login shell on a terminal in a sandbox.

mod benchmark;
mod calls;
mod compare;
mod environment;
mod official;
pub mod recorded;
mod replay;
mod terminal;

pub use benchmark::Os;
pub use environment::{FORMAT, OsSuite, Prompt, Setup};
pub use official::{KNOWN_BAD, Official, OfficialError};
pub use terminal::Shell;
