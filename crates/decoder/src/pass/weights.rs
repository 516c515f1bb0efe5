//! A layer's weights in memory that is kept from layer to layer.

use crate::error::Result;
use rayon::prelude::*;
use rolegraft_checkpoint::{Architecture, Checkpoint, Map, OpenError};

/// Linear maps of the same input, side by side: (inputs, outputs of the first, outputs of the second, …).
pub(crate) struct Maps {
    maps: Vec<Map>,
    pub(crate) weight: Vec<f32>,
    /// Empty, if they have none.
    pub(crate) bias: Vec<f32>,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
}

/// Rows of a stored matrix that are turned at a time.
const SLAB: usize = 64;

impl Maps {
    pub(crate) fn new(architecture: &Architecture, maps: &[Map]) -> Self {
        let outputs = maps.iter().map(|map| architecture.widths(*map).1).sum();
        let inputs = maps.first().map_or(0, |map| architecture.widths(*map).0);
        let bias = maps.iter().any(|map| architecture.has_bias(*map));
        let bias = vec![0.0; if bias { outputs } else { 0 }];
        Self { maps: maps.to_vec(), weight: vec![0.0; inputs * outputs], bias, inputs, outputs }
    }

    pub(crate) fn load(&mut self, checkpoint: &Checkpoint, layer: usize, scratch: &mut Scratch) -> Result<()> {
        let mut at = 0;
        for map in self.maps.clone() {
            let name = |part: &str| Architecture::in_layer(layer, &format!("{}.{part}", map.module()));
            let (weight, bias) = (name("weight"), name("bias"));
            let shape = checkpoint.tensor(&weight).map(|t| t.shape).unwrap_or_default();
            let [rows, inputs] = shape[..] else { return Err(missing(checkpoint, &weight).into()) };
            for first in (0..rows).step_by(SLAB) {
                let count = SLAB.min(rows - first);
                let slab = scratch.read(checkpoint, &weight, first * inputs, count * inputs)?;
                // Sixteen inputs at a time: whole lines of what is read, and of what is written.
                let turned = self.weight.par_chunks_mut(16 * self.outputs).enumerate();
                turned.for_each(|(chunk, out)| {
                    for (row, values) in slab.chunks_exact(inputs).enumerate() {
                        let values = &values[16 * chunk..inputs.min(16 * chunk + 16)];
                        for (input, value) in values.iter().enumerate() {
                            out[input * self.outputs + at + first + row] = *value;
                        }
                    }
                });
            }
            if !self.bias.is_empty() {
                self.bias[at..at + rows].copy_from_slice(scratch.read(checkpoint, &bias, 0, rows)?);
            }
            at += rows;
        }
        Ok(())
    }
}

fn missing(checkpoint: &Checkpoint, name: &str) -> OpenError {
    OpenError::NoTensor { dir: checkpoint.dir().to_owned(), tensor: name.to_owned() }
}

/// Memory for parts of tensors as they lie in files.
#[derive(Default)]
pub(crate) struct Scratch {
    bytes: Vec<u8>,
    values: Vec<f32>,
}

impl Scratch {
    /// Bytes it grows to.
    pub(crate) fn bytes(architecture: &Architecture) -> usize {
        let widest = Map::ALL.into_iter().map(|map| architecture.widths(map).0).max().unwrap_or(0);
        widest * SLAB * (size_of::<f32>() + size_of::<f64>())
    }

    /// `count` numbers of a tensor, from its number `first` on. They are read, not mapped: pages of a map would count as
    /// memory of ours.
    pub(crate) fn read(&mut self, checkpoint: &Checkpoint, name: &str, first: usize, count: usize) -> Result<&[f32]> {
        let tensor = checkpoint.tensor(name).ok_or_else(|| missing(checkpoint, name))?;
        let size = tensor.dtype.size();
        self.bytes.resize(count * size, 0);
        self.values.resize(count, 0.0);
        checkpoint.read(name, (first * size) as u64, &mut self.bytes)?;
        tensor.dtype.decode(&self.bytes, &mut self.values);
        checkpoint.check_finite(name, first, &self.values)?;
        Ok(&self.values)
    }
}
