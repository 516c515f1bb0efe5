//! Suites played on AgentBench's own servers: the controller of v0.2 (THUDM/AgentBench@41e6807), and workers of the
//! function-call version (agentrl-worker 0.4.0), for which we are the controller.
//!
//! The server owns the environment; here are the conversation, the client and the bookkeeping: whatever ends an episode, its
//! session on the server is ended too.

mod benchmark;
mod client;
mod environment;
mod heartbeat;
pub mod wire;

pub use benchmark::Remote;
pub use client::{Client, RemoteError};
pub use environment::{Api, RemoteSuite};
pub use heartbeat::{Controller, Worker};
