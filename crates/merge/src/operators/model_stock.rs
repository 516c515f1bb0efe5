//! Model Stock with `filter_wise` false: one ratio per tensor.

/// t = N·c / (1 + (N−1)·c) with c the mean cosine of the task vectors; W = t·mean(Wᵢ) + (1−t)·W₀.
///
/// The clamp of 1e-6 on the product of norms is the reference's: tensors whose task vectors are tiny fall back towards
/// the base. With fewer than two experts c is undefined and taken as 0.
pub(super) fn merge(base: &[f32], experts: &[Vec<f32>], deltas: &[Vec<f32>]) -> Vec<f32> {
    let n = experts.len() as f64;
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    let norms: Vec<f64> = deltas.iter().map(|d| dot(d, d).sqrt()).collect();
    let (mut sum, mut pairs) = (0.0, 0.0);
    for i in 0..deltas.len() {
        for j in i + 1..deltas.len() {
            sum += (dot(&deltas[i], &deltas[j]) / (norms[i] * norms[j]).max(1e-6)).clamp(-1.0, 1.0);
            pairs += 1.0;
        }
    }
    let cosine = if pairs > 0.0 { sum / pairs } else { 0.0 };
    let divisor = 1.0 + (n - 1.0) * cosine;
    let t = if divisor.abs() < 1e-6 { 0.0 } else { (n * cosine / divisor) as f32 };
    (0..base.len())
        .map(|i| {
            let mean = experts.iter().map(|e| e[i]).sum::<f32>() / n as f32;
            t * mean + (1.0 - t) * base[i]
        })
        .collect()
}
