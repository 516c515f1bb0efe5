//! Streaming a pool through an operator.

use crate::{Operator, Parameters};
use rayon::prelude::*;
use rolegraft_checkpoint::{Checkpoint, OpenError, PoolError, WriteError, Writer, check_pool};
use std::path::Path;

/// Why a merge stopped.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum MergeError {
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("`{operator:?}` needs a base and at least two experts, but the pool has {experts}")]
    TooFew { operator: Operator, experts: usize },
}

/// Tensors in flight at once: bounds memory to this many times (experts + 1) tensors.
const WAVE: usize = 8;

/// Merges `experts` of `base` into the directory `out`, shards of at most `shard_size` bytes, dtype of the base.
/// `card` becomes its README.md. The directory appears when it is whole.
///
/// # Errors
/// If the checkpoints are not a pool, hold NaN or infinity, or the disk refuses.
pub fn merge(
    operator: Operator,
    parameters: &Parameters,
    base: &Checkpoint,
    experts: &[&Checkpoint],
    out: &Path,
    shard_size: u64,
    card: &str,
) -> Result<(), MergeError> {
    check_pool(base, experts)?;
    let needed = if operator == Operator::ModelStock { 2 } else { 1 };
    if experts.len() < needed {
        return Err(MergeError::TooFew { operator, experts: experts.len() });
    }
    let plan: Vec<_> = base.tensors().map(|(n, t)| (n.to_owned(), t.dtype, t.shape)).collect();
    let mut writer = Writer::create(out, &plan, shard_size)?;
    for wave in plan.chunks(WAVE) {
        let merged: Vec<Vec<u8>> = wave
            .par_iter()
            .map(|(name, dtype, _)| {
                if !dtype.is_float() {
                    return Ok(base.bytes(name)?.to_vec());
                }
                let weights: Vec<Vec<f32>> = experts.iter().map(|e| e.f32(name)).collect::<Result<_, _>>()?;
                let values = operator.apply(parameters, name, &base.f32(name)?, &weights);
                Ok(dtype.from_f32(&values).unwrap_or_default())
            })
            .collect::<Result<_, OpenError>>()?;
        for ((name, ..), bytes) in wave.iter().zip(merged) {
            writer.write(name, &bytes)?;
        }
    }
    writer.finish(base.dir(), &[("README.md", card.as_bytes().to_vec())])?;
    Ok(())
}
