//! Tensors as they lie in files: one of safetensors, or a directory of shards with its index.

use crate::open_error::OpenError;
use crate::safetensors::{Header, HeaderError, TensorInfo};
use crate::torch::{is_torch, read_places};
use crate::{Dtype, WriteError};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

#[allow(unsafe_code, reason = "the map itself; see the SAFETY comment")]
mod map {
    use memmap2::Mmap;
    use std::fs::File;

    pub(super) fn map(file: &File) -> std::io::Result<Mmap> {
        // SAFETY: the map is read-only, and `Shards::bytes` compares the file's length with the length mapped
        // before every access, so that a file cut short by someone else is an error rather than a fault.
        unsafe { Mmap::map(file) }
    }
}

struct Shard {
    path: PathBuf,
    file: File,
    map: memmap2::Mmap,
    metadata: BTreeMap<String, String>,
}

/// What lists shards, the first that is there.
const INDEXES: [&str; 2] = ["model.safetensors.index.json", "pytorch_model.bin.index.json"];
/// What holds all weights, the first that is there.
const WHOLE: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

/// Named tensors in one or more files, safetensors or torch's. Opening reads headers only.
pub(crate) struct Shards {
    path: PathBuf,
    shards: Vec<Shard>,
    tensors: BTreeMap<String, (usize, TensorInfo)>,
}

/// A tensor's description, as the checkpoint holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Element type.
    pub dtype: Dtype,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
}

impl Shards {
    /// Opens a file of tensors, or a directory that holds some.
    ///
    /// # Errors
    /// If there is no such file, or anything in it contradicts itself.
    pub(crate) fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let path = path.as_ref().to_owned();
        if !path.exists() {
            return Err(OpenError::Missing(path));
        }
        let (dir, listed, files) = if path.is_dir() {
            let index = INDEXES.iter().map(|name| path.join(name)).find(|index| index.exists());
            let listed = index.map(|index| Ok::<_, OpenError>((read_index(&index)?, index))).transpose()?;
            let files: Vec<String> = match &listed {
                Some((map, _)) => {
                    map.values().cloned().collect::<std::collections::BTreeSet<_>>().into_iter().collect()
                }
                None => weights(&path)?,
            };
            (path.clone(), listed, files)
        } else {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (path.parent().unwrap_or(Path::new("")).to_owned(), None, vec![name])
        };
        let mut shards: Vec<Shard> = Vec::new();
        let mut tensors: BTreeMap<String, (usize, TensorInfo)> = BTreeMap::new();
        for name in files {
            if let Some((_, index)) = listed.as_ref().filter(|_| !dir.join(&name).exists()) {
                let reason = format!("it lists `{name}`, which is not there (download it again)");
                return Err(OpenError::Index { path: index.clone(), reason });
            }
            let (shard, header) = open_shard(dir.join(&name))?;
            for tensor in header.tensors {
                if let Some((map, index)) = &listed
                    && map.get(&tensor.name) != Some(&name)
                {
                    let reason = format!("tensor `{}` lies in `{name}`, which the index does not say", tensor.name);
                    return Err(OpenError::Index { path: index.clone(), reason });
                }
                if let Some((other, _)) = tensors.get(&tensor.name) {
                    let first = shards[*other].path.display().to_string();
                    return Err(OpenError::Twice { tensor: tensor.name, first, second: name });
                }
                tensors.insert(tensor.name.clone(), (shards.len(), tensor));
            }
            shards.push(shard);
        }
        if let Some((map, index)) = &listed
            && let Some((name, file)) = map.iter().find(|(name, _)| !tensors.contains_key(*name))
        {
            let reason = format!("it places tensor `{name}` in `{file}`, which does not hold it");
            return Err(OpenError::Index { path: index.clone(), reason });
        }
        Ok(Self { path, shards, tensors })
    }

    /// What was opened: a directory or a file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
    /// What the first file's header says of a key beside the tensors.
    pub(crate) fn metadata(&self, key: &str) -> Option<&str> {
        self.shards.first()?.metadata.get(key).map(String::as_str)
    }
    /// The files that hold the tensors.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        self.shards.iter().map(|s| s.path.as_path())
    }
    /// The file that holds a tensor.
    pub(crate) fn file_of(&self, name: &str) -> Option<&Path> {
        self.tensors.get(name).map(|(shard, _)| self.shards[*shard].path.as_path())
    }
    /// Names and descriptions, by name.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = (&str, Tensor)> {
        self.tensors.iter().map(|(n, (_, t))| (n.as_str(), Tensor { dtype: t.dtype, shape: t.shape.clone() }))
    }
    /// One tensor's description.
    pub(crate) fn tensor(&self, name: &str) -> Option<Tensor> {
        self.tensors.get(name).map(|(_, t)| Tensor { dtype: t.dtype, shape: t.shape.clone() })
    }

    fn find(&self, name: &str) -> Result<(&Shard, &TensorInfo), OpenError> {
        let (shard, info) = self
            .tensors
            .get(name)
            .ok_or_else(|| OpenError::NoTensor { dir: self.path.clone(), tensor: name.to_owned() })?;
        Ok((&self.shards[*shard], info))
    }

    /// A tensor's bytes, little-endian, from the map.
    ///
    /// # Errors
    /// If there is no such tensor, or its file was cut short since it was opened.
    pub(crate) fn bytes(&self, name: &str) -> Result<&[u8], OpenError> {
        let (shard, info) = self.find(name)?;
        let len = shard.file.metadata().map_err(|source| OpenError::Read { path: shard.path.clone(), source })?.len();
        if len != shard.map.len() as u64 {
            return Err(OpenError::Changed { path: shard.path.clone(), tensor: name.to_owned() });
        }
        Ok(&shard.map[info.start as usize..info.end as usize])
    }

    /// A tensor as f32. Refuses NaN and infinity: nothing downstream could be trusted.
    ///
    /// # Errors
    /// As [`Self::bytes`], and if the tensor is not floating-point or not finite.
    pub(crate) fn f32(&self, name: &str) -> Result<Vec<f32>, OpenError> {
        let bytes = self.bytes(name)?;
        let (shard, info) = self.find(name)?;
        let values = info.dtype.to_f32(bytes).ok_or_else(|| OpenError::NotFloat {
            path: shard.path.clone(),
            tensor: name.to_owned(),
            dtype: info.dtype.as_str(),
        })?;
        check_finite(&shard.path, name, 0, &values)?;
        Ok(values)
    }

    /// The rows of a matrix that `rows` names, as f32, without reading the others.
    ///
    /// # Errors
    /// As [`Self::f32`]; a row out of range reads as missing tensor.
    pub(crate) fn rows_f32(&self, name: &str, rows: &[u32]) -> Result<Vec<f32>, OpenError> {
        let bytes = self.bytes(name)?;
        let (shard, info) = self.find(name)?;
        let width = info.shape.get(1).copied().unwrap_or(1) * info.dtype.size();
        let mut out = Vec::new();
        for row in rows {
            let slice = bytes
                .get(*row as usize * width..(*row as usize + 1) * width)
                .ok_or_else(|| OpenError::NoTensor { dir: self.path.clone(), tensor: format!("{name}[{row}]") })?;
            out.extend(info.dtype.to_f32(slice).ok_or_else(|| OpenError::NotFloat {
                path: shard.path.clone(),
                tensor: name.to_owned(),
                dtype: info.dtype.as_str(),
            })?);
        }
        Ok(out)
    }

    /// Elements of a tensor from the `start`th on, as F32.
    pub(crate) fn elements(&self, name: &str, start: usize, out: &mut [f32]) -> Result<(), OpenError> {
        let (shard, info) = self.find(name)?;
        let mut bytes = vec![0; out.len() * info.dtype.size()];
        self.read(name, (start * info.dtype.size()) as u64, &mut bytes)?;
        if info.dtype.decode(&bytes, out) {
            return Ok(());
        }
        let (path, dtype) = (shard.path.clone(), info.dtype.as_str());
        Err(OpenError::NotFloat { path, tensor: name.to_owned(), dtype })
    }

    /// Copies bytes of a tensor, from byte `at` of it, without touching the map: memory stays the caller's, and a file
    /// that shrinks is an error.
    ///
    /// # Errors
    /// If there is no such tensor, the range is not within it, or the file is shorter than its header says.
    pub(crate) fn read(&self, name: &str, at: u64, out: &mut [u8]) -> Result<(), OpenError> {
        let (shard, info) = self.find(name)?;
        let changed = || OpenError::Changed { path: shard.path.clone(), tensor: name.to_owned() };
        if at.checked_add(out.len() as u64).is_none_or(|end| end > info.end - info.start) {
            return Err(changed());
        }
        shard.file.read_exact_at(out, info.start + at).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => changed(),
            _ => OpenError::Read { path: shard.path.clone(), source },
        })
    }

    /// Puts other bytes in a tensor's place in its file, of a directory that nobody else uses yet, and waits until they are
    /// on disk. [`read`](Self::read) sees them.
    ///
    /// # Errors
    /// If there is no such tensor, it has another length, or the disk refuses.
    pub(crate) fn overwrite(&self, name: &str, bytes: &[u8]) -> Result<(), WriteError> {
        let refused = |path: &Path, why: String| WriteError::at(path)(io::Error::new(io::ErrorKind::InvalidInput, why));
        let (shard, info) = self.find(name).map_err(|e| refused(&self.path, e.to_string()))?;
        if bytes.len() as u64 != info.end - info.start {
            let why = format!("tensor `{name}` has {} bytes, not {}", info.end - info.start, bytes.len());
            return Err(refused(&shard.path, why));
        }
        let write = || {
            let file = File::options().write(true).open(&shard.path)?;
            file.write_all_at(bytes, info.start)?;
            file.sync_data()
        };
        write().map_err(WriteError::at(&shard.path))
    }
}

/// Refuses NaN and infinity in what was read of a tensor from its element `at` on.
pub(crate) fn check_finite(path: &Path, name: &str, at: usize, values: &[f32]) -> Result<(), OpenError> {
    // Not `all`, which looks at one after another.
    if values.iter().fold(true, |finite, v| finite & v.is_finite()) {
        return Ok(());
    }
    let count = values.iter().filter(|v| !v.is_finite()).count();
    let first = at + values.iter().position(|v| !v.is_finite()).unwrap_or_default();
    Err(OpenError::NonFinite { path: path.to_owned(), tensor: name.to_owned(), count, first })
}

fn read_index(path: &Path) -> Result<BTreeMap<String, String>, OpenError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let bytes = std::fs::read(path).map_err(|source| OpenError::Read { path: path.to_owned(), source })?;
    let invalid = |reason: String| OpenError::Index { path: path.to_owned(), reason };
    let index: Index = serde_json::from_slice(&bytes).map_err(|e| invalid(e.to_string()))?;
    if let Some(bad) = index.weight_map.values().find(|f| Path::new(f).components().count() != 1 || f.starts_with('.'))
    {
        return Err(invalid(format!("shard name `{bad}` leaves the directory")));
    }
    Ok(index.weight_map)
}

/// The files of weights in a directory without an index: one, or all of a numbered set.
fn weights(dir: &Path) -> Result<Vec<String>, OpenError> {
    if let Some(whole) = WHOLE.iter().find(|name| dir.join(name).exists()) {
        return Ok(vec![(*whole).to_owned()]);
    }
    let read = |source| OpenError::Read { path: dir.to_owned(), source };
    for entry in std::fs::read_dir(dir).map_err(read)? {
        let name = entry.map_err(read)?.file_name().to_string_lossy().into_owned();
        let Some((before, of, end)) = numbered(&name) else { continue };
        let files: Vec<String> = (1..=of).map(|number| format!("{before}-{number:05}-of-{of:05}.{end}")).collect();
        return match files.iter().find(|file| !dir.join(file).exists()) {
            Some(file) => Err(OpenError::NoShard { dir: dir.to_owned(), file: file.clone(), of }),
            None => Ok(files),
        };
    }
    Err(OpenError::NoFile { dir: dir.to_owned(), file: WHOLE[0] })
}

/// The parts of `BEFORE-00001-of-00002.END`: before, of how many, end.
fn numbered(name: &str) -> Option<(&str, usize, &str)> {
    let (stem, end) = name.rsplit_once('.').filter(|(_, end)| ["safetensors", "bin"].contains(end))?;
    let (front, of) = stem.rsplit_once("-of-")?;
    let (before, number) = front.rsplit_once('-')?;
    let digits = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(of) && digits(number) && of != "00000").then_some((before, of.parse().ok()?, end))
}

fn open_shard(path: PathBuf) -> Result<(Shard, Header), OpenError> {
    let read = |source| OpenError::Read { path: path.clone(), source };
    let file = File::open(&path).map_err(read)?;
    let meta = file.metadata().map_err(read)?;
    if meta.len() == 0 && is_torch(&path) {
        return Err(OpenError::Torch { path, reason: "is empty; download it again".into() });
    }
    if !meta.is_file() || meta.len() == 0 {
        return Err(OpenError::Header { path, source: HeaderError::TooShort(0) });
    }
    let map = map::map(&file).map_err(read)?;
    let header = if is_torch(&path) {
        read_places(&path, &map)?
    } else {
        Header::parse(&map, meta.len()).map_err(|source| OpenError::Header { path: path.clone(), source })?
    };
    Ok((Shard { path, file, map, metadata: header.metadata.clone() }, header))
}
