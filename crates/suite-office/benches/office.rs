//! Recorded episodes through the environment alone: an episode's fixed cost, an action's time, memory an episode.
//!
//! The peer is upstream's Python environment (microsoft/Simia-Agent-Training@ea77d9d:OfficeBench), timed on the same
//! replies by `tests/bench/office.py`, which runs this too and prints the ratios. Each action of upstream's starts two
//! shells and a Python; here it is a parse, a string's way through rules, and a document read and written.
//!
//! ```sh
//! cargo bench --workspace --bench office -- RECORDING.jsonl DATA
//! ```
#![allow(missing_docs, clippy::print_stdout, clippy::print_stderr)]

use rolegraft_suite_office::Mode;
use rolegraft_suite_office::recorded::Session;
use serde_json::Value;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Episodes open at once for the memory's figure.
const OPEN: usize = 200;

struct Recording {
    source: PathBuf,
    folder: String,
    prepared: bool,
    replies: Vec<String>,
}

/// Resident bytes of this process.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

fn open(episode: &Recording) -> Session {
    Session::new(&episode.source, &episode.folder, "", episode.prepared, Mode::Official).expect("a testbed")
}

fn play(episode: &Recording) -> Session {
    let mut session = open(episode);
    for reply in &episode.replies {
        black_box(session.step(reply));
    }
    session
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
        .map(|line| {
            let case: Value = serde_json::from_str(line).expect("JSON");
            let name = case["task"].as_str().expect("a task").to_owned();
            let steps = case["steps"].as_array().expect("steps").iter();
            Recording {
                source: Path::new(data).join("tasks").join(&name),
                folder: format!("./local_workdir/tasks/{name}"),
                prepared: case["kind"] == "mkdir_first",
                replies: steps.map(|s| s["reply"].as_str().unwrap_or_default().to_owned()).collect(),
            }
        })
        .collect();
    let steps: usize = episodes.iter().map(|e| e.replies.len()).sum();
    let time = |what: &str, count: usize, work: &mut dyn FnMut()| {
        work();
        let begun = Instant::now();
        work();
        let seconds = begun.elapsed().as_secs_f64();
        println!("{what}: {:.3} ms each, {seconds:.4} s", 1e3 * seconds / count as f64);
    };
    time("fresh episodes", episodes.len(), &mut || episodes.iter().for_each(|e| drop(black_box(open(e)))));
    time("steps", steps, &mut || episodes.iter().for_each(|e| drop(black_box(play(e)))));
    let before = resident();
    let open: Vec<Session> = episodes.iter().cycle().take(OPEN).map(play).collect();
    let each = resident().saturating_sub(before) / open.len().max(1);
    println!("memory: {:.1} kB an episode ({} open at once)", each as f64 / 1e3, open.len());
}
