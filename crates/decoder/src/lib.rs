//! A decoder of our own (Qwen3, Qwen2, Llama, Mistral) whose inside can be seen.
//!
//! [`Decoder`] is a whole model in memory that decodes with a cache of keys and values. [`Pass`] takes one layer at a time
//! over many sequences at once, in memory that is known beforehand, and shows the inputs of its linear maps.
//! [`Layer`] shows the inputs of all modules.
//!
//! On the CPU all arithmetic is F32, whatever the checkpoint holds, and what comes out for a token does not depend on the
//! number of threads, nor on which other tokens are worked on with it.

mod decoder;
mod error;
mod gemm;
mod host;
mod kernels;
mod layer;
mod pace;
mod pass;
mod place;
mod rotary;

pub use decoder::{Cache, Decoder, Next};
pub use error::{DecoderError, Result};
pub use gemm::{Matrix, multiply_transposed};
pub use kernels::add_magnitudes;
pub use layer::{Layer, LayerCache, Observe, embed, tensor};
pub use pace::Pace;
pub use pass::{Activations, Pass, See, Segment, Site, States, Want, Wave, waves};
pub use place::{DeviceName, Place, Precision};
pub use rotary::Rotary;
