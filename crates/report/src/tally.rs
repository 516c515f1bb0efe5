//! What the tables need of a model's episodes, counted one at a time: a log need not fit into memory.

use crate::cascades::CascadeCounts;
use crate::failures::FailureCounts;
use crate::kinds::KindCounts;
use crate::{Cascades, FailureRates, KindScores, ModelScores};
use rolegraft_trajectory::{Context, Episode, Episodes, LogError, Road, Served, Spent};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// How far a reward may be from 1 and still be a success (upstream's `is_successful`).
const TOLERANCE: f64 = 1e-6;

/// Counts of one model's episodes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tally {
    /// Episodes.
    pub episodes: usize,
    /// Those whose log does not say what the model was shown.
    pub without_contexts: usize,
    /// What the model spent.
    pub agent: Spent,
    /// What others spent: simulated users.
    pub others: Spent,
    /// Turns whose text was put together again, since a server took it apart.
    pub inexact: usize,
    /// How servers were asked, and whether their text is what the model wrote.
    pub(crate) roads: Vec<(Road, Option<bool>)>,
    suites: BTreeMap<String, SuiteTally>,
}

/// Counts of one suite.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct SuiteTally {
    pub(crate) tasks: BTreeMap<String, TaskTally>,
    pub(crate) trials: BTreeSet<u32>,
    failures: FailureCounts,
    cascades: CascadeCounts,
    kinds: KindCounts,
}

/// Counts of one task's trials.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct TaskTally {
    pub(crate) rewards: f64,
    pub(crate) trials: usize,
    pub(crate) successes: usize,
}

impl Tally {
    /// The counts of a log's episodes.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn of_log(log: &Path) -> Result<Self, LogError> {
        let mut tally = Self::default();
        let episodes = Episodes::open(log)?;
        tally.served(episodes.served());
        for episode in episodes {
            tally.add(&episode?);
        }
        Ok(tally)
    }

    /// Takes note of where a log's replies come from.
    pub(crate) fn served(&mut self, served: Option<&Served>) {
        let road = served.map(|served| (served.road, served.exact));
        self.roads.extend(road.filter(|road| !self.roads.contains(road)));
    }

    /// Whether some text is known not to be what the model wrote.
    #[must_use]
    pub fn is_inexact(&self) -> bool {
        self.inexact > 0 || self.roads.iter().any(|(_, exact)| *exact == Some(false))
    }

    /// Counts an episode.
    pub fn add(&mut self, episode: &Episode) {
        self.episodes += 1;
        self.without_contexts += usize::from(episode.turns.iter().any(|t| t.shown == Context::Unknown));
        self.inexact += episode.turns.iter().filter(|t| t.inexact).count();
        self.agent += episode.spent;
        self.others += episode.others_spent;
        if !self.suites.contains_key(&episode.key.suite) {
            self.suites.insert(episode.key.suite.clone(), SuiteTally::default());
        }
        let Some(suite) = self.suites.get_mut(&episode.key.suite) else { return };
        suite.trials.insert(episode.key.trial);
        let task = suite.tasks.entry(episode.key.task.clone()).or_default();
        task.rewards += episode.reward;
        task.trials += 1;
        task.successes += usize::from((episode.reward - 1.0).abs() <= TOLERANCE);
        suite.failures.add(episode);
        suite.cascades.add(episode);
        suite.kinds.add(episode);
    }

    /// The suites that were played.
    pub fn suites(&self) -> impl Iterator<Item = &str> {
        self.suites.keys().map(String::as_str)
    }

    pub(crate) fn by_suite(&self) -> &BTreeMap<String, SuiteTally> {
        &self.suites
    }

    /// Mean rewards by task.
    #[must_use]
    pub fn scores(&self, name: &str) -> ModelScores {
        let means = |suite: &SuiteTally| {
            suite.tasks.iter().map(|(id, task)| (id.clone(), task.rewards / task.trials as f64)).collect()
        };
        ModelScores {
            name: name.into(),
            rewards: self.suites.iter().map(|(suite, tally)| (suite.clone(), means(tally))).collect(),
        }
    }

    /// How a suite's episodes failed; rates of nothing where it was not played.
    #[must_use]
    pub fn failures(&self, suite: &str) -> FailureRates {
        self.suites.get(suite).map(|s| s.failures.rates()).unwrap_or_default()
    }

    /// A suite's cascades, if it is one of τ-bench's.
    #[must_use]
    pub fn cascades(&self, suite: &str) -> Option<Cascades> {
        self.suites.get(suite)?.cascades.shares()
    }

    /// A suite's accuracies by type, if it is DB-bench.
    #[must_use]
    pub fn kinds(&self, suite: &str) -> Option<KindScores> {
        self.suites.get(suite)?.kinds.scores()
    }
}
