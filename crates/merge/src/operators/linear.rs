//! `linear` (ARM's `average`): W = Σ wᵢWᵢ / Σ wᵢ (Wortsman et al. 2022; mergekit `linear`).
//!
//! Accumulates in F32 with a fused multiply-add, in the order of the inputs, and divides once: bit for bit the
//! reference's result, whatever the dtype. The base counts only if the recipe lists it.

use crate::MergeError;
use crate::arithmetic::{Compute, simd};
use crate::method::{Base, Fallback, Method, Parameter, Resolved, Scope, Spec};
use crate::source::{Kernel, Source, TILE, View};

pub(crate) struct Linear;

impl Method for Linear {
    fn spec(&self) -> &Spec {
        const {
            &Spec {
                name: "linear",
                summary: "weighted average of the models",
                base: Base::Ignored,
                experts: (1, usize::MAX),
                parameters: &[
                    Parameter { name: "weight", scope: Scope::Input, default: Fallback::Required },
                    Parameter::shared("normalize", Fallback::Bool(true)),
                ],
            }
        }
    }
    fn prepare(&self, p: &Resolved, source: &Source<'_>) -> Result<Box<dyn Kernel>, MergeError> {
        let weights: Vec<f32> = (0..source.inputs.len()).map(|i| p.of(i, "weight").unwrap_or(0.0) as f32).collect();
        let sum: f32 = weights.iter().sum();
        if p.flag("normalize") && sum == 0.0 {
            let reason = format!("the weights {weights:?} sum to zero; set `normalize: false` or change them");
            return Err(MergeError::tensor(source.name, reason));
        }
        let divisor = p.flag("normalize").then_some(sum);
        Ok(Box::new(Average { weights, divisor, compute: source.compute }))
    }
}

struct Average {
    weights: Vec<f32>,
    divisor: Option<f32>,
    compute: Compute,
}

impl Kernel for Average {
    fn apply(&self, view: &View<'_>, out: &mut [f32]) {
        simd(
            #[inline(always)]
            || {
                for (tile, out) in out.chunks_mut(TILE).enumerate() {
                    let view = view.part(tile * TILE, out.len());
                    out.fill(0.0);
                    for (i, weight) in self.weights.iter().enumerate() {
                        out.iter_mut().zip(view.input(i)).for_each(|(o, w)| *o = weight.mul_add(*w, *o));
                    }
                    if let Some(divisor) = self.divisor {
                        out.iter_mut().for_each(|o| *o /= divisor);
                    }
                }
            },
        );
        if self.compute != Compute::F32 {
            out.iter_mut().for_each(|o| *o = self.compute.round(*o));
        }
    }
}
