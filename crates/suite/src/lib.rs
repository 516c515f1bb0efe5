//! What every benchmark environment has in common: tasks, episodes, outcomes, and the sandbox.
//!
//! A [`Suite`] is a set of tasks with rules; [`Suite::start`] gives an [`Environment`] for one of them. Suites know
//! nothing of models: they are given replies and answer with observations.

mod benchmark;
mod cgroup;
mod command;
mod container;
pub mod docker;
mod environment;
pub mod history;
mod library;
mod open_error;
mod output;
mod protocol;
pub mod recordings;
pub mod sandbox;
mod sandbox_error;
mod seccomp;
pub mod settings;
mod suite_file;
mod tasks;
mod terminal;

pub use benchmark::{Alone, Benchmark, Host, Need, OfficialData, Opening};
pub use environment::{Environment, Limits, Outcome, Roles, Speaker, SpeakerError, Split, Step, Suite, SuiteError};
pub use library::{Library, NotRun};
pub use open_error::OpenError;
pub use protocol::{AGENTBENCH, AgentBenchProtocol, agentbench_limits};
pub use sandbox::{Sandbox, SandboxError};
pub use settings::{AllSettings, Flag, Settings, SettingsError, Taken};
pub use suite_file::{BuiltIn, SuiteFile};
pub use tasks::{Task, TaskSet, TasksError, digest};
