//! Failure analysis, from logs alone.

use crate::Table;
use rolegraft_spans::ViolationKind;
use rolegraft_trajectory::{Episode, Status};
use std::collections::BTreeMap;

/// Rates of one model on one suite.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FailureRates {
    /// Episodes.
    pub episodes: usize,
    /// Model turns.
    pub turns: usize,
    /// Share of turns with a violation.
    pub turn_violations: f64,
    /// Share of episodes after whose first violation nothing succeeded.
    pub blocked: f64,
    /// Share of episodes whose last reply cannot be parsed.
    pub unparsable: f64,
    /// Share of turns by violation.
    pub kinds: BTreeMap<ViolationKind, f64>,
    /// Share of turns whose reasoning holds calls that were not made.
    pub drafts: f64,
    /// Share of turns of reasoning alone, after which nothing was said.
    pub silent: f64,
    /// Share of episodes by status.
    pub statuses: BTreeMap<Status, f64>,
}

/// The failures of one model on one suite, counted an episode at a time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct FailureCounts {
    episodes: usize,
    turns: usize,
    violating: usize,
    blocked: usize,
    unparsable: usize,
    drafting: usize,
    silent: usize,
    kinds: BTreeMap<ViolationKind, usize>,
    statuses: BTreeMap<Status, usize>,
}

impl FailureCounts {
    pub(crate) fn add(&mut self, episode: &Episode) {
        self.episodes += 1;
        self.turns += episode.turns.len();
        *self.statuses.entry(episode.status).or_default() += 1;
        self.violating += episode.turns.iter().filter(|t| !t.violations.is_empty()).count();
        self.blocked += usize::from(episode.reward < 1.0 && episode.blocking_violation().is_some());
        let last = episode.turns.last();
        self.unparsable += usize::from(last.is_some_and(|t| t.violations.iter().any(|v| v.kind.is_unparsable())));
        self.drafting += episode.turns.iter().filter(|t| t.drafts > 0).count();
        let said = |message: usize| episode.messages.get(message).is_some_and(|m| !m.content.is_empty());
        self.silent += episode.turns.iter().filter(|t| !t.reasoning.is_empty() && !said(t.message)).count();
        for turn in &episode.turns {
            for kind in ViolationKind::ALL {
                if turn.violations.iter().any(|v| v.kind == kind) {
                    *self.kinds.entry(kind).or_default() += 1;
                }
            }
        }
    }

    pub(crate) fn rates(&self) -> FailureRates {
        let of_turns = |count: usize| count as f64 / self.turns.max(1) as f64;
        let of_episodes = |count: usize| count as f64 / self.episodes.max(1) as f64;
        FailureRates {
            episodes: self.episodes,
            turns: self.turns,
            turn_violations: of_turns(self.violating),
            blocked: of_episodes(self.blocked),
            unparsable: of_episodes(self.unparsable),
            kinds: self.kinds.iter().map(|(kind, count)| (*kind, of_turns(*count))).collect(),
            drafts: of_turns(self.drafting),
            silent: of_turns(self.silent),
            statuses: self.statuses.iter().map(|(status, count)| (*status, of_episodes(*count))).collect(),
        }
    }
}

/// Counts the failures of some episodes.
#[must_use]
pub fn failure_rates<'a>(episodes: impl IntoIterator<Item = &'a Episode>) -> FailureRates {
    let mut counts = FailureCounts::default();
    episodes.into_iter().for_each(|episode| counts.add(episode));
    counts.rates()
}

type Rows<'a> = &'a [(String, String, FailureRates)];

fn percent(rate: f64) -> String {
    format!("{:.2}", 100.0 * rate)
}

/// Table 6: episodes whose final structured output cannot be parsed. Rows are (suite, model, rates).
#[must_use]
pub fn unparsable_table(rows: Rows<'_>) -> Table {
    let mut table = Table::new(
        "Table 6: structured output that cannot be parsed (%)",
        &["suite", "model", "last reply unparsable", "turns with a violation", "episodes blocked by one"],
    );
    for (suite, model, r) in rows {
        table.rows.push(vec![
            suite.clone(),
            model.clone(),
            percent(r.unparsable),
            percent(r.turn_violations),
            percent(r.blocked),
        ]);
    }
    table
}

/// Table 7: turns by kind of violation; calls that a reply only considered, in its reasoning, stand apart. What only servers
/// bring about has a column where it came about.
#[must_use]
pub fn violation_table(rows: Rows<'_>) -> Table {
    let came_about = |kind: &ViolationKind| {
        *kind != ViolationKind::UnreadableByServer || rows.iter().any(|(_, _, r)| r.kinds.contains_key(kind))
    };
    let kinds: Vec<ViolationKind> = ViolationKind::ALL.into_iter().filter(came_about).collect();
    let silent = rows.iter().any(|(_, _, r)| r.silent > 0.0);
    let mut head = vec!["suite", "model"];
    head.extend(kinds.iter().map(|kind| kind.as_str()));
    head.push("calls in reasoning");
    head.extend(silent.then_some("reasoning alone"));
    let mut table = Table::new("Table 7: turns by violation (%)", &head);
    for (suite, model, r) in rows {
        let mut row = vec![suite.clone(), model.clone()];
        row.extend(kinds.iter().map(|k| percent(r.kinds.get(k).copied().unwrap_or(0.0))));
        row.push(percent(r.drafts));
        row.extend(silent.then(|| percent(r.silent)));
        table.rows.push(row);
    }
    table
}

/// Table 8: episodes by how they ended; a server's filter has a column where it ended any.
#[must_use]
pub fn status_table(rows: Rows<'_>) -> Table {
    let came_about = |status: &Status| {
        *status != Status::ServerFiltered || rows.iter().any(|(_, _, r)| r.statuses.contains_key(status))
    };
    let statuses: Vec<Status> = Status::ALL.into_iter().filter(came_about).collect();
    let mut head = vec!["suite", "model"];
    head.extend(statuses.iter().map(|status| status.as_str()));
    let mut table = Table::new("Table 8: episodes by status (%)", &head);
    for (suite, model, r) in rows {
        let mut row = vec![suite.clone(), model.clone()];
        row.extend(statuses.iter().map(|s| percent(r.statuses.get(s).copied().unwrap_or(0.0))));
        table.rows.push(row);
    }
    table
}
