//! Checkpoint directories that contradict themselves or each other.
#![allow(missing_docs)]

use rolegraft_checkpoint::{Checkpoint, Dtype, Writer, check_pool};
use std::path::{Path, PathBuf};

type Plan = Vec<(String, Dtype, Vec<usize>)>;

fn plan(rows: usize) -> Plan {
    let tensor = |name: &str, shape: &[usize]| (name.to_string(), Dtype::F32, shape.to_vec());
    vec![tensor("a.weight", &[rows, 2]), tensor("b.weight", &[3]), tensor("c.weight", &[2, 2])]
}

fn write(dir: &Path, name: &str, plan: &Plan, shard: u64) -> PathBuf {
    let out = dir.join(name);
    let mut writer = Writer::create(&out, plan, shard).unwrap();
    for (name, _, shape) in plan {
        let values = vec![1.5; shape.iter().product()];
        writer.write(name, &Dtype::F32.from_f32(&values).unwrap()).unwrap();
    }
    let config = serde_json::json!({"model_type": "qwen3", "hidden_size": 2, "intermediate_size": 2, "num_hidden_layers": 1,
        "num_attention_heads": 1, "vocab_size": 4, "rms_norm_eps": 1e-6, "rope_theta": 1e4, "max_position_embeddings": 8});
    writer
        .finish(dir, &[("config.json", config.to_string().into_bytes()), ("tokenizer.json", b"{}".to_vec())])
        .unwrap();
    out
}

fn error(dir: &Path) -> String {
    Checkpoint::open(dir).err().map(|e| e.to_string()).unwrap_or_default()
}

#[test]
fn shards_come_back_and_an_index_that_lies_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = write(dir.path(), "m", &plan(4), 40);
    let checkpoint = Checkpoint::open(&out).unwrap();
    assert_eq!(checkpoint.f32("a.weight").unwrap(), vec![1.5; 8]);
    assert_eq!(checkpoint.tensors().count(), 3);
    assert!(out.join("model-00001-of-00002.safetensors").exists());

    let index = out.join("model.safetensors.index.json");
    let good = std::fs::read_to_string(&index).unwrap();
    for (bad, expected) in [
        (good.replace("model-00002-of", "../model-00002-of"), "leaves the directory"),
        (good.replace("model-00002-of", "model-00009-of"), "model-00009-of"),
        (good.replacen("c.weight", "d.weight", 1), "which the index does not say"),
        (
            good.replace("\"a.weight\":", "\"x.weight\":\"model-00001-of-00002.safetensors\",\"a.weight\":"),
            "does not hold it",
        ),
        ("{\"weight_map\": 1}".to_owned(), "not a valid index"),
        ("<html>".to_owned(), "not a valid index"),
    ] {
        std::fs::write(&index, bad).unwrap();
        assert!(error(&out).contains(expected), "`{}` should say `{expected}`", error(&out));
    }
}

#[test]
fn a_file_cut_short_while_mapped_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let out = write(dir.path(), "m", &plan(4), u64::MAX);
    let checkpoint = Checkpoint::open(&out).unwrap();
    let file = std::fs::File::options().write(true).open(out.join("model.safetensors")).unwrap();
    file.set_len(16).unwrap();
    let message = checkpoint.f32("c.weight").unwrap_err().to_string();
    assert!(message.contains("changed while it was being read") && message.contains("c.weight"), "{message}");
}

#[test]
fn one_byte_changes_the_digest() {
    let dir = tempfile::tempdir().unwrap();
    let out = write(dir.path(), "m", &plan(4), u64::MAX);
    let before = Checkpoint::open(&out).unwrap().digest().unwrap();
    for file in ["model.safetensors", "tokenizer.json"] {
        let path = out.join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_ne!(Checkpoint::open(&out).unwrap().digest().unwrap(), before, "{file}");
        bytes[last] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
    }
    assert_eq!(Checkpoint::open(&out).unwrap().digest().unwrap(), before);
}

#[test]
fn a_pool_of_other_shapes_names_the_tensors() {
    let dir = tempfile::tempdir().unwrap();
    let base = Checkpoint::open(write(dir.path(), "base", &plan(4), u64::MAX)).unwrap();
    let wide = Checkpoint::open(write(dir.path(), "wide", &plan(5), u64::MAX)).unwrap();
    let message = check_pool(&base, &[&wide]).unwrap_err().to_string();
    assert!(message.contains("`a.weight` has shape [5, 2], not [4, 2]"), "{message}");
    let few = Checkpoint::open(write(dir.path(), "few", &plan(4)[..2].to_vec(), u64::MAX)).unwrap();
    assert!(check_pool(&base, &[&few]).unwrap_err().to_string().contains("`c.weight` is missing"));
    let same = Checkpoint::open(write(dir.path(), "same", &plan(4), u64::MAX)).unwrap();
    check_pool(&base, &[&same]).unwrap();
    assert!(check_pool(&base, &[&same, &same]).unwrap_err().to_string().contains("twice"));
    std::fs::write(dir.path().join("same/tokenizer.json"), "{\"other\": 1}").unwrap();
    assert!(check_pool(&base, &[&same]).unwrap_err().to_string().contains("tokenizers"));
}

#[test]
fn an_unfinished_writer_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(&dir.path().join("m"), &plan(4), u64::MAX).unwrap();
    assert!(writer.write("b.weight", &[0; 12]).unwrap_err().to_string().contains("cannot write"));
    drop(writer);
    assert_eq!(dir.path().read_dir().unwrap().count(), 0);
}
