//! Writing a checkpoint directory, tensor by tensor.

use crate::atomic::sync_dir;
use crate::{Dtype, Header, WriteError};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Files copied from a source checkpoint when present.
const COMPANIONS: [&str; 9] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
];

/// Streams tensors into a directory that appears under its name only when [`Writer::finish`] returns.
///
/// Tensors must come in the order of the plan; the plan decides the shards.
pub struct Writer {
    out: PathBuf,
    aside: PathBuf,
    shards: Vec<Vec<(String, Dtype, Vec<usize>)>>,
    shard: usize,
    within: usize,
    file: Option<BufWriter<File>>,
}

/// A writer that did not finish leaves nothing.
impl Drop for Writer {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.aside);
    }
}

impl Writer {
    /// Starts writing `plan` (name, dtype, shape; in order) to `out`, in shards of at most `shard_size` bytes. What a
    /// killed writer left behind is removed.
    ///
    /// # Errors
    /// If `out` exists and is not empty, or nothing can be written beside it.
    pub fn create(out: &Path, plan: &[(String, Dtype, Vec<usize>)], shard_size: u64) -> Result<Self, WriteError> {
        let name = out.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let aside = out.with_file_name(format!(".{name}.partial"));
        let fail = |source| WriteError { path: out.to_owned(), source };
        if out.read_dir().is_ok_and(|mut d| d.next().is_some()) {
            return Err(fail(std::io::Error::new(std::io::ErrorKind::AlreadyExists, "the directory is not empty")));
        }
        if aside.exists() {
            std::fs::remove_dir_all(&aside).map_err(WriteError::at(&aside))?;
        }
        std::fs::create_dir_all(&aside).map_err(WriteError::at(&aside))?;
        let mut shards: Vec<Vec<(String, Dtype, Vec<usize>)>> = vec![Vec::new()];
        let mut used = 0;
        for entry in plan {
            let bytes = entry.1.size() as u64 * entry.2.iter().product::<usize>() as u64;
            if used > 0 && used + bytes > shard_size {
                shards.push(Vec::new());
                used = 0;
            }
            used += bytes;
            if let Some(last) = shards.last_mut() {
                last.push(entry.clone());
            }
        }
        Ok(Self { out: out.to_owned(), aside, shards, shard: 0, within: 0, file: None })
    }

    fn shard_name(&self, shard: usize) -> String {
        match self.shards.len() {
            1 => "model.safetensors".into(),
            n => format!("model-{:05}-of-{n:05}.safetensors", shard + 1),
        }
    }

    /// Writes the next tensor of the plan.
    ///
    /// # Errors
    /// If the disk refuses, or the bytes are not what the plan announced.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), WriteError> {
        let path = self.aside.join(self.shard_name(self.shard));
        let wrong = |why: String| WriteError {
            path: path.clone(),
            source: std::io::Error::new(std::io::ErrorKind::InvalidInput, why),
        };
        let Some((due, dtype, shape)) = self.shards.get(self.shard).and_then(|s| s.get(self.within)) else {
            return Err(wrong(format!("tensor `{name}` is not in the plan")));
        };
        let size = dtype.size() * shape.iter().product::<usize>();
        if due != name || size != bytes.len() {
            return Err(wrong(format!("tensor `{due}` of {size} bytes was due, not `{name}` of {}", bytes.len())));
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let mut file = BufWriter::new(File::create(&path).map_err(WriteError::at(&path))?);
                file.write_all(&Header::encode(&self.shards[self.shard])).map_err(WriteError::at(&path))?;
                none.insert(file)
            }
        };
        file.write_all(bytes).map_err(WriteError::at(&path))?;
        self.within += 1;
        if self.within == self.shards[self.shard].len() {
            let mut close = || -> std::io::Result<()> {
                if let Some(file) = self.file.take() {
                    file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
                }
                Ok(())
            };
            close().map_err(WriteError::at(&path))?;
            self.shard += 1;
            self.within = 0;
        }
        Ok(())
    }

    /// Copies config and tokenizer from `like` and gives the directory its name.
    ///
    /// `extra` holds further files by name, a model card for instance; they win over copies. The dtype recorded in the
    /// config is that of the plan.
    ///
    /// # Errors
    /// If tensors of the plan are missing, or the disk refuses.
    pub fn finish(self, like: &Path, extra: &[(&str, Vec<u8>)]) -> Result<(), WriteError> {
        if self.shard < self.shards.len() {
            return Err(WriteError {
                path: self.out.clone(),
                source: std::io::Error::new(std::io::ErrorKind::InvalidInput, "tensors of the plan were not written"),
            });
        }
        let put = |name: &str, bytes: &[u8]| -> Result<(), WriteError> {
            let path = self.aside.join(name);
            let write = || {
                let mut file = File::create(&path)?;
                file.write_all(bytes)?;
                file.sync_all()
            };
            write().map_err(WriteError::at(&path))
        };
        for name in COMPANIONS.iter().filter(|n| !extra.iter().any(|(e, _)| e == *n)) {
            let Ok(mut bytes) = std::fs::read(like.join(name)) else { continue };
            if *name == "config.json" {
                bytes = self.config(&bytes);
            }
            put(name, &bytes)?;
        }
        for (name, bytes) in extra {
            put(name, bytes)?;
        }
        if self.shards.len() > 1 {
            let mut map = serde_json::Map::new();
            let mut total = 0;
            for (i, shard) in self.shards.iter().enumerate() {
                for (name, dtype, shape) in shard {
                    map.insert(name.clone(), self.shard_name(i).into());
                    total += dtype.size() * shape.iter().product::<usize>();
                }
            }
            let index = serde_json::json!({"metadata": {"total_size": total}, "weight_map": map});
            put("model.safetensors.index.json", index.to_string().as_bytes())?;
        }
        let publish = || -> std::io::Result<()> {
            sync_dir(&self.aside)?;
            if self.out.exists() {
                std::fs::remove_dir(&self.out)?;
            }
            std::fs::rename(&self.aside, &self.out)?;
            match self.out.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
                _ => sync_dir(Path::new(".")),
            }
        };
        publish().map_err(WriteError::at(&self.out))
    }

    /// The source's config with our dtype, and `rope_theta` in both places where loaders look for it.
    fn config(&self, bytes: &[u8]) -> Vec<u8> {
        let Ok(mut json) = serde_json::from_slice::<serde_json::Value>(bytes) else { return bytes.to_vec() };
        if let (Some(object), Some((_, dtype, _))) = (json.as_object_mut(), self.shards.iter().flatten().next()) {
            object.insert("torch_dtype".into(), dtype.torch_name().into());
            let nested = object.get("rope_parameters").and_then(|p| p.get("rope_theta")).cloned();
            if let (None, Some(theta)) = (object.get("rope_theta"), nested) {
                object.insert("rope_theta".into(), theta);
            }
            if object.get("model_type").is_some_and(|t| t == "qwen2" || t == "qwen3") {
                object.entry("use_sliding_window").or_insert(false.into());
            }
        }
        serde_json::to_vec_pretty(&json).unwrap_or_else(|_| bytes.to_vec())
    }
}
