//! Least-squares merges: calibration sets as the fit wants them.

use crate::artefact::Calibration;
use crate::error::RunError;
use crate::progress::Progress;
use crate::stages::calibrate::tokenizer_digest;
use crate::stages::trace::check;
use rolegraft_least_squares::{LeastSquaresError, Means, Sample, Sets, Step};
use rolegraft_merge::{Execution, Fit, MergeError, Outcome, Plan, TokenWeights};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Calibration sets with their files, by the expert that they are of.
pub(crate) type CalibrationOf = BTreeMap<String, Vec<(PathBuf, Calibration)>>;

/// Reads the sets that a recipe names, relative to one of `folders`.
pub(crate) fn read_sets(fit: &Fit, folders: &[&Path]) -> Result<CalibrationOf, RunError> {
    let read = |path: &PathBuf| {
        let path = folders.iter().map(|folder| folder.join(path)).find(|p| p.exists()).unwrap_or_else(|| path.clone());
        Ok((path.clone(), Calibration::read(&path)?))
    };
    let mut all = CalibrationOf::new();
    for expert in &fit.experts {
        let paths = fit.calibration.get(expert).ok_or_else(|| {
            MergeError::Recipe(format!(
                "expert `{expert}` has no calibration set; name its file under `parameters`: `calibration: {{{expert}: FILE}}` \
                 (`rolegraft calibrate` makes one)"
            ))
        })?;
        all.insert(expert.clone(), paths.iter().map(read).collect::<Result<_, RunError>>()?);
    }
    Ok(all)
}

/// Whether sets go with the experts of a plan.
pub(crate) fn check_sets(plan: &Plan, sets: &CalibrationOf) -> Result<(), RunError> {
    let weights = plan.recipe.fit.as_ref().map(|fit| fit.weights).unwrap_or_default();
    for (expert, of) in sets {
        let model = plan.models.iter().find(|model| model.name == *expert);
        let tokenizer = model.map(|model| Ok::<_, RunError>((model, tokenizer_digest(&model.dir)?))).transpose()?;
        for (path, set) in of {
            if let Some((model, tokenizer)) = &tokenizer {
                let mend = "make the set anew with --model";
                check(path, "tokenizer", &set.head.tokenizer, tokenizer, &model.dir, mend)?;
            }
            let bad = |reason: &str| MergeError::File { path: path.clone(), reason: reason.to_owned() };
            if set.runs.is_empty() {
                return Err(bad("holds no trajectory").into());
            }
            let counts = |suite: Vec<Sample<'_>>| suite.iter().any(|s| s.weights.iter().any(|weight| *weight > 0.0));
            if !by_suite(set, weights).all(counts) {
                return Err(bad("has a suite without a token whose weight is above 0; weigh others (`weights`)").into());
            }
        }
    }
    Ok(())
}

/// Executes a plan with a fit.
///
/// # Errors
/// If a set is of another tokenizer than its expert's, or as [`rolegraft_least_squares::merge`].
pub(crate) fn fit(
    plan: &Plan,
    sets: &CalibrationOf,
    out: &Path,
    execution: &Execution<'_>,
    memory: usize,
    progress: &dyn Progress,
) -> Result<Outcome, RunError> {
    let weights = plan.recipe.fit.as_ref().map(|fit| fit.weights).unwrap_or_default();
    let (mut samples, mut held) = (Sets::new(), 0);
    check_sets(plan, sets)?;
    for (expert, of) in sets {
        held += of.iter().map(|(_, set)| set.bytes()).sum::<usize>();
        samples.insert(expert.clone(), of.iter().flat_map(|(_, set)| by_suite(set, weights)).collect());
    }
    let tell = |step: &Step<'_>| {
        let what = format!("layer {} of {}: {}", step.layer, step.layers, step.what);
        progress.update(step.done, step.tokens, &what);
    };
    let means = Means { memory: memory.saturating_sub(held), progress: &tell };
    let (outcome, fitted) = rolegraft_least_squares::merge(plan, samples, out, execution, &means)?;
    if !fitted.singular.is_empty() {
        progress.note(&format!(
            "{} maps have singular equations; what their inputs do not span is the anchor's (the first: `{}`)",
            fitted.singular.len(),
            fitted.singular[0]
        ));
    }
    if fitted.spilled {
        progress.note("hidden states did not fit the memory and went through a scratch file");
    }
    Ok(outcome)
}

/// A set's runs with their weights, suites apart: each counts alike.
fn by_suite(set: &Calibration, weights: TokenWeights) -> impl Iterator<Item = Vec<Sample<'_>>> {
    let mut suites: BTreeMap<&str, Vec<Sample<'_>>> = BTreeMap::new();
    for run in &set.runs {
        let suite = run.id.split_once('/').map_or("", |(suite, _)| suite);
        let mut of = vec![weights.context; run.ids.len()];
        for (positions, weight) in [(&run.reply, weights.reply), (&run.role, weights.role)] {
            positions.iter().for_each(|at| of[*at as usize] = weight);
        }
        let predicts = run.reply.iter().filter_map(|at| at.checked_sub(1)).collect();
        suites.entry(suite).or_default().push(Sample { ids: &run.ids, weights: of, predicts });
    }
    suites.into_values()
}

impl From<LeastSquaresError> for RunError {
    fn from(error: LeastSquaresError) -> Self {
        match error {
            LeastSquaresError::Interrupted | LeastSquaresError::Merge(MergeError::Interrupted) => Self::Interrupted,
            LeastSquaresError::Merge(error) => Self::Merge(error),
            error => Self::LeastSquares(error),
        }
    }
}
