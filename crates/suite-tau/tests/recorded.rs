//! Episodes as upstream's environments played them: observations, rewards' database hashes.
#![allow(missing_docs, clippy::print_stderr)]

use flate2::read::GzDecoder;
use rolegraft_suite_tau::Domain;
use rolegraft_suite_tau::database::Database;
use serde_json::{Map, Value};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::sync::Arc;

#[test]
fn tools_and_hashes_match_upstream() {
    let root = std::env::var_os("ROLEGRAFT_CONFORMANCE")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from)
        .join("tau-bench");
    let Ok(file) = std::fs::File::open(root.join("golden.jsonl.gz")) else {
        eprintln!("skipped: recordings `tau-bench` not found (set ROLEGRAFT_CONFORMANCE)");
        return;
    };
    let tables = |domain: &str, names: &[&str]| -> Arc<Map<String, Value>> {
        let read = |name: &&str| {
            let text = std::fs::read_to_string(root.join(domain).join(format!("{name}.json"))).unwrap();
            ((*name).to_owned(), serde_json::from_str(&text).unwrap())
        };
        Arc::new(names.iter().map(read).collect())
    };
    let retail = tables("retail", &["orders", "products", "users"]);
    let airline = tables("airline", &["flights", "reservations", "users"]);
    let (mut passed, mut failed) = (0, 0);
    for line in BufReader::new(GzDecoder::new(file)).lines() {
        let row: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let (domain, base) = match row["domain"].as_str() {
            Some("retail") => (Domain::Retail, &retail),
            _ => (Domain::Airline, &airline),
        };
        let mut data = Database::new(base.clone());
        let mut wrong = None;
        let observations = row["observations"].as_array().unwrap();
        for (i, (action, expected)) in row["actions"].as_array().unwrap().iter().zip(observations).enumerate() {
            let name = action["name"].as_str().unwrap();
            let empty = Map::new();
            let arguments = action["kwargs"].as_object().or(action["arguments"].as_object()).unwrap_or(&empty);
            let observed = if name == "respond" {
                "ok".to_owned()
            } else {
                domain.call(&mut data, name, arguments).unwrap_or_else(|| format!("Unknown action {name}"))
            };
            if Some(observed.as_str()) != expected.as_str() {
                wrong = Some(format!("step {i} {name} {arguments:?}\n  expected {expected}\n  got      {observed:?}"));
                break;
            }
        }
        if wrong.is_none() && row["data_hash"].as_str() != Some(data.hash().as_str()) {
            wrong = Some("the final database differs".into());
        }
        match wrong {
            None => passed += 1,
            Some(wrong) => {
                failed += 1;
                if failed <= 12 {
                    eprintln!("{} {} {}: {wrong}", row["kind"], row["domain"], row["task_index"]);
                }
            }
        }
    }
    assert_eq!(failed, 0, "{passed} passed, {failed} failed");
    assert_eq!(passed, 1645);
}
