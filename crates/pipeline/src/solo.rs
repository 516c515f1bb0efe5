//! One model on one suite.

use crate::engine::{EngineKind, open_model};
use crate::progress::Progress;
use crate::run::RunError;
use crate::suites::SuiteLibrary;
use rolegraft_checkpoint::{Checkpoint, Digest};
use rolegraft_evaluate::{Evaluation, play};
use rolegraft_report::{FailureRates, failure_rates};
use rolegraft_suite::Split;
use rolegraft_trajectory::{EpisodeLog, Seed};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What to play.
#[derive(Debug, Clone)]
pub struct Solo<'a> {
    /// A checkpoint directory or an endpoint.
    pub model: &'a str,
    /// Folder of the suites' folders.
    pub suites: &'a Path,
    /// The suite.
    pub suite: &'a str,
    /// Official data instead of the built-in tasks.
    pub data: Option<&'a Path>,
    /// Which tasks.
    pub split: Split,
    /// The first so many; all if absent.
    pub tasks: Option<usize>,
    /// Episodes a task.
    pub trials: u32,
    /// The run's seed.
    pub seed: u64,
    /// What plays checkpoints.
    pub engine: EngineKind,
    /// Engines side by side.
    pub engines: usize,
}

/// The result of [`evaluate`].
#[derive(Debug, Clone, PartialEq)]
pub struct SoloResult {
    /// Mean reward, 0 to 100.
    pub score: f64,
    /// Failures.
    pub rates: FailureRates,
}

/// Plays what the log at `log` does not hold yet, and scores the whole.
///
/// # Errors
/// If the suite, the model or the log cannot be used.
pub fn evaluate(
    solo: &Solo<'_>,
    log: &Path,
    stop: &Arc<AtomicBool>,
    progress: &dyn Progress,
) -> Result<SoloResult, RunError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(RunError::Runtime)?;
    let library = match solo.data {
        Some(data) => SuiteLibrary::open_official(solo.suite, data)?,
        None => SuiteLibrary::open(solo.suites, solo.suite)?,
    };
    let tasks = library.tasks(solo.split, solo.tasks)?;
    let suite = library.suite;
    progress.stage(&format!("{} on {}", solo.model, solo.suite));
    let model = runtime.block_on(open_model(solo.model, solo.engine, solo.engines))?;
    // An endpoint is known by its address alone; a checkpoint by its bytes.
    let identity = match Checkpoint::open(solo.model) {
        Ok(checkpoint) => format!("{} under {:?}", checkpoint.digest()?, solo.engine),
        Err(_) => solo.model.to_owned(),
    };
    let inputs = (
        identity,
        suite.id(),
        suite.version(),
        suite.settings(),
        suite.limits(),
        suite.format().source(),
        &tasks.digest,
    );
    let digest = Digest::of(&serde_json::to_vec(&(inputs, solo.seed)).unwrap_or_default());
    let mut log_file = EpisodeLog::open(log, digest.as_str())?;
    let evaluation = Evaluation { suite, tasks: tasks.tasks, trials: solo.trials, seed: Seed(solo.seed) };
    runtime
        .block_on(play(&evaluation, model, &mut log_file, stop, &mut |done, of| progress.update(done, of, solo.suite)))
        .map_err(|source| RunError::Evaluation { suite: solo.suite.into(), model: solo.model.into(), source })?;
    let (_, episodes) = EpisodeLog::read(log)?;
    let mean = episodes.iter().map(|e| e.reward).sum::<f64>() / episodes.len().max(1) as f64;
    Ok(SoloResult { score: 100.0 * mean, rates: failure_rates(&episodes) })
}
