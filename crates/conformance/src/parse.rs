//! Replies as the official harnesses parsed them.

use crate::recordings::{Replayed, cases, same, text};
use crate::{ConformanceError, Report};
use rolegraft_spans::Format;
use rolegraft_suite_alfworld::chosen;
use serde_json::{Value, json};
use std::path::Path;

/// Replays recorded replies, a file a format: `FORMAT.jsonl`, a line `{"reply": …, "expected": …}`.
///
/// # Errors
/// If there are no recordings.
pub fn parse(traces: &Path) -> Result<Report, ConformanceError> {
    cases(traces, |file, _, case| {
        let format = Format::builtin(file).ok()?;
        let compare = match file {
            "officebench" => officebench,
            "agentbench-os" => os,
            "agentbench-db" => db,
            "agentbench-webshop" => webshop,
            "agentbench-alfworld" => alfworld,
            _ => return None,
        };
        Some(Replayed::Compared(compare(&format, case)))
    })
}

fn officebench(format: &Format, case: &Value) -> Result<(), String> {
    let (reading, expected) = (format.read(text(case, "reply"), None), &case["expected"]);
    let payload = reading.action().map_or(Value::Null, |action| action.payload.clone());
    same("payload", &expected["payload"], &payload)?;
    // Python's own complaint stands in what the model is told.
    match expected["error"].as_str().filter(|error| error.contains("(char ")) {
        Some(error) if !reading.violations().next().is_some_and(|v| error.contains(v.detail.as_str())) => {
            Err(format!("error: expected {error}"))
        }
        _ => Ok(()),
    }
}

fn os(format: &Format, case: &Value) -> Result<(), String> {
    let reading = format.read(text(case, "reply"), None);
    let (action, content) = match reading.action() {
        None => (Value::Null, Value::Null),
        Some(action) if action.name == "bash" => ("bash".into(), action.payload.clone()),
        Some(action) => ("commit".into(), action.payload.clone()),
    };
    same("action", &case["expected"]["action"], &action)?;
    same("content", &case["expected"]["content"], &content)
}

fn db(format: &Format, case: &Value) -> Result<(), String> {
    let (reading, expected) = (format.read(text(case, "reply"), None), &case["expected"]);
    let (action, content) = match reading.action() {
        // upstream: line ends of SQL are blanks.
        Some(action) if action.name == "operation" => {
            ("operation".into(), json!(action.payload.as_str().unwrap_or_default().trim().replace('\n', " ")))
        }
        Some(action) => ("answer".into(), action.payload.clone()),
        None => (Value::Null, Value::Null),
    };
    let read = expected["status"] == "ok";
    if read != reading.violations().next().is_none() {
        return Err(format!(
            "violations: expected status {}, got {:?}",
            expected["status"],
            reading.violations().next()
        ));
    }
    if read {
        same("action", &expected["action"], &action)?;
    }
    same("content", &expected["content"], &content)
}

fn webshop(format: &Format, case: &Value) -> Result<(), String> {
    let reading = format.read(text(case, "reply"), None);
    let (action, content) = match reading.action() {
        Some(action) => {
            let payload = action.payload.as_str().unwrap_or_default();
            (json!(action.name), json!(format!("{}[{payload}]", action.name)))
        }
        None => (Value::Null, Value::Null),
    };
    same("action", &case["expected"]["action"], &action)?;
    same("content", &case["expected"]["content"], &content)
}

fn alfworld(format: &Format, case: &Value) -> Result<(), String> {
    let (reading, expected) = (format.read(text(case, "reply"), None), &case["expected"]);
    let choices: Vec<&str> = case["choices"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let said = reading.action().and_then(|action| action.payload.as_str()).map(str::to_lowercase);
    // What is empty is no action.
    let action = said.map_or_else(String::new, |said| chosen(&said, &choices));
    same("action", &json!(expected["action"].as_str().unwrap_or_default()), &json!(action))?;
    same("violations", &json!(expected["status"] == "ok"), &json!(reading.violations().next().is_none()))
}
