//! How tool-calling episodes go wrong over several turns, from logs alone.
//!
//! A log says of every turn what it called and whether that succeeded, of every call what it returned, and of every
//! τ-bench episode which calls its task requires (`required`) and which turns changed the database (`written`).

use crate::Table;
use rolegraft_spans::Action;
use rolegraft_trajectory::Episode;
use serde_json::Value;
use std::collections::BTreeMap;

/// Failures of one call after which it counts as repeated.
const REPEATED: usize = 3;
/// Arguments that say what a call is about, the first that is there.
const TARGETS: [&str; 3] = ["order_id", "reservation_id", "user_id"];

/// Shares of the episodes in which something happened, and of the calls that were redundant.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cascades {
    /// Episodes.
    pub episodes: usize,
    /// The same call failed three times or more.
    pub repeated_failure: f64,
    /// A call that changes nothing was made again, with the same answer, though nothing had changed since.
    pub redundant_query: f64,
    /// Such calls among all calls.
    pub redundant_calls: f64,
    /// A required call was never made with success.
    pub missing_action: f64,
    /// A required kind of call changed something else than the task asks for: another order, reservation or user.
    pub wrong_target: f64,
    /// A call of a kind that the task does not require changed something.
    pub needless_change: f64,
}

/// One episode's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Found {
    repeated_failure: bool,
    redundant: usize,
    calls: usize,
    missing_action: bool,
    wrong_target: bool,
    needless_change: bool,
}

fn target(arguments: &Value) -> Option<&Value> {
    TARGETS.iter().find_map(|name| arguments.get(name))
}

fn found(episode: &Episode) -> Option<Found> {
    let required: Vec<(&str, &Value)> = episode.detail["required"]
        .as_array()?
        .iter()
        .filter_map(|c| Some((c["name"].as_str()?, &c["kwargs"])))
        .collect();
    let written: Vec<usize> =
        episode.detail["written"].as_array()?.iter().filter_map(|i| Some(i.as_u64()? as usize)).collect();
    let mut found = Found::default();
    let mut failures: BTreeMap<String, usize> = BTreeMap::new();
    let mut answers: BTreeMap<String, &str> = BTreeMap::new();
    let mut done = Vec::new();
    for (i, turn) in episode.turns.iter().enumerate() {
        let Some(action) = turn.action.as_ref().filter(|a| a.name != "respond") else { continue };
        let Action { name, payload } = action;
        found.calls += 1;
        let call = format!("{name} {payload}");
        if !turn.succeeded {
            let count = failures.entry(call).or_default();
            *count += 1;
            found.repeated_failure |= *count >= REPEATED;
            continue;
        }
        done.push((name.as_str(), payload));
        if written.contains(&i) {
            // What was asked before may have another answer now.
            answers.clear();
            let same_kind: Vec<_> = required.iter().filter(|(required, _)| required == name).collect();
            found.needless_change |= same_kind.is_empty();
            found.wrong_target |=
                !same_kind.is_empty() && same_kind.iter().all(|(_, kwargs)| target(kwargs) != target(payload));
            continue;
        }
        let answer = episode.messages.get(turn.message + 1).map_or("", |m| m.content.as_str());
        found.redundant += usize::from(answers.insert(call, answer) == Some(answer));
    }
    found.missing_action = required.iter().any(|call| !done.contains(call));
    Some(found)
}

/// Cascades of one model on one suite, counted an episode at a time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct CascadeCounts {
    episodes: usize,
    repeated_failure: usize,
    redundant_query: usize,
    redundant: usize,
    calls: usize,
    missing_action: usize,
    wrong_target: usize,
    needless_change: usize,
}

impl CascadeCounts {
    /// Counts an episode, if it is one of τ-bench's.
    pub(crate) fn add(&mut self, episode: &Episode) {
        let Some(found) = found(episode) else { return };
        self.episodes += 1;
        self.repeated_failure += usize::from(found.repeated_failure);
        self.redundant_query += usize::from(found.redundant > 0);
        self.redundant += found.redundant;
        self.calls += found.calls;
        self.missing_action += usize::from(found.missing_action);
        self.wrong_target += usize::from(found.wrong_target);
        self.needless_change += usize::from(found.needless_change);
    }

    /// `None` if no episode was one of τ-bench's.
    pub(crate) fn shares(&self) -> Option<Cascades> {
        let of_episodes = |count: usize| count as f64 / self.episodes as f64;
        (self.episodes > 0).then(|| Cascades {
            episodes: self.episodes,
            repeated_failure: of_episodes(self.repeated_failure),
            redundant_query: of_episodes(self.redundant_query),
            redundant_calls: self.redundant as f64 / self.calls.max(1) as f64,
            missing_action: of_episodes(self.missing_action),
            wrong_target: of_episodes(self.wrong_target),
            needless_change: of_episodes(self.needless_change),
        })
    }
}

/// Cascades as a table; rows are (suite, model, cascades).
#[must_use]
pub fn cascade_table(rows: &[(String, String, Cascades)]) -> Table {
    let mut table = Table::new(
        "τ-bench cascades: episodes (%)",
        &[
            "suite",
            "model",
            "same call failed 3 times",
            "redundant query",
            "redundant calls (% of calls)",
            "required action missing",
            "wrong target",
            "needless change",
        ],
    );
    for (suite, model, c) in rows {
        let rates = [
            c.repeated_failure,
            c.redundant_query,
            c.redundant_calls,
            c.missing_action,
            c.wrong_target,
            c.needless_change,
        ];
        let mut row = vec![suite.clone(), model.clone()];
        row.extend(rates.map(|r| format!("{:.1}", 100.0 * r)));
        table.rows.push(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use rolegraft_trajectory::{Context, EpisodeKey, Finish, Message, Spent, Status, Turn};
    use serde_json::json;

    /// An episode of calls: (name, order, answer, succeeded), the turns in `written` having changed something.
    fn episode(calls: &[(&str, &str, &str, bool)], written: &[usize]) -> Episode {
        let (mut messages, mut turns) = (vec![Message::user("hi")], Vec::new());
        for (name, order, answer, succeeded) in calls {
            let action = Action { name: (*name).into(), payload: json!({"order_id": order}) };
            messages.push(Message::assistant(""));
            turns.push(Turn {
                message: messages.len() - 1,
                shown: Context::All,
                ids: vec![],
                finish: Finish::Stop,
                spans: vec![],
                action: Some(action),
                violations: vec![],
                drafts: 0,
                succeeded: *succeeded,
                inexact: false,
                reasoning: String::new(),
            });
            messages.push(Message::tool(*answer));
        }
        let required = json!([{"name": "cancel", "kwargs": {"order_id": "1"}}]);
        Episode {
            key: EpisodeKey { suite: "tau-retail".into(), task: "t".into(), trial: 0 },
            status: Status::Completed,
            reward: 0.0,
            messages,
            turns,
            detail: json!({"required": required, "written": written}),
            spent: Spent::default(),
            others_spent: Spent::default(),
            seconds: 0.0,
        }
    }

    fn cascades<'a>(episodes: impl IntoIterator<Item = &'a Episode>) -> Option<Cascades> {
        let mut counts = CascadeCounts::default();
        episodes.into_iter().for_each(|episode| counts.add(episode));
        counts.shares()
    }

    #[test]
    fn each_cascade_is_told_from_the_others() {
        let good = [("get", "1", "x", true), ("cancel", "1", "done", true), ("get", "1", "y", true)];
        let nothing = Found { calls: 3, ..Found::default() };
        assert_eq!(found(&episode(&good, &[1])), Some(nothing));
        let repeated = [("get", "1", "x", true), ("get", "2", "x", true), ("get", "1", "x", true)];
        let expected = Found { redundant: 1, missing_action: true, ..nothing };
        assert_eq!(found(&episode(&repeated, &[])), Some(expected));
        let failing = [("cancel", "1", "Error", false), ("get", "1", "x", true), ("cancel", "1", "Error", false)];
        assert_eq!(found(&episode(&failing, &[])), Some(Found { missing_action: true, ..nothing }));
        let thrice = [failing[0], failing[2], failing[0]];
        let expected = Found { repeated_failure: true, missing_action: true, ..nothing };
        assert_eq!(found(&episode(&thrice, &[])), Some(expected));
        let wrong = [("cancel", "2", "done", true), ("cancel", "1", "done", true), ("return", "1", "done", true)];
        let expected = Found { wrong_target: true, needless_change: true, ..nothing };
        assert_eq!(found(&episode(&wrong, &[0, 1, 2])), Some(expected));
        let mut other = episode(&good, &[1]);
        other.detail = Value::Null;
        assert_eq!(cascades([&other]), None);
        let some = cascades([&episode(&good, &[1]), &episode(&wrong, &[0, 1, 2])]).unwrap();
        assert_eq!((some.episodes, some.wrong_target, some.missing_action), (2, 0.5, 0.0));
    }
}
