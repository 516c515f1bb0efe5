//! `widen` (Yu et al. 2024; yule-BUAA/MergeLLM@9178ef9:model_merging_methods/merging_methods.py): columns of a matrix weighted by
//! how far each expert moved them in magnitude and direction.
//!
//! For matrices (out × in; the embedding is taken transposed, so that its columns are tokens): gᵢ = |‖column of Wᵢ‖ − ‖of W₀‖|,
//! hᵢ = 1 − their cosine; per expert the columns are ranked by g and by h (rank/in, highest = 1 − 1/in); the score is the
//! softmax of the ranks over the experts, then κ where an expert's rank exceeds ρ times its mean; s = ½(s_g + s_h);
//! W = W₀ + Σ sᵢ ⊙ Δᵢ. Vectors: the same with |Δᵢ| in place of ranks.
//!
//! h is computed in F64 and is 0 where a column equals the base's bit for bit (upstream ranks rounding noise there); columns
//! without direction (all zero) rank highest.

use crate::MergeError;
use crate::arithmetic::{Arithmetic, with_arithmetic};
use crate::method::{Base, Fallback, Method, Parameter, Resolved, Spec};
use crate::source::{FEW_SEGMENTS, Kernel, Rows, Source, View};
use std::cmp::Ordering;

pub(crate) struct Widen;

impl Method for Widen {
    fn spec(&self) -> &Spec {
        const {
            &Spec {
                name: "widen",
                summary: "columns weighted by how far each expert moved them in magnitude and direction",
                base: Base::Required,
                experts: (1, usize::MAX),
                parameters: &[
                    Parameter::shared("above_average_value_ratio", Fallback::Number(1.0)),
                    Parameter::shared("score_calibration_value", Fallback::Number(1.0)),
                ],
            }
        }
    }
    fn prepare(&self, p: &Resolved, source: &Source<'_>) -> Result<Box<dyn Kernel>, MergeError> {
        let rule =
            Rule { ratio: p.number("above_average_value_ratio"), value: p.number("score_calibration_value") as f32 };
        with_arithmetic!(source.compute, prepare(rule, source))
    }
}

#[derive(Clone, Copy)]
struct Rule {
    ratio: f64,
    value: f32,
}

fn prepare<R: Arithmetic>(rule: Rule, source: &Source<'_>) -> Result<Box<dyn Kernel>, MergeError> {
    let (base, experts) = (source.base()?, source.experts());
    match source.shape.len() {
        1 => {
            let sums = source.sums(
                Rows::Any,
                experts.len(),
                #[inline(always)]
                |sums, view| {
                    for (sum, e) in sums.iter_mut().zip(&experts) {
                        let change = view.input(*e).iter().zip(view.input(base)).map(|(w, b)| R::r(w - b).abs());
                        *sum += change.map(f64::from).sum::<f64>();
                    }
                },
            )?;
            let limits = sums.iter().map(|s| R::r(R::r64(s / source.len() as f64) * rule.ratio as f32)).collect();
            Ok(Box::new(Vector::<R> { base, experts, limits, value: rule.value, precision: std::marker::PhantomData }))
        }
        2 => {
            // The embedding's columns are tokens, which lie in its rows.
            let by_row = source.name.contains("embed_tokens");
            let shifts = recorded(source, &experts)?.map_or_else(|| measure(source, base, &experts, by_row), Ok)?;
            let magnitude = scores(rule, &shifts.iter().map(|s| &s[0]).collect::<Vec<_>>());
            let direction = scores(rule, &shifts.iter().map(|s| &s[1]).collect::<Vec<_>>());
            let average = |(a, b): (&Vec<f32>, &Vec<f32>)| a.iter().zip(b).map(|(a, b)| (a + b) / 2.0).collect();
            let scores = magnitude.iter().zip(&direction).map(average).collect();
            Ok(Box::new(Matrix { base, experts, scores, by_row, row: source.row(), compute: source.compute }))
        }
        n => {
            Err(MergeError::tensor(source.name, format!("widen is defined for vectors and matrices, not for {n} axes")))
        }
    }
}

/// Magnitude and direction change per column, from a recording.
fn recorded(source: &Source<'_>, experts: &[usize]) -> Result<Option<Vec<[Vec<f64>; 2]>>, MergeError> {
    let Some(statistics) = source.session.statistics else { return Ok(None) };
    let read = |e: &usize, kind: &str| -> Result<Vec<f64>, MergeError> {
        let name = format!("{}/{}/{kind}", source.inputs[*e].model.name, source.name);
        let dtype = statistics.tensor(&name).map(|t| t.dtype);
        let values = dtype.and_then(|d| d.to_f32(statistics.bytes(&name).ok()?));
        let values = values.ok_or_else(|| MergeError::tensor(&name, "the statistics do not hold it"))?;
        Ok(values.into_iter().map(f64::from).collect())
    };
    experts.iter().map(|e| Ok([read(e, "magnitude")?, read(e, "direction")?])).collect::<Result<_, _>>().map(Some)
}

/// What is summed over a column: ‖W₀‖², then per expert ‖Wᵢ‖², ⟨Wᵢ, W₀⟩ and the number of elements that differ.
fn measure(
    source: &Source<'_>,
    base: usize,
    experts: &[usize],
    by_row: bool,
) -> Result<Vec<[Vec<f64>; 2]>, MergeError> {
    let (row, width) = (source.row(), 1 + 3 * experts.len());
    let columns = if by_row { source.len() / row } else { row };
    let add = |sums: &mut [f64], view: &View<'_>, i: usize| {
        let b = view.input(base)[i];
        sums[0] += f64::from(b) * f64::from(b);
        for (e, sums) in experts.iter().zip(sums[1..].chunks_mut(3)) {
            let w = view.input(*e)[i];
            sums[0] += f64::from(w) * f64::from(w);
            sums[1] += f64::from(w) * f64::from(b);
            sums[2] += f64::from(u8::from(w.to_bits() != b.to_bits()));
        }
    };
    let sums: Vec<f64> = if by_row {
        let parts = source.scan(
            Rows::Whole,
            usize::MAX,
            Vec::new,
            #[inline(always)]
            |rows: &mut Vec<f64>, view| {
                for start in (0..view.len).step_by(row) {
                    let mut sums = vec![0.0; width];
                    (start..start + row).for_each(|i| add(&mut sums, view, i));
                    rows.extend(sums);
                }
            },
        )?;
        parts.concat()
    } else {
        let make = || vec![0.0; width * columns];
        let parts = source.scan(
            Rows::Any,
            FEW_SEGMENTS,
            make,
            #[inline(always)]
            |sums, view| {
                for i in 0..view.len {
                    let column = (view.start + i) % row;
                    add(&mut sums[column * width..(column + 1) * width], view, i);
                }
            },
        )?;
        parts.into_iter().fold(make(), |mut total, part| {
            total.iter_mut().zip(part).for_each(|(t, p)| *t += p);
            total
        })
    };
    let change = |e: usize| -> [Vec<f64>; 2] {
        let at = |c: usize| (&sums[c * width], &sums[c * width + 1 + 3 * e..c * width + 4 + 3 * e]);
        let magnitude = |c: usize| {
            let (b, s) = at(c);
            (s[0].sqrt() - b.sqrt()).abs()
        };
        let direction = |c: usize| match at(c) {
            (b, s) if *b == 0.0 || s[0] == 0.0 => f64::NAN,
            (_, s) if s[2] == 0.0 => 0.0,
            (b, s) => 1.0 - s[1] / (b.sqrt() * s[0].sqrt()),
        };
        [(0..columns).map(magnitude).collect(), (0..columns).map(direction).collect()]
    };
    Ok((0..experts.len()).map(change).collect())
}

/// Scores of every expert's columns, from one kind of change.
fn scores(rule: Rule, changes: &[&Vec<f64>]) -> Vec<Vec<f32>> {
    let mut all: Vec<Vec<f32>> = changes.iter().map(|c| ranks(c)).collect();
    let limits: Vec<f32> = all
        .iter()
        .map(|r| (r.iter().map(|x| f64::from(*x)).sum::<f64>() / r.len().max(1) as f64 * rule.ratio) as f32)
        .collect();
    for c in 0..all.first().map_or(0, Vec::len) {
        let top = all.iter().map(|r| r[c]).fold(f32::MIN, f32::max);
        let sum: f32 = all.iter().map(|r| (r[c] - top).exp()).sum();
        for (ranks, limit) in all.iter_mut().zip(&limits) {
            ranks[c] = if ranks[c] > *limit { rule.value } else { (ranks[c] - top).exp() / sum };
        }
    }
    all
}

/// Ascending rank of every value over their number; stable, NaN last.
fn ranks(values: &[f64]) -> Vec<f32> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| {
        values[*a].partial_cmp(&values[*b]).unwrap_or_else(|| match values[*a].is_nan() {
            true if values[*b].is_nan() => Ordering::Equal,
            true => Ordering::Greater,
            false => Ordering::Less,
        })
    });
    let mut out = vec![0.0; values.len()];
    order.iter().enumerate().for_each(|(rank, at)| out[*at] = rank as f32 / values.len() as f32);
    out
}

struct Matrix {
    base: usize,
    experts: Vec<usize>,
    /// Per expert and column.
    scores: Vec<Vec<f32>>,
    by_row: bool,
    row: usize,
    compute: crate::arithmetic::Compute,
}

impl Kernel for Matrix {
    fn apply(&self, view: &View<'_>, out: &mut [f32]) {
        let base = view.input(self.base);
        out.copy_from_slice(base);
        for (e, scores) in self.experts.iter().zip(&self.scores) {
            for (i, ((o, w), b)) in out.iter_mut().zip(view.input(*e)).zip(base).enumerate() {
                let at = view.start + i;
                let column = if self.by_row { at / self.row } else { at % self.row };
                // upstream: the task vector has the models' precision, everything after it is float32.
                *o += scores[column] * self.compute.round(w - b);
            }
        }
        out.iter_mut().for_each(|o| *o = self.compute.round(*o));
    }
}

struct Vector<R> {
    base: usize,
    experts: Vec<usize>,
    limits: Vec<f32>,
    value: f32,
    precision: std::marker::PhantomData<R>,
}

impl<R: Arithmetic> Kernel for Vector<R> {
    fn apply(&self, view: &View<'_>, out: &mut [f32]) {
        let base = view.input(self.base);
        let mut changes = vec![0.0f32; self.experts.len()];
        for (i, o) in out.iter_mut().enumerate() {
            for (change, e) in changes.iter_mut().zip(&self.experts) {
                *change = R::r(view.input(*e)[i] - base[i]);
            }
            let top = changes.iter().map(|c| c.abs()).fold(f32::MIN, f32::max);
            let sum: f32 = changes.iter().map(|c| (c.abs() - top).exp()).sum();
            let mut total = 0.0;
            for (change, limit) in changes.iter().zip(&self.limits) {
                let softmax = R::r((change.abs() - top).exp() / sum);
                total += R::r(change * if change.abs() > *limit { self.value } else { softmax });
            }
            *o = R::r(base[i] + R::r(total));
        }
    }
}
