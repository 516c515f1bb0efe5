//! A database server that is killed, and a model that kills its own connection.
#![allow(missing_docs, clippy::print_stderr)]

use rolegraft_spans::Format;
use rolegraft_suite::{AgentBenchProtocol, Limits, Suite, SuiteError, Task};
use rolegraft_suite_db::{DbSuite, FORMAT, Place, Prompt, ServerError};
use serde_json::json;
use std::path::Path;

/// Kills the server programs below a process.
fn kill_servers_of(process: u32) {
    let children = std::fs::read_dir(format!("/proc/{process}/task")).unwrap().flatten();
    let children = children.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    for child in children.flat_map(|ids| ids.split_whitespace().map(|id| id.parse().unwrap()).collect::<Vec<u32>>()) {
        let name = std::fs::read_to_string(Path::new("/proc").join(child.to_string()).join("comm")).unwrap_or_default();
        if ["mariadbd", "mysqld"].contains(&name.trim()) {
            let id = rustix::process::Pid::from_raw(child.cast_signed()).unwrap();
            rustix::process::kill_process(id, rustix::process::Signal::KILL).unwrap();
        } else {
            kill_servers_of(child);
        }
    }
}

#[test]
fn a_killed_server_is_not_held_against_the_model_and_another_takes_its_place() {
    let limits = Limits { turns: 5, tokens: 1, temperature: 0.0, top_p: 1.0 };
    let format = Format::builtin(FORMAT).unwrap();
    let suite = DbSuite::new(AgentBenchProtocol::Text, format, limits, Prompt::upstream(), Place::Private);
    match suite.server() {
        Ok(_) => {}
        Err(error @ (ServerError::NotInstalled | ServerError::Sandbox(_))) => {
            eprintln!("skipped: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    }
    let fields = json!({
        "description": "Count.", "type": ["INSERT"], "label": [], "answer_md5": "no", "add_description": "",
        "table": {"table_name": "t", "table_info": {"columns": [{"name": "a"}], "rows": [["1"], ["2"]]}},
    });
    let task = |id: &str| Task { id: id.into(), fields: fields.clone() };
    let ask = |sql: &str| format!("Action: Operation\n```sql\n{sql}\n```");
    let mut killed = suite.start(&task("killed")).unwrap();
    assert_eq!(killed.step(&ask("SELECT * FROM t")).unwrap().observations[0].content, "[('1',), ('2',)]");
    // The end of a connection of its own is the model's affair.
    let said = killed.step(&ask("KILL CONNECTION_ID()")).unwrap().observations[0].content.clone();
    assert!(!said.starts_with('['), "{said}");
    assert!(killed.intact().unwrap());
    kill_servers_of(std::process::id());
    killed.step(&ask("SELECT * FROM t")).unwrap();
    let error = killed.intact().unwrap_err();
    assert!(matches!(&error, SuiteError::Lost { task, .. } if task == "killed"), "{error}");
    let mut next = suite.start(&task("next")).unwrap();
    assert_eq!(next.step(&ask("SELECT * FROM t")).unwrap().observations[0].content, "[('1',), ('2',)]");
    kill_servers_of(std::process::id());
    assert_eq!(next.outcome().reward, 0.0);
    assert!(next.intact().is_err());
    // It stays lost, though there is a server again.
    suite.start(&task("last")).unwrap();
    assert!(killed.intact().is_err() && next.intact().is_err());
}
