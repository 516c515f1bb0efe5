//! Saliencies: a checkpoint's MLP activations at the tokens of calibration sets.

use crate::artefact::{ArtefactError, Calibration, CalibrationRun, Traced};
use crate::compute::duration;
use crate::error::RunError;
use crate::experiment::{Shift, Tokens};
use crate::machine::Machine;
use crate::stages::calibrate::tokenizer_digest;
use rolegraft_checkpoint::{Checkpoint, Digest, check_pool};
use rolegraft_saliency::{Run, Step, Tracing, trace_readings};
use rolegraft_trajectory::{Key, Seed};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A calibration set, or what an ablation makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum View {
    /// As it is.
    Whole,
    /// Role spans so many tokens later; what leaves the model's replies is left out.
    Jitter(i32),
    /// A share of the trajectories, drawn by a seed. Of one seed, smaller shares are parts of larger ones.
    Share(f64, u64),
}

/// What a saliency is read from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Which tokens.
    pub tokens: Tokens,
    /// Of which trajectories, with which spans.
    pub view: View,
}

impl Reading {
    /// Tokens of a set as it is.
    #[must_use]
    pub fn whole(tokens: Tokens) -> Self {
        Self { tokens, view: View::Whole }
    }
    /// Role tokens with their spans moved.
    #[must_use]
    pub fn jitter(by: i32) -> Self {
        Self { tokens: Tokens::Role, view: if by == 0 { View::Whole } else { View::Jitter(by) } }
    }
    /// Tokens of a share of the trajectories.
    #[must_use]
    pub fn share(tokens: Tokens, share: f64, seed: u64) -> Self {
        Self { tokens, view: if share >= 1.0 { View::Whole } else { View::Share(share, seed) } }
    }
}

impl View {
    /// Which of a set's trajectories are part of it, by id; all, if nothing is said.
    fn drawn(self, set: &Calibration) -> Option<BTreeSet<&str>> {
        let Self::Share(share, seed) = self else { return None };
        let ids: BTreeSet<&str> = set.runs.iter().map(|run| run.id.as_str()).collect();
        let mut drawn: Vec<&str> = ids.into_iter().collect();
        Key::new(Seed(seed)).child("calibration").child(&set.head.benchmark).rng().shuffle(&mut drawn);
        drawn.truncate((share * drawn.len() as f64).ceil() as usize);
        Some(drawn.into_iter().collect())
    }

    /// A run as it is here: its role spans may lie elsewhere.
    fn of(self, run: &CalibrationRun) -> Cow<'_, CalibrationRun> {
        match self {
            Self::Whole | Self::Share(..) => Cow::Borrowed(run),
            Self::Jitter(by) => {
                let moved = run.role.iter().filter_map(|position| position.checked_add_signed(by));
                let role = moved.filter(|position| run.reply.binary_search(position).is_ok()).collect();
                Cow::Owned(CalibrationRun { role, ..run.clone() })
            }
        }
    }
}

/// What went through a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Passed {
    /// Runs.
    pub runs: usize,
    /// Their tokens.
    pub tokens: usize,
}

/// What is traced.
#[derive(Clone, Copy)]
pub struct Of<'o> {
    /// A checkpoint.
    pub model: (&'o Checkpoint, &'o Digest),
    /// Another of its pool, where what counts is by how much they differ.
    pub against: Option<(&'o Checkpoint, &'o Digest)>,
}

/// Traces a checkpoint on calibration sets of one benchmark. What is done is kept in the file `journal` until it is whole.
///
/// # Errors
/// If a set is of another tokenizer or benchmark, has no token to trace, or the checkpoint cannot be run.
pub fn trace(
    machine: &Machine<'_>,
    of: Of<'_>,
    sets: &[(PathBuf, Calibration)],
    tokens: Tokens,
    shift: Shift,
    journal: &Path,
) -> Result<Traced, RunError> {
    Ok(readings(machine, of, sets, &[Reading::whole(tokens)], shift, journal)?.0.swap_remove(0))
}

/// Traces a checkpoint on calibration sets of one benchmark, in one pass for several readings. Each gets what tracing the
/// sets that it makes of them would give.
///
/// # Errors
/// As [`trace`].
pub fn readings(
    machine: &Machine<'_>,
    Of { model: (checkpoint, digest), against }: Of<'_>,
    sets: &[(PathBuf, Calibration)],
    readings: &[Reading],
    shift: Shift,
    journal: &Path,
) -> Result<(Vec<Traced>, Passed), RunError> {
    machine.goes_on()?;
    let tokenizer = tokenizer_digest(checkpoint.dir())?;
    let benchmark = sets.first().map(|(_, set)| set.head.benchmark.clone()).unwrap_or_default();
    let (mut runs, mut all): (Vec<Run<'_>>, Vec<(usize, &CalibrationRun)>) = (Vec::new(), Vec::new());
    let mut trajectories = 0;
    for (of, (path, set)) in sets.iter().enumerate() {
        check(path, "tokenizer", &set.head.tokenizer, &tokenizer, checkpoint.dir(), "make the set anew with --model")?;
        check(path, "benchmark", &set.head.benchmark, &benchmark, &sets[0].0, "trace one benchmark at a time")?;
        for trajectory in by_trajectory(&set.runs) {
            runs.extend(trajectory.iter().map(|run| Run { trajectory: trajectories, ids: &run.ids }));
            all.extend(trajectory.iter().map(|run| (of, run)));
            trajectories += 1;
        }
    }
    let (mut looks, mut digests): (Vec<rolegraft_saliency::Reading<'_>>, Vec<Digest>) = (Vec::new(), Vec::new());
    for reading in readings {
        let Reading { tokens, view } = *reading;
        let drawn: Vec<_> = sets.iter().map(|(_, set)| view.drawn(set)).collect();
        let part =
            move |of: usize, run: &CalibrationRun| drawn[of].as_ref().is_none_or(|ids| ids.contains(run.id.as_str()));
        let of_sets: Vec<Digest> = sets
            .iter()
            .enumerate()
            .map(|(of, (_, set))| set.digest_of(|run| part(of, run).then(|| view.of(run))))
            .collect();
        digests.push(match of_sets.as_slice() {
            [only] => only.clone(),
            several => Digest::of_parts(several.iter().map(|d| ("", d.as_str().as_bytes()))),
        });
        let all = &all;
        looks.push(Box::new(move |at| {
            let (of, run) = all[at];
            part(of, run).then(|| chosen(view.of(run), tokens, shift))
        }));
    }
    if let Some((other, _)) = against {
        check_pool(checkpoint, &[other])?;
    }
    let compared = against.map(|(_, digest)| digest);
    let both = compared.map_or_else(|| digest.to_string(), |other| format!("{digest} against {other}"));
    let key = serde_json::to_string(&(both, &tokenizer, &digests, readings, shift, machine.arithmetic()));
    let progress = |step: &Step| {
        let what = format!(
            "{benchmark}: wave {} of {}, layer {} of {}, {:.0} tokens/s, {} left",
            step.wave,
            step.waves,
            step.layer,
            step.layers,
            step.rate,
            duration(step.left().as_secs_f64())
        );
        machine.progress.update(step.done as usize, step.tokens, &what);
    };
    let tracing = Tracing {
        architecture: None,
        against: against.map(|(checkpoint, _)| checkpoint),
        place: machine.compute.place(machine.precision)?,
        memory: machine.compute.budget(),
        held: sets.iter().map(|(_, set)| set.bytes()).sum(),
        wave: 0,
        journal: Some((journal.to_owned(), Digest::of(key.unwrap_or_default().as_bytes()).to_string())),
        stop: &machine.stop,
        progress: &progress,
    };
    let saliencies = trace_readings(checkpoint, &runs, &looks, &tracing)?;
    let mut traced = Vec::new();
    for ((reading, calibration), saliency) in readings.iter().zip(digests).zip(saliencies) {
        if saliency.traced == 0 {
            return Err(RunError::NoSpans { benchmark, of: saliency.without_role });
        }
        traced.push(Traced {
            model: digest.to_string(),
            benchmark: benchmark.clone(),
            tokenizer: tokenizer.clone(),
            calibration: calibration.to_string(),
            tokens: reading.tokens.as_str().to_owned(),
            shift: shift.as_str().to_owned(),
            against: compared.map(Digest::to_string),
            arithmetic: machine.arithmetic().to_owned(),
            saliency,
        });
    }
    let mut passed = Passed::default();
    for (at, run) in runs.iter().enumerate() {
        if looks.iter().any(|look| look(at).is_some_and(|positions| !positions.is_empty())) {
            passed.runs += 1;
            passed.tokens += run.ids.len();
        }
    }
    Ok((traced, passed))
}

pub(crate) fn check(
    path: &Path,
    field: &'static str,
    found: &str,
    expected: &str,
    other: &Path,
    mend: &'static str,
) -> Result<(), ArtefactError> {
    if found == expected {
        return Ok(());
    }
    let (found, expected) = (format!("`{found}`"), format!("`{expected}`"));
    let other = format!("`{}`", other.display());
    Err(ArtefactError::Mismatch { path: path.to_owned(), field, found, expected, other, mend })
}

/// Runs of one id, one after another, are one trajectory.
fn by_trajectory(runs: &[CalibrationRun]) -> impl Iterator<Item = &[CalibrationRun]> {
    runs.chunk_by(|a, b| a.id == b.id)
}

fn chosen(run: Cow<'_, CalibrationRun>, tokens: Tokens, shift: Shift) -> Cow<'_, [u32]> {
    let chosen = match (tokens, run) {
        (Tokens::All, run) => Cow::Owned((0..run.ids.len() as u32).collect()),
        (Tokens::Role, Cow::Borrowed(run)) => Cow::Borrowed(run.role.as_slice()),
        (Tokens::Role, Cow::Owned(run)) => Cow::Owned(run.role),
        (Tokens::Reply, Cow::Borrowed(run)) => Cow::Borrowed(run.reply.as_slice()),
        (Tokens::Reply, Cow::Owned(run)) => Cow::Owned(run.reply),
    };
    match shift {
        Shift::Read => chosen,
        Shift::Predict => chosen.iter().map(|position| position.saturating_sub(1)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artefact::CalibrationHead;

    fn set(trajectories: usize) -> Calibration {
        let text = String::new;
        let head = CalibrationHead { tokenizer: text(), rendering: text(), episodes: text(), benchmark: "b".into() };
        let run = |i: usize| CalibrationRun {
            id: format!("t{i:02}"),
            benchmark: "b".into(),
            ids: vec![0; 10],
            role: vec![4, 5],
            reply: vec![2, 3, 4, 5, 6],
        };
        Calibration { head, runs: (0..trajectories).map(run).collect() }
    }

    #[test]
    fn spans_move_within_replies() {
        let roles = |by| View::Jitter(by).of(&set(1).runs[0]).role.clone();
        assert_eq!(roles(1), [5, 6]);
        assert_eq!(roles(2), [6]);
        assert_eq!(roles(-3), [2]);
        assert_eq!(roles(-9), [0; 0]);
        assert_eq!(Reading::jitter(0), Reading::whole(Tokens::Role));
    }

    #[test]
    fn shares_of_one_seed_are_nested_and_seeds_differ() {
        let ids = |share, seed| -> BTreeSet<String> {
            View::Share(share, seed).drawn(&set(20)).unwrap().into_iter().map(str::to_owned).collect()
        };
        assert_eq!(ids(0.1, 1).len(), 2);
        assert_eq!(ids(0.01, 1).len(), 1);
        assert!(ids(0.1, 1).is_subset(&ids(0.25, 1)) && ids(0.25, 1).is_subset(&ids(0.5, 1)));
        assert_ne!(ids(0.5, 1), ids(0.5, 2));
        assert_eq!(Reading::share(Tokens::Role, 1.0, 3), Reading::whole(Tokens::Role));
    }
}
