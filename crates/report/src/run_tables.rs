//! Tables of what a run decided.

use crate::verdict::signed;
use crate::{Benchmark, Scoreboard, Table};

/// Activation overlap of candidates and experts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Overlaps {
    /// Share of a layer's neurons that are salient.
    pub k: f64,
    /// The benchmarks, in the order of columns.
    pub benchmarks: Vec<String>,
    /// A row a candidate.
    pub rows: Vec<OverlapRow>,
    /// Trajectories with a span of the role, and all, by benchmark.
    pub traced: Vec<(String, (usize, usize))>,
    /// Overlap between the benchmarks' sets: of role tokens, and of all tokens of replies.
    pub between: (f64, f64),
}

/// One candidate.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OverlapRow {
    /// Its name.
    pub name: String,
    /// AOS by benchmark.
    pub overlaps: Vec<f64>,
    /// Their mean.
    pub mean: f64,
    /// Its 95 % interval over trajectories.
    pub interval: Option<(f64, f64)>,
    /// The mean of its scores on dev tasks, where these decide.
    pub dev: Option<f64>,
}

/// One benchmark on the dev split.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DiagnosisRow {
    /// The benchmark.
    pub benchmark: String,
    /// Scores of the backbone and of the expert.
    pub scores: (f64, f64),
    /// Their shares of turns with a violation.
    pub violations: (f64, f64),
    /// Their shares of episodes that a violation blocked.
    pub blocked: (f64, f64),
    /// Whether it was called weak.
    pub weak: bool,
}

/// One graft.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GraftRow {
    /// The benchmark that it repairs.
    pub benchmark: String,
    /// The expert that gives.
    pub donor: String,
    /// Per layer, the neurons copied, and those that protection removed.
    pub layers: Vec<(usize, usize)>,
}

pub(crate) fn aos_table(overlaps: &Overlaps, chosen: &str) -> Table {
    let mut head = vec!["candidate"];
    head.extend(overlaps.benchmarks.iter().map(String::as_str));
    head.extend(["mean", "95 % of its resamples"]);
    let dev = overlaps.rows.iter().any(|candidate| candidate.dev.is_some());
    if dev {
        head.push("dev AVG");
    }
    let mut table = Table::new("Activation overlap of candidates and experts (AOS)", &head);
    for candidate in &overlaps.rows {
        let mark = if candidate.name == chosen { " ←" } else { "" };
        let mut row = vec![format!("{}{mark}", candidate.name)];
        row.extend(candidate.overlaps.iter().map(|o| format!("{o:.3}")));
        row.push(format!("{:.3}", candidate.mean));
        row.push(candidate.interval.map_or_else(String::new, |(low, high)| format!("{low:.3} to {high:.3}")));
        if dev {
            row.push(candidate.dev.map_or_else(String::new, |avg| format!("{avg:.1}")));
        }
        table.rows.push(row);
    }
    let traced: Vec<String> = overlaps.traced.iter().map(|(b, (with, of))| format!("{b} {with} of {of}")).collect();
    table.note = format!(
        "k = {}; trajectories with a span of the role: {}. Overlap between benchmarks' sets: role tokens {:.3}, all response tokens {:.3}.",
        overlaps.k,
        traced.join(", "),
        overlaps.between.0,
        overlaps.between.1
    );
    table
}

pub(crate) fn diagnosis_table(rows: &[DiagnosisRow]) -> Table {
    let head = [
        "benchmark",
        "backbone",
        "expert",
        "gap",
        "violations (backbone, expert)",
        "blocked (backbone, expert)",
        "weak",
    ];
    let mut table = Table::new("Diagnosis on the dev split", &head);
    for row in rows {
        table.rows.push(vec![
            row.benchmark.clone(),
            format!("{:.1}", row.scores.0),
            format!("{:.1}", row.scores.1),
            format!("{:+.1}", row.scores.1 - row.scores.0),
            format!("{:.3}, {:.3}", row.violations.0, row.violations.1),
            format!("{:.3}, {:.3}", row.blocked.0, row.blocked.1),
            if row.weak { "yes" } else { "no" }.into(),
        ]);
    }
    table
}

pub(crate) fn transplant_table(grafts: &[GraftRow], contested: usize) -> Table {
    let mut table = Table::new("Transplant", &["benchmark", "donor", "neurons", "removed by protection", "per layer"]);
    for graft in grafts {
        let layers: Vec<String> =
            graft.layers.iter().map(|(copied, removed)| format!("{}−{removed}", copied + removed)).collect();
        table.rows.push(vec![
            graft.benchmark.clone(),
            graft.donor.clone(),
            graft.layers.iter().map(|(copied, _)| copied).sum::<usize>().to_string(),
            graft.layers.iter().map(|(_, removed)| removed).sum::<usize>().to_string(),
            layers.join(" "),
        ]);
    }
    table.note = format!(
        "Per layer: the donor's salient neurons minus those that protection removed. Claimed by more than one graft: {contested}.",
    );
    table
}

/// What the repair changed on the test split.
pub(crate) fn before_and_after(board: &Scoreboard, backbone: &str, result: &str, diagnosis: &[DiagnosisRow]) -> Table {
    let head = ["benchmark", "called weak", backbone, result, "change", "95 %"];
    let mut table = Table::new("Before and after the repair, on the test split", &head);
    table.note = "Points on the same tasks, with the paired bootstrap interval.".into();
    let (Some(before), Some(after)) = (board.model(backbone), board.model(result)) else { return table };
    let called = |b: &Benchmark| match diagnosis.iter().find(|d| d.benchmark == b.id) {
        Some(row) if row.weak => "yes",
        Some(_) => "no",
        None => "–",
    };
    let shown = |score: Option<f64>| score.map_or("–".into(), |s| format!("{s:.1}"));
    let mut push = |title: &str, weak: &str, scores: (Option<f64>, Option<f64>), change: Option<crate::Difference>| {
        table.rows.push(vec![
            title.to_owned(),
            weak.to_owned(),
            shown(scores.0),
            shown(scores.1),
            change.map_or("–".into(), |c| signed(c.points)),
            change.map_or("–".into(), |c| format!("{} to {}", signed(c.low), signed(c.high))),
        ]);
    };
    for b in &board.benchmarks {
        push(&b.title, called(b), (before.score(b), after.score(b)), board.difference(after, before, b));
    }
    let avg = |model| board.summary(model).map(|s| s.avg);
    push("AVG", "", (avg(before), avg(after)), board.average_difference(after, &|_| Some(before)));
    table
}

pub(crate) fn energy_table(energy: &[(String, [f64; 4])]) -> Table {
    let head = ["expert", "attention", "MLP", "embedding and head", "norms"];
    let mut table = Table::new("Where the task vectors lie (% of squared norm)", &head);
    for (name, parts) in energy {
        let mut row = vec![name.clone()];
        row.extend(parts.iter().map(|p| format!("{:.1}", 100.0 * p)));
        table.rows.push(row);
    }
    table.note = "A graft can only carry what lies in the MLPs.".into();
    table
}

pub(crate) fn time_table(timings: &[(String, f64)]) -> Table {
    let mut table = Table::new("Where the time went in this call", &["stage", "seconds", "%"]);
    let total: f64 = timings.iter().map(|(_, s)| s).sum();
    for (stage, seconds) in timings {
        let share = 100.0 * seconds / total.max(1e-9);
        table.rows.push(vec![stage.clone(), format!("{seconds:.1}"), format!("{share:.0}")]);
    }
    table.rows.push(vec!["all".into(), format!("{total:.1}"), "100".into()]);
    table.note = "Stages taken from the cache take no time.".into();
    table
}

pub(crate) fn provenance_table(provenance: &[(String, String)]) -> Table {
    let mut table = Table::new("What this run was made from", &["what", "which"]);
    table.rows = provenance.iter().map(|(what, which)| vec![what.clone(), which.clone()]).collect();
    table
}
