//! One layer as tensors on a device: shows the inputs of all its modules, and goes on from cached keys and values.

use crate::error::{DecoderError, Result};
use crate::place::Place;
use crate::rotary::Rotary;
use candle_core::{DType, Device, Tensor};
use candle_nn::ops::{rms_norm, silu, softmax_last_dim};
use candle_nn::rotary_emb::rope;
use rolegraft_checkpoint::{Architecture, Checkpoint, Map};

/// One decoder layer.
pub struct Layer {
    index: usize,
    input_norm: Tensor,
    maps: Vec<Linear>,
    head_norms: Option<(Tensor, Tensor)>,
    post_norm: Tensor,
}

struct Linear {
    /// Transposed: (inputs, outputs).
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// (tokens, inputs) → (tokens, outputs)
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = x.matmul(&self.weight)?;
        Ok(match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        })
    }
}

/// A whole tensor of a checkpoint.
///
/// # Errors
/// If it is missing or not finite.
pub fn tensor(checkpoint: &Checkpoint, name: &str, place: &Place) -> Result<Tensor> {
    let shape = checkpoint.tensor(name).map(|t| t.shape).unwrap_or_default();
    Ok(Tensor::from_vec(checkpoint.f32(name)?, shape, &place.device)?.to_dtype(place.dtype())?)
}

/// Refuses ids that no embedding has a row for.
pub(crate) fn check_ids(architecture: &Architecture, ids: &[u32]) -> Result<()> {
    let vocabulary = architecture.vocab_size;
    let beyond = ids.iter().find(|id| **id as usize >= vocabulary);
    beyond.map_or(Ok(()), |id| Err(DecoderError::Token { id: *id, vocabulary }))
}

/// Rows of the embedding for `ids`: (tokens, hidden).
///
/// # Errors
/// If the vocabulary does not have one.
pub fn embed(checkpoint: &Checkpoint, architecture: &Architecture, ids: &[u32]) -> Result<Tensor> {
    check_ids(architecture, ids)?;
    let rows = checkpoint.rows_f32(architecture.embedding(), ids)?;
    Ok(Tensor::from_vec(rows, (ids.len(), architecture.hidden_size), &Device::Cpu)?)
}

/// Keys and values of one layer, (heads, tokens, width).
pub type LayerCache = Option<(Tensor, Tensor)>;

/// Sees the input of a module by its name in the layer.
pub type Observe<'o> = dyn FnMut(&'static str, &Tensor) -> Result<()> + 'o;

impl Layer {
    /// One layer of a checkpoint.
    ///
    /// # Errors
    /// If a tensor is missing or not finite, or the device is too small.
    pub fn load(checkpoint: &Checkpoint, architecture: &Architecture, index: usize, place: &Place) -> Result<Self> {
        let at = |name: &str| tensor(checkpoint, &Architecture::in_layer(index, name), place);
        let linear = |map: Map| -> Result<Linear> {
            let weight = at(&format!("{}.weight", map.module()))?.t()?.contiguous()?;
            let bias = architecture.has_bias(map).then(|| at(&format!("{}.bias", map.module()))).transpose()?;
            Ok(Linear { weight, bias })
        };
        let norm = |part: &str| at(&format!("{part}.weight"));
        let head_norms = architecture.head_norms();
        let head_norms =
            head_norms.then(|| Ok::<_, DecoderError>((norm("self_attn.q_norm")?, norm("self_attn.k_norm")?)));
        Ok(Self {
            index,
            input_norm: norm("input_layernorm")?,
            maps: Map::ALL.into_iter().map(linear).collect::<Result<_>>()?,
            head_norms: head_norms.transpose()?,
            post_norm: norm("post_attention_layernorm")?,
        })
    }

    fn map(&self, map: Map, x: &Tensor) -> Result<Tensor> {
        self.maps[map as usize].forward(x)
    }

    /// (tokens, hidden) at positions from `start` → the same. `observe` sees the input of every module:
    /// (tokens, channels), or (tokens, heads, channels) for head norms.
    ///
    /// # Errors
    /// If the arithmetic library or `observe` refuses.
    pub fn forward(
        &self,
        architecture: &Architecture,
        rotary: &Rotary,
        x: &Tensor,
        start: usize,
        cache: &mut LayerCache,
        observe: &mut Observe<'_>,
    ) -> Result<Tensor> {
        let eps = architecture.rms_norm_eps as f32;
        let (heads, groups) = (architecture.num_attention_heads, architecture.num_key_value_heads);
        let dim = architecture.head_dim;
        let tokens = x.dim(0)?;
        observe("input_layernorm", x)?;
        let y = rms_norm(x, &self.input_norm, eps)?;
        for map in [Map::Q, Map::K, Map::V] {
            observe(map.module(), &y)?;
        }
        // (tokens, n·dim) → (n, tokens, dim), normed per head where the architecture does so, and rotated.
        let split = |t: Tensor, n: usize| -> Result<Tensor> { Ok(t.reshape((tokens, n, dim))?) };
        let normed = |t: Tensor, norm: Option<&Tensor>| -> Result<Tensor> {
            Ok(match norm {
                Some(weight) => rms_norm(&t.contiguous()?, weight, eps)?,
                None => t,
            })
        };
        let angles = |t: &Tensor| t.narrow(0, start, tokens)?.to_dtype(x.dtype());
        let (cos, sin) = (angles(&rotary.cos)?, angles(&rotary.sin)?);
        let turn = |t: Tensor| -> Result<Tensor> {
            Ok(rope(&t.transpose(0, 1)?.contiguous()?.unsqueeze(0)?, &cos, &sin)?.squeeze(0)?)
        };
        let norms = self.head_norms.as_ref();
        let (q, k) = (split(self.map(Map::Q, &y)?, heads)?, split(self.map(Map::K, &y)?, groups)?);
        if norms.is_some() {
            observe("self_attn.q_norm", &q)?;
            observe("self_attn.k_norm", &k)?;
        }
        let q = turn(normed(q, norms.map(|n| &n.0))?)?;
        let mut k = turn(normed(k, norms.map(|n| &n.1))?)?;
        let mut v = split(self.map(Map::V, &y)?, groups)?.transpose(0, 1)?.contiguous()?;
        if let Some((keys, values)) = cache {
            k = Tensor::cat(&[&*keys, &k], 1)?;
            v = Tensor::cat(&[&*values, &v], 1)?;
        }
        let attended = attend(&q, &k, &v, start, architecture.windows[self.index])?;
        *cache = Some((k, v));
        let mixed = attended.transpose(0, 1)?.contiguous()?.reshape((tokens, heads * dim))?;
        observe(Map::O.module(), &mixed)?;
        let x = (x + self.map(Map::O, &mixed)?)?;
        observe("post_attention_layernorm", &x)?;
        let y = rms_norm(&x, &self.post_norm, eps)?;
        observe(Map::Gate.module(), &y)?;
        observe(Map::Up.module(), &y)?;
        let z = (silu(&self.map(Map::Gate, &y)?)? * self.map(Map::Up, &y)?)?;
        observe(Map::Down.module(), &z)?;
        Ok((x + self.map(Map::Down, &z)?)?)
    }
}

/// Rows of a block of queries: bounds the score matrix, and no block looks at keys beyond its end.
const QUERY_BLOCK: usize = 256;

/// Causal attention: q (heads, t, d), k and v (groups, start + t, d) → (heads, t, d). A query sees the last `window` keys,
/// its own included.
fn attend(q: &Tensor, k: &Tensor, v: &Tensor, start: usize, window: Option<usize>) -> Result<Tensor> {
    let (heads, tokens, dim) = q.dims3()?;
    let groups = k.dim(0)?;
    let repeat = heads / groups;
    let scale = 1.0 / (dim as f64).sqrt();
    let mut blocks = Vec::new();
    for from in (0..tokens).step_by(QUERY_BLOCK) {
        let rows = QUERY_BLOCK.min(tokens - from);
        let end = start + from + rows;
        let first = window.map_or(0, |window| (start + from + 1).saturating_sub(window));
        let seen = end - first;
        let q = q.narrow(1, from, rows)?.contiguous()?.reshape((groups, repeat * rows, dim))?;
        let keys = k.narrow(1, first, seen)?.transpose(1, 2)?;
        let mut scores = (q.matmul(&keys.contiguous()?)? * scale)?.to_dtype(DType::F32)?;
        if rows > 1 {
            let mask: Vec<f32> = (0..repeat * rows)
                .flat_map(|i| {
                    let last = start + from + i % rows;
                    let sees = move |j: usize| j <= last && window.is_none_or(|window| j + window > last);
                    (first..end).map(move |j| if sees(j) { 0.0 } else { f32::NEG_INFINITY })
                })
                .collect();
            let mask = Tensor::from_vec(mask, (1, repeat * rows, seen), q.device())?;
            scores = scores.broadcast_add(&mask)?;
        }
        let weights = softmax_last_dim(&scores)?.to_dtype(v.dtype())?;
        let out = weights.matmul(&v.narrow(1, first, seen)?.contiguous()?)?;
        blocks.push(out.reshape((heads, rows, dim))?);
    }
    Ok(if blocks.len() == 1 { blocks.swap_remove(0) } else { Tensor::cat(&blocks, 1)? })
}
