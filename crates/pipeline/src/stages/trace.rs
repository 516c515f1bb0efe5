//! Saliencies: a checkpoint's MLP activations at the tokens of calibration sets.

use crate::artefact::{ArtefactError, Calibration, CalibrationRun, Traced};
use crate::error::RunError;
use crate::experiment::{Shift, Tokens};
use crate::machine::Machine;
use crate::stages::calibrate::tokenizer_digest;
use rolegraft_checkpoint::{Checkpoint, Digest};
use rolegraft_saliency::trace_readings;
use rolegraft_trajectory::{Key, Seed};
use serde::{Deserialize, Serialize};
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
    /// The set's runs as they are here, in their order; nothing in place of those that are left out.
    fn of(self, set: &Calibration) -> Vec<Option<CalibrationRun>> {
        match self {
            Self::Whole => set.runs.iter().cloned().map(Some).collect(),
            Self::Jitter(by) => set.runs.iter().map(|run| Some(jittered(run, by))).collect(),
            Self::Share(share, seed) => {
                let ids: BTreeSet<&str> = set.runs.iter().map(|run| run.id.as_str()).collect();
                let mut drawn: Vec<&str> = ids.into_iter().collect();
                Key::new(Seed(seed)).child("calibration").child(&set.head.benchmark).rng().shuffle(&mut drawn);
                drawn.truncate((share * drawn.len() as f64).ceil() as usize);
                let kept = |run: &CalibrationRun| drawn.contains(&run.id.as_str()).then(|| run.clone());
                set.runs.iter().map(kept).collect()
            }
        }
    }
}

/// A run whose role spans lie `by` tokens later.
fn jittered(run: &CalibrationRun, by: i32) -> CalibrationRun {
    let moved = run.role.iter().filter_map(|position| position.checked_add_signed(by as isize));
    let role = moved.filter(|position| run.reply.binary_search(position).is_ok()).collect();
    CalibrationRun { role, ..run.clone() }
}

/// What went through a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Passed {
    /// Runs.
    pub runs: usize,
    /// Their tokens.
    pub tokens: usize,
}

/// Traces a checkpoint on calibration sets of one benchmark.
///
/// # Errors
/// If a set is of another tokenizer or benchmark, has no token to trace, or the checkpoint cannot be run.
pub fn trace(
    machine: &Machine<'_>,
    model: (&Checkpoint, &Digest),
    sets: &[(PathBuf, Calibration)],
    tokens: Tokens,
    shift: Shift,
) -> Result<Traced, RunError> {
    Ok(readings(machine, model, sets, &[Reading::whole(tokens)], shift)?.0.swap_remove(0))
}

/// Traces a checkpoint on calibration sets of one benchmark, in one pass for several readings. Each gets what tracing the
/// sets that it makes of them would give.
///
/// # Errors
/// As [`trace`].
pub fn readings(
    machine: &Machine<'_>,
    (checkpoint, digest): (&Checkpoint, &Digest),
    sets: &[(PathBuf, Calibration)],
    readings: &[Reading],
    shift: Shift,
) -> Result<(Vec<Traced>, Passed), RunError> {
    machine.goes_on()?;
    let tokenizer = tokenizer_digest(checkpoint.dir())?;
    let benchmark = sets.first().map(|(_, set)| set.head.benchmark.clone()).unwrap_or_default();
    let mut trajectories: Vec<Vec<&[u32]>> = Vec::new();
    for (path, set) in sets {
        check(path, "tokenizer", &set.head.tokenizer, &tokenizer, checkpoint.dir(), "make the set anew with --model")?;
        check(path, "benchmark", &set.head.benchmark, &benchmark, &sets[0].0, "trace one benchmark at a time")?;
        trajectories.extend(by_trajectory(&set.runs).map(|runs| runs.iter().map(|run| run.ids.as_slice()).collect()));
    }
    let (mut positions, mut digests) = (Vec::new(), Vec::new());
    for reading in readings {
        let mut looks = Vec::new();
        let mut of_sets = Vec::new();
        for (_, set) in sets {
            let view = reading.view.of(set);
            let mut at = 0;
            for runs in by_trajectory(&set.runs) {
                let seen =
                    view[at..at + runs.len()].iter().map(|run| Some(chosen(run.as_ref()?, reading.tokens, shift)));
                looks.push(seen.collect::<Option<Vec<_>>>());
                at += runs.len();
            }
            of_sets.push(Calibration { head: set.head.clone(), runs: view.into_iter().flatten().collect() }.digest());
        }
        positions.push(looks);
        digests.push(match of_sets.as_slice() {
            [only] => only.clone(),
            several => Digest::of_parts(several.iter().map(|d| ("", d.as_str().as_bytes()))),
        });
    }
    let saliencies = trace_readings(checkpoint, &trajectories, &positions)?;
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
            saliency,
        });
    }
    let seen = |(at, run): (usize, usize)| {
        positions
            .iter()
            .any(|of: &rolegraft_saliency::Reading| of[at].as_ref().is_some_and(|runs| !runs[run].is_empty()))
    };
    let mut passed = Passed::default();
    for (at, runs) in trajectories.iter().enumerate() {
        for (_, ids) in runs.iter().enumerate().filter(|(run, _)| seen((at, *run))) {
            passed.runs += 1;
            passed.tokens += ids.len();
        }
    }
    Ok((traced, passed))
}

fn check(
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

fn chosen(run: &CalibrationRun, tokens: Tokens, shift: Shift) -> Vec<usize> {
    let chosen = match tokens {
        Tokens::Role => run.role.clone(),
        Tokens::Reply => run.reply.clone(),
        Tokens::All => (0..run.ids.len()).collect(),
    };
    match shift {
        Shift::Read => chosen,
        Shift::Predict => chosen.into_iter().map(|position| position.saturating_sub(1)).collect(),
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
        let roles = |by| View::Jitter(by).of(&set(1))[0].as_ref().unwrap().role.clone();
        assert_eq!(roles(1), [5, 6]);
        assert_eq!(roles(2), [6]);
        assert_eq!(roles(-3), [2]);
        assert_eq!(roles(-9), [0; 0]);
        assert_eq!(Reading::jitter(0), Reading::whole(Tokens::Role));
    }

    #[test]
    fn shares_of_one_seed_are_nested_and_seeds_differ() {
        let ids = |share, seed| -> BTreeSet<String> {
            View::Share(share, seed).of(&set(20)).into_iter().flatten().map(|run| run.id).collect()
        };
        assert_eq!(ids(0.1, 1).len(), 2);
        assert_eq!(ids(0.01, 1).len(), 1);
        assert!(ids(0.1, 1).is_subset(&ids(0.25, 1)) && ids(0.25, 1).is_subset(&ids(0.5, 1)));
        assert_ne!(ids(0.5, 1), ids(0.5, 2));
        assert_eq!(Reading::share(Tokens::Role, 1.0, 3), Reading::whole(Tokens::Role));
    }
}
