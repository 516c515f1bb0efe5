//! The decoder: Qwen3, Qwen2 and Llama differ by head norms and biases only.

use candle_core::{D, DType, Device, Tensor};
use candle_nn::ops::{rms_norm, silu, softmax_last_dim};
use candle_nn::rotary_emb::rope;
use rolegraft_checkpoint::{Checkpoint, ModelConfig, OpenError};

/// Why a checkpoint cannot be run.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum DecoderError {
    #[error("architecture `{0}` is not supported; known: qwen3, qwen2, llama")]
    Architecture(String),
    #[error(transparent)]
    Checkpoint(#[from] OpenError),
    #[error("arithmetic failed: {}", .0.to_string().lines().next().unwrap_or_default())]
    Candle(#[from] candle_core::Error),
    #[error("a sequence of {tokens} tokens exceeds the model's {limit} positions")]
    TooLong { tokens: usize, limit: usize },
}

type Result<T> = std::result::Result<T, DecoderError>;

/// One decoder layer in F32.
pub struct Layer {
    input_norm: Tensor,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    head_norms: Option<(Tensor, Tensor)>,
    post_norm: Tensor,
    gate: Linear,
    up: Linear,
    down: Linear,
}

struct Linear {
    /// Transposed: (inputs, outputs).
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    fn load(checkpoint: &Checkpoint, name: &str) -> Result<Self> {
        let weight = tensor(checkpoint, &format!("{name}.weight"))?.t()?.contiguous()?;
        let bias = format!("{name}.bias");
        let bias = if checkpoint.tensor(&bias).is_some() { Some(tensor(checkpoint, &bias)?) } else { None };
        Ok(Self { weight, bias })
    }
    /// (tokens, inputs) → (tokens, outputs)
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = x.matmul(&self.weight)?;
        Ok(match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        })
    }
}

/// A whole tensor of a checkpoint, as F32.
///
/// # Errors
/// If it is missing or not finite.
pub fn tensor(checkpoint: &Checkpoint, name: &str) -> Result<Tensor> {
    let shape = checkpoint.tensor(name).map(|t| t.shape).unwrap_or_default();
    Ok(Tensor::from_vec(checkpoint.f32(name)?, shape, &Device::Cpu)?)
}

/// Cosines and sines of every position.
pub struct Rotary {
    cos: Tensor,
    sin: Tensor,
}

impl Rotary {
    /// Of so many positions.
    ///
    /// # Errors
    /// If the arithmetic library refuses.
    pub fn new(config: &ModelConfig, positions: usize) -> Result<Self> {
        let half = config.head_dim / 2;
        let frequencies: Vec<f32> =
            (0..half).map(|i| (1.0 / config.rope_theta.powf(2.0 * i as f64 / config.head_dim as f64)) as f32).collect();
        let angles: Vec<f32> = (0..positions).flat_map(|t| frequencies.iter().map(move |f| t as f32 * f)).collect();
        let angles = Tensor::from_vec(angles, (positions, half), &Device::Cpu)?;
        Ok(Self { cos: angles.cos()?, sin: angles.sin()? })
    }
}

/// Keys and values of one layer, (heads, tokens, width).
pub type LayerCache = Option<(Tensor, Tensor)>;

impl Layer {
    /// One layer of a checkpoint.
    ///
    /// # Errors
    /// If a tensor is missing or not finite.
    pub fn load(checkpoint: &Checkpoint, index: usize) -> Result<Self> {
        let name = |part: &str| format!("model.layers.{index}.{part}");
        let linear = |part: &str| Linear::load(checkpoint, &name(part));
        let norm = |part: &str| tensor(checkpoint, &format!("{}.weight", name(part)));
        let head_norms = if checkpoint.config().model_type == "qwen3" {
            Some((norm("self_attn.q_norm")?, norm("self_attn.k_norm")?))
        } else {
            None
        };
        Ok(Self {
            input_norm: norm("input_layernorm")?,
            q: linear("self_attn.q_proj")?,
            k: linear("self_attn.k_proj")?,
            v: linear("self_attn.v_proj")?,
            o: linear("self_attn.o_proj")?,
            head_norms,
            post_norm: norm("post_attention_layernorm")?,
            gate: linear("mlp.gate_proj")?,
            up: linear("mlp.up_proj")?,
            down: linear("mlp.down_proj")?,
        })
    }

    /// (tokens, hidden) at positions from `start` → the same. `observe` sees the input of every module by its name in
    /// the layer: (tokens, channels), or (tokens, heads, channels) for head norms.
    ///
    /// # Errors
    /// If the arithmetic library or `observe` refuses.
    pub fn forward(
        &self,
        config: &ModelConfig,
        rotary: &Rotary,
        x: &Tensor,
        start: usize,
        cache: &mut LayerCache,
        observe: &mut dyn FnMut(&'static str, &Tensor) -> Result<()>,
    ) -> Result<Tensor> {
        let eps = config.rms_norm_eps as f32;
        let (heads, groups, dim) = (config.num_attention_heads, config.num_key_value_heads, config.head_dim);
        let tokens = x.dim(0)?;
        observe("input_layernorm", x)?;
        let y = rms_norm(x, &self.input_norm, eps)?;
        for module in ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"] {
            observe(module, &y)?;
        }
        // (tokens, n·dim) → (n, tokens, dim), normed per head where the architecture does so, and rotated.
        let split = |t: Tensor, n: usize| -> Result<Tensor> { Ok(t.reshape((tokens, n, dim))?) };
        let normed = |t: Tensor, norm: Option<&Tensor>| -> Result<Tensor> {
            Ok(match norm {
                Some(weight) => rms_norm(&t.contiguous()?, weight, eps)?,
                None => t,
            })
        };
        let (cos, sin) = (rotary.cos.narrow(0, start, tokens)?, rotary.sin.narrow(0, start, tokens)?);
        let turn = |t: Tensor| -> Result<Tensor> {
            Ok(rope(&t.transpose(0, 1)?.contiguous()?.unsqueeze(0)?, &cos, &sin)?.squeeze(0)?)
        };
        let norms = self.head_norms.as_ref();
        let (q, k) = (split(self.q.forward(&y)?, heads)?, split(self.k.forward(&y)?, groups)?);
        if norms.is_some() {
            observe("self_attn.q_norm", &q)?;
            observe("self_attn.k_norm", &k)?;
        }
        let q = turn(normed(q, norms.map(|n| &n.0))?)?;
        let mut k = turn(normed(k, norms.map(|n| &n.1))?)?;
        let mut v = split(self.v.forward(&y)?, groups)?.transpose(0, 1)?.contiguous()?;
        if let Some((keys, values)) = cache {
            k = Tensor::cat(&[&*keys, &k], 1)?;
            v = Tensor::cat(&[&*values, &v], 1)?;
        }
        let attended = attend(&q, &k, &v, start)?;
        *cache = Some((k, v));
        let mixed = attended.transpose(0, 1)?.contiguous()?.reshape((tokens, heads * dim))?;
        observe("self_attn.o_proj", &mixed)?;
        let x = (x + self.o.forward(&mixed)?)?;
        observe("post_attention_layernorm", &x)?;
        let y = rms_norm(&x, &self.post_norm, eps)?;
        observe("mlp.gate_proj", &y)?;
        observe("mlp.up_proj", &y)?;
        let z = (silu(&self.gate.forward(&y)?)? * self.up.forward(&y)?)?;
        observe("mlp.down_proj", &z)?;
        Ok((x + self.down.forward(&z)?)?)
    }
}

/// Rows of a block of queries: bounds the score matrix, and no block looks at keys beyond its end.
const QUERY_BLOCK: usize = 256;

/// Causal attention: q (heads, t, d), k and v (groups, start + t, d) → (heads, t, d).
fn attend(q: &Tensor, k: &Tensor, v: &Tensor, start: usize) -> Result<Tensor> {
    let (heads, tokens, dim) = q.dims3()?;
    let groups = k.dim(0)?;
    let repeat = heads / groups;
    let scale = 1.0 / (dim as f64).sqrt();
    let mut blocks = Vec::new();
    for from in (0..tokens).step_by(QUERY_BLOCK) {
        let rows = QUERY_BLOCK.min(tokens - from);
        let seen = start + from + rows;
        let q = q.narrow(1, from, rows)?.contiguous()?.reshape((groups, repeat * rows, dim))?;
        let keys = k.narrow(1, 0, seen)?.transpose(1, 2)?;
        let mut scores = (q.matmul(&keys.contiguous()?)? * scale)?;
        if rows > 1 {
            let mask: Vec<f32> = (0..repeat * rows)
                .flat_map(|i| {
                    let last = start + from + i % rows;
                    (0..seen).map(move |j| if j <= last { 0.0 } else { f32::NEG_INFINITY })
                })
                .collect();
            let mask = Tensor::from_vec(mask, (1, repeat * rows, seen), &Device::Cpu)?;
            scores = scores.broadcast_add(&mask)?;
        }
        let out = softmax_last_dim(&scores)?.matmul(&v.narrow(1, 0, seen)?.contiguous()?)?;
        blocks.push(out.reshape((heads, rows, dim))?);
    }
    Ok(if blocks.len() == 1 { blocks.swap_remove(0) } else { Tensor::cat(&blocks, 1)? })
}

/// Checks that the decoder knows an architecture.
///
/// # Errors
/// If it does not.
pub fn supported(config: &ModelConfig) -> Result<()> {
    match config.model_type.as_str() {
        "qwen3" | "qwen2" | "llama" => Ok(()),
        other => Err(DecoderError::Architecture(other.to_owned())),
    }
}

/// Rows of the embedding for `ids`: (tokens, hidden).
///
/// # Errors
/// If the vocabulary does not have one.
pub fn embed(checkpoint: &Checkpoint, ids: &[u32]) -> Result<Tensor> {
    let rows = checkpoint.rows_f32("model.embed_tokens.weight", ids)?;
    Ok(Tensor::from_vec(rows, (ids.len(), checkpoint.config().hidden_size), &Device::Cpu)?)
}

/// A whole model in memory, for decoding.
pub struct Decoder {
    config: ModelConfig,
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
    /// Loads every weight as F32.
    ///
    /// # Errors
    /// If the architecture is unknown or a tensor is missing or not finite.
    pub fn load(checkpoint: &Checkpoint) -> Result<Self> {
        let config = checkpoint.config().clone();
        supported(&config)?;
        let embedding = tensor(checkpoint, "model.embed_tokens.weight")?;
        let head = match checkpoint.tensor("lm_head.weight") {
            Some(_) if !config.tie_word_embeddings => tensor(checkpoint, "lm_head.weight")?,
            _ => embedding.clone(),
        };
        Ok(Self {
            layers: (0..config.num_hidden_layers).map(|i| Layer::load(checkpoint, i)).collect::<Result<_>>()?,
            norm: tensor(checkpoint, "model.norm.weight")?,
            rotary: Rotary::new(&config, config.max_position_embeddings.min(1 << 16))?,
            head: head.t()?.contiguous()?,
            embedding,
            config,
        })
    }

    /// The architecture.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
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
        let (start, limit) = (cache.ids.len(), self.config.max_position_embeddings);
        if start + ids.len() > limit {
            return Err(DecoderError::TooLong { tokens: start + ids.len(), limit });
        }
        let index = Tensor::new(ids, &Device::Cpu)?;
        let mut x = self.embedding.index_select(&index, 0)?.to_dtype(DType::F32)?;
        for (layer, cache) in self.layers.iter().zip(&mut cache.layers) {
            x = layer.forward(&self.config, &self.rotary, &x, start, cache, &mut |_, _| Ok(()))?;
        }
        cache.ids.extend_from_slice(ids);
        let last = x.narrow(0, ids.len() - 1, 1)?;
        let last = rms_norm(&last.contiguous()?, &self.norm, self.config.rms_norm_eps as f32)?;
        Ok(last.matmul(&self.head)?.flatten(0, D::Minus1)?.to_vec1()?)
    }
}
