//! The loop's steps as commands, one after another, against what `run` makes of the same experiment; trajectories from
//! elsewhere; files that do not fit.

use rolegraft_trajectory::{EpisodeLog, Role};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

use crate::miniature::{miniature, rolegraft, root, run, sandbox_missing, text};

/// Benchmarks with the expert that serves them and their suites, as in the experiment.
const SERVED: [(&str, &str, &[&str]); 4] = [
    ("os", "agentbench", &["os"]),
    ("webshop", "agentbench", &["webshop"]),
    ("tau", "tau", &["tau-retail", "tau-airline"]),
    ("officebench", "office", &["officebench"]),
];
const CANDIDATES: [&str; 2] = ["average", "ram"];

fn done(arguments: &[&str]) -> String {
    let output = rolegraft(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn refused(arguments: &[&str], parts: &[&str]) {
    let output = rolegraft(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output));
    for part in parts {
        assert!(text(&output).contains(part), "`{part}` is missing from {}", text(&output));
    }
}

fn expert(name: &str) -> String {
    root().join("benchmarks/nano-pool").join(name).display().to_string()
}

fn same(ours: &Path, theirs: &Path) {
    assert!(std::fs::read(ours).unwrap() == std::fs::read(theirs).unwrap(), "{} differs", theirs.display());
}

#[test]
fn commands_one_after_another_give_the_bytes_of_a_run() {
    if sandbox_missing() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let experiment = miniature(dir.path(), |t| t.replace("dev = 2", "dev = 4"));
    let results = dir.path().join("results");
    let output = run(&experiment, &results);
    assert!(output.status.success(), "{}", text(&output));
    let of_run = results.join("runs/nano");
    let at = |name: &str| dir.path().join(name).display().to_string();

    // The candidates lie where the run merged them; a trace says whose it is.
    let merged: Vec<PathBuf> = std::fs::read_dir(results.join("cache"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("merge-"))
        .collect();
    assert_eq!(merged.len(), CANDIDATES.len());
    let mut candidates = [const { String::new() }; 2];
    let (mut experts, mut rows, mut saliencies) = (Vec::new(), Vec::new(), Vec::new());
    for (benchmark, serving, suites) in SERVED {
        let mut logs = Vec::new();
        for suite in suites {
            let log = at(&format!("{suite}.episodes.jsonl"));
            done(&["calibrate", "--suite", suite, "-n", "4", "--seed", "1", "--out", &log]);
            // Times excepted, the log is the run's.
            let read = |path: &Path| {
                let (digest, mut episodes) = EpisodeLog::read(path).unwrap();
                episodes.iter_mut().for_each(|e| e.seconds = 0.0);
                episodes.sort_by(|a, b| a.key.cmp(&b.key));
                (digest, episodes)
            };
            assert!(read(Path::new(&log)) == read(&of_run.join(format!("episodes/calibration-{suite}-oracle.jsonl"))));
            logs.push(log);
        }
        let tokens = at(&format!("{benchmark}.calibration.jsonl"));
        let mut arguments = vec!["calibrate"];
        arguments.extend(logs.iter().map(String::as_str));
        let model = expert(serving);
        arguments.extend(["--model", &model, "--benchmark", benchmark, "--out", &tokens]);
        done(&arguments);
        same(Path::new(&tokens), &of_run.join(format!("calibration/{benchmark}.calibration.jsonl")));

        let own = at(&format!("{serving}-{benchmark}.saliency.safetensors"));
        done(&["trace", "--model", &model, "--calibration", &tokens, "--out", &own]);
        same(Path::new(&own), &of_run.join(format!("saliency/{serving}-{benchmark}.saliency.safetensors")));
        experts.push(format!("{benchmark}={own}"));
        saliencies.push(own);
        for (i, model) in merged.iter().enumerate() {
            let model = model.display().to_string();
            let traced = at(&format!("merged-{i}-{benchmark}.saliency.safetensors"));
            done(&["trace", "--model", &model, "--calibration", &tokens, "--out", &traced]);
            let bytes = std::fs::read(&traced).unwrap();
            let is = |name: &str| {
                bytes
                    == std::fs::read(of_run.join(format!("saliency/{name}-{benchmark}.saliency.safetensors"))).unwrap()
            };
            let name = CANDIDATES.iter().position(|name| is(name)).unwrap();
            candidates[name] = model;
            rows.push((name, format!("{}={benchmark}={traced}", CANDIDATES[name])));
            saliencies.push(traced);
        }
    }
    rows.sort();
    let selection = at("selection.json");
    let mut arguments = vec!["select", "--seed", "1", "--out", &selection, "--expert"];
    arguments.extend(experts.iter().map(String::as_str));
    arguments.push("--candidate");
    arguments.extend(rows.iter().map(|(_, row)| row.as_str()));
    let said = done(&arguments);
    same(Path::new(&selection), &of_run.join("selection.json"));
    let chosen = CANDIDATES.iter().position(|name| said.contains(&format!("selected `{name}`"))).unwrap();
    let backbone = &candidates[chosen];

    let (mut ours, mut theirs, mut columns) = (Vec::new(), Vec::new(), Vec::new());
    for (benchmark, serving, suites) in SERVED {
        columns.push(format!("{benchmark}={}", suites.join(",")));
        for suite in suites {
            for (model, logs, side) in [(backbone, &mut ours, "ours"), (&expert(serving), &mut theirs, "theirs")] {
                let log = at(&format!("dev-{suite}-{side}.jsonl"));
                let played = ["--split", "dev", "-n", "4", "--seed", "1", "--engine", "candle"];
                done(&[&["eval", "--model", model, "--suite", suite, "--log", &log][..], &played].concat());
                logs.push(log);
            }
        }
    }
    let diagnosis = at("diagnosis.json");
    let mut arguments = vec!["diagnose", "--out", &diagnosis, "--backbone"];
    arguments.extend(ours.iter().map(String::as_str));
    arguments.push("--expert");
    arguments.extend(theirs.iter().map(String::as_str));
    arguments.push("--benchmark");
    arguments.extend(columns.iter().map(String::as_str));
    done(&arguments);
    same(Path::new(&diagnosis), &of_run.join("diagnosis.json"));

    let (plan, arm) = (at("plan.json"), at("arm"));
    let donors: Vec<String> = SERVED.iter().map(|(b, serving, _)| format!("{b}={}", expert(serving))).collect();
    let mut arguments = vec!["transplant", "--backbone", backbone, "--weak", &diagnosis, "--plan", &plan, "--donor"];
    arguments.extend(donors.iter().map(String::as_str));
    arguments.push("--saliency");
    arguments.extend(saliencies.iter().map(String::as_str));
    done(&[&arguments[..], &["--dry-run"]].concat());
    same(Path::new(&plan), &of_run.join("plan.json"));
    assert!(!Path::new(&arm).exists());
    done(&[&arguments[..], &["--out", &arm]].concat());
    let files: Vec<_> = std::fs::read_dir(&arm).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(files.len() >= 5, "{files:?}");
    for file in files {
        let (ours, theirs) = (Path::new(&arm).join(&file), of_run.join("arm").join(&file));
        if file != "README.md" {
            same(&ours, &theirs);
            continue;
        }
        // A run's card says besides what was played.
        let [ours, theirs] = [ours, theirs].map(|path| std::fs::read_to_string(path).unwrap());
        let (card, scores) = theirs.split_once("\n## Scores\n").unwrap();
        let without: Vec<&str> = card.lines().filter(|line| !line.starts_with("model-index:")).collect();
        assert_eq!(without.join("\n").trim_end(), ours.trim_end());
        assert!(scores.contains("| AVG |") && scores.contains("tables/table1.csv"), "{scores}");
    }

    // A donor's neurons may be chosen by how far they are from the backbone's.
    let (benchmark, serving, _) = SERVED[0];
    let (change, tokens) = (at("change.saliency.safetensors"), at(&format!("{benchmark}.calibration.jsonl")));
    let giver = expert(serving);
    done(&["trace", "--model", &giver, "--against", backbone, "--calibration", &tokens, "--out", &change]);
    let neurons = |saliencies: &[&String], plan: &str| {
        let mut arguments =
            vec!["transplant", "--backbone", backbone, "--weak", benchmark, "--dry-run", "--plan", plan];
        arguments.extend(["--donor", &donors[0], "--saliency"]);
        arguments.extend(saliencies.iter().map(|path| path.as_str()));
        done(&arguments);
        let planned: Value = serde_json::from_slice(&std::fs::read(plan).unwrap()).unwrap();
        planned["content"]["plan"]["grafts"][0]["neurons"].clone()
    };
    let own = saliencies.iter().find(|path| path.ends_with(&format!("{serving}-{benchmark}.saliency.safetensors")));
    let merged: Vec<&String> = saliencies.iter().filter(|path| path.contains("merged-")).collect();
    let loud = neurons(&[&merged[..], &[own.unwrap()]].concat(), &at("by-activation.json"));
    let moved = neurons(&[&merged[..], &[&change]].concat(), &at("by-change.json"));
    let count = |neurons: &Value| neurons["layers"].as_array().map(Vec::len);
    assert!(loud != moved && count(&loud) == count(&moved) && count(&moved) > Some(0), "{loud} {moved}");
    let given = ["transplant", "--backbone", backbone, "--weak", benchmark, "--dry-run", "--donor", &donors[0]];
    let mut both = [&given[..], &["--saliency", &change]].concat();
    both.extend(saliencies.iter().map(String::as_str));
    refused(&both, &["traces the same donor in another way"]);
    refused(
        &["select", "--expert", &format!("{benchmark}={change}"), "--candidate", &format!("x={benchmark}={change}")],
        &["change.saliency.safetensors", "trace without --against"],
    );

    for (name, file) in [("selection", &selection), ("diagnosis", &diagnosis), ("plan", &plan)] {
        fits(name, &serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap());
    }
    for line in std::fs::read_to_string(at("tau.calibration.jsonl")).unwrap().lines() {
        fits("calibration", &serde_json::from_str(line).unwrap());
    }

    // What does not fit is named with file and field.
    let none = at("none");
    let refused_repair = |weak: &str, parts: &[&str]| {
        let given = ["transplant", "--backbone", backbone, "--donor", &donors[0], "--saliency", &saliencies[0]];
        refused(&[&given[..], &["--weak", weak, "--out", &none]].concat(), parts);
    };
    let (first, other) = (&saliencies[0], at("other.saliency.safetensors"));
    done(&[
        "trace",
        "--model",
        &expert("agentbench"),
        "--calibration",
        &at("os.calibration.jsonl"),
        "--tokens",
        "reply",
        "--out",
        &other,
    ]);
    refused(
        &["select", "--expert", &format!("os={first}"), "--candidate", &format!("x=os={other}")],
        &["other.saliency.safetensors", "`tokens` is reply, but role", "same --tokens"],
    );
    refused(
        &["select", "--expert", &format!("os={first}"), "--candidate", &format!("x=tau={other}")],
        &["`x` has no trace of benchmark `os`"],
    );
    refused(
        &["select", "--expert", &format!("os={diagnosis}"), "--candidate", &format!("x=os={other}")],
        &["diagnosis.json", "is not a saliency"],
    );
    refused(
        &["trace", "--model", &expert("tau"), "--calibration", &selection, "--out", &at("none")],
        &["selection.json"],
    );
    refused(
        &["trace", "--model", &expert("tau"), "--calibration", first, "--out", &at("none")],
        &["is not a calibration set"],
    );
    refused_repair("os", &["has no trace of benchmark `os`"]);
    refused_repair(&selection, &["selection.json", "is a selection, where a diagnosis is wanted"]);
    refused(&["diagnose", "--backbone", &ours[0], "--expert", &theirs[1]], &["has no episodes of the expert"]);
    let newer = at("newer.json");
    std::fs::write(&newer, std::fs::read_to_string(&diagnosis).unwrap().replacen("\"format\": 1", "\"format\": 9", 1))
        .unwrap();
    refused_repair(&newer, &["format 9"]);
    let set = std::fs::read_to_string(at("os.calibration.jsonl")).unwrap();
    let bad = at("bad.calibration.jsonl");
    for (from, to, part) in [
        ("\"role\":[", "\"role\":[999999,", "line 2"),
        ("\"tokenizer\":\"", "\"tokenizer\":\"0", "`tokenizer` is"),
        ("\"ids\":[", "\"idz\":[", "line 2: not a run"),
    ] {
        std::fs::write(&bad, set.replacen(from, to, 1)).unwrap();
        refused(
            &["trace", "--model", &expert("agentbench"), "--calibration", &bad, "--out", &at("none")],
            &["bad.calibration.jsonl", part],
        );
    }
    assert!(!Path::new(&at("none")).exists());
}

/// `docs/artefacts/NAME.schema.json` holds for a value.
fn fits(name: &str, value: &Value) {
    let path = root().join(format!("docs/artefacts/{name}.schema.json"));
    let schema: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let wrong: Vec<String> = validator.iter_errors(value).map(|e| format!("{} at {}", e, e.instance_path())).collect();
    assert!(wrong.is_empty(), "{name}: {wrong:?}");
}

const CALL: &str =
    "<tool_call>\n{\"name\": \"get_order_details\", \"arguments\": {\"order_id\": \"#W1\"}}\n</tool_call>";

#[test]
fn trajectories_from_elsewhere_become_episodes() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let call = json!({"id": "c", "type": "function", "function": {"name": "get_order_details", "arguments": "{\"order_id\": \"#W1\"}"}});
    let openai = [
        json!({"messages": [
            {"role": "system", "content": "s"}, {"role": "user", "content": "u"}, {"role": "assistant", "content": CALL},
            {"role": "tool", "content": "r"}, {"role": "assistant", "content": [{"type": "text", "text": "Done."}]}]}),
        json!({"messages": [
            {"role": "user", "content": "u"}, {"role": "assistant", "content": null, "tool_calls": [call]},
            {"role": "tool", "content": "r"}], "tools": [{"type": "function"}]}),
        json!({"messages": [{"role": "user", "content": "u"}]}),
        json!({"messages": [{"role": "robot", "content": "u"}]}),
        json!({"text": "u"}),
    ];
    let lines: Vec<String> = openai.iter().map(Value::to_string).chain(["{".into()]).collect();
    std::fs::write(at("openai.jsonl"), lines.join("\n")).unwrap();
    let sharegpt = json!([{"id": "x", "system": "s", "conversations": [
        {"from": "human", "value": "u"}, {"from": "function_call", "value": "{\"name\": \"get_order_details\", \"arguments\": {\"order_id\": \"#W1\"}}"},
        {"from": "observation", "value": "r"}, {"from": "gpt", "value": "Done."}]}]);
    std::fs::write(at("sharegpt.json"), sharegpt.to_string()).unwrap();
    let tau2 = json!({"info": {"environment_info": {"policy": "s"}}, "simulations": [{"task_id": "7", "trial": 1, "reward_info": {"reward": 1.0},
        "messages": [{"role": "assistant", "content": "Hi!"}, {"role": "user", "content": "u"},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "c", "name": "get_order_details", "arguments": {"order_id": "#W1"}, "requestor": "assistant"}]},
            {"role": "tool", "content": "r", "requestor": "assistant"}, {"role": "assistant", "content": "Done."}]}]});
    std::fs::write(at("tau2.json"), tau2.to_string()).unwrap();
    let out = at("all.episodes.jsonl");
    let output = rolegraft(&["calibrate", "--suite", "tau-retail", "--out", &out, "--from"])
        .args(["openai.jsonl", "sharegpt.json", "tau2.json"].map(at))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    for part in [
        "openai.jsonl line 3 cannot be used: nothing in it was said by an assistant",
        "line 4 cannot be used: there is no role `robot`",
        "line 5 cannot be used: it has neither",
        "line 6 cannot be used: it is not JSON",
        "1 trajectories announce tools of their own",
        "4 trajectories with 4 spans",
        "4 could not be used",
    ] {
        assert!(text(&output).contains(part), "`{part}` is missing from {}", text(&output));
    }
    let (_, episodes) = EpisodeLog::read(Path::new(&out)).unwrap();
    for episode in &episodes {
        let calls = episode.messages.iter().filter(|m| m.content == CALL && m.role == Role::Assistant).count();
        assert_eq!(calls, 1, "{:?}", episode.messages);
        let first = if episode.messages[0].role == Role::System { "s" } else { "u" };
        assert_eq!(episode.messages[0].content, first);
    }
    let tokens = at("all.calibration.jsonl");
    let said = done(&["calibrate", &out, "--model", &expert("tau"), "--out", &tokens]);
    assert!(said.contains("4 contexts"), "{said}");
    done(&["trace", "--model", &expert("tau"), "--calibration", &tokens, "--out", &at("s.saliency.safetensors")]);
    // What is there is not written over.
    refused(&["calibrate", "--suite", "tau-retail", "--out", &out, "--from", &at("tau2.json")], &["is there already"]);
    refused(
        &["calibrate", "--suite", "tau-retail", "--out", &at("none"), "--from", &at("absent")],
        &["absent", "cannot be read"],
    );
    refused(&["calibrate", "--out", &at("none")], &["--suite"]);
}
