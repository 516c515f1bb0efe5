//! `nuslerp` (mergekit): great-circle interpolation of two models, or of their task vectors if there is a base, with
//! t = w₂/(w₁+w₂) (0.5 if |w₁+w₂| < 1e-6). `nuslerp_flatten` takes the tensor as one vector; without it every row of the
//! last axis, or with `nuslerp_row_wise` every column along the first, is one. Norms are clamped at 1e-7; vectors that are
//! colinear (1 − d² ≤ 1e-16) are interpolated linearly, and so are opposed ones (d < −1 + 1e-6), where the reference returns
//! rounding noise.

use super::slerp::arc;
use super::task_arithmetic::difference;
use crate::MergeError;
use crate::arithmetic::{Compute, Single};
use crate::method::{Base, Fallback, Method, Parameter, Resolved, Spec};
use crate::source::{FEW_SEGMENTS, Kernel, Rows, Source, View};

pub(crate) struct NuSlerp;

impl Method for NuSlerp {
    fn spec(&self) -> &Spec {
        const {
            &Spec {
                name: "nuslerp",
                summary: "interpolation of two models, or of their task vectors, along the sphere",
                base: Base::Optional,
                experts: (2, 2),
                parameters: &[
                    Parameter::expert("weight", Fallback::Required),
                    Parameter::shared("nuslerp_row_wise", Fallback::Bool(false)),
                    Parameter::shared("nuslerp_flatten", Fallback::Bool(true)),
                ],
            }
        }
    }
    fn prepare(&self, p: &Resolved, source: &Source<'_>) -> Result<Box<dyn Kernel>, MergeError> {
        let experts = source.experts();
        let (one, two) = (experts[0], experts[1]);
        let weight = |i: usize| p.of(i, "weight").unwrap_or(0.0);
        let total = weight(one) + weight(two);
        let t = if total.abs() < 1e-6 { 0.5 } else { weight(two) / total };
        let arms = Arms { one, two, base: source.base };
        // Number of columns: vectors lie along the first axis, one for each place in the others.
        let columns = source.len() / source.shape.first().copied().unwrap_or(1).max(1);
        let vectors = match (p.flag("nuslerp_flatten"), p.flag("nuslerp_row_wise")) {
            (true, _) => Vectors::One,
            (false, true) if source.shape.len() > 1 => Vectors::Columns(columns),
            (false, _) => Vectors::Rows(source.row()),
        };
        let pairs = match vectors {
            Vectors::One => {
                let s = source.sums(
                    Rows::Any,
                    3,
                    #[inline(always)]
                    |sums, view| {
                        let stats = arms.stats(view);
                        sums.iter_mut().zip(stats).for_each(|(s, n)| *s += n);
                    },
                )?;
                vec![coefficients([s[0], s[1], s[2]], t)]
            }
            Vectors::Rows(_) => Vec::new(),
            Vectors::Columns(columns) => {
                let make = || vec![[0.0; 3]; columns];
                let parts = source.scan(
                    Rows::Any,
                    FEW_SEGMENTS,
                    make,
                    #[inline(always)]
                    |sums, view| {
                        let (mut one, mut two) = (vec![0.0; view.len], vec![0.0; view.len]);
                        arms.fill(view, 0, &mut one);
                        arms.fill(view, 1, &mut two);
                        for (i, (x, y)) in one.iter().zip(&two).enumerate() {
                            let (x, y) = (f64::from(*x), f64::from(*y));
                            let sum = &mut sums[(view.start + i) % columns];
                            *sum = [sum[0] + x * x, sum[1] + y * y, sum[2] + x * y];
                        }
                    },
                )?;
                (0..columns)
                    .map(|c| {
                        let sum = parts.iter().fold([0.0; 3], |s, part| std::array::from_fn(|k| s[k] + part[c][k]));
                        coefficients(sum, t)
                    })
                    .collect()
            }
        };
        Ok(Box::new(Arcs { arms, vectors, pairs, t, compute: source.compute }))
    }
}

enum Vectors {
    One,
    Rows(usize),
    Columns(usize),
}

#[derive(Clone, Copy)]
struct Arms {
    one: usize,
    two: usize,
    base: Option<usize>,
}

impl Arms {
    /// Writes one of the two vectors.
    #[inline(always)]
    fn fill(self, view: &View<'_>, which: usize, out: &mut [f32]) {
        let values = view.input(if which == 0 { self.one } else { self.two });
        match self.base {
            Some(base) => difference::<Single>(out, values, view.input(base)),
            None => out.copy_from_slice(values),
        }
    }
    /// ‖x‖², ‖y‖², ⟨x, y⟩ over a run.
    #[inline(always)]
    fn stats(self, view: &View<'_>) -> [f64; 3] {
        let mut sums = [0.0; 4];
        view.gram::<Single>(2, &|view: &View<'_>, i, out: &mut [f32]| self.fill(view, i, out), &mut sums);
        [sums[0], sums[3], sums[1]]
    }
}

fn coefficients([x, y, xy]: [f64; 3], t: f64) -> (f32, f32) {
    let cosine = (xy / (x.sqrt().max(1e-7) * y.sqrt().max(1e-7))).clamp(-1.0, 1.0);
    let linear = 1.0 - cosine * cosine <= 1e-16 || cosine < -1.0 + 1e-6;
    let (a, b) = if linear { (1.0 - t, t) } else { arc(cosine.acos(), t) };
    (a as f32, b as f32)
}

struct Arcs {
    arms: Arms,
    vectors: Vectors,
    pairs: Vec<(f32, f32)>,
    t: f64,
    compute: Compute,
}

impl Kernel for Arcs {
    fn rows(&self) -> Rows {
        if matches!(self.vectors, Vectors::Rows(_)) { Rows::Whole } else { Rows::Any }
    }
    fn apply(&self, view: &View<'_>, out: &mut [f32]) {
        let base = self.arms.base.map(|b| view.input(b));
        let mut pair = self.pairs.first().copied().unwrap_or((1.0, 0.0));
        for (i, o) in out.iter_mut().enumerate() {
            match self.vectors {
                Vectors::Rows(row) if i % row == 0 => {
                    pair = coefficients(self.arms.stats(&view.part(i, row)), self.t);
                }
                Vectors::Columns(columns) => pair = self.pairs[(view.start + i) % columns],
                _ => {}
            }
            let origin = base.map_or(0.0, |b| b[i]);
            let (x, y) = (view.input(self.arms.one)[i] - origin, view.input(self.arms.two)[i] - origin);
            *o = self.compute.round(origin + (pair.0 * x + pair.1 * y));
        }
    }
}
