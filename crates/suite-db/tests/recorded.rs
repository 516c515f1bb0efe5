//! The recordings, made on MariaDB 10.11, on the server that `ROLEGRAFT_DB` names, else on private ones of both makes.
#![allow(missing_docs, clippy::print_stderr)]

use rolegraft_spans::Format;
use rolegraft_suite::{AgentBenchProtocol, Benchmark, Settings, agentbench_limits};
use rolegraft_suite_db::{DbBench, DbSuite, FORMAT, Make, Place, Prompt, ServerError};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What differs on MySQL, with the recording's number of cases; docs/agentbench.md says why.
const DIFFERENT: [(&str, usize, &[&str]); 2] = [
    (
        "db_episodes.jsonl",
        597,
        &[
            "standard-055-truth",
            "standard-055-look",
            "standard-055-bare",
            "standard-080-truth",
            "standard-080-bare",
            "dev-000-truth",
            "dev-000-bare",
        ],
    ),
    ("db_repr.jsonl", 63, &["db-repr-068"]),
];

fn data() -> Option<PathBuf> {
    let root = std::env::var_os("ROLEGRAFT_CONFORMANCE")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    let data = root.join("agentbench");
    data.exists().then_some(data)
}

/// The make of the server that is named so, if its program and a sandbox are there.
fn make(server: &str) -> Option<Make> {
    let format = Format::builtin(FORMAT).unwrap();
    let place = Place::named(Some(server));
    let suite = DbSuite::new(AgentBenchProtocol::Text, format, agentbench_limits(15), Prompt::upstream(), place);
    match suite.server() {
        Ok(server) => Some(server.make()),
        Err(error @ (ServerError::NotInstalled | ServerError::NoProgram(_) | ServerError::Sandbox(_))) => {
            eprintln!("skipped: {server}: {error}");
            None
        }
        Err(error) => panic!("{server}: {error}"),
    }
}

#[test]
fn episodes_and_results_are_those_recorded() {
    let Some(data) = data() else {
        eprintln!("skipped: recordings `agentbench` not found (set ROLEGRAFT_CONFORMANCE)");
        return;
    };
    let servers =
        std::env::var("ROLEGRAFT_DB").map_or_else(|_| vec!["mysql".into(), "mariadb".into()], |url| vec![url]);
    for server in servers {
        let Some(make) = make(&server) else { continue };
        for (file, cases, different) in DIFFERENT {
            let mut settings = Settings::default();
            settings.set("server", server.as_str());
            let report = DbBench.replay(&data.join("golden").join(file), &data, &settings).unwrap();
            let text = std::fs::read_to_string(data.join("golden").join(file)).unwrap();
            let failed: Vec<String> = text
                .lines()
                .zip(&report.verdicts)
                .filter(|(_, verdict)| verdict.difference.is_some())
                .map(|(line, _)| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned())
                .collect();
            eprintln!("{make:?}, {file}: {} of {cases} agree", report.verdicts.len() - failed.len());
            assert_eq!(report.verdicts.len(), cases, "{report}");
            assert_eq!(failed, if make == Make::MySql { different } else { &[] }, "{report}");
        }
    }
}
