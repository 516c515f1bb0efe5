//! Cosines and sines of every position.

use crate::error::Result;
use crate::place::Place;
use candle_core::Tensor;
use rolegraft_checkpoint::Architecture;

/// Cosines and sines, a row a position, a column a pair of a head's dimensions.
pub(crate) struct Angles {
    pub(crate) cos: Vec<f32>,
    pub(crate) sin: Vec<f32>,
    pairs: usize,
}

impl Angles {
    /// Of so many positions.
    pub(crate) fn new(architecture: &Architecture, positions: usize) -> Self {
        let (frequencies, factor) =
            (architecture.rope.frequencies(architecture.head_dim), architecture.rope.attention_factor());
        let angles = || (0..positions).flat_map(|at| frequencies.iter().map(move |f| at as f32 * f));
        let (cos, sin) = (angles().map(|a| a.cos() * factor).collect(), angles().map(|a| a.sin() * factor).collect());
        Self { cos, sin, pairs: frequencies.len() }
    }

    /// Cosines and sines of a position.
    pub(crate) fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let range = position * self.pairs..(position + 1) * self.pairs;
        (&self.cos[range.clone()], &self.sin[range])
    }

    /// Bytes of a position.
    pub(crate) fn bytes(architecture: &Architecture) -> usize {
        architecture.head_dim * size_of::<f32>()
    }
}

/// The same as tensors on a device.
pub struct Rotary {
    pub(crate) cos: Tensor,
    pub(crate) sin: Tensor,
}

impl Rotary {
    /// Of so many positions.
    ///
    /// # Errors
    /// If the arithmetic library refuses.
    pub fn on(architecture: &Architecture, positions: usize, place: &Place) -> Result<Self> {
        let Angles { cos, sin, pairs } = Angles::new(architecture, positions);
        let tensor = |values| Tensor::from_vec(values, (positions, pairs), &place.device);
        Ok(Self { cos: tensor(cos)?, sin: tensor(sin)? })
    }
}
