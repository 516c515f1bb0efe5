//! Saliency as PyTorch recorded it, and greedy decoding as transformers recorded it.
#![allow(missing_docs, clippy::print_stderr)]

use rolegraft_checkpoint::{Checkpoint, Header};
use rolegraft_saliency::{Decoder, Saliency, TokenRun, Trajectory, aos, trace};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

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

fn tensors(path: &Path) -> BTreeMap<String, Vec<f32>> {
    let bytes = std::fs::read(path).unwrap();
    let header = Header::parse(&bytes, bytes.len() as u64).unwrap();
    let read = |t: &rolegraft_checkpoint::TensorInfo| t.dtype.to_f32(&bytes[t.start as usize..t.end as usize]).unwrap();
    header.tensors.iter().map(|t| (t.name.clone(), read(t))).collect()
}

fn positions(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect()
}

fn compare(saliency: &Saliency, expected: &[f32], what: &str) {
    let mean: Vec<f64> = saliency.mean().into_iter().flatten().collect();
    assert_eq!(mean.len(), expected.len());
    for (i, (ours, theirs)) in mean.iter().zip(expected).enumerate() {
        let theirs = f64::from(*theirs);
        assert!((ours - theirs).abs() <= 1e-4 * theirs.abs().max(1e-6), "{what}[{i}]: {ours} against {theirs}");
    }
}

#[test]
fn saliency_sets_and_overlap_match_pytorch() {
    let Some(dir) = recordings("saliency-golden") else { return };
    let cases: Value = serde_json::from_slice(&std::fs::read(dir.join("cases.json")).unwrap()).unwrap();
    let expected = tensors(&dir.join("expected.safetensors"));
    let rows = cases["trajectories"].as_array().unwrap();
    let run = |all: bool| -> Vec<Trajectory> {
        rows.iter()
            .map(|t| {
                let ids: Vec<u32> = positions(&t["input_ids"]).into_iter().map(|i| i as u32).collect();
                let role = if all { (0..ids.len()).collect() } else { positions(&t["role_positions"]) };
                Trajectory { runs: vec![TokenRun { ids, role }] }
            })
            .collect()
    };
    let mut sets = BTreeMap::new();
    for name in ["base", "dense", "sparse", "partial", "qwen2", "llama"] {
        let path =
            [dir.join(name), dir.join("../merge-golden/f32").join(name)].into_iter().find(|p| p.exists()).unwrap();
        let checkpoint = Checkpoint::open(path).unwrap();
        let role = trace(&checkpoint, &run(false)).unwrap();
        compare(&role, &expected[&format!("{name}.saliency")], name);
        compare(&trace(&checkpoint, &run(true)).unwrap(), &expected[&format!("{name}.saliency_all_tokens")], name);
        let decoder = Decoder::load(&checkpoint).unwrap();
        let last = run(true).pop().unwrap().runs.pop().unwrap().ids;
        let mut cache = decoder.cache();
        decoder.forward(&last[..5], &mut cache).unwrap();
        let logits = decoder.forward(&last[5..], &mut cache).unwrap();
        for (ours, theirs) in logits.iter().zip(&expected[&format!("{name}.last_logits")]) {
            assert!((ours - theirs).abs() < 1e-4, "{name}: {ours} against {theirs}");
        }
        // Shards of the calibration set add up.
        let all = run(false);
        let mut sum = trace(&checkpoint, &all[..2]).unwrap();
        sum.merge(&trace(&checkpoint, &all[2..]).unwrap()).unwrap();
        assert_eq!((sum.traced, sum.without_role), (role.traced, role.without_role));
        for (a, b) in sum.sums.iter().flatten().zip(role.sums.iter().flatten()) {
            assert!((a - b).abs() <= 1e-5 * b.abs().max(1e-9));
        }
        sets.insert(name, role);
    }
    let mut checked = 0;
    for (key, value) in cases["aos"].as_object().into_iter().flatten() {
        let (pair, k) = key.split_once('@').unwrap();
        let (a, b) = pair.split_once('|').unwrap();
        let k: f64 = k.parse().unwrap();
        assert!((aos(&sets[a].top(k), &sets[b].top(k)) - value.as_f64().unwrap()).abs() < 1e-9, "{key}");
        checked += 1;
    }
    assert!(checked >= 12, "{checked}");
}

#[test]
fn greedy_decoding_matches_transformers() {
    let Some(dir) = recordings("engine-golden") else { return };
    let cases: Value = serde_json::from_slice(&std::fs::read(dir.join("cases.json")).unwrap()).unwrap();
    let decoder = Decoder::load(&Checkpoint::open(dir.join("model")).unwrap()).unwrap();
    let mut count = 0;
    for case in cases.as_array().or(cases["cases"].as_array()).unwrap() {
        let ids = |field: &str| -> Vec<u32> { positions(&case[field]).into_iter().map(|i| i as u32).collect() };
        let (mut cache, mut next, mut ours) = (decoder.cache(), ids("prompt_ids"), Vec::new());
        let theirs = ids("greedy_ids");
        while ours.len() < theirs.len() {
            let logits = decoder.forward(&next, &mut cache).unwrap();
            let best = (0..logits.len()).fold(0, |b, i| if logits[i] > logits[b] { i } else { b }) as u32;
            ours.push(best);
            next = vec![best];
        }
        assert_eq!(ours, theirs, "case {count}");
        count += 1;
    }
    assert_eq!(count, 48);
}
