//! What happens between products, a row at a time, in the widest vectors of the machine.

use pulp::{Simd, WithSimd};

/// Numbers that are summed side by side.
const LANES: usize = 16;

/// Compiled for every width of vectors; the widest that the machine has is taken.
#[inline(always)]
fn wide<R>(f: impl FnOnce() -> R) -> R {
    struct Run<F>(F);
    impl<R, F: FnOnce() -> R> pulp::NullaryFnOnce for Run<F> {
        type Output = R;
        #[inline(always)]
        fn call(self) -> R {
            (self.0)()
        }
    }
    pulp::Arch::new().dispatch(Run(f))
}

/// The sum of `f` of every number, always in the same order.
#[inline(always)]
fn sum(row: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += f(*value);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane += f(*value);
    }
    lanes.iter().sum()
}

/// eˣ within two units of the last place, no less than e⁻⁸⁷ and no more than e⁸⁸.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Rounds to whole numbers, which then lie in the lowest bits.
    const MAGIC: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, MAGIC);
    let whole = shifted - MAGIC;
    // ln 2 in two parts, the first exact in products with whole numbers.
    let r = whole.mul_add(-0.693_359_4, x);
    let r = whole.mul_add(2.121_944_4e-4, r);
    let mut p = 1.987_569_2e-4f32;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p.mul_add(r, c);
    }
    let value = (p * r).mul_add(r, r) + 1.0;
    value * f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()))
}

/// RMS norm of a row.
pub(crate) fn rms_norm(out: &mut [f32], row: &[f32], weight: &[f32], eps: f32) {
    wide(
        #[inline(always)]
        || {
            let scale = 1.0 / (sum(row, |v| v * v) / row.len() as f32 + eps).sqrt();
            for ((out, value), weight) in out.iter_mut().zip(row).zip(weight) {
                *out = value * scale * weight;
            }
        },
    );
}

/// RMS norm of a head, in place.
pub(crate) fn rms_norm_in_place(head: &mut [f32], weight: &[f32], eps: f32) {
    wide(
        #[inline(always)]
        || {
            let scale = 1.0 / (sum(head, |v| v * v) / head.len() as f32 + eps).sqrt();
            for (value, weight) in head.iter_mut().zip(weight) {
                *value = *value * scale * weight;
            }
        },
    );
}

/// Turns the pairs (i, i + half) of a head.
pub(crate) fn rotate(head: &mut [f32], (cos, sin): (&[f32], &[f32])) {
    wide(
        #[inline(always)]
        || {
            let (first, second) = head.split_at_mut(cos.len());
            for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        },
    );
}

/// gate becomes silu(gate)·up.
pub(crate) fn silu_up(gate: &mut [f32], up: &[f32]) {
    wide(
        #[inline(always)]
        || {
            for (gate, up) in gate.iter_mut().zip(up) {
                *gate = *gate / (1.0 + exp(-*gate)) * up;
            }
        },
    );
}

/// Softmax of `scale` times the scores `from..to`; the others become 0.
pub(crate) fn softmax(scores: &mut [f32], (from, to): (usize, usize), scale: f32) {
    wide(
        #[inline(always)]
        || {
            scores[..from].fill(0.0);
            scores[to..].fill(0.0);
            let seen = &mut scores[from..to];
            let mut lanes = [f32::NEG_INFINITY; LANES];
            let (chunks, rest) = seen.as_chunks::<LANES>();
            for chunk in chunks {
                for (lane, value) in lanes.iter_mut().zip(chunk) {
                    *lane = if *value > *lane { *value } else { *lane };
                }
            }
            let greatest = lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, b| a.max(*b));
            for value in seen.iter_mut() {
                *value = exp((*value - greatest) * scale);
            }
            let inverse = 1.0 / sum(seen, |v| v);
            for value in seen.iter_mut() {
                *value *= inverse;
            }
        },
    );
}

/// Scores of a query with keys in blocks of (width of the query, 32) each: 32 scores a block.
pub(crate) fn block_scores(scores: &mut [f32], query: &[f32], keys: &[f32]) {
    const BLOCK: usize = 32;
    wide(
        #[inline(always)]
        || {
            for (scores, block) in scores.chunks_exact_mut(BLOCK).zip(keys.chunks_exact(query.len() * BLOCK)) {
                let mut sums = [0.0f32; BLOCK];
                for (q, keys) in query.iter().zip(block.as_chunks::<BLOCK>().0) {
                    for (sum, key) in sums.iter_mut().zip(keys) {
                        *sum = key.mul_add(*q, *sum);
                    }
                }
                scores.copy_from_slice(&sums);
            }
        },
    );
}

/// Rows of a width, weighted and summed: four sums side by side, each in the order of the rows.
pub(crate) fn weighted(out: &mut [f32], weights: &[f32], rows: &[f32]) {
    pulp::Arch::new().dispatch(Weighted { out, weights, rows });
}

struct Weighted<'w> {
    out: &'w mut [f32],
    weights: &'w [f32],
    rows: &'w [f32],
}

impl WithSimd for Weighted<'_> {
    type Output = ();

    #[inline(always)]
    #[allow(clippy::needless_range_loop, reason = "so the sums stay in registers")]
    fn with_simd<S: Simd>(self, simd: S) {
        const SUMS: usize = 4;
        let Self { out, weights, rows } = self;
        let (width, step) = (out.len(), 2 * S::F32_LANES);
        let (fours, rest) = weights.as_chunks::<SUMS>();
        let (rows, last) = rows[..weights.len() * width].split_at(fours.len() * SUMS * width);
        let whole = width / step * step;
        for (from, out) in (0..).step_by(step).zip(out[..whole].chunks_exact_mut(step)) {
            let mut sums = [[simd.splat_f32s(0.0); 2]; SUMS];
            let add = |sum: [S::f32s; 2], row: &[f32], weight: f32| {
                let (values, weight) = (S::as_simd_f32s(&row[..step]).0, simd.splat_f32s(weight));
                [simd.mul_add_f32s(values[0], weight, sum[0]), simd.mul_add_f32s(values[1], weight, sum[1])]
            };
            for (weights, rows) in fours.iter().zip(rows.chunks_exact(SUMS * width)) {
                for at in 0..SUMS {
                    sums[at] = add(sums[at], &rows[at * width + from..], weights[at]);
                }
            }
            for (at, (weight, row)) in rest.iter().zip(last.chunks_exact(width)).enumerate() {
                sums[at] = add(sums[at], &row[from..], *weight);
            }
            for (at, out) in S::as_mut_simd_f32s(out).0.iter_mut().enumerate() {
                let [a, b, c, d] = sums.map(|sum| sum[at]);
                *out = simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(c, d));
            }
        }
        for (at, out) in out.iter_mut().enumerate().skip(whole) {
            let mut sums = [0.0f32; SUMS];
            let each = weights.iter().zip(rows.chunks_exact(width).chain(last.chunks_exact(width))).enumerate();
            each.for_each(|(i, (weight, row))| sums[i % SUMS] = row[at].mul_add(*weight, sums[i % SUMS]));
            *out = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        }
    }
}

/// Adds magnitudes.
pub fn add_magnitudes(sums: &mut [f64], row: &[f32]) {
    wide(
        #[inline(always)]
        || {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += f64::from(value.abs());
            }
        },
    );
}

/// Adds a bias to a row.
pub(crate) fn add(row: &mut [f32], bias: &[f32]) {
    for (value, bias) in row.iter_mut().zip(bias) {
        *value += bias;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_exact_to_the_last_places() {
        for i in -8700..8800 {
            let x = i as f32 / 100.0;
            let true_value = f64::from(x).exp();
            let off = (f64::from(exp(x)) - true_value).abs() / true_value;
            assert!(off < 2.5e-7, "{x}: {off}");
        }
        assert!(exp(-1000.0) < 1e-37);
    }

    #[test]
    fn rows_are_weighted_in_their_order() {
        let number = |i: usize| ((i * 7919 % 1009) as f32 - 504.0) / 311.0;
        for (width, count) in [(32, 9), (128, 64), (20, 7), (80, 2), (5, 1)] {
            let rows: Vec<f32> = (0..width * count).map(number).collect();
            let weights: Vec<f32> = (0..count).map(|i| number(i + 17)).collect();
            let mut out = vec![9.0; width];
            weighted(&mut out, &weights, &rows);
            for (at, ours) in out.iter().enumerate() {
                let mut sums = [0.0f32; 4];
                for (i, weight) in weights.iter().enumerate() {
                    sums[i % 4] = rows[i * width + at].mul_add(*weight, sums[i % 4]);
                }
                assert_eq!(*ours, (sums[0] + sums[1]) + (sums[2] + sums[3]), "{width} {count} {at}");
            }
        }
    }

    #[test]
    fn softmax_weighs_what_is_seen() {
        let mut scores: Vec<f32> = (0..40).map(|i| (i * 7 % 13) as f32).collect();
        let expected: Vec<f64> = scores.iter().map(|s| (f64::from(*s) * 0.5).exp()).collect();
        let total: f64 = expected[3..37].iter().sum();
        softmax(&mut scores, (3, 37), 0.5);
        for (at, (ours, weight)) in scores.iter().zip(expected).enumerate() {
            let weight = if (3..37).contains(&at) { weight / total } else { 0.0 };
            assert!((f64::from(*ours) - weight).abs() < 1e-6, "{at}");
        }
    }
}
