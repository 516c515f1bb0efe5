//! Reading a checkpoint directory.

use crate::{Config, Digest, OpenError, Tensors};
use std::ops::Deref;
use std::path::{Path, PathBuf};

/// An opened checkpoint: tensors, and the config that says what they mean. Opening reads headers only.
///
/// Dereferences to its [`Tensors`].
pub struct Checkpoint {
    dir: PathBuf,
    config: Config,
    tensors: Tensors,
}

impl Deref for Checkpoint {
    type Target = Tensors;
    fn deref(&self) -> &Tensors {
        &self.tensors
    }
}

impl Checkpoint {
    /// Opens and validates a directory.
    ///
    /// # Errors
    /// If it is not a checkpoint, or anything in it contradicts itself.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, OpenError> {
        let dir = dir.as_ref().to_owned();
        if !dir.exists() {
            return Err(OpenError::Missing(dir));
        }
        if !dir.is_dir() {
            return Err(OpenError::NotADirectory(dir));
        }
        if !dir.join("config.json").exists() {
            return Err(OpenError::NoFile { dir, file: "config.json" });
        }
        let config = Config::read(&dir)?;
        let tensors = Tensors::open(&dir)?;
        Ok(Self { dir, config, tensors })
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
    /// Its `config.json`.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Digest over the shards, config and tokenizer: changes when any byte that a model's behaviour hangs on changes.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn digest(&self) -> Result<Digest, OpenError> {
        let mut parts = Vec::new();
        let extra =
            ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"];
        let paths = self.tensors.files().map(Path::to_owned).chain(extra.iter().map(|f| self.dir.join(f)));
        for path in paths.filter(|p| p.exists()) {
            let digest = Digest::of_file(&path).map_err(|source| OpenError::Read { path: path.clone(), source })?;
            parts.push((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), digest));
        }
        Ok(Digest::of_parts(parts.iter().map(|(name, digest)| (name.as_str(), digest.as_str().as_bytes()))))
    }
}
