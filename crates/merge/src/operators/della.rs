//! The sparsifier of `della` and `della_linear`: in every row (a 1-D tensor is one) the magnitudes are ranked ascending,
//! and rank r of n stays with probability p = (density − ε) + 2ε·r/(n − 1).

use super::dare::recorded;
use super::task_arithmetic::Keep;
use crate::MergeError;
use crate::method::Resolved;
use crate::random::{Stream, bound};
use crate::source::Source;

/// Keep probabilities by rank.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probability {
    density: f64,
    epsilon: f64,
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

pub(super) fn keep(p: &Resolved, source: &Source<'_>, experts: &[usize]) -> Result<Vec<Keep>, MergeError> {
    experts
        .iter()
        .enumerate()
        .map(|(position, expert)| {
            let density = p.of(*expert, "density").unwrap_or(1.0);
            let epsilon = p.of(*expert, "epsilon").unwrap_or(0.15);
            if density >= 1.0 {
                return Ok(Keep::All);
            }
            if density <= 0.0 {
                return Ok(Keep::None);
            }
            if density + epsilon >= 1.0 || density - epsilon <= 0.0 {
                let reason = format!(
                    "density {density} ± epsilon {epsilon} of `{}` must lie strictly between 0 and 1; lower epsilon",
                    source.inputs[*expert].model.name
                );
                return Err(MergeError::tensor(source.name, reason));
            }
            Ok(match recorded(source, *expert)? {
                Some(mask) => Keep::Recorded(mask),
                None => Keep::ByRank(
                    Stream::new(source.session.seed, source.name, position),
                    Probability { density, epsilon },
                ),
            })
        })
        .collect()
}
