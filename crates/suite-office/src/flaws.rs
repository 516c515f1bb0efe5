//! What is wrong with an action that is JSON: an app or action that does not exist, a field that is missing.

use crate::apps::{app, apps};
use rolegraft_spans::{Reading, Violation, ViolationKind};
use serde_json::{Map, Value};

/// Actions that belong to no app of the list, with the field that each needs.
const OTHERS: [(&str, &str, Option<&str>); 5] = [
    ("system", "switch_app", Some("target_app")),
    ("system", "finish_task", None),
    ("system", "got_stuck", None),
    ("scratchpad", "write", Some("content")),
    ("shell", "command", Some("command")),
];

/// Adds to a reading what its action asks for in vain. What the format's schema refused needs no second complaint.
pub(crate) fn flag(reading: &mut Reading) {
    let Some(span) = reading.spans.first_mut().filter(|span| span.violations.is_empty()) else { return };
    let Some(Value::Object(payload)) = span.action.as_ref().map(|action| &action.payload) else { return };
    if let Some((kind, detail)) = flaw(payload) {
        span.violations.push(Violation { kind, range: span.range.clone(), detail });
    }
}

fn flaw(payload: &Map<String, Value>) -> Option<(ViolationKind, String)> {
    // upstream: a list of one is what it holds.
    let text = |field: &str| match payload.get(field)? {
        Value::Array(items) if items.len() == 1 => items[0].as_str(),
        value => value.as_str(),
    };
    let unknown = |field: &str, what: &str, name: &str| {
        Some((ViolationKind::UnknownAction, format!("at `/{field}`: there is no {what} `{name}`")))
    };
    let missing = |field: &str| {
        let said = format!("at ``: \"{field}\" is a required property");
        (!payload.contains_key(field)).then_some((ViolationKind::Schema, said))
    };
    let (named, action) = (text("app")?, text("action")?);
    let (named, action) = match action.split_once('.') {
        _ if action == "switch_app" => ("system", action),
        Some((first, rest)) if app(first).is_some() => (first, rest.split('.').next().unwrap_or(rest)),
        _ => (named, action),
    };
    // upstream: whatever the shell is asked for, it runs the command.
    let action = if named == "shell" { "command" } else { action };
    if let Some((_, _, needed)) = OTHERS.iter().find(|(app, name, _)| (*app, *name) == (named, action)) {
        let target = text("target_app").filter(|_| action == "switch_app");
        return needed.and_then(missing).or_else(|| match target {
            Some(target) if app(target).is_none() => unknown("target_app", "app", target),
            _ => None,
        });
    }
    let Some(known) = apps().iter().find(|app| app.app == named) else {
        let other = OTHERS.iter().any(|(app, ..)| *app == named);
        return if other { unknown("action", "action", action) } else { unknown("app", "app", named) };
    };
    match known.actions.iter().find(|a| a.action == action) {
        None => unknown("action", "action", action),
        Some(known) => known.fields().find_map(missing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rolegraft_spans::Format;

    #[test]
    fn what_does_not_exist_is_named_by_its_path() {
        let format = Format::builtin("officebench").unwrap();
        let found = |json: &str| {
            let reply = format!("<think> a </think>\n<answer> {json} </answer>");
            let mut reading = format.read(&reply, None);
            flag(&mut reading);
            reading.violations().map(|v| format!("{} {}", v.kind.as_str(), v.detail)).collect::<Vec<_>>()
        };
        for (json, expected) in [
            (r#"{"app": "excel", "action": "read_file", "file_path": "a"}"#, None),
            (r#"{"app": "excel", "action": "read_file"}"#, Some("schema at ``: \"file_path\" is a required property")),
            (r#"{"app": "excel", "action": "word.read_file", "file_path": "a"}"#, None),
            (r#"{"app": "excel", "action": "paint"}"#, Some("unknown_action at `/action`: there is no action `paint`")),
            (r#"{"app": "ocr", "action": "read"}"#, Some("unknown_action at `/app`: there is no app `ocr`")),
            (r#"{"app": "x", "action": "switch_app", "target_app": "excel"}"#, None),
            (
                r#"{"app": "system", "action": "switch_app", "target_app": "ocr"}"#,
                Some("unknown_action at `/target_app`: there is no app `ocr`"),
            ),
            (
                r#"{"app": "system", "action": "switch_app"}"#,
                Some("schema at ``: \"target_app\" is a required property"),
            ),
            (r#"{"app": "system", "action": "finish_task"}"#, None),
            (r#"{"app": "system", "action": "stop"}"#, Some("unknown_action at `/action`: there is no action `stop`")),
            (r#"{"app": ["shell"], "action": "x"}"#, Some("schema at `/app`: [\"shell\"] is not of type \"string\"")),
            (r#"{"app": "shell", "action": "x", "command": "ls"}"#, None),
        ] {
            assert_eq!(found(json), expected.into_iter().map(str::to_owned).collect::<Vec<_>>(), "{json}");
        }
    }
}
