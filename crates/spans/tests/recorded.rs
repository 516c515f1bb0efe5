//! Replies as the official harnesses parsed them.
#![allow(missing_docs, clippy::print_stderr)]

use rolegraft_spans::Format;
use serde_json::Value;
use std::path::PathBuf;

fn recorded(file: &str) -> Option<Vec<Value>> {
    let root = std::env::var_os("ROLEGRAFT_CONFORMANCE")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    let Ok(text) = std::fs::read_to_string(root.join(file)) else {
        eprintln!("skipped: recordings `{file}` not found (set ROLEGRAFT_CONFORMANCE)");
        return None;
    };
    Some(text.lines().map(|l| serde_json::from_str(l).unwrap()).collect())
}

#[test]
fn agentbench_os() {
    let format = Format::builtin("agentbench-os").unwrap();
    for file in ["parse/agentbench-os.jsonl", "agentbench/golden/os_parse.jsonl"] {
        for row in recorded(file).into_iter().flatten() {
            let expected = row.get("expected").unwrap_or(&row);
            let reading = format.read(row["reply"].as_str().unwrap(), None);
            let (action, content) = match reading.action() {
                None => (Value::Null, Value::Null),
                Some(a) if a.name == "bash" => ("bash".into(), a.payload.clone()),
                Some(a) => ("commit".into(), a.payload.clone()),
            };
            assert_eq!((&action, &content), (&expected["action"], &expected["content"]), "{row}");
        }
    }
}

#[test]
fn officebench() {
    let format = Format::builtin("officebench").unwrap();
    for row in recorded("parse/officebench.jsonl").into_iter().flatten() {
        let reply = row["reply"].as_str().unwrap();
        let reading = format.read(reply, None);
        let expected = &row["expected"];
        let payload = reading.action().map_or(Value::Null, |a| a.payload.clone());
        assert_eq!(payload, expected["payload"], "{row}");
        if let Some(error) = expected["error"].as_str().filter(|e| e.contains("(char ")) {
            let detail = &reading.violations().next().unwrap().detail;
            assert!(error.contains(detail.as_str()), "{detail} not in {error}");
        }
    }
}

#[test]
fn agentbench_db() {
    let format = Format::builtin("agentbench-db").unwrap();
    for row in recorded("parse/agentbench-db.jsonl").into_iter().flatten() {
        let expected = &row["expected"];
        let reading = format.read(row["reply"].as_str().unwrap(), None);
        let (action, content) = match reading.action() {
            Some(a) if a.name == "operation" => {
                ("operation", Value::from(a.payload.as_str().unwrap().trim().replace('\n', " ")))
            }
            Some(a) => ("answer", a.payload.clone()),
            None => ("", Value::Null),
        };
        assert_eq!(content, expected["content"], "{row}");
        assert_eq!(reading.violations().next().is_none(), expected["status"] == "ok", "{row}");
        if expected["status"] == "ok" {
            assert_eq!(action, expected["action"], "{row}");
        }
    }
}

#[test]
fn agentbench_webshop() {
    let format = Format::builtin("agentbench-webshop").unwrap();
    for row in recorded("parse/agentbench-webshop.jsonl").into_iter().flatten() {
        let expected = &row["expected"];
        let reading = format.read(row["reply"].as_str().unwrap(), None);
        let (action, content) = match reading.action() {
            Some(a) => (a.name.as_str().into(), format!("{}[{}]", a.name, a.payload.as_str().unwrap()).into()),
            None => (Value::Null, Value::Null),
        };
        assert_eq!((&action, &content), (&expected["action"], &expected["content"]), "{row}");
    }
}
