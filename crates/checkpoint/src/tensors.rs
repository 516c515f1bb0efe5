//! The tensors of a checkpoint, perhaps with an adapter applied while they are read.

use crate::adapter::{Adapter, Edit};
use crate::open_error::OpenError;
use crate::shards::{Shards, Tensor, check_finite};
use crate::torch::is_torch;
use crate::{Dtype, WriteError};
use std::path::Path;

/// Named tensors in one or more files, safetensors or torch's. Opening reads headers only.
pub struct Tensors {
    shards: Shards,
    adapter: Option<Box<Adapter>>,
}

impl Tensors {
    /// Opens a file (safetensors, or of `torch.save` by its ending `.bin`, `.pt`, `.pth`), or a directory with `model.safetensors` or
    /// `pytorch_model.bin`, their indexes, or all of a numbered set of shards.
    ///
    /// # Errors
    /// If there is no such file, or anything in it contradicts itself.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Ok(Self { shards: Shards::open(path)?, adapter: None })
    }

    /// These tensors with a LoRA adapter (a directory of PEFT's) applied while they are read: adapted ones are F32.
    ///
    /// # Errors
    /// If it is no adapter, one that cannot be merged, or one for another base.
    pub fn adapted(mut self, adapter: &Path) -> Result<Self, OpenError> {
        self.adapter = Some(Box::new(Adapter::open(adapter, &self.shards)?));
        Ok(self)
    }

    /// What was opened: a directory or a file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.shards.path()
    }
    /// What the header of the first file says of a key beside the tensors.
    #[must_use]
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.shards.metadata(key)
    }
    /// Whether all of it lies in safetensors files as it is: no adapter, no file of `torch.save`.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.adapter.is_none() && !self.shards.files().any(is_torch)
    }
    /// The files that hold the tensors.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.shards.files().chain(self.adapter.iter().map(|adapter| adapter.file()))
    }
    /// The file that holds a tensor; of an adapted one, the adapter's.
    #[must_use]
    pub fn file_of(&self, name: &str) -> Option<&Path> {
        self.edit(name).map(|(adapter, _)| adapter.file()).or_else(|| self.shards.file_of(name))
    }
    /// Names and descriptions, by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, Tensor)> {
        let edits = self.adapter.iter().flat_map(|adapter| adapter.edits()).map(|(name, _)| name);
        let added = edits.filter(|name| self.shards.tensor(name).is_none());
        let mut names: Vec<&str> = self.shards.tensors().map(|(name, _)| name).chain(added).collect();
        names.sort_unstable();
        names.into_iter().filter_map(|name| Some((name, self.tensor(name)?)))
    }
    /// One tensor's description.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<Tensor> {
        match self.edit(name) {
            Some((_, edit)) => Some(Tensor { dtype: Dtype::F32, shape: edit.shape.clone() }),
            None => self.shards.tensor(name),
        }
    }
    /// The dtype that a tensor has in its file: an adapted one, in the base's.
    #[must_use]
    pub fn stored_dtype(&self, name: &str) -> Option<Dtype> {
        let own = self.shards.tensor(name);
        own.or_else(|| self.shards.tensor(self.edit(name)?.1.base()?)).map(|tensor| tensor.dtype)
    }

    /// What an adapter makes of a tensor.
    fn edit(&self, name: &str) -> Option<(&Adapter, &Edit)> {
        let adapter = self.adapter.as_deref()?;
        Some((adapter, adapter.edit(name)?))
    }

    /// A tensor's bytes, little-endian, from the map.
    ///
    /// # Errors
    /// If there is no such tensor, an adapter changes it, or its file was cut short since it was opened.
    pub fn bytes(&self, name: &str) -> Result<&[u8], OpenError> {
        if let Some((adapter, _)) = self.edit(name) {
            let reason = format!("changes tensor `{name}`, which therefore lies in no file");
            return Err(OpenError::Adapter { path: adapter.file().to_owned(), reason });
        }
        self.shards.bytes(name)
    }

    /// A tensor as f32. Refuses NaN and infinity: nothing downstream could be trusted.
    ///
    /// # Errors
    /// As [`Self::read`], and if the tensor is not floating-point or not finite.
    pub fn f32(&self, name: &str) -> Result<Vec<f32>, OpenError> {
        let Some((adapter, edit)) = self.edit(name) else { return self.shards.f32(name) };
        let mut values = vec![0.0; edit.shape.iter().product()];
        adapter.read(&self.shards, edit, 0, &mut values)?;
        self.check_finite(name, 0, &values)?;
        Ok(values)
    }

    /// Refuses NaN and infinity in what was read of a tensor from its element `at` on.
    ///
    /// # Errors
    /// [`OpenError::NonFinite`].
    pub fn check_finite(&self, name: &str, at: usize, values: &[f32]) -> Result<(), OpenError> {
        check_finite(self.file_of(name).unwrap_or(self.path()), name, at, values)
    }

    /// The rows of a matrix that `rows` names, as f32, without reading the others.
    ///
    /// # Errors
    /// As [`Self::f32`]; a row out of range reads as missing tensor.
    pub fn rows_f32(&self, name: &str, rows: &[u32]) -> Result<Vec<f32>, OpenError> {
        let Some((adapter, edit)) = self.edit(name) else { return self.shards.rows_f32(name, rows) };
        let width = edit.shape.get(1).copied().unwrap_or(1);
        let mut out = vec![0.0; rows.len() * width];
        for (row, out) in rows.iter().zip(out.chunks_exact_mut(width)) {
            if *row as usize >= edit.shape[0] {
                return Err(OpenError::NoTensor { dir: self.path().to_owned(), tensor: format!("{name}[{row}]") });
            }
            adapter.read(&self.shards, edit, *row as usize * width, out)?;
        }
        Ok(out)
    }

    /// Copies bytes of a tensor, from byte `at` of it, without touching the map: memory stays the caller's, and a file
    /// that shrinks is an error.
    ///
    /// # Errors
    /// If there is no such tensor, the range is not within it, or the file is shorter than its header says.
    pub fn read(&self, name: &str, at: u64, out: &mut [u8]) -> Result<(), OpenError> {
        const SIZE: usize = size_of::<f32>();
        let Some((adapter, edit)) = self.edit(name) else { return self.shards.read(name, at, out) };
        let (first, rest) = (at as usize / SIZE, at as usize % SIZE);
        let len = (rest + out.len()).div_ceil(SIZE);
        if first.checked_add(len).is_none_or(|end| end > edit.shape.iter().product()) {
            return Err(OpenError::Changed { path: adapter.file().to_owned(), tensor: name.to_owned() });
        }
        let mut values = vec![0.0; len];
        adapter.read(&self.shards, edit, first, &mut values)?;
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        out.copy_from_slice(&bytes[rest..rest + out.len()]);
        Ok(())
    }

    /// Puts other bytes in a tensor's place in its file, of a directory that nobody else uses yet, and waits until they are
    /// on disk. [`read`](Self::read) sees them.
    ///
    /// # Errors
    /// If there is no such tensor, it has another length, or the disk refuses.
    pub fn overwrite(&self, name: &str, bytes: &[u8]) -> Result<(), WriteError> {
        self.shards.overwrite(name, bytes)
    }
}
