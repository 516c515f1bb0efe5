//! OfficeBench: a desktop of apps over real files, driven by one JSON action a turn.
//!
//! Rules: the variant that the paper's experts were tuned on, microsoft/Simia-Agent-Training@ea77d9d:`OfficeBench/`.
//! Tools run natively on xlsx, docx, ics and eml files; no command line is ever built from what a model says. Files are
//! reached through a directory handle that nothing leads out of. Arguments reach the tools as JSON values.

mod calendar;
mod environment;
mod evaluation;
mod excel;
mod files;
mod guard;
mod mail;
mod word;

pub use environment::{OfficeSuite, Prompt};
