//! One model on one suite.

use crate::agentbench::AgentBenchOptions;
use crate::chat::{Rendering, takes};
use crate::engine::{EngineKind, open_model};
use crate::progress::Progress;
use crate::run::RunError;
use crate::suites::{OfficeOptions, SuiteLibrary, SuiteOptions, SuitesError, TauOptions};
use rolegraft_checkpoint::{Checkpoint, Digest};
use rolegraft_evaluate::{Evaluation, play};
use rolegraft_suite::Speaker;
use rolegraft_suite::Split;
use rolegraft_trajectory::{ChatArguments, Episode, EpisodeLog, Seed};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What to play.
#[derive(Clone)]
pub struct Solo<'a> {
    /// A checkpoint directory or an endpoint.
    pub model: &'a str,
    /// Folder of the suites' folders.
    pub suites: &'a Path,
    /// The suite.
    pub suite: &'a str,
    /// Official data instead of the built-in tasks.
    pub data: Option<&'a Path>,
    /// How τ-bench is played.
    pub tau: &'a TauOptions,
    /// How OfficeBench is played.
    pub office: OfficeOptions,
    /// How AgentBench is played.
    pub agentbench: &'a AgentBenchOptions,
    /// The person who plays the user, if one does.
    pub person: Option<Arc<dyn Speaker>>,
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
    /// How a checkpoint's conversations are rendered.
    pub chat: &'a ChatArguments,
}

/// Plays what the log at `log` does not hold yet, and gives the whole log's episodes.
///
/// # Errors
/// If the suite, the model or the log cannot be used.
pub fn evaluate(
    solo: &Solo<'_>,
    log: &Path,
    stop: &Arc<AtomicBool>,
    progress: &dyn Progress,
) -> Result<Vec<Episode>, RunError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(RunError::Runtime)?;
    if solo.data.is_some() && !SuiteLibrary::has_official(solo.suite) {
        return Err(SuitesError::NoOfficial(solo.suite.to_owned()).into());
    }
    let options = SuiteOptions {
        root: solo.suites,
        data: solo.data,
        tau: solo.tau,
        office: solo.office,
        agentbench: solo.agentbench,
        person: solo.person.clone(),
        runtime: runtime.handle(),
        engine: solo.engine,
        chat: solo.chat,
        progress: Some(progress),
    };
    let library = SuiteLibrary::open(&options, solo.suite)?;
    let tasks = library.tasks(solo.split, solo.tasks)?;
    for task in library.not_run() {
        progress.note(&format!("not run: {} lacks {}", task.task, task.lacks));
    }
    let suite = library.suite;
    progress.stage(&format!("{} on {}", solo.model, solo.suite));
    // An endpoint is known by its address alone; a checkpoint by its bytes, and how it is spoken to.
    let identity = match Checkpoint::open(solo.model) {
        Ok(checkpoint) => {
            takes(checkpoint.dir(), solo.chat, &*suite)?;
            let rendering = Rendering::of(checkpoint.dir(), solo.chat)?;
            if let Some(note) = rendering.note(solo.model) {
                progress.note(&note);
            }
            let rendering = serde_json::to_string(&rendering).unwrap_or_default();
            format!("{} under {:?}, {rendering}", checkpoint.digest()?, solo.engine)
        }
        Err(_) => solo.model.to_owned(),
    };
    let model = runtime.block_on(open_model(solo.model, solo.engine, solo.engines, solo.chat))?;
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
    let at_once = solo.person.is_some().then_some(1);
    let evaluation = Evaluation { suite, tasks: tasks.tasks, trials: solo.trials, at_once, seed: Seed(solo.seed) };
    runtime
        .block_on(play(&evaluation, model, &mut log_file, stop, &mut |done, of| progress.update(done, of, solo.suite)))
        .map_err(|source| RunError::Evaluation { suite: solo.suite.into(), model: solo.model.into(), source })?;
    Ok(EpisodeLog::read(log)?.1)
}
