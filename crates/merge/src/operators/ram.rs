//! RAM: a position that one expert changed keeps its full change; one that several changed is averaged over them.

/// D = Σ MᵢΔᵢ / max(Σ Mᵢ, 1) with Mᵢ = [|Δᵢ| > τ].
pub(super) fn merge(deltas: &[Vec<f32>], threshold: f32) -> Vec<f32> {
    let len = deltas.first().map_or(0, Vec::len);
    (0..len)
        .map(|i| {
            let changed = deltas.iter().map(|d| d[i]).filter(|d| d.abs() > threshold);
            let (sum, count) = changed.fold((0.0f32, 0.0f32), |(s, c), d| (s + d, c + 1.0));
            sum / count.max(1.0)
        })
        .collect()
}
