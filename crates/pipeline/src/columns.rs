//! Columns of the tables, and how many tasks each has.

use rolegraft_merge::nearest;
use rolegraft_suites::{Library, OpenError, Split};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BenchmarkEntry {
    /// Its id.
    pub id: String,
    /// Its head in tables.
    pub title: String,
    /// The expert that serves it; none for a benchmark out of domain.
    pub expert: Option<String>,
    /// Its suites' folders.
    pub suites: Vec<String>,
}

fn one() -> u32 {
    1
}

/// Tasks of a suite by split, for every suite that has no counts of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskCounts {
    /// Tasks whose trajectories are traced.
    pub calibration: usize,
    /// Trajectories a calibration task; one where the task's own solution is the trajectory.
    #[serde(default = "one")]
    pub trajectories: u32,
    /// Tasks of the diagnosis.
    pub dev: usize,
    /// Tasks of the tables.
    pub test: usize,
    /// What a suite has instead: `[tasks.suite.NAME]`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub suite: BTreeMap<String, SuiteCounts>,
}

/// What a suite has instead of the counts of all. None calibrate, or none diagnose, where the count is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SuiteCounts {
    /// Tasks whose trajectories are traced.
    pub calibration: Option<usize>,
    /// Trajectories a calibration task.
    pub trajectories: Option<u32>,
    /// Tasks of the diagnosis.
    pub dev: Option<usize>,
    /// The split that these are taken from, where the data has no dev tasks.
    pub dev_from: Option<Split>,
    /// Tasks of the tables.
    pub test: Option<usize>,
}

/// Tasks that are played of a suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Where they are taken from.
    pub split: Split,
    /// How many: the first ones.
    pub tasks: usize,
    /// Episodes of each.
    pub trials: u32,
}

impl TaskCounts {
    /// What is played of a suite for a split.
    #[must_use]
    pub fn of(&self, suite: &str, split: Split) -> Share {
        let own = self.suite.get(suite).copied().unwrap_or_default();
        match split {
            Split::Calibration => {
                let trials = own.trajectories.unwrap_or(self.trajectories);
                Share { split, tasks: own.calibration.unwrap_or(self.calibration), trials }
            }
            Split::Dev => {
                let split = own.dev_from.unwrap_or(split);
                Share { split, tasks: own.dev.unwrap_or(self.dev), trials: 1 }
            }
            Split::Test => Share { split, tasks: own.test.unwrap_or(self.test), trials: 1 },
        }
    }

    /// The same with no more than `most` test tasks of a suite.
    #[must_use]
    pub fn with_at_most(mut self, most: usize) -> Self {
        self.test = self.test.min(most);
        self.suite.values_mut().flat_map(|own| &mut own.test).for_each(|test| *test = most.min(*test));
        self
    }

    /// Why a suite of a benchmark does not have the tasks that are asked of it, split by split.
    pub(crate) fn lacking<'l>(
        &'l self,
        benchmark: &BenchmarkEntry,
        suite: &'l str,
        library: &'l Library,
    ) -> impl Iterator<Item = OpenError> + use<'l> {
        let splits = [Split::Test, Split::Calibration, Split::Dev];
        let asked = splits.into_iter().take(if benchmark.expert.is_some() { splits.len() } else { 1 });
        let shares = asked.map(|split| self.of(suite, split)).filter(|share| share.tasks > 0);
        shares.filter_map(|share| library.tasks(share.split, Some(share.tasks)).err())
    }

    /// Whether every column has the tasks that it hangs on.
    pub(crate) fn check(&self, benchmarks: &[BenchmarkEntry]) -> Result<(), String> {
        let known: Vec<&str> = benchmarks.iter().flat_map(|b| &b.suites).map(String::as_str).collect();
        if let Some(name) = self.suite.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(format!("[tasks.suite.{name}]: no benchmark has that suite{}", nearest(name, &known)));
        }
        for (name, own) in &self.suite {
            if own.dev_from == Some(Split::Test) {
                return Err(format!("[tasks.suite.{name}]: a diagnosis on test tasks would be tuning on them"));
            }
        }
        for benchmark in benchmarks {
            let count = |suite: &String, split| self.of(suite, split).tasks;
            if let Some(suite) = benchmark.suites.iter().find(|suite| count(suite, Split::Test) == 0) {
                return Err(format!("`{suite}` of benchmark `{}` must have at least 1 test task", benchmark.id));
            }
            for split in [Split::Calibration, Split::Dev] {
                if benchmark.expert.is_some() && benchmark.suites.iter().all(|suite| count(suite, split) == 0) {
                    let (id, split) = (&benchmark.id, split.as_str());
                    return Err(format!("benchmark `{id}` must have at least 1 {split} task in one of its suites"));
                }
            }
        }
        if self.trajectories == 0 || self.suite.values().any(|own| own.trajectories == Some(0)) {
            return Err("tasks.trajectories must be at least 1".into());
        }
        Ok(())
    }
}
