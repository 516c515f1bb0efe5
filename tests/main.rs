//! The `rolegraft` command as people use it, and what holds for all crates together: one program, so that its tests run side
//! by side.
#![allow(missing_docs, clippy::print_stderr)]

mod ablate;
mod chat;
mod contexts;
mod corpora;
mod end_to_end;
mod fitted;
mod help;
mod import_circles;
mod import_edges;
mod logs;
mod lora;
mod merge;
mod miniature;
mod newcomer;
mod oracle;
mod plan;
mod servers;
mod steps;
mod suites;
mod tau;
mod trace;
