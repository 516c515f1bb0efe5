//! τ-bench: an airline's and a shop's databases behind tools, a user with a request, and a reward that compares
//! databases.
//!
//! Rules: sierra-research/tau-bench@59a200c:`tau_bench/envs`. Tools check in upstream's order and speak its words;
//! whatever Python would raise becomes an `Error: …` observation with Python's own message. An episode's database is an
//! overlay on a shared base, so starting one copies nothing.

mod airline;
mod calculate;
pub mod database;
mod domain;
mod environment;
mod goal;
mod official;
mod python;
mod retail;

pub use domain::Domain;
pub use environment::{TauSuite, User};
pub use goal::{Call, Goal, Judgement};
pub use official::{Official, OfficialError};
