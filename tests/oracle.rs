//! The built-in tasks against the real environments: the oracle solves every one, and every observation that the
//! generators predict (and that the pool was trained on) is what the environment says.

use rolegraft_nano::tasks::{Suite, generate};
use rolegraft_nano::words::Split;
use rolegraft_suites::{AllSettings, Alone, Library, Registry, Setup};
use rolegraft_trajectory::Role;
use std::path::{Path, PathBuf};

/// The suite `name`, on official data where some is given.
fn open(name: &str, data: Option<&Path>, settings: &AllSettings) -> Library {
    let suites = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../benchmarks");
    Setup { registry: &Registry::default(), suites: &suites, data, settings }.open(name, &Alone).unwrap()
}

/// Plays tasks of both splits by their own solutions, two on each core: boxes wait for the kernel.
fn play(suite: Suite, count: u64) {
    let library = open(suite.id(), None, &AllSettings::new());
    let players = 2 * std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for player in 0..players {
            let library = &library;
            scope.spawn(move || {
                for split in Split::PLAYED {
                    (player as u64..count).step_by(players).for_each(|index| solve(library, suite, split, index));
                }
            });
        }
    });
}

fn solve(library: &Library, suite: Suite, split: Split, index: u64) {
    let solved = generate(suite, split, rolegraft_nano::seed(1), index);
    let id = solved.task["id"].as_str().unwrap().to_owned();
    let task = rolegraft_suites::Task { id: id.clone(), fields: solved.task };
    let mut environment = library.suite.start(&task).unwrap_or_else(|e| panic!("{id}: {e}"));
    let mut dialogue = solved.dialogue.iter();
    for message in environment.open().unwrap() {
        assert_eq!(Some(&message), dialogue.next(), "{id}");
    }
    let replies: Vec<_> = dialogue.clone().filter(|m| m.role == Role::Assistant).collect();
    for (i, reply) in replies.iter().enumerate() {
        dialogue.next();
        let step = environment.step(&reply.content).unwrap();
        assert!(step.reading.violations().next().is_none() && step.succeeded, "{id}: {step:?}");
        assert_eq!(step.ended.is_some(), i + 1 == replies.len(), "{id}: {step:?}");
        if step.ended.is_none() {
            assert_eq!(step.observations.first(), dialogue.next(), "{id}");
        }
    }
    let outcome = environment.outcome();
    assert_eq!(outcome.reward, 1.0, "{id}: {}", outcome.detail);
}

#[test]
fn tau_retail() {
    play(Suite::TauRetail, 300);
}

#[test]
fn tau_airline() {
    play(Suite::TauAirline, 300);
}

#[test]
fn officebench() {
    play(Suite::Office, 300);
}

#[test]
fn os() {
    if let Err(missing) = rolegraft_suites::Sandbox::start() {
        eprintln!("skipped: {missing}");
        return;
    }
    play(Suite::Os, 300);
}

#[test]
fn dbbench() {
    if rolegraft_suite_db::Server::installed().is_none() {
        eprintln!("skipped: MariaDB is not installed");
        return;
    }
    play(Suite::Db, 300);
}

#[test]
fn webshop() {
    play(Suite::WebShop, 100);
}

#[test]
fn alfworld() {
    play(Suite::AlfWorld, 300);
}

#[test]
fn task_files_are_the_generators() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../benchmarks");
    for suite in Suite::ALL {
        for split in Split::PLAYED {
            let path = root.join(suite.id()).join("nano").join(format!("{}.jsonl", split.as_str()));
            let text = std::fs::read_to_string(&path).unwrap();
            for (index, line) in text.lines().enumerate().step_by(37) {
                let task = generate(suite, split, rolegraft_nano::seed(1), index as u64).task;
                assert_eq!(line, task.to_string(), "{} line {}: run `rolegraft nano tasks`", path.display(), index + 1);
            }
        }
    }
}

/// The folder of official data, if it has what is asked for.
fn official(folder: &str) -> Option<PathBuf> {
    let data = std::env::var_os("ROLEGRAFT_CONFORMANCE")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), Into::into);
    if !data.join(folder).exists() {
        eprintln!("skipped: official data `{folder}` not found (set ROLEGRAFT_CONFORMANCE)");
        return None;
    }
    Some(data)
}

#[test]
fn official_officebench_tasks_are_solved_by_recorded_solutions() {
    use rolegraft_suites::Split::{Calibration, Test};
    let Some(data) = official("officebench") else { return };
    if let Err(missing) = rolegraft_suites::Sandbox::start() {
        eprintln!("skipped: {missing}");
        return;
    }
    let mut replayed = 0;
    for (name, tasks) in [("officebench-2-apps", 51), ("officebench-3-apps", 55)] {
        let library = open(name, Some(&data), &AllSettings::new());
        let set = library.tasks(Test, None).unwrap().tasks;
        let calibration = library.tasks(Calibration, None).unwrap().tasks;
        assert_eq!(set.len() + calibration.len() + library.not_run.len(), tasks + 93);
        let text = std::fs::read_to_string(data.join("officebench/golden/episodes.jsonl")).unwrap();
        for line in text.lines() {
            let episode: serde_json::Value = serde_json::from_str(line).unwrap();
            let id = format!("{}-{}", episode["task"].as_str().unwrap(), episode["subtask"].as_str().unwrap());
            let Some(task) = set.iter().find(|t| t.id == id).filter(|_| episode["kind"] == "handwritten") else {
                continue;
            };
            let mut environment = library.suite.start(task).unwrap();
            assert_eq!(environment.open().unwrap().len(), 2);
            let steps = episode["steps"].as_array().unwrap();
            for (i, step) in steps.iter().enumerate() {
                let done = environment.step(step["reply"].as_str().unwrap()).unwrap();
                assert_eq!(done.ended.is_some(), i + 1 == steps.len(), "{id}");
            }
            let outcome = environment.outcome();
            assert_eq!(outcome.reward == 1.0, episode["success"], "{id}: {}", outcome.detail);
            replayed += 1;
        }
    }
    assert!(replayed >= 15, "{replayed}");
}

#[test]
fn official_tau_tasks_are_solved_by_their_own_actions_in_every_format() {
    use rolegraft_suites::Split::{Calibration, Dev, Test};
    let Some(data) = official("tau-bench") else { return };
    for format in ["hermes", "native", "react", "act"] {
        let (mut solved, mut settings) = (0, AllSettings::new());
        settings.entry("tau".to_owned()).or_default().set("format", format);
        for (name, splits) in [("tau-retail", vec![Test, Dev, Calibration]), ("tau-airline", vec![Test])] {
            let library = open(name, Some(&data), &settings);
            assert_eq!(library.suite.tools().is_some(), format == "native");
            for task in splits.into_iter().flat_map(|split| library.tasks(split, None).unwrap().tasks) {
                let mut environment = library.suite.start(&task).unwrap();
                assert_eq!(environment.open().unwrap().len(), 2);
                let replies = task.oracle().unwrap();
                for (i, reply) in replies.iter().enumerate() {
                    let step = environment.step(reply).unwrap();
                    assert_eq!(
                        step.reading.spans.len(),
                        usize::from(reply.contains("tool_call") || reply.contains("Action:"))
                    );
                    let over = step.ended.is_some();
                    // A task that is over once its texts are said needs no transfer.
                    assert!(
                        over == (i + 1 == replies.len()) || (over && i + 2 == replies.len()),
                        "{}: {step:?}",
                        task.id
                    );
                    if over {
                        break;
                    }
                }
                let outcome = environment.outcome();
                assert_eq!(outcome.reward, 1.0, "{}: {}", task.id, outcome.detail);
                solved += 1;
            }
        }
        assert_eq!(solved, 685);
    }
}
