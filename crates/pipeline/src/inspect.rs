//! Looking at checkpoints: what they hold, how they differ, how far experts are from their base.

use crate::{Progress, RunError};
use rolegraft_checkpoint::{Difference, DifferenceKind, Digest, diff, module_of, open_tensors};
use rolegraft_merge::{Extracted, MergeError, Model, TaskVectors, extract_adapter, task_vectors};
use rolegraft_report::charts::bars;
use rolegraft_report::{Format, Page, Part, Section, Table};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// What was found, in the forms that people and programs read.
pub struct Findings {
    /// Tables as Markdown.
    pub text: String,
    /// The same for programs.
    pub json: Value,
    /// A page with tables and charts.
    pub html: String,
    /// Whether something is not as it was asked to be.
    pub exceeds: bool,
}

fn findings(title: &str, tables: &[Table], charts: Vec<Section>, json: Value, exceeds: bool) -> Findings {
    let text = tables.iter().map(|t| t.render(Format::Markdown)).collect::<Vec<_>>().join("\n");
    let tabled = tables.iter().map(|t| Section::new(&t.title, vec![Part::Table(t.clone())]));
    let sections = charts.into_iter().chain(tabled).collect();
    let html = Page { title: title.to_owned(), sections, ..Page::default() }.render();
    Findings { text, json, html, exceeds }
}

/// Compares two checkpoints (directories, `BASE+ADAPTER` or safetensors files); differences beyond `tolerance` count.
///
/// # Errors
/// If one cannot be read.
pub fn compare(a: &Path, b: &Path, tolerance: f64) -> Result<Findings, RunError> {
    let differences = diff(&open_tensors(a)?, &open_tensors(b)?)?;
    let beyond: Vec<&Difference> = differences.iter().filter(|d| d.kind.exceeds(tolerance)).collect();
    let mut modules: BTreeMap<String, (usize, usize, usize, usize, f64, f64)> = BTreeMap::new();
    let mut odd = Table::new("Tensors that cannot be compared", &["tensor", "why"]);
    for difference in &differences {
        match &difference.kind {
            DifferenceKind::Values { elements, differing, max_abs, max_rel, .. } => {
                let m = modules.entry(module_of(&difference.tensor)).or_default();
                *m = (
                    m.0 + 1,
                    m.1 + usize::from(*differing > 0),
                    m.2 + elements,
                    m.3 + differing,
                    m.4.max(*max_abs),
                    m.5.max(*max_rel),
                );
            }
            other => {
                let why = match other {
                    DifferenceKind::Missing => format!("only in {}", a.display()),
                    DifferenceKind::Extra => format!("only in {}", b.display()),
                    DifferenceKind::Shape { a, b } => format!("{a:?} against {b:?}"),
                    DifferenceKind::Values { .. } => String::new(),
                };
                odd.rows.push(vec![difference.tensor.clone(), why]);
            }
        }
    }
    let head = ["module", "tensors", "differing", "elements differing", "max abs", "max rel"];
    let mut table = Table::new("Differences by module", &head);
    for (module, (tensors, differing, elements, off, max_abs, max_rel)) in &modules {
        let share = 100.0 * *off as f64 / (*elements).max(1) as f64;
        table.rows.push(vec![
            module.clone(),
            tensors.to_string(),
            differing.to_string(),
            format!("{share:.2} %"),
            format!("{max_abs:.3e}"),
            format!("{max_rel:.3e}"),
        ]);
    }
    table.note = format!("{} of {} tensors differ by more than {tolerance:e}", beyond.len(), differences.len());
    let json = json!({
        "a": a, "b": b, "tolerance": tolerance, "tensors": differences.len(), "beyond": beyond.len(),
        "differences": differences,
    });
    let mut tables = vec![table];
    if !odd.rows.is_empty() {
        tables.push(odd);
    }
    Ok(findings("Differences", &tables, Vec::new(), json, !beyond.is_empty()))
}

/// Writes what a checkpoint changed of its base as a LoRA adapter of at most a rank, and says how near it is, tensor by tensor.
///
/// # Errors
/// As [`extract_adapter`], or if one of them is no checkpoint.
pub fn extract_lora(
    (tuned, base): (&Path, &Path),
    rank: usize,
    out: &Path,
    stop: &AtomicBool,
    progress: &dyn Progress,
) -> Result<Findings, RunError> {
    let open = |dir: &Path| Model::open(&dir.display().to_string(), dir);
    let (base, tuned) = (open(base)?, open(tuned)?);
    progress.stage("extract");
    let tell = |done: usize, of: usize| progress.update(done, of, "tensors");
    let extracted = extract_adapter(&base, &tuned, rank, out, stop, &tell)?;
    let mut table = Table::new("Extracted", &["tensor", "rank", "error", "max abs"]);
    for Extracted { tensor, rank, error, max_abs } in &extracted {
        let rank = rank.map_or("saved whole".into(), |rank| rank.to_string());
        table.rows.push(vec![tensor.clone(), rank, format!("{:.2} %", 100.0 * error), format!("{max_abs:.2e}")]);
    }
    table.note = "error: ‖Δ − BA‖ / ‖Δ‖ of what the checkpoint changed, Δ".into();
    let row = |e: &Extracted| json!({"tensor": e.tensor, "rank": e.rank, "error": e.error, "max_abs": e.max_abs});
    let json = json!({"rank": rank, "tensors": extracted.iter().map(row).collect::<Vec<_>>()});
    Ok(findings("LoRA adapter", &[table], Vec::new(), json, false))
}

/// Describes checkpoints, and, with a base, how far each is from it.
///
/// # Errors
/// If one cannot be read, or they do not fit the base.
pub fn inspect(dirs: &[&Path], base: Option<&Path>, progress: &dyn Progress) -> Result<Findings, RunError> {
    let open = |dir: &Path| -> Result<Model, MergeError> { Model::open(&dir.display().to_string(), dir) };
    let models: Vec<Model> = dirs.iter().map(|d| open(d)).collect::<Result<_, _>>()?;
    let mut overview =
        Table::new("Checkpoints", &["", "architecture", "parameters", "size", "dtypes", "tensors", "tokenizer"]);
    let mut described = Vec::new();
    for model in &models {
        let row = describe(model);
        overview.rows.push(vec![
            model.title(),
            text(&row["architecture"]),
            count(row["parameters"].as_u64().unwrap_or(0)),
            format!("{:.2} GB", row["bytes"].as_u64().unwrap_or(0) as f64 / 1e9),
            text(&row["dtypes"]),
            text(&row["tensors"]),
            row["tokenizer"].as_str().map_or("none".into(), |d| d[..12.min(d.len())].to_owned()),
        ]);
        described.push(row);
    }
    let mut tables = vec![overview, modules(&models)];
    let mut charts = Vec::new();
    let mut json = json!({"checkpoints": described});
    if let Some(base) = base {
        let titles: Vec<String> = models.iter().map(Model::title).collect();
        progress.stage("task vectors");
        let vectors = task_vectors(open(base)?, models, &|done, of| progress.update(done, of, "tensors"))?;
        let (more, more_charts, found) = distances(&titles, &vectors);
        tables.extend(more);
        charts = more_charts;
        json["task_vectors"] = found;
    }
    Ok(findings("Checkpoints", &tables, charts, json, false))
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn count(n: u64) -> String {
    match n {
        0..1_000_000 => n.to_string(),
        1_000_000..1_000_000_000 => format!("{:.1} M", n as f64 / 1e6),
        _ => format!("{:.2} B", n as f64 / 1e9),
    }
}

fn describe(model: &Model) -> Value {
    let size = |shape: &[usize]| shape.iter().product::<usize>() as u64;
    let all: Vec<_> = model.tensors.tensors().map(|(_, t)| (t.dtype, size(&t.shape))).collect();
    let dtypes: BTreeSet<&str> = all.iter().map(|(d, _)| d.as_str()).collect();
    let tokenizer = Digest::of_file(&model.dir.join("tokenizer.json")).ok();
    json!({
        "name": model.title(),
        "architecture": model.config["architectures"][0].as_str().or(model.config["model_type"].as_str()).unwrap_or("unknown"),
        "layers": model.config["num_hidden_layers"],
        "hidden_size": model.config["hidden_size"],
        "vocab_size": model.config["vocab_size"],
        "tied": model.config["tie_word_embeddings"],
        "parameters": all.iter().map(|(_, n)| n).sum::<u64>(),
        "bytes": all.iter().map(|(d, n)| n * d.size() as u64).sum::<u64>(),
        "dtypes": dtypes.into_iter().collect::<Vec<_>>().join(", "),
        "tensors": all.len(),
        "files": model.tensors.files().count(),
        "tokenizer": tokenizer.as_ref().map(Digest::as_str),
    })
}

/// Parameters by module; checkpoints side by side.
fn modules(models: &[Model]) -> Table {
    let titles: Vec<String> = models.iter().map(Model::title).collect();
    let head: Vec<&str> = ["module", "shape"].into_iter().chain(titles.iter().map(String::as_str)).collect();
    let mut table = Table::new("Parameters by module", &head);
    let mut rows: BTreeMap<String, (String, Vec<u64>)> = BTreeMap::new();
    for (i, model) in models.iter().enumerate() {
        for (name, tensor) in model.tensors.tensors() {
            let row =
                rows.entry(module_of(name)).or_insert_with(|| (format!("{:?}", tensor.shape), vec![0; models.len()]));
            row.1[i] += tensor.shape.iter().product::<usize>() as u64;
        }
    }
    for (module, (shape, counts)) in rows {
        table.rows.push([module, shape].into_iter().chain(counts.into_iter().map(count)).collect());
    }
    table
}

fn distances(titles: &[String], vectors: &[(String, TaskVectors)]) -> (Vec<Table>, Vec<Section>, Value) {
    let mut total = TaskVectors::default();
    let mut by_module: BTreeMap<String, TaskVectors> = BTreeMap::new();
    for (name, vector) in vectors {
        total.add(vector);
        by_module.entry(module_of(name)).or_default().add(vector);
    }
    let n = titles.len();
    let row = |name: &str, v: &TaskVectors| {
        let each =
            (0..n).flat_map(|i| [format!("{:.4}", v.relative_norm(i)), format!("{:.1} %", 100.0 * v.sparsity(i))]);
        std::iter::once(name.to_owned()).chain(each).collect::<Vec<_>>()
    };
    let heads: Vec<String> = titles.iter().flat_map(|t| [format!("{t}: norm/base"), "unchanged".into()]).collect();
    let head: Vec<&str> = std::iter::once("module").chain(heads.iter().map(String::as_str)).collect();
    let mut norms = Table::new("Task vectors", &head);
    norms.rows.extend(by_module.iter().map(|(module, v)| row(module, v)));
    norms.rows.push(row("all", &total));
    let head: Vec<&str> = std::iter::once("").chain(titles.iter().map(String::as_str)).collect();
    let mut cosines = Table::new("Cosine between task vectors", &head);
    for (i, title) in titles.iter().enumerate() {
        let each = (0..n).map(|j| total.cosine(i, j).map_or("n/a".into(), |c| format!("{c:.4}")));
        cosines.rows.push(std::iter::once(title.clone()).chain(each).collect());
    }
    let groups = |f: &dyn Fn(&TaskVectors, usize) -> f64| -> Vec<(String, Vec<f64>)> {
        let short = |m: &str| m.trim_start_matches("model.layers.*.").trim_end_matches(".weight").to_owned();
        by_module.iter().map(|(m, v)| (short(m), (0..n).map(|i| f(v, i)).collect())).collect()
    };
    let chart = |title: &str, unit: &str, f: &dyn Fn(&TaskVectors, usize) -> f64| {
        Section::new(title, vec![Part::Chart(title.to_owned(), bars(None, unit, titles, &groups(f)))])
    };
    let charts = vec![
        chart("Norm relative to the base's", "norm / base's", &|v, i| v.relative_norm(i)),
        chart("Elements changed", "%", &|v, i| 100.0 * (1.0 - v.sparsity(i))),
    ];
    let value = |v: &TaskVectors| {
        json!({
            "elements": v.elements,
            "norm": (0..n).map(|i| v.norm(i)).collect::<Vec<_>>(),
            "relative_norm": (0..n).map(|i| v.relative_norm(i)).collect::<Vec<_>>(),
            "sparsity": (0..n).map(|i| v.sparsity(i)).collect::<Vec<_>>(),
            "cosine": (0..n).map(|i| (0..n).map(|j| v.cosine(i, j)).collect::<Vec<_>>()).collect::<Vec<_>>(),
        })
    };
    let tensors: serde_json::Map<String, Value> = vectors.iter().map(|(name, v)| (name.clone(), value(v))).collect();
    let json = json!({"experts": titles, "all": value(&total), "tensors": tensors});
    (vec![norms, cosines], charts, json)
}
