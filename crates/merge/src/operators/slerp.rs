//! `slerp` (Shoemake 1985; mergekit): a = W₀, b = W₁ flattened, d = clip(â·b̂) of their unit vectors; W = (1−t)a + t·b where
//! |d| > 0.9995, else [sin((1−t)θ) a + sin(tθ) b] / sin θ with θ = acos d. Always in F32. Close fine-tunes of one base
//! exceed the threshold, and slerp is then linear interpolation.

use super::Combination;
use crate::MergeError;
use crate::arithmetic::Single;
use crate::method::{Base, Fallback, Method, Parameter, Resolved, Spec};
use crate::source::{Kernel, Source};

pub(crate) struct Slerp;

impl Method for Slerp {
    fn spec(&self) -> &Spec {
        const {
            &Spec {
                name: "slerp",
                summary: "interpolation of two models along the sphere",
                base: Base::Required,
                experts: (1, 1),
                parameters: &[Parameter::shared("t", Fallback::Required)],
            }
        }
    }
    fn prepare(&self, p: &Resolved, source: &Source<'_>) -> Result<Box<dyn Kernel>, MergeError> {
        let base = source.base()?;
        let t = p.number("t");
        let gram = source.gram::<Single>(
            2,
            #[inline(always)]
            |view, i, out| out.copy_from_slice(view.input(i)),
        )?;
        let norm = |i: usize| match gram[i][i].sqrt() {
            n if n > 1e-8 => n,
            _ => 1.0,
        };
        let dot = (gram[0][1] / (norm(0) * norm(1))).clamp(-1.0, 1.0);
        let (a, b) = if dot.abs() > 0.9995 { (1.0 - t, t) } else { arc(dot.acos(), t) };
        let mut coefficients = vec![b as f32; 2];
        coefficients[base] = a as f32;
        Ok(Box::new(Combination(coefficients, source.compute)))
    }
}

/// Coefficients of a great-circle interpolation over the angle θ.
pub(super) fn arc(theta: f64, t: f64) -> (f64, f64) {
    (((1.0 - t) * theta).sin() / theta.sin(), (t * theta).sin() / theta.sin())
}
