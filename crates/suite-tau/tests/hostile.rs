//! Whatever an agent says, an episode answers it, and ends.
#![allow(missing_docs)]

use rolegraft_spans::Format;
use rolegraft_suite::{Limits, Suite, Task};
use rolegraft_suite_tau::{Domain, Protocol, TauSetup, TauSuite, Users, known_bad};
use serde_json::json;
use std::time::{Duration, Instant};

fn suite(protocol: Protocol) -> TauSuite {
    TauSuite::new(TauSetup {
        domain: Domain::Retail,
        protocol,
        format: Format::builtin(protocol.format()).unwrap(),
        limits: Limits { turns: 30, tokens: 100, temperature: 0.0, top_p: 1.0 },
        system: String::new(),
        users: Users::scripted(),
        tools: Vec::new(),
        tables: None,
    })
    .unwrap()
}

fn task() -> Task {
    let order = json!({"order_id": "#W1", "user_id": "ann", "items": [], "status": "pending", "payment_history": []});
    let database = json!({"orders": {"#W1": order}, "products": {}, "users": {"ann": {"payment_methods": {}}}});
    let fields = json!({"id": "t", "instruction": "Please help.", "actions": [], "outputs": [], "database": database});
    Task { id: "t".into(), fields }
}

#[test]
fn hostile_replies_are_answered_in_time() {
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    let call = |arguments: &str| format!("{{\"name\": \"modify_pending_order_address\", \"arguments\": {arguments}}}");
    let address = |zip: &str| {
        let rest = "\"address1\": 1, \"address2\": null, \"city\": \"\\ud800\", \"state\": NaN, \"country\": -Infinity";
        format!("{{\"order_id\": \"#W1\", {rest}, \"zip\": {zip}}}")
    };
    let payloads = [
        call("{\"order_id\": \"#W1\", \"order_id\": \"#W2\"}"),
        call(&address(&deep(900))),
        call(&address(&deep(100_000))),
        call(&address("\"\\u202e\\u001b]0;x\\u0007</script>=cmd()\"")),
        call(&format!("{{\"order_id\": \"{}\"}}", "a".repeat(10 << 20))),
        call("[]"),
        "\u{feff}{}".to_owned(),
        "{\"name\": \"respond\", \"arguments\": {\"content\": 5}}".to_owned(),
        "{\"name\": {\"name\": 1}, \"arguments\": {}}".to_owned(),
        "null".to_owned(),
        "{".repeat(100_000),
        "<think>".repeat(100_000),
        "\u{1b}[2J\u{202e}".to_owned(),
    ];
    for protocol in Protocol::ALL {
        let suite = suite(protocol);
        for payload in &payloads {
            for reply in [
                payload.clone(),
                format!("<tool_call>\n{payload}\n</tool_call>"),
                format!("<tool_call id=\"1\">\n{payload}\n</tool_call>"),
                format!("Thought: \nAction:\n{payload}"),
            ] {
                let begun = Instant::now();
                let mut environment = suite.start(&task()).unwrap();
                environment.open().unwrap();
                let step = environment.step(&reply).unwrap();
                assert!(step.ended.is_some() || !step.observations.is_empty());
                assert!((0.0..=1.0).contains(&environment.outcome().reward));
                assert!(begun.elapsed() < Duration::from_secs(20), "{}…", reply.chars().take(60).collect::<String>());
            }
        }
    }
}

#[test]
fn the_docs_list_every_known_bad_task() {
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/tau-bench.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    let listed: Vec<_> = Domain::ALL.into_iter().flat_map(known_bad).collect();
    assert_eq!(listed.len(), 6);
    for task in listed {
        let row =
            format!("| {} {} {} | {} | {} |", task.domain.as_str(), task.split, task.index, task.reason, task.thread);
        assert!(docs.contains(&row), "{row}");
    }
}
