//! `model_stock` (Jang et al. 2024; mergekit): t = N·c / (1 + (N−1)·c), W = t·mean(Wᵢ) + (1−t)·W₀, with c the mean over pairs
//! of clip(⟨Δᵢ,Δⱼ⟩ / max(‖Δᵢ‖‖Δⱼ‖, 1e-6), −1, 1); t = 0 where |1 + (N−1)c| < 1e-6. With `filter_wise` one t per row of the last
//! axis (a 1-D tensor is one row).
//!
//! t is not clamped. The clamp on the product of norms shrinks the cosine of tiny task vectors, which then fall back
//! towards the base.

use super::task_arithmetic::difference;
use crate::MergeError;
use crate::arithmetic::{Arithmetic, simd, with_arithmetic};
use crate::method::{Base, Fallback, Method, Parameter, Resolved, Spec};
use crate::source::{Kernel, Rows, Source, View};

pub(crate) struct ModelStock;

impl Method for ModelStock {
    fn spec(&self) -> &Spec {
        const {
            &Spec {
                name: "model_stock",
                summary: "between the base and the experts' mean, by the angle between task vectors",
                base: Base::Required,
                experts: (2, usize::MAX),
                parameters: &[Parameter::shared("filter_wise", Fallback::Bool(false))],
            }
        }
    }
    fn prepare(&self, p: &Resolved, source: &Source<'_>) -> Result<Box<dyn Kernel>, MergeError> {
        with_arithmetic!(source.compute, prepare(p, source))
    }
}

fn prepare<R: Arithmetic>(p: &Resolved, source: &Source<'_>) -> Result<Box<dyn Kernel>, MergeError> {
    let (base, experts) = (source.base()?, source.experts());
    let (row, ratio) = if p.flag("filter_wise") {
        (Some(source.row()), 0.0)
    } else {
        let gram = source.gram::<R>(
            experts.len(),
            #[inline(always)]
            |view, i, out| {
                difference::<R>(out, view.input(experts[i]), view.input(base));
            },
        )?;
        (None, ratio::<R>(&gram))
    };
    Ok(Box::new(Stock::<R> { base, experts, row, ratio, precision: std::marker::PhantomData }))
}

/// t, from the Gram matrix of the task vectors.
fn ratio<R: Arithmetic>(gram: &[Vec<f64>]) -> f32 {
    let n = gram.len();
    let norms: Vec<f32> = (0..n).map(|i| R::r64(gram[i][i].sqrt())).collect();
    let mut cosines = Vec::new();
    for i in 0..n {
        for j in i + 1..n {
            let product = R::r(norms[i] * norms[j]).max(R::r(1e-6));
            cosines.push(R::r(R::r64(gram[i][j]) / product).clamp(-1.0, 1.0));
        }
    }
    let cosine = R::r(cosines.iter().sum::<f32>() / cosines.len().max(1) as f32);
    let divisor = R::r(1.0 + R::r((n - 1) as f32 * cosine));
    if divisor.abs() < 1e-6 { 0.0 } else { R::r(R::r(n as f32 * cosine) / divisor) }
}

struct Stock<R> {
    base: usize,
    experts: Vec<usize>,
    /// Length of rows that have a ratio each.
    row: Option<usize>,
    ratio: f32,
    precision: std::marker::PhantomData<R>,
}

impl<R: Arithmetic> Kernel for Stock<R> {
    fn rows(&self) -> Rows {
        if self.row.is_some() { Rows::Whole } else { Rows::Any }
    }
    fn apply(&self, view: &View<'_>, out: &mut [f32]) {
        simd(
            #[inline(always)]
            || match self.row {
                None => self.blend(view, 0, out, self.ratio),
                Some(row) => {
                    for (i, out) in out.chunks_mut(row).enumerate() {
                        let ratio = self.row_ratio(view, i * row, row);
                        self.blend(view, i * row, out, ratio);
                    }
                }
            },
        );
    }
}

impl<R: Arithmetic> Stock<R> {
    fn row_ratio(&self, view: &View<'_>, from: usize, len: usize) -> f32 {
        let n = self.experts.len();
        let mut sums = vec![0.0; n * n];
        let fill = |view: &View<'_>, e: usize, out: &mut [f32]| {
            difference::<R>(out, view.input(self.experts[e]), view.input(self.base));
        };
        view.part(from, len).gram::<R>(n, &fill, &mut sums);
        let gram: Vec<Vec<f64>> = (0..n).map(|a| (0..n).map(|b| sums[a.min(b) * n + a.max(b)]).collect()).collect();
        ratio::<R>(&gram)
    }
    #[inline(always)]
    fn blend(&self, view: &View<'_>, from: usize, out: &mut [f32], ratio: f32) {
        let len = out.len();
        out.fill(0.0);
        for e in &self.experts {
            out.iter_mut().zip(&view.input(*e)[from..from + len]).for_each(|(o, w)| *o = R::r(*o + w));
        }
        let (count, rest) = (self.experts.len() as f32, R::r(1.0 - ratio));
        for (o, b) in out.iter_mut().zip(&view.input(self.base)[from..from + len]) {
            *o = R::r(R::r(ratio * R::r(*o / count)) + R::r(rest * b));
        }
    }
}
