//! Merges: a recipe's plan, with AIM's importances measured where the recipe asks for it, and an experiment's candidates.

use crate::compute::{Bytes, Compute};
use crate::error::RunError;
use crate::experiment::CandidateEntry;
use crate::machine::Machine;
use crate::progress::Progress;
use crate::stages::fit::{CalibrationOf, check_sets, fit, read_sets};
use rolegraft_checkpoint::{Architecture, Checkpoint, Dtype, Header, write_atomic};
use rolegraft_decoder::DecoderError;
use rolegraft_merge::{Execution, MergeError, Model, Outcome, Plan, PlanOptions, Recipe};
use rolegraft_saliency::{Importance, channel_importance};
use rolegraft_trajectory::text_ids;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Largest shard written, in bytes.
pub(crate) const SHARD: u64 = 5_000_000_000;

/// Texts, and tokens per block, that importances are measured on (AIM's own calibration: 256 texts, blocks of 512).
const TEXTS: usize = 256;
const BLOCK: usize = 512;

/// Plans a recipe's merge; models are looked for in the working directory, then beside the recipe.
///
/// # Errors
/// If the recipe or a model cannot be used, or importances cannot be measured.
pub fn plan_merge(recipe: Recipe, options: &PlanOptions, progress: &dyn Progress) -> Result<Plan, RunError> {
    let path = recipe.path.clone().unwrap_or_default();
    let beside = path.parent().unwrap_or(Path::new(""));
    let folders = [Path::new(""), beside];
    let mut plan = Plan::new(recipe, &folders, options).map_err(|e| e.in_recipe(&path))?;
    let Some(aim) = plan.recipe.aim.clone().filter(|_| plan.importance.is_none()) else { return Ok(plan) };
    let (Some(calibration), Some(base)) = (aim.calibration, plan.recipe.base) else { return Ok(plan) };
    let calibration = folders.iter().map(|f| f.join(&calibration)).find(|p| p.exists()).unwrap_or(calibration);
    progress.stage("measure importances");
    let importance = measure(&plan.models[base].dir, &calibration, progress)?;
    if let Some(path) = aim.importance {
        write_importance(&path, &importance)?;
        progress.note(&format!("importances written to {}", path.display()));
    }
    plan.importance = Some(importance);
    Ok(plan)
}

/// A plan of a base with a LoRA adapter (`BASE+ADAPTER`), in a dtype, or that of the base.
///
/// # Errors
/// If one of them cannot be used, or they do not go together.
pub fn plan_adapted(path: &Path, dtype: Option<&str>) -> Result<Plan, RunError> {
    let model = path.display().to_string();
    let mut recipe = json!({"merge_method": "passthrough", "models": [{"model": model}]});
    if let Some(dtype) = dtype {
        recipe["dtype"] = json!(dtype);
    }
    let recipe = Recipe::parse(&recipe.to_string(), Path::new("adapter.yaml")).map_err(MergeError::Recipe)?;
    Ok(Plan::new(recipe, &[Path::new("")], &PlanOptions::default())?)
}

/// Importances of a base's channels on the texts of a file: JSONL with `text`, or paragraphs parted by empty lines.
fn measure(base: &Path, calibration: &Path, progress: &dyn Progress) -> Result<Importance, RunError> {
    let read = |source| MergeError::Read { path: calibration.to_owned(), source };
    let bad = |reason: String| MergeError::File { path: calibration.to_owned(), reason };
    let file = std::fs::read_to_string(calibration).map_err(read)?;
    let texts: Vec<String> = if calibration.extension().is_some_and(|e| e == "jsonl") {
        let parsed = file.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()).map(|(i, line)| {
            let value: serde_json::Value =
                serde_json::from_str(line).map_err(|e| bad(format!("line {} is not JSON: {e}", i + 1)))?;
            let text = value["text"].as_str().ok_or_else(|| bad(format!("line {} has no `text`", i + 1)))?;
            Ok(text.to_owned())
        });
        parsed.collect::<Result<_, MergeError>>()?
    } else {
        file.split("\n\n").map(str::to_owned).collect()
    };
    let texts: Vec<&str> = texts.iter().map(|t| t.trim()).filter(|t| !t.is_empty()).collect();
    let mut ids: Vec<Vec<u32>> = text_ids(base, &texts)?;
    // upstream: texts longer than a block are skipped, not cut.
    ids.retain(|ids| !ids.is_empty() && ids.len() <= BLOCK);
    ids.truncate(TEXTS);
    let all = ids.concat();
    let mut blocks: Vec<Vec<u32>> = all.chunks_exact(BLOCK).map(<[u32]>::to_vec).collect();
    if blocks.is_empty() {
        if all.is_empty() {
            return Err(bad(format!("it has no text of at most {BLOCK} tokens")).into());
        }
        progress.note(&format!("the calibration text has only {} tokens; {BLOCK} a block are usual", all.len()));
        blocks.push(all);
    }
    let checkpoint = Checkpoint::open(base)?;
    let layers = Architecture::of(&checkpoint).map_err(DecoderError::from)?.num_hidden_layers;
    Ok(channel_importance(&checkpoint, &blocks, &|done| progress.update(done, layers, "layers"))?)
}

fn write_importance(path: &Path, importance: &Importance) -> Result<(), RunError> {
    let layout: Vec<_> =
        importance.iter().map(|(m, values)| (format!("importance.{m}"), Dtype::F32, vec![values.len()])).collect();
    let mut bytes = Header::encode(&layout);
    importance.values().for_each(|values| bytes.extend(values.iter().flat_map(|v| v.to_le_bytes())));
    write_atomic(path, &bytes).map_err(MergeError::from)?;
    Ok(())
}

/// Executes a plan; one with a fit by the calibration sets that its recipe names, relative to the working directory, then to the
/// recipe.
///
/// # Errors
/// As [`Plan::execute`], or if a calibration set is missing or does not fit its expert.
pub fn execute_merge(
    plan: &Plan,
    out: &Path,
    execution: &Execution<'_>,
    memory: Option<Bytes>,
    progress: &dyn Progress,
) -> Result<Outcome, RunError> {
    let Some(sets) = calibration_of(plan)? else { return Ok(plan.execute(out, execution)?) };
    let compute = Compute { memory, ..Compute::default() };
    fit(plan, &sets, out, execution, compute.budget(), progress)
}

/// The calibration sets that a plan with a fit names, relative to the working directory, then to the recipe.
fn calibration_of(plan: &Plan) -> Result<Option<CalibrationOf>, RunError> {
    let Some(rules) = &plan.recipe.fit else { return Ok(None) };
    let beside = plan.recipe.path.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
    Ok(Some(read_sets(rules, &[Path::new(""), beside])?))
}

/// Checks what executing a plan needs besides its models.
///
/// # Errors
/// If a calibration set is missing or does not fit its expert.
pub fn check_merge(plan: &Plan) -> Result<(), RunError> {
    calibration_of(plan)?.map_or(Ok(()), |sets| check_sets(plan, &sets))
}

/// How a candidate is merged from an experiment's pool.
pub(crate) fn candidate_plan(
    entry: &CandidateEntry,
    base: (&str, &Path),
    experts: &[(&str, PathBuf)],
) -> Result<Plan, RunError> {
    let names: Vec<&str> = experts.iter().map(|(name, _)| *name).collect();
    let recipe = entry.recipe(base.0, &names).map_err(MergeError::Recipe)?;
    let dirs: Vec<(&str, &Path)> = experts.iter().map(|(name, dir)| (*name, dir.as_path())).chain([base]).collect();
    plan_of(recipe, &dirs)
}

/// A recipe's plan with models of these names in these directories.
pub(crate) fn plan_of(recipe: Recipe, dirs: &[(&str, &Path)]) -> Result<Plan, RunError> {
    let anchor = recipe.fit.as_ref().map(|fit| plan_of((*fit.anchor).clone(), dirs)).transpose()?;
    let mentioned = recipe.models.iter().filter_map(|model| dirs.iter().find(|(name, _)| name == model));
    let models = mentioned.map(|(name, dir)| Model::open(name, dir)).collect::<Result<_, _>>()?;
    let mut plan = Plan::of_models(recipe, models, &PlanOptions::default())?;
    plan.anchor = anchor.map(Box::new);
    Ok(plan)
}

/// Merges an experiment's pool as one of its candidates says.
pub(crate) fn merge_candidate(
    entry: &CandidateEntry,
    base: (&str, &Path),
    experts: &[(&str, PathBuf)],
    sets: &CalibrationOf,
    out: &Path,
    machine: &Machine<'_>,
) -> Result<(), RunError> {
    let plan = candidate_plan(entry, base, experts)?;
    let execution = Execution { shard_size: SHARD, seed: entry.seed, stop: &machine.stop, ..Execution::default() };
    match plan.recipe.fit {
        Some(_) => fit(&plan, sets, out, &execution, machine.compute.budget(), machine.progress)?,
        None => plan.execute(out, &execution)?,
    };
    Ok(())
}
