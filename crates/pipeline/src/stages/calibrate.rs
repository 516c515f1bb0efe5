//! Calibration sets: trajectories as tokens, with the positions of roles and replies.

use crate::artefact::{Calibration, CalibrationHead, CalibrationRun};
use crate::chat::{Rendering, Unusable};
use crate::error::RunError;
use crate::machine::Machine;
use rolegraft_checkpoint::Digest;
use rolegraft_model::Scripted;
use rolegraft_spans::Format;
use rolegraft_suites::TaskSet;
use rolegraft_trajectory::{ChatTokenizer, Episode, EpisodeKey};
use std::ops::Range;
use std::path::Path;

/// The tasks' own solutions as a model; nothing if a task comes without.
pub(crate) fn solutions(suite: &str, tasks: &TaskSet) -> Option<Scripted> {
    let one = |task: &rolegraft_suites::Task| {
        let key = EpisodeKey { suite: suite.to_owned(), task: task.id.clone(), trial: 0 };
        Some((key, task.oracle()?))
    };
    Some(Scripted::new(tasks.tasks.iter().map(one).collect::<Option<Vec<_>>>()?))
}

/// Trajectories by suite, task and trial: a log has them in the order in which they ended.
fn in_order(episodes: &[Episode]) -> Vec<&Episode> {
    let mut sorted: Vec<&Episode> = episodes.iter().collect();
    sorted.sort_by_key(|e| &e.key);
    sorted
}

/// The digest of trajectories: what was said, what was shown, and where its roles are, by the log or by a format.
pub(crate) fn digest_with(episodes: &[Episode], format: Option<&Format>) -> String {
    let spans = format.map(Format::source).unwrap_or_default();
    Digest::of_parts([(digest(episodes).as_str(), spans.as_bytes())]).to_string()
}

/// The digest of trajectories as they were logged.
pub(crate) fn digest(episodes: &[Episode]) -> Digest {
    let said = |e: &Episode| {
        let turns: Vec<_> = e.turns.iter().map(|t| (&t.spans, &t.shown, &t.ids)).collect();
        serde_json::to_vec(&(&e.key, &e.messages, turns)).unwrap_or_default()
    };
    let parts: Vec<Vec<u8>> = in_order(episodes).into_iter().map(said).collect();
    Digest::of_parts(parts.iter().map(|part| ("", part.as_slice())))
}

/// What a calibration set of the trajectories of a digest would be made from, for the tokenizer and template in `dir`.
pub(crate) fn head(
    machine: &Machine<'_>,
    dir: &Path,
    benchmark: &str,
    episodes: String,
) -> Result<CalibrationHead, RunError> {
    let rendering = serde_json::to_vec(&Rendering::of_checkpoint(dir, machine.chat)?).unwrap_or_default();
    Ok(CalibrationHead {
        tokenizer: tokenizer_digest(dir)?,
        rendering: Digest::of(&rendering).to_string(),
        episodes,
        benchmark: benchmark.to_owned(),
    })
}

/// The digest of a checkpoint's tokenizer.
pub(crate) fn tokenizer_digest(dir: &Path) -> Result<String, RunError> {
    let path = dir.join("tokenizer.json");
    let read = Digest::of_file(&path).map_err(|source| rolegraft_trajectory::ChatError::Read { path, source })?;
    Ok(read.to_string())
}

/// Trajectories as the token runs that a model with the tokenizer and template in `dir` reads: for every reply what was
/// shown, with the tokens whose bytes meet a role span. `format` finds the spans anew; without it they are as logged.
///
/// # Errors
/// If the template refuses a trajectory.
pub fn tokens(
    machine: &Machine<'_>,
    dir: &Path,
    benchmark: &str,
    episodes: &[Episode],
    format: Option<&Format>,
) -> Result<Calibration, RunError> {
    let chat = ChatTokenizer::open(dir, machine.chat)?;
    let mut unusable = Unusable::default();
    let mut runs = Vec::new();
    for episode in in_order(episodes) {
        machine.goes_on()?;
        let contexts = chat.contexts(episode)?;
        unusable.note(episode, &contexts);
        let spans: Vec<Vec<Range<usize>>> = episode
            .turns
            .iter()
            .map(|turn| match (format, episode.messages.get(turn.message)) {
                (Some(format), Some(message)) => {
                    format.read(&message.content, None).spans.into_iter().map(|span| span.range).collect()
                }
                _ => turn.spans.iter().map(|(_, range)| range.clone()).collect(),
            })
            .collect();
        for sequence in contexts.sequences {
            let (mut role, mut reply) = (Vec::new(), Vec::new());
            for found in &sequence.replies {
                let spans = spans.get(found.turn).map(Vec::as_slice).unwrap_or_default();
                let meets = |bytes: &Range<usize>| spans.iter().any(|s| s.start < bytes.end && bytes.start < s.end);
                reply.extend(found.tokens.iter().map(|(position, _)| *position as u32));
                role.extend(
                    found.tokens.iter().filter(|(_, bytes)| meets(bytes)).map(|(position, _)| *position as u32),
                );
            }
            let id = format!("{}/{}/{}", episode.key.suite, episode.key.task, episode.key.trial);
            runs.push(CalibrationRun { id, benchmark: benchmark.to_owned(), ids: sequence.ids, role, reply });
        }
    }
    for note in unusable.notes() {
        machine.progress.note(&format!("{benchmark}: {note}"));
    }
    Ok(Calibration { head: head(machine, dir, benchmark, digest_with(episodes, format))?, runs })
}
