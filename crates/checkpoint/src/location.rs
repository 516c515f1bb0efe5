//! What a path to a checkpoint means: a directory, a base with an adapter, or an adapter alone.

use crate::adapter::{CONFIG, HEAD, Rules};
use crate::open_error::OpenError;
use crate::tensors::Tensors;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Where a checkpoint lies: its directory, and that of an adapter to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The directory with `config.json`.
    pub dir: PathBuf,
    /// The directory with `adapter_config.json`.
    pub adapter: Option<PathBuf>,
}

impl Location {
    /// What a path means: a directory, `BASE+ADAPTER`, or an adapter's directory whose config names a base that is here.
    ///
    /// # Errors
    /// If it is an adapter whose base is not here.
    pub fn of(path: &Path) -> Result<Self, OpenError> {
        let plain = || Self { dir: path.to_owned(), adapter: None };
        if path.join(CONFIG).exists() && !path.join("config.json").exists() {
            let rules = Rules::read(path)?;
            let named = rules.base_model_name_or_path.unwrap_or_default();
            let found = [PathBuf::from(&named), path.join(&named)].into_iter().find(|p| p.join("config.json").exists());
            let absent = || OpenError::Adapter {
                path: path.join(CONFIG),
                reason: format!("names the base `{named}`, which is not here; give BASE+{}", path.display()),
            };
            return Ok(Self {
                dir: found.filter(|_| !named.is_empty()).ok_or_else(absent)?,
                adapter: Some(path.to_owned()),
            });
        }
        if path.exists() {
            return Ok(plain());
        }
        Ok(Self::parted(Path::new(""), path).unwrap_or_else(plain))
    }

    /// `BASE+ADAPTER`, parted at the first `+` with a directory on either side.
    fn parted(here: &Path, path: &Path) -> Option<Self> {
        let text = path.to_string_lossy();
        let mut parts = text.match_indices('+').map(|(at, _)| (here.join(&text[..at]), here.join(&text[at + 1..])));
        let (dir, adapter) = parts.find(|(dir, adapter)| dir.is_dir() && adapter.is_dir())?;
        Some(Self { dir, adapter: Some(adapter) })
    }

    /// A path that a file in the folder `here` says, as [`Self::of`] takes it: both sides of a `+` are relative to the folder,
    /// and an adapter alone is one to `base`, where that is known.
    #[must_use]
    pub fn relative(here: &Path, path: &Path, base: Option<&Path>) -> PathBuf {
        let joined = here.join(path);
        let alone = joined.join(CONFIG).exists() && !joined.join("config.json").exists();
        match base {
            Some(base) if alone => return Self { dir: base.to_owned(), adapter: Some(joined) }.path(),
            _ if joined.exists() => return joined,
            _ => {}
        }
        Self::parted(here, path).map_or(joined, |location| location.path())
    }

    /// Its tensors, with the adapter applied. `config`, that of the base, is made to say it where a tied head has parted.
    ///
    /// # Errors
    /// If a file contradicts itself, or the adapter cannot be merged into the base.
    pub fn tensors(&self, config: &mut Value) -> Result<Tensors, OpenError> {
        let tensors = Tensors::open(&self.dir)?;
        let Some(adapter) = &self.adapter else { return Ok(tensors) };
        if !config["quantization_config"].is_null() {
            let reason = "says that the weights are quantised; an adapter cannot be merged into them".to_owned();
            return Err(OpenError::Adapter { path: self.dir.join("config.json"), reason });
        }
        let had_head = tensors.tensor(HEAD).is_some();
        let adapted = tensors.adapted(adapter)?;
        if !had_head && adapted.tensor(HEAD).is_some() {
            config["tie_word_embeddings"] = false.into();
        }
        Ok(adapted)
    }

    /// As [`Self::of`] takes it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        let Some(adapter) = &self.adapter else { return self.dir.clone() };
        let mut path = self.dir.clone().into_os_string();
        path.push("+");
        path.push(adapter);
        path.into()
    }
}

/// Opens the tensors of a safetensors file, a directory, or what else [`Location::of`] knows: `BASE+ADAPTER`.
///
/// # Errors
/// As [`Tensors::open`] and [`Tensors::adapted`].
pub fn open_tensors(path: &Path) -> Result<Tensors, OpenError> {
    if path.is_file() {
        return Tensors::open(path);
    }
    let location = Location::of(path)?;
    let config = std::fs::read(location.dir.join("config.json")).ok();
    let config = config.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    location.tensors(&mut config.unwrap_or_default())
}
