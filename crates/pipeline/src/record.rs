//! What a run leaves in its directory: report, logs, saliency files, the ARM checkpoint, and a record.

use crate::error::RunError;
use crate::experiment::{BenchmarkEntry, Experiment};
use crate::logs::write_report;
use crate::machine::Member;
use crate::stages::diagnose::Diagnosed;
use crate::stages::select::Selected;
use crate::stages::transplant::Planned;
use crate::store::StoreError;
use rolegraft_checkpoint::{WriteError, write_atomic};
use rolegraft_graft::Signal;
use rolegraft_report::{Benchmark, DiagnosisRow, Format, GraftRow, OverlapRow, Overlaps, RunReport, with_scores};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Everything the outputs are made of.
pub(crate) struct Results {
    /// Models, with the logs of their test episodes.
    pub(crate) models: Vec<(Member, Vec<PathBuf>)>,
    /// Test tasks by suite.
    pub(crate) tasks: BTreeMap<String, BTreeSet<String>>,
    pub(crate) selected: Selected,
    pub(crate) diagnosed: Diagnosed,
    pub(crate) planned: Planned,
    pub(crate) energy: Vec<(String, [f64; 4])>,
    /// Files of the run by the name that they get in its directory.
    pub(crate) files: Vec<(String, PathBuf)>,
    pub(crate) overlap: (f64, f64),
    pub(crate) timings: Vec<(String, f64)>,
    /// Benchmarks that were not run, with what the machine lacks for them.
    pub(crate) left_out: Vec<(String, String)>,
    /// Trajectories with a span of the role, and all, by benchmark.
    pub(crate) traced: BTreeMap<String, (usize, usize)>,
}

pub(crate) fn benchmark(entry: &BenchmarkEntry) -> Benchmark {
    Benchmark { id: entry.id.clone(), title: entry.title.clone(), suites: entry.suites.clone() }
}

/// Writes everything and gives the tables as Markdown.
pub(crate) fn write(experiment: &Experiment, dir: &Path, results: &Results) -> Result<String, RunError> {
    let report = report(experiment, results);
    let (tables, scores) = write_report(dir, |put| report.write(put))?;
    leave(dir, &results.files)?;
    if let Some((arm, _)) = results.models.iter().find(|(m, _)| m.name == "arm") {
        let to = dir.join("arm");
        if to.exists() {
            std::fs::remove_dir_all(&to).map_err(|source| StoreError::Io { path: to.clone(), source })?;
        }
        for entry in arm.dir.read_dir().into_iter().flatten().flatten() {
            link(&entry.path(), &to.join(entry.file_name()))?;
        }
        // A file of its own: the store's says nothing of what was played.
        let card = to.join("README.md");
        let text = std::fs::read_to_string(&card).unwrap_or_default();
        write_atomic(&card, with_scores(&text, &scores).as_bytes()).map_err(StoreError::Write)?;
    }
    let record = json!({
        "format": 1, "program": env!("CARGO_PKG_VERSION"), "experiment": experiment,
        "suite": experiment.registry.check(&experiment.suite)?,
        "selection": results.selected.selection, "dev": results.selected.dev, "diagnosis": results.diagnosed.diagnosis, "plan": results.planned.plan,
        "seconds": results.timings, "not_run": results.left_out,
    });
    let bytes = serde_json::to_vec_pretty(&record).unwrap_or_default();
    write_atomic(&dir.join("run.json"), &bytes).map_err(|e| RunError::Store(e.into()))?;
    let shown = ["aos", "diagnosis", "transplant", "table1", "table3", "paired", "table6", "table8", "time"];
    let tables = shown.iter().filter_map(|n| tables.iter().find(|(t, _)| t == n));
    let tables: String = tables.map(|(_, t)| t.render(Format::Markdown) + "\n").collect();
    Ok(tables + &not_run(&results.left_out))
}

/// Says what tables do not show.
pub(crate) fn not_run(left_out: &[(String, String)]) -> String {
    left_out.iter().map(|(title, lacks)| format!("Not run: {title}, for which this machine lacks {lacks}.\n")).collect()
}

/// Puts files of the store into a run's directory, each under its name there.
pub(crate) fn leave(dir: &Path, files: &[(String, PathBuf)]) -> Result<(), StoreError> {
    files.iter().try_for_each(|(name, from)| link(from, &dir.join(name)))
}

/// A hard link, or a copy where the file system has none.
fn link(from: &Path, to: &Path) -> Result<(), StoreError> {
    let make = || {
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let _ = std::fs::remove_file(to);
        std::fs::hard_link(from, to).or_else(|_| std::fs::copy(from, to).map(|_| ()))
    };
    make().map_err(|source| StoreError::Write(WriteError { path: to.to_owned(), source }))
}

/// The results as plain values.
fn report(experiment: &Experiment, results: &Results) -> RunReport {
    let (selection, plan) = (&results.selected.selection, &results.planned.plan);
    let candidates =
        selection.rows.iter().zip(&results.selected.intervals).enumerate().map(|(at, (row, interval))| OverlapRow {
            name: row.0.clone(),
            overlaps: row.1.clone(),
            mean: row.2,
            interval: *interval,
            dev: results.selected.dev.as_ref().and_then(|dev| Some(dev.get(at)?.1)),
        });
    let diagnosis = &results.diagnosed.diagnosis;
    let signal = |s: &Signal| DiagnosisRow {
        benchmark: s.benchmark.clone(),
        scores: (s.backbone, s.expert),
        violations: (s.backbone_violations, s.expert_violations),
        blocked: (s.backbone_blocked, s.expert_blocked),
        weak: diagnosis.weak.iter().any(|(b, _)| *b == s.benchmark),
    };
    let grafts = plan.grafts.iter().map(|graft| GraftRow {
        benchmark: graft.benchmark.clone(),
        donor: graft.donor.clone(),
        layers: graft.neurons.layers.iter().map(BTreeSet::len).zip(graft.protected_away.iter().copied()).collect(),
    });
    RunReport {
        name: experiment.name.clone(),
        seed: experiment.seed,
        tasks: results.tasks.clone(),
        benchmarks: experiment.benchmark.iter().map(benchmark).collect(),
        experts: experiment.pool.experts.keys().cloned().collect(),
        models: results.models.iter().map(|(member, logs)| (member.name.clone(), logs.clone())).collect(),
        result: "arm".into(),
        backbone: selection.chosen.clone(),
        overlaps: Overlaps {
            k: experiment.saliency.k,
            benchmarks: selection.benchmarks.clone(),
            rows: candidates.collect(),
            traced: results.traced.iter().map(|(b, counts)| (b.clone(), *counts)).collect(),
            between: results.overlap,
        },
        diagnosis: diagnosis.signals.iter().map(signal).collect(),
        grafts: grafts.collect(),
        contested: plan.contested,
        energy: results.energy.clone(),
        timings: results.timings.clone(),
        provenance: provenance(experiment, results),
    }
}

fn provenance(experiment: &Experiment, results: &Results) -> Vec<(String, String)> {
    let mut rows = vec![
        ("program".to_owned(), format!("rolegraft {}", env!("CARGO_PKG_VERSION"))),
        ("experiment".to_owned(), experiment.name.clone()),
        ("seed".to_owned(), experiment.seed.to_string()),
        ("engine".to_owned(), format!("{:?}", experiment.engine).to_lowercase()),
    ];
    rows.extend(
        results.left_out.iter().map(|(title, lacks)| ("not run".to_owned(), format!("{title}: lacks {lacks}"))),
    );
    rows.extend(results.models.iter().map(|(m, _)| (format!("weights of {}", m.name), m.digest.to_string())));
    rows
}
