//! AgentBench's DB-bench: a question or a change to a table, answered with SQL on a real server.
//!
//! Rules: THUDM/AgentBench@41e6807:`src/server/tasks/dbbench` (text protocol, the default) and @578c5e9 (function calls).

pub mod compare;
