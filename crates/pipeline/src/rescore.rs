//! Recorded episodes, scored again without a model.

use crate::error::RunError;
use rolegraft_suites::{Alone, Library, Setup, Task};
use rolegraft_trajectory::{Context, Episode, EpisodeKey, EpisodeLog, Role, Status, Turn};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

/// An episode whose recorded and recomputed results differ, or agree.
#[derive(Debug, Clone, PartialEq)]
pub struct Rescored {
    /// Which.
    pub key: EpisodeKey,
    /// The reward in the log.
    pub recorded: f64,
    /// The reward now.
    pub now: f64,
    /// Whether status, every turn's reading, and what the model was shown agree too.
    pub same: bool,
    /// Whether the log does not say what the model was shown.
    pub unknown: bool,
    /// Whether the conversation was cut before the model saw it, by today's rules.
    pub cut: bool,
}

/// Gives the replies of a log to the environments again, without a model, and compares. Users say what they said.
///
/// # Errors
/// If the log cannot be read, or a task is no longer there.
pub fn rescore(setup: &Setup<'_>, log: &Path) -> Result<Vec<Rescored>, RunError> {
    let (_, recorded) = EpisodeLog::read(log)?;
    let mut libraries: BTreeMap<String, (Library, BTreeMap<String, Task>)> = BTreeMap::new();
    let mut results = Vec::new();
    for episode in recorded {
        let EpisodeKey { suite, task, .. } = &episode.key;
        if !libraries.contains_key(suite) {
            let library = setup.open(suite, &Alone)?;
            let tasks = library.every_task();
            libraries.insert(suite.clone(), (library, tasks));
        }
        let (library, tasks) = &libraries[suite];
        let gone = || RunError::NoTask { suite: suite.clone(), task: task.clone() };
        let mut task = tasks.get(task).cloned().ok_or_else(gone)?;
        let says = user_says(&episode);
        if !says.is_empty() {
            task.fields["user_says"] = json!(says);
        }
        let Replay { status, reward, readings, contexts } = play(library, &task, &episode)?;
        let before: Vec<_> =
            episode.turns.iter().map(|t| (t.spans.clone(), t.violations.clone(), t.succeeded)).collect();
        let unknown = episode.turns.iter().any(|t| t.shown == Context::Unknown);
        let shown = episode.turns.iter().zip(&contexts).all(|(t, now)| t.shown == Context::Unknown || t.shown == *now);
        results.push(Rescored {
            recorded: episode.reward,
            now: reward,
            same: status == episode.status && readings == before && shown,
            unknown,
            cut: contexts.iter().any(|context| !context.is_all()),
            key: episode.key,
        });
    }
    Ok(results)
}

/// What the user of an episode said: user turns that do not answer a call.
fn user_says(episode: &Episode) -> Vec<&str> {
    let answers_call = |index: usize| {
        let turn = episode.turns.iter().find(|t| t.message + 1 == index);
        turn.and_then(|t| t.action.as_ref()).is_some_and(|a| a.name != "respond")
    };
    let messages = episode.messages.iter().enumerate();
    messages.filter(|(i, m)| m.role == Role::User && !answers_call(*i)).map(|(_, m)| m.content.as_str()).collect()
}

type Readings = Vec<(Vec<(rolegraft_spans::Role, std::ops::Range<usize>)>, Vec<rolegraft_spans::Violation>, bool)>;

/// What came of an episode's replies.
struct Replay {
    status: Status,
    reward: f64,
    readings: Readings,
    contexts: Vec<Context>,
}

fn play(library: &Library, task: &Task, episode: &Episode) -> Result<Replay, RunError> {
    let failed = |source: rolegraft_suites::SuiteError| RunError::Evaluation {
        suite: episode.key.suite.clone(),
        model: "recorded".into(),
        source: source.into(),
    };
    let mut environment = library.suite.start(task).map_err(failed)?;
    environment.open().map_err(failed)?;
    let (mut readings, mut contexts) = (Vec::new(), Vec::new());
    // An episode whose last turn did not end it was ended by the model's context, or by its server.
    let unended = if episode.status == Status::ServerFiltered { episode.status } else { Status::AgentContextLimit };
    let mut status = environment.ended_at_once().unwrap_or(unended);
    for turn in &episode.turns {
        let (Some(before), Some(reply)) = (episode.messages.get(..turn.message), episode.messages.get(turn.message))
        else {
            continue;
        };
        contexts.push(environment.shown(before).map_or(Context::All, |shown| Context::of(&shown, before)));
        let step = environment.step(&reply.content).map_err(failed)?;
        let now = Turn::of(turn.message, turn.finish, &step.reading, step.succeeded);
        readings.push((now.spans, now.violations, now.succeeded));
        if let Some(ended) = step.ended {
            status = ended;
            break;
        }
    }
    let reward = status.scored(environment.outcome().reward);
    environment.intact().map_err(failed)?;
    Ok(Replay { status, reward, readings, contexts })
}
