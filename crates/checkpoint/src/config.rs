//! `config.json`, as far as tracing and serving need it.

use serde_json::Value;
use std::path::{Path, PathBuf};

/// The architecture of a decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// `qwen3`, `qwen2` or `llama`.
    pub model_type: String,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP: neurons per layer.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Epsilon of the RMS norms.
    pub rms_norm_eps: f64,
    /// Base of the rotary angles.
    pub rope_theta: f64,
    /// Longest sequence, in tokens.
    pub max_position_embeddings: usize,
    /// Whether the output head is the embedding.
    pub tie_word_embeddings: bool,
}

/// Why `config.json` cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum ConfigError {
    #[error("cannot read `{}`", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("`{}` is not valid JSON", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("`{}` has no usable `{field}`", path.display())]
    Field { path: PathBuf, field: &'static str },
    #[error("`{}` scales its rotary embedding (`{kind}`), which the tracer does not do", path.display())]
    RopeScaling { path: PathBuf, kind: String },
}

impl ModelConfig {
    /// Reads `DIR/config.json`. `rope_theta` may stand at the top or in `rope_parameters`.
    ///
    /// # Errors
    /// If the file is missing, not JSON, or lacks a field.
    pub fn read(dir: &Path) -> Result<Self, ConfigError> {
        let path = dir.join("config.json");
        let bytes = std::fs::read(&path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        let json: Value =
            serde_json::from_slice(&bytes).map_err(|source| ConfigError::Json { path: path.clone(), source })?;
        let missing = |field| ConfigError::Field { path: path.clone(), field };
        let size = |field: &'static str| {
            json[field].as_u64().filter(|n| (1..1 << 32).contains(n)).map(|n| n as usize).ok_or_else(|| missing(field))
        };
        for key in ["rope_scaling", "rope_parameters"] {
            let kind = json[key]["rope_type"].as_str().or_else(|| json[key]["type"].as_str()).unwrap_or("default");
            if kind != "default" {
                return Err(ConfigError::RopeScaling { path, kind: kind.to_owned() });
            }
        }
        let heads = size("num_attention_heads")?;
        let hidden = size("hidden_size")?;
        let theta = json["rope_theta"].as_f64().or_else(|| json["rope_parameters"]["rope_theta"].as_f64());
        let model_type = json["model_type"].as_str().ok_or_else(|| missing("model_type"))?.to_owned();
        Ok(Self {
            rope_theta: match (theta, model_type.as_str()) {
                (Some(theta), _) => theta,
                (None, "llama") => 10_000.0,
                (None, _) => return Err(missing("rope_theta")),
            },
            model_type,
            hidden_size: hidden,
            intermediate_size: size("intermediate_size")?,
            num_hidden_layers: size("num_hidden_layers")?,
            num_attention_heads: heads,
            num_key_value_heads: size("num_key_value_heads").unwrap_or(heads),
            head_dim: size("head_dim").unwrap_or(hidden / heads),
            vocab_size: size("vocab_size")?,
            rms_norm_eps: json["rms_norm_eps"].as_f64().ok_or_else(|| missing("rms_norm_eps"))?,
            max_position_embeddings: size("max_position_embeddings")?,
            tie_word_embeddings: json["tie_word_embeddings"].as_bool().unwrap_or(false),
        })
    }
}
