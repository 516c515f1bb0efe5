//! Recorded episodes through the environment alone: steps a second and memory an episode.
//!
//! The peer is upstream's Python environment (sierra-research/tau-bench@59a200c), timed on the same recording by
//! `tests/bench/tau.py`, which runs this too and prints the ratios. The limit is memory: an episode that reads is made of
//! hash look-ups and of JSON being written.
//!
//! ```sh
//! cargo bench --workspace --bench replay -- RECORDING.jsonl DATA
//! ```
#![allow(missing_docs, clippy::print_stdout, clippy::print_stderr)]

use rolegraft_spans::python_json;
use rolegraft_suite_tau::database::Database;
use rolegraft_suite_tau::{Call, Domain, Goal, Official};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

#[derive(Deserialize)]
struct Recording {
    domain: Domain,
    split: String,
    task_index: usize,
    actions: Vec<Call>,
}

/// Resident bytes of this process.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let [recording, data] = arguments.as_slice() else {
        eprintln!("skipped: give a recording (JSONL) and the folder of the official data");
        return;
    };
    let text = std::fs::read_to_string(recording).expect("the recording is readable");
    let episodes: Vec<Recording> = text
        .lines()
        .map(|line| serde_json::from_value(python_json::loads(line).expect("JSON")).expect("an episode"))
        .collect();
    let worlds: BTreeMap<Domain, Official> =
        Domain::ALL.map(|d| (d, Official::open(Path::new(data), d).expect("the official data"))).into();
    let mut goals: BTreeMap<(Domain, &str), Vec<Goal>> = BTreeMap::new();
    for (domain, world) in &worlds {
        for split in ["test", "train", "dev"] {
            if let Some((tasks, _)) = world.tasks(split).expect("tasks") {
                goals.insert((*domain, split), tasks);
            }
        }
    }
    let play = |episode: &Recording| {
        let mut data = Database::new(worlds[&episode.domain].tables.clone());
        for action in episode.actions.iter().filter(|a| a.name != "respond") {
            black_box(episode.domain.observe(&mut data, &action.name, &action.kwargs));
        }
        data
    };
    let steps: usize = episodes.iter().map(|e| e.actions.len()).sum();
    let time = |what: &str, work: &mut dyn FnMut()| {
        work();
        let begun = Instant::now();
        work();
        let seconds = begun.elapsed().as_secs_f64();
        println!("{what}: {:.0} steps/s, {:.4} s", steps as f64 / seconds, seconds);
    };
    time("steps", &mut || episodes.iter().for_each(|e| drop(black_box(play(e)))));
    time("steps and reward", &mut || {
        for episode in &episodes {
            let data = play(episode);
            let fresh = Database::new(worlds[&episode.domain].tables.clone());
            let goal = &goals[&(episode.domain, episode.split.as_str())][episode.task_index];
            black_box(goal.judge(episode.domain, &fresh, &data, std::iter::empty()));
        }
    });
    time("steps and hash", &mut || episodes.iter().for_each(|e| drop(black_box(play(e).hash()))));
    let before = resident();
    let open: Vec<Database> = episodes.iter().map(play).collect();
    let each = resident().saturating_sub(before) / open.len().max(1);
    println!("memory: {:.1} kB an episode ({} open at once)", each as f64 / 1e3, open.len());
}
