//! τ-bench through the real binary: an agent and a simulated user behind endpoints, their failures, and what the logs
//! say afterwards.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

type Answer = dyn FnMut(&Value) -> (u16, String) + Send;

/// An endpoint that answers each request's body by a function; it lives as long as the process.
fn endpoint(answer: impl FnMut(&Value) -> (u16, String) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1#mock", listener.local_addr().unwrap());
    let answer: Arc<Mutex<Box<Answer>>> = Arc::new(Mutex::new(Box::new(answer)));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || serve(stream, &answer));
        }
    });
    url
}

fn serve(stream: TcpStream, answer: &Mutex<Box<Answer>>) {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut length, mut line, mut route) = (0, String::new(), String::new());
        loop {
            line.clear();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if route.is_empty() {
                route = line.split(' ').nth(1).unwrap_or_default().to_owned();
            }
            if line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        // Before a conversation, which begins with instructions, the server is asked what it is.
        let first = &body["messages"][0];
        let (status, text) = match route.as_str() {
            "/v1/models" => (200, json!({"data": [{"id": "mock"}]}).to_string()),
            "/v1/completions" => (404, "no such route".into()),
            _ if first["role"] == "user" || first["content"] == "Hi" => says("Hello."),
            _ => (answer.lock().unwrap())(&body),
        };
        let response = format!("HTTP/1.1 {status} X\r\nretry-after: 0\r\ncontent-length: {}\r\n\r\n{text}", text.len());
        if reader.get_mut().write_all(response.as_bytes()).is_err() {
            return;
        }
    }
}

fn message(message: Value) -> (u16, String) {
    let usage = json!({"prompt_tokens": 100, "completion_tokens": 7});
    (200, json!({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}).to_string())
}

fn says(text: &str) -> (u16, String) {
    message(json!({"role": "assistant", "content": text}))
}

fn rolegraft(arguments: &[&str], log: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rolegraft"))
        .args(arguments)
        .arg(log)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
        .env("ROLEGRAFT_API_KEY", "sk-canary")
        .env_remove("ROLEGRAFT_DATA")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json_of(output: &Output) -> Value {
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The built-in tasks of a split, by what their user wants.
fn oracle(suite: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../benchmarks").join(suite).join("nano/test.jsonl");
    std::fs::read_to_string(path).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// An agent that knows the tasks: it finds its task by the conversation's first wish and its turn by counting.
fn solver(tasks: Vec<Value>) -> impl FnMut(&Value) -> (u16, String) + Send {
    move |body| {
        let messages = body["messages"].as_array().unwrap();
        let wish = messages[1]["content"].as_str().unwrap();
        let task = tasks.iter().find(|t| wish.contains(t["instruction"].as_str().unwrap())).unwrap();
        let turn = messages.iter().filter(|m| m["role"] == "assistant").count();
        says(task["oracle"][turn].as_str().unwrap_or("It is done."))
    }
}

/// A user that repeats its instruction, then stops.
fn instructed(body: &Value) -> (u16, String) {
    let messages = body["messages"].as_array().unwrap();
    let system = messages[0]["content"].as_str().unwrap();
    let instruction = system.split("Instruction: ").nth(1).and_then(|s| s.split("\n\nRules:").next());
    if messages.len() > 2 { says("###STOP###") } else { says(instruction.unwrap()) }
}

const SUITE: &str = "tau-retail";

fn eval(agent: &str, user: &str, more: &[&str], log: &Path) -> Output {
    let mut arguments = vec!["eval", "--model", agent, "--suite", SUITE, "--user-model", user, "-n", "3", "--json"];
    if !more.contains(&"--user") {
        arguments.extend(["--user", "llm"]);
    }
    arguments.extend(more);
    arguments.push("--log");
    rolegraft(&arguments, log)
}

#[test]
fn a_simulated_user_is_accounted_apart_and_its_log_scores_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log.jsonl");
    let (agent, user) = (endpoint(solver(oracle(SUITE))), endpoint(instructed));
    let prices = ["--trials", "2", "--price", "1,10", "--user-price", "2.5,10"];
    let result = json_of(&eval(&agent, &user, &prices, &log));
    assert_eq!((&result["score"], &result["pass_hat"]), (&json!(100.0), &json!([1.0, 1.0])));
    // Six episodes: three replies of the agent each, and two of the user.
    assert_eq!(result["agent"], json!({"calls": 18, "failures": 0, "prompt_tokens": 1800, "completion_tokens": 126}));
    assert_eq!(result["users"], json!({"calls": 12, "failures": 0, "prompt_tokens": 1200, "completion_tokens": 84}));
    assert!((result["user_cost"].as_f64().unwrap() - (2.5 * 1200.0 + 10.0 * 84.0) / 1e6).abs() < 1e-12);
    assert_eq!(result["cascades"]["missing_action"], 0.0);

    let score = rolegraft(&["score"], &log);
    assert_eq!(text(&score.stdout), "score 100.0 over 6 episodes\n6 passed, 0 failed\n", "{}", text(&score.stderr));
    let report = rolegraft(&["report", "--format", "csv"], &log);
    assert!(
        text(&report.stdout).contains("log,tau-retail,3,2,100.0,43.9 to 100.0,100.0,100.0"),
        "{}",
        text(&report.stdout)
    );
    let everything = text(&std::fs::read(&log).unwrap()) + &text(&report.stdout);
    assert!(!everything.contains("sk-canary"));
}

#[test]
fn a_user_that_fails_marks_its_episode_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log.jsonl");
    let tasks = oracle(SUITE);
    let lost = tasks[1]["instruction"].as_str().unwrap().to_owned();
    let mended = Arc::new(Mutex::new(false));
    let (seen, agent) = (mended.clone(), endpoint(solver(tasks)));
    let user = endpoint(move |body| {
        let about = body["messages"][0]["content"].as_str().unwrap().contains(&lost);
        if about && !*seen.lock().unwrap() {
            return (503, json!({"error": {"message": "overloaded"}}).to_string());
        }
        instructed(body)
    });
    let broken = eval(&agent, &user, &[], &log);
    assert_eq!(broken.status.code(), Some(3));
    let said = text(&broken.stderr);
    assert!(said.contains("1 of 3 episodes have no result") && said.contains("the user does not answer"), "{said}");
    assert!(said.contains("overloaded") && !said.contains("sk-canary"), "{said}");
    assert_eq!(std::fs::read_to_string(&log).unwrap().lines().count(), 3, "a header and two episodes");
    *mended.lock().unwrap() = true;
    let result = json_of(&eval(&agent, &user, &[], &log));
    assert_eq!((&result["score"], &result["episodes"]), (&json!(100.0), &json!(3)));
}

#[test]
fn what_cannot_be_mended_stops_at_once_and_what_upstream_raises_scores_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let agent = endpoint(solver(oracle(SUITE)));
    let refusing = endpoint(|_| (401, "no".into()));
    let refused = eval(&agent, &refusing, &[], &dir.path().join("a.jsonl"));
    let said = text(&refused.stderr);
    assert!(said.contains("401") && said.contains("ROLEGRAFT_USER_API_KEY"), "{said}");

    let unreadable = endpoint(|_| says("Hello."));
    let result = json_of(&eval(&agent, &unreadable, &["--user", "react"], &dir.path().join("b.jsonl")));
    assert_eq!(result["score"], 0.0);
    let log = std::fs::read_to_string(dir.path().join("b.jsonl")).unwrap();
    assert!(log.contains("task_error") && log.contains("the user's model left out"), "{log}");

    let small = endpoint(|_| (400, "this model's maximum context length is 8".into()));
    let result = json_of(&eval(&agent, &small, &[], &dir.path().join("c.jsonl")));
    assert_eq!(result["score"], 0.0, "an overflow is scored, not tried again");

    let missing = eval(&agent, "", &["--user", "verify"], &dir.path().join("d.jsonl"));
    assert_eq!(missing.status.code(), Some(2), "{}", text(&missing.stderr));
}

fn data() -> Option<PathBuf> {
    let data = std::env::var_os("ROLEGRAFT_CONFORMANCE")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    if data.join("tau-bench").exists() {
        return Some(data);
    }
    eprintln!("skipped: official data `tau-bench` not found (set ROLEGRAFT_CONFORMANCE)");
    None
}

#[test]
fn native_calls_go_through_the_chat_api() {
    let Some(data) = data() else { return };
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log.jsonl");
    let tasks: Vec<Value> =
        serde_json::from_slice(&std::fs::read(data.join("tau-bench/airline/tasks_test.json")).unwrap()).unwrap();
    let agent = endpoint(move |body| {
        assert_eq!(body["tools"].as_array().unwrap().len(), 14);
        let messages = body["messages"].as_array().unwrap();
        assert!(messages[0]["content"].as_str().unwrap().starts_with("# Airline Agent Policy"));
        let turn = messages.iter().filter(|m| m["role"] == "assistant").count();
        for pair in messages.windows(2).filter(|p| !p[0]["tool_calls"].is_null()) {
            // Only the first call is executed and remembered.
            assert_eq!(pair[0]["tool_calls"].as_array().unwrap().len(), 1);
            assert_eq!(pair[0]["tool_calls"][0]["id"], pair[1]["tool_call_id"]);
            assert_eq!(pair[1]["role"], "tool");
        }
        let actions = tasks[0]["actions"].as_array().unwrap();
        let Some(action) = actions.get(turn) else { return says("It is done.") };
        let call = |id: String| {
            let arguments = action["kwargs"].to_string();
            json!({"id": id, "type": "function", "function": {"name": action["name"], "arguments": arguments}})
        };
        message(
            json!({"role": "assistant", "content": null, "tool_calls": [call(format!("c{turn}")), call("x".into())]}),
        )
    });
    let data = data.display().to_string();
    let arguments = [
        "eval",
        "--model",
        &agent,
        "--suite",
        "tau-airline",
        "--data",
        &data,
        "--format",
        "native",
        "-n",
        "1",
        "--json",
        "--log",
    ];
    let result = json_of(&rolegraft(&arguments, &log));
    assert_eq!(result["score"], 100.0, "{}", std::fs::read_to_string(&log).unwrap());
    assert!(result["kinds"]["multiple"].as_f64().unwrap() > 0.0);
    let score = rolegraft(&["score", "--data", &data, "--format", "native"], &log);
    assert_eq!(text(&score.stdout), "score 100.0 over 1 episodes\n1 passed, 0 failed\n");

    let pool = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../benchmarks/nano-pool/tau").display().to_string();
    let mut local = arguments;
    local[2] = &pool;
    let refused = rolegraft(&local, &dir.path().join("local.jsonl"));
    assert!(text(&refused.stderr).contains("only an endpoint makes"), "{}", text(&refused.stderr));
}

#[test]
fn a_person_can_play_the_user() {
    let dir = tempfile::tempdir().unwrap();
    let agent = endpoint(solver(oracle(SUITE)));
    let wish = oracle(SUITE)[0]["instruction"].as_str().unwrap().to_owned();
    let mut child = Command::new(env!("CARGO_BIN_EXE_rolegraft"))
        .args(["eval", "--model", &agent, "--suite", SUITE, "--user", "human", "-n", "1", "--json", "--log"])
        .arg(dir.path().join("log.jsonl"))
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
        .env_remove("ROLEGRAFT_DATA")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(format!("{wish}\n###STOP###\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(json_of(&output)["score"], 100.0);
    assert!(text(&output.stderr).contains("It is done.\n> "), "{}", text(&output.stderr));
}
