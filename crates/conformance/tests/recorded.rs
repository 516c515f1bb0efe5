//! Everything recorded of the reference implementations that this project has.
#![allow(missing_docs, clippy::print_stderr)]

use rolegraft_conformance::{IN_PROCESS, Report, runners};
use rolegraft_decoder::DeviceName;
use rolegraft_spans::python_json;
use rolegraft_suite_office::{Mode, Program, recorded_verdict};
use rolegraft_suites::{AllSettings, Registry};
use serde_json::Value;
use std::path::{Path, PathBuf};

mod server;

fn recordings(folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("ROLEGRAFT_CONFORMANCE")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    let path = root.join(folder);
    if !path.exists() {
        eprintln!("skipped: recordings `{folder}` not found (set ROLEGRAFT_CONFORMANCE)");
        return None;
    }
    Some(path)
}

/// Replays recordings of a benchmark.
fn replay(benchmark: &str, traces: &Path, data: &Path) -> Report {
    let (registry, mut settings) = (Registry::default(), AllSettings::new());
    for (variable, key) in [("ROLEGRAFT_OS_ROOT", "root"), ("ROLEGRAFT_OS_DOCKER", "image")] {
        if let Ok(value) = std::env::var(variable) {
            settings.entry("os".to_owned()).or_default().set(key, value);
        }
    }
    // Which they were recorded on.
    settings.entry("dbbench".to_owned()).or_default().set("server", "mariadb");
    registry.replay(benchmark, (traces, data), &settings).unwrap()
}

#[test]
fn least_squares_match_their_formulas() {
    let Some(folder) = recordings("closed-form-golden") else { return };
    let report = rolegraft_conformance::least_squares(&folder).unwrap();
    assert_eq!(report.failed(), 0, "{report}");
    assert!(report.verdicts.len() >= 4);
}

#[test]
fn adapters_match_peft() {
    let Some(folder) = recordings("lora-golden") else { return };
    let report = rolegraft_conformance::lora(&folder).unwrap();
    assert_eq!(report.failed(), 0, "{report}");
    assert!(report.verdicts.len() >= 5);
}

#[test]
fn merges_match_their_references() {
    let Some(folder) = recordings("merge-golden") else { return };
    let report = rolegraft_conformance::merge(&folder).unwrap();
    assert_eq!(report.failed(), 0, "{report}");
    assert!(report.verdicts.len() >= 150, "{}", report.verdicts.len());
}

#[test]
fn conversations_and_tokens_match_transformers() {
    let Some(folder) = recordings("chat-golden") else { return };
    let report = rolegraft_conformance::chat(&folder).unwrap();
    assert_eq!(report.failed(), 0, "{report}");
    assert_eq!(report.verdicts.len(), 8_496 + 134, "{}", report.verdicts.len());
}

#[test]
fn replies_are_parsed_as_the_harnesses_do() {
    let Some(folder) = recordings("parse") else { return };
    let report = rolegraft_conformance::parse(&folder, &Registry::default()).unwrap();
    assert_eq!((report.failed(), report.verdicts.len()), (0, 654), "{report}");
}

#[test]
fn saliencies_match_pytorch() {
    let Some(folder) = recordings("saliency-golden") else { return };
    let report = rolegraft_conformance::saliency(&folder, None, DeviceName::Cpu).unwrap();
    assert_eq!((report.failed(), report.verdicts.len(), report.skipped.len()), (0, 42, 0), "{report}");
}

/// Checkpoints as transformers 5 saves them: windows, biases, scaled rotary embeddings, and Mistral.
#[test]
fn architectures_match_transformers() {
    let Some(folder) = recordings("architectures-golden") else { return };
    let report = rolegraft_conformance::saliency(&folder, None, DeviceName::Cpu).unwrap();
    assert_eq!((report.failed(), report.verdicts.len()), (0, 18), "{report}");
    let engines = runners(IN_PROCESS, DeviceName::Cpu).unwrap();
    let report = rolegraft_conformance::engine(&folder, None, &engines).unwrap();
    assert_eq!((report.failed(), report.verdicts.len()), (0, 2 * 18), "{report}");
}

/// One list of cases: the engines in process, and a server.
#[test]
fn greedy_decoding_matches_transformers() {
    let Some(folder) = recordings("engine-golden") else { return };
    let address = server::start(&folder.join("model"));
    let engines = runners(IN_PROCESS.into_iter().chain([address.as_str()]), DeviceName::Cpu).unwrap();
    let report = rolegraft_conformance::engine(&folder, None, &engines).unwrap();
    assert_eq!((report.failed(), report.verdicts.len()), (0, 3 * 48), "{report}");
    // A server that gives no ids is held to its text, and a wrong one is found out.
    for (model, failed) in [("text", 0), ("wrong", 48)] {
        let engines = runners([format!("{address}#{model}").as_str()], DeviceName::Cpu).unwrap();
        let report = rolegraft_conformance::engine(&folder, None, &engines).unwrap();
        assert_eq!((report.failed(), report.verdicts.len()), (failed, 48), "{report}");
    }
}

#[test]
fn tau_episodes_match_upstream() {
    let Some(data) = recordings("tau-bench") else { return };
    let report = replay("tau", &data.join("golden.jsonl.gz"), &data);
    assert_eq!(report.failed(), 0, "{report}");
    assert_eq!(report.verdicts.len(), 1645);
}

#[test]
fn officebench_matches_upstream() {
    let Some(data) = recordings("officebench") else { return };
    for (file, cases) in [
        ("golden/args.jsonl", 733),
        ("golden/malformed.jsonl", 203),
        ("golden/readers.jsonl", 64),
        ("golden/evalfn.jsonl", 165),
        ("golden/untouched.jsonl", 137),
        ("golden/episodes.jsonl", 115),
        ("golden/episodes-1app.jsonl", 55),
        ("golden/original-parse.jsonl", 20),
        ("golden.jsonl", 229),
    ] {
        let report = replay("officebench", &data.join(file), &data);
        assert_eq!(report.failed(), 0, "{file}: {report}");
        assert_eq!(report.verdicts.len() + report.skipped.len(), cases, "{file}");
        for skipped in &report.skipped {
            eprintln!("skipped: {skipped}");
        }
    }
}

#[test]
fn agentbench_matches_upstream() {
    let Some(data) = recordings("agentbench") else { return };
    let golden = data.join("golden");
    for (file, cases) in [("os_parse", 75), ("os_shell", 60), ("os_fc", 30), ("history_trim", 23), ("os_tasks", 113)] {
        let traces = golden.join(format!("{file}.jsonl"));
        let report = replay("os", &traces, &data);
        assert_eq!(report.failed(), 0, "{file}: {report}");
        counted(file, &report, cases);
    }
    for (file, cases) in [
        ("db_parse", 64),
        ("db_compare", 259),
        ("db_compare_fc", 40),
        ("db_fc", 18),
        ("db_repr", 63),
        ("db_episodes", 597),
    ] {
        let report = replay("dbbench", &golden.join(format!("{file}.jsonl")), &data);
        assert_eq!(report.failed(), 0, "{file}: {report}");
        counted(file, &report, cases);
    }
}

/// All cases were compared, or this machine lacks something for the file.
fn counted(file: &str, report: &Report, cases: usize) {
    if let Some(skipped) = report.skipped.first() {
        eprintln!("skipped: {} cases of {file}, the first of them {skipped}", report.skipped.len());
    }
    assert_eq!(report.verdicts.len() + report.skipped.len(), cases, "{file}");
}

/// An episode on which the modes differ, and what the sane one says.
fn differing(data: &Path, line: &str) -> Option<(String, bool)> {
    let mut case = python_json::loads(line).unwrap();
    if case["steps"].is_null() {
        case["steps"] = Vec::<Value>::new().into();
    }
    let [official, sane] = Mode::ALL.map(|mode| recorded_verdict(data, &case, mode).unwrap());
    assert_eq!(official, case["success"], "{} {}", case["task"], case["subtask"]);
    (official != sane).then(|| (format!("{}/{} {}", case["task"], case["subtask"], case["kind"]), sane))
}

/// `docs/officebench.md` gives these counts.
#[test]
fn officebench_verdicts_that_the_sane_mode_changes() {
    let Some(data) = recordings("officebench") else { return };
    if !Program::ALL.iter().all(|program| program.installed()) {
        eprintln!("skipped: LibreOffice or poppler is not installed");
        return;
    }
    let mut counts = Vec::new();
    for file in ["episodes.jsonl", "episodes-1app.jsonl", "untouched.jsonl"] {
        let text = std::fs::read_to_string(data.join("golden").join(file)).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        // Most of them wait for LibreOffice: one on each core.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let changed: Vec<(String, bool)> = std::thread::scope(|scope| {
            let parts: Vec<_> = lines
                .chunks(lines.len().div_ceil(cores).max(1))
                .map(|part| scope.spawn(|| part.iter().filter_map(|line| differing(&data, line)).collect::<Vec<_>>()))
                .collect();
            parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
        });
        eprintln!("{file}: {changed:?}");
        let solved = changed.iter().filter(|(_, sane)| *sane).count();
        counts.push((file, lines.len(), solved, changed.len() - solved));
    }
    // File, episodes, solved only when mended, solved only as published.
    assert_eq!(
        counts,
        [("episodes.jsonl", 115, 5, 0), ("episodes-1app.jsonl", 55, 0, 0), ("untouched.jsonl", 137, 0, 0)]
    );
}

#[test]
fn webshop_matches_upstream() {
    let Some(data) = recordings("webshop") else { return };
    let report = replay("webshop", &data.join("golden"), &data);
    assert_eq!(report.failed(), 0, "{report}");
    assert_eq!(report.verdicts.len(), 3_765, "{report}");
    let report = replay("webshop", &data.join("golden/python_random.json"), &data);
    assert_eq!((report.failed(), report.verdicts.len()), (0, 1), "{report}");
}

#[test]
fn alfworld_matches_upstream() {
    let Some(data) = recordings("alfworld") else { return };
    let report = replay("alfworld", &data.join("golden"), &data);
    assert_eq!((report.failed(), report.verdicts.len()), (0, 279), "{report}");
}
