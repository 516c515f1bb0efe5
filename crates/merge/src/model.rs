//! A checkpoint as a merge sees it: where it is found, and what its tensors' names mean.

use crate::MergeError;
use rolegraft_checkpoint::{Fingerprints, Location, Tensors};
use std::path::{Path, PathBuf};

/// A checkpoint among the inputs.
pub struct Model {
    /// What the recipe calls it.
    pub name: String,
    /// Its directory; with an adapter, the base's.
    pub dir: PathBuf,
    /// The directory of a LoRA adapter that is applied to it.
    pub adapter: Option<PathBuf>,
    /// Its tensors.
    pub tensors: Tensors,
    /// Its `config.json`.
    pub config: serde_json::Value,
    pub(crate) fingerprints: Fingerprints,
}

/// Opens a model by the name that a recipe gives it: a directory, relative to `folders` in turn, or a name in the Hugging
/// Face cache, perhaps with `@revision`; and perhaps with `+` and another such name, of a LoRA adapter.
pub(crate) fn open_model(name: &str, folders: &[&Path]) -> Result<Model, MergeError> {
    let find = |name: &str| folders.iter().map(|f| f.join(name)).find(|p| p.is_dir()).or_else(|| cached(name));
    let of = |source| MergeError::Model { model: name.to_owned(), source };
    if let Some(dir) = find(name) {
        return Model::at(name, Location::of(&dir).map_err(of)?);
    }
    let absent = |name: &str| {
        let plain = name.split('@').next().unwrap_or(name);
        let hint = if plain.matches('/').count() == 1 && !plain.starts_with(['.', '/']) {
            format!("; nothing is downloaded by a merge: fetch it with `hf download {plain}`")
        } else {
            String::new()
        };
        MergeError::Recipe(format!("model `{name}` is neither a directory nor in the Hugging Face cache{hint}"))
    };
    let parts = name.match_indices('+').map(|(at, _)| (&name[..at], &name[at + 1..]));
    let parts: Vec<(&str, &str)> = parts.filter(|(base, adapter)| !base.is_empty() && !adapter.is_empty()).collect();
    let found = parts.iter().find_map(|(base, adapter)| Some((find(base)?, find(adapter)?)));
    match (found, parts.first()) {
        (Some((dir, adapter)), _) => Model::at(name, Location { dir, adapter: Some(adapter) }),
        (None, Some((base, adapter))) => Err(absent(if find(base).is_none() { base } else { adapter })),
        (None, None) => Err(absent(name)),
    }
}

/// A snapshot in the Hugging Face cache.
fn cached(name: &str) -> Option<PathBuf> {
    let (repository, revision) = name.split_once('@').unwrap_or((name, "main"));
    let hub = std::env::var_os("HF_HUB_CACHE").map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("HF_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/huggingface")));
        home.map(|h| h.join("hub"))
    })?;
    if repository.starts_with(['.', '/']) || repository.contains("..") || revision.contains("..") {
        return None;
    }
    let dir = hub.join(format!("models--{}", repository.replace('/', "--")));
    let commit = std::fs::read_to_string(dir.join("refs").join(revision)).ok();
    let commit = commit.as_deref().map_or(revision, str::trim);
    Some(dir.join("snapshots").join(commit)).filter(|p| p.is_dir())
}

/// Layer number of a tensor's name, with what stands before and after it.
pub(crate) fn layer_of(name: &str) -> Option<(&str, usize, &str)> {
    let mut at = 0;
    for part in name.split('.') {
        let (start, end) = (at, at + part.len());
        at = end + 1;
        if start > 0 && end < name.len() && !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) {
            return Some((&name[..start], part.parse().ok()?, &name[end..]));
        }
    }
    None
}

/// Whether a tensor has a row per token.
pub(crate) fn is_vocabulary(name: &str) -> bool {
    [
        "embed_tokens.weight",
        "lm_head.weight",
        "lm_head.bias",
        "wte.weight",
        "word_embeddings.weight",
        "embed_out.weight",
    ]
    .iter()
    .any(|end| name.ends_with(end))
}

/// Whether a tensor comes before the layers.
pub(crate) fn comes_first(name: &str) -> bool {
    ["embed", "wte", "wpe"].iter().any(|part| name.contains(part))
}

pub(crate) const HEAD: &str = "lm_head.weight";

impl Model {
    /// Opens a checkpoint directory, or what else [`Location::of`] knows, under the name that a recipe gives it.
    ///
    /// # Errors
    /// If it is not a checkpoint.
    pub fn open(name: &str, dir: &Path) -> Result<Self, MergeError> {
        let of = |source| MergeError::Model { model: name.to_owned(), source };
        Self::at(name, Location::of(dir).map_err(of)?)
    }

    fn at(name: &str, location: Location) -> Result<Self, MergeError> {
        let of = |source| MergeError::Model { model: name.to_owned(), source };
        let path = location.dir.join("config.json");
        let bytes = std::fs::read(&path).map_err(|source| MergeError::Read { path: path.clone(), source })?;
        let mut config: serde_json::Value = serde_json::from_slice(&bytes)
            .map_err(|e| MergeError::File { path: path.clone(), reason: format!("is not valid JSON: {e}") })?;
        if !config.is_object() {
            return Err(MergeError::File { path, reason: "is not an object".into() });
        }
        let tensors = location.tensors(&mut config).map_err(of)?;
        let fingerprints = Fingerprints::new(&tensors);
        let Location { dir, adapter } = location;
        Ok(Self { name: name.to_owned(), dir, adapter, tensors, config, fingerprints })
    }

    /// Tensors without a directory of their own, with the config that describes them.
    #[must_use]
    pub fn of_tensors(name: &str, tensors: Tensors, config: serde_json::Value) -> Self {
        let (dir, fingerprints) = (tensors.path().to_owned(), Fingerprints::new(&tensors));
        Self { name: name.to_owned(), dir, adapter: None, tensors, config, fingerprints }
    }

    /// Where it lies.
    #[must_use]
    pub fn location(&self) -> Location {
        Location { dir: self.dir.clone(), adapter: self.adapter.clone() }
    }

    /// Whether it lies in the Hugging Face cache, so that its name means something elsewhere.
    #[must_use]
    pub fn is_from_hub(&self) -> bool {
        self.dir.components().any(|c| c.as_os_str().to_string_lossy().starts_with("models--"))
    }

    /// Its name for others: that of the hub, or the directory's without its path.
    #[must_use]
    pub fn title(&self) -> String {
        if self.is_from_hub() && self.adapter.is_none() {
            return self.name.clone();
        }
        let last = |dir: &PathBuf| {
            let dir = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.clone());
            dir.file_name().map_or_else(|| self.name.clone(), |n| n.to_string_lossy().into_owned())
        };
        let adapter = self.adapter.as_ref().map_or_else(String::new, |dir| format!("+{}", last(dir)));
        format!("{}{adapter}", last(&self.dir))
    }

    pub(crate) fn layers(&self) -> usize {
        self.tensors.tensors().filter_map(|(n, _)| layer_of(n)).map(|(_, l, _)| l + 1).max().unwrap_or(0)
    }
    /// The tensor that stands for `name` here: itself, or the embedding in place of a missing head.
    pub(crate) fn stand_in(&self, name: &str) -> Option<String> {
        if self.tensors.tensor(name).is_some() {
            return Some(name.to_owned());
        }
        let embedding = || self.tensors.tensors().map(|(n, _)| n).find(|n| n.ends_with("embed_tokens.weight"));
        if name == HEAD { embedding().map(str::to_owned) } else { None }
    }
    pub(crate) fn vocabulary_height(&self) -> usize {
        let named = self.tensors.tensors().find(|(n, t)| is_vocabulary(n) && comes_first(n) && t.shape.len() == 2);
        named.map_or(0, |(_, t)| t.shape[0])
    }
}
