//! Merges as mergekit 0.1.5 recorded them.
#![allow(missing_docs, clippy::print_stderr)]

use rolegraft_checkpoint::Checkpoint;
use rolegraft_merge::{Operator, Parameters, merge};
use std::path::PathBuf;

#[test]
fn operators_match_mergekit() {
    let root = std::env::var_os("ROLEGRAFT_CONFORMANCE")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from)
        .join("merge-golden/f32");
    if !root.exists() {
        eprintln!("skipped: recordings `merge-golden/f32` not found (set ROLEGRAFT_CONFORMANCE)");
        return;
    }
    let base = Checkpoint::open(root.join("base")).unwrap();
    let experts: Vec<_> =
        ["dense", "sparse", "partial"].iter().map(|n| Checkpoint::open(root.join(n)).unwrap()).collect();
    let experts: Vec<&Checkpoint> = experts.iter().collect();
    let default = Parameters::default();
    for (file, operator, parameters) in [
        ("linear-equal", Operator::Average, default),
        ("ties-d20", Operator::Ties, Parameters { density: 0.2, ..default }),
        ("dare_ties-density1", Operator::DareTies, default),
        ("model_stock", Operator::ModelStock, default),
        ("ram", Operator::Ram, default),
    ] {
        let expected = root.join("expected").join(format!("{file}.safetensors"));
        let bytes = std::fs::read(&expected).unwrap_or_else(|e| panic!("{}: {e}", expected.display()));
        let header = rolegraft_checkpoint::Header::parse(&bytes, bytes.len() as u64).unwrap();
        let dir = tempfile::tempdir().unwrap();
        merge(operator, &parameters, &base, &experts, &dir.path().join("out"), 4096, "").unwrap();
        let merged = Checkpoint::open(dir.path().join("out")).unwrap();
        let mut compared = 0;
        for tensor in header.tensors {
            let theirs = tensor.dtype.to_f32(&bytes[tensor.start as usize..tensor.end as usize]).unwrap();
            let ours = merged.f32(&tensor.name).unwrap();
            for (a, b) in ours.iter().zip(&theirs) {
                assert!((a - b).abs() <= 2e-6, "{file} {}: {a} against {b}", tensor.name);
            }
            compared += ours.len();
        }
        assert!(compared > 10_000, "{file}");
    }
}
