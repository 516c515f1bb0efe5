//! Reading a checkpoint directory.

use crate::{Config, Digest, Location, OpenError, Tensors};
use std::ops::Deref;
use std::path::{Path, PathBuf};

/// An opened checkpoint: tensors, and the config that says what they mean. Opening reads headers only.
///
/// Dereferences to its [`Tensors`].
pub struct Checkpoint {
    dir: PathBuf,
    adapter: Option<PathBuf>,
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
    /// Opens and validates a directory, or what else [`Location::of`] knows: `BASE+ADAPTER`.
    ///
    /// # Errors
    /// If it is not a checkpoint, or anything in it contradicts itself.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, OpenError> {
        let location = Location::of(dir.as_ref())?;
        let dir = &location.dir;
        if !dir.exists() {
            return Err(OpenError::Missing(dir.clone()));
        }
        if !dir.is_dir() {
            return Err(OpenError::NotADirectory(dir.clone()));
        }
        if !dir.join("config.json").exists() {
            return Err(OpenError::NoFile { dir: dir.clone(), file: "config.json" });
        }
        let mut config = Config::read(dir)?;
        let tensors = location.tensors(config.json_mut())?;
        let Location { dir, adapter } = location;
        Ok(Self { dir, adapter, config, tensors })
    }

    /// Its directory; with an adapter, the base's.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
    /// The adapter's directory, where it is applied.
    #[must_use]
    pub fn adapter(&self) -> Option<&Path> {
        self.adapter.as_deref()
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
        let paths = paths.chain(self.adapter.iter().map(|dir| dir.join("adapter_config.json")));
        for path in paths.filter(|p| p.exists()) {
            let digest = Digest::of_file(&path).map_err(|source| OpenError::Read { path: path.clone(), source })?;
            parts.push((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), digest));
        }
        Ok(Digest::of_parts(parts.iter().map(|(name, digest)| (name.as_str(), digest.as_str().as_bytes()))))
    }
}
