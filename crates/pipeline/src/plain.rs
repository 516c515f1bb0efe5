//! Pools of what engines cannot play as it is: LoRA adapters, applied to their base, and files of `torch.save` are written once as safetensors,
//! in the results' cache.

use crate::error::RunError;
use crate::experiment::{Experiment, Source};
use crate::machine::{Machine, Member};
use crate::stages::merge::{SHARD, plan_adapted};
use crate::store::Store;
use rolegraft_checkpoint::{Checkpoint, Location, OpenError, open_tensors};
use rolegraft_merge::Execution;

/// Writes such models as plain checkpoints, where these are not there yet, and lets the pool name the results.
pub(crate) fn write(experiment: &mut Experiment, store: &Store, machine: &Machine<'_>) -> Result<(), RunError> {
    let pool = std::iter::once(("base", &mut experiment.pool.base));
    let experts = experiment.pool.experts.iter_mut().map(|(name, source)| (name.as_str(), source));
    for (name, source) in pool.chain(experts) {
        let Source::Checkpoint(path) = source else { continue };
        let wrap = |source: OpenError| RunError::Open { role: "model", name: name.to_owned(), source };
        let adapted = Location::of(path).map_err(wrap)?.adapter.is_some();
        // What cannot be opened is said where it is needed.
        if !adapted && open_tensors(path).map_or(true, |tensors| tensors.is_plain()) {
            continue;
        }
        let (checkpoint, member) = Member::open("model", name, path)?;
        let dir = store.place("adapted", &member.digest);
        if Checkpoint::open(&dir).is_err() {
            let (plan, bytes) = (plan_adapted(path, None)?, size(&checkpoint));
            let what = if adapted { "is an adapter: its base with it" } else { "was written by `torch.save`: it" };
            machine.progress.note(&format!("`{name}` {what} is written once as safetensors ({:.1} GB)", bytes / 1e9));
            plan.execute(&dir, &Execution { shard_size: SHARD, stop: &machine.stop, ..Execution::default() })?;
        }
        *path = dir;
    }
    Ok(())
}

/// Bytes of its tensors in the dtypes of their files.
fn size(checkpoint: &Checkpoint) -> f64 {
    let bytes = |(name, tensor): (&str, rolegraft_checkpoint::Tensor)| {
        let dtype = checkpoint.stored_dtype(name).unwrap_or(tensor.dtype);
        (dtype.size() * tensor.shape.iter().product::<usize>()) as f64
    };
    checkpoint.tensors().map(bytes).sum()
}
