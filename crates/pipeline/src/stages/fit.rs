//! Least-squares merges, and the Gram matrices that they are made of: calibration sets as the fit wants them.

use crate::artefact::{Calibration, FORMAT, check_header};
use crate::error::RunError;
use crate::machine::Machine;
use crate::progress::Progress;
use crate::stages::calibrate::tokenizer_digest;
use crate::stages::trace::check;
use rolegraft_checkpoint::{Checkpoint, Digest};
use rolegraft_least_squares::{
    Calibration as CalibratedBy, Expert, LeastSquaresError, Means, Sample, Sets, Step, Sums, record,
};
use rolegraft_merge::{Execution, Fit, MergeError, Outcome, Plan, TokenWeights};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What experts are calibrated on, by their names.
pub(crate) type CalibrationOf = BTreeMap<String, CalibratedOn>;

/// What an expert is calibrated on: sets with their files, or a file of what they come to.
#[derive(Default)]
pub(crate) struct CalibratedOn {
    pub(crate) sets: Vec<(PathBuf, Calibration)>,
    sums: Option<(PathBuf, Sums)>,
}

const SUMS: &str = "Gram matrices";

/// Reads the sets that a recipe names, relative to one of `folders`.
pub(crate) fn read_sets(fit: &Fit, folders: &[&Path]) -> Result<CalibrationOf, RunError> {
    let found = |path: &PathBuf| {
        folders.iter().map(|folder| folder.join(path)).find(|p| p.exists()).unwrap_or_else(|| path.clone())
    };
    let mut all = CalibrationOf::new();
    for expert in &fit.experts {
        let paths = fit.calibration.get(expert).ok_or_else(|| {
            MergeError::Recipe(format!(
                "expert `{expert}` has no calibration set; name its file under `parameters`: `calibration: {{{expert}: FILE}}` \
                 (`rolegraft calibrate` makes one)"
            ))
        })?;
        let mut of = CalibratedOn::default();
        for path in paths.iter().map(found) {
            if !path.is_file() {
                let reason = format!("is not there; the recipe names it for `{expert}` under `calibration`");
                return Err(MergeError::File { path, reason }.into());
            }
            if path.extension().is_none_or(|end| end != "safetensors") {
                let set = Calibration::read(&path)?;
                of.sets.push((path, set));
                continue;
            }
            if paths.len() > 1 {
                let reason = "Gram matrices stand for all calibration sets of an expert; name this file alone".into();
                return Err(MergeError::File { path, reason }.into());
            }
            let sums = Sums::open(&path)?;
            check_header(&path, SUMS, |key| sums.metadata(key).map(str::to_owned))?;
            of.sums = Some((path, sums));
        }
        all.insert(expert.clone(), of);
    }
    Ok(all)
}

/// Whether sets go with the experts of a plan.
pub(crate) fn check_sets(plan: &Plan, sets: &CalibrationOf) -> Result<(), RunError> {
    let weights = plan.recipe.fit.as_ref().map(|fit| fit.weights).unwrap_or_default();
    for (expert, of) in sets {
        let model = plan.models.iter().find(|model| model.name == *expert);
        let tokenizer = model.map(|model| Ok::<_, RunError>((model, tokenizer_digest(&model.dir)?))).transpose()?;
        if let (Some((path, sums)), Some((model, tokenizer))) = (&of.sums, &tokenizer) {
            let mend = "write the matrices anew with `rolegraft trace --gram`";
            let said = |key: &str| sums.metadata(key).unwrap_or_default().to_owned();
            let digest = Checkpoint::open(model.location().path())?.digest()?;
            check(path, "tokenizer", &said("tokenizer"), tokenizer, &model.dir, mend)?;
            check(path, "model", &said("model"), digest.as_str(), &model.dir, mend)?;
            let recipe = plan.recipe.path.as_deref().unwrap_or(Path::new("recipe"));
            check(path, "weights", &said("weights"), &weights.to_string(), recipe, mend)?;
        }
        for (path, set) in &of.sets {
            if let Some((model, tokenizer)) = &tokenizer {
                check_set(path, set, tokenizer, &model.dir)?;
            }
            check_weights(path, set, weights)?;
        }
    }
    Ok(())
}

fn check_set(path: &Path, set: &Calibration, tokenizer: &str, model: &Path) -> Result<(), RunError> {
    Ok(check(path, "tokenizer", &set.head.tokenizer, tokenizer, model, "make the set anew with --model")?)
}

fn check_weights(path: &Path, set: &Calibration, weights: TokenWeights) -> Result<(), RunError> {
    let bad = |reason: &str| MergeError::File { path: path.to_owned(), reason: reason.to_owned() };
    if set.runs.is_empty() {
        return Err(bad("holds no trajectory").into());
    }
    let counts = |suite: Vec<Sample<'_>>| suite.iter().any(|s| s.weights.iter().any(|weight| *weight > 0.0));
    if !by_suite(set, weights).all(counts) {
        return Err(bad("has a suite without a token whose weight is above 0; weigh others (`weights`)").into());
    }
    Ok(())
}

/// Calibration sets of a checkpoint → its Gram matrices: tokens of all sets.
///
/// # Errors
/// If a set is of another tokenizer, or as [`rolegraft_least_squares::record`].
pub(crate) fn gram(
    machine: &Machine<'_>,
    (checkpoint, digest): (&Checkpoint, &Digest),
    sets: &[(PathBuf, Calibration)],
    weights: TokenWeights,
    out: &Path,
) -> Result<usize, RunError> {
    let tokenizer = tokenizer_digest(checkpoint.dir())?;
    for (path, set) in sets {
        check_set(path, set, &tokenizer, checkpoint.dir())?;
        check_weights(path, set, weights)?;
    }
    let digests: Vec<Digest> = sets.iter().map(|(_, set)| set.digest_of(|run| Some(Cow::Borrowed(run)))).collect();
    let said = [
        ("rolegraft", SUMS.to_owned()),
        ("format", FORMAT.to_string()),
        ("model", digest.to_string()),
        ("tokenizer", tokenizer),
        ("calibration", digests.iter().map(Digest::as_str).collect::<Vec<_>>().join(" ")),
        ("weights", weights.to_string()),
    ];
    let metadata = said.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let expert = Expert::new("samples", checkpoint, sets.iter().flat_map(|(_, set)| by_suite(set, weights)).collect())?;
    let held: usize = sets.iter().map(|(_, set)| set.bytes()).sum();
    let tell = teller(machine.progress);
    let means = Means { memory: machine.compute.budget().saturating_sub(held), progress: &tell };
    record(&expert, &metadata, out, &machine.stop, &means)?;
    Ok(expert.tokens())
}

/// Tells how far a fit is.
fn teller(progress: &dyn Progress) -> impl Fn(&Step<'_>) {
    |step| {
        let what = format!("layer {} of {}: {}", step.layer, step.layers, step.what);
        progress.update(step.done, step.tokens, &what);
    }
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
        held += of.sets.iter().map(|(_, set)| set.bytes()).sum::<usize>();
        let calibration = match &of.sums {
            Some((path, _)) => CalibratedBy::Sums(path.clone()),
            None => CalibratedBy::Samples(of.sets.iter().flat_map(|(_, set)| by_suite(set, weights)).collect()),
        };
        samples.insert(expert.clone(), calibration);
    }
    let tell = teller(progress);
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
