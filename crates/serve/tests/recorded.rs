//! Greedy decoding as transformers recorded it.
#![allow(missing_docs, clippy::print_stderr)]

use rolegraft_checkpoint::Checkpoint;
use rolegraft_serve::{InProcess, Serving};
use rolegraft_trajectory::ChatArguments;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn alone_and_all_at_once() {
    let dir = std::env::var_os("ROLEGRAFT_CONFORMANCE")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from)
        .join("engine-golden");
    if !dir.exists() {
        eprintln!("skipped: recordings `engine-golden` not found (set ROLEGRAFT_CONFORMANCE)");
        return;
    }
    let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(dir.join("cases.json")).unwrap()).unwrap();
    let checkpoint = Checkpoint::open(dir.join("model")).unwrap();
    let served =
        Arc::new(InProcess::open(&checkpoint, Serving::Cpu { engines: 2 }, &ChatArguments::default()).await.unwrap());
    for (i, case) in cases.iter().enumerate() {
        let expected = ids(&case["greedy_ids"]);
        assert_eq!(served.greedy(&ids(&case["prompt_ids"]), 64).await.unwrap(), expected, "case {i}");
    }
    let mut all = tokio::task::JoinSet::new();
    for (i, case) in cases.iter().cloned().enumerate() {
        let served = served.clone();
        all.spawn(async move {
            (i, served.greedy(&ids(&case["prompt_ids"]), 64).await.unwrap() == ids(&case["greedy_ids"]))
        });
    }
    let mut right = 0;
    while let Some(done) = all.join_next().await {
        let (i, same) = done.unwrap();
        assert!(same, "case {i}, all at once");
        right += 1;
    }
    assert_eq!(right, 48);
}
