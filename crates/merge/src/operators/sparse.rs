//! Sparse task vectors and sign consensus (arcee-ai/mergekit 0.1.5 `generalized_task_arithmetic`, `sparsify`).

use crate::random::Stream;

/// Keeps the max(1, ⌊density·n⌋) elements of largest magnitude; equal magnitudes: the lower index.
pub(super) fn trim(mut delta: Vec<f32>, density: f64) -> Vec<f32> {
    if density >= 1.0 || delta.is_empty() {
        return delta;
    }
    if density <= 0.0 {
        delta.fill(0.0);
        return delta;
    }
    let keep = ((density * delta.len() as f64) as usize).max(1);
    let mut order: Vec<u32> = (0..delta.len() as u32).collect();
    let rank = |i: &u32| (std::cmp::Reverse(delta[*i as usize].abs().to_bits()), *i);
    order.select_nth_unstable_by_key(keep - 1, rank);
    for i in &order[keep..] {
        delta[*i as usize] = 0.0;
    }
    delta
}

/// Drops elements at random, then restores the L1 norm with one factor (mergekit's rescaling, not 1/density).
pub(super) fn drop_random(mut delta: Vec<f32>, density: f64, stream: Stream) -> Vec<f32> {
    if density >= 1.0 {
        return delta;
    }
    let norm = |d: &[f32]| d.iter().map(|v| f64::from(v.abs())).sum::<f64>();
    let before = norm(&delta);
    for (i, d) in delta.iter_mut().enumerate() {
        if stream.uniform(i) >= density {
            *d = 0.0;
        }
    }
    let after = norm(&delta);
    if before >= 1e-7 && after >= 1e-7 {
        let factor = (before / after) as f32;
        delta.iter_mut().for_each(|d| *d *= factor);
    }
    delta
}

/// Sums what agrees with the elected sign; a zero sum elects plus. With `normalize`, divided by the weights that agree.
pub(super) fn consensus(deltas: &[Vec<f32>], weight: f32, normalize: bool) -> Vec<f32> {
    let len = deltas.first().map_or(0, Vec::len);
    (0..len)
        .map(|i| {
            let total: f32 = deltas.iter().map(|d| d[i]).sum();
            let sign = if total >= 0.0 { 1.0 } else { -1.0 };
            let (mut kept, mut divisor) = (0.0, 0.0);
            for d in deltas {
                if d[i] * sign > 0.0 {
                    kept += d[i];
                    divisor += weight;
                }
            }
            if normalize && divisor != 0.0 { kept / divisor } else { kept }
        })
        .collect()
}
