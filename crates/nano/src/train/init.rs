//! Copy-primed initialisation: layer 0 looks one, two and three tokens back, layer 1 finds where the current context
//! occurred before and copies what followed.
//!
//! Started the ordinary way, prototypes of this size did not learn to copy an id from their prompt within millions of
//! tokens; started like this a model copies from the first step, and training bends the circuit to the tasks.

use super::network::{ROPE_THETA, Shape};
use rolegraft_trajectory::{Key, Rng, Seed};

const EMBED: f32 = 0.1;

fn gaussian(rng: &mut Rng, len: usize, std: f32) -> Vec<f32> {
    (0..len).map(|_| rng.normal() as f32 * std).collect()
}

/// `n` orthonormal rows of width `n` by Gram–Schmidt; row 0 is the first unit vector if `pinned`.
fn orthonormal(rng: &mut Rng, n: usize, pinned: bool) -> Vec<Vec<f32>> {
    let mut rows: Vec<Vec<f32>> = Vec::new();
    while rows.len() < n {
        let mut row = if pinned && rows.is_empty() {
            (0..n).map(|i| if i == 0 { 1.0 } else { 0.0 }).collect()
        } else {
            gaussian(rng, n, 1.0)
        };
        for _ in 0..2 {
            for other in &rows {
                let dot: f32 = row.iter().zip(other).map(|(a, b)| a * b).sum();
                row.iter_mut().zip(other).for_each(|(a, b)| *a -= dot * b);
            }
        }
        let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
        if norm > 1e-3 {
            row.iter_mut().for_each(|v| *v /= norm);
            rows.push(row);
        }
    }
    rows
}

/// Fresh parameters. The shape must have at least two layers, four heads, and hidden = 4 · `head_dim`.
#[must_use]
pub fn copy_primed(shape: Shape, seed: Seed) -> Vec<f32> {
    let Shape { hidden: d, heads, head_dim: hd, intermediate: f, .. } = shape;
    let mut rng = Key::new(seed).child("init").rng();
    let mut params = Vec::new();
    for slot in shape.slots() {
        let len = slot.range.len();
        let name = slot.name.as_str();
        params.extend(if slot.shape.len() == 1 {
            vec![1.0; len]
        } else {
            let gain = if name.contains("o_proj") || name.contains("down_proj") { 0.3 } else { 0.7 };
            let fan_in = if name.contains("down_proj") { f } else { d };
            gaussian(&mut rng, len, gain / (fan_in as f32).sqrt())
        });
    }
    let basis = orthonormal(&mut rng, d, true);
    // Directions for a token's own content, and for the content of the tokens one, two and three back.
    let content: Vec<&[f32]> = basis[1..=hd].iter().map(Vec::as_slice).collect();
    let zero = vec![0.0; d];
    let back: Vec<Vec<&[f32]>> = (0..3)
        .map(|i| (0..hd).map(|j| basis.get(1 + hd * (i + 1) + j).map_or(zero.as_slice(), Vec::as_slice)).collect())
        .collect();

    let slots = shape.slots();
    let range = |name: &str| slots.iter().find(|s| s.name.ends_with(name)).map_or(0..0, |s| s.range.clone());
    let embed = &mut params[range("embed_tokens.weight")];
    for row in embed.chunks_exact_mut(d) {
        row.copy_from_slice(&gaussian(&mut rng, d, EMBED * 0.3));
        for direction in &content {
            let size = rng.normal() as f32 * EMBED * 1.6;
            row.iter_mut().zip(*direction).for_each(|(v, c)| *v += size * c);
        }
        row[0] = 3.0 * EMBED;
    }

    let half = hd / 2;
    let of_layer = |layer: usize, tensor: &str| range(&format!("layers.{layer}.self_attn.{tensor}.weight"));
    // Layer 0: a constant query against keys turned by D steps attends exactly D tokens back.
    for head in 0..heads {
        let damp = if head < 3 { 0.02 } else { 0.05 };
        for tensor in ["q_proj", "k_proj"] {
            params[of_layer(0, tensor)][head * hd * d..][..hd * d].iter_mut().for_each(|w| *w *= damp);
        }
        if head >= 3 {
            continue;
        }
        let distance = (head + 1) as f32;
        for i in 0..half.min(8) {
            let angle = distance * ROPE_THETA.powf(-(i as f32) / half as f32);
            for (tensor, re, im) in [("q_proj", 1.0, 0.0), ("k_proj", angle.cos(), angle.sin())] {
                let w = &mut params[of_layer(0, tensor)];
                w[(head * hd + i) * d] = re;
                w[(head * hd + half + i) * d] = im;
            }
        }
        let v = &mut params[of_layer(0, "v_proj")];
        for (j, direction) in content.iter().enumerate() {
            v[(head * hd + j) * d..][..d].copy_from_slice(direction);
        }
        let o = &mut params[of_layer(0, "o_proj")];
        for (j, direction) in back[head].iter().enumerate() {
            for (row, c) in direction.iter().enumerate() {
                o[row * heads * hd + head * hd + j] = c * 1.5 * EMBED;
            }
        }
    }
    params[of_layer(0, "q_norm")].fill(5.0);
    params[of_layer(0, "k_norm")].fill(5.0);

    // Layer 1: induction. Keys hold what came before a token, queries hold the present context.
    for head in 0..heads {
        let maps: Vec<Vec<Vec<f32>>> = (0..3).map(|_| orthonormal(&mut rng, hd, false)).collect();
        let present = [&content, &back[0], &back[1]];
        let slow = (0..hd).filter(|row| row % half >= 7);
        for row in 0..hd {
            for tensor in ["q_proj", "k_proj"] {
                params[of_layer(1, tensor)][(head * hd + row) * d..][..d].fill(0.0);
            }
        }
        for row in slow {
            for (step, size) in [1.0, 0.8, 0.6].into_iter().enumerate() {
                for (j, weight) in maps[step][row].iter().enumerate() {
                    for (tensor, direction) in [("q_proj", present[step][j]), ("k_proj", back[step][j])] {
                        let w = &mut params[of_layer(1, tensor)][(head * hd + row) * d..][..d];
                        w.iter_mut().zip(direction).for_each(|(w, c)| *w += size * weight * c);
                    }
                }
            }
        }
        for (j, direction) in content.iter().enumerate() {
            params[of_layer(1, "v_proj")][(head * hd + j) * d..][..d].copy_from_slice(direction);
            let o = &mut params[of_layer(1, "o_proj")];
            for (row, c) in direction.iter().enumerate() {
                o[row * heads * hd + head * hd + j] = c * EMBED * 8.0 / heads as f32;
            }
        }
    }
    params[of_layer(1, "q_norm")].fill(2.7);
    params[of_layer(1, "k_norm")].fill(2.7);
    params
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::network::{Network, Sample};

    #[test]
    fn a_fresh_model_already_copies() {
        let shape = crate::build::SHAPE;
        let params = copy_primed(shape, Seed(1));
        let mut rng = Key::new(Seed(5)).rng();
        let half: Vec<u32> = (0..90).map(|_| 9 + rng.below(1000) as u32).collect();
        let ids: Vec<u32> = half.iter().chain(&half).copied().collect();
        let network = Network::new(shape, 256);
        let loss = |from: usize| {
            let weights = (0..ids.len()).map(|t| if t >= from && t < from + 80 { 1.0 } else { 0.0 }).collect();
            let (sum, weight) = network.loss(&params, &[Sample { ids: ids.clone(), weights }], None);
            sum / weight
        };
        let (first, second) = (loss(5), loss(95));
        assert!(second < first * 0.8, "unseen {first:.3}, repeated {second:.3}");
    }
}
