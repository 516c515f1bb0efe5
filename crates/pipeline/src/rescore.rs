//! Recorded episodes, scored again without a model.

use crate::run::RunError;
use crate::suites::SuiteLibrary;
use rolegraft_evaluate::{Evaluation, play};
use rolegraft_model::{ChatModel, Scripted};
use rolegraft_suite::Split;
use rolegraft_trajectory::{Episode, EpisodeKey, EpisodeLog, Seed};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// An episode whose recorded and recomputed results differ, or agree.
#[derive(Debug, Clone, PartialEq)]
pub struct Rescored {
    /// Which.
    pub key: EpisodeKey,
    /// The reward in the log.
    pub recorded: f64,
    /// The reward now.
    pub now: f64,
    /// Whether status and every turn's reading agree too.
    pub same: bool,
}

/// Plays the replies of a log again, without a model, and compares.
///
/// # Errors
/// If the log cannot be read, or a task is no longer there.
pub fn rescore(suites: &Path, log: &Path) -> Result<Vec<Rescored>, RunError> {
    let (_, recorded) = EpisodeLog::read(log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(RunError::Runtime)?;
    let mut names: Vec<String> = recorded.iter().map(|e| e.key.suite.clone()).collect();
    names.sort();
    names.dedup();
    let mut results = Vec::new();
    for name in names {
        let library = SuiteLibrary::open(suites, &name)?;
        let episodes: Vec<Episode> = recorded.iter().filter(|e| e.key.suite == name).cloned().collect();
        let mut tasks = Vec::new();
        for split in [Split::Calibration, Split::Dev, Split::Test] {
            let all = library.tasks(split, None)?.tasks;
            tasks.extend(all.into_iter().filter(|t| episodes.iter().any(|e| e.key.task == t.id)));
        }
        let model: Arc<dyn ChatModel> = Arc::new(Scripted::replay(&episodes));
        let scratch = tempfile::tempdir().map_err(RunError::Runtime)?;
        let path = scratch.path().join("log.jsonl");
        let mut again = EpisodeLog::open(&path, "")?;
        let evaluation = Evaluation { suite: library.suite, tasks, trials: 1, seed: Seed(0) };
        let stop = Arc::new(AtomicBool::new(false));
        runtime
            .block_on(play(&evaluation, model, &mut again, &stop, &mut |_, _| {}))
            .map_err(|source| RunError::Evaluation { suite: name.clone(), model: "recorded".into(), source })?;
        let (_, again) = EpisodeLog::read(&path)?;
        for episode in episodes {
            if let Some(now) = again.iter().find(|e| e.key == episode.key) {
                let readings = |e: &Episode| {
                    e.turns.iter().map(|t| (t.spans.clone(), t.violations.clone(), t.succeeded)).collect::<Vec<_>>()
                };
                let same = now.status == episode.status && readings(now) == readings(&episode);
                results.push(Rescored { key: episode.key, recorded: episode.reward, now: now.reward, same });
            }
        }
    }
    Ok(results)
}
