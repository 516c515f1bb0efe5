//! `ramplus_tl` (mergekit): RAM with unique changes scaled by λⱼ = 1 + r·clip(ρⱼ, 0, α), ρⱼ = sharedⱼ / max(uniqueⱼ, ε) counted
//! per tensor. Not the paper's RAM+ (that is `ram_plus`): at most r·α more.

use super::ram::{Changes, survey};
use crate::MergeError;
use crate::arithmetic::{Arithmetic, simd, with_arithmetic};
use crate::method::{Base, Fallback, Method, Parameter, Resolved, Spec};
use crate::source::{Kernel, Source, View};

pub(crate) struct RamPlusTl;

impl Method for RamPlusTl {
    fn spec(&self) -> &Spec {
        const {
            &Spec {
                name: "ramplus_tl",
                summary: "RAM with unique changes scaled up by the overlap within each tensor",
                base: Base::Required,
                experts: (1, usize::MAX),
                parameters: &[
                    Parameter::shared("r", Fallback::Number(0.1)),
                    Parameter::shared("alpha", Fallback::Number(0.2)),
                    Parameter::shared("epsilon", Fallback::Number(1e-5)),
                ],
            }
        }
    }
    fn prepare(&self, p: &Resolved, source: &Source<'_>) -> Result<Box<dyn Kernel>, MergeError> {
        with_arithmetic!(source.compute, prepare(p, source))
    }
}

fn prepare<R: Arithmetic>(p: &Resolved, source: &Source<'_>) -> Result<Box<dyn Kernel>, MergeError> {
    let epsilon = p.number("epsilon");
    let changes = Changes { base: source.base()?, experts: source.experts(), threshold: R::r(epsilon as f32) };
    let counts = survey::<R>(&changes, source)?;
    let scales = counts
        .chunks(2)
        .map(|c| {
            let (changed, shared) = (c[0] as f32, c[1] as f32);
            let rho = shared / (changed - shared).max(epsilon as f32);
            1.0 + p.number("r") as f32 * rho.clamp(0.0, p.number("alpha").max(0.0) as f32)
        })
        .collect();
    Ok(Box::new(Scaled::<R> { changes, scales, precision: std::marker::PhantomData }))
}

struct Scaled<R> {
    changes: Changes,
    scales: Vec<f32>,
    precision: std::marker::PhantomData<R>,
}

impl<R: Arithmetic> Kernel for Scaled<R> {
    fn apply(&self, view: &View<'_>, out: &mut [f32]) {
        simd(
            #[inline(always)]
            || {
                // upstream: the float32 factor promotes the sum, so nothing is rounded from there on.
                self.changes.sum::<R>(view, &self.scales, |change| change, out);
                out.iter_mut().zip(view.input(self.changes.base)).for_each(|(o, b)| *o += b);
            },
        );
    }
}
