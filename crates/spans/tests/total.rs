//! Reading is total: whatever the reply, it ends, never panics, and every range is a part of the reply.
#![allow(missing_docs)]

use proptest::prelude::*;
use rolegraft_spans::{Actions, Format, ViolationKind};
use serde_json::json;
use std::time::{Duration, Instant};

const NAMES: [&str; 6] = ["hermes", "native", "react", "officebench", "agentbench-os", "agentbench-db"];

fn check(format: &Format, reply: &str) {
    let reading = format.read(reply, Some(&Actions::named(["get_order_details"])));
    for range in reading.spans.iter().map(|s| &s.range).chain(reading.violations().map(|v| &v.range)) {
        assert!(reply.get(range.clone()).is_some(), "{range:?} of {reply:?}");
    }
}

proptest! {
    #[test]
    fn any_text(reply: String) {
        for name in NAMES {
            check(&Format::builtin(name).unwrap(), &reply);
        }
    }
    #[test]
    fn text_of_the_formats_own_pieces(pieces in prop::collection::vec(prop::sample::select(vec![
        "<tool_call>", "</tool_call>", "<tool_call id=\"1\">\n", "\n</tool_call>", "Action:", "Thought:", "<think>", "</think>", "<answer>", "</answer>", "Act: ", "bash", "answer(", ")",
        "finish", "```bash\n", "```sql\n", "Action: Operation\n", "\nFinal Answer: ", "\n```", "{", "}", "\"name\"", ":", "\"a\"", "\"arguments\"", ",", "é", "\n", " ", "\\", "```json", "```",
    ]), 0..20)) {
        for name in NAMES {
            check(&Format::builtin(name).unwrap(), &pieces.concat());
        }
    }
}

#[test]
fn hostile_replies() {
    let long = "a".repeat(10 << 20);
    let deep = format!("<tool_call>{}</tool_call>", "[".repeat(100_000));
    let acts = "Act: nothing\n".repeat(50_000);
    let replies = [
        long.as_str(),
        &deep,
        &acts,
        "\u{feff}<answer>{}</answer>",
        "<tool_call>{\"name\": NaN, \"name\": Infinity}</tool_call>",
        "\u{202e}Act: answer(\u{1b}[31m)",
        "<answer>{\"a\": \"\\ud800\"}</answer>",
        "</script><tool_call>",
    ];
    for name in NAMES {
        let format = Format::builtin(name).unwrap();
        for reply in replies {
            let begun = Instant::now();
            check(&format, reply);
            assert!(begun.elapsed() < Duration::from_secs(20), "{name} is not linear");
        }
    }
}

#[test]
fn violations_have_their_kinds() {
    use ViolationKind::*;
    let tools = json!([{"function": {"name": "get_order_details", "parameters": {
        "type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]}}}]);
    let tools = Actions::of_tools(tools.as_array().unwrap()).unwrap().and("respond");
    for (format, reply, expected) in [
        ("hermes", "Your order is cancelled.", vec![]),
        (
            "hermes",
            "<think>so</think> <tool_call>{\"name\": \"get_order_details\", \"arguments\": {\"order_id\": \"1\"}}</tool_call>",
            vec![],
        ),
        ("hermes", "<tool_call>{\"name\": \"get_order_details\", \"arguments\": {}}</tool_call>", vec![Schema]),
        ("hermes", "Sure. <tool_call>{\"name\": \"respond\", \"arguments\": {}}</tool_call>", vec![Prose]),
        ("hermes", "<tool_call>{\"name\": \"respond\", \"arguments\": {}}</tool_call> Done!", vec![Prose]),
        ("native", "<tool_call id=\"c\">\n{\"name\": \"respond\", \"arguments\": {}}\n</tool_call>", vec![]),
        (
            "native",
            "Sure.\n<tool_call id=\"c\">\n{\"name\": \"respond\", \"arguments\": }\n</tool_call>",
            vec![InvalidJson, Prose],
        ),
        ("native", "<tool_call>{}</tool_call>", vec![]),
        ("react", "Thought:\nAction: no\nAction:\n{\"name\": \"respond\", \"arguments\": {}}\n", vec![]),
        ("react", "{\"name\": \"respond\", \"arguments\": {}}", vec![]),
        ("react", "Thought: x\nAction: I will look.", vec![InvalidJson]),
        ("react", "Action: {\"name\": \"respond\"}", vec![Schema]),
        ("react", "Action: {\"name\": \"respond\", \"arguments\": {}} {}", vec![InvalidJson]),
        ("react", "Your order is cancelled.", vec![]),
        ("hermes", "<tool_call>\n{\"name\": \"get_oder\", \"arguments\": {}}\n</tool_call>", vec![UnknownAction]),
        ("hermes", "<tool_call>\n{\"tool\": \"get_order_details\"}\n</tool_call>", vec![Schema]),
        ("hermes", "<tool_call>\n{\"name\": \n</tool_call>", vec![InvalidJson]),
        (
            "hermes",
            "<tool_call>{\"name\": \"respond\", \"arguments\": {}}</tool_call><tool_call>{}</tool_call>",
            vec![Multiple],
        ),
        ("hermes", "Act: bash", vec![TemplateConfusion]),
        ("hermes", "{\"action\": \"{\\\"name\\\": 1}\"}", vec![NestedJson]),
        ("officebench", "<think> x </think> <answer> {\"app\": \"a\", \"action\": \"b\"} </answer>", vec![]),
        ("officebench", "<answer> {\"app\": \"a\", \"action\": {\"app\": \"b\"}} </answer>", vec![NestedJson]),
        ("officebench", "<answer> {\"app\": \"a\\d\"} </answer>", vec![BadEscape]),
        ("officebench", "{\"app\": \"system\", \"action\": \"got_stuck\"}", vec![CrashAction]),
        ("officebench", "I am done.", vec![Missing]),
        ("agentbench-os", "Think: x\nAct: nothing", vec![Missing]),
        ("agentbench-os", "<tool_call>", vec![TemplateConfusion]),
    ] {
        let known = matches!(format, "hermes" | "native" | "react").then_some(&tools);
        let reading = Format::builtin(format).unwrap().read(reply, known);
        let kinds: Vec<_> = reading.violations().map(|v| v.kind).collect();
        assert_eq!(kinds, expected, "{format}: {reply}");
    }
}

#[test]
fn a_users_own_format_loads_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mine.toml");
    std::fs::write(
        &path,
        "name = \"mine\"\nrole = \"action\"\n[[span]]\npattern = 'DO\\[(?P<payload>[^\\]]*)\\]'\npayload = \"text\"\n",
    )
    .unwrap();
    let reading = Format::load(&path).unwrap().read("I will DO[jump] now", None);
    assert_eq!((reading.spans[0].range.clone(), reading.spans[0].text.as_str()), (10..14, "jump"));
    std::fs::write(&path, "name = \"mine\"\nrole = \"action\"\n[[span]]\npattern = '('\npayload = \"text\"\n").unwrap();
    assert!(Format::load(&path).err().unwrap().to_string().contains("not a regular expression"));
}

#[test]
fn a_schema_violation_names_the_path_and_the_call_stands() {
    let tools = json!([{"function": {"name": "book", "parameters": {"type": "object", "properties": {
        "flights": {"type": "array", "items": {"type": "object", "required": ["date"]}}}}}}]);
    let tools = Actions::of_tools(tools.as_array().unwrap()).unwrap();
    let reply = "<tool_call>{\"name\": \"book\", \"arguments\": {\"flights\": [{\"date\": 1}, {}]}}</tool_call>";
    let reading = Format::builtin("hermes").unwrap().read(reply, Some(&tools));
    assert_eq!(reading.action().unwrap().name, "book");
    let violation = reading.violations().next().unwrap();
    assert!(violation.detail.starts_with("at `/arguments/flights/1`: "), "{}", violation.detail);
}
