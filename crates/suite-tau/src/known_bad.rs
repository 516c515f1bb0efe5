//! Official tasks whose expected outcome is known to be wrong, from `known_bad.toml`.

use crate::Domain;
use serde::Deserialize;
use std::sync::OnceLock;

/// A task that no agent that does as it is told can solve, or that one that does not can.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownBad {
    /// Airline or retail.
    pub domain: Domain,
    /// Upstream's split.
    pub split: String,
    /// The task's place in it, from 0.
    pub index: usize,
    /// What is wrong.
    pub reason: String,
    /// Where it was reported.
    pub thread: String,
}

#[derive(Deserialize)]
struct File {
    task: Vec<KnownBad>,
}

/// The tasks of a domain.
#[must_use]
pub fn known_bad(domain: Domain) -> Vec<&'static KnownBad> {
    static TASKS: OnceLock<Vec<KnownBad>> = OnceLock::new();
    let read = || toml::from_str::<File>(include_str!("known_bad.toml")).map_or_else(|_| Vec::new(), |file| file.task);
    TASKS.get_or_init(read).iter().filter(|task| task.domain == domain).collect()
}
