//! Merges: `manifest.json` (recipes), `manifest-direct.json` and `manifest-activation.json` (operators), and
//! `resolved-parameters.json`, in a folder or its folders.

use crate::merge_inputs::Inputs;
use crate::tolerance::Tolerance;
use crate::{Report, UnreadableError};
use rolegraft_checkpoint::{Checkpoint, Dtype, Tensors};
use rolegraft_merge::{
    Execution, Model, Plan, PlanOptions, Recipe, Value as Setting, keep_probabilities, read_importance,
};
use rolegraft_saliency::{Importance, channel_importance};
use serde_json::Value;
use std::path::{Path, PathBuf};

type Outcome = Result<(), String>;

/// Replays every merge recorded under `folder`.
///
/// # Errors
/// If there are none, or a manifest cannot be read.
pub fn merge(folder: &Path) -> Result<Report, UnreadableError> {
    let mut report = Report::default();
    for set in with_folders(folder) {
        let name = set.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for manifest in ["manifest.json", "manifest-direct.json", "manifest-activation.json"] {
            let path = set.join(manifest);
            let Some(cases) = read(&path)? else { continue };
            let Some(cases) = cases.as_array() else {
                return Err(UnreadableError::Format { path, reason: "it must be a list of cases".into() });
            };
            for case in cases {
                let label = format!("{name}/{}", case["name"].as_str().unwrap_or("?"));
                let case = Case { set: &set, case };
                report.add(label.clone(), case.run());
                case.also(&label, &mut report);
            }
        }
        if let Some(resolved) = read(&set.join("resolved-parameters.json"))? {
            for (recipe, expected) in resolved.as_object().into_iter().flatten() {
                report.add(format!("{name}/resolved-parameters/{recipe}"), parameters(&set, recipe, expected));
            }
        }
    }
    if report.verdicts.is_empty() {
        let expected = "a manifest.json, or folders that have one, is expected";
        return Err(UnreadableError::Nothing { path: folder.to_owned(), expected });
    }
    Ok(report)
}

/// A folder, and those in it by name.
pub(crate) fn with_folders(folder: &Path) -> Vec<PathBuf> {
    let mut sets = vec![folder.to_owned()];
    if let Ok(entries) = folder.read_dir() {
        sets.extend(entries.flatten().map(|e| e.path()).filter(|p| p.is_dir()));
    }
    sets[1..].sort();
    sets
}

fn read(path: &Path) -> Result<Option<Value>, UnreadableError> {
    if !path.exists() {
        return Ok(None);
    }
    let bytes = std::fs::read(path).map_err(|source| UnreadableError::Read { path: path.to_owned(), source })?;
    let parsed = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|e| UnreadableError::Format { path: path.to_owned(), reason: e.to_string() })
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

struct Case<'c> {
    set: &'c Path,
    case: &'c Value,
}

/// What a plan wrote.
struct Merged {
    plan: Plan,
    dir: tempfile::TempDir,
}

impl Merged {
    fn checkpoint(&self) -> Result<Tensors, String> {
        Tensors::open(self.dir.path().join("out")).map_err(text)
    }
}

impl Case<'_> {
    fn text(&self, field: &str) -> Option<&str> {
        self.case[field].as_str()
    }
    fn file(&self, field: &str) -> Option<PathBuf> {
        self.text(field).map(|f| self.set.join(f))
    }
    fn open(&self, field: &str) -> Result<Option<Tensors>, String> {
        self.file(field).map(Tensors::open).transpose().map_err(text)
    }

    fn run(&self) -> Outcome {
        let merged = self.merge();
        if let Some(error) = self.text("error") {
            return match (layers_of(error), merged) {
                // The reference merges, then fails on its own config.
                (Some(layers), merged) => stacked(&merged?, layers),
                (None, Err(_)) => Ok(()),
                (None, Ok(_)) => Err(format!("the reference refuses ({error}), but this merged")),
            };
        }
        if let Some(why) = self.text("unstable") {
            return self.unstable(why, merged);
        }
        let merged = merged?;
        self.compare(&merged)?;
        self.config(&merged.plan)
    }

    fn merge(&self) -> Result<Merged, String> {
        let mut plan = self.plan()?;
        plan.masks = self.open("masks")?;
        if let Some(statistics) = self.open("stats")? {
            plan.statistics = Some(statistics);
        }
        let dir = tempfile::tempdir().map_err(text)?;
        let execution = Execution { allow_nonfinite: true, ..Execution::default() };
        plan.execute(&dir.path().join("out"), &execution).map_err(text)?;
        Ok(Merged { plan, dir })
    }

    fn plan(&self) -> Result<Plan, String> {
        let truncate_embeddings = self.case["options"]["unsafe_truncate_embeddings"].as_bool().unwrap_or(false);
        // The recordings are mergekit's, whose embeddings have exactly the tokenizer's height.
        let options = PlanOptions { truncate_embeddings, exact_vocab: true };
        if let Some(recipe) = self.file("recipe") {
            let recipe = Recipe::read(&recipe).map_err(text)?;
            return Plan::new(recipe, &[self.set], &options).map_err(text);
        }
        let recipe = Recipe::parse(&self.recipe()?, Path::new("recipe.yaml"))?;
        let Some(merged) = self.file("merged") else {
            return Plan::new(recipe, &[self.set], &options).map_err(text);
        };
        // AIM on a recorded merge, which is a file without a config of its own.
        let base =
            Model::open(self.text("base").unwrap_or("base"), &self.set.join(self.text("base").unwrap_or("base")));
        let base = base.map_err(text)?;
        let merged = Model::of_tensors("merged", Tensors::open(merged).map_err(text)?, base.config.clone());
        let mut plan = Plan::of_models(recipe, vec![base, merged], &options).map_err(text)?;
        plan.importance = self.open("calibration")?.map(|t| read_importance(&t)).transpose().map_err(text)?;
        Ok(plan)
    }

    /// A recipe for a case that was recorded without one.
    fn recipe(&self) -> Result<String, String> {
        let operator = self.text("operator").ok_or("the case names no operator")?;
        let base = self.text("base").ok_or("the case names no base")?;
        let mut recipe = format!("merge_method: {operator}\nbase_model: {base}\nparameters:\n");
        for (name, value) in self.case["parameters"].as_object().into_iter().flatten() {
            let name = if name == "threshold" { "epsilon" } else { name };
            // `exclude` lists what our spectral operators leave out by themselves.
            if !value.is_array() {
                recipe += &format!("  {name}: {value}\n");
            }
        }
        if operator == "aim" {
            // The f32 recordings have the formula alone; only upstream's own program relaxes a tied embedding.
            let leave = !self.text("upstream").is_some_and(|u| u.contains("_utils"));
            recipe +=
                &format!("  of: linear\n  tied: {}\nimportance: recorded\n", if leave { "leave" } else { "head" });
            recipe += &format!(
                "models:\n- {{model: {base}, parameters: {{weight: 0}}}}\n- {{model: merged, parameters: {{weight: 1}}}}\n"
            );
        } else {
            recipe += "models:\n";
            for expert in self.case["experts"].as_array().into_iter().flatten() {
                recipe += &format!("- model: {}\n", expert.as_str().unwrap_or("?"));
            }
        }
        if let Some(compute) = self.text("compute") {
            recipe += &format!("dtype: {compute}\n");
        }
        Ok(recipe)
    }

    fn compare(&self, merged: &Merged) -> Outcome {
        let expected = self.open("expected")?.ok_or("the case has no `expected`")?;
        let ours = merged.checkpoint()?;
        let names = |t: &Tensors| t.tensors().map(|(n, _)| n.to_owned()).collect::<Vec<_>>();
        if names(&ours) != names(&expected) {
            return Err(format!("tensors {:?} instead of {:?}", names(&ours), names(&expected)));
        }
        let (mut all, mut flips) = (0, 0);
        let operator = merged.plan.recipe.operator.spec().name;
        for (name, theirs) in expected.tensors() {
            let mine = ours.tensor(name).ok_or("unreachable")?;
            // Where a float32 factor promotes a 16-bit merge, the reference writes float32; we keep to the recipe's dtype.
            let promoted = theirs.dtype == Dtype::F32 && ["arcee_fusion", "ramplus_tl"].contains(&operator);
            if mine.shape != theirs.shape || (mine.dtype != theirs.dtype && !promoted) {
                return Err(format!("`{name}` is {mine:?} instead of {theirs:?}"));
            }
            let inputs = || Inputs::read(&merged.plan, name);
            if self.ranks_noise() && inputs()?.has_column_of_base() {
                continue;
            }
            let tolerance = Tolerance::of(self.text("tolerance"), mine.dtype, operator);
            let values = |t: &Tensors| {
                let dtype = t.tensor(name).map_or(mine.dtype, |t| t.dtype);
                t.bytes(name).map_err(text).map(|b| dtype.to_f32(b).unwrap_or_default())
            };
            let (a, b) = (values(&ours)?, values(&expected)?);
            all += a.len();
            let off: Vec<usize> = (0..a.len()).filter(|i| !tolerance.accepts(a[*i], b[*i])).collect();
            let Some(first) = off.first() else { continue };
            match operator {
                "arcee_fusion" if inputs()?.each_is_an_input(&off, &a, tolerance) => flips += off.len(),
                "ties" | "breadcrumbs" | "breadcrumbs_ties" | "sce"
                    if matches!(mine.dtype, Dtype::BF16 | Dtype::F16) =>
                {
                    let on_threshold = inputs()?.on_threshold(operator)?;
                    if let Some(i) = off.iter().find(|i| !on_threshold[**i]) {
                        return Err(format!("`{name}`[{i}] is {} instead of {}, and not on a threshold", a[*i], b[*i]));
                    }
                }
                _ => {
                    let (ours, theirs, count) = (a[*first], b[*first], off.len());
                    return Err(format!(
                        "`{name}`[{first}] is {ours} instead of {theirs} ({count} of {} differ)",
                        a.len()
                    ));
                }
            }
        }
        if flips * 1000 > all {
            return Err(format!("{flips} of {all} elements differ, more than one in a thousand"));
        }
        Ok(())
    }

    /// WIDEN from weights ranks rounding noise where a column equals the base's.
    fn ranks_noise(&self) -> bool {
        self.text("operator") == Some("widen") && self.text("stats").is_none()
    }

    fn config(&self, plan: &Plan) -> Outcome {
        // Without a base the reference takes the config of an arbitrary input.
        if plan.recipe.base.is_none() {
            return Ok(());
        }
        for (field, theirs) in self.case["config"].as_object().into_iter().flatten() {
            let ours = match field.as_str() {
                "dtype" | "torch_dtype" => &plan.config["torch_dtype"],
                other => &plan.config[other],
            };
            // Written with a head of its own, a checkpoint is not tied, whatever the reference copies.
            let mended = field == "tie_word_embeddings" && plan.outputs.iter().any(|o| o.name == "lm_head.weight");
            if ours != theirs && !mended {
                return Err(format!("config `{field}` is {ours} instead of {theirs}"));
            }
        }
        Ok(())
    }

    fn unstable(&self, why: &str, merged: Result<Merged, String>) -> Outcome {
        if why.contains("divides by zero") {
            return match merged {
                Err(_) => Ok(()),
                Ok(_) => Err("weights that sum to zero must be refused".into()),
            };
        }
        let merged = merged?;
        let ours = merged.checkpoint()?;
        let operator = merged.plan.recipe.operator.spec().name;
        for (name, tensor) in ours.tensors() {
            let values = tensor.dtype.to_f32(ours.bytes(name).map_err(text)?).unwrap_or_default();
            let inputs = Inputs::read(&merged.plan, name)?;
            let expected = if operator == "arcee_fusion" { None } else { Some(inputs.linear()) };
            for (i, v) in values.iter().enumerate() {
                let near = |x: f32| (v - x).abs() <= 2e-6;
                let fits = match &expected {
                    Some(linear) => near(linear[i]),
                    None => inputs.values.iter().any(|x| near(x[i])),
                };
                if !fits {
                    return Err(format!("`{name}`[{i}] is {v}, which is neither stable nor the rule's"));
                }
            }
        }
        Ok(())
    }

    /// Checks that a case carries besides its result.
    fn also(&self, label: &str, report: &mut Report) {
        if self.text("keep_probabilities").is_some() {
            report.add(format!("{label} (keep probabilities)"), self.probabilities());
        }
        if let Some(calibration) = self.file("calibration").filter(|_| self.text("operator") == Some("aim")) {
            report.add(format!("{label} (importance)"), self.importance(&calibration));
        }
    }

    fn probabilities(&self) -> Outcome {
        let plan = self.plan()?;
        let expected = self.open("keep_probabilities")?.ok_or("the case has no keep probabilities")?;
        let mut compared = 0;
        for output in &plan.outputs {
            let inputs = Inputs::read(&plan, &output.name)?;
            for (i, (model, _)) in output.inputs.iter().enumerate() {
                let name = format!("{}/{}", plan.models[*model].name, output.name);
                let Some(tensor) = expected.tensor(&name) else { continue };
                let number = |p: &str| output.parameters.of(i, p).unwrap_or(0.0);
                let row = output.shape.last().copied().unwrap_or(1);
                let ours = keep_probabilities(&inputs.delta(i), row, number("density"), number("epsilon"));
                let theirs = tensor.dtype.to_f32(expected.bytes(&name).map_err(text)?).unwrap_or_default();
                if let Some(at) = (0..ours.len().max(theirs.len()))
                    .find(|at| !matches!((ours.get(*at), theirs.get(*at)), (Some(a), Some(b)) if (a - b).abs() <= 1e-6))
                {
                    return Err(format!(
                        "`{name}`[{at}] is kept with {:?} instead of {:?}",
                        ours.get(at),
                        theirs.get(at)
                    ));
                }
                compared += 1;
            }
        }
        if compared == expected.tensors().count() {
            Ok(())
        } else {
            Err(format!("only {compared} tensors were compared"))
        }
    }

    /// Importances measured anew, normalised per module, against the recorded ones.
    fn importance(&self, path: &Path) -> Outcome {
        let recorded = Tensors::open(path).map_err(text)?;
        let key = ["blocks", "input_ids"].into_iter().find(|k| recorded.tensor(k).is_some());
        let key = key.ok_or("the recording has neither `blocks` nor `input_ids`")?;
        let width = recorded.tensor(key).and_then(|t| t.shape.last().copied()).unwrap_or(1);
        let ids: Vec<u32> = recorded
            .bytes(key)
            .map_err(text)?
            .chunks_exact(8)
            .map(|b| u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as u32)
            .collect();
        let base = Checkpoint::open(self.file("base").ok_or("the case names no base")?).map_err(text)?;
        let blocks: Vec<Vec<u32>> = ids.chunks(width.max(1)).map(<[u32]>::to_vec).collect();
        let ours: Importance = channel_importance(&base, &blocks, &|_| {}).map_err(text)?;
        let mut compared = 0;
        for (name, tensor) in recorded.tensors() {
            let Some(module) = name.strip_prefix("importance.") else { continue };
            let theirs = tensor.dtype.to_f32(recorded.bytes(name).map_err(text)?).unwrap_or_default();
            let mine = ours.get(module).ok_or_else(|| format!("no importance of `{module}` was measured"))?;
            let (a, b) = (normalised(mine), normalised(&theirs));
            let fits = a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 0.02);
            if !fits {
                return Err(format!("`{module}` is {a:.3?} instead of {b:.3?}"));
            }
            compared += 1;
        }
        if compared > 0 { Ok(()) } else { Err("the recording has no importances".into()) }
    }
}

fn normalised(values: &[f32]) -> Vec<f32> {
    let top = values.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
    values.iter().map(|v| v / top).collect()
}

/// The number of layers that a failure about `num_hidden_layers` names.
fn layers_of(error: &str) -> Option<usize> {
    let rest = error.split_once("`num_hidden_layers` (")?.1;
    rest.split_once(')')?.0.parse().ok()
}

/// A stack: so many layers, numbered from zero, and a config that says the same.
fn stacked(merged: &Merged, layers: usize) -> Outcome {
    let config = &merged.plan.config;
    let found: std::collections::BTreeSet<&str> =
        merged.plan.outputs.iter().filter_map(|o| o.name.split_once("layers.")?.1.split('.').next()).collect();
    let expected: Vec<String> = (0..layers).map(|l| l.to_string()).collect();
    let types = config["layer_types"].as_array().map_or(layers, Vec::len);
    if config["num_hidden_layers"] != layers || types != layers || !expected.iter().all(|l| found.contains(l.as_str()))
    {
        return Err(format!("the stack must have {layers} layers in tensors and config, not {found:?}"));
    }
    Ok(())
}

fn parameters(set: &Path, recipe: &str, expected: &Value) -> Outcome {
    let recipe = Recipe::read(&set.join(format!("recipes/{recipe}.yaml"))).map_err(text)?;
    let plan = Plan::new(recipe, &[set], &PlanOptions::default()).map_err(text)?;
    for (tensor, expected) in expected.as_object().into_iter().flatten() {
        let output =
            plan.outputs.iter().find(|o| o.name == *tensor).ok_or_else(|| format!("`{tensor}` is not planned"))?;
        let shared = &output.parameters.shared;
        same(&expected["shared"], |p| shared.get(p)).map_err(|why| format!("`{tensor}`: {why}"))?;
        for (model, expected) in expected["inputs"].as_object().into_iter().flatten() {
            let at = output.inputs.iter().position(|(m, _)| plan.models[*m].name == *model);
            let at = at.ok_or_else(|| format!("`{tensor}` has no input `{model}`"))?;
            let own = &output.parameters.inputs[at];
            same(expected, |p| own.get(p)).map_err(|why| format!("`{tensor}` of `{model}`: {why}"))?;
        }
    }
    Ok(())
}

fn same<'s>(expected: &Value, ours: impl Fn(&str) -> Option<&'s Setting>) -> Outcome {
    for (name, theirs) in expected.as_object().into_iter().flatten() {
        let fits = match ours(name) {
            Some(Setting::Number(n)) => theirs.as_f64().is_some_and(|t| (t - n).abs() <= 1e-12),
            Some(Setting::Bool(b)) => theirs.as_bool() == Some(*b),
            Some(Setting::Text(t)) => theirs.as_str() == Some(t),
            None => theirs.is_null(),
        };
        if !fits {
            return Err(format!("`{name}` is {:?} instead of {theirs}", ours(name)));
        }
    }
    Ok(())
}
