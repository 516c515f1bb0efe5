//! Hidden states of many tokens.

use super::rows::GRAIN;

use crate::error::Result;
use crate::layer::check_ids;
use rolegraft_checkpoint::{Architecture, Checkpoint, OpenError};

/// The residual stream, a row a token, with room for whole grains of rows.
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

    /// `count` rows from `first`, filled up to whole grains with zeros.
    pub(super) fn block(&mut self, first: usize, count: usize) -> &mut [f32] {
        let end = first + count.next_multiple_of(GRAIN);
        let block = &mut self.values[first * self.width..end * self.width];
        block[count * self.width..].fill(0.0);
        block
    }
}
