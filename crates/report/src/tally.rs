//! What the tables need of a model's episodes, counted one at a time: a log need not fit into memory.

use crate::cascades::CascadeCounts;
use crate::failures::FailureCounts;
use crate::kinds::KindCounts;
use crate::ways::Ways;
use crate::{Cascades, FailureRates, KindScores, ModelScores};
use rolegraft_trajectory::{Context, Episode, EpisodeKey, Episodes, LogError, Road, Served, Spent};
use std::collections::{BTreeMap, HashSet};
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
    /// Logs that end in a line that is cut, and does not count.
    pub torn: usize,
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
    failures: FailureCounts,
    cascades: CascadeCounts,
    kinds: KindCounts,
    pub(crate) ways: Ways,
}

/// Counts of one task's trials.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct TaskTally {
    /// By trial.
    pub(crate) rewards: BTreeMap<u32, f64>,
    pub(crate) successes: usize,
}

impl TaskTally {
    pub(crate) fn trials(&self) -> usize {
        self.rewards.len()
    }
    pub(crate) fn mean(&self) -> f64 {
        self.rewards.values().sum::<f64>() / self.rewards.len() as f64
    }
}

impl Tally {
    /// The counts of a log's episodes: of all, or of those that are wanted.
    ///
    /// # Errors
    /// If the log cannot be read, or holds an episode twice.
    pub fn of_log(log: &Path, wanted: Option<&HashSet<EpisodeKey>>) -> Result<Self, LogError> {
        let mut tally = Self::default();
        let mut episodes = Episodes::open(log)?;
        tally.served(episodes.origin().served.as_ref());
        while let Some(episode) = episodes.next().transpose()? {
            if wanted.is_none_or(|wanted| wanted.contains(&episode.key)) && !tally.add(&episode) {
                return Err(LogError::twice(log, episodes.line(), &episode.key, None));
            }
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

    /// Counts an episode, unless its trial was counted: whether it was not.
    #[must_use]
    pub fn add(&mut self, episode: &Episode) -> bool {
        let suite = self.suites.entry(episode.key.suite.clone()).or_default();
        let task = suite.tasks.entry(episode.key.task.clone()).or_default();
        if task.rewards.contains_key(&episode.key.trial) {
            return false;
        }
        task.rewards.insert(episode.key.trial, episode.reward);
        task.successes += usize::from((episode.reward - 1.0).abs() <= TOLERANCE);
        suite.failures.add(episode);
        suite.cascades.add(episode);
        suite.kinds.add(episode);
        suite.ways.add(episode);
        self.episodes += 1;
        self.without_contexts += usize::from(episode.turns.iter().any(|t| t.shown == Context::Unknown));
        self.inexact += episode.turns.iter().filter(|t| t.inexact).count();
        self.agent += episode.spent;
        self.others += episode.others_spent;
        true
    }

    /// The suites that were played.
    pub fn suites(&self) -> impl Iterator<Item = &str> {
        self.suites.keys().map(String::as_str)
    }

    pub(crate) fn by_suite(&self) -> &BTreeMap<String, SuiteTally> {
        &self.suites
    }

    /// Rewards by task.
    #[must_use]
    pub fn scores(&self, name: &str) -> ModelScores {
        let rewards = |suite: &SuiteTally| {
            let of = |task: &TaskTally| task.rewards.values().copied().collect();
            suite.tasks.iter().map(|(id, task)| (id.clone(), of(task))).collect()
        };
        ModelScores {
            name: name.into(),
            rewards: self.suites.iter().map(|(suite, tally)| (suite.clone(), rewards(tally))).collect(),
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
