//! The transplant's invariants on real tensors.
#![allow(missing_docs)]

use rolegraft_checkpoint::{Checkpoint, Dtype, Writer};
use rolegraft_graft::{Graft, Plan};
use rolegraft_saliency::NeuronSet;
use std::collections::BTreeMap;
use std::path::Path;

const LAYERS: usize = 2;
const WIDTH: usize = 5;
const HIDDEN: usize = 3;

fn model(dir: &Path, salt: f32) -> Checkpoint {
    let mut plan = vec![("model.embed_tokens.weight".to_string(), Dtype::BF16, vec![7, HIDDEN])];
    for layer in 0..LAYERS {
        for (name, shape) in
            [("down_proj", [HIDDEN, WIDTH]), ("gate_proj", [WIDTH, HIDDEN]), ("up_proj", [WIDTH, HIDDEN])]
        {
            plan.push((format!("model.layers.{layer}.mlp.{name}.weight"), Dtype::BF16, shape.to_vec()));
        }
    }
    let like = dir.join("like");
    std::fs::create_dir_all(&like).unwrap();
    let config = serde_json::json!({"model_type": "qwen3", "hidden_size": HIDDEN, "intermediate_size": WIDTH,
        "num_hidden_layers": LAYERS, "num_attention_heads": 1, "vocab_size": 7, "rms_norm_eps": 1e-6, "rope_theta": 1e4,
        "max_position_embeddings": 8});
    std::fs::write(like.join("config.json"), config.to_string()).unwrap();
    let out = dir.join(format!("model-{salt}"));
    let mut writer = Writer::create(&out, &plan, 64).unwrap();
    for (i, (name, dtype, shape)) in plan.iter().enumerate() {
        let values: Vec<f32> = (0..shape.iter().product()).map(|j| salt + (i * 16 + j) as f32).collect();
        writer.write(name, &dtype.from_f32(&values).unwrap()).unwrap();
    }
    writer.finish(&like, &[]).unwrap();
    Checkpoint::open(out).unwrap()
}

fn apply(plan: &Plan, backbone: &Checkpoint, donor: &Checkpoint, out: &Path) -> Checkpoint {
    plan.apply(backbone, &BTreeMap::from([("e".to_string(), donor)]), out, 1 << 20, "").unwrap();
    Checkpoint::open(out).unwrap()
}

fn plan(neurons: &[usize]) -> Plan {
    let layers = vec![neurons.iter().copied().collect(); LAYERS];
    let graft =
        Graft { benchmark: "b".into(), donor: "e".into(), neurons: NeuronSet { layers }, protected_away: vec![] };
    Plan { grafts: vec![graft], contested: 0 }
}

#[test]
fn all_neurons_make_every_mlp_the_donors_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (backbone, donor) = (model(dir.path(), 0.0), model(dir.path(), 512.0));
    let out = apply(&plan(&[0, 1, 2, 3, 4]), &backbone, &donor, &dir.path().join("out"));
    for (name, _) in backbone.tensors() {
        let like = if name.contains(".mlp.") { &donor } else { &backbone };
        assert_eq!(out.bytes(name).unwrap(), like.bytes(name).unwrap(), "{name}");
    }
}

#[test]
fn one_neuron_is_one_row_or_column_and_twice_is_once() {
    let dir = tempfile::tempdir().unwrap();
    let (backbone, donor) = (model(dir.path(), 0.0), model(dir.path(), 512.0));
    let once = apply(&plan(&[3]), &backbone, &donor, &dir.path().join("once"));
    let twice = apply(&plan(&[3]), &once, &donor, &dir.path().join("twice"));
    for (name, tensor) in backbone.tensors() {
        let (ours, before, theirs) = (once.f32(name).unwrap(), backbone.f32(name).unwrap(), donor.f32(name).unwrap());
        for i in 0..ours.len() {
            let neuron = if name.contains("down_proj") { i % WIDTH } else { i / tensor.shape[1] };
            let grafted = name.contains(".mlp.") && neuron == 3;
            assert_eq!(ours[i], if grafted { theirs[i] } else { before[i] }, "{name}[{i}]");
        }
        assert_eq!(once.bytes(name).unwrap(), twice.bytes(name).unwrap());
    }
}

#[test]
fn a_neuron_that_does_not_exist_leaves_no_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (backbone, donor) = (model(dir.path(), 0.0), model(dir.path(), 512.0));
    let out = dir.path().join("out");
    let error =
        plan(&[9]).apply(&backbone, &BTreeMap::from([("e".to_string(), &donor)]), &out, 1 << 20, "").unwrap_err();
    assert!(error.to_string().contains("neuron 9"));
    assert!(!out.exists());
}
