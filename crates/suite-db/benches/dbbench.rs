//! DB-bench on a private server: an episode's set-up, a statement's time, a whole episode's.
//!
//! Upstream's Python needs Docker and MySQL for the same; where these are at hand, its `Container.execute` is the peer. The
//! limit is the server's own work: a database, a user, a table.
//!
//! ```sh
//! cargo bench --workspace --bench dbbench -- DATA
//! ```
#![allow(missing_docs, clippy::print_stdout, clippy::print_stderr)]

use rolegraft_suite_db::{Entry, Server, entries, folder, open};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

fn median(what: &str, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| 1e3 * times[((times.len() - 1) as f64 * share) as usize];
    println!("{what}: median {:.2} ms, 95 % {:.2} ms, most {:.2} ms ({})", at(0.5), at(0.95), at(1.0), times.len());
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let [data] = arguments.as_slice() else {
        eprintln!("skipped: give the folder of the official data");
        return;
    };
    let begun = Instant::now();
    let server = match Server::private() {
        Ok(server) => Arc::new(server),
        Err(error) => {
            eprintln!("skipped: {error}");
            return;
        }
    };
    println!("server: started in {:.2} s", begun.elapsed().as_secs_f64());
    let folder = folder(Path::new(data)).expect("the official data");
    let entries: Vec<Entry> = entries(&folder, "standard.jsonl", true)
        .expect("tasks")
        .into_iter()
        .map(|entry| serde_json::from_value(entry).expect("a task"))
        .collect();
    let (mut set_up, mut statement, mut end) = (Vec::new(), Vec::new(), Vec::new());
    for entry in &entries {
        let begun = Instant::now();
        let mut database = open(&server, entry, false).expect("a database");
        set_up.push(begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        database.execute("SHOW TABLES", false);
        statement.push(begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        drop(database);
        end.push(begun.elapsed().as_secs_f64());
    }
    median("set-up", set_up);
    median("a statement on a connection of its own", statement);
    median("end", end);
}
