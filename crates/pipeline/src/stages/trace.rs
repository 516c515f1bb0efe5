//! Saliencies: a checkpoint's MLP activations at the tokens of calibration sets.

use crate::artefact::{ArtefactError, Calibration, CalibrationRun, Traced};
use crate::error::RunError;
use crate::experiment::{Shift, Tokens};
use crate::machine::Machine;
use crate::stages::calibrate::tokenizer_digest;
use rolegraft_checkpoint::{Checkpoint, Digest};
use rolegraft_saliency::{TokenRun, Trajectory};
use std::path::{Path, PathBuf};

/// Traces a checkpoint on calibration sets of one benchmark.
///
/// # Errors
/// If a set is of another tokenizer or benchmark, has no token to trace, or the checkpoint cannot be run.
pub fn trace(
    machine: &Machine<'_>,
    (checkpoint, digest): (&Checkpoint, &Digest),
    sets: &[(PathBuf, Calibration)],
    tokens: Tokens,
    shift: Shift,
) -> Result<Traced, RunError> {
    machine.goes_on()?;
    let tokenizer = tokenizer_digest(checkpoint.dir())?;
    let benchmark = sets.first().map(|(_, set)| set.head.benchmark.clone()).unwrap_or_default();
    let mut trajectories = Vec::new();
    for (path, set) in sets {
        check(path, "tokenizer", &set.head.tokenizer, &tokenizer, checkpoint.dir(), "make the set anew with --model")?;
        check(path, "benchmark", &set.head.benchmark, &benchmark, &sets[0].0, "trace one benchmark at a time")?;
        trajectories.extend(trajectories_of(&set.runs, tokens, shift));
    }
    let saliency = rolegraft_saliency::trace(checkpoint, &trajectories)?;
    if saliency.traced == 0 {
        return Err(RunError::NoSpans { benchmark, of: trajectories.len() });
    }
    let calibration = match sets {
        [(_, only)] => only.digest(),
        several => {
            let digests: Vec<Digest> = several.iter().map(|(_, set)| set.digest()).collect();
            Digest::of_parts(digests.iter().map(|d| ("", d.as_str().as_bytes())))
        }
    };
    Ok(Traced {
        model: digest.to_string(),
        benchmark,
        tokenizer,
        calibration: calibration.to_string(),
        tokens: tokens.as_str().to_owned(),
        shift: shift.as_str().to_owned(),
        saliency,
    })
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
fn trajectories_of(runs: &[CalibrationRun], tokens: Tokens, shift: Shift) -> Vec<Trajectory> {
    let positions = |run: &CalibrationRun| -> Vec<usize> {
        let chosen = match tokens {
            Tokens::Role => run.role.clone(),
            Tokens::Reply => run.reply.clone(),
            Tokens::All => (0..run.ids.len()).collect(),
        };
        match shift {
            Shift::Read => chosen,
            Shift::Predict => chosen.into_iter().map(|position| position.saturating_sub(1)).collect(),
        }
    };
    let one = |runs: &[CalibrationRun]| Trajectory {
        runs: runs.iter().map(|run| TokenRun { ids: run.ids.clone(), role: positions(run) }).collect(),
    };
    runs.chunk_by(|a, b| a.id == b.id).map(one).collect()
}
