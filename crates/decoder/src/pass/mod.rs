//! One layer at a time over many sequences, in memory that is known beforehand.

mod cpu;
mod device;
mod rows;
mod states;
mod waves;
mod weights;

use crate::error::Result;
use crate::place::Place;
use cpu::CpuPass;
use device::DevicePass;
use rolegraft_checkpoint::{Architecture, Checkpoint};
pub use rows::{Activations, See, Segment, Site, Want};
pub use states::States;
pub use waves::{Wave, waves};
pub(crate) use weights::{Maps, Scratch};

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

    /// The layer over the rows of `states`, which `segments` divide in order.
    ///
    /// # Errors
    /// What `see` says, or the device.
    pub fn run(&mut self, states: &mut States, segments: &[Segment], want: Want, see: &mut See<'_>) -> Result<()> {
        match self {
            Self::Cpu(pass) => pass.run(states, segments, want, see),
            Self::Device(pass) => pass.run(states, segments, want, see),
        }
    }
}
