//! One layer at a time over many sequences, in memory that is known beforehand.

mod cpu;
mod device;
mod states;
mod weights;

use crate::error::{DecoderError, Result};
use crate::place::Place;
use cpu::CpuPass;
use device::DevicePass;
use rolegraft_checkpoint::{Architecture, Checkpoint};
pub use states::States;

/// Rows that are worked on together: many, since a product rearranges the weights first.
pub(crate) const BLOCK: usize = 1024;
/// Products have a multiple of so many rows. The library sums alike for all such (gemm-common 0.19, cache.rs: how the sum is
/// divided hangs on its length alone), so what comes out for a row does not depend on how many others there are.
pub(crate) const GRAIN: usize = 128;

/// Consecutive tokens of a sequence. Those before `start` are the first `start` of the sequence that came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// The position of its first token.
    pub start: usize,
    /// How many tokens it has: rows of the states, after those of the segment before.
    pub rows: usize,
}

/// MLP activations of some rows.
#[derive(Clone, Copy)]
pub struct Activations<'z> {
    values: &'z [f32],
    stride: usize,
    width: usize,
    /// The first of the rows.
    pub first: usize,
    /// How many there are.
    pub rows: usize,
}

impl Activations<'_> {
    /// |act(gate)·up| before its magnitude is taken, of a row: a number a neuron.
    #[must_use]
    pub fn row(&self, row: usize) -> &[f32] {
        let at = (row - self.first) * self.stride;
        &self.values[at..at + self.width]
    }
}

/// Sees activations, block by block, in order. May stop the pass.
pub type See<'s> = dyn FnMut(Activations<'_>) -> Result<()> + 's;

/// A layer's weights, and what working with them needs.
pub enum Pass {
    /// Products and kernels of our own, on all threads.
    Cpu(Box<CpuPass>),
    /// As tensors on a device.
    Device(Box<DevicePass>),
}

impl Pass {
    /// For sequences of at most so many tokens. `place` says where.
    ///
    /// # Errors
    /// If the device refuses.
    pub fn new(architecture: &Architecture, longest: usize, place: &Place) -> Result<Self> {
        Ok(match place.is_cpu() {
            true => Self::Cpu(Box::new(CpuPass::new(architecture, longest))),
            false => Self::by_tensors(architecture, longest, place)?,
        })
    }

    /// As a GPU works, on any device.
    ///
    /// # Errors
    /// If the device refuses.
    pub fn by_tensors(architecture: &Architecture, longest: usize, place: &Place) -> Result<Self> {
        Ok(Self::Device(Box::new(DevicePass::new(architecture, longest, place)?)))
    }

    /// Bytes of main memory: one layer's weights, and what else a pass on the CPU over sequences of at most so many tokens
    /// needs. States are not counted.
    #[must_use]
    pub fn bytes(architecture: &Architecture, longest: usize) -> (usize, usize) {
        (size_of::<f32>() * architecture.layer_parameters(), CpuPass::bytes(architecture, longest))
    }

    /// Takes the weights of a layer.
    ///
    /// # Errors
    /// If a tensor is missing or not finite.
    pub fn load(&mut self, checkpoint: &Checkpoint, layer: usize) -> Result<()> {
        match self {
            Self::Cpu(pass) => pass.load(checkpoint, layer),
            Self::Device(pass) => pass.load(checkpoint, layer),
        }
    }

    /// The layer over the rows of `states`, which `segments` divide in order. Of the last layer only the activations are
    /// worked out.
    ///
    /// # Errors
    /// What `see` says, or the device.
    pub fn run(&mut self, states: &mut States, segments: &[Segment], see: &mut See<'_>) -> Result<()> {
        match self {
            Self::Cpu(pass) => pass.run(states, segments, see),
            Self::Device(pass) => pass.run(states, segments, see),
        }
    }
}

/// Segments cut at every [`BLOCK`] rows: the first row, and the pieces by position and length.
fn blocks(segments: &[Segment]) -> Vec<(usize, Vec<Segment>)> {
    let mut blocks: Vec<(usize, Vec<Segment>)> = Vec::new();
    let mut row = 0;
    for segment in segments {
        let (mut start, mut left) = (segment.start, segment.rows);
        while left > 0 {
            if row % BLOCK == 0 {
                blocks.push((row, Vec::new()));
            }
            let rows = left.min(BLOCK - row % BLOCK);
            if let Some((_, pieces)) = blocks.last_mut() {
                pieces.push(Segment { start, rows });
            }
            (row, start, left) = (row + rows, start + rows, left - rows);
        }
    }
    blocks
}

/// Refuses activations that are no numbers.
fn finite(values: &[f32], layer: usize) -> Result<()> {
    // Not `all`, which looks at one after another.
    let finite = values.iter().fold(true, |finite, v| finite & v.is_finite());
    if finite { Ok(()) } else { Err(DecoderError::NonFinite { layer }) }
}
