//! The probability with which `della` keeps an element, by the rank of its magnitude in its row.

use crate::random::bound;

/// Keep probabilities by rank.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probability {
    pub(super) density: f64,
    pub(super) epsilon: f64,
}

impl Probability {
    /// Of the element with `rank` (from 0) in a row of `len`. A row of one element, where the reference divides zero by
    /// zero, has the density.
    #[inline(always)]
    fn at(self, rank: usize, len: usize) -> f64 {
        if len < 2 {
            return self.density;
        }
        let share = rank as f32 / (len - 1) as f32;
        f64::from((self.density - self.epsilon) as f32 + share * 2.0 * self.epsilon as f32)
    }

    /// Zeroes the elements of a row whose draw is at or above their bound.
    #[inline(always)]
    pub(super) fn mask(self, row: &mut [f32], draws: &[u32], order: &mut Vec<u64>) {
        ascending(row, order);
        for (rank, at) in order.iter().map(|o| *o as u32 as usize).enumerate() {
            if draws[at] >= bound(self.at(rank, row.len())) {
                row[at] = 0.0;
            }
        }
    }
}

fn ascending(row: &[f32], order: &mut Vec<u64>) {
    order.clear();
    // Magnitude above, index below: one integer to compare.
    order.extend(row.iter().zip(0u64..).map(|(d, i)| u64::from(d.abs().to_bits()) << 32 | i));
    order.sort_unstable();
}

/// Keep probabilities of a task vector with rows of length `row`, element by element.
#[must_use]
pub fn keep_probabilities(delta: &[f32], row: usize, density: f64, epsilon: f64) -> Vec<f32> {
    let mut out = vec![0.0; delta.len()];
    let mut order = Vec::new();
    for (delta, out) in delta.chunks(row.max(1)).zip(out.chunks_mut(row.max(1))) {
        ascending(delta, &mut order);
        for (rank, at) in order.iter().map(|o| *o as u32 as usize).enumerate() {
            out[at] = Probability { density, epsilon }.at(rank, delta.len()) as f32;
        }
    }
    out
}
