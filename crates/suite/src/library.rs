//! A suite with its tasks.

use crate::open_error::OpenError;
use crate::suite_file::SuiteFile;
use crate::{Split, Suite, Task, TaskSet};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// A suite with its tasks.
pub struct Library {
    /// The rules.
    pub suite: Arc<dyn Suite>,
    /// Tasks of all splits that cannot be played here.
    pub not_run: Vec<NotRun>,
    /// What this machine lacks for any of its tasks.
    pub lacks: Option<String>,
    /// What a person should know of how it is played here.
    pub notes: Vec<String>,
    /// Whether a person takes part: one episode at a time.
    pub person: bool,
    source: Source,
}

/// A task that cannot be played here, and is therefore neither played nor counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotRun {
    /// Which.
    pub task: String,
    /// What it lacks: a program, and the packages that bring it.
    pub lacks: String,
}

enum Source {
    /// Files by split.
    Files(BTreeMap<String, PathBuf>),
    /// Tasks at hand, by split.
    Sets(BTreeMap<&'static str, TaskSet>),
}

impl Library {
    /// A built-in suite with its files of tasks.
    pub fn built_in(suite: impl Suite + 'static, file: &SuiteFile, tasks: BTreeMap<String, PathBuf>) -> Self {
        let files = tasks.into_iter().map(|(split, path)| (split, file.dir.join(path))).collect();
        Self::new(suite, Source::Files(files))
    }
    /// A suite with its tasks by split.
    pub fn with_tasks(suite: impl Suite + 'static, sets: BTreeMap<&'static str, TaskSet>) -> Self {
        Self::new(suite, Source::Sets(sets))
    }
    /// A suite whose one small set beside the test set both diagnoses and calibrates.
    pub fn with_dev(suite: impl Suite + 'static, mut sets: BTreeMap<&'static str, TaskSet>) -> Self {
        let small = sets.get("dev").cloned();
        sets.extend(small.map(|set| ("calibration", set)));
        Self::with_tasks(suite, sets)
    }
    fn new(suite: impl Suite + 'static, source: Source) -> Self {
        Self { suite: Arc::new(suite), not_run: Vec::new(), lacks: None, notes: Vec::new(), person: false, source }
    }

    /// The first `limit` tasks of a split.
    ///
    /// # Errors
    /// If there are none, or fewer.
    pub fn tasks(&self, split: Split, limit: Option<usize>) -> Result<TaskSet, OpenError> {
        let (suite, name) = (self.suite.id(), split.as_str());
        let none = |hint| OpenError::NoSplit { suite: suite.to_owned(), split: name, hint };
        match &self.source {
            Source::Files(files) => {
                let file = files.get(name).ok_or_else(|| none("; add them to its suite.toml"))?;
                Ok(TaskSet::read(file, limit)?)
            }
            Source::Sets(sets) => {
                let set = sets.get(name).ok_or_else(|| none(" in its official data"))?;
                let wanted = limit.unwrap_or(set.tasks.len());
                if set.tasks.len() < wanted {
                    let found = set.tasks.len();
                    return Err(OpenError::TooFew { suite: suite.to_owned(), split: name, found, wanted });
                }
                Ok(TaskSet { tasks: set.tasks[..wanted].to_vec(), digest: set.digest.clone() })
            }
        }
    }
    /// Every task of every split that is there, by id.
    #[must_use]
    pub fn every_task(&self) -> BTreeMap<String, Task> {
        let splits = [Split::Calibration, Split::Dev, Split::Test];
        let sets = splits.into_iter().filter_map(|split| self.tasks(split, None).ok());
        sets.flat_map(|set| set.tasks).map(|task| (task.id.clone(), task)).collect()
    }
}
