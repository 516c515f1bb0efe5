//! Episodes of a model on a suite's tasks, in a log.

use crate::chat::Rendering;
use crate::engine::{EngineKind, Opened, open_checkpoint};
use crate::error::RunError;
use crate::machine::{Machine, Member};
use rolegraft_checkpoint::Digest;
use rolegraft_evaluate::{Evaluation, play};
use rolegraft_model::ChatModel;
use rolegraft_suites::{Library, TaskSet};
use rolegraft_trajectory::{Episode, EpisodeKey, EpisodeLog, Origin, Seed, Served};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A model that is ready to play, and how its replies come from a server, if they do.
#[derive(Clone)]
pub(crate) struct Seated {
    pub(crate) model: Arc<dyn ChatModel>,
    pub(crate) served: Option<Served>,
}

/// A model, opened when it is first needed.
pub(crate) type Open<'o> = dyn FnMut() -> Result<Seated, RunError> + 'o;

/// Who plays: a name for people, and what the log's digest says of it.
pub(crate) struct Player<'p> {
    pub(crate) name: &'p str,
    pub(crate) identity: &'p str,
    /// Episodes at once, where that is fewer than the model bears.
    pub(crate) at_once: Option<usize>,
}

/// Who plays the tasks' own solutions.
pub(crate) const ORACLE: Player<'static> = Player { name: "oracle", identity: "oracle", at_once: None };

/// Everything that episodes depend on.
pub(crate) fn inputs(player: &Player<'_>, library: &Library, tasks: &TaskSet, seed: u64) -> Value {
    let [id, version, settings, limits, format] = rules(library);
    serde_json::json!([player.identity, id, version, settings, limits, format, tasks.digest, seed])
}

/// What of these is the suite's, whoever plays what.
fn rules(library: &Library) -> [Value; 5] {
    let suite = &library.suite;
    let said = |value: serde_json::Result<Value>| value.unwrap_or_default();
    [
        suite.id().into(),
        suite.version().into(),
        suite.settings(),
        said(serde_json::to_value(suite.limits())),
        said(serde_json::to_value(suite.format().source())),
    ]
}

/// What the log of episodes of these inputs says that it belongs to.
pub(crate) fn origin(inputs: &Value, library: &Library) -> Origin {
    let digest = |said: Value| Digest::of(&serde_json::to_vec(&said).unwrap_or_default()).to_string();
    let rules = BTreeMap::from([(library.suite.id().to_owned(), digest(rules(library).to_vec().into()))]);
    Origin { digest: digest(inputs.clone()), rules, served: None }
}

/// Every episode of tasks.
fn keys(suite: &str, tasks: &TaskSet, trials: u32) -> Vec<EpisodeKey> {
    let key = |task: &str, trial| EpisodeKey { suite: suite.to_owned(), task: task.to_owned(), trial };
    tasks.tasks.iter().flat_map(|task| (0..trials).map(move |trial| key(&task.id, trial))).collect()
}

/// How many episodes of tasks the log at `path` does not hold.
pub(crate) fn lacking(suite: &str, tasks: &TaskSet, trials: u32, path: &Path) -> usize {
    let held = EpisodeLog::keys(path).unwrap_or_default();
    keys(suite, tasks, trials).iter().filter(|key| !held.contains(key)).count()
}

/// Plays what the log at `path` does not hold yet, and gives the keys of all tasks' episodes. `open` is called only if
/// something is left to play.
///
/// # Errors
/// If the log belongs to other inputs, or the model or the suite fails.
pub(crate) fn played(
    machine: &Machine<'_>,
    library: &Library,
    tasks: TaskSet,
    trials: u32,
    player: &Player<'_>,
    (path, origin): (&Path, Origin),
    open: &mut Open<'_>,
) -> Result<Vec<EpisodeKey>, RunError> {
    let suite = library.suite.clone();
    let mut log = EpisodeLog::open(path, origin)?;
    if log.was_torn() {
        machine.progress.note(&format!(
            "`{}` ended in a torn line, which was dropped; its episode is played again",
            path.display()
        ));
    }
    let wanted = keys(suite.id(), &tasks, trials);
    let label = format!("{} · {}", player.name, suite.id());
    if wanted.iter().any(|k| !log.done().contains(k)) {
        let Seated { model, served } = open()?;
        if let Some(served) = &served {
            log.set_served(served)?;
        }
        let (id, seed) = (suite.id().to_owned(), Seed(machine.seed));
        let tasks = tasks.tasks.into_iter().map(Arc::new).collect();
        let evaluation = Evaluation { suite, tasks, trials, at_once: player.at_once, seed };
        let mut report = |done: usize, of: usize| machine.progress.update(done, of, &label);
        let outcome = machine
            .runtime
            .block_on(play(&evaluation, model, &mut log, &machine.stop, &mut report))
            .map_err(|source| RunError::Evaluation { suite: id, model: player.name.to_owned(), source });
        if let Some(servers) = machine.servers {
            servers.notes(machine.progress);
        }
        outcome?;
    } else {
        machine.progress.update(wanted.len(), wanted.len(), &label);
    }
    Ok(wanted)
}

/// The episodes of these keys, in their order.
///
/// # Errors
/// If the log cannot be read.
pub(crate) fn episodes(path: &Path, wanted: &[EpisodeKey]) -> Result<Vec<Episode>, RunError> {
    let (_, all) = EpisodeLog::read(path)?;
    let mut by_key: BTreeMap<EpisodeKey, Episode> = all.into_iter().map(|e| (e.key.clone(), e)).collect();
    Ok(wanted.iter().filter_map(|k| by_key.remove(k)).collect())
}

/// Who a checkpoint is, how it is played, and how it is spoken to.
pub(crate) fn identity(machine: &Machine<'_>, member: &Member) -> Result<String, RunError> {
    let rendering = serde_json::to_string(&Rendering::of_checkpoint(&member.dir, machine.chat)?).unwrap_or_default();
    let engine = match machine.servers {
        Some(servers) if machine.engine == EngineKind::Server => servers.name(&machine.endpoints.agent),
        // What a card rounds otherwise, plays otherwise.
        _ if machine.on_card()? => format!("{:?} on a card", machine.engine),
        _ => format!("{:?}", machine.engine),
    };
    Ok(format!("{} under {engine}, {rendering}", member.digest))
}

/// Who a server is, and how it is asked. Not where: a model that moves is the same.
pub(crate) fn served_identity(served: &Served) -> String {
    serde_json::json!([served.identity, served.road, served.fields]).to_string()
}

/// Opens a checkpoint once, however often it is asked for.
pub(crate) fn opener<'o>(
    machine: &'o Machine<'_>,
    member: &'o Member,
) -> impl FnMut() -> Result<Seated, RunError> + 'o {
    let mut opened: Option<Seated> = None;
    move || {
        if let Some(seated) = &opened {
            return Ok(seated.clone());
        }
        if let (EngineKind::Server, Some(servers)) = (machine.engine, machine.servers) {
            let checkpoint = (member.dir.as_path(), member.digest.to_string(), member.name.clone());
            let rules = (machine.chat, &machine.endpoints.agent);
            let probed = servers.give(checkpoint, rules, (machine.runtime, machine.progress))?;
            return Ok(opened.insert(Seated { model: probed.model, served: Some(probed.served) }).clone());
        }
        let copies = machine.copies();
        let loading = open_checkpoint(&member.dir, machine.engine, copies, machine.chat, machine.compute.device);
        let Opened { model, notes } = machine.runtime.block_on(loading)?;
        notes.iter().for_each(|note| machine.progress.note(&format!("{}: {note}", member.name)));
        Ok(opened.insert(Seated { model, served: None }).clone())
    }
}
