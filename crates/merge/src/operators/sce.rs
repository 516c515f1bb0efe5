//! `sce` (select, calculate, erase; FuseChat, arXiv 2408.07990; mergekit): where `select_topk` τ < 1 the ⌊τ·#{Var ≠ 0}⌋
//! positions of largest population variance of Δᵢ over the experts stay in all experts; σ = sign of Σ Δᵢ (zero elects plus),
//! Eᵢ = [sign Δᵢ = σ], vᵢ = mean(Δᵢ²) normalised (all equal if their sum is below 1e-6); W = W₀ + Σ vᵢEᵢΔᵢ / max(Σ vᵢEᵢ, 1e-6).

use super::task_arithmetic::difference;
use crate::MergeError;
use crate::arithmetic::{Arithmetic, simd, sum64, with_arithmetic};
use crate::method::{Base, Fallback, Method, Parameter, Resolved, Spec};
use crate::rank::{Cut, largest};
use crate::source::{Kernel, Rows, Source, TILE, View};

pub(crate) struct Sce;

impl Method for Sce {
    fn spec(&self) -> &Spec {
        const {
            &Spec {
                name: "sce",
                summary: "task vectors where the experts differ most, weighted by their energy, by sign consensus",
                base: Base::Required,
                experts: (1, usize::MAX),
                parameters: &[
                    Parameter::shared("int8_mask", Fallback::Bool(false)),
                    Parameter::shared("select_topk", Fallback::Number(1.0)),
                ],
            }
        }
    }
    fn prepare(&self, p: &Resolved, source: &Source<'_>) -> Result<Box<dyn Kernel>, MergeError> {
        with_arithmetic!(source.compute, prepare(p, source))
    }
}

/// What stays selected.
enum Selection {
    All,
    None,
    Cut(Cut),
}

fn prepare<R: Arithmetic>(p: &Resolved, source: &Source<'_>) -> Result<Box<dyn Kernel>, MergeError> {
    let (base, experts) = (source.base()?, source.experts());
    let mut sce = Merged::<R> {
        base,
        experts,
        selection: Selection::All,
        weights: Vec::new(),
        precision: std::marker::PhantomData,
    };
    let topk = p.number("select_topk");
    if topk < 1.0 {
        let nonzero = source.sums(
            Rows::Any,
            1,
            #[inline(always)]
            |sums, view| {
                let mut variance = vec![0.0; view.len];
                sce.variance(view, &mut variance);
                sums[0] += variance.iter().filter(|v| **v != 0.0).count() as f64;
            },
        )?;
        let keep = (nonzero[0] * topk.max(0.0)) as u64;
        let cut = largest(
            source,
            &[keep],
            #[inline(always)]
            |view: &View<'_>, _: usize, keys: &mut [u32]| {
                let mut variance = vec![0.0; view.len];
                sce.variance(view, &mut variance);
                keys.iter_mut().zip(variance).for_each(|(k, v)| *k = v.to_bits());
            },
        )?;
        sce.selection = cut.into_iter().flatten().next().map_or(Selection::None, Selection::Cut);
    }
    let squares = source.sums(
        Rows::Any,
        sce.experts.len(),
        #[inline(always)]
        |sums, view| {
            let deltas = sce.deltas(view);
            for (sum, delta) in sums.iter_mut().zip(&deltas) {
                *sum += sum64(delta, delta, |x, _| f64::from(R::r(x * x)));
            }
        },
    )?;
    let means: Vec<f32> = squares.iter().map(|s| R::r64(s / source.len().max(1) as f64)).collect();
    let sum = R::r(means.iter().sum());
    sce.weights = if sum.abs() < 1e-6 {
        vec![R::r(1.0 / means.len() as f32); means.len()]
    } else {
        means.iter().map(|m| R::r(m / sum)).collect()
    };
    Ok(Box::new(sce))
}

struct Merged<R> {
    base: usize,
    experts: Vec<usize>,
    selection: Selection,
    weights: Vec<f32>,
    precision: std::marker::PhantomData<R>,
}

impl<R: Arithmetic> Merged<R> {
    #[inline(always)]
    fn raw_deltas(&self, view: &View<'_>) -> Vec<Vec<f32>> {
        let delta = |e: &usize| {
            let mut delta = vec![0.0; view.len];
            difference::<R>(&mut delta, view.input(*e), view.input(self.base));
            delta
        };
        self.experts.iter().map(delta).collect()
    }
    /// Var of Δᵢ over the experts, elementwise.
    #[inline(always)]
    fn variance(&self, view: &View<'_>, out: &mut [f32]) {
        let (base, n) = (view.input(self.base), self.experts.len() as f64);
        let (mut mean, mut square) = ([0.0f64; TILE], [0.0f64; TILE]);
        for (at, out) in (0..).step_by(TILE).zip(out.chunks_mut(TILE)) {
            let (len, base) = (out.len(), &base[at..at + out.len()]);
            let (mean, square) = (&mut mean[..len], &mut square[..len]);
            let deltas = |expert: &usize| {
                let values = view.input(*expert)[at..at + len].iter();
                values.zip(base).map(|(w, b)| f64::from(R::r(w - b)))
            };
            mean.fill(0.0);
            square.fill(0.0);
            for expert in &self.experts {
                mean.iter_mut().zip(deltas(expert)).for_each(|(sum, d)| *sum += d);
            }
            mean.iter_mut().for_each(|sum| *sum /= n);
            for expert in &self.experts {
                for ((sum, mean), d) in square.iter_mut().zip(&*mean).zip(deltas(expert)) {
                    *sum += (d - mean) * (d - mean);
                }
            }
            out.iter_mut().zip(square).for_each(|(o, sum)| *o = R::r64(*sum / n));
        }
    }
    /// Δᵢ where selected, 0 elsewhere.
    #[inline(always)]
    fn deltas(&self, view: &View<'_>) -> Vec<Vec<f32>> {
        let mut deltas = self.raw_deltas(view);
        match self.selection {
            Selection::All => {}
            Selection::None => deltas.iter_mut().for_each(|d| d.fill(0.0)),
            Selection::Cut(cut) => {
                let mut variance = vec![0.0; view.len];
                self.variance(view, &mut variance);
                // None of variance zero is selected.
                cut.mask(&mut variance, view.start as u64);
                for delta in &mut deltas {
                    delta.iter_mut().zip(&variance).for_each(|(d, v)| *d = if *v > 0.0 { *d } else { 0.0 });
                }
            }
        }
        deltas
    }
}

impl<R: Arithmetic> Merged<R> {
    #[inline(always)]
    fn merge(&self, view: &View<'_>, out: &mut [f32]) {
        let deltas = self.deltas(view);
        let base = view.input(self.base);
        let mut sum = vec![0.0f32; view.len];
        for delta in &deltas {
            sum.iter_mut().zip(delta).for_each(|(s, d)| *s += d);
        }
        // The elected sign.
        sum.iter_mut().for_each(|s| *s = if R::r(*s) >= 0.0 { 1.0 } else { -1.0 });
        let (mut top, mut bottom) = (vec![0.0f32; view.len], vec![0.0f32; view.len]);
        for (delta, weight) in deltas.iter().zip(&self.weights) {
            for (((d, elected), top), bottom) in delta.iter().zip(&sum).zip(&mut top).zip(&mut bottom) {
                let weight = if d * elected > 0.0 { *weight } else { 0.0 };
                *top += R::r(d * weight);
                *bottom += weight;
            }
        }
        for (((o, b), top), bottom) in out.iter_mut().zip(base).zip(top).zip(bottom) {
            *o = R::r(b + R::r(R::r(top) / R::r(bottom).max(R::r(1e-6))));
        }
    }
}

impl<R: Arithmetic> Kernel for Merged<R> {
    fn apply(&self, view: &View<'_>, out: &mut [f32]) {
        simd(
            #[inline(always)]
            || {
                for at in (0..view.len).step_by(TILE) {
                    let part = view.part(at, TILE.min(view.len - at));
                    self.merge(&part, &mut out[at..at + part.len]);
                }
            },
        );
    }
}
