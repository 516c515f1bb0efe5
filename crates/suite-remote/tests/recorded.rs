//! The client against what AgentBench's servers answered when they were recorded.
#![allow(missing_docs, clippy::print_stderr)]

use rolegraft_spans::Format;
use rolegraft_suite::{Limits, Suite, Task};
use rolegraft_suite_remote::{Api, Client, Controller, RemoteSuite};
use rolegraft_trajectory::calls::{self, NativeCall};
use rolegraft_trajectory::{Role, Status};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Requests that were made: path and body.
type Made = Arc<Mutex<Vec<(String, Value)>>>;

fn recording(file: &str) -> Option<Vec<Value>> {
    let root = std::env::var_os("ROLEGRAFT_CONFORMANCE")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    let Ok(text) = std::fs::read_to_string(root.join("agentbench/golden").join(file)) else {
        eprintln!("skipped: recordings `{file}` not found (set ROLEGRAFT_CONFORMANCE)");
        return None;
    };
    Some(text.lines().map(|l| serde_json::from_str(l).unwrap()).collect())
}

fn read(stream: &TcpStream) -> (String, Value) {
    let mut reader = BufReader::new(stream);
    let (mut line, mut path, mut length) = (String::new(), String::new(), 0);
    while reader.read_line(&mut line).unwrap() > 0 && !line.trim().is_empty() {
        if path.is_empty() {
            path = line.split(' ').nth(1).unwrap().to_owned();
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (path, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// A server that answers each request as the recording did, each line once; what was not recorded is refused.
fn server(lines: Vec<Value>, rename: fn(&mut Value)) -> (String, Made) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (made, mut left): (Made, Vec<Value>) = (Made::default(), lines);
    let kept = made.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (path, mut body) = read(&stream);
            kept.lock().unwrap().push((path.clone(), body.clone()));
            rename(&mut body);
            let found = left.iter().position(|line| line["path"] == path.as_str() && line["request"] == body);
            let (status, answer) = match found.map(|i| left.remove(i)) {
                Some(line) => (line["status"].as_u64().unwrap(), line["response"].to_string()),
                None => (400, json!({"detail": "not recorded"}).to_string()),
            };
            let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", answer.len());
            (&stream).write_all(format!("{head}{answer}").as_bytes()).unwrap();
        }
    });
    (address, made)
}

fn limits() -> Limits {
    Limits { turns: 8, tokens: 0, temperature: 0.0, top_p: 1.0 }
}

fn task(index: Value) -> Task {
    Task { id: index.to_string(), fields: json!({"index": index}) }
}

#[test]
fn the_controller_of_v02() {
    let Some(lines) = recording("http_v02.jsonl") else { return };
    let (address, made) = server(lines, |_| {});
    let client = Client::new(&address).unwrap().with_patience(Duration::ZERO);
    let format = || Format::builtin("agentbench-os").unwrap();
    let unknown = RemoteSuite::open("x", "none", Api::Controller, client.clone(), format(), limits());
    assert!(unknown.is_err_and(|e| e.to_string().contains("Task does not exist")));
    let suite = RemoteSuite::open("x", "two", Api::Controller, client, format(), limits()).unwrap();
    assert_eq!(suite.tasks().iter().map(|t| t.id.as_str()).collect::<Vec<_>>(), ["a-00000", "1"]);
    let start = || suite.start(&task("a-00000".into())).unwrap();

    let mut right = start();
    assert_eq!(right.open().unwrap()[0].content, "Q1");
    let step = right.step("hello").unwrap();
    assert_eq!((step.ended, step.observations[0].content.as_str()), (None, "Q2"));
    assert_eq!(right.shown(&[]).unwrap().len(), 3);
    assert_eq!(right.step("yes").unwrap().ended, Some(Status::Completed));
    assert_eq!(right.outcome().reward, 1.0);
    drop(right);

    // The conversation no longer fits: nothing more is said, and the server is told.
    let mut long = start();
    assert_eq!(long.outcome().reward, 0.0);
    drop(long);

    let mut broken = start();
    assert_eq!(broken.step("boom").unwrap().ended, Some(Status::TaskError));
    assert_eq!(broken.outcome().reward, 0.0);
    drop(broken);

    let at_once = suite.start(&task(1.into())).unwrap();
    assert_eq!(at_once.ended_at_once(), Some(Status::TaskError));
    drop(at_once);

    drop(start());
    assert!(suite.start(&task("zzz".into())).is_err_and(|e| e.to_string().contains("Index out of bounds")));
    drop(start());
    assert!(suite.start(&task("a-00000".into())).is_err_and(|e| e.to_string().contains("No workers available")));

    let made = made.lock().unwrap();
    let cancelled: Vec<_> = made.iter().filter(|(p, _)| p == "/cancel").map(|(_, b)| b["session_id"].clone()).collect();
    // The failed one keeps its worker until it is cancelled; the abandoned ones are.
    assert_eq!(cancelled, [2, 4, 5]);
}

#[test]
fn a_worker_of_the_function_call_version() {
    let Some(lines) = recording("http_fc_worker.jsonl") else { return };
    // Sessions are ours to number: the recording's are put in their place, in order.
    let (address, made) = server(lines, |body| {
        let Some(session) = body["session_id"].as_u64() else { return };
        let recorded = [11, 7, 8];
        body["session_id"] = recorded[(session as usize & 0xfffff) % recorded.len()].into();
    });
    let client = Client::new(&address).unwrap().with_patience(Duration::ZERO);
    let suite =
        RemoteSuite::open("x", "two", Api::Worker, client, Format::builtin("native").unwrap(), limits()).unwrap();
    assert_eq!(suite.tools().unwrap()[0]["function"]["name"], "bash_action");
    let call = NativeCall { id: "c1".into(), name: "bash_action".into(), arguments: "{\"script\":\"ls\"}".into() };

    let mut episode = suite.start(&task(0.into())).unwrap();
    assert_eq!(episode.open().unwrap().iter().map(|m| m.content.as_str()).collect::<Vec<_>>(), ["S", "Q1"]);
    let step = episode.step(&calls::write("", &[call])).unwrap();
    assert_eq!((step.observations[0].role, step.observations[0].content.as_str()), (Role::Tool, "out"));
    assert_eq!(episode.step("done").unwrap().ended, Some(Status::Completed));
    assert_eq!(episode.outcome().reward, 1.0);
    drop(episode);

    let mut episode = suite.start(&task(0.into())).unwrap();
    let step = episode.step("text only").unwrap();
    assert!(step.observations[0].content.starts_with("No executable tool calls found"));
    drop(episode);
    let made = made.lock().unwrap();
    assert_eq!(made.iter().filter(|(path, _)| path == "/cancel").count(), 2);
}

#[test]
fn workers_report_themselves() {
    let controller = Controller::listen("127.0.0.1:0").unwrap();
    assert!(controller.worker("two", Duration::from_millis(10)).is_none());
    let body = r#"{"name": "two", "address": "http://127.0.0.1:15911/api", "concurrency": 2, "indices": [0, 1]}"#;
    for hostile in ["", "GET", "POST /receive_heartbeat HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n{"] {
        let mut stream = TcpStream::connect(controller.address()).unwrap();
        stream.write_all(hostile.as_bytes()).unwrap();
    }
    let mut stream = TcpStream::connect(controller.address()).unwrap();
    let request = format!("POST /api/receive_heartbeat HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("{}"), "{answer}");
    let worker = controller.worker("two", Duration::from_secs(5)).unwrap();
    assert_eq!((worker.address.as_str(), worker.concurrency), ("http://127.0.0.1:15911/api", 2));
}
