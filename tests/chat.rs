//! The real binary on chat templates that refuse, never end or take arguments; on reasoning; on logs of the first format.

use rolegraft_trajectory::{Context, EpisodeLog};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use crate::miniature::{rolegraft, root, text};

/// A checkpoint of the pool with another template.
fn checkpoint(dir: &Path, name: &str, template: &str) -> PathBuf {
    let to = dir.join(name);
    std::fs::create_dir(&to).unwrap();
    for file in std::fs::read_dir(root().join("benchmarks/nano-pool").join(name)).unwrap() {
        let file = file.unwrap().path();
        std::fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
    std::fs::write(to.join("chat_template.jinja"), template).unwrap();
    to
}

fn own_template() -> String {
    let pool = root().join("benchmarks/nano-pool/base");
    std::fs::read_to_string(pool.join("chat_template.jinja")).unwrap_or_else(|_| {
        let config = std::fs::read_to_string(pool.join("tokenizer_config.json")).unwrap();
        let config: serde_json::Value = serde_json::from_str(&config).unwrap();
        config["chat_template"].as_str().unwrap().to_owned()
    })
}

fn eval(model: &Path, log: &Path, more: &[&str]) -> Output {
    let engine = if more.contains(&"--engine") { &[][..] } else { &["--engine", "candle"] };
    rolegraft(&["eval", "--suite", "tau-airline", "-n", "2", "--model"])
        .args([model, Path::new("--log"), log])
        .args(engine)
        .args(more)
        .output()
        .unwrap()
}

#[test]
fn what_a_template_refuses_is_said_before_anything_is_played() {
    let refuses = "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('Only user and assistant roles are \
        supported!') }}{% endif %}{{ m.content }}{% endfor %}";
    for (template, expected) in [
        (
            refuses,
            vec!["`tau-airline`", "system, user, assistant, tool", "Only user and assistant roles are supported!"],
        ),
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", vec!["does not end"]),
        ("{% for a in range(9999) %}{{ 'x' * 9999 }}{% endfor %}", vec!["writes a text of", "are allowed"]),
        ("{{ summon(messages) }}", vec!["`tau-airline`", "summon"]),
        ("{% for m in messages %}{{ m.content }}", vec!["is not a template", "never closed"]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let model = checkpoint(dir.path(), "tau", template);
        let log = dir.path().join("log.jsonl");
        let output = eval(&model, &log, &[]);
        assert_eq!(output.status.code(), Some(2), "{template}: {}", text(&output));
        for part in expected {
            assert!(text(&output).contains(part), "`{part}` is missing from {}", text(&output));
        }
        assert!(!log.exists());

        let nano = std::fs::read_to_string(root().join("benchmarks/experiments/nano.toml")).unwrap();
        let benchmarks = format!("\"{}", root().join("benchmarks").display());
        let own = format!("{benchmarks}/nano-pool/tau\"");
        let nano = nano.replace("\"..\"", &format!("{benchmarks}\"")).replace("\"../", &format!("{benchmarks}/"));
        assert!(nano.contains(&own), "{nano}");
        let experiment = dir.path().join("e.toml");
        std::fs::write(&experiment, nano.replace(&own, &format!("{model:?}"))).unwrap();
        let results = dir.path().join("results");
        let output = rolegraft(&["run"]).args([&experiment, Path::new("--results"), &results]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{template}: {}", text(&output));
        assert!(!results.join("cache").exists(), "{}", text(&output));
    }
}

#[test]
fn template_arguments_are_part_of_what_a_log_belongs_to() {
    let dir = tempfile::tempdir().unwrap();
    let template = own_template() + "{% if quiet %}<|im_end|>{% endif %}{% if strftime_now is undefined %}{% endif %}";
    let model = checkpoint(dir.path(), "tau", &template);
    let log = dir.path().join("log.jsonl");
    let dated = eval(&model, &log, &["--chat", "quiet=true"]);
    assert!(dated.status.success(), "{}", text(&dated));
    assert!(text(&dated).contains("writes the day") && text(&dated).contains("--chat date="), "{}", text(&dated));
    let (_, episodes) = EpisodeLog::read(&log).unwrap();
    assert_eq!(episodes.len(), 2);
    assert!(eval(&model, &log, &["--chat", "quiet=true"]).status.success());
    for other in [&["--chat", "quiet=false"][..], &["--chat", "quiet=true", "--chat", "date=2020-01-01"], &[]] {
        let output = eval(&model, &log, other);
        assert!(text(&output).contains("holds episodes of other inputs"), "{other:?}: {}", text(&output));
    }
    for (wrong, expected) in [
        ("quiet", "KEY=VALUE"),
        ("date=tomorrow", "expected a day such as"),
        ("messages=[]", "the conversation itself sets it"),
        ("a b=1", "cannot be a template argument"),
    ] {
        let output = eval(&model, &dir.path().join("none.jsonl"), &["--chat", wrong]);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(text(&output).contains(expected), "{}", text(&output));
    }
    let output = eval(Path::new("http://127.0.0.1:9/v1#m"), &dir.path().join("none.jsonl"), &["--chat", "quiet=true"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("on its own server"), "{}", text(&output));
    assert!(!dir.path().join("none.jsonl").exists());
}

#[test]
fn a_checkpoint_needs_no_tokenizer_config() {
    let dir = tempfile::tempdir().unwrap();
    // As what trl trains on is saved: its marks are transparent.
    let model = checkpoint(dir.path(), "tau", &(own_template() + "{% generation %}{% endgeneration %}"));
    std::fs::remove_file(model.join("tokenizer_config.json")).unwrap();
    let (bare, whole) = (dir.path().join("bare.jsonl"), dir.path().join("whole.jsonl"));
    for engine in ["candle", "mistralrs"] {
        let output = eval(&model, &bare.with_extension(engine), &["--engine", engine]);
        assert!(output.status.success(), "{engine}: {}", text(&output));
    }
    assert!(eval(&root().join("benchmarks/nano-pool/tau"), &whole, &[]).status.success());
    let messages = |log: &Path| {
        let (_, mut episodes) = EpisodeLog::read(log).unwrap();
        episodes.sort_by(|a, b| a.key.cmp(&b.key));
        episodes.into_iter().map(|e| e.messages).collect::<Vec<_>>()
    };
    assert_eq!(messages(&bare.with_extension("candle")), messages(&whole));
    assert_eq!(messages(&bare.with_extension("mistralrs")), messages(&whole));
}

#[test]
fn logs_of_the_first_format_are_read_scored_and_reported() {
    let log = root().join("tests/data/log-format-1.jsonl");
    let (_, episodes) = EpisodeLog::read(&log).unwrap();
    assert_eq!(episodes.len(), 3);
    assert!(episodes.iter().flat_map(|e| &e.turns).all(|turn| turn.shown == Context::Unknown));
    let score = rolegraft(&["score"]).arg(&log).output().unwrap();
    assert!(score.status.success(), "{}", text(&score));
    assert!(text(&score).contains("does not say what the model was shown in 3 of 3 episodes"), "{}", text(&score));
    assert!(text(&score).contains("3 passed, 0 failed"), "{}", text(&score));
    let report = rolegraft(&["report"]).arg(&log).output().unwrap();
    assert!(report.status.success(), "{}", text(&report));
    let said = String::from_utf8_lossy(&report.stderr);
    assert!(said.contains("3 of 3 episodes were logged before logs said what the model was shown"), "{said}");
}

#[test]
fn parse_shows_reasoning() {
    let mut child =
        rolegraft(&["parse", "--format", "hermes"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let reply = "<think><tool_call>\n{\"name\": \"a\", \"arguments\": {}}\n</tool_call></think>Hello.";
    child.stdin.take().unwrap().write_all(serde_json::json!(reply).to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let read: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = serde_json::json!({
        "spans": [], "violations": [], "reasoning": [{"start": 0, "end": reply.len() - 6}], "drafts": 1,
    });
    assert_eq!(read, expected);
}
