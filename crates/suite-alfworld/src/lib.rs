//! ALFWorld's text games, and AgentBench's task on them.
//!
//! A game file holds a PDDL problem and a grammar; [`Game`] reads both, [`Session`] plays, without TextWorld or a planner
//! (alfworld/alfworld@ca98194, microsoft/TextWorld@ebae03b). [`AlfWorldSuite`] is AgentBench's loop around it.

mod benchmark;
mod bleu;
mod environment;
mod expression;
mod game;
mod grammar;
mod official;
mod problem;
mod replay;
mod solver;
mod state;

pub use benchmark::AlfWorld;
pub use bleu::bleu;
pub use environment::{AlfWorldSuite, FORMAT, Prompts, Setup, UNKNOWN_GOAL, chosen, cut};
pub use game::{Game, GameError, NOTHING, Profile, Session};
pub use official::{Official, OfficialError};
