//! Replies whose spans were marked by hand: `«` and `»` stand around each.
#![allow(missing_docs)]

use rolegraft_spans::{Format, Role, ViolationKind};

/// The reply without its marks, and the marked ranges.
fn unmarked(marked: &str) -> (String, Vec<std::ops::Range<usize>>) {
    let (mut reply, mut ranges, mut start) = (String::new(), Vec::new(), 0);
    for c in marked.chars() {
        match c {
            '«' => start = reply.len(),
            '»' => ranges.push(start..reply.len()),
            c => reply.push(c),
        }
    }
    (reply, ranges)
}

#[test]
fn final_json() {
    let format = Format::builtin("officebench").unwrap();
    for (marked, kinds) in [
        (
            "<think> I switch. </think>\n<answer>« {\"app\": \"system\", \"action\": \"switch_app\", \"target_app\": \"excel\"} »</answer>",
            vec![],
        ),
        (
            "<think>short</think><answer>«{\"app\": \"shell\", \"action\": \"command\", \"command\": \"ls\"}»</answer>",
            vec![],
        ),
        (
            "<answer>«{\"app\": \"word\", \"action\": \"read_file\", \"file_path\": \"é\"}»</answer> and more text",
            vec![],
        ),
        ("<think>a</think>\n\n<answer>```json«{\"app\": \"pdf\", \"action\": \"read_file\"}»```</answer>", vec![]),
        // The greedy match runs to the line's last closing tag.
        ("<answer>«{\"app\": \"x\", \"action\": \"</answer>\"}»</answer>", vec![]),
        (
            "<think> b </think> <answer>« {\"app\": \"shell\", \"action\": \"command\", \"command\": \"grep \\d\"} »</answer>",
            vec![ViolationKind::BadEscape],
        ),
        ("<answer>« {'app': 'excel'} »</answer>", vec![ViolationKind::InvalidJson]),
        (
            "<answer>« {\"app\": \"excel\", \"action\": {\"app\": \"excel\", \"action\": \"read_file\"}} »</answer>",
            vec![ViolationKind::NestedJson],
        ),
        (
            "<answer>« {\"app\": \"system\", \"action\": \"{\\\"app\\\": 1}\"} »</answer>",
            vec![ViolationKind::NestedJson],
        ),
        ("<answer>« {\"app\": \"system\"} »</answer>", vec![ViolationKind::Schema]),
        ("<answer>« [1, 2] »</answer>", vec![ViolationKind::Schema]),
        // No span: the reply as a whole is at fault.
        (
            "<think>\nmany lines\n</think>\n<answer>{\"app\": \"system\", \"action\": \"finish_task\"}</answer>",
            vec![ViolationKind::Missing],
        ),
        ("{\"action\": \"{\\\"app\\\": \\\"system\\\"}\"}", vec![ViolationKind::NestedJson]),
        ("{\"app\": \"system\", \"action\": \"got_stuck\"}", vec![ViolationKind::CrashAction]),
        ("<tool_call>\n{\"name\": \"x\", \"arguments\": {}}\n</tool_call>", vec![ViolationKind::TemplateConfusion]),
        ("I am done.", vec![ViolationKind::Missing]),
    ] {
        let (reply, ranges) = unmarked(marked);
        let reading = format.read(&reply, None);
        assert_eq!(reading.spans.iter().map(|s| s.range.clone()).collect::<Vec<_>>(), ranges, "{marked}");
        assert!(reading.spans.iter().all(|s| s.role == Role::FinalJson), "{marked}");
        assert_eq!(reading.violations().map(|v| v.kind).collect::<Vec<_>>(), kinds, "{marked}");
        for violation in reading.violations() {
            assert!(reply.get(violation.range.clone()).is_some_and(|text| !text.is_empty()), "{marked}");
        }
    }
}
