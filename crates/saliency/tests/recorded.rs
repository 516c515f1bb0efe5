//! Traces of parts of a calibration set, with a recorded model.
#![allow(missing_docs, clippy::print_stderr)]

use rolegraft_checkpoint::Checkpoint;
use rolegraft_saliency::{Trajectory, trace};
use serde_json::Value;
use std::path::PathBuf;

fn recordings(folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("ROLEGRAFT_CONFORMANCE")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    let path = root.join(folder);
    if !path.exists() {
        eprintln!("skipped: recordings `{folder}` not found (set ROLEGRAFT_CONFORMANCE)");
        return None;
    }
    Some(path)
}

fn positions(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

#[test]
fn shards_of_a_calibration_set_add_up() {
    let Some(dir) = recordings("saliency-golden") else { return };
    let cases: Value = serde_json::from_slice(&std::fs::read(dir.join("cases.json")).unwrap()).unwrap();
    let one = |t: &Value| vec![(positions(&t["input_ids"]), positions(&t["role_positions"]))];
    let all: Vec<Trajectory> = cases["trajectories"].as_array().unwrap().iter().map(one).collect();
    for name in ["qwen2", "llama"] {
        let checkpoint = Checkpoint::open(dir.join(name)).unwrap();
        let whole = trace(&checkpoint, &all).unwrap();
        let mut sum = trace(&checkpoint, &all[..2]).unwrap();
        sum.merge(&trace(&checkpoint, &all[2..]).unwrap()).unwrap();
        assert_eq!((sum.traced, sum.without_role), (whole.traced, whole.without_role));
        assert!(whole.traced > 0);
        for (a, b) in sum.sums.iter().flatten().zip(whole.sums.iter().flatten()) {
            assert!((a - b).abs() <= 1e-5 * b.abs().max(1e-9));
        }
    }
}
