//! A decoder of our own (Qwen3, Qwen2, Llama) whose inside can be seen, layer by layer.
mod decoder;

pub use decoder::{Cache, Decoder, DecoderError, Layer, LayerCache, Rotary, embed, supported, tensor};
