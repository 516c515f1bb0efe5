//! LoRA adapters by hand: merged, as experts of recipes and pools, compared, and refused with file, tensor and mend.

use rolegraft_checkpoint::{Checkpoint, Dtype, Header, Tensors, open_tensors};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

use crate::miniature::{miniature, rolegraft, root, run, sandbox_missing, text};

const PREFIX: &str = "base_model.model.model.layers";

/// An adapter directory with a config and tensors of F32.
fn adapter(dir: &Path, config: &Value, tensors: &[(String, Vec<usize>, Vec<f32>)]) -> PathBuf {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join("adapter_config.json"), config.to_string()).unwrap();
    let layout: Vec<_> = tensors.iter().map(|(name, shape, _)| (name.clone(), Dtype::F32, shape.clone())).collect();
    let mut bytes = Header::encode_with(&layout, &[("format".to_owned(), "pt".to_owned())].into());
    bytes.extend(tensors.iter().flat_map(|(.., values)| values).flat_map(|value| value.to_le_bytes()));
    std::fs::write(dir.join("adapter_model.safetensors"), bytes).unwrap();
    dir.to_owned()
}

fn config() -> Value {
    json!({"peft_type": "LORA", "r": 2, "lora_alpha": 6, "base_model_name_or_path": "base", "target_modules": ["q_proj"]})
}

/// A and B of a map of a layer, of a rank of 2.
fn pair(layer: usize, map: &str, inputs: usize, outputs: usize) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let values = |count: usize, seed: usize| (0..count).map(|i| ((i * 7 + seed) % 11) as f32 / 40.0 - 0.1).collect();
    let name = |part: &str| format!("{PREFIX}.{layer}.{map}.{part}.weight");
    vec![
        (name("lora_A"), vec![2, inputs], values(2 * inputs, layer)),
        (name("lora_B"), vec![outputs, 2], values(outputs * 2, 3)),
    ]
}

fn pool() -> PathBuf {
    root().join("benchmarks/nano-pool")
}

/// Width of the pool's models and of its queries.
fn widths() -> (usize, usize) {
    let base = Tensors::open(pool().join("base")).unwrap();
    let shape = base.tensor("model.layers.0.self_attn.q_proj.weight").unwrap().shape;
    (shape[1], shape[0])
}

fn done(arguments: &[&str]) -> String {
    let output = rolegraft(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    text(&output)
}

#[test]
fn an_adapter_is_a_checkpoint_wherever_one_may_stand() {
    let dir = tempfile::tempdir().unwrap();
    let (inputs, outputs) = widths();
    let tensors = [pair(0, "self_attn.q_proj", inputs, outputs), pair(2, "self_attn.q_proj", inputs, outputs)].concat();
    let base = pool().join("base");
    let adapter = adapter(&dir.path().join("adapter"), &config(), &tensors);
    let (base_text, adapter_text) = (base.display().to_string(), adapter.display().to_string());
    let out = |name: &str| dir.path().join(name).display().to_string();

    done(&["merge", "--adapter", &adapter_text, "--base", &base_text, "--dtype", "float32", "--out", &out("whole")]);
    let (merged, plain) = (Tensors::open(out("whole")).unwrap(), Tensors::open(&base).unwrap());
    for (name, tensor) in plain.tensors() {
        let (ours, theirs) = (merged.f32(name).unwrap(), plain.f32(name).unwrap());
        let layer = tensors.chunks(2).find(|pair| pair[0].0.contains(name.trim_end_matches(".weight")));
        let Some([(.., a), (.., b)]) = layer else {
            assert_eq!(ours, theirs, "{name}");
            continue;
        };
        for (at, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
            let (row, column) = (at / tensor.shape[1], at % tensor.shape[1]);
            let added: f32 = (0..2).map(|k| b[row * 2 + k] * a[k * inputs + column]).sum::<f32>() * 3.0;
            assert!((ours - theirs - added).abs() < 1e-6, "{name} {at}");
        }
    }

    // Unasked, it has the base's dtype; `diff` and `inspect` know the pair by a `+`.
    done(&["merge", "--adapter", &adapter_text, "--base", &base_text, "--out", &out("half")]);
    let dtype =
        |path: &str| Tensors::open(path).unwrap().tensor("model.layers.0.self_attn.q_proj.weight").unwrap().dtype;
    assert_eq!((dtype(&out("half")), dtype(&out("whole"))), (plain.tensors().next().unwrap().1.dtype, Dtype::F32));
    let both = format!("{base_text}+{adapter_text}");
    let said = done(&["diff", &both, &out("whole")]);
    assert!(said.contains("0 of"), "{said}");
    assert!(done(&["inspect", &both, "--base", &base_text]).contains("base+adapter"));

    // In a recipe it is an expert; what comes of it is what comes of the merged one.
    for (name, model) in [("by-adapter", both.clone()), ("by-copy", out("whole"))] {
        let recipe = dir.path().join(format!("{name}.yaml"));
        let other = pool().join("tau").display().to_string();
        let models =
            json!([{"model": model, "parameters": {"weight": 0.3}}, {"model": other, "parameters": {"weight": 0.7}}]);
        let text = json!({"merge_method": "linear", "models": models, "dtype": "float32"}).to_string();
        std::fs::write(&recipe, text).unwrap();
        done(&["merge", recipe.to_str().unwrap(), "--out", &out(name)]);
    }
    let read = |name: &str| std::fs::read(dir.path().join(name).join("model.safetensors")).unwrap();
    assert!(read("by-adapter") == read("by-copy"));
    let card = std::fs::read_to_string(dir.path().join("by-adapter/README.md")).unwrap();
    assert!(card.contains("base+adapter") && !card.contains(&base_text), "{card}");
}

#[test]
fn what_a_checkpoint_changed_becomes_an_adapter() {
    let dir = tempfile::tempdir().unwrap();
    let (base, tuned) = (pool().join("base").display().to_string(), pool().join("tau").display().to_string());
    let out = |name: &str| dir.path().join(name).display().to_string();
    let extract = |rank: &str, name: &str| -> Value {
        let arguments = ["extract-lora", &tuned, "--base", &base, "--rank", rank, "--out", &out(name), "--json"];
        serde_json::from_slice(&rolegraft(&arguments).output().unwrap().stdout).unwrap()
    };
    let errors = |found: &Value| -> Vec<f64> {
        found["tensors"].as_array().unwrap().iter().map(|t| t["error"].as_f64().unwrap()).collect()
    };
    let (few, most) = (errors(&extract("4", "few")), errors(&extract("999", "most")));
    assert!(few.iter().zip(&most).all(|(few, most)| few >= most) && few.iter().any(|error| *error > 0.05));
    assert!(most.iter().all(|error| *error < 1e-6));
    // All of its rank, it is the checkpoint again.
    let (again, whole) =
        (open_tensors(Path::new(&format!("{base}+{}", out("most")))).unwrap(), Tensors::open(&tuned).unwrap());
    for (name, _) in whole.tensors() {
        let (a, b) = (again.f32(name).unwrap(), whole.f32(name).unwrap());
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5), "{name}");
    }
    let said = rolegraft(&["extract-lora", &base, "--base", &base, "--out", &out("none")]).output().unwrap();
    assert!(text(&said).contains("nothing to extract") && !Path::new(&out("none")).exists(), "{}", text(&said));
    let said = rolegraft(&["extract-lora", &tuned, "--base", &base, "--out", &out("most")]).output().unwrap();
    assert!(text(&said).contains("there already"), "{}", text(&said));
}

#[test]
fn an_adapter_is_an_expert_of_a_pool() {
    if sandbox_missing() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (inputs, outputs) = widths();
    adapter(&dir.path().join("adapter"), &config(), &pair(1, "self_attn.q_proj", inputs, outputs));
    let change = |file: String| {
        let line = file.lines().find(|line| line.starts_with("office = ")).unwrap().to_owned();
        file.replace(&line, "office = \"adapter\"")
    };
    let output = run(&miniature(dir.path(), change), &dir.path().join("results"));
    assert!(output.status.success(), "{}", text(&output));
    let said = text(&output);
    assert!(said.contains("`office` is an adapter: its base with it is written once"), "{said}");
    let cache = std::fs::read_dir(dir.path().join("results/cache")).unwrap().map(|entry| entry.unwrap().path());
    let adapted = cache.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("adapted-"));
    assert_eq!(adapted.filter(|path| Checkpoint::open(path).is_ok()).count(), 1);
}

#[test]
fn a_run_refuses_an_expert_whose_turns_would_not_end() {
    if sandbox_missing() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (from, copy) = (pool().join("office"), dir.path().join("office"));
    std::fs::create_dir_all(&copy).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    std::fs::write(copy.join("generation_config.json"), "{\"eos_token_id\": [7]}").unwrap();
    let change = |file: String| {
        let line = file.lines().find(|line| line.starts_with("office = ")).unwrap().to_owned();
        file.replace(&line, "office = \"office\"")
    };
    let output = run(&miniature(dir.path(), change), &dir.path().join("results"));
    let said = text(&output);
    assert!(!output.status.success() && said.contains("`office` ends its turns with token ids [7]"), "{said}");
}

#[test]
fn what_cannot_be_merged_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (inputs, outputs) = widths();
    let base = pool().join("base").display().to_string();
    let good = pair(0, "self_attn.q_proj", inputs, outputs);
    let refused = |config: &Value, tensors: &[(String, Vec<usize>, Vec<f32>)], parts: &[&str]| {
        let adapter = adapter(&dir.path().join("adapter"), config, tensors).display().to_string();
        let out = dir.path().join("out");
        let arguments = ["merge", "--adapter", &adapter, "--base", &base, "--out", out.to_str().unwrap()];
        let output = rolegraft(&arguments).output().unwrap();
        let said = text(&output);
        assert!(!output.status.success() && parts.iter().all(|part| said.contains(part)), "{parts:?}: {said}");
        assert!(!out.exists());
    };
    let with = |key: &str, value: Value| {
        let mut config = config();
        config[key] = value;
        config
    };
    refused(&with("r", Value::Null), &good, &["adapter_config.json", "`r` is missing"]);
    refused(&with("peft_type", json!("IA3")), &good, &["IA3", "LORA can be merged"]);
    refused(&with("peft_type", json!("XLORA")), &good, &["XLORA"]);
    refused(&with("alora_invocation_tokens", json!([1])), &good, &["aLoRA"]);
    refused(&with("init_lora_weights", json!("pissa_niter_4")), &good, &["pissa_niter_4", "path_initial_model"]);
    refused(&with("use_dora", json!(true)), &good, &["`use_dora`", "lora_magnitude_vector"]);
    refused(&with("r", json!(8)), &good, &["rank 2", "says 8"]);
    refused(&with("rank_pattern", json!({"q_proj": 5})), &good, &["rank 2", "says 5"]);
    refused(&with("rank_pattern", json!({"(q": 5})), &good, &["pattern `(q`"]);
    refused(&config(), &good[..1], &["lora_A", "without its `lora_B`"]);
    let other = pair(0, "self_attn.q_proj", inputs + 8, outputs);
    refused(&config(), &other, &["q_proj.lora_A.weight", "q_proj.weight", "adapter for another base"]);
    refused(&config(), &pair(77, "self_attn.q_proj", inputs, outputs), &["layers.77.", "adapter for another base"]);
    refused(&config(), &[("base_model.model.x.lora_E".into(), vec![1], vec![1.0])], &["lora_E", "nothing of LoRA's"]);
    let nan = vec![(good[0].0.clone(), good[0].1.clone(), vec![f32::NAN; 2 * inputs]), good[1].clone()];
    refused(&config(), &nan, &["NaN or infinite"]);
    std::fs::remove_file(dir.path().join("adapter/adapter_model.safetensors")).unwrap();
    std::fs::write(dir.path().join("adapter/adapter_model.bin"), b"pickle").unwrap();
    let adapter = dir.path().join("adapter").display().to_string();
    let said = text(&rolegraft(&["merge", "--adapter", &adapter, "--base", &base, "--out", "out"]).output().unwrap());
    assert!(said.contains("is no zip archive of `torch.save`"), "{said}");
}
