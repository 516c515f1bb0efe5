//! What a run leaves in its directory: tables, page, logs, saliency files, the ARM checkpoint, and a record.

use crate::error::RunError;
use crate::experiment::{BenchmarkEntry, Experiment};
use crate::machine::Member;
use crate::stages::diagnose::Diagnosed;
use crate::stages::select::Selected;
use crate::stages::transplant::Planned;
use crate::store::StoreError;
use rolegraft_checkpoint::{WriteError, write_atomic};
use rolegraft_report::{
    Benchmark, FailureRates, Format, ModelScores, Page, Scoreboard, Section, Table, bar_chart, correlation,
    failure_rates, pair, paired_view, ranks, scatter_chart, status_table, unparsable_table, violation_table,
};
use rolegraft_trajectory::Episode;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Everything the outputs are made of.
pub(crate) struct Results {
    pub(crate) models: Vec<Member>,
    pub(crate) test: BTreeMap<String, Vec<Episode>>,
    pub(crate) selected: Selected,
    pub(crate) diagnosed: Diagnosed,
    pub(crate) planned: Planned,
    pub(crate) energy: Vec<(String, [f64; 4])>,
    /// Files of the run by the name that they get in its directory.
    pub(crate) files: Vec<(String, PathBuf)>,
    pub(crate) overlap: (f64, f64),
    pub(crate) timings: Vec<(String, f64)>,
    /// Trajectories with a span of the role, and all, by benchmark.
    pub(crate) traced: BTreeMap<String, (usize, usize)>,
}

/// Pairs shown on the page.
const PAIRS: usize = 40;

pub(crate) fn benchmark(entry: &BenchmarkEntry) -> Benchmark {
    Benchmark { id: entry.id.clone(), title: entry.title.clone(), suites: entry.suites.clone() }
}

/// Writes everything and gives the tables as Markdown.
pub(crate) fn write(experiment: &Experiment, dir: &Path, results: &Results) -> Result<String, RunError> {
    let board = Scoreboard {
        benchmarks: experiment.benchmark.iter().map(benchmark).collect(),
        models: results.models.iter().map(|m| ModelScores::new(&m.name, &results.test[&m.name])).collect(),
        experts: experiment.pool.experts.keys().cloned().collect(),
        seed: experiment.seed,
    };
    let rates = rates(experiment, results);
    let tables = [
        ("table1", board.table1()),
        ("table3", board.table3()),
        ("paired", board.paired("arm")),
        ("aos", aos_table(experiment, results)),
        ("diagnosis", diagnosis_table(results)),
        ("transplant", transplant_table(results)),
        ("table6", unparsable_table(&rates)),
        ("table7", violation_table(&rates)),
        ("table8", status_table(&rates)),
        ("energy", energy_table(results)),
        ("time", time_table(results)),
    ];
    let put = |path: &Path, bytes: &[u8]| write_atomic(path, bytes).map_err(|e| RunError::Store(e.into()));
    for (name, table) in &tables {
        for (format, end) in [(Format::Csv, "csv"), (Format::Markdown, "md"), (Format::Latex, "tex")] {
            put(&dir.join("tables").join(format!("{name}.{end}")), table.render(format).as_bytes())?;
        }
    }
    let tables_only: Vec<&Table> = tables.iter().map(|(_, t)| t).collect();
    put(&dir.join("report.html"), page(experiment, results, &board, &tables_only).render().as_bytes())?;
    for (name, from) in &results.files {
        link(from, &dir.join(name))?;
    }
    if let Some(arm) = results.models.iter().find(|m| m.name == "arm") {
        let to = dir.join("arm");
        if to.exists() {
            std::fs::remove_dir_all(&to).map_err(|source| StoreError::Io { path: to.clone(), source })?;
        }
        for entry in arm.dir.read_dir().into_iter().flatten().flatten() {
            link(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    let record = json!({
        "format": 1, "program": env!("CARGO_PKG_VERSION"), "experiment": experiment,
        "suite": experiment.registry.check(&experiment.suite)?,
        "selection": results.selected.selection, "diagnosis": results.diagnosed.diagnosis, "plan": results.planned.plan,
        "seconds": results.timings,
    });
    put(&dir.join("run.json"), &serde_json::to_vec_pretty(&record).unwrap_or_default())?;
    let shown = ["aos", "diagnosis", "transplant", "table1", "table3", "paired", "table6", "table8", "time"];
    Ok(shown
        .iter()
        .filter_map(|n| tables.iter().find(|(t, _)| t == n))
        .map(|(_, t)| t.render(Format::Markdown) + "\n")
        .collect())
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

fn rates(experiment: &Experiment, results: &Results) -> Vec<(String, String, FailureRates)> {
    let mut rows = Vec::new();
    for suite in experiment.benchmark.iter().flat_map(|b| &b.suites) {
        for model in &results.models {
            let episodes = results.test[&model.name].iter().filter(|e| e.key.suite == *suite);
            rows.push((suite.clone(), model.name.clone(), failure_rates(episodes)));
        }
    }
    rows
}

fn aos_table(experiment: &Experiment, results: &Results) -> Table {
    let selection = &results.selected.selection;
    let mut head = vec!["candidate"];
    head.extend(selection.benchmarks.iter().map(String::as_str));
    head.extend(["mean", "95 % of its resamples"]);
    let mut table = Table::new("Activation overlap of candidates and experts (AOS)", &head);
    for ((name, overlaps, mean), interval) in selection.rows.iter().zip(&results.selected.intervals) {
        let mark = if *name == selection.chosen { " ←" } else { "" };
        let mut row = vec![format!("{name}{mark}")];
        row.extend(overlaps.iter().map(|o| format!("{o:.3}")));
        row.push(format!("{mean:.3}"));
        row.push(interval.map_or_else(String::new, |(low, high)| format!("{low:.3} to {high:.3}")));
        table.rows.push(row);
    }
    let traced: Vec<String> = results.traced.iter().map(|(b, (with, of))| format!("{b} {with} of {of}")).collect();
    table.note = format!(
        "k = {}; trajectories with a span of the role: {}. Overlap between benchmarks' sets: role tokens {:.3}, all response tokens {:.3}.",
        experiment.saliency.k,
        traced.join(", "),
        results.overlap.0,
        results.overlap.1
    );
    table
}

fn diagnosis_table(results: &Results) -> Table {
    let mut table = Table::new(
        "Diagnosis on the dev split",
        &[
            "benchmark",
            "backbone",
            "expert",
            "gap",
            "violations (backbone, expert)",
            "blocked (backbone, expert)",
            "weak",
        ],
    );
    for s in &results.diagnosed.diagnosis.signals {
        let weak = results.diagnosed.diagnosis.weak.iter().any(|(b, _)| *b == s.benchmark);
        table.rows.push(vec![
            s.benchmark.clone(),
            format!("{:.1}", s.backbone),
            format!("{:.1}", s.expert),
            format!("{:+.1}", s.expert - s.backbone),
            format!("{:.3}, {:.3}", s.backbone_violations, s.expert_violations),
            format!("{:.3}, {:.3}", s.backbone_blocked, s.expert_blocked),
            if weak { "yes" } else { "no" }.into(),
        ]);
    }
    table
}

fn transplant_table(results: &Results) -> Table {
    let mut table = Table::new("Transplant", &["benchmark", "donor", "neurons", "removed by protection", "per layer"]);
    for graft in &results.planned.plan.grafts {
        let layers: Vec<String> = graft
            .neurons
            .layers
            .iter()
            .zip(&graft.protected_away)
            .map(|(n, p)| format!("{}−{p}", n.len() + p))
            .collect();
        table.rows.push(vec![
            graft.benchmark.clone(),
            graft.donor.clone(),
            graft.neurons.len().to_string(),
            graft.protected_away.iter().sum::<usize>().to_string(),
            layers.join(" "),
        ]);
    }
    table.note = format!(
        "Per layer: the donor's salient neurons minus those that protection removed. Claimed by more than one graft: {}.",
        results.planned.plan.contested
    );
    table
}

fn energy_table(results: &Results) -> Table {
    let mut table = Table::new(
        "Where the task vectors lie (% of squared norm)",
        &["expert", "attention", "MLP", "embedding and head", "norms"],
    );
    for (name, parts) in &results.energy {
        let mut row = vec![name.clone()];
        row.extend(parts.iter().map(|p| format!("{:.1}", 100.0 * p)));
        table.rows.push(row);
    }
    table.note = "A graft can only carry what lies in the MLPs.".into();
    table
}

fn time_table(results: &Results) -> Table {
    let mut table = Table::new("Where the time went in this call", &["stage", "seconds", "%"]);
    let total: f64 = results.timings.iter().map(|(_, s)| s).sum();
    for (stage, seconds) in &results.timings {
        table.rows.push(vec![
            stage.clone(),
            format!("{seconds:.1}"),
            format!("{:.0}", 100.0 * seconds / total.max(1e-9)),
        ]);
    }
    table.rows.push(vec!["all".into(), format!("{total:.1}"), "100".into()]);
    table.note = "Stages taken from the cache take no time.".into();
    table
}

fn page(experiment: &Experiment, results: &Results, board: &Scoreboard, tables: &[&Table]) -> Page {
    let backbone = results.selected.selection.chosen.as_str();
    let pairs = pair(&results.test[backbone], &results.test["arm"]);
    let series: Vec<String> = board.benchmarks.iter().map(|b| b.title.clone()).collect();
    let groups: Vec<(String, Vec<f64>)> = board
        .models
        .iter()
        .map(|m| (m.name.clone(), board.benchmarks.iter().map(|b| m.score(b).unwrap_or(0.0)).collect()))
        .collect();
    let points: Vec<(String, f64, f64)> = results
        .selected
        .selection
        .rows
        .iter()
        .filter_map(|(name, _, aos)| Some((name.clone(), *aos, board.summary(board.model(name)?)?.avg)))
        .collect();
    let (x, y): (Vec<f64>, Vec<f64>) = points.iter().map(|p| (p.1, p.2)).unzip();
    let shown = |c: Option<f64>| c.map_or("undefined".into(), |c| format!("{c:.2}"));
    let relation = format!(
        "<p>AOS against AVG over {} candidates: Pearson {}, Spearman {}.</p>",
        points.len(),
        shown(correlation(&x, &y)),
        shown(correlation(&ranks(&x), &ranks(&y)))
    );
    let html = |range: std::ops::Range<usize>| tables[range].iter().map(|t| t.render(Format::Html)).collect::<String>();
    Page {
        title: format!("rolegraft: {}", experiment.name),
        summary: format!(
            "{} models, {} suites, {} test tasks a suite, seed {}. Every model plays the same tasks with the same draws.",
            board.models.len(),
            experiment.benchmark.iter().map(|b| b.suites.len()).sum::<usize>(),
            experiment.tasks.test,
            experiment.seed
        ),
        sections: vec![
            Section {
                title: format!("Paired view: {backbone} and arm"),
                body: paired_view((backbone, "arm"), &pairs, PAIRS),
            },
            Section { title: "Scores".into(), body: bar_chart(&series, &groups) + &html(0..3) },
            Section {
                title: "Selection".into(),
                body: scatter_chart(("AOS", "AVG"), &points) + &relation + &html(3..4),
            },
            Section { title: "Repair".into(), body: html(4..6) },
            Section { title: "Failures".into(), body: html(6..9) },
            Section { title: "Cost".into(), body: html(9..11) },
        ],
    }
}
