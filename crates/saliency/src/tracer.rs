//! Tracing: layer by layer over all trajectories, so that one layer is in memory at a time.

use crate::saliency::TENTHS;
use crate::{NeuronSet, Saliency};
use candle_core::Tensor;
use rayon::prelude::*;
use rolegraft_checkpoint::Checkpoint;
use rolegraft_decoder::{DecoderError, Layer, Rotary, embed, supported};

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

/// Where one saliency is read: by trajectory and run, positions in ascending order. A trajectory that is `None` is no part
/// of it; one without a position is counted as such.
pub type Reading = Vec<Option<Vec<Vec<usize>>>>;

/// Traces every trajectory, teacher-forced. The result does not depend on the number of threads.
///
/// # Errors
/// If the checkpoint cannot be run, or a position lies outside its run or beyond the model's positions.
pub fn trace(checkpoint: &Checkpoint, trajectories: &[Trajectory]) -> Result<Saliency, DecoderError> {
    let runs: Vec<Vec<&[u32]>> =
        trajectories.iter().map(|t| t.runs.iter().map(|run| run.ids.as_slice()).collect()).collect();
    let role = |t: &Trajectory| Some(t.runs.iter().map(|run| run.role.clone()).collect());
    Ok(trace_readings(checkpoint, &runs, &[trajectories.iter().map(role).collect()])?.swap_remove(0))
}

/// A run on its way through the layers.
struct Wave<'r> {
    x: Tensor,
    /// Per reading that looks at it: which, the number of the trajectory in it, the positions.
    looks: Vec<(usize, usize, &'r [usize])>,
}

/// Waves between two sums: bounds what is held of each.
const WAVES: usize = 64;

/// Traces runs of tokens once for several readings: each gets, to the bit, what a pass of its own would give it.
///
/// # Errors
/// As [`trace`].
pub fn trace_readings(
    checkpoint: &Checkpoint,
    trajectories: &[Vec<&[u32]>],
    readings: &[Reading],
) -> Result<Vec<Saliency>, DecoderError> {
    let config = checkpoint.config();
    supported(config)?;
    let limit = config.max_position_embeddings;
    let mut saliencies = vec![Saliency::empty(config.num_hidden_layers, config.intermediate_size); readings.len()];
    let mut weights: Vec<Vec<f64>> = vec![Vec::new(); readings.len()];
    let mut waves: Vec<Wave<'_>> = Vec::new();
    let mut longest = 1;
    for (at, runs) in trajectories.iter().enumerate() {
        let mut looks = vec![Vec::new(); runs.len()];
        for (reading, read) in readings.iter().enumerate() {
            let Some(Some(positions)) = read.get(at) else { continue };
            let saliency = &mut saliencies[reading];
            let tokens: usize = positions.iter().map(Vec::len).sum();
            if tokens == 0 {
                saliency.without_role += 1;
                continue;
            }
            for (look, positions) in looks.iter_mut().zip(positions).filter(|(_, positions)| !positions.is_empty()) {
                look.push((reading, saliency.traced, positions.as_slice()));
            }
            weights[reading].push(1.0 / tokens as f64);
            saliency.tenths[saliency.traced % TENTHS].traced += 1;
            saliency.traced += 1;
            saliency.tokens += tokens;
        }
        for (ids, looks) in runs.iter().zip(looks).filter(|(_, looks)| !looks.is_empty()) {
            // Not cut at the last position that is looked at: what a reading gets would hang on the others.
            let end = ids.len().min(limit);
            let last = looks.iter().filter_map(|(_, _, positions)| positions.last()).max();
            if let Some(last) = last.filter(|last| **last >= end) {
                return Err(DecoderError::TooLong { tokens: last + 1, limit: end });
            }
            longest = longest.max(end);
            waves.push(Wave { x: embed(checkpoint, &ids[..end])?, looks });
        }
    }
    let rotary = Rotary::new(config, longest)?;
    for index in 0..config.num_hidden_layers {
        let layer = Layer::load(checkpoint, index)?;
        for waves in waves.chunks_mut(WAVES) {
            let sums: Vec<Vec<Vec<f64>>> = waves
                .par_iter_mut()
                .map(|Wave { x, looks }| {
                    let mut sums = Vec::new();
                    *x = layer.forward(config, &rotary, x, 0, &mut None, &mut |module, input| {
                        if module == "mlp.down_proj" {
                            let rows = input.to_vec2::<f32>()?;
                            sums = looks.iter().map(|(.., positions)| sum(&rows, positions)).collect();
                        }
                        Ok(())
                    })?;
                    for (sum, (reading, trajectory, _)) in sums.iter_mut().zip(&*looks) {
                        sum.iter_mut().for_each(|s| *s *= weights[*reading][*trajectory]);
                    }
                    Ok(sums)
                })
                .collect::<Result<_, DecoderError>>()?;
            for (sum, (reading, trajectory, _)) in sums.iter().zip(&*waves).flat_map(|(s, w)| s.iter().zip(&w.looks)) {
                let saliency = &mut saliencies[*reading];
                saliency.sums[index].iter_mut().zip(sum).for_each(|(a, b)| *a += b);
                let tenth = &mut saliency.tenths[trajectory % TENTHS].sums[index];
                tenth.iter_mut().zip(sum).for_each(|(a, b)| *a += *b as f32);
            }
        }
    }
    Ok(saliencies)
}

/// The sum of the magnitudes in some rows.
fn sum(rows: &[Vec<f32>], positions: &[usize]) -> Vec<f64> {
    let mut sum = vec![0.0; rows.first().map_or(0, Vec::len)];
    for row in positions.iter().filter_map(|position| rows.get(*position)) {
        sum.iter_mut().zip(row).for_each(|(s, v)| *s += f64::from(v.abs()));
    }
    sum
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
