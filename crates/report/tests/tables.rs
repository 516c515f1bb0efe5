//! Every table a person reads, from a few made-up episodes, in every format.
#![allow(missing_docs, clippy::print_stderr)]

use rolegraft_report::{
    Benchmark, Format, ModelScores, Scoreboard, failure_rates, kind_scores, status_table, unparsable_table,
    violation_table,
};
use rolegraft_spans::{Role, Violation, ViolationKind};
use rolegraft_trajectory::{Context, Episode, EpisodeKey, Finish, Message, Spent, Status, Turn};

fn episode(suite: &str, task: usize, reward: f64) -> Episode {
    let solved = reward == 1.0;
    let violation = Violation { kind: ViolationKind::InvalidJson, range: 4..9, detail: "Expecting value <b>".into() };
    Episode {
        key: EpisodeKey { suite: suite.into(), task: format!("t{task}"), trial: 0 },
        status: if solved { Status::Completed } else { Status::TaskLimitReached },
        reward,
        messages: vec![Message::user("do <it>"), Message::assistant(if solved { "Act: go" } else { "Act: {bad}" })],
        turns: vec![Turn {
            message: 1,
            shown: Context::All,
            ids: vec![],
            finish: Finish::Stop,
            spans: vec![(Role::Action, 0..7)],
            action: None,
            violations: if solved { vec![] } else { vec![violation] },
            drafts: 0,
            succeeded: solved,
            inexact: false,
            reasoning: String::new(),
        }],
        detail: serde_json::Value::Null,
        spent: Spent::default(),
        others_spent: Spent::default(),
        seconds: 0.0,
    }
}

fn episodes(solved: usize) -> Vec<Episode> {
    ["os", "tau-retail"]
        .iter()
        .flat_map(|s| (0..8).map(move |i| episode(s, i, if i < solved { 1.0 } else { 0.0 })))
        .collect()
}

#[test]
fn tables_read_as_they_should() {
    let benchmark = |id: &str, title: &str| Benchmark { id: id.into(), title: title.into(), suites: vec![id.into()] };
    let played = [("base", episodes(1)), ("expert", episodes(6)), ("arm", episodes(5))];
    let board = Scoreboard {
        benchmarks: vec![benchmark("os", "OS"), benchmark("tau-retail", "τ-bench")],
        models: played.iter().map(|(name, e)| ModelScores::new(name, e)).collect(),
        experts: vec!["expert".into()],
        seed: 1,
    };
    let rates: Vec<_> =
        played.iter().map(|(name, e)| ("os".to_owned(), (*name).to_owned(), failure_rates(&e[..8]))).collect();
    let tables = [
        board.table1(),
        board.table3(),
        board.paired("arm"),
        unparsable_table(&rates),
        violation_table(&rates),
        status_table(&rates),
    ];
    for (format, name) in
        [(Format::Markdown, "md"), (Format::Csv, "csv"), (Format::Latex, "tex"), (Format::Html, "html")]
    {
        let text: String = tables.iter().map(|t| t.render(format) + "\n").collect();
        insta::assert_snapshot!(format!("tables.{name}"), text);
    }
}

#[test]
fn a_score_by_type_is_over_the_types_that_are_there() {
    let of_kind = |kind: &str, reward: f64| {
        let mut episode = episode("dbbench", 0, reward);
        episode.detail = serde_json::json!({"type": kind});
        episode
    };
    let played = [of_kind("INSERT", 1.0), of_kind("counting", 1.0), of_kind("counting", 0.0), of_kind("ranking", 0.0)];
    let scores = kind_scores(&played).unwrap();
    assert_eq!(scores.accuracy["counting"], 0.5);
    assert_eq!(scores.accuracy["SELECT"], 1.0 / 3.0);
    assert!((scores.overall - (1.0 + 1.0 / 3.0) / 2.0).abs() < 1e-12);
    assert!(!scores.accuracy.contains_key("UPDATE"));
    assert_eq!(kind_scores(&episodes(1)), None);
}

#[test]
fn latex_compiles() {
    let there = std::process::Command::new("pdflatex").arg("--version").output().is_ok();
    if !there {
        eprintln!("skipped: latex_compiles, since there is no pdflatex");
        return;
    }
    let odd = ["τ-bench & 50 % of $x_1$", "~^\\{}#", "naïve – “ω” ≈ ≥ →", "模型 🦀 \u{202e}", "<script>"]
        .map(str::to_owned)
        .to_vec();
    let table =
        rolegraft_report::Table { title: "a_b & c".into(), head: odd.clone(), rows: vec![odd; 3], note: String::new() };
    let dir = tempfile::tempdir().unwrap();
    let rules = "\\let\\toprule\\hline\\let\\midrule\\hline\\let\\bottomrule\\hline";
    let text = format!(
        "\\documentclass{{article}}{rules}\\begin{{document}}\n{}\\end{{document}}\n",
        table.render(Format::Latex)
    );
    std::fs::write(dir.path().join("t.tex"), &text).unwrap();
    let arguments = ["-interaction=nonstopmode", "-halt-on-error", "t.tex"];
    let output = std::process::Command::new("pdflatex").args(arguments).current_dir(dir.path()).output().unwrap();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stdout));
}
