//! A Qwen3 decoder with its backward pass, written out by hand.
//!
//! Written out rather than differentiated by a library, so that the pool can be trained on a laptop: nothing is
//! allocated or computed that the next step does not need. A test holds every gradient against finite differences.

use super::matmul::{Mat, product};

/// Sizes of the network; field names as in `config.json`.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Entries of the vocabulary.
    pub vocab: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the MLP.
    pub intermediate: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Attention heads, each with its own key and value.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

/// Epsilon of every RMS norm.
pub const NORM_EPS: f32 = 1e-6;
/// Base of the rotary angles.
pub const ROPE_THETA: f32 = 1e6;

/// Where a tensor lies in the flat parameter vector.
#[derive(Debug, Clone)]
pub struct Slot {
    /// The tensor's name in the checkpoint.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its range.
    pub range: std::ops::Range<usize>,
}

const PER_LAYER: usize = 11;

impl Shape {
    /// Every tensor in order: the embedding, eleven per layer, the final norm.
    #[must_use]
    pub fn slots(&self) -> Vec<Slot> {
        let (d, f, a, h) = (self.hidden, self.intermediate, self.heads * self.head_dim, self.head_dim);
        let mut slots: Vec<Slot> = Vec::new();
        let mut add = |name: String, shape: &[usize]| {
            let start = slots.last().map_or(0, |s| s.range.end);
            let len: usize = shape.iter().product();
            slots.push(Slot { name, shape: shape.to_vec(), range: start..start + len });
        };
        add("model.embed_tokens.weight".into(), &[self.vocab, d]);
        for layer in 0..self.layers {
            let mut add = |name: &str, shape: &[usize]| add(format!("model.layers.{layer}.{name}.weight"), shape);
            add("input_layernorm", &[d]);
            add("self_attn.q_proj", &[a, d]);
            add("self_attn.k_proj", &[a, d]);
            add("self_attn.v_proj", &[a, d]);
            add("self_attn.o_proj", &[d, a]);
            add("self_attn.q_norm", &[h]);
            add("self_attn.k_norm", &[h]);
            add("post_attention_layernorm", &[d]);
            add("mlp.gate_proj", &[f, d]);
            add("mlp.up_proj", &[f, d]);
            add("mlp.down_proj", &[d, f]);
        }
        add("model.norm.weight".into(), &[d]);
        slots
    }
}

/// A sequence of tokens with the weight of each as a *target* (the weight of predicting token t from those before).
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Weight of each token in the loss; the first is never predicted.
    pub weights: Vec<f32>,
}

/// What a layer keeps for its backward pass. Matrices are tokens × width.
struct Kept {
    input: Vec<f32>,
    normed: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    q_rot: Vec<f32>,
    k_rot: Vec<f32>,
    v: Vec<f32>,
    probs: Vec<Vec<f32>>,
    mixed: Vec<f32>,
    middle: Vec<f32>,
    normed2: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    act: Vec<f32>,
}

/// The network: shapes and tables, no parameters.
pub struct Network {
    /// Sizes.
    pub shape: Shape,
    slots: Vec<Slot>,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Network {
    /// A network for sequences of at most `max_len` tokens.
    #[must_use]
    pub fn new(shape: Shape, max_len: usize) -> Self {
        let half = shape.head_dim / 2;
        let angles: Vec<f32> = (0..max_len)
            .flat_map(|t| (0..half).map(move |i| t as f32 * ROPE_THETA.powf(-(i as f32) / half as f32)))
            .collect();
        Self {
            slots: shape.slots(),
            shape,
            cos: angles.iter().map(|a| a.cos()).collect(),
            sin: angles.iter().map(|a| a.sin()).collect(),
        }
    }

    /// Number of parameters.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.slots.last().map_or(0, |s| s.range.end)
    }

    fn layer(&self, layer: usize, tensor: usize) -> std::ops::Range<usize> {
        self.slots[1 + layer * PER_LAYER + tensor].range.clone()
    }

    /// y = x·Wᵀ backwards, for the matrix in `slot`: adds dy·W to `dx` and dyᵀ·x to the matrix' gradient.
    fn linear_back(&self, slot: usize, params: &[f32], grads: &mut [f32], dy: &[f32], x: &[f32], dx: &mut [f32]) {
        let Slot { shape, range, .. } = &self.slots[slot];
        let (outputs, inputs) = (shape[0], shape[1]);
        let tokens = dy.len() / outputs;
        let weight = Mat::new(&params[range.clone()], outputs, inputs);
        product(dx, inputs, 1.0, 1.0, Mat::new(dy, tokens, outputs), weight);
        let (dy, x) = (Mat::new(dy, tokens, outputs).t(), Mat::new(x, tokens, inputs));
        product(&mut grads[range.clone()], inputs, 1.0, 1.0, dy, x);
    }

    /// Rotates each head of each token in place; `sign` −1 undoes it.
    fn rotate(&self, x: &mut [f32], spans: &[std::ops::Range<usize>], sign: f32) {
        let (heads, dim) = (self.shape.heads, self.shape.head_dim);
        let half = dim / 2;
        for span in spans {
            for (t, row) in
                x[span.start * heads * dim..span.end * heads * dim].chunks_exact_mut(heads * dim).enumerate()
            {
                let (cos, sin) = (&self.cos[t * half..][..half], &self.sin[t * half..][..half]);
                for head in row.chunks_exact_mut(dim) {
                    let (a, b) = head.split_at_mut(half);
                    for i in 0..half {
                        let (x0, x1) = (a[i], b[i]);
                        a[i] = x0 * cos[i] - sign * x1 * sin[i];
                        b[i] = x1 * cos[i] + sign * x0 * sin[i];
                    }
                }
            }
        }
    }

    /// Runs `samples` forward and back. Adds the gradient of the weighted sum of token losses to `grads` and returns
    /// that sum and the sum of weights.
    pub fn loss(&self, params: &[f32], samples: &[Sample], grads: Option<&mut [f32]>) -> (f64, f64) {
        let Shape { hidden: d, intermediate: f, heads, head_dim, .. } = self.shape;
        let width = heads * head_dim;
        let mut spans = Vec::new();
        let mut ids = Vec::new();
        for sample in samples {
            spans.push(ids.len()..ids.len() + sample.ids.len());
            ids.extend_from_slice(&sample.ids);
        }
        let n = ids.len();
        let embed = &params[self.slots[0].range.clone()];
        let mut x: Vec<f32> = Vec::with_capacity(n * d);
        for &id in &ids {
            x.extend_from_slice(&embed[id as usize * d..][..d]);
        }
        let scale = 1.0 / (head_dim as f32).sqrt();
        let linear = |x: &[f32], input: usize, w: &[f32], output: usize| {
            let mut y = vec![0.0; n * output];
            product(&mut y, output, 0.0, 1.0, Mat::new(x, n, input), Mat::new(w, output, input).t());
            y
        };

        let mut kept = Vec::with_capacity(self.shape.layers);
        for layer in 0..self.shape.layers {
            let w = |tensor| &params[self.layer(layer, tensor)];
            let input = x;
            let normed = rms_norm(&input, w(0));
            let q = linear(&normed, d, w(1), width);
            let k = linear(&normed, d, w(2), width);
            let v = linear(&normed, d, w(3), width);
            let (mut q_rot, mut k_rot) = (rms_norm(&q, w(5)), rms_norm(&k, w(6)));
            self.rotate(&mut q_rot, &spans, 1.0);
            self.rotate(&mut k_rot, &spans, 1.0);
            let mut mixed = vec![0.0; n * width];
            let mut probs = Vec::with_capacity(spans.len() * heads);
            for span in &spans {
                let len = span.len();
                for head in 0..heads {
                    let at = span.start * width + head * head_dim;
                    let mut p = vec![0.0; len * len];
                    product(
                        &mut p,
                        len,
                        0.0,
                        scale,
                        Mat::strided(&q_rot[at..], len, head_dim, width),
                        Mat::strided(&k_rot[at..], len, head_dim, width).t(),
                    );
                    for (t, row) in p.chunks_exact_mut(len).enumerate() {
                        softmax(&mut row[..=t]);
                        row[t + 1..].fill(0.0);
                    }
                    product(
                        &mut mixed[at..],
                        width,
                        0.0,
                        1.0,
                        Mat::new(&p, len, len),
                        Mat::strided(&v[at..], len, head_dim, width),
                    );
                    probs.push(p);
                }
            }
            let mut middle = linear(&mixed, width, w(4), d);
            add(&mut middle, &input);
            let normed2 = rms_norm(&middle, w(7));
            let gate = linear(&normed2, d, w(8), f);
            let up = linear(&normed2, d, w(9), f);
            let act: Vec<f32> = gate.iter().zip(&up).map(|(g, u)| g * sigmoid(*g) * u).collect();
            x = linear(&act, f, w(10), d);
            add(&mut x, &middle);
            kept.push(Kept { input, normed, q, k, q_rot, k_rot, v, probs, mixed, middle, normed2, gate, up, act });
        }

        // The loss, at the positions whose next token counts.
        let final_norm = self.slots.last().map_or(0..0, |s| s.range.clone());
        let normed = rms_norm(&x, &params[final_norm.clone()]);
        let mut rows = Vec::new();
        for (span, sample) in spans.iter().zip(samples) {
            for t in 1..sample.ids.len() {
                if sample.weights[t] > 0.0 {
                    rows.push((span.start + t - 1, sample.ids[t], sample.weights[t]));
                }
            }
        }
        let vocab = self.shape.vocab;
        let chosen: Vec<f32> = rows.iter().flat_map(|(r, ..)| &normed[r * d..][..d]).copied().collect();
        let mut logits = vec![0.0; rows.len() * vocab];
        product(&mut logits, vocab, 0.0, 1.0, Mat::new(&chosen, rows.len(), d), Mat::new(embed, vocab, d).t());
        let (mut total, mut weight_sum) = (0.0, 0.0);
        for (row, (_, target, weight)) in logits.chunks_exact_mut(vocab).zip(&rows) {
            softmax(row);
            total -= f64::from(*weight) * f64::from(row[*target as usize].max(1e-30)).ln();
            weight_sum += f64::from(*weight);
            row[*target as usize] -= 1.0;
            row.iter_mut().for_each(|g| *g *= weight);
        }
        let Some(grads) = grads else { return (total, weight_sum) };

        // Backward. `logits` now holds its own gradient.
        product(
            &mut grads[self.slots[0].range.clone()],
            d,
            1.0,
            1.0,
            Mat::new(&logits, rows.len(), vocab).t(),
            Mat::new(&chosen, rows.len(), d),
        );
        let mut d_chosen = vec![0.0; rows.len() * d];
        product(&mut d_chosen, d, 0.0, 1.0, Mat::new(&logits, rows.len(), vocab), Mat::new(embed, vocab, d));
        let mut d_normed = vec![0.0; n * d];
        for ((r, ..), g) in rows.iter().zip(d_chosen.chunks_exact(d)) {
            add(&mut d_normed[r * d..][..d], g);
        }
        let mut dx = vec![0.0; n * d];
        rms_norm_back(&x, &params[final_norm.clone()], &d_normed, &mut dx, &mut grads[final_norm]);

        for layer in (0..self.shape.layers).rev() {
            let w = |tensor| &params[self.layer(layer, tensor)];
            let slot = |tensor| 1 + layer * PER_LAYER + tensor;
            let kept = &kept[layer];
            let mut d_act = vec![0.0; n * f];
            self.linear_back(slot(10), params, grads, &dx, &kept.act, &mut d_act);
            let (mut d_gate, mut d_up) = (vec![0.0; n * f], vec![0.0; n * f]);
            for i in 0..n * f {
                let (g, u) = (kept.gate[i], kept.up[i]);
                let s = sigmoid(g);
                d_up[i] = d_act[i] * g * s;
                d_gate[i] = d_act[i] * u * s * (1.0 + g * (1.0 - s));
            }
            let mut d_normed2 = vec![0.0; n * d];
            self.linear_back(slot(8), params, grads, &d_gate, &kept.normed2, &mut d_normed2);
            self.linear_back(slot(9), params, grads, &d_up, &kept.normed2, &mut d_normed2);
            let mut d_mixed = vec![0.0; n * width];
            rms_norm_back(&kept.middle, w(7), &d_normed2, &mut dx, &mut grads[self.layer(layer, 7)]);
            self.linear_back(slot(4), params, grads, &dx, &kept.mixed, &mut d_mixed);
            let (mut dq, mut dk, mut dv) = (vec![0.0; n * width], vec![0.0; n * width], vec![0.0; n * width]);
            let mut probs = kept.probs.iter();
            for span in &spans {
                let len = span.len();
                for head in 0..heads {
                    let at = span.start * width + head * head_dim;
                    let p = probs.next().map_or(&[][..], Vec::as_slice);
                    let d_out = Mat::strided(&d_mixed[at..], len, head_dim, width);
                    product(&mut dv[at..], width, 0.0, 1.0, Mat::new(p, len, len).t(), d_out);
                    let mut ds = vec![0.0; len * len];
                    product(&mut ds, len, 0.0, 1.0, d_out, Mat::strided(&kept.v[at..], len, head_dim, width).t());
                    for (row, p) in ds.chunks_exact_mut(len).zip(p.chunks_exact(len)) {
                        let dot: f32 = row.iter().zip(p).map(|(g, p)| g * p).sum();
                        row.iter_mut().zip(p).for_each(|(g, p)| *g = p * (*g - dot));
                    }
                    product(
                        &mut dq[at..],
                        width,
                        0.0,
                        scale,
                        Mat::new(&ds, len, len),
                        Mat::strided(&kept.k_rot[at..], len, head_dim, width),
                    );
                    product(
                        &mut dk[at..],
                        width,
                        0.0,
                        scale,
                        Mat::new(&ds, len, len).t(),
                        Mat::strided(&kept.q_rot[at..], len, head_dim, width),
                    );
                }
            }
            let mut d_normed = vec![0.0; n * d];
            self.linear_back(slot(3), params, grads, &dv, &kept.normed, &mut d_normed);
            for (rotated, raw, norm, tensor) in [(&mut dq, &kept.q, 5, 1), (&mut dk, &kept.k, 6, 2)] {
                self.rotate(rotated, &spans, -1.0);
                let mut d_raw = vec![0.0; n * width];
                rms_norm_back(raw, w(norm), rotated, &mut d_raw, &mut grads[self.layer(layer, norm)]);
                self.linear_back(slot(tensor), params, grads, &d_raw, &kept.normed, &mut d_normed);
            }
            rms_norm_back(&kept.input, w(0), &d_normed, &mut dx, &mut grads[self.layer(layer, 0)]);
        }
        let d_embed = &mut grads[self.slots[0].range.clone()];
        for (&id, g) in ids.iter().zip(dx.chunks_exact(d)) {
            add(&mut d_embed[id as usize * d..][..d], g);
        }
        (total, weight_sum)
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

fn add(to: &mut [f32], from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(a, b)| *a += b);
}

fn softmax(row: &mut [f32]) {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for v in row.iter_mut() {
        *v = (*v - max).exp();
        sum += *v;
    }
    row.iter_mut().for_each(|v| *v /= sum);
}

/// y = x / rms(x) · weight over chunks as long as `weight`.
fn rms_norm(x: &[f32], weight: &[f32]) -> Vec<f32> {
    let mut y = Vec::with_capacity(x.len());
    for row in x.chunks_exact(weight.len()) {
        let r = inverse_rms(row);
        y.extend(row.iter().zip(weight).map(|(v, w)| v * r * w));
    }
    y
}

fn inverse_rms(row: &[f32]) -> f32 {
    (row.iter().map(|v| v * v).sum::<f32>() / row.len() as f32 + NORM_EPS).sqrt().recip()
}

/// Adds to `dx` and to `dw`.
fn rms_norm_back(x: &[f32], weight: &[f32], dy: &[f32], dx: &mut [f32], dw: &mut [f32]) {
    let width = weight.len();
    for ((x, dy), dx) in x.chunks_exact(width).zip(dy.chunks_exact(width)).zip(dx.chunks_exact_mut(width)) {
        let r = inverse_rms(x);
        let dot: f32 = (0..width).map(|i| dy[i] * weight[i] * x[i]).sum();
        let back = dot * r * r * r / width as f32;
        for i in 0..width {
            dw[i] += dy[i] * x[i] * r;
            dx[i] += dy[i] * weight[i] * r - x[i] * back;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rolegraft_trajectory::{Key, Seed};

    #[test]
    fn gradients_agree_with_finite_differences() {
        let shape = Shape { vocab: 11, hidden: 8, intermediate: 12, layers: 2, heads: 2, head_dim: 4 };
        let network = Network::new(shape, 16);
        let mut rng = Key::new(Seed(3)).rng();
        let params: Vec<f32> = (0..network.parameters()).map(|_| (rng.normal() * 0.4 + 0.1) as f32).collect();
        let samples = [
            Sample { ids: vec![1, 4, 2, 9, 4, 2], weights: vec![0.0, 1.0, 0.1, 1.0, 0.0, 1.0] },
            Sample { ids: vec![3, 3, 7], weights: vec![0.0, 0.5, 1.0] },
        ];
        let mut grads = vec![0.0; params.len()];
        network.loss(&params, &samples, Some(&mut grads));
        let mut checked = 0;
        for slot in shape.slots() {
            for i in slot.range.clone().step_by((slot.range.len() / 5).max(1)) {
                let h = 3e-3;
                let at = |delta: f32| {
                    let mut p = params.clone();
                    p[i] += delta;
                    network.loss(&p, &samples, None).0
                };
                let numeric = (at(h) - at(-h)) / (2.0 * f64::from(h));
                let error = (numeric - f64::from(grads[i])).abs();
                assert!(error < 2e-3 + 2e-2 * numeric.abs(), "{}[{i}]: {numeric} against {}", slot.name, grads[i]);
                checked += 1;
            }
        }
        assert!(checked > 100);
    }
}
