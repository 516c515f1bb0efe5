//! Checkpoints in the form that mistral.rs 0.8.1 takes, and what it cannot do.

use rolegraft_checkpoint::{Architecture, Checkpoint, Family, Scaling};
use rolegraft_files::temporary_folder;
use serde_json::{Value, json};
use std::io;
use std::path::Path;
use tempfile::TempDir;

/// What of an architecture mistral.rs 0.8.1 does not do, or does otherwise than transformers, on the CPU or on a card; nothing,
/// if it plays it right.
#[must_use]
pub fn lacks(architecture: &Architecture, on_cpu: bool) -> Option<String> {
    let a = architecture;
    // mistralrs-core 0.8.1, src/layers.rs:2259: a build for CUDA asks for its kernel without asking where the tensors are.
    if cfg!(feature = "cuda") && on_cpu && a.num_attention_heads == a.num_key_value_heads {
        return Some("as many key and value heads as query heads on the CPU in a build for CUDA".into());
    }
    if a.windows.iter().any(Option::is_some) {
        return Some("sliding windows".into());
    }
    if !matches!(
        (a.family, a.rope.scaling),
        (_, Scaling::Default) | (Family::Llama, Scaling::Llama3 { .. } | Scaling::Linear { .. })
    ) {
        let kind = match a.rope.scaling {
            Scaling::Default => "default",
            Scaling::Linear { .. } => "linear",
            Scaling::Llama3 { .. } => "llama3",
            Scaling::Yarn { .. } => "yarn",
        };
        return Some(format!("{kind} rotary embeddings of {}", a.family.as_str()));
    }
    if a.biases.output || a.biases.mlp || a.biases.qkv != (a.family == Family::Qwen2) {
        return Some(format!("biases of {}", a.family.as_str()));
    }
    let plain = a.hidden_size / a.num_attention_heads;
    if matches!(a.family, Family::Llama | Family::Qwen2) && a.head_dim != plain {
        return Some(format!("heads of {}, where the width has {plain} for each,", a.head_dim));
    }
    None
}

/// The config that mistral.rs 0.8.1 reads: fields as transformers 4 wrote them.
fn config(a: &Architecture) -> Value {
    let class = match a.family {
        Family::Qwen3 => "Qwen3ForCausalLM",
        Family::Qwen2 => "Qwen2ForCausalLM",
        Family::Llama => "LlamaForCausalLM",
        Family::Mistral => "MistralForCausalLM",
    };
    let scaling = match a.rope.scaling {
        Scaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
        Scaling::Llama3 { factor, low, high, original } => json!({
            "rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
            "original_max_position_embeddings": original as usize,
        }),
        Scaling::Default | Scaling::Yarn { .. } => Value::Null,
    };
    json!({
        "architectures": [class],
        "model_type": a.family.as_str(),
        "hidden_size": a.hidden_size,
        "intermediate_size": a.intermediate_size,
        "num_hidden_layers": a.num_hidden_layers,
        "num_attention_heads": a.num_attention_heads,
        "num_key_value_heads": a.num_key_value_heads,
        "head_dim": a.head_dim,
        "vocab_size": a.vocab_size,
        "hidden_act": "silu",
        "rms_norm_eps": a.rms_norm_eps,
        "rope_theta": a.rope.theta,
        "rope_scaling": scaling,
        "max_position_embeddings": a.max_position_embeddings,
        "tie_word_embeddings": a.tie_word_embeddings,
        "sliding_window": null,
        "use_sliding_window": false,
        "max_window_layers": a.num_hidden_layers,
    })
}

/// Files beside the shards that mistral.rs reads.
const BESIDE: [&str; 6] = [
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
];

/// A folder of links to a checkpoint's files, with a config that mistral.rs takes. It goes when it is dropped.
pub(crate) fn normalised(checkpoint: &Checkpoint, architecture: &Architecture) -> io::Result<TempDir> {
    let folder = temporary_folder("rolegraft-form-")?;
    let link = |path: &Path| {
        let name = path.file_name().unwrap_or_default();
        std::os::unix::fs::symlink(std::path::absolute(path)?, folder.path().join(name))
    };
    for path in checkpoint.files() {
        link(path)?;
    }
    for path in BESIDE.map(|name| checkpoint.dir().join(name)).iter().filter(|path| path.exists()) {
        link(path)?;
    }
    std::fs::write(folder.path().join("config.json"), config(architecture).to_string())?;
    Ok(folder)
}
