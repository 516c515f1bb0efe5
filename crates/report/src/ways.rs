//! How episodes fail, most frequent first, each with an example; and which violations one model has that another does not.
//!
//! A way to fail is how the episode ended, the violation that blocked it (the first of a turn after which nothing succeeded; docs/method.md), and
//! what it did last.

use crate::Table;
use rolegraft_spans::ViolationKind;
use rolegraft_trajectory::{Episode, EpisodeKey, Status};
use std::collections::{BTreeMap, BTreeSet};

/// Ways of a table.
const MOST: usize = 10;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    status: Status,
    blocked_by: Option<ViolationKind>,
    last_action: Option<String>,
}

/// One model's failures on a suite.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Ways {
    /// How often; and of the first by task and trial, whatever the order in a log, what went wrong.
    found: BTreeMap<Way, (usize, (String, u32), String)>,
    /// Kinds of violations by task and trial.
    violations: BTreeMap<(String, u32), BTreeSet<ViolationKind>>,
}

impl Ways {
    pub(crate) fn add(&mut self, episode: &Episode) {
        let EpisodeKey { task, trial, .. } = &episode.key;
        let kinds = episode.turns.iter().flat_map(|turn| &turn.violations).map(|violation| violation.kind).collect();
        self.violations.insert((task.clone(), *trial), kinds);
        if episode.reward >= 1.0 {
            return;
        }
        let blocked = episode.blocking_violation();
        let way = Way {
            status: episode.status,
            blocked_by: blocked.map(|(_, violation)| violation.kind),
            last_action: episode.turns.last().and_then(|turn| turn.action.as_ref()).map(|action| action.name.clone()),
        };
        let at =
            blocked.map_or(String::new(), |(turn, violation)| format!(", turn {}: {}", turn + 1, violation.detail));
        let key = (task.clone(), *trial);
        let (count, first, said) = self.found.entry(way).or_insert_with(|| (0, key.clone(), at.clone()));
        *count += 1;
        if key < *first {
            (*first, *said) = (key, at);
        }
    }
}

/// Rows are (suite, model, failures).
pub(crate) type Rows<'r> = [(String, String, &'r Ways)];

/// The ten most frequent ways to fail of each model on each suite.
pub(crate) fn ways_table(rows: &Rows<'_>) -> Table {
    let head = ["suite", "model", "episodes", "ended", "blocked by", "last action", "for example"];
    let mut table = Table::new("Ways to fail, the most frequent first", &head);
    for (suite, model, ways) in rows {
        let mut found: Vec<_> = ways.found.iter().collect();
        found.sort_by(|(a, (more, ..)), (b, (less, ..))| less.cmp(more).then(a.cmp(b)));
        for (way, (count, (task, trial), said)) in found.into_iter().take(MOST) {
            table.rows.push(vec![
                suite.clone(),
                model.clone(),
                count.to_string(),
                way.status.as_str().into(),
                way.blocked_by.map_or("–".into(), |kind| kind.as_str().into()),
                way.last_action.clone().unwrap_or_else(|| "–".into()),
                format!("{task} trial {trial}{said}"),
            ]);
        }
    }
    table.note = "Blocked by: the first violation after which no turn succeeded.".into();
    table
}

/// Episodes of which the first model's have a violation and the second's not (cured), and the other way round (brought), by kind.
pub(crate) fn cured_table(before: &str, after: &str, suites: &[(String, &Ways, &Ways)]) -> Table {
    let title = format!("Violations of {before} that {after} cured, and those that it brought");
    let mut table = Table::new(&title, &["suite", "violation", "episodes", before, after, "cured", "brought"]);
    for (suite, first, second) in suites {
        let both: Vec<_> =
            first.violations.iter().filter_map(|(key, kinds)| Some((kinds, second.violations.get(key)?))).collect();
        for kind in ViolationKind::ALL {
            let count = |of: &dyn Fn(bool, bool) -> bool| {
                both.iter().filter(|(ours, theirs)| of(ours.contains(&kind), theirs.contains(&kind))).count()
            };
            let [ours, theirs] = [count(&|had, _| had), count(&|_, has| has)];
            if ours + theirs > 0 {
                let (cured, brought) = (count(&|had, has| had && !has), count(&|had, has| !had && has));
                let numbers = [both.len(), ours, theirs, cured, brought].map(|number| number.to_string());
                table.rows.push([vec![suite.clone(), kind.as_str().into()], numbers.to_vec()].concat());
            }
        }
    }
    table.note = "Episodes that both played.".into();
    table
}
