//! What every benchmark environment has in common: tasks, episodes, outcomes, and the sandbox.
//!
//! A [`Suite`] is a set of tasks with rules; [`Suite::start`] gives an [`Environment`] for one of them. Suites know
//! nothing of models: they are given replies and answer with observations.

mod cgroup;
mod command;
mod container;
pub mod docker;
mod environment;
pub mod history;
mod orphan;
mod output;
mod protocol;
pub mod sandbox;
mod sandbox_error;
mod tasks;
mod terminal;

pub use environment::{Environment, Limits, Outcome, Roles, Speaker, SpeakerError, Split, Step, Suite, SuiteError};
pub use protocol::AgentBenchProtocol;
pub use sandbox::{Sandbox, SandboxError};
pub use tasks::{Task, TaskSet, TasksError};
