//! The page in a real browser: no complaint, no sideways scrolling, hostile text, keys, filters.
#![allow(missing_docs)]

mod chromium;

use chromium::Chromium;
use rolegraft_report::{Benchmark, LogsReport, OverlapRow, Overlaps, Put, RunReport, Wanted};
use rolegraft_spans::{Role, Violation, ViolationKind};
use rolegraft_trajectory::{Context, Episode, EpisodeKey, EpisodeLog, Finish, LogError, Message, Spent, Status, Turn};
use std::path::{Path, PathBuf};

const HOSTILE: &str = "</script><img src=x onerror=\"window.hacked=1\">\u{2028}\u{202e}<b>bold</b>";

fn episode(suite: &str, task: usize, solved: bool) -> Episode {
    let reply = if solved { format!("Act: go {HOSTILE}") } else { format!("Act: {{bad {HOSTILE}") };
    let violation = Violation { kind: ViolationKind::InvalidJson, range: 5..30, detail: HOSTILE.into() };
    let turn = |message: usize, last: bool| Turn {
        message,
        shown: Context::All,
        ids: vec![],
        finish: Finish::Stop,
        spans: vec![(Role::Action, 0..7)],
        action: None,
        violations: if last && !solved { vec![violation.clone()] } else { vec![] },
        drafts: 0,
        succeeded: solved,
        inexact: false,
        reasoning: String::new(),
    };
    Episode {
        key: EpisodeKey { suite: suite.into(), task: format!("task-{task}"), trial: 0 },
        status: if solved { Status::Completed } else { Status::TaskLimitReached },
        reward: f64::from(u8::from(solved)),
        messages: vec![
            Message::user(format!("do it: {}", "unbroken".repeat(60))),
            Message::assistant("Act: look"),
            Message::user(format!("seen in {suite} number {task}")),
            Message::assistant(reply),
        ],
        turns: vec![turn(1, false), turn(3, true)],
        detail: serde_json::Value::Null,
        spent: Spent { calls: 2, failures: 0, prompt_tokens: 10, completion_tokens: 5 },
        others_spent: Spent::default(),
        seconds: 0.0,
    }
}

/// Logs of three models on two suites; the n-th solves the first 30 n tasks of 100.
fn logs(dir: &Path) -> Vec<(String, Vec<PathBuf>)> {
    let log = |(rank, model): (usize, &str)| {
        let path = dir.join(format!("{model}.jsonl"));
        let mut text = String::from("{\"rolegraft_log\":2,\"digest\":\"\"}\n");
        for suite in ["os", "tau-retail"] {
            for task in 0..100 {
                text += &serde_json::to_string(&episode(suite, task, task < 30 * (rank + 1))).unwrap();
                text.push('\n');
            }
        }
        std::fs::write(&path, text).unwrap();
        assert_eq!(EpisodeLog::read(&path).unwrap().1.len(), 200);
        (model.to_owned(), vec![path])
    };
    ["ties", "expert-with-a-rather-long-name", "arm"].into_iter().enumerate().map(log).collect()
}

fn write(dir: &Path, make: impl FnOnce(&mut Put<'_, LogError>) -> Result<(), LogError>) -> PathBuf {
    let mut put = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
        Ok(())
    };
    make(&mut put).unwrap();
    dir.join("report.html")
}

fn run_page(dir: &Path) -> PathBuf {
    let benchmark = |id: &str, title: &str| Benchmark { id: id.into(), title: title.into(), suites: vec![id.into()] };
    let tasks = || (0..100).map(|i| format!("task-{i}")).collect();
    let row =
        |name: &str, mean| OverlapRow { name: name.into(), overlaps: vec![mean; 2], mean, interval: None, dev: None };
    let report = RunReport {
        name: format!("trial {HOSTILE}"),
        seed: 1,
        tasks: [("os".to_owned(), tasks()), ("tau-retail".to_owned(), tasks())].into(),
        benchmarks: vec![benchmark("os", "OS"), benchmark("tau-retail", "τ-bench")],
        experts: vec!["expert-with-a-rather-long-name".into()],
        models: logs(dir),
        result: "arm".into(),
        backbone: "ties".into(),
        overlaps: Overlaps { rows: vec![row("ties", 0.3), row("arm", 0.4)], ..Overlaps::default() },
        ..RunReport::default()
    };
    write(dir, |put| report.write(put).map(|_| ()))
}

#[test]
fn the_page_opens_with_the_answer_and_keeps_hostile_text_out() {
    let dir = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(run_page(dir.path())).unwrap();
    let after = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part} is missing"));
    let order = [
        "<h1>",
        "ARM (backbone `ties`) scores AVG 90.0, 30.0 above the best expert of each benchmark (95 % ",
        "Scores of models on benchmarks",
        "Activation overlap (AOS) against the average score",
        "Before and after the repair",
        "Table 6",
        "Where the time went",
        "id=\"paired\"",
        "What this run was made from",
    ]
    .map(after);
    assert!(order.is_sorted(), "{order:?}");
    assert!(!text.contains("<img") && !text.contains("'unsafe-inline'"));
    for entry in std::fs::read_dir(dir.path().join("report-data")).unwrap() {
        let data = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(data.starts_with("rolegraft.") && !data.contains(['<', '\u{2028}']));
    }
}

#[test]
fn the_page_works_in_a_browser() {
    let dir = tempfile::tempdir().unwrap();
    let page = run_page(dir.path());
    let Some(mut browser) = Chromium::start("the_page_works_in_a_browser") else { return };
    for (width, scheme) in [(400, "light"), (400, "dark"), (1400, "light"), (1400, "dark")] {
        browser.open(&page, width, scheme);
        browser.wait_for("document.getElementById('paired').dataset.ready === '600'");
        assert_eq!(browser.evaluate("innerWidth"), width);
        assert_eq!(browser.evaluate("document.querySelectorAll('#pairs .row').length"), 50);
        let background = browser.evaluate("getComputedStyle(document.body).backgroundColor");
        assert_eq!(background == "rgb(255, 255, 255)", scheme == "light", "{background}");
        let ink = browser.evaluate("getComputedStyle(document.querySelector('.chart text')).fill");
        assert_eq!(ink == "rgb(28, 35, 48)", scheme == "light", "{ink}");

        // By keys alone: to the third pair, open it, back to the second.
        for key in ["j", "j", "j", "Enter"] {
            browser.press(key);
        }
        browser.wait_for("document.querySelectorAll('.pair pre').length === 8");
        browser.press("k");
        let focus = browser.evaluate("[...document.querySelectorAll('.row')].indexOf(document.activeElement)");
        assert_eq!(focus, 1);
        assert_eq!(browser.evaluate("document.querySelectorAll('.turn.first').length"), 2);
        let said = browser.evaluate("document.querySelector('.pair').textContent");
        assert!(said.as_str().unwrap().contains("The replies part at turn 2."), "{said}");
        assert!(said.as_str().unwrap().contains("<img src=x onerror="), "{said}");
        assert_eq!(browser.evaluate("document.querySelectorAll('.pair mark').length"), 1);
        assert_eq!(browser.evaluate("document.images.length + Number('hacked' in window)"), 0);

        let wide = browser.evaluate("document.documentElement.scrollWidth");
        assert!(wide.as_u64().unwrap() <= u64::from(width), "{wide} at {width}");
        assert_eq!(browser.complaints(), Vec::<String>::new(), "at {width}, {scheme}");
    }

    let shown = "document.getElementById('status').textContent";
    let choose = |id: &str, value: &str| {
        format!(
            "{{ const s = document.getElementById('{id}'); s.value = {value}; s.dispatchEvent(new Event('change')); }}"
        )
    };
    let counts = |browser: &mut Chromium, expected: &str| {
        browser.wait_for(&format!("{shown}.startsWith('{expected}')"));
    };
    counts(&mut browser, "200 of 200 pairs; the outcome differs in 120");
    browser.evaluate(&choose("outcome", "'lost'"));
    counts(&mut browser, "0 of 200 pairs");
    browser.evaluate(&choose("outcome", "'won'"));
    browser.evaluate(&choose("suite", "'1'"));
    counts(&mut browser, "60 of 200 pairs");
    browser.evaluate(&choose("outcome", "''"));
    browser.evaluate(&choose("violation", "'1'"));
    counts(&mut browser, "70 of 200 pairs");
    browser.evaluate(&choose("left", "'2'"));
    counts(&mut browser, "10 of 200 pairs; the outcome differs in 0");
    browser.evaluate(&choose("violation", "''"));
    browser.press("/");
    for key in ["-", "9", "9"] {
        browser.press(key);
    }
    counts(&mut browser, "1 of 200 pairs");
    browser.evaluate(
        "document.getElementById('search').value = 'retail NUMBER 42'; document.getElementById('load').click()",
    );
    counts(&mut browser, "1 of 200 pairs");
    assert_eq!(browser.evaluate("document.querySelector('.row .task').textContent"), "task-42");
    assert_eq!(browser.complaints(), Vec::<String>::new());

    // Without its data the page says so.
    std::fs::remove_dir_all(dir.path().join("report-data")).unwrap();
    browser.open(&page, 400, "light");
    browser.wait_for(&format!("{shown}.includes('rolegraft view RUN')"));
}

#[test]
fn a_page_of_logs_names_the_leader() {
    let dir = tempfile::tempdir().unwrap();
    let report = LogsReport { models: logs(dir.path()), wanted: Wanted::default(), seed: 1, prices: (None, None) };
    let page = write(dir.path(), |put| report.write(put).map(|_| ()));
    let text = std::fs::read_to_string(&page).unwrap();
    assert!(text.contains("`arm` scores 90.0 on average (95 % "), "{}", &text[..9000]);
    let Some(mut browser) = Chromium::start("a_page_of_logs_names_the_leader") else { return };
    browser.open(&page, 400, "dark");
    browser.wait_for("document.getElementById('paired').dataset.ready === '600'");
    assert!(browser.evaluate("document.documentElement.scrollWidth").as_u64().unwrap() <= 400);
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
