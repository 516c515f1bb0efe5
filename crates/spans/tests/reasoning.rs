//! Reasoning: what a reply only thinks does not act, and is not said.
#![allow(missing_docs)]

use proptest::prelude::*;
use rolegraft_spans::{Format, Reading};

fn read(format: &str, reply: &str) -> Reading {
    Format::builtin(format).unwrap().read(reply, None)
}

fn action(reading: &Reading) -> Option<&str> {
    reading.action().map(|a| a.name.as_str())
}

const DRAFT: &str = "<tool_call>\n{\"name\": \"draft\", \"arguments\": {}}\n</tool_call>";
const CALL: &str = "<tool_call>\n{\"name\": \"call\", \"arguments\": {\"a\": \"</think> <think>\"}}\n</tool_call>";

#[test]
fn drafted_calls_do_not_act() {
    // Reply, what acts, what is said, how many calls were drafted, how many regions there are.
    for (reply, acts, said, drafts, regions) in [
        (format!("<think>{DRAFT}</think>{CALL}"), Some("call"), CALL, 1, 1),
        (format!("<think>\nno call\n</think>\n\n{CALL}"), Some("call"), CALL, 0, 1),
        // The prompt opened it.
        (format!("First {DRAFT}{DRAFT}\n</think>\n\n{CALL}"), Some("call"), CALL, 2, 1),
        ("I should say no.\n</think>\n\nYes.".into(), None, "Yes.", 0, 1),
        // Nothing closed it.
        (format!("<think>{DRAFT}"), None, "", 1, 1),
        (format!("Sure. <think> {DRAFT}"), None, "Sure.", 1, 1),
        // More than one, and one inside another.
        (format!("<think>a</think>b<think>{DRAFT}</think>{CALL}"), Some("call"), &format!("b{CALL}"), 1, 2),
        (format!("<think>a<think>b</think>{CALL}</think>c"), Some("call"), &format!("{CALL}c"), 0, 2),
        ("<think>a<think>b</think>c</think>d".into(), None, "d", 0, 2),
        // Marks inside a call are the call's.
        (CALL.into(), Some("call"), CALL, 0, 0),
        ("hello".into(), None, "hello", 0, 0),
        (" blanks stay ".into(), None, " blanks stay ", 0, 0),
    ] {
        for format in ["hermes", "native"] {
            let reply =
                if format == "native" { reply.replace("<tool_call>", "<tool_call id=\"1\">") } else { reply.clone() };
            let said =
                if format == "native" { said.replace("<tool_call>", "<tool_call id=\"1\">") } else { said.to_owned() };
            let reading = read(format, &reply);
            assert_eq!(action(&reading), acts, "{format}: {reply}");
            assert_eq!(reading.said(&reply), said, "{format}: {reply}");
            assert_eq!((reading.drafts, reading.reasoning.len()), (drafts, regions), "{format}: {reply}");
            let apart =
                |s: &std::ops::Range<usize>| reading.reasoning.iter().all(|r| s.end <= r.start || r.end <= s.start);
            assert!(reading.spans.iter().all(|s| apart(&s.range)), "{format}: {reply}");
        }
    }
}

#[test]
fn react_acts_after_its_thought() {
    let draft = "Action: {\"name\": \"draft\", \"arguments\": {}}";
    let call = "Thought: go\nAction:\n{\"name\": \"call\", \"arguments\": {\"a\": \"<think>\"}}";
    let reading = read("react", &format!("<think>{draft}</think>\n{call}"));
    assert_eq!((action(&reading), reading.drafts, reading.reasoning.len()), (Some("call"), 1, 1));
    let reading = read("react", "<think>hm</think>\n{\"name\": \"call\", \"arguments\": {}}");
    assert_eq!(action(&reading), Some("call"));
    let reading = read("react", &format!("<think>{draft}"));
    assert_eq!((action(&reading), reading.spans.len(), reading.drafts), (None, 0, 1));
    assert_eq!(action(&read("react", call)), Some("call"));
}

#[test]
fn thoughts_are_no_violation_and_hide_none() {
    let kinds = |reply: &str| read("hermes", reply).violations().map(|v| v.kind.as_str()).collect::<Vec<_>>();
    assert_eq!(kinds(&format!("<think>x</think>\n{CALL}")), [""; 0]);
    assert_eq!(kinds("<think><answer>x</answer></think>\nHello."), [""; 0]);
    assert_eq!(kinds(&format!("<think>x</think>\nSo: {CALL}")), ["prose"]);
    assert_eq!(kinds(&format!("<think>{DRAFT}</think>{CALL}{CALL}")), ["multiple"]);
}

/// The official parsers know no reasoning: their harnesses do not either.
#[test]
fn official_formats_read_as_their_harnesses_do() {
    let reply = "<think>Act: bash\n\n```bash\nls\n```\n</think>";
    let reading = read("agentbench-os", reply);
    assert_eq!((action(&reading), reading.reasoning.len(), reading.drafts), (Some("bash"), 0, 0));
    let reading = read("officebench", "<think> a </think> <answer> {\"app\": \"x\", \"action\": \"y\"} </answer>");
    assert_eq!((action(&reading), reading.reasoning.len()), (Some("y"), 0));
}

/// Time that grows with the square of a reply's length would show here as a test that does not end.
#[test]
fn many_marks_are_many_regions() {
    const TIMES: usize = 1 << 16;
    for (piece, regions) in [
        ("</think>", TIMES),
        ("<think></think>", TIMES),
        ("<think>", 1),
        ("<tool_call>{</think>", TIMES),
        ("<tool_call>{}</tool_call></think>", TIMES),
    ] {
        let reply = piece.repeat(TIMES);
        assert_eq!(read("hermes", &reply).reasoning.len(), regions, "{piece}");
    }
}

proptest! {
    #[test]
    fn regions_are_apart_and_no_span_lies_in_one(
        pieces in prop::collection::vec(prop_oneof![
            Just("<think>".to_owned()), Just("</think>".to_owned()), Just(DRAFT.to_owned()), Just(CALL.to_owned()),
            Just("Action: {\"name\": \"a\", \"arguments\": {}}".to_owned()), "[ é{}\"a-c]{0,5}"], 0..10),
        format in prop_oneof![Just("hermes"), Just("native"), Just("react")],
    ) {
        let reply = pieces.concat();
        let reading = read(format, &reply);
        let mut end = 0;
        for region in &reading.reasoning {
            prop_assert!(region.start >= end && reply.get(region.clone()).is_some_and(|t| !t.is_empty()));
            end = region.end;
            prop_assert!(reading.spans.iter().all(|s| !(region.start <= s.range.start && s.range.end <= region.end)));
        }
        prop_assert!(reading.said(&reply).len() + reading.reasoning.iter().map(|r| r.len()).sum::<usize>() <= reply.len());
    }
}
