//! The real binary on a miniature of the nano experiment: the loop, its files, kill and resume, wrong inputs, the page
//! in a browser.

use rolegraft_trajectory::EpisodeLog;
use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Command;

use crate::miniature::{
    SmallDisk, contents, count, interrupt, killed_when, miniature, rolegraft, root, run, sandbox_missing, text,
};

#[test]
fn the_loop_runs_resumes_after_kills_and_gives_the_same_results() {
    if sandbox_missing() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let experiment = miniature(dir.path(), |t| t);
    let whole = dir.path().join("whole");
    let output = run(&experiment, &whole);
    assert!(output.status.success(), "{}", text(&output));
    let shown = String::from_utf8_lossy(&output.stdout);
    for part in [
        "Table 1: scores",
        "Table 3",
        "RHM",
        "AOS",
        "Diagnosis",
        "Transplant",
        "Table 6",
        "Table 8",
        "Where the time went",
    ] {
        assert!(shown.contains(part), "{part} is missing from\n{shown}");
    }

    // Said again, to machines.
    let (events, called) = (dir.path().join("events.jsonl"), dir.path().join("called"));
    let command = format!("echo $ROLEGRAFT_EVENT $ROLEGRAFT_STAGE >> {}", called.display());
    let (of, results) = (experiment.to_str().unwrap(), whole.to_str().unwrap());
    let told = ["run", of, "--results", results, "--events", events.to_str().unwrap(), "--notify", &command];
    assert!(rolegraft(&told).output().unwrap().status.success());
    let lines: Vec<serde_json::Value> =
        std::fs::read_to_string(&events).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|e| e["event"] == "stage" && e["stage"] == "evaluate"), "{lines:?}");
    assert!(lines.last().unwrap()["event"] == "done" && lines[0]["time"].as_f64().unwrap() > 1.7e9);
    let called = std::fs::read_to_string(&called).unwrap();
    assert!(
        called.contains("stage evaluate\n") && called.trim_end().lines().last().unwrap().starts_with("done"),
        "{called}"
    );

    // Killed again and again, at other moments, the same command comes to the same end.
    let killed = dir.path().join("killed");
    let (files, mut kills) = (count(&whole), 0);
    for eighth in 0..8 {
        let command = rolegraft(&["run", experiment.to_str().unwrap(), "--results", killed.to_str().unwrap()]);
        kills += usize::from(killed_when(command, || count(&killed) > files * eighth / 8));
    }
    assert!(kills >= 4, "{kills}");
    let output = run(&experiment, &killed);
    assert!(output.status.success(), "{}", text(&output));
    let same = |dir: &Path| -> Vec<(String, Vec<u8>)> {
        let all = contents(&dir.join("runs/nano"));
        all.into_iter()
            .filter(|(n, _)| {
                n.starts_with("arm/") || n.contains("table1") || n.contains("table8") || n.starts_with("saliency/")
            })
            .collect()
    };
    assert_eq!(same(&whole).len(), same(&killed).len());
    for ((name, a), (_, b)) in same(&whole).iter().zip(&same(&killed)) {
        assert!(a == b, "{name} differs after kills");
    }
    for (name, bytes) in contents(&killed.join("runs/nano/episodes")) {
        let path = killed.join("runs/nano/episodes").join(&name);
        let (_, episodes) = EpisodeLog::read(&path).unwrap();
        let keys: HashSet<_> = episodes.iter().map(|e| e.key.clone()).collect();
        assert_eq!(keys.len(), episodes.len(), "{name} repeats an episode");
        assert_eq!(bytes.last(), Some(&b'\n'));
        // The live score is the score of the log.
        if name.starts_with("test-") && name.ends_with("average.jsonl") {
            let score = rolegraft(&["score", path.to_str().unwrap()]).output().unwrap();
            assert!(score.status.success() && text(&score).contains("3 passed, 0 failed"), "{name}: {}", text(&score));
        }
    }
    // A finished run is not repeated.
    let again = run(&experiment, &killed);
    assert!(again.status.success());
    let names =
        |dir: &Path| -> Vec<String> { contents(&dir.join("cache")).into_iter().map(|(name, _)| name).collect() };
    assert_eq!(names(&killed), names(&whole));
    page(&whole.join("runs/nano/report.html"));
}

/// The page in a real browser: the document that it builds holds the answer, the tables, and every test episode.
fn page(path: &Path) {
    let works = |b: &&str| Command::new(b).arg("--version").output().is_ok_and(|o| o.status.success());
    let Some(browser) = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(works) else {
        eprintln!("skipped: the page in a browser (no chromium)");
        return;
    };
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
        ])
        .args(["--disable-component-update", "--disable-sync", "--dump-dom", "--virtual-time-budget=20000"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("file://{}", path.display()))
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&output.stdout);
    assert!(dom.matches("<table>").count() >= 12, "tables: {}", dom.matches("<table>").count());
    let lead = dom.find("class=\"lead\"").map(|at| dom[at..].chars().take(300).collect::<String>()).unwrap_or_default();
    assert!(lead.contains("ARM (backbone `") && lead.contains(" the best expert of each benchmark (95 % "), "{lead}");
    assert!(dom.contains("<svg") && dom.find("class=\"heat\"") < dom.find("<svg"));
    let logs = path.parent().unwrap().join("episodes");
    let tests = std::fs::read_dir(logs).unwrap().map(|e| e.unwrap().path());
    let tests = tests.filter(|p| p.file_name().unwrap().to_string_lossy().starts_with("test-"));
    let episodes: usize = tests.map(|p| EpisodeLog::read(&p).unwrap().1.len()).sum();
    assert!(dom.contains(&format!("data-ready=\"{episodes}\"")), "{episodes} episodes");
    let status =
        dom.find("id=\"status\"").map(|at| dom[at..].chars().take(200).collect::<String>()).unwrap_or_default();
    assert!(status.contains(" pairs; the outcome differs in "), "{status}");
}

/// What a server says to a request.
fn get(address: &str, path: &str, host: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn logs_become_a_page_that_view_serves_and_nothing_else() {
    use std::io::{BufRead, BufReader};
    let dir = tempfile::tempdir().unwrap();
    let (log, site) = (dir.path().join("one.jsonl"), dir.path().join("site"));
    let (log_arg, site_arg) = (log.to_str().unwrap(), site.to_str().unwrap());
    let missing = rolegraft(&["view", site_arg]).output().unwrap();
    assert_eq!(missing.status.code(), Some(2), "{}", text(&missing));
    assert!(text(&missing).contains("holds no `report.html`"), "{}", text(&missing));
    std::fs::copy(root().join("tests/data/log-format-1.jsonl"), &log).unwrap();
    let output = rolegraft(&["report", log_arg, "--html", site_arg]).output().unwrap();
    assert!(output.status.success() && text(&output).contains("Scores (%)"), "{}", text(&output));

    let mut child = rolegraft(&["view", site_arg]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.split("http://").nth(1).and_then(|l| l.split('/').next()).unwrap_or_default().to_owned();
    assert!(address.starts_with("127.0.0.1:"), "{line}");
    for (path, content) in [
        ("/", "<title>rolegraft: episode logs"),
        ("/report-data/index.js", "rolegraft.index("),
        ("/report-data/0.js", "chunk(0"),
    ] {
        let answer = get(&address, path, &address);
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(content), "{path}: {answer}");
    }
    for (path, host) in [
        ("/../one.jsonl", address.as_str()),
        ("/report-data/../../one.jsonl", &address),
        ("/report-data/%2e%2e/x.js", &address),
        ("/", "evil.example"),
    ] {
        let answer = get(&address, path, host);
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
    }
    interrupt(&child);
    assert!(child.wait().unwrap().success());
}

#[test]
fn wrong_inputs_are_named_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let copy = |name: &str| {
        let to = dir.path().join(name);
        std::fs::create_dir_all(&to).unwrap();
        for entry in std::fs::read_dir(root().join("benchmarks/nano-pool/tau")).unwrap().flatten() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
        to
    };
    let truncated = copy("truncated");
    let weights = std::fs::read(truncated.join("model.safetensors")).unwrap();
    std::fs::write(truncated.join("model.safetensors"), &weights[..weights.len() / 2]).unwrap();
    let not_finite = copy("not-finite");
    let mut bad = weights.clone();
    let at = bad.len() - 2;
    bad[at..].copy_from_slice(&[0xc0, 0x7f]);
    std::fs::write(not_finite.join("model.safetensors"), bad).unwrap();
    let tokenizer = copy("tokenizer");
    std::fs::write(tokenizer.join("tokenizer.json"), "{}").unwrap();
    let pointer = copy("pointer");
    std::fs::write(pointer.join("model.safetensors"), "version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
        .unwrap();
    let no_config = copy("no-config");
    std::fs::remove_file(no_config.join("config.json")).unwrap();

    let tau = root().join("benchmarks/nano-pool/tau").display().to_string();
    let with = |path: &Path| {
        let path = path.display().to_string();
        let tau = tau.clone();
        move |t: String| t.replace(&tau, &path)
    };
    type Change = Box<dyn Fn(String) -> String>;
    let cases: Vec<(Change, &[&str])> = vec![
        (Box::new(with(&dir.path().join("absent"))), &["pool.experts.tau", "does not exist"]),
        (Box::new(with(&no_config)), &["config.json", "not a Hugging Face checkpoint"]),
        (Box::new(with(&truncated)), &["truncated", "model.safetensors"]),
        (Box::new(with(&not_finite)), &["NaN or infinite", "tensor `"]),
        (Box::new(with(&tokenizer)), &["tokenizers of"]),
        (Box::new(with(&pointer)), &["git lfs pull"]),
        (Box::new(|t: String| t.replace("operator = \"ram\"", "operator = \"rma\"")), &["did you mean `ram`?"]),
        (Box::new(|t: String| t.replace("[saliency]", "[salience]")), &["did you mean `saliency`?"]),
        (Box::new(|t: String| t.replace("suites = [\"os\"]", "suites = [\"oss\"]")), &["no suite `oss`"]),
        (Box::new(|t: String| t.replace("test = 3", "test = 9999")), &["9999 are asked for"]),
    ];
    for (change, expected) in cases {
        let results = dir.path().join("results");
        let experiment = miniature(dir.path(), change);
        let output = run(&experiment, &results);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        for part in expected {
            assert!(text(&output).contains(part), "`{part}` is missing from {}", text(&output));
        }
        let left: Vec<_> = results.join("cache").read_dir().into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }
    let refused = rolegraft(&["run", "absent.toml"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused).contains("absent.toml"));
}

#[test]
fn an_interrupt_saves_and_a_full_disk_is_named() {
    if sandbox_missing() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let experiment = miniature(dir.path(), |t| t);
    let results = dir.path().join("results");
    let mut child = rolegraft(&["run", experiment.to_str().unwrap(), "--results", results.to_str().unwrap()])
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // Once it is at work.
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(said.any(|line| line.contains("calibrate")));
    interrupt(&child);
    let rest: Vec<String> = said.collect();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("interrupted")), "{rest:?}");

    // Two runs in one directory: the second names the first. Its lock dies with it.
    let mut first = rolegraft(&["run", experiment.to_str().unwrap(), "--results", results.to_str().unwrap()])
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(first.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(said.any(|line| line.contains("calibrate")));
    let second = run(&experiment, &results);
    assert!(text(&second).contains(&format!("pid {}", first.id())), "{}", text(&second));
    first.kill().unwrap();
    first.wait().unwrap();

    let Some(disk) = SmallDisk::mounted(dir.path(), "3m") else { return };
    let small = disk.path();
    // What is too large to begin with is said before anything is done; what fills up on the way, when it does.
    let refused = run(&experiment, small);
    assert_eq!(refused.status.code(), Some(3), "{}", text(&refused));
    assert!(text(&refused).contains("disk: ") && !small.join("cache").exists(), "{}", text(&refused));
    std::fs::create_dir_all(small.join("runs/nano")).unwrap();
    let output = run(&experiment, small);
    drop(disk);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(text(&output).contains("the disk is full"), "{}", text(&output));
}

#[test]
fn a_full_disk_of_temporary_files_is_not_scored_as_the_models_failure() {
    let dir = tempfile::tempdir().unwrap();
    // Two pages: less than one episode takes, however many are played at once.
    let Some(disk) = SmallDisk::mounted(dir.path(), "8k") else { return };
    let small = disk.path();
    let log = dir.path().join("log.jsonl");
    let eval = |temporary: &Path| {
        let arguments = ["eval", "--model", "benchmarks/nano-pool/office", "--suite", "officebench", "-n", "30"];
        let mut command = rolegraft(&arguments);
        command.args(["--engine", "candle", "--log", log.to_str().unwrap()]).env("TMPDIR", temporary).output().unwrap()
    };
    let full = eval(small);
    drop(disk);
    assert_eq!(full.status.code(), Some(3), "{}", text(&full));
    assert!(text(&full).contains("TMPDIR"), "{}", text(&full));
    // What was finished is what it would have been.
    let whole = eval(dir.path());
    assert!(whole.status.success(), "{}", text(&whole));
    let score = rolegraft(&["score", log.to_str().unwrap()]).output().unwrap();
    assert!(text(&score).contains("30 passed, 0 failed"), "{}", text(&score));
}

#[test]
fn parse_reads_replies_from_stdin() {
    use std::io::Write;
    let mut child = rolegraft(&["parse", "--format", "agentbench-os"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"\"Think: x\\n\\nAct: answer(4)\"\n{\"reply\": \"hello\"}\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let lines: Vec<serde_json::Value> =
        String::from_utf8_lossy(&output.stdout).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines[0]["spans"][0]["action"]["payload"], "4");
    assert_eq!(lines[0]["spans"][0]["range"], serde_json::json!({"start": 10, "end": 24}));
    assert_eq!(lines[1]["violations"][0]["kind"], "missing");
}

#[test]
fn a_log_belongs_to_its_inputs_and_a_refused_endpoint_leaves_none() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log.jsonl");
    let eval = |model: &str, seed: &str| {
        rolegraft(&["eval", "--model", model, "--suite", "tau-airline", "-n", "1", "--engine", "candle"])
            .args(["--seed", seed, "--log", log.to_str().unwrap()])
            .output()
            .unwrap()
    };
    let absent = eval("absent", "1");
    assert_eq!(absent.status.code(), Some(2), "{}", text(&absent));
    assert!(text(&absent).contains("`absent` does not exist") && !log.exists());
    assert!(eval("benchmarks/nano-pool/tau", "1").status.success());
    for (model, seed) in [("benchmarks/nano-pool/tau", "2"), ("benchmarks/nano-pool/base", "1")] {
        let other = eval(model, seed);
        assert_eq!(other.status.code(), Some(2), "{}", text(&other));
        assert!(text(&other).contains("holds episodes of other inputs"), "{}", text(&other));
    }
}

#[test]
fn a_benchmark_without_spans_is_named() {
    if sandbox_missing() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // The same suites, but replies of the OS suite are read by a format that finds nothing in them.
    let benchmarks = dir.path().join("benchmarks");
    for suite in ["tau-retail", "tau-airline", "officebench", "os", "webshop", "dbbench", "alfworld"] {
        let (from, to) = (root().join("benchmarks").join(suite), benchmarks.join(suite));
        std::fs::create_dir_all(to.join("nano")).unwrap();
        for folder in ["", "nano"] {
            let files = std::fs::read_dir(from.join(folder)).unwrap().map(|entry| entry.unwrap().path());
            for file in files.filter(|path| path.is_file()) {
                std::fs::copy(&file, to.join(folder).join(file.file_name().unwrap())).unwrap();
            }
        }
    }
    let toml = benchmarks.join("os/suite.toml");
    let changed = std::fs::read_to_string(&toml).unwrap().replace("agentbench-os", "nothing");
    std::fs::write(toml, changed).unwrap();
    std::fs::create_dir(dir.path().join("parsers")).unwrap();
    let format = "name = \"nothing\"\nrole = \"action\"\n[[span]]\npattern = 'never said'\npayload = \"text\"\n";
    std::fs::write(dir.path().join("parsers/nothing.toml"), format).unwrap();
    let suites = format!("suites = \"{}\"", root().join("benchmarks").display());
    let experiment = miniature(dir.path(), |t| t.replace(&suites, &format!("suites = \"{}\"", benchmarks.display())));
    let output = run(&experiment, &dir.path().join("results"));
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(
        text(&output).contains("benchmark `os` cannot be traced: of 4 calibration trajectories none"),
        "{}",
        text(&output)
    );
}

#[test]
fn the_two_engines_agree() {
    if sandbox_missing() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut logs = Vec::new();
    for engine in ["candle", "mistralrs"] {
        for engines in ["1", "2"] {
            let log = dir.path().join(format!("{engine}{engines}.jsonl"));
            let output = rolegraft(&[
                "eval",
                "--model",
                "benchmarks/nano-pool/base",
                "--suite",
                "os",
                "-n",
                "6",
                "--split",
                "dev",
            ])
            .args(["--engine", engine, "--engines", engines, "--log", log.to_str().unwrap()])
            .output()
            .unwrap();
            assert!(output.status.success(), "{}", text(&output));
            let (_, mut episodes) = EpisodeLog::read(&log).unwrap();
            episodes.sort_by(|a, b| a.key.cmp(&b.key));
            episodes.iter_mut().for_each(|e| e.seconds = 0.0);
            logs.push(episodes);
        }
    }
    assert!(logs.windows(2).all(|pair| pair[0] == pair[1]), "same seed, other episodes");
    assert_eq!(logs[0].len(), 6);
}
