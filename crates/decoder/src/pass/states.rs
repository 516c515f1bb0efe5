//! Hidden states of many tokens.

use super::rows::{Activations, BLOCK, GRAIN, See, Site};
use crate::kernels::rms_norm;

use crate::error::Result;
use crate::layer::check_ids;
use rolegraft_checkpoint::{Architecture, Checkpoint, OpenError};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Numbers that are written or read at a time.
const CHUNK: usize = 1 << 18;

/// The residual stream, a row a token, with room for whole grains of rows.
#[derive(Clone)]
pub struct States {
    pub(super) values: Vec<f32>,
    pub(super) width: usize,
    rows: usize,
}

impl States {
    /// Bytes of so many rows.
    #[must_use]
    pub fn bytes(architecture: &Architecture, rows: usize) -> usize {
        size_of::<f32>() * architecture.hidden_size * rows.next_multiple_of(GRAIN)
    }

    /// Room for so many rows.
    #[must_use]
    pub fn new(architecture: &Architecture, capacity: usize) -> Self {
        let width = architecture.hidden_size;
        Self { values: vec![0.0; width * capacity.next_multiple_of(GRAIN)], width, rows: 0 }
    }

    /// Forgets all rows.
    pub fn clear(&mut self) {
        self.rows = 0;
    }

    /// How many rows there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Adds the embeddings of some tokens, for which there must be room. Only their rows of the table are read.
    ///
    /// # Errors
    /// If an id is beyond the vocabulary, or the table cannot be read.
    pub fn embed(&mut self, checkpoint: &Checkpoint, architecture: &Architecture, ids: &[u32]) -> Result<()> {
        check_ids(architecture, ids)?;
        let name = architecture.embedding();
        let missing = || OpenError::NoTensor { dir: checkpoint.dir().to_owned(), tensor: name.to_owned() };
        let dtype = checkpoint.tensor(name).ok_or_else(missing)?.dtype;
        let mut bytes = vec![0; self.width * dtype.size()];
        let room = &mut self.values[self.rows * self.width..];
        for (id, row) in ids.iter().zip(room.chunks_exact_mut(self.width)) {
            checkpoint.read(name, u64::from(*id) * bytes.len() as u64, &mut bytes)?;
            dtype.decode(&bytes, row);
        }
        self.rows += ids.len();
        Ok(())
    }

    /// Writes the rows to a file from byte `at` on: where they end there.
    ///
    /// # Errors
    /// If the file refuses.
    pub fn write(&self, file: &File, mut at: u64) -> io::Result<u64> {
        let mut bytes = Vec::with_capacity(size_of::<f32>() * CHUNK);
        for chunk in self.values[..self.rows * self.width].chunks(CHUNK) {
            bytes.clear();
            bytes.extend(chunk.iter().flat_map(|value| value.to_le_bytes()));
            file.write_all_at(&bytes, at)?;
            at += bytes.len() as u64;
        }
        Ok(at)
    }

    /// Reads so many rows, for which there must be room, from byte `at` of a file on.
    ///
    /// # Errors
    /// If the file is too short or cannot be read.
    pub fn read(&mut self, file: &File, mut at: u64, rows: usize) -> io::Result<()> {
        let mut bytes = vec![0; size_of::<f32>() * CHUNK];
        for chunk in self.values[..rows * self.width].chunks_mut(CHUNK) {
            let bytes = &mut bytes[..size_of_val(chunk)];
            file.read_exact_at(bytes, at)?;
            at += bytes.len() as u64;
            let (words, _) = bytes.as_chunks();
            chunk.iter_mut().zip(words).for_each(|(value, word)| *value = f32::from_le_bytes(*word));
        }
        self.rows = rows;
        Ok(())
    }

    /// Shows the rows as the head reads them, by the last norm's weight, block by block.
    ///
    /// # Errors
    /// What `see` says.
    pub fn normed(&self, norm: &[f32], eps: f32, see: &mut See<'_>) -> Result<()> {
        let mut values = vec![0.0; BLOCK.min(self.rows) * self.width];
        for first in (0..self.rows).step_by(BLOCK) {
            let rows = BLOCK.min(self.rows - first);
            let states = &self.values[first * self.width..(first + rows) * self.width];
            let values = &mut values[..rows * self.width];
            for (out, row) in values.chunks_exact_mut(self.width).zip(states.chunks_exact(self.width)) {
                rms_norm(out, row, norm, eps);
            }
            let (stride, width) = (self.width, self.width);
            see(Activations { site: Site::Head, values, stride, width, first, rows })?;
        }
        Ok(())
    }

    /// `count` rows from `first`, filled up to whole grains with zeros.
    pub(super) fn block(&mut self, first: usize, count: usize) -> &mut [f32] {
        let end = first + count.next_multiple_of(GRAIN);
        let block = &mut self.values[first * self.width..end * self.width];
        block[count * self.width..].fill(0.0);
        block
    }
}
