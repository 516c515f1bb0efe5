//! Tracing: layer by layer over all trajectories, so that one layer is in memory at a time.

use crate::decoder::{DecoderError, Layer, Rotary, embed, supported};
use crate::saliency::TENTHS;
use crate::{NeuronSet, Saliency};
use candle_core::Tensor;
use rayon::prelude::*;
use rolegraft_checkpoint::Checkpoint;

/// Tokens the model saw as one context, and the positions to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRun {
    /// Ids from the start of the context.
    pub ids: Vec<u32>,
    /// Positions of role tokens, ascending.
    pub role: Vec<usize>,
}

/// A trajectory: usually one run; several where the chat template rewrites earlier turns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trajectory {
    /// Its runs.
    pub runs: Vec<TokenRun>,
}

/// Traces every trajectory, teacher-forced. The result does not depend on the number of threads.
///
/// # Errors
/// If the checkpoint cannot be run, or a run is longer than its positions.
pub fn trace(checkpoint: &Checkpoint, trajectories: &[Trajectory]) -> Result<Saliency, DecoderError> {
    let config = checkpoint.config();
    supported(config)?;
    let mut saliency = Saliency::empty(config.num_hidden_layers, config.intermediate_size);
    let mut waves: Vec<(usize, &[usize], Tensor)> = Vec::new();
    let mut weights = Vec::new();
    let mut longest = 1;
    for trajectory in trajectories {
        let role_tokens: usize = trajectory.runs.iter().map(|r| r.role.len()).sum();
        if role_tokens == 0 {
            saliency.without_role += 1;
            continue;
        }
        for run in &trajectory.runs {
            // Causal: tokens after the last role token cannot change anything.
            let Some(end) = run.role.last().map(|last| last + 1) else { continue };
            if end > config.max_position_embeddings || end > run.ids.len() {
                return Err(DecoderError::TooLong { tokens: end, limit: config.max_position_embeddings });
            }
            longest = longest.max(end);
            waves.push((saliency.traced, &run.role, embed(checkpoint, &run.ids[..end])?));
        }
        weights.push(1.0 / role_tokens as f64);
        saliency.tenths[saliency.traced % TENTHS].traced += 1;
        saliency.traced += 1;
        saliency.tokens += role_tokens;
    }
    let rotary = Rotary::new(config, longest)?;
    for index in 0..config.num_hidden_layers {
        let layer = Layer::load(checkpoint, index)?;
        let sums: Vec<Vec<f64>> = waves
            .par_iter_mut()
            .map(|(trajectory, role, x)| {
                let mut sum = vec![0.0; config.intermediate_size];
                *x = layer.forward(config, &rotary, x, 0, &mut None, &mut |module, input| {
                    for position in role.iter().filter(|_| module == "mlp.down_proj") {
                        let row: Vec<f32> = input.get(*position)?.to_vec1()?;
                        sum.iter_mut().zip(row).for_each(|(s, v)| *s += f64::from(v.abs()));
                    }
                    Ok(())
                })?;
                sum.iter_mut().for_each(|s| *s *= weights[*trajectory]);
                Ok(sum)
            })
            .collect::<Result<_, DecoderError>>()?;
        for (sum, (trajectory, ..)) in sums.iter().zip(&waves) {
            saliency.sums[index].iter_mut().zip(sum).for_each(|(a, b)| *a += b);
            let tenth = &mut saliency.tenths[trajectory % TENTHS].sums[index];
            tenth.iter_mut().zip(sum).for_each(|(a, b)| *a += *b as f32);
        }
    }
    Ok(saliency)
}

/// The share of the union of several sets that at least two of them have.
#[must_use]
pub fn union_overlap(sets: &[NeuronSet]) -> f64 {
    let union = sets.iter().fold(NeuronSet::default(), |u, s| u.union(s));
    let shared = sets.iter().enumerate().fold(NeuronSet::default(), |shared, (i, a)| {
        sets[i + 1..].iter().fold(shared, |shared, b| shared.union(&a.intersection(b)))
    });
    if union.is_empty() { 0.0 } else { shared.len() as f64 / union.len() as f64 }
}
