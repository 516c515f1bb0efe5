//! τ-bench: an airline's and a shop's databases behind tools, a user with a request, and a reward that compares
//! databases.
//!
//! Rules: sierra-research/tau-bench@59a200c:`tau_bench/envs`. Tools check in upstream's order and speak its words;
//! whatever Python would raise becomes an `Error: …` observation with Python's own message. An episode's database is an
//! overlay on a shared base, so starting one copies nothing.

mod airline;
mod arithmetic;
mod benchmark;
mod calculate;
mod call;
pub mod database;
mod domain;
mod environment;
mod goal;
mod known_bad;
mod official;
mod prompts;
mod python;
mod replay;
mod retail;
mod scripted;
mod user;
mod users;

pub use benchmark::Tau;
pub use call::Call;
pub use domain::Domain;
pub use environment::{TauSetup, TauSuite};
pub use goal::{Goal, Judgement};
pub use known_bad::{KnownBad, known_bad};
pub use official::{Official, OfficialError};
pub use prompts::Protocol;
pub use user::STOP;
pub use users::{Strategy, Users};
