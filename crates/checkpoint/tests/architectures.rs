//! What configs say, and what is refused by name.
#![allow(missing_docs)]

use rolegraft_checkpoint::{Architecture, Checkpoint, Config, Dtype, Scaling, Writer};
use serde_json::{Value, json};

fn config(changes: &Value) -> Value {
    let mut config = json!({"model_type": "llama", "hidden_size": 8, "intermediate_size": 6, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 10, "max_position_embeddings": 64});
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    config
}

fn read(changes: Value) -> Result<Architecture, String> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), config(&changes).to_string()).unwrap();
    Architecture::read(&Config::read(dir.path()).unwrap()).map_err(|e| e.to_string())
}

#[test]
fn both_forms_of_configs_say_the_same() {
    let new = json!({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5}});
    let old = json!({"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}});
    assert_eq!(read(new).unwrap(), read(old).unwrap());
    // What transformers 4 wrote wins, and only a whole table counts.
    let both =
        read(json!({"rope_scaling": {"rope_type": "linear", "factor": 4.0}, "rope_parameters": {"rope_theta": 7.0}}));
    let rope = both.unwrap().rope;
    assert_eq!((rope.theta, rope.scaling), (10_000.0, Scaling::Linear { factor: 4.0 }));
    let qwen = |more: Value| {
        let mut changes = json!({"model_type": "qwen2", "sliding_window": 16});
        changes.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        read(changes).unwrap().windows
    };
    assert_eq!(qwen(json!({})), [None, None]);
    assert_eq!(qwen(json!({"use_sliding_window": true, "max_window_layers": 1})), [None, Some(16)]);
    let types = json!({"use_sliding_window": true, "max_window_layers": 1, "layer_types": ["sliding_attention", "full_attention"]});
    assert_eq!(qwen(types), [Some(16), None]);
    assert_eq!(read(json!({"model_type": "mistral", "sliding_window": 16})).unwrap().windows, [Some(16); 2]);
    assert_eq!(read(json!({"model_type": "mistral"})).unwrap().windows, [None; 2], "4,096 is beyond all positions");
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    for (changes, expected) in [
        (json!({"model_type": "gemma3"}), "`gemma3`"),
        (json!({"hidden_act": "gelu"}), "`gelu`"),
        (json!({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}), "`longrope`"),
        (json!({"rope_scaling": {"rope_type": "linear"}}), "`rope_scaling.factor`"),
        (json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor"),
        (json!({"rope_parameters": {"full_attention": {"rope_type": "default"}}}), "kinds of layers"),
        (json!({"quantization_config": {"quant_method": "fp8"}}), "quantised (`quantization_config` says fp8)"),
        (json!({"num_key_value_heads": 3}), "evenly"),
        (json!({"vocab_size": 0}), "`vocab_size`"),
        (json!({"model_type": "qwen2", "layer_types": ["full_attention"]}), "1 entries"),
        (json!({"model_type": "qwen2", "layer_types": ["full_attention", "chunked_attention"]}), "`chunked_attention`"),
        (
            json!({"model_type": "qwen2", "layer_types": ["full_attention", "sliding_attention"]}),
            "`use_sliding_window`",
        ),
    ] {
        let error = read(changes.clone()).unwrap_err();
        assert!(error.contains(expected) && error.contains("config.json"), "{changes}: {error}");
    }
}

#[test]
fn configs_and_tensors_are_held_against_each_other() {
    let opened = |changes: Value, leave: &str, extra: Option<&str>| {
        let dir = tempfile::tempdir().unwrap();
        let like = dir.path().join("like");
        std::fs::create_dir_all(&like).unwrap();
        std::fs::write(like.join("config.json"), config(&changes).to_string()).unwrap();
        let mut plan =
            vec![("model.embed_tokens.weight".to_owned(), vec![10, 8]), ("lm_head.weight".to_owned(), vec![10, 8])];
        for layer in 0..2 {
            for (name, shape) in [
                ("input_layernorm.weight", vec![8]),
                ("post_attention_layernorm.weight", vec![8]),
                ("self_attn.q_proj.weight", vec![8, 8]),
                ("self_attn.k_proj.weight", vec![4, 8]),
                ("self_attn.v_proj.weight", vec![4, 8]),
                ("self_attn.o_proj.weight", vec![8, 8]),
                ("mlp.gate_proj.weight", vec![6, 8]),
                ("mlp.up_proj.weight", vec![6, 8]),
                ("mlp.down_proj.weight", vec![8, 6]),
            ] {
                plan.push((format!("model.layers.{layer}.{name}"), shape));
            }
        }
        plan.push(("model.norm.weight".to_owned(), vec![8]));
        plan.extend(extra.map(|name| (name.to_owned(), vec![6])));
        let plan: Vec<_> =
            plan.into_iter().filter(|(name, _)| name != leave).map(|(name, shape)| (name, Dtype::F32, shape)).collect();
        let mut writer = Writer::create(&dir.path().join("m"), &plan, 1 << 20).unwrap();
        for (name, _, shape) in &plan {
            writer.write(name, &vec![0; 4 * shape.iter().product::<usize>()]).unwrap();
        }
        writer.finish(&like, &[]).unwrap();
        Architecture::of(&Checkpoint::open(dir.path().join("m")).unwrap()).map_err(|e| e.to_string())
    };
    let whole = opened(json!({}), "", None).unwrap();
    assert_eq!(whole.parameters(), 2 * (16 + 2 * 64 + 2 * 32 + 3 * 48) + 2 * 80 + 8);
    for (changes, leave, extra, expected) in [
        (json!({"num_attention_heads": 4}), "", None, "k_proj.weight` has shape [4, 8]"),
        (json!({"vocab_size": 11}), "", None, "embed_tokens.weight` has shape [10, 8]"),
        (json!({"intermediate_size": 7}), "", None, "gate_proj.weight` has shape [6, 8]"),
        (json!({"num_hidden_layers": 1}), "", None, "of a further layer"),
        (json!({}), "lm_head.weight", None, "lm_head.weight` is missing"),
        (json!({}), "model.layers.1.mlp.up_proj.weight", None, "up_proj.weight` is missing"),
        (json!({}), "", Some("model.layers.0.mlp.up_proj.bias"), "no bias"),
        (json!({"mlp_bias": true}), "", None, "mlp_bias"),
    ] {
        let error = opened(changes.clone(), leave, extra).unwrap_err();
        assert!(error.contains(expected) && error.contains("config.json"), "{changes}: {error}");
    }
}
