//! Copying neurons: rows of `gate_proj` and `up_proj`, columns of `down_proj`, biases where there are any.

use crate::Plan;
use rolegraft_checkpoint::{Checkpoint, OpenError, OpenShard, PoolError, TensorPlan, WriteError, Writer, check_pool};
use std::collections::BTreeMap;
use std::path::Path;

/// Why a plan could not be applied.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum ApplyError {
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("the plan takes neurons from `{0}`, which is not among the donors")]
    NoDonor(String),
    #[error("tensor `{tensor}` has dtype {found} in the donor but {expected} in the backbone")]
    Dtype { tensor: String, found: &'static str, expected: &'static str },
    #[error("the plan names neuron {neuron} of layer {layer}, which does not exist")]
    NoNeuron { layer: usize, neuron: usize },
}

impl Plan {
    /// Writes the backbone with the plan's neurons replaced to `out`. Every other byte stays.
    ///
    /// # Errors
    /// If donors are missing or do not fit the backbone, or the disk refuses.
    pub fn apply(
        &self,
        backbone: &Checkpoint,
        donors: &BTreeMap<String, &Checkpoint>,
        out: &Path,
        shard_size: u64,
        card: &str,
    ) -> Result<(), ApplyError> {
        for graft in &self.grafts {
            let donor = donors.get(&graft.donor).ok_or_else(|| ApplyError::NoDonor(graft.donor.clone()))?;
            check_pool(backbone, &[donor])?;
        }
        let plan: Vec<_> = backbone.tensors().map(|(n, t)| (n.to_owned(), t.dtype, t.shape)).collect();
        let mut writer = Writer::create(out, &plan, shard_size)?;
        for shard in 0..writer.shard_count() {
            let open = writer.open(shard)?;
            for tensor in writer.tensors(shard) {
                self.tensor(tensor, backbone, donors, &open)?;
            }
            writer.close(open)?;
        }
        writer.finish(backbone.dir(), &[("README.md", card.as_bytes().to_vec())])?;
        Ok(())
    }

    /// One tensor, some rows at a time. They are read, not mapped: pages of a map would count as memory of ours.
    fn tensor(
        &self,
        (name, dtype, shape): &TensorPlan,
        backbone: &Checkpoint,
        donors: &BTreeMap<String, &Checkpoint>,
        open: &OpenShard,
    ) -> Result<(), ApplyError> {
        let rows = shape.first().copied().unwrap_or(1);
        let width = shape.iter().skip(1).product::<usize>();
        let row = width * dtype.size();
        let mut grafts = Vec::new();
        if let Some((layer, axis)) = place(name) {
            for graft in &self.grafts {
                let Some(neurons) = graft.neurons.layers.get(layer).filter(|n| !n.is_empty()) else { continue };
                let donor = donors[&graft.donor];
                let found = donor.tensor(name).map_or(*dtype, |t| t.dtype);
                if found != *dtype {
                    let (found, expected) = (found.as_str(), dtype.as_str());
                    return Err(ApplyError::Dtype { tensor: name.clone(), found, expected });
                }
                let limit = if axis == Axis::Row { rows } else { width };
                if let Some(neuron) = neurons.iter().find(|neuron| **neuron >= limit) {
                    return Err(ApplyError::NoNeuron { layer, neuron: *neuron });
                }
                grafts.push((donor, neurons, axis));
            }
        }
        let (mut bytes, mut theirs) = (Vec::new(), Vec::new());
        let slab = (SLAB / row.max(1)).max(1);
        for first in (0..rows).step_by(slab) {
            let at = (first * row) as u64;
            bytes.resize(slab.min(rows - first) * row, 0);
            backbone.read(name, at, &mut bytes)?;
            for (donor, neurons, axis) in &grafts {
                match axis {
                    Axis::Row => {
                        let here = first..first + bytes.len() / row.max(1);
                        for neuron in neurons.iter().filter(|neuron| here.contains(neuron)) {
                            let own = &mut bytes[(neuron - first) * row..][..row];
                            donor.read(name, (neuron * row) as u64, own)?;
                        }
                    }
                    Axis::Column => {
                        theirs.resize(bytes.len(), 0);
                        donor.read(name, at, &mut theirs)?;
                        for (own, theirs) in bytes.chunks_exact_mut(row).zip(theirs.chunks_exact(row)) {
                            for neuron in *neurons {
                                let cell = neuron * dtype.size()..(neuron + 1) * dtype.size();
                                own[cell.clone()].copy_from_slice(&theirs[cell]);
                            }
                        }
                    }
                }
            }
            open.put(name, at, &bytes)?;
        }
        open.flush(name);
        Ok(())
    }
}

/// Bytes of a tensor in memory, or a row's if these are more.
const SLAB: usize = 16 << 20;

#[derive(PartialEq, Clone, Copy)]
enum Axis {
    Row,
    Column,
}

/// Layer and axis along which a tensor holds neurons; `None` for tensors that hold none.
fn place(name: &str) -> Option<(usize, Axis)> {
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let axis = match rest {
        "mlp.gate_proj.weight" | "mlp.up_proj.weight" | "mlp.gate_proj.bias" | "mlp.up_proj.bias" => Axis::Row,
        "mlp.down_proj.weight" => Axis::Column,
        _ => return None,
    };
    Some((layer.parse().ok()?, axis))
}
