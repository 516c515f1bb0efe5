//! Official games to their ends, and files that are none.
#![allow(missing_docs, clippy::print_stderr)]

use proptest::prelude::*;
use rolegraft_suite_alfworld::{Game, Official, Profile, Session, chosen};
use std::path::PathBuf;
use std::sync::Arc;

fn data() -> Option<PathBuf> {
    let root = std::env::var_os("ROLEGRAFT_CONFORMANCE")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    let found = root.join("alfworld").is_dir();
    if !found {
        eprintln!("skipped: the games are not found (set ROLEGRAFT_CONFORMANCE)");
    }
    found.then_some(root)
}

#[test]
fn every_walkthrough_wins() {
    let Some(data) = data() else { return };
    let official = Official::open(&data).unwrap();
    for (list, count) in [("standard", 50), ("dev", 20)] {
        let (tasks, _) = official.tasks(list).unwrap();
        assert_eq!(tasks.len(), count);
        for task in tasks {
            for profile in Profile::ALL {
                let path = official.root().join(task.fields["game"].as_str().unwrap());
                let game = Arc::new(Game::open(&path, profile).unwrap());
                let mut session = Session::new(game.clone());
                for command in game.walkthrough() {
                    assert!(session.admissible().any(|c| c == command), "{}: {command}", task.id);
                    session.step(command);
                }
                assert!(session.won() && game.walkthrough().len() <= 35, "{}", task.id);
            }
        }
    }
}

fn broken(domain: &str, problem: &str, grammar: &str) -> String {
    let file = serde_json::json!({"pddl_domain": domain, "pddl_problem": problem, "grammar": grammar});
    Game::read(&file.to_string(), Profile::Embedded).unwrap_err()
}

#[test]
fn what_is_wrong_with_a_game_is_said() {
    let domain = "(define (domain d) (:predicates (p ?x - t)) (:action go :parameters (?x - t) :precondition (p ?x) :effect (not (p ?x))))";
    let problem = "(define (problem q) (:objects a - t) (:init (p a)) (:goal (not (p a))))";
    let grammar = "grammar :: \"\"\"{\"intro\": [{\"rhs\": \"Hi\"}]}\"\"\"; action go { template :: \"go {x}\"; feedback :: \"Gone.\"; }";
    let file = serde_json::json!({"pddl_domain": domain, "pddl_problem": problem, "grammar": grammar});
    let session = Session::new(Arc::new(Game::read(&file.to_string(), Profile::Embedded).unwrap()));
    assert_eq!((session.intro().as_str(), session.admissible().collect::<Vec<_>>()), ("Hi", vec!["go a "]));
    assert!(broken("", problem, grammar).contains("pddl_domain"));
    assert!(broken(&domain.replace("(p ?x) :effect", "(q ?x) :effect"), problem, grammar).contains("`q`"));
    assert!(broken(domain, &problem.replace("(p a))", "(p b))"), grammar).contains("`b`"));
    assert!(broken(domain, problem, "action go {").contains("no end"));
    assert!(broken(domain, problem, "grammar :: \"\"\"[]\"\"\";").contains("not an object"));
    assert!(broken(domain, problem, &grammar.replace("{x}", "{x | p(x)}")).contains("PREDICATE"));
    // Symbols that call one another end.
    let endless = grammar.replace("Hi", "a#intro##intro#");
    let file = serde_json::json!({"pddl_domain": domain, "pddl_problem": problem, "grammar": endless});
    let session = Session::new(Arc::new(Game::read(&file.to_string(), Profile::Embedded).unwrap()));
    assert!(session.intro().len() <= 2 << 20);
    let silent = grammar.replace("Hi", "#intro##intro#");
    let file = serde_json::json!({"pddl_domain": domain, "pddl_problem": problem, "grammar": silent});
    assert_eq!(Session::new(Arc::new(Game::read(&file.to_string(), Profile::Embedded).unwrap())).intro(), "");
}

proptest! {
    #[test]
    fn reading_never_panics(domain in "[()a-z?;: -]{0,80}", grammar in "[a-z:{}\"#\\[\\]|;& \n]{0,80}", text in ".{0,60}") {
        let problem = "(define (problem q) (:objects a - t) (:init) (:goal ()))";
        let file = serde_json::json!({"pddl_domain": format!("(define {domain})"), "pddl_problem": problem, "grammar": grammar});
        let _ = Game::read(&file.to_string(), Profile::Classic);
        let _ = Game::read(&text, Profile::Classic);
        let grammar = format!("grammar :: \"\"\"{{\"intro\": [{{\"rhs\": {}}}]}}\"\"\";", serde_json::json!(text));
        let file = serde_json::json!({"pddl_domain": "(define (:predicates (p)))", "pddl_problem": problem, "grammar": grammar});
        if let Ok(game) = Game::read(&file.to_string(), Profile::Embedded) {
            let _ = Session::new(Arc::new(game)).intro();
        }
        prop_assert!(chosen(&text, &["go to desk 1", "look"]).len() <= text.len().max(12));
    }
}
