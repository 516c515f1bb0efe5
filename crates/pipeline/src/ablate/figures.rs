//! What an ablation shows: charts, tables, and a sentence on each.

use crate::ablate::values::{Ablation, CandidatePoint, Changed, Overlap, Score};
use rolegraft_graft::Protect;
use rolegraft_report::charts::{Point, Series, lines, scatter};
use rolegraft_report::{Part, Section, Table, correlation, ranks};

/// A figure or a check: what it shows, and the values.
#[derive(Default)]
pub(crate) struct Finding {
    /// Names its files.
    pub(crate) id: &'static str,
    /// Its heading.
    pub(crate) title: &'static str,
    /// A sentence on what it shows.
    pub(crate) says: String,
    /// An SVG, for a figure.
    pub(crate) chart: Option<String>,
    /// Its values.
    pub(crate) table: Table,
}

impl Finding {
    /// Its section of the page.
    pub(crate) fn section(&self) -> Section {
        let mut parts = vec![Part::Text(self.says.clone())];
        parts.extend(self.chart.clone().map(|chart| Part::Chart(self.title.to_owned(), chart)));
        parts.push(Part::Table(self.table.clone()));
        Section::new(self.title, parts)
    }
}

/// The figures and the checks, in the order of the page.
pub(crate) fn findings(ablation: &Ablation) -> Vec<Finding> {
    vec![
        selection(ablation),
        overlap(ablation),
        sweep(ablation),
        one_expert(ablation),
        tokens(ablation),
        jitter(ablation),
        calibration(ablation),
    ]
}

/// What was varied and played, in words.
pub(crate) fn summary(ablation: &Ablation) -> String {
    let (k, protect, tokens) = &ablation.settings;
    format!(
        "k = {k}, protection {}, {} tokens where nothing else is said. AVG is the mean over the benchmarks that experts serve, of the first \
         {} test tasks of a suite, or of all where it has fewer, played with {} seeds; its 95 % interval is a bootstrap over tasks and seeds.",
        protect.as_str(),
        tokens.as_str(),
        ablation.grid.tasks,
        ablation.grid.seeds
    )
}

fn shown(value: Option<f64>) -> String {
    value.map_or_else(|| "undefined".into(), |value| format!("{value:.2}"))
}

fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.into_iter().collect();
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn cells(score: &Score) -> [String; 3] {
    [score.avg, score.low, score.high].map(|value| format!("{value:.1}"))
}

fn said(score: &Score) -> String {
    format!("{:.1} ({:.1} to {:.1})", score.avg, score.low, score.high)
}

/// Whether intervals lie apart, in words.
fn apart(a: &Score, b: &Score) -> &'static str {
    if a.low > b.high || b.low > a.high { "the intervals lie apart" } else { "the intervals overlap" }
}

/// Figure 3: AOS against AVG.
fn selection(ablation: &Ablation) -> Finding {
    let candidates = &ablation.selection;
    let mut table = Table::new("Values", &["candidate", "AOS", "low", "high", "AVG", "low", "high"]);
    for c in candidates {
        let interval =
            c.interval.map_or_else(Default::default, |(low, high)| [format!("{low:.4}"), format!("{high:.4}")]);
        table.rows.push([&[c.name.clone(), format!("{:.4}", c.aos)][..], &interval, &cells(&c.score)].concat());
    }
    table.note = "AOS with the interval of its resamples over trajectories.".into();
    let point = |c: &CandidatePoint| Point {
        name: c.name.clone(),
        at: (c.aos, c.score.avg),
        x_range: c.interval.unwrap_or((c.aos, c.aos)),
        y_range: (c.score.low, c.score.high),
    };
    let points: Vec<Point> = candidates.iter().map(point).collect();
    let (x, y): (Vec<f64>, Vec<f64>) = points.iter().map(|p| p.at).unzip();
    let ahead = y.iter().filter(|avg| **avg > ablation.backbone_score.avg).count();
    let place = if ahead == 0 { "none scores higher".into() } else { format!("{ahead} of them score higher") };
    Finding {
        id: "figure3",
        title: "Figure 3: overlap against score",
        says: format!(
            "Over {} candidates AOS and AVG correlate with Pearson's {} and Spearman's {}; the one of highest AOS is `{}` with AVG {}, and {place}.",
            candidates.len(),
            shown(correlation(&x, &y)),
            shown(correlation(&ranks(&x), &ranks(&y))),
            ablation.backbone,
            said(&ablation.backbone_score),
        ),
        chart: Some(scatter(None, "AOS", "AVG", &points)),
        table,
    }
}

/// Figure 4: how much the experts' sets share.
fn overlap(ablation: &Ablation) -> Finding {
    let all = &ablation.overlap;
    let mut table = Table { title: "Values".into(), head: vec!["layer".into()], ..Table::default() };
    for o in all {
        table.head.push(o.tokens.as_str().into());
        table.head.extend(o.pairs.iter().map(|(a, b, _)| format!("{}: {a}, {b}", o.tokens.as_str())));
    }
    for layer in 0..all.iter().map(|o| o.union.len()).max().unwrap_or(0) {
        let mut row = vec![layer.to_string()];
        for o in all {
            let values = std::iter::once(&o.union).chain(o.pairs.iter().map(|(.., values)| values));
            row.extend(values.map(|v| v.get(layer).map_or_else(String::new, |v| format!("{v:.4}"))));
        }
        table.rows.push(row);
    }
    table.note = "The share of the union that at least two benchmarks have; then of each pair of benchmarks, its Jaccard overlap.".into();
    let series = |o: &Overlap| Series {
        name: format!("{} tokens", o.tokens.as_str()),
        points: o.union.iter().enumerate().map(|(layer, v)| (layer as f64, *v, *v, *v)).collect(),
    };
    let each = all.iter().map(|o| format!("{} tokens {:.3}", o.tokens.as_str(), mean(o.union.iter().copied())));
    let mut says =
        format!("Shared by at least two benchmarks, on average over layers: {}", each.collect::<Vec<_>>().join(", "));
    if let [first, second, ..] = all.as_slice() {
        let less = first.union.iter().zip(&second.union).filter(|(a, b)| a < b).count();
        says += &format!("; {} tokens share less in {less} of {} layers", first.tokens.as_str(), first.union.len());
    }
    Finding {
        id: "figure4",
        title: "Figure 4: overlap of the experts' sets",
        says: says + ".",
        chart: Some(lines(None, "layer", "overlap", &all.iter().map(series).collect::<Vec<_>>())),
        table,
    }
}

/// Figure 5: the score over k, protected and not.
fn sweep(ablation: &Ablation) -> Finding {
    let points = &ablation.sweep;
    let mut table =
        Table::new("Values", &["protection", "k", "neurons", "removed by protection", "AVG", "low", "high"]);
    for p in points {
        let head = [p.protect.as_str().into(), p.k.to_string(), p.neurons.to_string(), p.protected_away.to_string()];
        table.rows.push([&head[..], &cells(&p.score)].concat());
    }
    let blank = || "–".to_owned();
    table
        .rows
        .push([&["backbone".into(), blank(), "0".into(), blank()][..], &cells(&ablation.backbone_score)].concat());
    let weak: Vec<&str> = ablation.weak.iter().map(|(benchmark, _)| benchmark.as_str()).collect();
    table.note = format!("Weak: {}.", if weak.is_empty() { "nothing".into() } else { weak.join(", ") });
    let line = |protect: &Protect| {
        let mut points: Vec<_> = points
            .iter()
            .filter(|p| p.protect == *protect)
            .map(|p| (p.k, p.score.avg, p.score.low, p.score.high))
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Series { name: format!("protection {}", protect.as_str()), points }
    };
    let mut series: Vec<Series> = ablation.grid.protect.iter().map(line).collect();
    let ends = [f64::min, f64::max].map(|pick| ablation.grid.k.iter().copied().reduce(pick).unwrap_or(0.0));
    let avg = ablation.backbone_score.avg;
    let level = ends.map(|k| (k, avg, avg, avg)).to_vec();
    series.push(Series { name: format!("{}, nothing transplanted", ablation.backbone), points: level });
    let says = match points.iter().reduce(|a, b| if b.score.avg > a.score.avg { b } else { a }) {
        Some(best) => format!(
            "Of {} transplants the best on these tasks, k = {} with protection {}, has AVG {}; the backbone as it is has {}: {}.",
            points.len(),
            best.k,
            best.protect.as_str(),
            said(&best.score),
            said(&ablation.backbone_score),
            apart(&best.score, &ablation.backbone_score)
        ),
        None => "No transplant was made.".into(),
    };
    Finding {
        id: "figure5",
        title: "Figure 5: how much is transplanted",
        says,
        chart: Some(lines(None, "k", "AVG", &series)),
        table,
    }
}

/// The check on pools of one expert.
fn one_expert(ablation: &Ablation) -> Finding {
    let all = &ablation.one_expert;
    let mut table = Table::new("Values", &["expert", "AOS", "weak benchmarks", "neurons taken"]);
    for one in all {
        table.rows.push(vec![
            one.expert.clone(),
            format!("{:.4}", one.aos),
            one.weak.to_string(),
            one.neurons.to_string(),
        ]);
    }
    let holds = all.iter().filter(|one| one.aos == 1.0 && one.weak == 0 && one.neurons == 0).count();
    Finding {
        id: "one-expert",
        title: "Check: a pool of one expert",
        says: format!("AOS is 1 and nothing is transplanted for {holds} of {} experts.", all.len()),
        table,
        ..Finding::default()
    }
}

/// The check of role tokens against others.
fn tokens(ablation: &Ablation) -> Finding {
    let all = &ablation.tokens;
    let mut table =
        Table::new("Values", &["tokens", "backbone", "its AOS", "weak", "neurons taken", "AVG", "low", "high"]);
    for t in all {
        let head = [
            t.tokens.as_str().into(),
            t.backbone.clone(),
            format!("{:.4}", t.aos),
            t.weak.join(" "),
            t.neurons.to_string(),
        ];
        table.rows.push([&head[..], &cells(&t.score)].concat());
    }
    let each = all.iter().map(|t| {
        format!(
            "{} tokens choose `{}` and take {} neurons, AVG {}",
            t.tokens.as_str(),
            t.backbone,
            t.neurons,
            said(&t.score)
        )
    });
    let mut says = each.collect::<Vec<_>>().join("; ");
    if let [first, second, ..] = all.as_slice() {
        says += &format!(": {}", apart(&first.score, &second.score));
    }
    Finding { id: "tokens", title: "Check: which tokens are traced", says: says + ".", table, ..Finding::default() }
}

/// Cells of a changed selection: the backbone, its rank correlation, the sets, the candidates' overlaps.
fn changed_cells(changed: &Changed) -> Vec<String> {
    let mut row = vec![changed.backbone.clone(), shown(changed.rank), format!("{:.4}", changed.sets)];
    row.extend(changed.aos.iter().map(|aos| format!("{aos:.4}")));
    row
}

fn changed_table(ablation: &Ablation, head: &[&str]) -> Table {
    let mut table = Table::new("Values", head);
    table.head.extend(["backbone", "Spearman", "experts' sets"].map(str::to_owned));
    table.head.extend(ablation.candidates.iter().map(|name| format!("AOS of {name}")));
    table.note = "Spearman: of the candidates' AOS with those of unchanged traces. Experts' sets: their mean overlap with the unchanged ones.".into();
    table
}

/// How often a backbone was chosen again, and how far ranks agree at least.
fn agreement<'c>(changed: impl Iterator<Item = &'c Changed>, backbone: &str) -> (usize, usize, Option<f64>) {
    let all: Vec<&Changed> = changed.collect();
    let same = all.iter().filter(|c| c.backbone == backbone).count();
    (same, all.len(), all.iter().filter_map(|c| c.rank).reduce(f64::min))
}

/// The check of moved spans.
fn jitter(ablation: &Ablation) -> Finding {
    let mut table = changed_table(ablation, &["tokens later"]);
    for (by, changed) in &ablation.jitter {
        table.rows.push([vec![by.to_string()], changed_cells(changed)].concat());
    }
    let moved = || ablation.jitter.iter().filter(|(by, _)| *by != 0).map(|(_, changed)| changed);
    let unmoved = ablation.jitter.iter().find(|(by, _)| *by == 0).map(|(_, changed)| &changed.backbone);
    let (same, of, lowest) = agreement(moved(), unmoved.unwrap_or(&ablation.backbone));
    Finding {
        id: "jitter",
        title: "Check: spans moved",
        says: format!(
            "With role spans moved, {same} of {of} times the same backbone is chosen; ranks correlate with at least {}, and the experts' sets keep {:.2} on average.",
            shown(lowest),
            mean(moved().map(|changed| changed.sets))
        ),
        table,
        ..Finding::default()
    }
}

/// The check of fewer trajectories.
fn calibration(ablation: &Ablation) -> Finding {
    let mut table = changed_table(ablation, &["share", "seed"]);
    for (share, seed, changed) in &ablation.calibration {
        table.rows.push([vec![share.to_string(), seed.to_string()], changed_cells(changed)].concat());
    }
    let each = ablation.grid.calibration.iter().filter(|share| **share < 1.0).map(|share| {
        let of_share = || ablation.calibration.iter().filter(|(s, ..)| s == share).map(|(.., changed)| changed);
        let (same, of, lowest) = agreement(of_share(), &ablation.backbone);
        format!("{:.0} % of them {same} of {of} times (ranks correlate with at least {})", 100.0 * share, shown(lowest))
    });
    let each: Vec<String> = each.collect();
    Finding {
        id: "calibration",
        title: "Check: fewer trajectories",
        says: match each.is_empty() {
            true => "Only all trajectories were traced.".into(),
            false => format!("With a share of the trajectories the same backbone is chosen: {}.", each.join(", ")),
        },
        table,
        ..Finding::default()
    }
}
