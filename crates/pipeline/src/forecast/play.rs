//! How much is played of a suite.

use super::inputs::Inputs;
use crate::experiment::Experiment;
use crate::stages::calibrate::solutions;
use rolegraft_checkpoint::Architecture;
use rolegraft_suites::{Library, Split, Task};
use rolegraft_trajectory::text_ids;
use std::path::Path;

/// Bytes that a log holds for each token: episodes of the nano pool have 2.0 kB for about 330.
pub(super) const LOGGED: u64 = 6;
/// Tokens that a model reads for each that it writes.
const READ: u64 = 3;
/// Solutions whose tokens are counted.
const COUNTED: usize = 32;

/// What is played of one suite.
pub(super) struct Load {
    pub(super) suite: String,
    /// Whether an expert serves it.
    pub(super) served: bool,
    /// Whether its calibration tasks come with solutions.
    pub(super) solved: bool,
    /// Tokens that are read in an episode besides those that are written.
    pub(super) read: u64,
    /// Tokens that the model writes in an episode.
    pub(super) written: u64,
    episodes: [u64; 3],
}

impl Load {
    /// Of every suite that could be opened. An episode has so many tokens, or as many as its solutions make likely; no more
    /// than half of what the model takes.
    pub(super) fn of_suites(
        experiment: &Experiment,
        inputs: &Inputs,
        shape: Option<&Architecture>,
        episode_tokens: usize,
    ) -> Vec<Self> {
        let most = shape.map_or(u64::MAX, |shape| shape.max_position_embeddings as u64 / 2);
        let one = |suite: String| {
            let library = inputs.suites.get(&suite);
            let served = experiment.benchmark.iter().any(|b| b.expert.is_some() && b.suites.contains(&suite));
            let calibration = experiment.tasks.of(&suite, Split::Calibration);
            let tasks = library.and_then(|l| l.tasks(calibration.split, Some(calibration.tasks)).ok());
            let solved = tasks.as_ref().is_some_and(|tasks| solutions(&suite, tasks).is_some());
            let episodes = [Split::Calibration, Split::Dev, Split::Test].map(|split| {
                let share = experiment.tasks.of(&suite, split);
                let trials = if split == Split::Calibration && solved { 1 } else { share.trials };
                share.tasks as u64 * u64::from(trials)
            });
            let written = library.and_then(|library| solution_tokens(library, inputs.base_dir()));
            let whole = written
                .map_or(episode_tokens as u64, |written| (1 + READ) * written)
                .clamp(1 + READ, most.max(1 + READ));
            let written = whole / (1 + READ);
            Self { suite, served, solved, read: whole - written, written, episodes }
        };
        experiment.suite_names().into_iter().map(one).collect()
    }

    /// Episodes of one model.
    pub(super) fn episodes(&self, side: Split) -> u64 {
        match side {
            Split::Calibration => self.episodes[0],
            Split::Dev => self.episodes[1],
            Split::Test => self.episodes[2],
        }
    }
}

/// Tokens of a task's solution, on average, where a suite has any.
fn solution_tokens(library: &Library, tokenizer: &Path) -> Option<u64> {
    let tasks = library.every_task();
    let solutions: Vec<Vec<String>> = tasks.values().filter_map(Task::oracle).take(COUNTED).collect();
    let texts: Vec<&str> = solutions.iter().flatten().map(String::as_str).collect();
    let tokens: usize = match text_ids(tokenizer, &texts) {
        Ok(ids) => ids.iter().map(Vec::len).sum(),
        Err(_) => texts.iter().map(|text| text.len() / 4).sum(),
    };
    (!solutions.is_empty()).then(|| (tokens / solutions.len()).max(1) as u64)
}
