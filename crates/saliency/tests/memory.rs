//! Peak memory, and files that go wrong while they are read. One test: the kernel counts memory for the whole process.
#![allow(missing_docs)]

use rolegraft_checkpoint::{Architecture, Checkpoint, Dtype, Writer};
use rolegraft_decoder::Pass;
use rolegraft_saliency::{Reading, Run, TraceError, Tracing, trace_readings};
use std::borrow::Cow;
use std::path::Path;

const HIDDEN: usize = 256;
const NEURONS: usize = 512;
const LAYERS: usize = 2;
const VOCABULARY: usize = 300;

/// A random Llama.
fn model(dir: &Path) -> Checkpoint {
    let like = dir.join("like");
    std::fs::create_dir_all(&like).unwrap();
    let config = serde_json::json!({"model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": NEURONS,
        "num_hidden_layers": LAYERS, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": VOCABULARY,
        "rms_norm_eps": 1e-6, "rope_theta": 1e4, "max_position_embeddings": 4096, "tie_word_embeddings": true});
    std::fs::write(like.join("config.json"), config.to_string()).unwrap();
    let mut plan = vec![("model.embed_tokens.weight".to_owned(), vec![VOCABULARY, HIDDEN])];
    for layer in 0..LAYERS {
        let mut add =
            |name: &str, shape: &[usize]| plan.push((format!("model.layers.{layer}.{name}.weight"), shape.to_vec()));
        add("input_layernorm", &[HIDDEN]);
        add("post_attention_layernorm", &[HIDDEN]);
        add("self_attn.q_proj", &[HIDDEN, HIDDEN]);
        add("self_attn.k_proj", &[HIDDEN / 2, HIDDEN]);
        add("self_attn.v_proj", &[HIDDEN / 2, HIDDEN]);
        add("self_attn.o_proj", &[HIDDEN, HIDDEN]);
        add("mlp.gate_proj", &[NEURONS, HIDDEN]);
        add("mlp.up_proj", &[NEURONS, HIDDEN]);
        add("mlp.down_proj", &[HIDDEN, NEURONS]);
    }
    plan.push(("model.norm.weight".to_owned(), vec![HIDDEN]));
    let plan: Vec<_> = plan.into_iter().map(|(name, shape)| (name, Dtype::BF16, shape)).collect();
    let out = dir.join("model");
    let mut writer = Writer::create(&out, &plan, 1 << 30).unwrap();
    let mut state = 1u64;
    for (name, dtype, shape) in &plan {
        let mut draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        let values: Vec<f32> =
            (0..shape.iter().product()).map(|_| if shape.len() == 1 { 1.0 } else { 0.1 * draw() }).collect();
        writer.write(name, &dtype.from_f32(&values).unwrap()).unwrap();
    }
    writer.finish(&like, &[]).unwrap();
    Checkpoint::open(out).unwrap()
}

/// The most memory that this process ever had, in bytes.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[test]
fn memory_is_bounded_and_broken_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = model(dir.path());
    // Hidden states of all of it would have 246 MB.
    let ids: Vec<Vec<u32>> =
        (0..120u32).map(|at| (0..2000).map(|i| (i * i + at * 7 + i) % VOCABULARY as u32).collect()).collect();
    let runs: Vec<Run<'_>> = ids.iter().enumerate().map(|(trajectory, ids)| Run { trajectory, ids }).collect();
    let role: Vec<u32> = (500..2000).collect();
    let readings: Vec<Reading<'_>> = vec![Box::new(|_| Some(Cow::Borrowed(role.as_slice())))];
    let held = 120 * 2000 * 4;
    let memory = 48 << 20;
    let tracing = Tracing { memory, held, wave: usize::MAX, ..Tracing::unbounded() };
    let traced = trace_readings(&checkpoint, &runs, &readings, &tracing).unwrap();
    assert_eq!((traced[0].traced, traced[0].tokens), (120, 120 * 1500));
    let layer = Pass::bytes(&Architecture::of(&checkpoint).unwrap(), 2000).0;
    let (peak, bound) = (peak(), memory + layer + (64 << 20));
    assert!(peak <= bound, "{} MB, at most {} MB are allowed", peak >> 20, bound >> 20);

    // What cannot be kept is said.
    std::fs::write(dir.path().join("file"), "").unwrap();
    let journal = Some((dir.path().join("file/partial"), "x".to_owned()));
    let tracing = Tracing { wave: 3000, journal, ..Tracing::unbounded() };
    let error = trace_readings(&checkpoint, &runs[..3], &readings, &tracing).unwrap_err();
    assert!(matches!(&error, TraceError::Journal(_)) && error.to_string().contains("file/partial"), "{error}");

    // A shard that is cut while it is read is named with the tensor.
    let shard = checkpoint.files().next().unwrap().to_owned();
    let cut = |step: &rolegraft_saliency::Step| {
        if step.layer == 1 {
            let file = std::fs::File::options().write(true).open(&shard).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }
    };
    let tracing = Tracing { progress: &cut, ..Tracing::unbounded() };
    let error = trace_readings(&checkpoint, &runs[..1], &readings, &tracing).unwrap_err().to_string();
    assert!(error.contains("model.layers.1.") && error.contains(".safetensors"), "{error}");
}
