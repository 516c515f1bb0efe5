//! `nearswap` (mergekit): W = u·W₁ + (1 − u)·W₀ with u = clip(t / max(|W₀ − W₁|, 1e-6), 0, 1): what is near is swapped.

use crate::MergeError;
use crate::arithmetic::{Arithmetic, simd, with_arithmetic};
use crate::method::{Base, Fallback, Method, Parameter, Resolved, Spec};
use crate::source::{Kernel, Source, View};

pub(crate) struct NearSwap;

impl Method for NearSwap {
    fn spec(&self) -> &Spec {
        const {
            &Spec {
                name: "nearswap",
                summary: "the expert where it is near the base, the base elsewhere",
                base: Base::Required,
                experts: (1, 1),
                parameters: &[Parameter::shared("t", Fallback::Required)],
            }
        }
    }
    fn prepare(&self, p: &Resolved, source: &Source<'_>) -> Result<Box<dyn Kernel>, MergeError> {
        let base = source.base()?;
        let near = Near { base, expert: 1 - base.min(1), t: p.number("t") as f32 };
        Ok(with_arithmetic!(source.compute, boxed(near)))
    }
}

fn boxed<R: Arithmetic>(near: Near) -> Box<dyn Kernel> {
    Box::new(Typed::<R>(near, std::marker::PhantomData))
}

struct Near {
    base: usize,
    expert: usize,
    t: f32,
}

struct Typed<R>(Near, std::marker::PhantomData<R>);

impl<R: Arithmetic> Kernel for Typed<R> {
    fn apply(&self, view: &View<'_>, out: &mut [f32]) {
        simd(
            #[inline(always)]
            || {
                for ((o, a), b) in out.iter_mut().zip(view.input(self.0.base)).zip(view.input(self.0.expert)) {
                    // upstream: a number divided by a tensor is its reciprocal times the number.
                    let u = R::r(R::r(1.0 / R::r(a - b).abs().max(R::r(1e-6))) * self.0.t).clamp(0.0, 1.0);
                    *o = R::r(R::r(u * b) + R::r(R::r(1.0 - u) * a));
                }
            },
        );
    }
}
