//! Servers that we start and feed with checkpoints: the engine for many GPUs and many machines.
//!
//! [`ServerRules`] says which servers there are: some that we start, or some that run already over a shared file system.
//! [`Fleet::serve`] makes all of them hold a checkpoint, by a new start or by a swap of weights, and gives the addresses of
//! those that proved it, by their own checksums and by what the checkpoint is [`Expected`] to say; whoever fails or lies is left out. A [`Process`] is one server of ours: its children end with
//! it, and a record lets [`sweep`] end them at the next start where we could not. What is asked of servers, and what
//! answers mean, is left to `rolegraft-model`; where checkpoints come from, to the caller.
//!
//! ```
//! let rules: rolegraft_servers::ServerRules = toml::from_str("kind = \"vllm\"\nreplicas = 4").unwrap();
//! rules.check().unwrap();
//! ```

mod fleet;
mod http;
mod process;
mod record;
mod rules;
mod swap;
mod watch;
mod worker;

pub use fleet::{Feed, Fleet, FleetError, Serving};
pub use process::{Launch, Process, StartError};
pub use record::sweep;
pub use rules::{Kind, RulesError, ServerRules, Swap, Urls};
pub use swap::{Expected, SwapError};
pub use worker::{LeftOut, State, WorkerError};
