//! The built-in tasks against the real environments: the oracle solves every one, and every observation that the
//! generators predict (and that the pool was trained on) is what the environment says.
#![allow(missing_docs, clippy::print_stderr)]

use rolegraft_nano::tasks::{Suite, generate};
use rolegraft_nano::words::Split;
use rolegraft_pipeline::SuiteLibrary;
use rolegraft_trajectory::Role;
use std::path::Path;

fn play(suite: Suite, count: u64) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../benchmarks");
    let library = SuiteLibrary::open(&root, suite.id()).unwrap();
    for split in Split::PLAYED {
        for index in 0..count {
            let solved = generate(suite, split, rolegraft_nano::seed(1), index);
            let id = solved.task["id"].as_str().unwrap().to_owned();
            let task = rolegraft_suite::Task { id: id.clone(), fields: solved.task };
            let mut environment = library.suite.start(&task).unwrap_or_else(|e| panic!("{id}: {e}"));
            let mut dialogue = solved.dialogue.iter();
            for message in environment.open() {
                assert_eq!(Some(&message), dialogue.next(), "{id}");
            }
            let replies: Vec<_> = solved.dialogue.iter().filter(|m| m.role == Role::Assistant).collect();
            for (i, reply) in replies.iter().enumerate() {
                dialogue.next();
                let step = environment.step(&reply.content);
                assert!(step.reading.violations().next().is_none() && step.succeeded, "{id}: {step:?}");
                assert_eq!(step.ended.is_some(), i + 1 == replies.len(), "{id}: {step:?}");
                if step.ended.is_none() {
                    assert_eq!(step.observation.as_ref(), dialogue.next(), "{id}");
                }
            }
            let outcome = environment.outcome();
            assert_eq!(outcome.reward, 1.0, "{id}: {}", outcome.detail);
        }
    }
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
    if let Err(missing) = rolegraft_pipeline::sandbox_works() {
        eprintln!("skipped: {missing}");
        return;
    }
    play(Suite::Os, 300);
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

#[test]
fn official_tau_tasks_are_solved_by_their_own_actions() {
    use rolegraft_pipeline::Split::{Calibration, Dev, Test};
    let data = std::env::var_os("ROLEGRAFT_CONFORMANCE")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), Into::into);
    if !data.join("tau-bench").exists() {
        eprintln!("skipped: official data `tau-bench` not found (set ROLEGRAFT_CONFORMANCE)");
        return;
    }
    let mut solved = 0;
    for (name, splits) in [("tau-retail", vec![Test, Dev, Calibration]), ("tau-airline", vec![Test])] {
        let library = SuiteLibrary::open_official(name, &data).unwrap();
        for task in splits.into_iter().flat_map(|split| library.tasks(split, None).unwrap().tasks) {
            let mut environment = library.suite.start(&task).unwrap();
            assert!(environment.open()[0].content.contains("<tools>"));
            let mut over = false;
            let actions = task.fields["actions"].as_array().unwrap();
            for action in actions.iter().filter(|a| a["name"] != "respond") {
                let call = serde_json::json!({"name": action["name"], "arguments": action["kwargs"]});
                over = environment.step(&format!("<tool_call>\n{call}\n</tool_call>")).ended.is_some();
            }
            let outputs = task.fields["outputs"].as_array().into_iter().flatten().filter_map(|o| o.as_str());
            let outputs: Vec<&str> = outputs.collect();
            if !over {
                environment.step(&outputs.join(" "));
            }
            // Where the task's last action is the transfer, nothing can be said after it.
            assert!(environment.outcome().reward == 1.0 || (over && !outputs.is_empty()), "{}", task.id);
            solved += 1;
        }
    }
    assert_eq!(solved, 685);
}
