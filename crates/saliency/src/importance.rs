//! How much of a model's input each channel of each module sees: what activation-informed merging protects.

use candle_core::Tensor;
use candle_nn::ops::rms_norm;
use rayon::prelude::*;
use rolegraft_checkpoint::{Architecture, Checkpoint};
use rolegraft_decoder::{DecoderError, Layer, Place, Rotary, embed, tensor};
use std::collections::BTreeMap;

/// Per module with a weight (embeddings excepted): a number a channel of its input.
pub type Importance = BTreeMap<String, Vec<f32>>;

/// Σ over blocks of the mean over positions (and heads, for head norms) of |input|, per channel
/// (ahnobari/ActivationInformedMerging@e7eccd5:MergeModels/ActivationMerging/_utils.py, with sums in F64 instead of
/// bfloat16). Layer by layer over all blocks; `progress` is told how many layers are done.
///
/// # Errors
/// If the checkpoint cannot be run.
pub fn channel_importance(
    checkpoint: &Checkpoint,
    blocks: &[Vec<u32>],
    progress: &dyn Fn(usize),
) -> Result<Importance, DecoderError> {
    let (architecture, place) = (&Architecture::of(checkpoint)?, &Place::cpu());
    // upstream: the block length is fixed, whatever the model's number of positions.
    let longest = blocks.iter().map(Vec::len).max().unwrap_or(1);
    let blocks = blocks.iter().filter(|b| !b.is_empty());
    let mut states: Vec<Tensor> = blocks.map(|ids| embed(checkpoint, architecture, ids)).collect::<Result<_, _>>()?;
    let rotary = Rotary::on(architecture, longest, place)?;
    let mut importance = Importance::new();
    for index in 0..architecture.num_hidden_layers {
        let layer = Layer::load(checkpoint, architecture, index, place)?;
        let seen = observed(&mut states, |x, note| layer.forward(architecture, &rotary, x, 0, &mut None, note))?;
        let named = |(module, values)| (format!("model.layers.{index}.{module}"), values);
        importance.extend(seen.into_iter().map(named));
        progress(index + 1);
    }
    let norm = tensor(checkpoint, architecture.last_norm(), place)?;
    let seen = observed(&mut states, |x, note| {
        note("model.norm", x)?;
        let x = rms_norm(x, &norm, architecture.rms_norm_eps as f32)?;
        note("lm_head", &x)?;
        Ok(x)
    })?;
    importance.extend(seen.into_iter().map(|(module, values)| (module.to_owned(), values)));
    Ok(importance)
}

type Note<'n> = dyn FnMut(&'static str, &Tensor) -> Result<(), DecoderError> + 'n;

/// Takes every block's state one step further, and sums in the blocks' order what the step's modules saw.
fn observed(
    states: &mut [Tensor],
    step: impl Fn(&Tensor, &mut Note<'_>) -> Result<Tensor, DecoderError> + Sync,
) -> Result<BTreeMap<&'static str, Vec<f32>>, DecoderError> {
    let seen: Vec<Vec<(&'static str, Vec<f64>)>> = states
        .par_iter_mut()
        .map(|x| {
            let mut seen = Vec::new();
            *x = step(x, &mut |module, input| {
                seen.push((module, mean_magnitude(input)?));
                Ok(())
            })?;
            Ok(seen)
        })
        .collect::<Result<_, DecoderError>>()?;
    let mut sums: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    for (module, means) in seen.into_iter().flatten() {
        let sum = sums.entry(module).or_insert_with(|| vec![0.0; means.len()]);
        sum.iter_mut().zip(means).for_each(|(s, m)| *s += m);
    }
    Ok(sums.into_iter().map(|(module, sum)| (module, sum.into_iter().map(|s| s as f32).collect())).collect())
}

fn mean_magnitude(input: &Tensor) -> Result<Vec<f64>, DecoderError> {
    let channels = input.dim(candle_core::D::Minus1)?;
    let values: Vec<f32> = input.flatten_all()?.to_vec1()?;
    let rows = (values.len() / channels.max(1)).max(1) as f64;
    let mut sums = vec![0.0; channels];
    for row in values.chunks_exact(channels.max(1)) {
        sums.iter_mut().zip(row).for_each(|(s, v)| *s += f64::from(v.abs()));
    }
    sums.iter_mut().for_each(|s| *s /= rows);
    Ok(sums)
}
