//! Logs as people use them: counted once, packed, searched, put together, and handed to other tools and back.

use rolegraft_trajectory::{EpisodeLog, Origin};
use serde_json::Value;
use std::path::{Path, PathBuf};

use crate::miniature::{SmallDisk, contents, rolegraft, root, text};

fn run(arguments: &[&str]) -> (i32, String) {
    let output = rolegraft(arguments).output().unwrap();
    (output.status.code().unwrap_or(-1), text(&output))
}

fn done(arguments: &[&str]) -> String {
    let (code, said) = run(arguments);
    assert_eq!(code, 0, "{arguments:?}: {said}");
    said
}

fn refused(arguments: &[&str], fragments: &[&str]) {
    let (code, said) = run(arguments);
    assert!(code != 0 && fragments.iter().all(|fragment| said.contains(fragment)), "{arguments:?}: {said}");
}

/// A log of five solved tasks of τ-bench.
fn log(dir: &Path, name: &str) -> String {
    let path = dir.join(name).display().to_string();
    done(&["calibrate", "--suite", "tau-retail", "-n", "5", "--out", &path]);
    path
}

fn episodes(path: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut all: Vec<Value> = text.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
    all.sort_by_key(|episode| episode["key"].to_string());
    all
}

#[test]
fn an_episode_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let one = log(dir.path(), "solved.jsonl");
    let at = |name: &str| dir.path().join(name).display().to_string();
    let body = std::fs::read_to_string(&one).unwrap();
    // Pasted behind itself.
    let rest = body.split_once('\n').unwrap().1;
    std::fs::write(at("twice.jsonl"), format!("{body}{rest}")).unwrap();
    refused(&["report", &at("twice.jsonl")], &["twice.jsonl` line 7", "trial 0, is counted already", "--last"]);
    let said = done(&["report", "--last", &at("twice.jsonl")]);
    let row = said.lines().find(|line| line.contains("tau-retail") && line.contains("100.0")).unwrap().to_owned();
    assert!(row.contains(" 5 ") && !row.contains("190"), "{row}");
    refused(&["power", &at("twice.jsonl")], &["is counted already"]);
    // One trial missing of one task: pass^2 is of the tasks that have two.
    let second: String = rest.lines().skip(1).map(|line| line.replace("\"trial\":0", "\"trial\":1") + "\n").collect();
    std::fs::write(at("trials.jsonl"), format!("{body}{second}")).unwrap();
    let said = done(&["report", &at("trials.jsonl")]);
    assert!(said.contains("100.0 (4 tasks)"), "{said}");
    // A line that is no episode is named; it goes only where that is asked for.
    let mut lines: Vec<&str> = body.lines().collect();
    lines.insert(3, "{\"key\":");
    std::fs::write(at("bad.jsonl"), lines.join("\n") + "\n").unwrap();
    refused(&["report", &at("bad.jsonl")], &["bad.jsonl` line 4", "not an episode"]);
    refused(&["log", "merge", &at("bad.jsonl"), "--out", &at("good.jsonl")], &["line 4"]);
    let said = done(&["log", "merge", "--skip-bad", &at("bad.jsonl"), "--out", &at("good.jsonl")]);
    assert!(said.contains("left out") && said.contains("5 episodes"), "{said}");
    assert_eq!(std::fs::read_to_string(at("good.jsonl")).unwrap(), body);
}

#[test]
fn packed_logs_are_read_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let one = log(dir.path(), "solved.jsonl");
    let at = |name: &str| dir.path().join(name).display().to_string();
    let packed = at("solved.jsonl.zst");
    refused(&["log", "merge", &one, &one, "--out", &packed], &["is counted already"]);
    assert!(!Path::new(&packed).exists());
    done(&["log", "merge", &one, "--out", &packed]);
    refused(&["log", "merge", &one, "--out", &packed], &["it is there already"]);
    let bytes = std::fs::read(&packed).unwrap();
    assert!(bytes.len() * 2 < std::fs::metadata(&one).unwrap().len() as usize);
    done(&["log", "merge", &packed, "--out", &at("again.jsonl")]);
    assert_eq!(std::fs::read(at("again.jsonl")).unwrap(), std::fs::read(&one).unwrap());
    let tables = |path: &str| done(&["report", path, "--format", "csv"]).replace(".jsonl", "");
    assert_eq!(tables(&packed), tables(&one));
    let said = done(&["score", &packed]);
    assert!(said.contains("5 passed, 0 failed"), "{said}");
    std::fs::write(at("cut.jsonl.zst"), &bytes[..bytes.len() / 2]).unwrap();
    refused(&["report", &at("cut.jsonl.zst")], &["cut.jsonl.zst` line", "was cut"]);
    refused(&["eval", "--model", "m", "--suite", "tau-retail", "--log", &packed], &[]);
    let said = done(&["log", "ls", &one, &packed]);
    assert!(said.trim().lines().count() == 3 && said.contains("\t5\t5\t100.0"), "{said}");
    let key = episodes(&one)[0]["key"]["task"].as_str().unwrap().to_owned();
    let said = done(&["log", "show", &packed, &key]);
    assert!(said.contains("[assistant]") && said.contains("span "), "{said}");
    assert!(done(&["log", "grep", "tool_call|\\{", &packed]).contains("assistant"));
    assert_eq!(run(&["log", "grep", "nowhere-at-all", &one]).0, 1);
    let said = done(&["log", "split", &packed, "--out", &at("parts")]);
    assert!(said.contains("5 episodes in") && said.contains("tau-retail-solved.jsonl.zst"), "{said}");
}

#[test]
fn exports_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let one = log(dir.path(), "solved.jsonl");
    let at = |name: &str| dir.path().join(name).display().to_string();
    for (form, found) in [("inspect", "eval"), ("hf", "jsonl")] {
        let out = at(form);
        let said = done(&["export", &one, "--to", form, "--out", &out]);
        let file: PathBuf = said.lines().find(|line| line.ends_with(found)).unwrap().into();
        let back = at(&format!("back-{form}.jsonl"));
        done(&["calibrate", "--from", file.to_str().unwrap(), "--suite", "tau-retail", "--out", &back]);
        assert_eq!(episodes(&back), episodes(&one), "{form}");
        let scored = done(&["score", &back]);
        assert!(scored.contains("5 passed, 0 failed"), "{scored}");
        refused(&["export", &one, "--to", form, "--out", &out], &["remove it, or choose another --out"]);
    }
    let said = done(&["export", &one, "--to", "tau2", "--out", &at("tau2")]);
    let whole: Value = serde_json::from_slice(&std::fs::read(said.lines().next().unwrap()).unwrap()).unwrap();
    assert_eq!((whole["simulations"].as_array().unwrap().len(), whole["tasks"].as_array().unwrap().len()), (5, 5));
    assert!(whole["simulations"][0]["messages"].as_array().unwrap().iter().any(|m| m["tool_calls"].is_array()));
    let said = done(&["export", &one, "--to", "lm-eval", "--out", &at("lm")]);
    let samples = std::fs::read_to_string(said.lines().find(|line| line.ends_with(".jsonl")).unwrap()).unwrap();
    let first: Value = serde_json::from_str(samples.lines().next().unwrap()).unwrap();
    assert_eq!((samples.lines().count(), &first["reward"]), (5, &Value::from(1.0)));
    assert!(said.contains("no place for"), "{said}");
    // Without texts there is nothing to show.
    let bare: String =
        std::fs::read_to_string(&one).unwrap().lines().enumerate().fold(String::new(), |all, (at, line)| {
            let mut value: Value = serde_json::from_str(line).unwrap();
            if at > 0 {
                value["messages"] = Value::Array(Vec::new());
            }
            format!("{all}{value}\n")
        });
    std::fs::write(at("bare.jsonl"), bare).unwrap();
    refused(
        &["export", &at("bare.jsonl"), "--to", "hf", "--out", &at("bare")],
        &["bare.jsonl` line 2", "without texts"],
    );
}

#[test]
fn what_is_wrong_with_a_log_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let one = log(dir.path(), "solved.jsonl");
    let at = |name: &str| dir.path().join(name).display().to_string();
    let body = std::fs::read_to_string(&one).unwrap();
    let rows = |path: &str| done(&["log", "ls", path]);
    // A last line without its end counts if it is whole; else it is told.
    std::fs::write(at("open.jsonl"), body.trim_end()).unwrap();
    assert!(rows(&at("open.jsonl")).contains("\t5\t5\t"));
    std::fs::write(at("torn.jsonl"), &body[..body.len() - 9]).unwrap();
    assert!(rows(&at("torn.jsonl")).contains("\t4\t4\t"));
    assert!(done(&["report", &at("torn.jsonl")]).contains("the last line is cut"));
    refused(&["report", &one, &one], &["is given twice"]);
    std::fs::write(at("seven.jsonl"), body.replacen("\"reward\":1.0", "\"reward\":7.0", 1)).unwrap();
    refused(&["report", &at("seven.jsonl")], &["seven.jsonl` line 2", "its reward is 7"]);
    std::fs::write(at("spans.jsonl"), body.replacen("\"end\":", "\"end\":9", 1)).unwrap();
    refused(&["report", &at("spans.jsonl")], &["spans.jsonl` line 2", "no part of its reply"]);
    refused(&["report", dir.path().to_str().unwrap()], &["without `episodes/`"]);
    // Two models of one name are told apart.
    std::fs::create_dir(at("other")).unwrap();
    std::fs::write(at("other/solved.jsonl"), &body).unwrap();
    // Exports are named by when a log was written.
    let moment = std::fs::metadata(&one).unwrap().modified().unwrap();
    std::fs::File::options().append(true).open(at("other/solved.jsonl")).unwrap().set_modified(moment).unwrap();
    let said = done(&["report", &one, &at("other/solved.jsonl")]);
    assert!(said.contains("solved (") && said.contains("other/solved.jsonl)") && said.contains("+0.0 ["), "{said}");
    // An export is whole or not there.
    let mut lines: Vec<&str> = body.lines().collect();
    lines.insert(4, "{}");
    std::fs::write(at("bad.jsonl"), lines.join("\n") + "\n").unwrap();
    for form in ["inspect", "hf", "tau2", "lm-eval"] {
        refused(&["export", &at("bad.jsonl"), "--to", form, "--out", &at("out")], &["bad.jsonl` line 5"]);
        refused(&["export", &one, &at("other/solved.jsonl"), "--to", form, "--out", &at("out")], &["rename one"]);
        assert!(!Path::new(&at("out")).exists(), "{form}");
    }
    // What is read is not written over.
    let expert = root().join("benchmarks/nano-pool/tau").display().to_string();
    let set = at("set.calibration.jsonl");
    done(&["calibrate", &one, "--model", &expert, "--out", &set]);
    refused(&["trace", "--gram", "--model", &expert, "--calibration", &set, "--out", &set], &["choose another --out"]);
    refused(&["trace", "--model", &expert, "--calibration", &set, &set, "--out", &at("s")], &["is given twice"]);
    refused(&["calibrate", &one, &one, "--model", &expert, "--out", &at("t")], &["one trajectory twice"]);
    let gram = at("tau.gram.safetensors");
    assert!(
        done(&["trace", "--gram", "--model", &expert, "--calibration", &set, "--out", &gram]).contains("tokens in")
    );
}

#[test]
fn logs_of_other_rules_are_compared_only_where_that_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let one = log(dir.path(), "before.jsonl");
    let body = std::fs::read_to_string(&one).unwrap();
    let (head, rest) = body.split_once('\n').unwrap();
    let mut head: Value = serde_json::from_str(head).unwrap();
    let rules = head["rules"]["tau-retail"].as_str().unwrap().to_owned();
    assert_eq!(rules.len(), 64);
    head["rules"]["tau-retail"] = rules.chars().rev().collect::<String>().into();
    let two = dir.path().join("after.jsonl").display().to_string();
    std::fs::write(&two, format!("{head}\n{rest}")).unwrap();
    let page = dir.path().join("page");
    refused(
        &["report", &one, &two, "--html", &page.display().to_string()],
        &["by other rules", "after.jsonl", "--mixed"],
    );
    assert!(!page.exists());
    done(&["report", &one, &two, "--mixed"]);
    refused(&["power", &one, &two], &["by other rules"]);
    let both = dir.path().join("both.jsonl").display().to_string();
    refused(
        &["log", "merge", "--last", &one, &two, "--out", &both],
        &["after.jsonl` was played by other rules", "--mixed"],
    );
    done(&["log", "merge", "--last", "--mixed", &one, &two, "--out", &both]);
    refused(&["report", &one, &both], &["by other rules"]);
    // One that does not say by which.
    let Some(origin) = head.as_object_mut() else { panic!("{head}") };
    origin.remove("rules");
    std::fs::write(&two, format!("{head}\n{rest}")).unwrap();
    done(&["report", &one, &two]);
}

#[test]
fn a_log_has_one_writer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("open.jsonl");
    let first = EpisodeLog::open(&path, Origin::of("d")).unwrap();
    let model = root().join("benchmarks/nano-pool/base").display().to_string();
    let log = path.display().to_string();
    let who = format!("process {}", std::process::id());
    let arguments =
        ["eval", "--model", &model, "--suite", "tau-retail", "-n", "1", "--engine", "candle", "--log", &log];
    refused(&arguments, &[&who, "is writing it"]);
    drop(first);
    assert!(!dir.path().join("open.jsonl.lock").exists());
    let first = EpisodeLog::open(&path, Origin::of("d"));
    assert!(first.is_ok());
}

#[test]
fn finished_logs_say_how_many_tasks_show_a_difference() {
    let dir = tempfile::tempdir().unwrap();
    let one = log(dir.path(), "solved.jsonl");
    let other = dir.path().join("other.jsonl").display().to_string();
    let text = std::fs::read_to_string(&one).unwrap();
    std::fs::write(&other, text.replacen("\"reward\":1.0", "\"reward\":0.0", 2)).unwrap();
    let said = done(&["power", &one, &other, "--difference", "5,20"]);
    assert!(said.contains("tasks for 20 points") && said.contains("tau-retail"), "{said}");
    let alone = done(&["power", &one]);
    assert!(alone.contains("is alone"), "{alone}");
    refused(&["power", &one, "--difference", "0"], &["above 0"]);
    refused(&["power", &one, "--power", "1"], &["between 0 and 1"]);
    // The pairs are compared, with what so many tasks can show.
    let said = done(&["report", &one, &other]);
    assert!(said.contains("Paired differences") && said.contains("p = ") && said.contains("(5 tasks)"), "{said}");
}

#[test]
fn a_full_disk_keeps_the_page_that_is_there_and_leaves_no_half_of_an_export() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mounted(dir.path(), "8m") else { return };
    let small = disk.path();
    let log = root().join("tests/data/log-format-1.jsonl").display().to_string();
    let (page, exported) = (small.join("page"), small.join("exported"));
    let report = ["report", &log, "--html", page.to_str().unwrap()];
    let done = run(&report);
    let before = contents(&page);
    let filled = std::io::copy(&mut std::io::repeat(b'x'), &mut std::fs::File::create(small.join("full")).unwrap());
    let (again, kept) = (run(&report), contents(&page));
    let export = run(&["export", "--to", "inspect", "--out", exported.to_str().unwrap(), &log]);
    let left = exported.exists();
    drop(disk);
    assert!(done.0 == 0 && before.len() >= 3 && filled.is_err(), "{}", done.1);
    assert!(again.0 == 3 && again.1.contains("the disk is full"), "{}", again.1);
    assert!(kept == before);
    assert!(export.0 == 3 && export.1.contains("the disk is full") && !left, "{}", export.1);
}
