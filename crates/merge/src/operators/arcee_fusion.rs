//! `arcee_fusion` (mergekit): importance I = |W₁ − W₀| ⊙ KL with KL = Σ p·ln(p/q) over the last axis, p and q the softmax of W₁
//! and W₀ plus 1e-8; θ = q₂ + 1.5(q₃ − q₁) with quartiles at index ⌊f·(n−1)⌋; W₁ where I ≥ θ, W₀ elsewhere.
//!
//! KL is a difference of nearly equal numbers and is computed in F64. Above a million elements mergekit estimates the
//! quartiles from a random sample; ours are exact.

use crate::MergeError;
use crate::arithmetic::{Arithmetic, simd, with_arithmetic};
use crate::method::{Base, Method, Resolved, Spec};
use crate::rank::{ordered, places};
use crate::source::{Kernel, Rows, Source, TILE, View};

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
        with_arithmetic!(source.compute, prepare(source))
    }
}

fn prepare<R: Arithmetic>(source: &Source<'_>) -> Result<Box<dyn Kernel>, MergeError> {
    let base = source.base()?;
    let (expert, row) = (1 - base.min(1), source.row());
    let divergences = source.scan(
        Rows::Whole,
        usize::MAX,
        || (Vec::new(), Pair::default()),
        #[inline(always)]
        |(rows, pair), view| {
            for start in (0..view.len).step_by(row) {
                let part = |i: usize| &view.input(i)[start..start + row];
                rows.push(divergence::<R>(part(expert), part(base), pair));
            }
        },
    )?;
    let divergences: Vec<f64> = divergences.into_iter().flat_map(|(rows, _)| rows).collect();
    let mut fusion =
        Fusion::<R> { base, expert, row, divergences, threshold: 0.0, precision: std::marker::PhantomData };
    // upstream: the index is computed in float32.
    let rank = |share: f32| (share * (source.len().saturating_sub(1)) as f32) as u64;
    let last = source.len().saturating_sub(1) as u64;
    let ranks = vec![[0.25, 0.5, 0.75].map(|s| rank(s).min(last)).to_vec()];
    let quartiles = places(
        source,
        &ranks,
        #[inline(always)]
        |view: &View<'_>, _: usize, keys: &mut [u32]| {
            let mut importances = [0.0; TILE];
            for (at, keys) in (0..).step_by(TILE).zip(keys.chunks_mut(TILE)) {
                let importances = &mut importances[..keys.len()];
                fusion.importances(&view.part(at, keys.len()), importances);
                keys.iter_mut().zip(importances).for_each(|(key, importance)| *key = ordered(*importance));
            }
        },
    )?;
    let value = |i: usize| unordered(quartiles[0][i].key);
    if source.len() > 0 {
        fusion.threshold = R::r(value(1) + R::r(1.5 * R::r(value(2) - value(0))));
    }
    Ok(Box::new(fusion))
}

fn unordered(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key & 0x7FFF_FFFF } else { !key })
}

/// Exponentials of two rows; reused.
#[derive(Default)]
struct Pair {
    p: Vec<f64>,
    q: Vec<f64>,
}

/// 1/(2k + 1): ln(p/q) = 2·artanh(z) = 2z·Σ z²ᵏ/(2k + 1), z = (p − q)/(p + q), small where the models are close.
const ODD: [f64; 8] = [1.0, 1.0 / 3.0, 1.0 / 5.0, 1.0 / 7.0, 1.0 / 9.0, 1.0 / 11.0, 1.0 / 13.0, 1.0 / 15.0];

/// Σ p·ln(p/q) over a row.
#[inline(always)]
fn divergence<R: Arithmetic>(expert: &[f32], base: &[f32], Pair { p, q }: &mut Pair) -> f64 {
    let (sum_p, sum_q) = (exponentials(expert, p), exponentials(base, q));
    if R::ROUNDS {
        let terms = p.iter().zip(&*q).map(|(p, q)| {
            let (p, q) = (R::r(R::r64(p / sum_p) + 1e-8), R::r(R::r64(q / sum_q) + 1e-8));
            f64::from(R::r(p * R::r(R::r(p / q).ln())))
        });
        return f64::from(R::r64(terms.sum()));
    }
    let shares = Shares { p, q, scales: [1.0 / sum_p, 1.0 / sum_q] };
    // Σ is taken before it is known whether it has enough terms: it nearly always has.
    let (sum, largest) = shares.logarithms(odd_series::<4>);
    if largest < 0.01 {
        return sum;
    }
    if largest < 0.1 { shares.logarithms(odd_series::<8>).0 } else { shares.logarithms(f64::atanh).0 }
}

/// artanh z by so many terms: below 0.01 four, below 0.1 eight leave out less than 1e-16 of it.
#[inline(always)]
fn odd_series<const TERMS: usize>(z: f64) -> f64 {
    let square = z * z;
    z * ODD[..TERMS].iter().rev().fold(0.0, |sum: f64, term| sum.mul_add(square, *term))
}

/// Exponentials of two rows, with what makes shares of them.
struct Shares<'a> {
    p: &'a [f64],
    q: &'a [f64],
    scales: [f64; 2],
}

impl Shares<'_> {
    /// Σ p·2·artanh(z), and the largest |z|.
    #[inline(always)]
    fn logarithms(&self, artanh: impl Fn(f64) -> f64) -> (f64, f64) {
        let (mut largest, mut sums) = ([0.0f64; LANES], [0.0f64; LANES]);
        for (p, q) in self.p.chunks(LANES).zip(self.q.chunks(LANES)) {
            for (((p, q), largest), sum) in p.iter().zip(q).zip(&mut largest).zip(&mut sums) {
                let (p, q) = (*p * self.scales[0] + 1e-8, *q * self.scales[1] + 1e-8);
                let z = (p - q) / (p + q);
                *largest = if z.abs() > *largest { z.abs() } else { *largest };
                *sum += p * 2.0 * artanh(z);
            }
        }
        (sums.into_iter().sum(), largest.into_iter().fold(0.0, f64::max))
    }
}

/// Numbers worked on side by side; the order of summation is fixed by it.
const LANES: usize = 16;

/// 1/k!.
const FACTORS: [f64; 13] = {
    let (mut factors, mut at) = ([1.0; 13], 1);
    while at < 13 {
        factors[at] = factors[at - 1] / at as f64;
        at += 1;
    }
    factors
};

/// exp(wᵢ − max w) by Taylor's sum, and Σ of them.
///
/// Where no exponent x is below −1/8, to x⁹: what is left out is at most |x|¹⁰/10! of the value, below 2.6e-16. Elsewhere x = k·ln 2 + r with |r| ≤ ln 2/2,
/// and eʳ is summed to r¹²: what is left out is at most e^|r|·|r|¹³/13!, below 2.4e-16. With the rounding of each step, at most 2⁻⁵³ of a sum between
/// 0.7 and 1.5, the error is below 2e-15 of the value.
#[inline(always)]
fn exponentials(row: &[f32], out: &mut Vec<f64>) -> f64 {
    let mut ends = [(f32::INFINITY, f32::NEG_INFINITY); LANES];
    for run in row.chunks(LANES) {
        for ((low, top), w) in ends.iter_mut().zip(run) {
            *low = if *w < *low { *w } else { *low };
            *top = if *w > *top { *w } else { *top };
        }
    }
    let (low, top) = ends.into_iter().fold(ends[0], |all, end| (all.0.min(end.0), all.1.max(end.1)));
    out.resize(row.len(), 0.0);
    if top - low <= 0.125 {
        return fill(row, out, |w| {
            let x = f64::from(w) - f64::from(top);
            FACTORS[..10].iter().rev().fold(0.0, |sum: f64, factor| sum.mul_add(x, *factor))
        });
    }
    // 1.5·2⁵²: what is added to it is rounded to a whole number, in the low bits.
    const WHOLE: f64 = 6_755_399_441_055_744.0;
    // ln 2 in two parts, the first with so few bits that its products with k are exact.
    const LN2: [f64; 2] = [6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10];
    fill(row, out, |w| {
        let x = f64::from(w) - f64::from(top);
        // Below, 2ᵏ would be no normal number.
        let x = if x > -700.0 { x } else { -700.0 };
        let shifted = x * std::f64::consts::LOG2_E + WHOLE;
        let k = shifted - WHOLE;
        let r = (x - k * LN2[0]) - k * LN2[1];
        let e = FACTORS.iter().rev().fold(0.0, |sum: f64, factor| sum.mul_add(r, *factor));
        f64::from_bits(e.to_bits().wrapping_add(shifted.to_bits() << 52))
    })
}

/// Fills `out` with what `exp` makes of a row, and sums it.
#[inline(always)]
fn fill(row: &[f32], out: &mut [f64], exp: impl Fn(f32) -> f64) -> f64 {
    let mut sums = [0.0; LANES];
    for (out, row) in out.chunks_mut(LANES).zip(row.chunks(LANES)) {
        for ((out, w), sum) in out.iter_mut().zip(row).zip(&mut sums) {
            *out = exp(*w);
            *sum += *out;
        }
    }
    sums.into_iter().sum()
}

struct Fusion<R> {
    base: usize,
    expert: usize,
    row: usize,
    /// KL of every row.
    divergences: Vec<f64>,
    threshold: f32,
    precision: std::marker::PhantomData<R>,
}

impl<R: Arithmetic> Fusion<R> {
    /// Importances of a run, row by row.
    #[inline(always)]
    fn importances(&self, view: &View<'_>, out: &mut [f32]) {
        let (base, expert) = (view.input(self.base), view.input(self.expert));
        let mut at = 0;
        while at < view.len {
            let row = (view.start + at) / self.row;
            let end = ((row + 1) * self.row - view.start).min(view.len);
            let divergence = self.divergences[row];
            for ((o, w), b) in out[at..end].iter_mut().zip(&expert[at..end]).zip(&base[at..end]) {
                *o = R::r64(f64::from(R::r(w - b).abs()) * divergence);
            }
            at = end;
        }
    }
}

impl<R: Arithmetic> Kernel for Fusion<R> {
    fn apply(&self, view: &View<'_>, out: &mut [f32]) {
        simd(
            #[inline(always)]
            || {
                for (at, out) in (0..).step_by(TILE).zip(out.chunks_mut(TILE)) {
                    let part = view.part(at, out.len());
                    self.importances(&part, out);
                    let (base, expert) = (part.input(self.base), part.input(self.expert));
                    for ((o, w), b) in out.iter_mut().zip(expert).zip(base) {
                        let taken = R::r(b + R::r(w - b));
                        *o = if *o >= self.threshold { taken } else { R::r(*b) };
                    }
                }
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arithmetic::Single;

    #[test]
    fn exponentials_keep_their_bound() {
        let mut row: Vec<f32> = (0..40_000).map(|i| -(i as f32) * 0.0173).collect();
        row.extend([-1e-30, -0.346_573_6, -0.346_573_7, -699.9, 0.0]);
        let mut ours = Vec::new();
        exponentials(&row, &mut ours);
        for (w, e) in row.iter().zip(&ours) {
            let expected = f64::from(*w).max(-700.0).exp();
            assert!((e - expected).abs() <= 2e-15 * expected, "{w}: {e} against {expected}");
        }
    }

    #[test]
    fn divergence_agrees_with_the_library_functions() {
        for (scale, change) in [(0.02f32, 1e-3f32), (1.0, 0.1), (3.0, 2.0), (30.0, 0.5)] {
            let wave = |i: usize, f: f32| ((i as f32 * f).sin() * scale, (i as f32 * 1.7).cos() * change);
            let base: Vec<f32> = (0..300).map(|i| wave(i, 0.37).0).collect();
            let expert: Vec<f32> = (0..300).map(|i| wave(i, 0.37).0 + wave(i, 0.37).1).collect();
            let softmax = |row: &[f32]| {
                let all: Vec<f64> = row.iter().map(|w| f64::from(*w).exp()).collect();
                let sum: f64 = all.iter().sum();
                all.into_iter().map(|e| e / sum + 1e-8).collect::<Vec<f64>>()
            };
            let (p, q) = (softmax(&expert), softmax(&base));
            let expected: f64 = p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum();
            let ours = divergence::<Single>(&expert, &base, &mut Pair::default());
            assert!((ours - expected).abs() <= 1e-12 + 1e-9 * expected.abs(), "{scale}: {ours} against {expected}");
        }
    }
}
