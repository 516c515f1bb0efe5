//! Copying neurons: rows of `gate_proj` and `up_proj`, columns of `down_proj`, biases where there are any.

use crate::Plan;
use rolegraft_checkpoint::{Checkpoint, OpenError, PoolError, WriteError, Writer, check_pool};
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
        for (name, dtype, shape) in &plan {
            let original = backbone.bytes(name)?;
            let Some((layer, axis)) = place(name) else {
                writer.write(name, original)?;
                continue;
            };
            let mut bytes = original.to_vec();
            for graft in &self.grafts {
                let Some(neurons) = graft.neurons.layers.get(layer).filter(|n| !n.is_empty()) else { continue };
                let donor = donors[&graft.donor];
                let found = donor.tensor(name).map_or(*dtype, |t| t.dtype);
                if found != *dtype {
                    return Err(ApplyError::Dtype {
                        tensor: name.clone(),
                        found: found.as_str(),
                        expected: dtype.as_str(),
                    });
                }
                let theirs = donor.bytes(name)?;
                let rows = shape[0];
                let width = shape.get(1).copied().unwrap_or(1);
                for neuron in neurons {
                    let limit = if axis == Axis::Row { rows } else { width };
                    if *neuron >= limit {
                        return Err(ApplyError::NoNeuron { layer, neuron: *neuron });
                    }
                    match axis {
                        Axis::Row => copy(&mut bytes, theirs, neuron * width * dtype.size(), width * dtype.size()),
                        Axis::Column => (0..rows).for_each(|row| {
                            copy(&mut bytes, theirs, (row * width + neuron) * dtype.size(), dtype.size());
                        }),
                    }
                }
            }
            writer.write(name, &bytes)?;
        }
        writer.finish(backbone.dir(), &[("README.md", card.as_bytes().to_vec())])?;
        Ok(())
    }
}

fn copy(to: &mut [u8], from: &[u8], start: usize, len: usize) {
    to[start..start + len].copy_from_slice(&from[start..start + len]);
}

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
