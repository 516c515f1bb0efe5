//! One model on one suite.

use crate::ask::ask;
use crate::chat::{Rendering, read_template, takes};
use crate::compute::Compute;
use crate::endpoints::{Endpoints, is_endpoint};
use crate::engine::EngineKind;
use crate::error::RunError;
use crate::generation::differs;
use crate::host::Players;
use crate::machine::{Machine, Member};
use crate::progress::Progress;
use crate::stages::calibrate::solutions;
use crate::stages::evaluate::{
    ORACLE, Open, Player, Seated, identity, inputs, opener, origin, played, served_identity,
};
use rolegraft_decoder::{DeviceName, Precision};
use rolegraft_suites::{Library, Setup, Speaker, Split, TaskSet};
use rolegraft_trajectory::{ChatArguments, EpisodeKey, Episodes, LogError, Vocabulary};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What to play.
#[derive(Clone)]
pub struct Solo<'a> {
    /// A checkpoint directory or an endpoint.
    pub model: &'a str,
    /// The suite.
    pub suite: &'a str,
    /// Where suites come from and how they are played.
    pub setup: Setup<'a>,
    /// The person who plays the user, where one may.
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
    /// Engines side by side; 0: one a core.
    pub engines: usize,
    /// Where checkpoints are played.
    pub device: DeviceName,
    /// How a checkpoint's conversations are rendered.
    pub chat: &'a ChatArguments,
    /// How servers are asked.
    pub endpoints: &'a Endpoints,
}

/// Plays what the log at `log` does not hold yet.
///
/// # Errors
/// If the suite, the model or the log cannot be used.
pub fn evaluate(
    solo: &Solo<'_>,
    log: &Path,
    stop: &Arc<AtomicBool>,
    progress: &dyn Progress,
) -> Result<Vec<EpisodeKey>, RunError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(RunError::Runtime)?;
    let machine = solo.machine(&runtime, stop, progress);
    let (library, tasks) = solo.open(&machine)?;
    progress.stage(&format!("{} on {}", solo.model, solo.suite));
    // A person speaks with one agent at a time.
    let at_once = library.person.then_some(1);
    // A server is known by what it says of itself; a checkpoint by its bytes, and how it is spoken to.
    if is_endpoint(solo.model) {
        progress.stage(&format!("asking {}", solo.model));
        // Thousands of open requests are many small pieces of memory, of which huge pages make large ones.
        let _ = rustix::thread::disable_transparent_huge_pages(true);
        let probed = ask(&machine, solo.model, &*library.suite)?;
        let identity = served_identity(&probed.served);
        let player = Player { name: &probed.name, identity: &identity, at_once };
        let seated = Seated { model: probed.model, served: Some(probed.served) };
        let played = play(solo, &machine, (&library, tasks), &player, log, &mut || Ok(seated.clone()));
        return played.map_err(|error| by_another(error, &identity));
    }
    let (_, member) = Member::named_by_path("model", Path::new(solo.model))?;
    let template = read_template(&member.dir)?;
    takes(&template, solo.chat, &*library.suite)?;
    // A tokenizer that cannot be used is said before there is a log.
    Vocabulary::read(&member.dir)?;
    if let Some(note) = differs(solo.model, &member.dir, std::iter::once(&*library.suite)) {
        progress.note(&note);
    }
    if let Some(note) = Rendering::of(&template, solo.chat)?.note(solo.model) {
        progress.note(&note);
    }
    let identity = identity(&machine, &member)?;
    let player = Player { name: &member.name, identity: &identity, at_once };
    play(solo, &machine, (&library, tasks), &player, log, &mut opener(&machine, &member))
}

/// Says of a log that belongs to something else which server played it, where it was another.
fn by_another(error: RunError, now: &str) -> RunError {
    let RunError::Log(LogError::OtherInputs { path, .. }) = &error else { return error };
    let before = Episodes::open(path).ok().and_then(|log| log.origin().served.as_ref().map(served_identity));
    match before {
        Some(before) if before != now => RunError::OtherServer { path: path.clone(), before, now: now.to_owned() },
        _ => error,
    }
}

/// Plays the calibration tasks' own solutions in the real environments. [`Solo::model`] is not asked.
///
/// # Errors
/// If the suite or the log cannot be used, or a task comes without a solution.
pub fn play_solutions(
    solo: &Solo<'_>,
    log: &Path,
    stop: &Arc<AtomicBool>,
    progress: &dyn Progress,
) -> Result<Vec<EpisodeKey>, RunError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(RunError::Runtime)?;
    let machine = solo.machine(&runtime, stop, progress);
    let (library, tasks) = solo.open(&machine)?;
    progress.stage(&format!("the tasks' own solutions on {}", solo.suite));
    let model = solutions(solo.suite, &tasks).ok_or_else(|| RunError::NoSolutions(solo.suite.to_owned()))?;
    let seated = Seated { model: Arc::new(model), served: None };
    play(solo, &machine, (&library, tasks), &ORACLE, log, &mut || Ok(seated.clone()))
}

fn play(
    solo: &Solo<'_>,
    machine: &Machine<'_>,
    (library, tasks): (&Library, TaskSet),
    player: &Player<'_>,
    log: &Path,
    open: &mut Open<'_>,
) -> Result<Vec<EpisodeKey>, RunError> {
    let origin = origin(&inputs(player, library, &tasks, solo.seed), library);
    played(machine, library, tasks, solo.trials, player, (log, origin), open)
}

impl Solo<'_> {
    fn machine<'m>(
        &'m self,
        runtime: &'m tokio::runtime::Runtime,
        stop: &Arc<AtomicBool>,
        progress: &'m dyn Progress,
    ) -> Machine<'m> {
        let (engine, engines, chat, endpoints) = (self.engine, self.engines, self.chat, self.endpoints);
        let servers = None;
        let compute = Compute { device: self.device, ..Compute::default() };
        Machine {
            runtime,
            stop: stop.clone(),
            progress,
            engine,
            engines,
            compute,
            precision: Precision::F32,
            chat,
            servers,
            endpoints,
            seed: self.seed,
        }
    }

    fn open(&self, machine: &Machine<'_>) -> Result<(Library, TaskSet), RunError> {
        if self.setup.data.is_some() {
            self.setup.registry.has_official(self.suite)?;
        }
        let (engine, chat, progress, person) = (self.engine, self.chat, machine.progress, self.person.clone());
        let (runtime, endpoint) = (machine.runtime.handle(), &self.endpoints.user);
        let device = self.device;
        let host = Players { runtime, engine, device, chat, endpoint, progress, person };
        let library = self.setup.open(self.suite, &host)?;
        if let Some(lacks) = &library.lacks {
            return Err(RunError::Lacking { benchmark: self.suite.to_owned(), lacks: lacks.clone() });
        }
        library.notes.iter().for_each(|note| progress.note(note));
        let tasks = library.tasks(self.split, self.tasks)?;
        for task in &library.not_run {
            machine.progress.note(&format!("not run: {} lacks {}", task.task, task.lacks));
        }
        Ok((library, tasks))
    }
}
