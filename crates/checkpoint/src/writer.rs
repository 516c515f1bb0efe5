//! Writing a checkpoint directory: beside its place, shard by shard, then renamed.

use crate::{Dtype, Header, WriteError, write_atomic};
use rolegraft_files::{folder, open_own, sync_dir};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use twox_hash::XxHash3_128;

/// Files copied from a source checkpoint when present.
const COMPANIONS: [&str; 13] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
];

/// A folder whose files are copied as well: templates beside the default one.
const TEMPLATES: &str = "additional_chat_templates";

/// Of a tensor to be written: name, element type, shape.
pub type TensorPlan = (String, Dtype, Vec<usize>);

/// Writes tensors into a directory that appears under its name only when [`Writer::finish`] returns.
///
/// The plan decides the shards. Tensors come either in the order of the plan ([`Writer::write`]), or shard by shard with
/// bytes in any order and from any thread ([`Writer::open`], [`OpenShard::put`], [`Writer::close`]). A writer made by
/// [`Writer::resume`] keeps finished shards when it is dropped or killed, and takes them up again when their digests fit.
pub struct Writer {
    out: PathBuf,
    aside: PathBuf,
    shards: Vec<Vec<TensorPlan>>,
    journal: Journal,
    /// Whether finished shards outlive a failure.
    keep: bool,
    /// Held while this writer lives; another process that wants the directory is told.
    _lock: File,
    current: Option<(OpenShard, usize)>,
}

/// What a killed writer leaves to the next: which shards are whole.
#[derive(Serialize, Deserialize, Default)]
struct Journal {
    version: u32,
    /// Digest of everything the output depends on.
    identity: String,
    /// XXH3-128 of finished shards, by file name.
    shards: BTreeMap<String, String>,
}

const JOURNAL: &str = "journal.json";
const LOCK: &str = "lock";

/// A shard that is being written.
pub struct OpenShard {
    path: PathBuf,
    file: File,
    /// Start in the file and length in bytes, by tensor.
    places: BTreeMap<String, (u64, u64)>,
    number: usize,
    whole: bool,
}

/// A shard that was not closed is of no use to anybody.
impl Drop for OpenShard {
    fn drop(&mut self) {
        if !self.whole {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl OpenShard {
    /// Writes bytes of a tensor from its byte `at`. Any thread may, in any order.
    ///
    /// # Errors
    /// If the disk refuses, or the shard has no room there.
    pub fn put(&self, name: &str, at: u64, bytes: &[u8]) -> Result<(), WriteError> {
        let Some((start, _)) = self.places.get(name).filter(|(_, len)| at + bytes.len() as u64 <= *len) else {
            return Err(wrong(&self.path, format!("tensor `{name}` has no bytes {at} to {}", at + bytes.len() as u64)));
        };
        self.file.write_all_at(bytes, start + at).map_err(WriteError::at(&self.path))
    }

    /// Lets the disk begin with a tensor that is whole, so that [`Writer::close`] has less to wait for.
    pub fn flush(&self, name: &str) {
        if let Some((start, len)) = self.places.get(name) {
            let len = std::num::NonZeroU64::new(*len);
            let _ = rustix::fs::fadvise(&self.file, *start, len, rustix::fs::Advice::DontNeed);
        }
    }
}

fn wrong(path: &Path, why: String) -> WriteError {
    WriteError { path: path.to_owned(), source: io::Error::new(io::ErrorKind::InvalidInput, why) }
}

fn bytes_of((_, dtype, shape): &TensorPlan) -> u64 {
    dtype.size() as u64 * shape.iter().product::<usize>() as u64
}

/// A writer that did not finish leaves nothing, or only what can be resumed.
impl Drop for Writer {
    fn drop(&mut self) {
        self.current = None;
        if !self.keep || self.journal.shards.is_empty() {
            let _ = std::fs::remove_dir_all(&self.aside);
        }
    }
}

impl Writer {
    /// Starts writing `plan` to `out`, in shards of at most `shard_size` bytes (a larger tensor has its own). What a
    /// killed writer left behind is removed.
    ///
    /// # Errors
    /// If `out` exists and is not empty, another process is writing it, or nothing can be written beside it.
    pub fn create(out: &Path, plan: &[TensorPlan], shard_size: u64) -> Result<Self, WriteError> {
        Self::start(out, plan, shard_size, None)
    }

    /// As [`Self::create`], but shards that a writer of the same `identity` finished are kept if their digests fit.
    /// `identity` is a digest of everything that the tensors depend on.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn resume(out: &Path, plan: &[TensorPlan], shard_size: u64, identity: &str) -> Result<Self, WriteError> {
        Self::start(out, plan, shard_size, Some(identity))
    }

    fn start(out: &Path, plan: &[TensorPlan], shard_size: u64, identity: Option<&str>) -> Result<Self, WriteError> {
        // Without a dot or a slash at its end.
        let out = &out.components().collect::<PathBuf>();
        let name = out.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let aside = out.with_file_name(format!(".{name}.partial"));
        let fail = |kind, why: String| WriteError { path: out.to_owned(), source: io::Error::new(kind, why) };
        if name.is_empty() {
            return Err(fail(io::ErrorKind::InvalidInput, "the output needs a name".into()));
        }
        if out.is_symlink() {
            return Err(fail(io::ErrorKind::AlreadyExists, "it is a link; name what it leads to".into()));
        }
        if out.exists() && !out.is_dir() {
            return Err(fail(io::ErrorKind::AlreadyExists, "it is a file; name a new directory".into()));
        }
        if out.read_dir().is_ok_and(|mut d| d.next().is_some()) {
            return Err(fail(
                io::ErrorKind::AlreadyExists,
                "the directory is not empty; name a new one or remove it".into(),
            ));
        }
        if aside.symlink_metadata().is_ok_and(|there| !there.is_dir()) {
            let why = format!("`{}` is in the way, a name that rolegraft writes under; remove it", aside.display());
            return Err(fail(io::ErrorKind::AlreadyExists, why));
        }
        std::fs::create_dir_all(&aside).map_err(WriteError::at(&aside))?;
        let lock_path = aside.join(LOCK);
        let lock = open_own(&lock_path).map_err(WriteError::at(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(fail(io::ErrorKind::ResourceBusy, "another process is writing it".into()));
            }
            // File systems without locks: two writers are then the user's to avoid.
            Err(TryLockError::Error(_)) => {}
        }
        let mut shards: Vec<Vec<TensorPlan>> = vec![Vec::new()];
        let mut used = 0;
        for entry in plan {
            let bytes = bytes_of(entry);
            if used > 0 && used + bytes > shard_size {
                shards.push(Vec::new());
                used = 0;
            }
            used += bytes;
            if let Some(last) = shards.last_mut() {
                last.push(entry.clone());
            }
        }
        let identity = identity.map(str::to_owned);
        let mut writer = Self {
            out: out.to_owned(),
            keep: identity.is_some(),
            journal: Journal { version: 1, identity: identity.unwrap_or_default(), shards: BTreeMap::new() },
            aside,
            shards,
            _lock: lock,
            current: None,
        };
        if writer.keep {
            writer.take_up();
        }
        writer.sweep()?;
        Ok(writer)
    }

    /// Adopts the shards of an earlier writer whose identity and digests fit.
    fn take_up(&mut self) {
        let Ok(bytes) = std::fs::read(self.aside.join(JOURNAL)) else { return };
        let Ok(journal) = serde_json::from_slice::<Journal>(&bytes) else { return };
        if journal.version != self.journal.version || journal.identity != self.journal.identity {
            return;
        }
        for number in 0..self.shards.len() {
            let name = self.shard_name(number);
            let Some(recorded) = journal.shards.get(&name) else { continue };
            if digest(&self.aside.join(&name)).is_ok_and(|found| found == *recorded) {
                self.journal.shards.insert(name, recorded.clone());
            }
        }
    }

    /// Removes whatever lies aside and is neither the lock nor a shard taken up.
    fn sweep(&self) -> Result<(), WriteError> {
        let entries = self.aside.read_dir().map_err(WriteError::at(&self.aside))?;
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let known = name == LOCK || (name == JOURNAL && !self.journal.shards.is_empty());
            if !known && !self.journal.shards.contains_key(&name) {
                let path = entry.path();
                let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
                removed.map_err(WriteError::at(&path))?;
            }
        }
        Ok(())
    }

    /// How many shards there are.
    #[must_use]
    pub fn shard_count(&self) -> usize {
        self.shards.len()
    }
    /// Whether a shard is already whole, from an earlier run.
    #[must_use]
    pub fn is_done(&self, shard: usize) -> bool {
        self.journal.shards.contains_key(&self.shard_name(shard))
    }
    /// The tensors of a shard, in order.
    #[must_use]
    pub fn tensors(&self, shard: usize) -> &[TensorPlan] {
        self.shards.get(shard).map_or(&[], Vec::as_slice)
    }

    fn shard_name(&self, shard: usize) -> String {
        match self.shards.len() {
            1 => "model.safetensors".into(),
            n => format!("model-{:05}-of-{n:05}.safetensors", shard + 1),
        }
    }

    /// Begins a shard: its header is written and its bytes are reserved, so that a full disk is noticed now.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn open(&self, shard: usize) -> Result<OpenShard, WriteError> {
        let path = self.aside.join(self.shard_name(shard));
        let tensors = self.tensors(shard);
        let header = Header::encode(tensors);
        let mut at = header.len() as u64;
        let mut places = BTreeMap::new();
        for tensor in tensors {
            places.insert(tensor.0.clone(), (at, bytes_of(tensor)));
            at += bytes_of(tensor);
        }
        let write = || -> io::Result<File> {
            let file = File::create(&path)?;
            match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, at.max(1)) {
                Err(rustix::io::Errno::NOSPC) => {
                    return Err(io::Error::new(io::ErrorKind::StorageFull, format!("{at} bytes are needed")));
                }
                // Not every file system can reserve.
                Ok(()) | Err(_) => file.set_len(at)?,
            }
            file.write_all_at(&header, 0)?;
            Ok(file)
        };
        let file = write().map_err(|source| {
            let _ = std::fs::remove_file(&path);
            WriteError { path: path.clone(), source }
        })?;
        Ok(OpenShard { path, file, places, number: shard, whole: false })
    }

    /// Makes a shard durable. The caller has put every byte of every tensor.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn close(&mut self, mut shard: OpenShard) -> Result<(), WriteError> {
        shard.file.sync_all().map_err(WriteError::at(&shard.path))?;
        shard.whole = true;
        let name = self.shard_name(shard.number);
        let others_remain = (0..self.shards.len()).any(|s| s != shard.number && !self.is_done(s));
        // The last one needs no record: the directory gets its name next.
        let recorded = if self.keep && others_remain {
            digest(&shard.path).map_err(WriteError::at(&shard.path))?
        } else {
            String::new()
        };
        self.journal.shards.insert(name, recorded);
        if self.keep && others_remain {
            let json = serde_json::to_vec_pretty(&self.journal).unwrap_or_default();
            write_atomic(&self.aside.join(JOURNAL), &json)?;
        }
        Ok(())
    }

    /// Writes the next tensor of the plan, whole.
    ///
    /// # Errors
    /// If the disk refuses, or the bytes are not what the plan announced.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), WriteError> {
        let (open, within) = match self.current.take() {
            Some(current) => current,
            None => match (0..self.shards.len()).find(|s| !self.is_done(*s)) {
                Some(shard) => (self.open(shard)?, 0),
                None => return Err(wrong(&self.out, format!("tensor `{name}` is not in the plan"))),
            },
        };
        let shard = open.number;
        let due = &self.shards[shard][within];
        if due.0 != name || bytes_of(due) != bytes.len() as u64 {
            let (due, size) = (due.0.clone(), bytes_of(due));
            let why = format!("tensor `{due}` of {size} bytes was due, not `{name}` of {}", bytes.len());
            let path = open.path.clone();
            self.current = Some((open, within));
            return Err(wrong(&path, why));
        }
        let outcome = open.put(name, 0, bytes);
        if outcome.is_ok() && within + 1 == self.shards[shard].len() {
            return self.close(open);
        }
        self.current = Some((open, within + 1));
        outcome
    }

    /// Copies config and tokenizer from `like` and gives the directory its name.
    ///
    /// `extra` holds further files by name, a model card for instance; they win over copies. The dtype recorded in a
    /// copied config is that of the plan.
    ///
    /// # Errors
    /// If tensors of the plan are missing, or the disk refuses.
    pub fn finish(mut self, like: &Path, extra: &[(&str, Vec<u8>)]) -> Result<(), WriteError> {
        if self.current.is_some() || (0..self.shards.len()).any(|s| !self.is_done(s)) {
            return Err(wrong(&self.out, "tensors of the plan were not written".into()));
        }
        let put = |name: &str, bytes: &[u8]| write_atomic(&self.aside.join(name), bytes);
        for name in COMPANIONS.iter().filter(|n| !extra.iter().any(|(e, _)| e == *n)) {
            let Ok(mut bytes) = std::fs::read(like.join(name)) else { continue };
            if *name == "config.json"
                && let (Ok(mut json), Some(first)) =
                    (serde_json::from_slice(&bytes), self.shards.iter().flatten().next())
            {
                set_dtype(&mut json, first.1);
                bytes = serde_json::to_vec_pretty(&json).unwrap_or(bytes);
            }
            put(name, &bytes)?;
        }
        for entry in like.join(TEMPLATES).read_dir().into_iter().flatten().flatten() {
            let (Ok(bytes), Some(name)) = (std::fs::read(entry.path()), entry.file_name().to_str().map(str::to_owned))
            else {
                continue;
            };
            put(&format!("{TEMPLATES}/{name}"), &bytes)?;
        }
        for (name, bytes) in extra {
            put(name, bytes)?;
        }
        if self.shards.len() > 1 {
            let mut map = serde_json::Map::new();
            for (i, shard) in self.shards.iter().enumerate() {
                map.extend(shard.iter().map(|(name, ..)| (name.clone(), self.shard_name(i).into())));
            }
            let total: u64 = self.shards.iter().flatten().map(bytes_of).sum();
            let index = serde_json::json!({"metadata": {"total_size": total}, "weight_map": map});
            put("model.safetensors.index.json", &serde_json::to_vec_pretty(&index).unwrap_or_default())?;
        }
        let publish = || -> io::Result<()> {
            for name in [JOURNAL, LOCK] {
                match std::fs::remove_file(self.aside.join(name)) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                    _ => {}
                }
            }
            sync_dir(&self.aside)?;
            if self.out.exists() {
                std::fs::remove_dir(&self.out)?;
            }
            std::fs::rename(&self.aside, &self.out)?;
            sync_dir(folder(&self.out))
        };
        let outcome = publish().map_err(WriteError::at(&self.out));
        self.keep &= outcome.is_err();
        outcome
    }
}

/// XXH3-128 of a file.
fn digest(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = XxHash3_128::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(format!("{:032x}", hasher.finish_128())),
            n => hasher.write(&buffer[..n]),
        }
    }
}

/// Records the dtype of the tensors in a `config.json`, and `rope_theta` where every loader looks for it.
pub fn set_dtype(config: &mut serde_json::Value, dtype: Dtype) {
    let Some(object) = config.as_object_mut() else { return };
    // transformers 5 writes `dtype`, earlier ones `torch_dtype`; both read the latter.
    object.insert("torch_dtype".into(), dtype.torch_name().into());
    if object.contains_key("dtype") {
        object.insert("dtype".into(), dtype.torch_name().into());
    }
    let nested = object.get("rope_parameters").and_then(|p| p.get("rope_theta")).cloned();
    if let (None, Some(theta)) = (object.get("rope_theta"), nested) {
        object.insert("rope_theta".into(), theta);
    }
    if object.get("model_type").is_some_and(|t| t == "qwen2" || t == "qwen3") {
        object.entry("use_sliding_window").or_insert(false.into());
    }
}
