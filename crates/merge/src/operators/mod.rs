//! The methods, one file each. Notation: base W₀, experts Wᵢ, task vectors Δᵢ = Wᵢ − W₀, weights wᵢ; everything per tensor
//! unless "global" is said. "mergekit" is arcee-ai/mergekit 0.1.5.

pub(crate) mod aim;
pub(crate) mod arcee_fusion;
pub(crate) mod breadcrumbs;
pub(crate) mod dare;
pub(crate) mod della;
pub(crate) mod karcher;
pub(crate) mod linear;
pub(crate) mod mask;
pub(crate) mod model_stock;
pub(crate) mod multislerp;
pub(crate) mod nearswap;
pub(crate) mod neuron_merge;
pub(crate) mod nuslerp;
pub(crate) mod passthrough;
pub(crate) mod probability;
pub(crate) mod ram;
pub(crate) mod ramplus_tl;
pub(crate) mod resmerge;
pub(crate) mod sce;
pub(crate) mod slerp;
pub(crate) mod subspace;
pub(crate) mod swudi;
pub(crate) mod task_arithmetic;
pub(crate) mod ties;
pub(crate) mod widen;

use crate::source::{Kernel, TILE, View};

/// W = Σ cᵢWᵢ with one coefficient an input, in F32: what the geometric methods come down to.
pub(crate) struct Combination(pub(crate) Vec<f32>, pub(crate) crate::arithmetic::Compute);

impl Kernel for Combination {
    fn apply(&self, view: &View<'_>, out: &mut [f32]) {
        crate::arithmetic::simd(
            #[inline(always)]
            || {
                for (tile, out) in out.chunks_mut(TILE).enumerate() {
                    let view = view.part(tile * TILE, out.len());
                    out.fill(0.0);
                    for (i, coefficient) in self.0.iter().enumerate() {
                        out.iter_mut().zip(view.input(i)).for_each(|(o, w)| *o += coefficient * w);
                    }
                }
            },
        );
        if self.1 != crate::arithmetic::Compute::F32 {
            out.iter_mut().for_each(|o| *o = self.1.round(*o));
        }
    }
}
