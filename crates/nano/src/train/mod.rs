//! Training: batches of dialogues, gradients in fixed shards, AdamW on a cosine.
//!
//! The result depends on the seed alone: a batch is always cut into the same shards, and their gradients are added in
//! order, however many threads computed them.

pub mod init;
mod matmul;
pub mod network;

use network::{Network, Sample};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// How a phase is trained.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// Tokens to read.
    pub tokens: u64,
    /// Highest learning rate.
    pub learning_rate: f32,
    /// Weight in the loss of tokens that the model is not to produce.
    pub context_weight: f32,
}

const BATCH_TOKENS: usize = 4096;
const SHARDS: usize = 4;
const BETA1: f32 = 0.9;
const BETA2: f32 = 0.95;
const EPS: f32 = 1e-8;
const WEIGHT_DECAY: f32 = 0.05;
const CLIP: f64 = 1.0;
const WARM_UP: u64 = 20;
const FLOOR: f32 = 0.05;

/// Where a phase stands; with the recipe and the data, all that is needed to go on.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Parameters.
    pub params: Vec<f32>,
    /// First moments.
    pub first: Vec<f32>,
    /// Second moments.
    pub second: Vec<f32>,
    /// Steps taken.
    pub step: u64,
    /// Dialogues read.
    pub read: u64,
    /// Tokens read.
    pub tokens: u64,
}

impl State {
    /// The start of a phase from `params`.
    #[must_use]
    pub fn new(params: Vec<f32>) -> Self {
        let zeros = vec![0.0; params.len()];
        Self { params, first: zeros.clone(), second: zeros, ..Self::default() }
    }
}

/// Takes one step. `next` gives dialogue number i as token ids with a flag for those the model is to produce.
/// Returns the mean loss per unit of weight, in nats.
pub fn step(
    network: &Network,
    recipe: &Recipe,
    state: &mut State,
    next: &(dyn Fn(u64) -> Vec<(u32, bool)> + Sync),
) -> f64 {
    let mut batch = Vec::new();
    let mut tokens = 0;
    while tokens < BATCH_TOKENS {
        let wave: Vec<Sample> = (state.read..state.read + SHARDS as u64)
            .into_par_iter()
            .map(|i| {
                let (ids, own): (Vec<u32>, Vec<bool>) = next(i).into_iter().unzip();
                Sample { ids, weights: own.iter().map(|own| if *own { 1.0 } else { recipe.context_weight }).collect() }
            })
            .collect();
        state.read += SHARDS as u64;
        tokens += wave.iter().map(|s| s.ids.len()).sum::<usize>();
        batch.extend(wave);
    }
    let shard = batch.len() / SHARDS;
    let params = &state.params;
    let results: Vec<(Vec<f32>, (f64, f64))> = batch
        .par_chunks(shard)
        .map(|samples| {
            let mut grads = vec![0.0; params.len()];
            let loss = network.loss(params, samples, Some(&mut grads));
            (grads, loss)
        })
        .collect();
    let (mut total, mut weight) = (0.0, 0.0);
    let mut grads = vec![0.0f32; params.len()];
    for (part, (t, w)) in &results {
        grads.iter_mut().zip(part).for_each(|(g, p)| *g += p);
        total += t;
        weight += w;
    }
    let norm = grads.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt() / weight;
    let scale = ((CLIP / norm).min(1.0) / weight) as f32;

    state.step += 1;
    let progress = (state.tokens as f32 / recipe.tokens as f32).min(1.0);
    let cosine = FLOOR + (1.0 - FLOOR) * 0.5 * (1.0 + (std::f32::consts::PI * progress).cos());
    let rate = recipe.learning_rate * cosine * (state.step as f32 / WARM_UP as f32).min(1.0);
    state.tokens += tokens as u64;
    let correct1 = 1.0 - BETA1.powi(state.step as i32);
    let correct2 = 1.0 - BETA2.powi(state.step as i32);
    for slot in network.shape.slots() {
        let decay = if slot.shape.len() == 2 { rate * WEIGHT_DECAY } else { 0.0 };
        for i in slot.range {
            let g = grads[i] * scale;
            let m = &mut state.first[i];
            *m = BETA1 * *m + (1.0 - BETA1) * g;
            let v = &mut state.second[i];
            *v = BETA2 * *v + (1.0 - BETA2) * g * g;
            let p = &mut state.params[i];
            *p -= rate * (*m / correct1) / ((*v / correct2).sqrt() + EPS) + decay * *p;
        }
    }
    total / weight
}
