//! A whole model in memory, for decoding.

use crate::error::{DecoderError, Result};
use crate::layer::{Layer, LayerCache, check_ids, tensor};
use crate::place::Place;
use crate::rotary::Rotary;
use candle_core::{D, DType, Tensor};
use candle_nn::ops::rms_norm;
use rolegraft_checkpoint::{Architecture, Checkpoint};

/// A whole model in memory, for decoding.
pub struct Decoder {
    architecture: Architecture,
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: Tensor,
    head: Tensor,
    rotary: Rotary,
}

/// Keys and values of a sequence so far.
pub struct Cache {
    layers: Vec<LayerCache>,
    /// Ids the cache covers.
    ids: Vec<u32>,
}

impl Cache {
    /// Ids whose keys and values are kept.
    #[must_use]
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }
}

impl Decoder {
    /// Loads every weight.
    ///
    /// # Errors
    /// If the architecture is unknown, a tensor is missing or not finite, or the device is too small.
    pub fn load(checkpoint: &Checkpoint, place: &Place) -> Result<Self> {
        let architecture = Architecture::of(checkpoint)?;
        let embedding = tensor(checkpoint, architecture.embedding(), place)?;
        let head = if architecture.tie_word_embeddings {
            embedding.clone()
        } else {
            tensor(checkpoint, architecture.head(), place)?
        };
        let layer = |index| Layer::load(checkpoint, &architecture, index, place);
        Ok(Self {
            layers: (0..architecture.num_hidden_layers).map(layer).collect::<Result<_>>()?,
            norm: tensor(checkpoint, architecture.last_norm(), place)?,
            rotary: Rotary::on(&architecture, architecture.max_position_embeddings.min(1 << 17), place)?,
            head: head.t()?.contiguous()?,
            embedding,
            architecture,
        })
    }

    /// The architecture.
    #[must_use]
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// An empty cache.
    #[must_use]
    pub fn cache(&self) -> Cache {
        Cache { layers: self.layers.iter().map(|_| None).collect(), ids: Vec::new() }
    }

    /// Shortens a cache to its first `len` tokens.
    ///
    /// # Errors
    /// If the arithmetic library refuses.
    pub fn rewind(&self, cache: &mut Cache, len: usize) -> Result<()> {
        if len < cache.ids.len() {
            for (keys, values) in cache.layers.iter_mut().flatten() {
                *keys = keys.narrow(1, 0, len)?.contiguous()?;
                *values = values.narrow(1, 0, len)?.contiguous()?;
            }
            if len == 0 {
                cache.layers.iter_mut().for_each(|l| *l = None);
            }
            cache.ids.truncate(len);
        }
        Ok(())
    }

    /// Reads `ids` after what the cache holds; logits of the last token.
    ///
    /// # Errors
    /// If the sequence grows beyond the model's positions, or an id is not in the vocabulary.
    pub fn forward(&self, ids: &[u32], cache: &mut Cache) -> Result<Vec<f32>> {
        let (start, limit) = (cache.ids.len(), self.architecture.max_position_embeddings);
        if start + ids.len() > limit {
            return Err(DecoderError::TooLong { tokens: start + ids.len(), limit });
        }
        check_ids(&self.architecture, ids)?;
        let index = Tensor::new(ids, self.embedding.device())?;
        let mut x = self.embedding.index_select(&index, 0)?;
        for (layer, cache) in self.layers.iter().zip(&mut cache.layers) {
            x = layer.forward(&self.architecture, &self.rotary, &x, start, cache, &mut |_, _| Ok(()))?;
        }
        cache.ids.extend_from_slice(ids);
        let last = x.narrow(0, ids.len() - 1, 1)?;
        let last = rms_norm(&last.contiguous()?, &self.norm, self.architecture.rms_norm_eps as f32)?;
        Ok(last.matmul(&self.head)?.flatten(0, D::Minus1)?.to_dtype(DType::F32)?.to_vec1()?)
    }
}
