//! The paper's summaries from the paper's scores.
#![allow(missing_docs, clippy::print_stderr)]

use rolegraft_report::{rhm, worst};
use std::collections::BTreeMap;
use std::path::PathBuf;

#[test]
fn avg_ws_and_rhm_come_out_of_tables_1_and_2() {
    let root = std::env::var_os("ROLEGRAFT_CONFORMANCE")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from)
        .join("paper");
    let read = |file: &str| std::fs::read_to_string(root.join(file));
    if read("table1_qwen3-8b.csv").is_err() {
        eprintln!("skipped: recordings `paper` not found (set ROLEGRAFT_CONFORMANCE)");
        return;
    }
    let mut exact = Vec::new();
    for (pool, file) in [("qwen3-8b", "table1_qwen3-8b.csv"), ("qwen2.5-7b", "table2_qwen2.5-7b.csv")] {
        let mut rows: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for line in read(file).unwrap().lines().skip(1) {
            let (name, numbers) = line.split_once(',').unwrap();
            rows.insert(name.into(), numbers.split(',').map(|n| n.parse().unwrap()).collect());
        }
        for (name, row) in &rows {
            let avg = row[..6].iter().sum::<f64>() / 6.0;
            assert!((avg - row[6]).abs() <= 0.05 + 1e-9, "{pool} {name}: {avg} against {}", row[6]);
        }
        let best = &rows["BEST-of-Three"][..6];
        for line in read("table3_summaries.csv").unwrap().lines().filter(|l| l.starts_with(pool)) {
            let cells: Vec<&str> = line.split(',').collect();
            let scores = &rows[cells[1]][..6];
            assert_eq!(format!("{:.1}", worst(scores)), cells[3], "{line}");
            let ours = rhm(scores, best);
            assert!((ours - cells[4].parse::<f64>().unwrap()).abs() <= 0.005 + 1e-9, "{line}: {ours}");
            exact.push(format!("{ours:.3}"));
        }
    }
    assert_eq!(exact, ["0.843", "0.983", "0.950", "1.035"]);
}
