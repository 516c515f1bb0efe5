//! `config.json` as it stands.

use serde_json::Value;
use std::path::{Path, PathBuf};

/// Why `config.json` cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum ConfigError {
    #[error("cannot read `{}`", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("`{}` is not valid JSON", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("`{}` holds no JSON object", path.display())]
    Object { path: PathBuf },
}

/// Why a checkpoint's tensors cannot be given a meaning.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum ArchitectureError {
    #[error("`{}` is a `{found}` model, which can be merged, but neither traced nor played in process; known: qwen3, qwen2, llama, mistral", path.display())]
    Unknown { path: PathBuf, found: String },
    #[error("`{}` has no usable `{field}`", path.display())]
    Field { path: PathBuf, field: String },
    #[error("`{}`: {what}", path.display())]
    Inconsistent { path: PathBuf, what: String },
    #[error("`{}`: {what}, which is not implemented; the checkpoint can be merged, but neither traced nor played in process", path.display())]
    NotImplemented { path: PathBuf, what: String },
    #[error("`{}` is quantised ({how}); take the weights that it was made from, or dequantise them first", path.display())]
    Quantised { path: PathBuf, how: String },
    #[error("`{}` says {says}, but tensor `{tensor}` {is}", path.display())]
    Contradiction { path: PathBuf, says: String, tensor: String, is: String },
}

/// A checkpoint's `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    path: PathBuf,
    json: Value,
}

impl Config {
    /// Reads `DIR/config.json`.
    ///
    /// # Errors
    /// If the file is missing or holds no JSON object.
    pub fn read(dir: &Path) -> Result<Self, ConfigError> {
        let path = dir.join("config.json");
        let bytes = std::fs::read(&path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        let json: Value =
            serde_json::from_slice(&bytes).map_err(|source| ConfigError::Json { path: path.clone(), source })?;
        if json.is_object() { Ok(Self { path, json }) } else { Err(ConfigError::Object { path }) }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it holds: an object.
    #[must_use]
    pub fn json(&self) -> &Value {
        &self.json
    }

    /// Its `model_type`, or nothing.
    #[must_use]
    pub fn model_type(&self) -> &str {
        self.json["model_type"].as_str().unwrap_or_default()
    }

    pub(crate) fn json_mut(&mut self) -> &mut Value {
        &mut self.json
    }

    /// Refuses quantised weights: their numbers are not what the tensors hold.
    ///
    /// # Errors
    /// [`ArchitectureError::Quantised`].
    pub fn unquantised(&self) -> Result<(), ArchitectureError> {
        let quantised = &self.json["quantization_config"];
        if quantised.is_null() {
            return Ok(());
        }
        let method = quantised["quant_method"].as_str().unwrap_or("by no known method");
        let how = format!("`quantization_config` says {method}");
        Err(ArchitectureError::Quantised { path: self.path.clone(), how })
    }
}
