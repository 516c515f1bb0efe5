//! DB-bench by type of task, from logs alone (THUDM/AgentBench@41e6807:`src/server/tasks/dbbench/__init__.py`, `metrics`).

use crate::Table;
use rolegraft_trajectory::Episode;
use std::collections::BTreeMap;

/// The types that upstream counts, in its order; the last three are averaged.
const KINDS: [&str; 11] = [
    "other",
    "counting",
    "comparison",
    "ranking",
    "aggregation-SUM",
    "aggregation-MIN",
    "aggregation-MAX",
    "aggregation-AVG",
    "SELECT",
    "INSERT",
    "UPDATE",
];

/// Accuracies by type.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct KindScores {
    /// Types that are there, with their accuracy; `SELECT` is all that is neither `INSERT` nor `UPDATE`.
    pub accuracy: BTreeMap<&'static str, f64>,
    /// Upstream's score: the mean of `SELECT`, `INSERT` and `UPDATE`, over those that are there. Upstream counts a type without
    /// tasks as 0.
    pub overall: f64,
}

/// Rewards by type, counted an episode at a time.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct KindCounts {
    counts: BTreeMap<&'static str, (f64, f64)>,
    /// Whether an episode was not one of DB-bench's.
    others: bool,
}

impl KindCounts {
    pub(crate) fn add(&mut self, episode: &Episode) {
        let Some(kind) = episode.detail["type"].as_str() else {
            self.others = true;
            return;
        };
        let group = if ["INSERT", "UPDATE"].contains(&kind) { kind } else { "SELECT" };
        for counted in KINDS.into_iter().filter(|k| *k == kind || *k == group) {
            let count = self.counts.entry(counted).or_default();
            count.0 += episode.reward;
            count.1 += 1.0;
        }
    }

    /// `None` if not all episodes were DB-bench's.
    pub(crate) fn scores(&self) -> Option<KindScores> {
        let accuracy: BTreeMap<&'static str, f64> =
            self.counts.iter().map(|(kind, (right, of))| (*kind, right / of)).collect();
        let groups: Vec<f64> = KINDS[8..].iter().filter_map(|kind| accuracy.get(kind).copied()).collect();
        let overall = groups.iter().sum::<f64>() / groups.len() as f64;
        (!self.others && !groups.is_empty()).then_some(KindScores { accuracy, overall })
    }
}

/// The accuracies of some episodes, if they are DB-bench's.
#[must_use]
pub fn kind_scores<'a>(episodes: impl IntoIterator<Item = &'a Episode>) -> Option<KindScores> {
    let mut counts = KindCounts::default();
    episodes.into_iter().for_each(|episode| counts.add(episode));
    counts.scores()
}

/// Rows are (model, scores).
#[must_use]
pub fn kind_table(rows: &[(String, KindScores)]) -> Table {
    let mut head = vec!["model", "score"];
    head.extend(KINDS);
    let mut table =
        Table::new("DB-bench by type of task (%); the score is the mean of SELECT, INSERT and UPDATE", &head);
    for (model, scores) in rows {
        let mut row = vec![model.clone(), format!("{:.1}", 100.0 * scores.overall)];
        row.extend(
            KINDS.iter().map(|kind| scores.accuracy.get(kind).map_or("–".into(), |a| format!("{:.1}", 100.0 * a))),
        );
        table.rows.push(row);
    }
    table
}
