//! The embedding and the head. Tied, they are one tensor that is two maps: a lookup, and what reads the last states.

use crate::error::{LeastSquaresError, Result};
use crate::gram::Gram;
use crate::sample::Expert;
use crate::solve::{add_product, eigen};
use crate::target::{Target, read_rows};
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};
use rolegraft_checkpoint::Architecture;

/// Rows that are worked out together.
const ROWS: usize = 2048;

/// What a vocabulary's tensors are fitted by.
pub(crate) struct Vocabulary<'v> {
    pub(crate) architecture: &'v Architecture,
    pub(crate) experts: &'v [Expert<'v>],
    /// Sᵢ = E[h hᵀ] over the normed last states that predict a reply's tokens.
    pub(crate) heads: Vec<Gram>,
    /// λ.
    pub(crate) ridge: f64,
    /// μ: how much a lookup counts beside the head.
    pub(crate) lookup: f64,
}

/// (S + R) = U Λ Uᵀ.
struct Spectrum {
    vectors: Mat<f64>,
    values: Vec<f64>,
}

impl Vocabulary<'_> {
    /// Tied: E_v = (n_v I + S + R)⁻¹ (Σ nᵢᵥ Eᵢᵥ + Σ Sᵢ Eᵢᵥ + R A_v), nᵢᵥ = μ · mean(diag S)/N · V · the share of token v in expert
    /// i's tokens, S = Σ Sᵢ. Untied: the head without n, the embedding without S and R; a token that never occurs is the
    /// anchor's.
    pub(crate) fn fit(&self, target: &Target<'_>) -> Result<()> {
        let mut all = Gram::new(self.architecture.hidden_size);
        self.heads.iter().for_each(|head| all.add_sums(head, 1.0));
        let mean = all.mean_diagonal();
        let unsolvable = || LeastSquaresError::Unsolvable(self.architecture.head().to_owned());
        let (vectors, values) = eigen(&mut all, self.ridge * mean).ok_or_else(unsolvable)?;
        let spectrum = Spectrum { vectors, values };
        let scale = self.lookup * mean / self.experts.len() as f64 * self.architecture.vocab_size as f64;
        if self.architecture.tie_word_embeddings {
            return self.tensor(self.architecture.embedding(), Some(&spectrum), Some(scale), target);
        }
        self.tensor(self.architecture.head(), Some(&spectrum), None, target)?;
        self.tensor(self.architecture.embedding(), None, Some(scale), target)
    }

    fn tensor(
        &self,
        tensor: &str,
        spectrum: Option<&Spectrum>,
        lookup: Option<f64>,
        target: &Target<'_>,
    ) -> Result<()> {
        let width = self.architecture.hidden_size;
        let mut merged = target.anchor(tensor)?;
        let height = merged.len() / width;
        for (first, rows) in merged.chunks_mut(ROWS * width).enumerate().map(|(at, rows)| (at * ROWS, rows)) {
            let count = rows.len() / width;
            let mut sides = vec![0.0; rows.len()];
            let mut counts = vec![0.0; count];
            for (expert, head) in self.experts.iter().zip(&self.heads) {
                let theirs =
                    read_rows((expert.checkpoint, &expert.name), tensor, (height, width), first..first + count)?;
                let apart: Vec<f64> = theirs.iter().zip(&*rows).map(|(e, a)| f64::from(*e) - f64::from(*a)).collect();
                if spectrum.is_some() {
                    add_product(&mut sides, head, &apart, 1.0);
                }
                let rows = sides.chunks_mut(width).zip(apart.chunks(width)).zip(&mut counts);
                for (id, ((side, apart), count)) in (first as u32..).zip(rows) {
                    let share = expert.shares.get(&id).copied().unwrap_or_default();
                    let weight = lookup.unwrap_or_default() * share;
                    *count += weight;
                    side.iter_mut().zip(apart).for_each(|(side, apart)| *side += weight * apart);
                }
            }
            match spectrum {
                Some(spectrum) => spectrum.solve(&mut sides, &counts),
                None => {
                    for (row, count) in sides.chunks_mut(width).zip(&counts).filter(|(_, count)| **count > 0.0) {
                        row.iter_mut().for_each(|value| *value /= count);
                    }
                }
            }
            rows.iter_mut().zip(&sides).for_each(|(row, change)| *row = (f64::from(*row) + change) as f32);
        }
        target.store(tensor, &merged)
    }
}

impl Spectrum {
    /// Columns become U (Λ + n)⁻¹ Uᵀ of them, each with its n.
    fn solve(&self, sides: &mut [f64], counts: &[f64]) {
        let width = self.values.len();
        let largest = self.values.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
        let mut turned = Mat::<f64>::zeros(width, counts.len());
        let b = MatRef::from_column_major_slice(sides, width, counts.len());
        matmul(turned.as_mut(), Accum::Replace, self.vectors.transpose(), b, 1.0, Par::rayon(0));
        for (column, count) in counts.iter().enumerate() {
            for (row, value) in self.values.iter().enumerate() {
                let value = value.max(0.0) + count;
                turned[(row, column)] *= if value > 1e-12 * largest { 1.0 / value } else { 0.0 };
            }
        }
        let out = faer::MatMut::from_column_major_slice_mut(sides, width, counts.len());
        matmul(out, Accum::Replace, self.vectors.as_ref(), turned.as_ref(), 1.0, Par::rayon(0));
    }
}
