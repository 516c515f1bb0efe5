//! A whole model in memory, for decoding.

use crate::error::{DecoderError, Result};
use crate::host::{Host, HostCache, Read};
use crate::layer::{Layer, LayerCache, check_ids, tensor};
use crate::place::Place;
use crate::rotary::Rotary;
use candle_core::{D, DType, Tensor};
use candle_nn::ops::rms_norm;
use rolegraft_checkpoint::{Architecture, Checkpoint};

/// Most positions that angles are kept of.
const POSITIONS: usize = 1 << 17;

/// A whole model in memory, for decoding.
pub struct Decoder {
    architecture: Architecture,
    weights: Weights,
}

enum Weights {
    /// On the CPU, for many sequences at once.
    Host(Box<Host>),
    /// As tensors on a device.
    Device(Box<Tensors>),
}

struct Tensors {
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: Tensor,
    head: Tensor,
    rotary: Rotary,
}

/// Keys and values of a sequence so far.
pub struct Cache {
    kept: Kept,
    /// Ids the cache covers.
    ids: Vec<u32>,
}

enum Kept {
    Host(HostCache),
    Device(Vec<LayerCache>),
}

impl Cache {
    /// Ids whose keys and values are kept.
    #[must_use]
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }
}

/// What a sequence reads next.
pub struct Next<'n> {
    /// Ids after those of the cache.
    pub ids: &'n [u32],
    /// What came before.
    pub cache: &'n mut Cache,
}

impl Decoder {
    /// Loads every weight.
    ///
    /// # Errors
    /// If the architecture is unknown, a tensor is missing or not finite, or the device is too small.
    pub fn load(checkpoint: &Checkpoint, place: &Place) -> Result<Self> {
        let architecture = Architecture::of(checkpoint)?;
        let positions = architecture.max_position_embeddings.min(POSITIONS);
        let weights = match place.is_cpu() {
            true => Weights::Host(Box::new(Host::load(checkpoint, &architecture, positions)?)),
            false => Weights::Device(Box::new(Tensors::load(checkpoint, &architecture, positions, place)?)),
        };
        Ok(Self { architecture, weights })
    }

    /// The architecture.
    #[must_use]
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// An empty cache.
    #[must_use]
    pub fn cache(&self) -> Cache {
        let layers = self.architecture.num_hidden_layers;
        let kept = match &self.weights {
            Weights::Host(_) => Kept::Host(std::iter::repeat_with(Default::default).take(layers).collect()),
            Weights::Device(_) => Kept::Device(vec![None; layers]),
        };
        Cache { kept, ids: Vec::new() }
    }

    /// Shortens a cache to its first `len` tokens.
    ///
    /// # Errors
    /// If the arithmetic library refuses.
    pub fn rewind(&self, cache: &mut Cache, len: usize) -> Result<()> {
        if len >= cache.ids.len() {
            return Ok(());
        }
        match &mut cache.kept {
            Kept::Host(layers) => layers.iter_mut().for_each(|layer| layer.truncate(len, self.architecture.head_dim)),
            Kept::Device(layers) if len == 0 => layers.fill(None),
            Kept::Device(layers) => {
                for (keys, values) in layers.iter_mut().flatten() {
                    *keys = keys.narrow(1, 0, len)?.contiguous()?;
                    *values = values.narrow(1, 0, len)?.contiguous()?;
                }
            }
        }
        cache.ids.truncate(len);
        Ok(())
    }

    /// Reads `ids` after what the cache holds; logits of the last token.
    ///
    /// # Errors
    /// If the sequence grows beyond the model's positions, or an id is not in the vocabulary.
    pub fn forward(&self, ids: &[u32], cache: &mut Cache) -> Result<Vec<f32>> {
        Ok(self.forward_each(&mut [Next { ids, cache }])?.swap_remove(0))
    }

    /// Reads for several sequences; logits of the last token of each. On the CPU the weights are read once for all of them, and
    /// what comes out for one does not depend on the others.
    ///
    /// # Errors
    /// If a sequence grows beyond the model's positions, or an id is not in the vocabulary; none has read anything then.
    pub fn forward_each(&self, all: &mut [Next<'_>]) -> Result<Vec<Vec<f32>>> {
        let limit = self.architecture.max_position_embeddings.min(POSITIONS);
        for Next { ids, cache } in &*all {
            let tokens = cache.ids.len() + ids.len();
            if tokens > limit {
                return Err(DecoderError::TooLong { tokens, limit });
            }
            check_ids(&self.architecture, ids)?;
        }
        let logits = match &self.weights {
            Weights::Host(host) => {
                let reads = all.iter_mut().filter_map(|Next { ids, cache }| match &mut cache.kept {
                    Kept::Host(kept) => Some(Read { ids, start: cache.ids.len(), cache: kept }),
                    Kept::Device(_) => None,
                });
                host.forward(&self.architecture, &mut reads.collect::<Vec<_>>())
            }
            Weights::Device(tensors) => {
                let each = all.iter_mut().filter_map(|Next { ids, cache }| match &mut cache.kept {
                    Kept::Device(kept) => Some(tensors.forward(&self.architecture, ids, cache.ids.len(), kept)),
                    Kept::Host(_) => None,
                });
                each.collect::<Result<_>>()?
            }
        };
        all.iter_mut().for_each(|Next { ids, cache }| cache.ids.extend_from_slice(ids));
        Ok(logits)
    }
}

impl Tensors {
    fn load(checkpoint: &Checkpoint, a: &Architecture, positions: usize, place: &Place) -> Result<Self> {
        let embedding = tensor(checkpoint, a.embedding(), place)?;
        let head = match a.tie_word_embeddings {
            true => embedding.clone(),
            false => tensor(checkpoint, a.head(), place)?,
        };
        let layer = |index| Layer::load(checkpoint, a, index, place);
        Ok(Self {
            layers: (0..a.num_hidden_layers).map(layer).collect::<Result<_>>()?,
            norm: tensor(checkpoint, a.last_norm(), place)?,
            rotary: Rotary::on(a, positions, place)?,
            head: head.t()?.contiguous()?,
            embedding,
        })
    }

    fn forward(&self, a: &Architecture, ids: &[u32], start: usize, cache: &mut [LayerCache]) -> Result<Vec<f32>> {
        let index = Tensor::new(ids, self.embedding.device())?;
        let mut x = self.embedding.index_select(&index, 0)?;
        for (layer, cache) in self.layers.iter().zip(cache) {
            x = layer.forward(a, &self.rotary, &x, start, cache, &mut |_, _| Ok(()))?;
        }
        let last = x.narrow(0, ids.len() - 1, 1)?;
        let last = rms_norm(&last.contiguous()?, &self.norm, a.rms_norm_eps as f32)?;
        Ok(last.matmul(&self.head)?.flatten(0, D::Minus1)?.to_dtype(DType::F32)?.to_vec1()?)
    }
}
