//! `arcee_fusion` (mergekit): importance I = |W₁ − W₀| ⊙ KL with KL = Σ p·ln(p/q) over the last axis, p and q the softmax of W₁
//! and W₀ plus 1e-8; θ = q₂ + 1.5(q₃ − q₁) with quartiles at index ⌊f·(n−1)⌋; W₁ where I ≥ θ, W₀ elsewhere.
//!
//! KL is a difference of nearly equal numbers and is computed in F64. Above a million elements mergekit estimates the
//! quartiles from a random sample; ours are exact.

use crate::MergeError;
use crate::arithmetic::Compute;
use crate::method::{Base, Method, Resolved, Spec};
use crate::rank::{ordered, places};
use crate::source::{Kernel, Rows, Source, View};

pub(crate) struct ArceeFusion;

impl Method for ArceeFusion {
    fn spec(&self) -> &Spec {
        const {
            &Spec {
                name: "arcee_fusion",
                summary: "the expert's most important changes on the base",
                base: Base::Required,
                experts: (1, 1),
                parameters: &[],
            }
        }
    }
    fn prepare(&self, _: &Resolved, source: &Source<'_>) -> Result<Box<dyn Kernel>, MergeError> {
        let base = source.base()?;
        let (expert, row) = (1 - base.min(1), source.row());
        let divergences = source.scan(
            Rows::Whole,
            usize::MAX,
            Vec::new,
            #[inline(always)]
            |rows, view| {
                for start in (0..view.len).step_by(row) {
                    let part = |i: usize| &view.input(i)[start..start + row];
                    rows.push(divergence(part(expert), part(base)));
                }
            },
        )?;
        let mut fusion =
            Fusion { base, expert, row, divergences: divergences.concat(), threshold: 0.0, compute: source.compute };
        // upstream: the index is computed in float32.
        let rank = |share: f32| (share * (source.len().saturating_sub(1)) as f32) as u64;
        let last = source.len().saturating_sub(1) as u64;
        let ranks = vec![[0.25, 0.5, 0.75].map(|s| rank(s).min(last)).to_vec()];
        let quartiles = places(
            source,
            &ranks,
            #[inline(always)]
            |view: &View<'_>, _: usize, keys: &mut [u32]| {
                for (i, key) in keys.iter_mut().enumerate() {
                    *key = ordered(fusion.importance(view, i));
                }
            },
        )?;
        let value = |i: usize| unordered(quartiles[0][i].key);
        if source.len() > 0 {
            fusion.threshold = value(1) + 1.5 * (value(2) - value(0));
        }
        Ok(Box::new(fusion))
    }
}

fn unordered(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key & 0x7FFF_FFFF } else { !key })
}

/// Σ p·ln(p/q) over a row.
fn divergence(expert: &[f32], base: &[f32]) -> f64 {
    let parts = |row: &[f32]| {
        let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|w| f64::from(w - top).exp()).sum();
        (f64::from(top), sum)
    };
    let ((top_p, sum_p), (top_q, sum_q)) = (parts(expert), parts(base));
    expert
        .iter()
        .zip(base)
        .map(|(a, b)| {
            let p = (f64::from(*a) - top_p).exp() / sum_p + 1e-8;
            let q = (f64::from(*b) - top_q).exp() / sum_q + 1e-8;
            p * (p / q).ln()
        })
        .sum()
}

struct Fusion {
    base: usize,
    expert: usize,
    row: usize,
    /// KL of every row.
    divergences: Vec<f64>,
    threshold: f32,
    compute: Compute,
}

impl Fusion {
    #[inline(always)]
    fn importance(&self, view: &View<'_>, i: usize) -> f32 {
        let change = f64::from((view.input(self.expert)[i] - view.input(self.base)[i]).abs());
        (change * self.divergences[(view.start + i) / self.row]) as f32
    }
}

impl Kernel for Fusion {
    fn apply(&self, view: &View<'_>, out: &mut [f32]) {
        let (base, expert) = (view.input(self.base), view.input(self.expert));
        for (i, o) in out.iter_mut().enumerate() {
            let taken = self.importance(view, i) >= self.threshold;
            *o = self.compute.round(if taken { base[i] + (expert[i] - base[i]) } else { base[i] });
        }
    }
}
