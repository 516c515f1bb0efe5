//! The real binary with servers: that they change text, filter, die, move, hold other weights; and servers that it starts
//! itself, played by this test's own program in vLLM's protocol.

use rolegraft_decoder::{Decoder, Place};
use rolegraft_model::{Chooser, Sampling};
use rolegraft_trajectory::{Episodes, Key, Road, Seed, Vocabulary};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

#[allow(dead_code, reason = "not every test needs all of it")]
#[path = "../crates/model/tests/servers/fake.rs"]
mod fake;
use crate::miniature::{miniature, rolegraft, root, sandbox_missing, text};
use fake::{Fake, Said, list, reply, text as said};

fn eval(url: &str, log: &Path, more: &[&str]) -> Output {
    let log = log.to_str().unwrap();
    let fixed = ["eval", "--model", url, "--suite", "tau-retail", "-n", "6", "--log", log];
    rolegraft(&[&fixed, more].concat()).output().unwrap()
}

fn ok(output: Output) -> String {
    assert!(output.status.success(), "{}", text(&output));
    text(&output)
}

fn fails(output: &Output, code: i32, part: &str) {
    assert_eq!(output.status.code(), Some(code), "{}", text(output));
    assert!(text(output).contains(part), "`{part}` is missing from {}", text(output));
}

/// What a model says that looks at an order again and again.
const LOOK: &str =
    "<tool_call>\n{\"name\": \"get_order_details\", \"arguments\": {\"order_id\": \"#W1\"}}\n</tool_call>";

fn call() -> Value {
    let function = json!({"name": "get_order_details", "arguments": "{\"order_id\": \"#W1\"}"});
    json!({"role": "assistant", "content": "", "tool_calls": [{"id": "c", "type": "function", "function": function}]})
}

/// A server that takes calls out of what the model writes.
fn eating(path: &str, _: &Value) -> Said {
    if path == "/v1/models" { list(&["m"]) } else { reply(call(), "tool_calls") }
}

#[test]
fn text_that_a_server_changed_is_marked_and_not_compared_with_text_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let (changed, kept) = (dir.path().join("changed.jsonl"), dir.path().join("kept.jsonl"));
    let server = Fake::start(eating);
    let shown = ok(eval(&server.url, &changed, &[]));
    assert!(shown.contains("--tokenizer DIR"), "{shown}");
    let mut episodes = Episodes::open(&changed).unwrap();
    let served = episodes.origin().served.clone().unwrap();
    assert_eq!((served.road, served.exact), (Road::Chat, Some(false)));
    let first = episodes.next().unwrap().unwrap();
    assert!(first.turns.iter().all(|turn| turn.inexact));
    assert!(first.replies().all(|reply| reply.starts_with("<tool_call>\n{\"name\": \"get_order_details\"")));

    let markup = "<tool_call>\n{\"name\": \"probe\", \"arguments\": {}}\n</tool_call>";
    let plain = Fake::start(move |path, _| if path == "/v1/models" { list(&["m"]) } else { said(markup) });
    ok(eval(&plain.url, &kept, &[]));
    assert_eq!(Episodes::open(&kept).unwrap().origin().served.clone().unwrap().exact, Some(true));
    let logs = [changed.to_str().unwrap(), kept.to_str().unwrap()];
    fails(&rolegraft(&["report", logs[0], logs[1]]).output().unwrap(), 2, "say `--mixed`");
    let page = dir.path().join("page");
    let output = rolegraft(&["report", logs[0], logs[1], "--html", page.to_str().unwrap()]).output().unwrap();
    assert!(output.status.code() == Some(2) && !page.exists());
    let shown = ok(rolegraft(&["report", logs[0], logs[1], "--mixed"]).output().unwrap());
    assert!(shown.contains("| changed ≈ |") && shown.contains("| kept "), "{shown}");
}

#[test]
fn what_the_server_ended_is_told_apart_from_what_the_model_lost() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log.jsonl");
    // Every third conversation is filtered; one breaks the server at its second turn.
    let server = Fake::start(move |path, body| {
        let messages = body["messages"].as_array().cloned().unwrap_or_default();
        let asked = messages.get(1).map(Value::to_string).unwrap_or_default();
        let number = asked.bytes().map(usize::from).sum::<usize>() % 3;
        match (path, messages.len(), number) {
            ("/v1/models", ..) => list(&["m"]),
            (_, 2, 0) if asked.contains("order") => (400, json!({"error": {"code": "content_filter"}}).to_string()),
            (_, 4, 1) => (500, "Internal Server Error".into()),
            _ => said(
                "<tool_call>\n{\"name\": \"get_order_details\", \"arguments\": {\"order_id\": \"#W1\"}}\n</tool_call>",
            ),
        }
    });
    let output = rolegraft(&[
        "eval",
        "--model",
        &server.url,
        "--suite",
        "tau-retail",
        "-n",
        "12",
        "--log",
        log.to_str().unwrap(),
    ]);
    ok({ output }.output().unwrap());
    let shown = ok(rolegraft(&["report", log.to_str().unwrap()]).output().unwrap());
    assert!(shown.contains("server_filtered") && shown.contains("unreadable_by_server"), "{shown}");
    let again = ok(rolegraft(&["score", log.to_str().unwrap()]).output().unwrap());
    assert!(again.contains("12 passed, 0 failed"), "{again}");
}

#[test]
fn a_server_that_dies_loses_nothing_and_one_that_stays_away_ends_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, log) = (dir.path().join("whole.jsonl"), dir.path().join("log.jsonl"));
    let answer = |path: &str, _: &Value| if path == "/v1/models" { list(&["m"]) } else { said(LOOK) };
    let server = Fake::start(answer);
    ok(eval(&server.url, &whole, &[]));

    // It goes after a few answers, and comes back on another port: the same model is the same.
    let counted = AtomicUsize::new(0);
    let mortal = Arc::new(Mutex::new(None::<Fake>));
    let held = mortal.clone();
    let dying = Fake::start(move |path, body| {
        if body["max_tokens"] == 120
            && counted.fetch_add(1, Ordering::SeqCst) == 20
            && let Some(fake) = &*held.lock().unwrap()
        {
            fake.stop();
        }
        answer(path, body)
    });
    let url = dying.url.clone();
    *mortal.lock().unwrap() = Some(dying);
    fails(&eval(&url, &log, &["--concurrency", "1", "--patience", "1"]), 3, "has gone");
    let saved = Episodes::open(&log).unwrap().count();
    assert!(saved > 0 && saved < 6, "{saved} saved");
    let back = Fake::start(answer);
    ok(eval(&back.url, &log, &[]));
    let read = |path: &Path| {
        let mut all: Vec<_> = Episodes::open(path)
            .unwrap()
            .map(|e| e.unwrap())
            .map(|e| (e.key, e.messages, e.reward.to_bits()))
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    };
    assert_eq!(read(&log), read(&whole));

    // Another model at the same address is another.
    let other = Fake::start(|path, _| if path == "/v1/models" { list(&["m"]) } else { said("No.") });
    fails(&eval(&other.url, &log, &[]), 2, "was played by another model, or asked in another way");
    fails(&eval(&back.url, &log, &["--api-field", "seed="]), 2, "{\"seed\":\"\"}] now");
}

#[test]
fn wrong_servers_are_said_before_anything_is_played() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log.jsonl");
    let server = Fake::start(|path, _| match path {
        "/v1/models" => list(&["m"]),
        "/v1/chat/completions" => said("hello"),
        _ => (200, "<html>Welcome</html>".into()),
    });
    let base = server.url.trim_end_matches("/v1").to_owned();
    let denied = Fake::start(|_, _| (401, "no".into()));
    for (url, code, part) in [
        (base.as_str(), 2, "/v1"),
        (&format!("{}#other", server.url), 2, "has no model `other`, but `m`"),
        (&denied.url, 2, "ROLEGRAFT_API_KEY"),
        ("http://127.0.0.1:1/v1#m", 3, "is the server running"),
        ("https://127.0.0.1:1/v1#m", 3, "127.0.0.1:1"),
    ] {
        fails(&eval(url, &log, &[]), code, part);
        assert!(!log.exists(), "{url}");
    }
    fails(&eval(&server.url, &log, &["--api-field", "model=x"]), 2, "question itself");
    fails(&eval(&server.url, &log, &["--concurrency", "0"]), 2, "0");
    fails(&eval(&server.url, &log, &["--tokenizer", "nowhere"]), 2, "nowhere");
    fails(&eval(&server.url, &log, &["--chat", "enable_thinking=false"]), 2, "--tokenizer DIR");
    let denied = denied.url.clone();
    let output = rolegraft(&["eval", "--model", &denied, "--suite", "tau-retail", "--log", log.to_str().unwrap()])
        .env("ROLEGRAFT_API_KEY", "sk-canary")
        .output()
        .unwrap();
    assert!(!text(&output).contains("sk-canary"), "{}", text(&output));
    let shown = ok(rolegraft(&["doctor", "--model", &server.url]).output().unwrap());
    assert!(shown.contains("messages through /chat/completions") && shown.contains("fingerprint"), "{shown}");
}

/// The nano pool's suites, greedy, and an experiment on them.
fn greedy(dir: &Path, change: impl Fn(String) -> String) -> PathBuf {
    let suites = dir.join("suites");
    for suite in ["tau-retail", "officebench"] {
        let (from, to) = (root().join("benchmarks").join(suite), suites.join(suite));
        std::fs::create_dir_all(to.join("nano")).unwrap();
        let rules = std::fs::read_to_string(from.join("suite.toml")).unwrap();
        std::fs::write(to.join("suite.toml"), rules.replace("temperature = 0.7", "temperature = 0.0")).unwrap();
        for entry in from.join("nano").read_dir().unwrap().flatten() {
            if entry.path().is_file() {
                std::fs::copy(entry.path(), to.join("nano").join(entry.file_name())).unwrap();
            }
        }
    }
    miniature(dir, |text| {
        let (head, rest) = text.split_once("[[benchmark]]").unwrap();
        let tail = &rest[rest.find("[tasks]").unwrap()..];
        let column = |id: &str, expert: &str, suite: &str| {
            format!("[[benchmark]]\nid = \"{id}\"\ntitle = \"{id}\"\nexpert = \"{expert}\"\nsuites = [\"{suite}\"]\n")
        };
        let columns = column("tau", "tau", "tau-retail") + &column("officebench", "office", "officebench");
        let benchmarks = format!("suites = \"{}\"", root().join("benchmarks").display());
        let head = head.replace(&benchmarks, &format!("suites = \"{}\"", suites.display()));
        change(format!("{head}{columns}{tail}"))
    })
}

/// An experiment whose checkpoints are played by this program as a server.
fn served(dir: &Path, more: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let command = format!(
        "env ROLEGRAFT_FAKE_DIR={{dir}} ROLEGRAFT_FAKE_PORT={{port}} ROLEGRAFT_FAKE_NAME={{name}} {} servers::acts_as_a_server --exact --nocapture",
        own.display()
    );
    let server = format!("[server]\nkind = \"vllm\"\ncommand = \"{command}\"\n{more}\n");
    greedy(dir, |text| {
        text.replace("engine = \"candle\"", "engine = \"server\"").replacen("[pool]", &format!("{server}[pool]"), 1)
    })
}

fn run(experiment: &Path, results: &Path) -> Output {
    rolegraft(&["run", experiment.to_str().unwrap(), "--results", results.to_str().unwrap()]).output().unwrap()
}

#[test]
fn a_pool_with_an_endpoint_is_evaluated_and_not_merged() {
    let dir = tempfile::tempdir().unwrap();
    let server = Fake::start(eating);
    let tau = format!("tau = \"{}\"", root().join("benchmarks/nano-pool/tau").display());
    let merged = greedy(dir.path(), |text| text.replace(&tau, &format!("tau = \"{}#m\"", server.url)));
    let results = dir.path().join("results");
    fails(&run(&merged, &results), 2, "cannot be merged");
    assert!(server.asked("").is_empty() && !results.exists());
    let text = std::fs::read_to_string(&merged).unwrap();
    let (head, rest) = text.split_once("[[candidate]]").unwrap();
    let alone = dir.path().join("alone.toml");
    std::fs::write(&alone, format!("{head}{}", &rest[rest.find("[saliency]").unwrap()..])).unwrap();
    let shown = ok(run(&alone, &results));
    for part in ["| base ", "| tau ≈ ", "| office ", "messages through /chat/completions", "nothing is merged"] {
        assert!(shown.contains(part), "{part} is missing from {shown}");
    }
    // What was played is not played again.
    let asked = server.asked("/chat/completions").iter().filter(|body| body["max_tokens"] == 120).count();
    ok(run(&alone, &results));
    assert_eq!(server.asked("/chat/completions").iter().filter(|body| body["max_tokens"] == 120).count(), asked);
}

/// Not a test by itself: what `served` starts.
#[test]
fn acts_as_a_server() {
    let Ok(dir) = std::env::var("ROLEGRAFT_FAKE_DIR") else { return };
    let (port, name) = (std::env::var("ROLEGRAFT_FAKE_PORT").unwrap(), std::env::var("ROLEGRAFT_FAKE_NAME").unwrap());
    let held = Mutex::new(load(Path::new(&dir)));
    let (version, summed) = (Mutex::new(json!("default")), Mutex::new(dir.clone()));
    let stale = std::env::var("ROLEGRAFT_FAKE_STALE").is_ok();
    let _fake = Fake::on(&format!("127.0.0.1:{port}"), move |path, body| match path {
        "/health" | "/pause?mode=wait" | "/reset_prefix_cache" | "/resume" => (200, "{}".into()),
        "/v1/models" => (200, json!({"data": [{"id": name, "owned_by": "vllm", "max_model_len": 1024}]}).to_string()),
        "/weight_info" => (200, json!({"weight_version": *version.lock().unwrap()}).to_string()),
        "/update_weight_version" => {
            *version.lock().unwrap() = body["new_version"].clone();
            (200, "{}".into())
        }
        "/collective_rpc" => {
            let path = body["kwargs"]["weights_path"].as_str().unwrap();
            if !stale {
                *held.lock().unwrap() = load(Path::new(path));
            }
            path.clone_into(&mut summed.lock().unwrap());
            (200, json!({"results": [Value::Null]}).to_string())
        }
        // One that lies sums up what it was given, not what it has.
        "/weight_checker" => (200, json!({"checksums": {"all": *summed.lock().unwrap()}}).to_string()),
        "/v1/completions" => completion(&held.lock().unwrap(), body),
        _ => (404, json!({"detail": "Not Found"}).to_string()),
    });
    loop {
        std::thread::park();
    }
}

fn load(dir: &Path) -> (Decoder, Vocabulary) {
    let checkpoint = rolegraft_checkpoint::Checkpoint::open(dir).unwrap();
    (Decoder::load(&checkpoint, &Place::cpu()).unwrap(), Vocabulary::read(dir).unwrap())
}

/// Greedy, as vLLM answers.
fn completion((decoder, vocabulary): &(Decoder, Vocabulary), body: &Value) -> Said {
    let Ok(prompt) = serde_json::from_value::<Vec<u32>>(body["prompt"].clone()) else {
        return (400, "token ids alone".into());
    };
    let ends: Vec<u32> = serde_json::from_value(body["stop_token_ids"].clone()).unwrap_or_default();
    let mut cache = decoder.cache();
    if body.get("prompt_logprobs").is_some() {
        let mut logged = vec![Value::Null];
        for pair in prompt.windows(2) {
            let logits = decoder.forward(&pair[..1], &mut cache).unwrap();
            let sum: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
            let probability = f64::from(logits[pair[1] as usize]) - sum.ln();
            logged.push(json!({pair[1].to_string(): {"logprob": probability}}));
        }
        return (200, json!({"choices": [{"text": "", "token_ids": [], "prompt_logprobs": logged}]}).to_string());
    }
    let sampling = Sampling { temperature: 0.0, top_p: 1.0, max_tokens: 1 };
    let chooser = Chooser::new(sampling, Key::new(Seed(0)), vocabulary.size());
    let mut logits = decoder.forward(&prompt, &mut cache).unwrap();
    let (mut ids, mut finish) = (Vec::new(), "length");
    for at in 0..body["max_tokens"].as_u64().unwrap() as usize {
        let id = chooser.pick(&logits, at);
        ids.push(id);
        if ends.contains(&id) {
            finish = "stop";
            break;
        }
        logits = decoder.forward(&[id], &mut cache).unwrap();
    }
    let choice = json!({"text": vocabulary.decode(&ids), "token_ids": ids, "finish_reason": finish});
    let usage = json!({"prompt_tokens": prompt.len(), "completion_tokens": ids.len()});
    (200, json!({"choices": [choice], "usage": usage}).to_string())
}

/// The tables of a run that are about scores.
fn tables(results: &Path) -> Vec<(String, String)> {
    let dir = results.join("runs/nano/tables");
    ["table1.csv", "table3.csv", "table7.csv", "table8.csv", "diagnosis.csv", "transplant.csv"]
        .map(|name| (name.to_owned(), std::fs::read_to_string(dir.join(name)).unwrap()))
        .into()
}

/// Processes that were started as servers by runs below a folder of results.
fn left(results: &Path) -> usize {
    let records = results.join("servers").read_dir().into_iter().flatten().flatten();
    records.filter(|entry| entry.path().extension().is_some_and(|end| end == "json")).count()
}

#[test]
fn a_run_through_servers_of_its_own_gives_the_tables_of_the_engine_in_process() {
    if sandbox_missing() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path().join("here");
    let experiment = greedy(dir.path(), |text| text);
    ok(run(&experiment, &here));
    // Restarted for each checkpoint, on two servers; and given other weights without a restart.
    for (name, more) in [("restarted", "replicas = 2"), ("swapped", "swap = \"vllm\"")] {
        let there = dir.path().join(name);
        ok(run(&served(dir.path(), more), &there));
        assert_eq!(tables(&there), tables(&here), "{name}");
        assert_eq!(left(&there), 0);
        let log = there.join("runs/nano/episodes/test-tau-retail-arm.jsonl");
        let served = Episodes::open(&log).unwrap().origin().served.clone().unwrap();
        assert_eq!((served.road, served.exact), (Road::TokenIds, Some(true)));
    }
    // One that answers with the weights before is found out, though it says that it has the new ones.
    let stale = served(dir.path(), "swap = \"vllm\"\nenv = { ROLEGRAFT_FAKE_STALE = \"1\" }");
    let output = run(&stale, &dir.path().join("stale"));
    fails(&output, 3, "says other things");
}

#[test]
fn servers_end_with_the_run_however_it_ends_and_those_that_do_not_start_say_why() {
    if sandbox_missing() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let results = dir.path().join("results");
    let experiment = served(dir.path(), "");
    let mut killed =
        rolegraft(&["run", experiment.to_str().unwrap(), "--results", results.to_str().unwrap()]).spawn().unwrap();
    let begun = std::time::Instant::now();
    while left(&results) == 0 && begun.elapsed().as_secs() < 60 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(left(&results), 1, "the server of a killed run has its record");
    ok(run(&experiment, &results));
    assert_eq!(left(&results), 0);

    let refuse = |server: &str, part: &str, code: i32| {
        let text = std::fs::read_to_string(&experiment).unwrap();
        let (head, rest) = text.split_once("[server]").unwrap();
        let tail = &rest[rest.find("[pool]").unwrap()..];
        let path = dir.path().join("wrong.toml");
        std::fs::write(&path, format!("{head}[server]\n{server}\n{tail}")).unwrap();
        fails(&run(&path, &dir.path().join("wrong")), code, part);
        assert_eq!(left(&dir.path().join("wrong")), 0);
    };
    refuse("kind = \"custom\"\ncommand = \"no-such-server {dir} {port}\"", "is not found", 3);
    refuse("kind = \"custom\"\ncommand = \"sh -c 'echo out of memory; exit 3' {dir} {port}\"", "out of memory", 3);
    refuse("kind = \"custom\"\ncommand = \"sleep 60 {dir} {port}\"", "ended before it was ready", 3);
    refuse(
        "kind = \"custom\"\ncommand = \"sh -c 'echo loading; sleep 60' {dir} {port}\"\nready_within = 1",
        "loading",
        3,
    );
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    refuse(&format!("kind = \"vllm\"\nport = {}", taken.local_addr().unwrap().port()), "is taken", 3);
    refuse("kind = \"custom\"\ncommand = \"serve {model} {dir} {port}\"", "has {model}", 2);
    refuse("kind = \"vllm\"\nurls = [\"http://127.0.0.1:1\"]", "cannot be given other weights", 2);
    refuse("kind = \"llamacpp\"", "GGUF", 2);
}
