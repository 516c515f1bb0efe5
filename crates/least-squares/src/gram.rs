//! Σ w x xᵀ of a site's inputs.

use rayon::prelude::*;
use rolegraft_decoder::{Activations, Matrix, multiply_transposed};
use std::io::{self, Write};

/// Columns of the sum that are worked out together.
const PANEL: usize = 256;

/// Rows that a pass shows at a time.
const ROWS: usize = 1024;

/// Σ w x xᵀ in F64: the lower triangle, column after column; what lies above is 0.
pub(crate) struct Gram {
    pub(crate) width: usize,
    pub(crate) sums: Vec<f64>,
    /// √w x of a block's rows that count.
    scaled: Vec<f32>,
    panel: Vec<f32>,
}

impl Gram {
    pub(crate) fn new(width: usize) -> Self {
        Self { width, sums: vec![0.0; width * width], scaled: Vec::new(), panel: vec![0.0; width * PANEL.min(width)] }
    }

    /// Bytes of one, with what it works in.
    pub(crate) fn bytes(width: usize) -> usize {
        size_of::<f64>() * width * width + size_of::<f32>() * width * (PANEL.min(width) + ROWS)
    }

    pub(crate) fn clear(&mut self) {
        self.sums.par_chunks_mut(self.width).for_each(|column| column.fill(0.0));
    }

    /// Adds a block's rows, each with its weight.
    pub(crate) fn add(&mut self, seen: Activations<'_>, weights: &[f32]) {
        self.add_rows((seen.first..seen.first + seen.rows).map(|row| seen.row(row)), weights);
    }

    /// The same of any rows.
    pub(crate) fn add_rows<'r>(&mut self, rows: impl Iterator<Item = &'r [f32]>, weights: &[f32]) {
        let width = self.width;
        self.scaled.clear();
        for (row, weight) in rows.zip(weights).filter(|(_, weight)| **weight > 0.0) {
            let root = weight.sqrt();
            self.scaled.extend(row.iter().map(|value| root * value));
        }
        let rows = self.scaled.len() / width;
        if rows == 0 {
            return;
        }
        for first in (0..width).step_by(PANEL) {
            let (columns, below) = (PANEL.min(width - first), width - first);
            let from = |columns| Matrix { values: &self.scaled[first..], rows, columns, stride: width };
            let panel = &mut self.panel[..columns * below];
            multiply_transposed(panel, below, from(columns), from(below));
            let sums = self.sums[first * width..(first + columns) * width].par_chunks_mut(width);
            sums.zip(panel.par_chunks(below)).enumerate().for_each(|(at, (sums, new))| {
                for (sum, new) in sums[first + at..].iter_mut().zip(&new[at..]) {
                    *sum += f64::from(*new);
                }
            });
        }
    }

    /// Writes the whole matrix, both triangles, as F64 from low to high bytes.
    pub(crate) fn write_symmetric(&self, out: &mut impl Write) -> io::Result<()> {
        let (width, mut row) = (self.width, Vec::new());
        for at in 0..width {
            row.clear();
            let left = (0..at).map(|column| self.sums[column * width + at]);
            let values = left.chain(self.sums[at * width + at..(at + 1) * width].iter().copied());
            row.extend(values.flat_map(f64::to_le_bytes));
            out.write_all(&row)?;
        }
        Ok(())
    }

    /// Takes what [`Self::write_symmetric`] wrote of a matrix of this width.
    pub(crate) fn read_symmetric(&mut self, bytes: &[u8]) {
        let width = self.width;
        let rows = bytes.par_chunks_exact(size_of::<f64>() * width);
        self.sums.par_chunks_mut(width).zip(rows).enumerate().for_each(|(at, (column, row))| {
            let values = row.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes));
            column.iter_mut().zip(values).skip(at).for_each(|(sum, value)| *sum = value);
        });
    }

    /// Multiplies what is off the diagonal.
    pub(crate) fn scale_off_diagonal(&mut self, factor: f64) {
        self.sums.par_chunks_mut(self.width).enumerate().for_each(|(at, column)| {
            column[at + 1..].iter_mut().for_each(|value| *value *= factor);
        });
    }

    /// Adds another of the same width, times a number.
    pub(crate) fn add_sums(&mut self, other: &Self, scale: f64) {
        let columns = self.sums.par_chunks_mut(self.width).zip(other.sums.par_chunks(self.width));
        columns.for_each(|(sum, new)| sum.iter_mut().zip(new).for_each(|(sum, new)| *sum += scale * new));
    }

    /// Frobenius' norm of the whole matrix.
    pub(crate) fn norm(&self) -> f64 {
        let column = |(at, column): (usize, &[f64])| {
            let below: f64 = column[at + 1..].iter().map(|value| value * value).sum();
            column[at] * column[at] + 2.0 * below
        };
        self.sums.chunks(self.width).enumerate().map(column).sum::<f64>().sqrt()
    }

    pub(crate) fn add_to_diagonal(&mut self, value: f64) {
        self.sums.iter_mut().step_by(self.width + 1).for_each(|sum| *sum += value);
    }

    pub(crate) fn mean_diagonal(&self) -> f64 {
        self.sums.iter().step_by(self.width + 1).sum::<f64>() / self.width as f64
    }
}

/// Σ w x yᵀ in F64, column after column: x of one stream, y of a mixture with another.
pub(crate) struct Cross {
    width: usize,
    pub(crate) sums: Vec<f64>,
    left: Vec<f32>,
    right: Vec<f32>,
    panel: Vec<f32>,
}

impl Cross {
    pub(crate) fn new(width: usize) -> Self {
        let (sums, panel) = (vec![0.0; width * width], vec![0.0; width * PANEL.min(width)]);
        Self { width, sums, left: Vec::new(), right: Vec::new(), panel }
    }

    pub(crate) fn clear(&mut self) {
        self.sums.par_chunks_mut(self.width).for_each(|column| column.fill(0.0));
    }

    /// Adds w x yᵀ of a block's rows, y = share · theirs + (1 − share) · x.
    pub(crate) fn add(&mut self, own: &[f32], theirs: Activations<'_>, share: f64, weights: &[f32]) {
        let (width, share) = (self.width, share as f32);
        self.left.clear();
        self.right.clear();
        let rows = own.chunks_exact(width).zip(theirs.first..).zip(weights);
        for ((own, row), weight) in rows.filter(|(_, weight)| **weight > 0.0) {
            let root = weight.sqrt();
            self.left.extend(own.iter().map(|x| root * x));
            let mixed = own.iter().zip(theirs.row(row)).map(|(x, y)| root * (share * y + (1.0 - share) * x));
            self.right.extend(mixed);
        }
        let rows = self.left.len() / width;
        if rows == 0 {
            return;
        }
        for first in (0..width).step_by(PANEL) {
            let columns = PANEL.min(width - first);
            let panel = &mut self.panel[..columns * width];
            let right = Matrix { values: &self.right[first..], rows, columns, stride: width };
            let left = Matrix { values: &self.left, rows, columns: width, stride: width };
            multiply_transposed(panel, width, right, left);
            let sums = self.sums[first * width..(first + columns) * width].par_chunks_mut(width);
            sums.zip(panel.par_chunks(width)).for_each(|(sums, new)| {
                sums.iter_mut().zip(new).for_each(|(sum, new)| *sum += f64::from(*new));
            });
        }
    }
}
