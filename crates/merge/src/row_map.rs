//! Rows of an embedding rearranged for another vocabulary.

use crate::MergeError;
use std::ops::Range;
use std::sync::Arc;

/// Where a row of a rebuilt embedding comes from.
#[derive(Clone)]
pub(crate) enum Row {
    /// The input's own row.
    Own(u32),
    /// Values worked out beforehand: another model's row, a mean, zeros.
    Fixed(Arc<[f32]>),
}

/// Reads an input's elements from a position on.
type Reading<'r> = dyn FnMut(usize, &mut [f32]) -> Result<(), MergeError> + 'r;

/// An input's embedding in the output's vocabulary.
pub(crate) struct RowMap {
    pub(crate) width: usize,
    pub(crate) rows: Vec<Row>,
}

impl RowMap {
    /// The first rows of an embedding that is cut to fewer.
    pub(crate) fn first(height: usize, width: usize) -> Self {
        Self { width, rows: (0..height).map(|r| Row::Own(r as u32)).collect() }
    }

    /// Elements from `start`; `own` reads the input's elements from a position on. Neighbouring rows are read at once.
    pub(crate) fn read(&self, start: usize, out: &mut [f32], own: &mut Reading<'_>) -> Result<(), MergeError> {
        let mut at = 0;
        while at < out.len() {
            let (row, offset) = ((start + at) / self.width, (start + at) % self.width);
            match &self.rows[row] {
                Row::Fixed(values) => {
                    let len = (self.width - offset).min(out.len() - at);
                    out[at..at + len].copy_from_slice(&values[offset..offset + len]);
                    at += len;
                }
                Row::Own(first) => {
                    let run = self.run(row..self.rows.len(), *first);
                    let len = (run * self.width - offset).min(out.len() - at);
                    own(*first as usize * self.width + offset, &mut out[at..at + len])?;
                    at += len;
                }
            }
        }
        Ok(())
    }

    /// How many rows of a range continue one another from `first` on.
    fn run(&self, rows: Range<usize>, first: u32) -> usize {
        self.rows[rows].iter().zip(first..).take_while(|(row, due)| matches!(row, Row::Own(r) if r == due)).count()
    }
}
