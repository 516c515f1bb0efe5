//! AgentBench's DB-bench: a question or a change to a table, answered with SQL on a real server.
//!
//! Rules: THUDM/AgentBench@41e6807:`src/server/tasks/dbbench` (text protocol, the default) and @578c5e9 (function calls).

mod benchmark;
pub mod compare;
mod database;
mod entry;
mod environment;
mod replay;
mod server;
mod show;
mod statement;
mod words;

pub use benchmark::DbBench;
pub use database::{Database, open};
pub use entry::{Column, Entry, Info, KNOWN_BAD, OfficialError, SETS, Table, Tables, entries, folder};
pub use environment::{Called, DbSuite, FORMAT, NO_CALL, Place, Prompt, Talk, Turn, carry_out};
pub use server::{Make, Server, ServerError};
