//! τ-bench: recorded actions played again in the environments of `suite-tau`.
//!
//! A recording is JSONL, gzip-compressed or not, one episode a line: `{kind, domain, split, task_index, actions[],
//! observations[], data_hash, reward, terminated, info}`. Every field that is there is compared: each observation, the
//! hash of the database after the last action, whether `transfer_to_human_agents` ended it, and upstream's reward with
//! its details. The user is not part of a recording: `respond` observes the constant text `ok`.

use crate::database::Database;
use crate::{Call, Domain, Goal, Official};
use rayon::prelude::*;
use rolegraft_spans::python_json;
use rolegraft_suite::recordings::{Report, UnreadableError, jsonl_files, read};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;
use std::sync::OnceLock;

/// Characters of a text shown around where it differs.
const SHOWN: usize = 160;

#[derive(Deserialize)]
struct Recording {
    #[serde(default)]
    kind: String,
    domain: Domain,
    #[serde(default)]
    split: Option<String>,
    #[serde(default)]
    task_index: Option<usize>,
    actions: Vec<Call>,
    observations: Vec<String>,
    #[serde(default)]
    data_hash: Option<String>,
    #[serde(default)]
    reward: Option<f64>,
    #[serde(default)]
    terminated: Option<bool>,
    #[serde(default)]
    info: Option<Map<String, Value>>,
}

/// A task, and the hash of the database it wants, made when first asked for.
struct Task {
    goal: Goal,
    hash: OnceLock<String>,
}

struct World {
    data: Official,
    splits: BTreeMap<String, Vec<Task>>,
}

/// Replays recorded τ-bench episodes on the official data in `data`.
///
/// # Errors
/// If the recordings or the data cannot be read.
pub(crate) fn replay(traces: &Path, data: &Path) -> Result<Report, UnreadableError> {
    let mut report = Report::default();
    let mut worlds: BTreeMap<Domain, World> = BTreeMap::new();
    for path in jsonl_files(traces)? {
        let text = read(&path)?;
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let wrong = |line: usize, reason: String| UnreadableError::Format {
            path: path.clone(),
            reason: format!("line {line}: {reason}"),
        };
        let mut episodes = Vec::new();
        for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
            // Python's reader: recorded numbers keep every digit.
            let value = python_json::loads(line).map_err(|e| wrong(i + 1, e.to_string()))?;
            let episode: Recording = serde_json::from_value(value).map_err(|e| wrong(i + 1, e.to_string()))?;
            if let Entry::Vacant(missing) = worlds.entry(episode.domain) {
                missing.insert(World::open(data, episode.domain).map_err(|e| UnreadableError::Data(e.into()))?);
            }
            episodes.push((i + 1, episode));
        }
        let verdicts: Vec<_> = episodes
            .par_iter()
            .map(|(line, episode)| {
                let split = episode.split.as_deref().unwrap_or("test");
                let index = episode.task_index.map_or("-".into(), |i| i.to_string());
                let domain = episode.domain.as_str();
                let case = format!("{name}:{line} {} {domain} {split} {index}", episode.kind);
                (case, worlds[&episode.domain].replay(episode))
            })
            .collect();
        for (case, outcome) in verdicts {
            report.add(case, outcome);
        }
    }
    Ok(report)
}

impl World {
    fn open(data: &Path, domain: Domain) -> Result<Self, crate::OfficialError> {
        let data = Official::open(data, domain)?;
        let mut splits = BTreeMap::new();
        for split in ["test", "train", "dev"] {
            if let Some((goals, _)) = data.tasks(split)? {
                let tasks = goals.into_iter().map(|goal| Task { goal, hash: OnceLock::new() }).collect();
                splits.insert(split.to_owned(), tasks);
            }
        }
        Ok(Self { data, splits })
    }

    fn replay(&self, episode: &Recording) -> Result<(), String> {
        let domain = self.data.domain;
        let fresh = Database::new(self.data.tables.clone());
        let mut data = fresh.clone();
        let (mut said, mut terminated) = (Vec::new(), false);
        for (step, action) in episode.actions.iter().enumerate() {
            // A recording stops being observed where upstream's episode ended.
            let Some(expected) = episode.observations.get(step).filter(|_| !terminated) else { break };
            let got = if action.name == "respond" {
                said.push(action.kwargs.get("content").and_then(Value::as_str).unwrap_or_default());
                "ok".to_owned()
            } else {
                domain.observe(&mut data, &action.name, &action.kwargs)
            };
            if got != *expected {
                let (expected, got) = excerpt(expected, &got);
                return Err(format!("step {step}, `{}`: expected {expected:?}, got {got:?}", action.name));
            }
            terminated = action.name == "transfer_to_human_agents";
        }
        differ("terminated", episode.terminated.as_ref(), &terminated)?;
        if let Some(expected) = &episode.data_hash {
            differ("the database's hash", Some(expected), &data.hash())?;
        }
        if episode.reward.is_none() && episode.info.is_none() {
            return Ok(());
        }
        let (split, index) = (episode.split.as_deref().unwrap_or("test"), episode.task_index.unwrap_or(usize::MAX));
        let task = self.splits.get(split).and_then(|tasks| tasks.get(index));
        let task = task.ok_or_else(|| format!("the data has no task {index} in split `{split}`"))?;
        let judgement = task.goal.judge(domain, &fresh, &data, said.iter().copied());
        differ("the reward", episode.reward.as_ref(), &judgement.reward())?;
        let Some(info) = &episode.info else { return Ok(()) };
        let found = if judgement.outputs.is_empty() {
            let hash = task.hash.get_or_init(|| task.goal.reached(domain, &fresh).hash());
            json!({"r_actions": judgement.database, "gt_data_hash": hash})
        } else {
            let outputs: Map<String, Value> =
                judgement.outputs.iter().map(|(o, said)| (o.clone(), json!(said))).collect();
            json!({"r_outputs": f64::from(u8::from(judgement.outputs.iter().all(|o| o.1))), "outputs": outputs})
        };
        let truth = |v: &Value| v.as_f64().map_or(v == true, |n| n == 1.0);
        for (name, expected) in info {
            let same = match &found[name] {
                Value::Bool(b) => *b == truth(expected),
                Value::Number(n) => n.as_f64() == expected.as_f64(),
                other => other == expected,
            };
            if !same {
                return Err(format!("`{name}` of its reward: expected {expected}, got {}", found[name]));
            }
        }
        Ok(())
    }
}

fn differ<T: PartialEq + std::fmt::Debug>(what: &str, expected: Option<&T>, got: &T) -> Result<(), String> {
    match expected {
        Some(expected) if expected != got => Err(format!("{what}: expected {expected:?}, got {got:?}")),
        _ => Ok(()),
    }
}

/// Two texts from shortly before they part.
fn excerpt<'t>(a: &'t str, b: &'t str) -> (String, String) {
    let same = a.chars().zip(b.chars()).take_while(|(x, y)| x == y).count();
    let start = if a.chars().count().max(b.chars().count()) <= SHOWN { 0 } else { same.saturating_sub(SHOWN / 4) };
    let cut = |text: &str| -> String {
        let lead = if start > 0 { "…" } else { "" };
        let shown: String = text.chars().skip(start).take(SHOWN).collect();
        let tail = if text.chars().count() > start + SHOWN { "…" } else { "" };
        format!("{lead}{shown}{tail}")
    };
    (cut(a), cut(b))
}
