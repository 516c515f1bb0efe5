//! OfficeBench: a desktop of apps over real files, driven by one JSON action a turn.
//!
//! Rules: the variant that the paper's experts were tuned on, microsoft/Simia-Agent-Training@ea77d9d:`OfficeBench/`.
//! Tools run natively on xlsx, docx, ics and eml files. Upstream's way from an action to a tool, a command line through
//! two shells and python-fire, is worked out on strings: no command line is ever run. Files are reached through a
//! directory handle that nothing leads out of.

mod apps;
mod archive;
mod arithmetic;
mod benchmark;
mod builtins;
mod calculator;
mod calendar;
mod command_line;
mod comparator;
mod convert;
mod desk;
mod environment;
mod evaluation;
mod excel;
mod files;
mod fire;
mod flaws;
mod mail;
mod math;
mod message;
mod mode;
mod official;
mod original;
pub mod recorded;
mod replay;
mod sheet;
mod shell_word;
mod tools;
mod word;
mod workbook;
mod xml;

pub use benchmark::OfficeBench;
pub use convert::Program;
pub use environment::{OfficeSuite, Prompt, SANE};
pub use mode::Mode;
pub use official::{Apps, Official, OfficialError};
pub use replay::recorded_verdict;
