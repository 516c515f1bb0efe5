//! What the tensors of a checkpoint mean: the one place that knows architectures.
//!
//! Read as transformers 5.24 reads them (huggingface/transformers@v5.24.0:src/transformers/models/{llama,mistral,qwen2,qwen3}/),
//! the forms of `config.json` of transformers 4 included. What is not known is refused by name.

use crate::config::ArchitectureError;
use crate::rope::Rope;
use crate::{Checkpoint, Config, Dtype};
use serde::Serialize;

/// A family of decoders: all have RMS norms before attention and a gated MLP of SiLU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Queries and keys are normed head by head.
    Qwen3,
    /// Queries, keys and values have biases.
    Qwen2,
    /// Biases where the config says so.
    Llama,
    /// No biases; one window for all layers, or none.
    Mistral,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Qwen3, Self::Qwen2, Self::Llama, Self::Mistral];

    /// Its `model_type`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Qwen3 => "qwen3",
            Self::Qwen2 => "qwen2",
            Self::Llama => "llama",
            Self::Mistral => "mistral",
        }
    }
}

/// Which linear maps have biases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Biases {
    /// Queries, keys and values.
    pub qkv: bool,
    /// What attention gives back.
    pub output: bool,
    /// The MLP's three.
    pub mlp: bool,
}

/// The architecture of a decoder.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Architecture {
    /// Its family.
    pub family: Family,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP: neurons per layer.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Epsilon of the RMS norms.
    pub rms_norm_eps: f64,
    /// Rotary position embedding.
    pub rope: Rope,
    /// How many keys a query sees, itself included, a layer; `None`: all before it.
    pub windows: Vec<Option<usize>>,
    /// Which linear maps have biases.
    pub biases: Biases,
    /// Longest sequence, in tokens.
    pub max_position_embeddings: usize,
    /// Whether the output head is the embedding.
    pub tie_word_embeddings: bool,
}

const EMBEDDING: &str = "model.embed_tokens.weight";
const NORM: &str = "model.norm.weight";
const HEAD: &str = "lm_head.weight";

/// A linear map of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the documentation")]
pub enum Map {
    Q,
    K,
    V,
    O,
    Gate,
    Up,
    Down,
}

impl Map {
    /// All of a layer, in the order of their use.
    pub const ALL: [Self; 7] = [Self::Q, Self::K, Self::V, Self::O, Self::Gate, Self::Up, Self::Down];

    /// Its module's name in the layer.
    #[must_use]
    pub fn module(self) -> &'static str {
        match self {
            Self::Q => "self_attn.q_proj",
            Self::K => "self_attn.k_proj",
            Self::V => "self_attn.v_proj",
            Self::O => "self_attn.o_proj",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::Down => "mlp.down_proj",
        }
    }
}

/// A tensor that a checkpoint of an architecture has, with the fields of `config.json` that say its shape.
struct Wanted {
    name: String,
    shape: Vec<usize>,
    says: &'static str,
}

impl Architecture {
    /// Of a checkpoint, whose tensors are held against its config.
    ///
    /// # Errors
    /// If the architecture is not known, or something of it is not implemented; if the weights are quantised; if config
    /// and tensors contradict each other.
    pub fn of(checkpoint: &Checkpoint) -> Result<Self, ArchitectureError> {
        let architecture = Self::read(checkpoint.config())?;
        architecture.check(checkpoint)?;
        Ok(architecture)
    }

    /// Of a config alone.
    ///
    /// # Errors
    /// As [`Self::of`], the tensors excepted.
    pub fn read(config: &Config) -> Result<Self, ArchitectureError> {
        let path = || config.path().to_owned();
        config.unquantised()?;
        let json = config.json();
        let kind = json["model_type"].as_str().unwrap_or_default();
        let family = Family::ALL.into_iter().find(|family| family.as_str() == kind);
        let family = family.ok_or_else(|| ArchitectureError::Unknown { path: path(), found: kind.to_owned() })?;
        let field = |field: &str| ArchitectureError::Field { path: path(), field: field.to_owned() };
        let size = |name: &str| -> Result<Option<usize>, ArchitectureError> {
            match &json[name] {
                serde_json::Value::Null => Ok(None),
                value => match value.as_u64() {
                    Some(n) if (1..1 << 32).contains(&n) => Ok(Some(n as usize)),
                    _ => Err(field(name)),
                },
            }
        };
        let needed = |name: &str| size(name)?.ok_or_else(|| field(name));
        let flag = |name: &str| match &json[name] {
            serde_json::Value::Null => Ok(false),
            value => value.as_bool().ok_or_else(|| field(name)),
        };
        let no = |what: String| ArchitectureError::NotImplemented { path: path(), what };

        match json["hidden_act"].as_str() {
            Some("silu" | "swish") | None => {}
            Some(other) => return Err(no(format!("its activation is `{other}`, not silu"))),
        }
        let (hidden, heads) = (needed("hidden_size")?, needed("num_attention_heads")?);
        let layers = needed("num_hidden_layers")?;
        let given = size("head_dim")?;
        let head_dim = match family {
            // transformers: Qwen3's class has a head of 128 whatever the widths.
            Family::Qwen3 => given.unwrap_or(128),
            _ => given.unwrap_or(hidden / heads),
        };
        // transformers: where the field is missing, Mistral's class has 8 groups; `null` is one a head.
        let groups = match (family, json.get("num_key_value_heads")) {
            (Family::Mistral, None) => 8,
            (Family::Qwen2 | Family::Qwen3, None) => 32,
            _ => size("num_key_value_heads")?.unwrap_or(heads),
        };
        if !heads.is_multiple_of(groups) {
            let what = format!("{heads} `num_attention_heads` cannot share {groups} `num_key_value_heads` evenly");
            return Err(ArchitectureError::Inconsistent { path: path(), what });
        }
        if !head_dim.is_multiple_of(2) {
            return Err(no(format!("its heads are {head_dim} wide, which rotates no pairs")));
        }
        let attention = match family {
            Family::Llama | Family::Qwen3 => flag("attention_bias")?,
            Family::Qwen2 | Family::Mistral => false,
        };
        let rms_norm_eps = match &json["rms_norm_eps"] {
            serde_json::Value::Null => 1e-6,
            value => value.as_f64().filter(|eps| *eps >= 0.0).ok_or_else(|| field("rms_norm_eps"))?,
        };
        let positions = needed("max_position_embeddings")?;
        Ok(Self {
            family,
            hidden_size: hidden,
            intermediate_size: needed("intermediate_size")?,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            num_key_value_heads: groups,
            head_dim,
            vocab_size: needed("vocab_size")?,
            rms_norm_eps,
            rope: Rope::read(config, positions)?,
            // A window that no sequence fills is none.
            windows: windows(family, config, layers)?.into_iter().map(|w| w.filter(|w| *w < positions)).collect(),
            biases: Biases {
                qkv: attention || family == Family::Qwen2,
                output: attention,
                mlp: family == Family::Llama && flag("mlp_bias")?,
            },
            max_position_embeddings: positions,
            tie_word_embeddings: flag("tie_word_embeddings")?,
        })
    }

    /// Width of all queries.
    #[must_use]
    pub fn queries(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Width of all keys, and of all values.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// Whether queries and keys are normed head by head.
    #[must_use]
    pub fn head_norms(&self) -> bool {
        self.family == Family::Qwen3
    }

    /// Inputs and outputs of a linear map.
    #[must_use]
    pub fn widths(&self, map: Map) -> (usize, usize) {
        let (hidden, neurons) = (self.hidden_size, self.intermediate_size);
        match map {
            Map::Q => (hidden, self.queries()),
            Map::K | Map::V => (hidden, self.keys()),
            Map::O => (self.queries(), hidden),
            Map::Gate | Map::Up => (hidden, neurons),
            Map::Down => (neurons, hidden),
        }
    }

    /// Whether a linear map has a bias.
    #[must_use]
    pub fn has_bias(&self, map: Map) -> bool {
        match map {
            Map::Q | Map::K | Map::V => self.biases.qkv,
            Map::O => self.biases.output,
            Map::Gate | Map::Up | Map::Down => self.biases.mlp,
        }
    }

    /// The name of something in a layer.
    #[must_use]
    pub fn in_layer(layer: usize, name: &str) -> String {
        format!("model.layers.{layer}.{name}")
    }

    /// The embedding.
    #[must_use]
    pub fn embedding(&self) -> &'static str {
        EMBEDDING
    }

    /// The last norm.
    #[must_use]
    pub fn last_norm(&self) -> &'static str {
        NORM
    }

    /// The output head: the embedding, where they are tied.
    #[must_use]
    pub fn head(&self) -> &'static str {
        if self.tie_word_embeddings { EMBEDDING } else { HEAD }
    }

    /// Parameters of a layer.
    #[must_use]
    pub fn layer_parameters(&self) -> usize {
        self.layer(0).iter().map(|wanted| wanted.shape.iter().product::<usize>()).sum()
    }

    /// Parameters of the whole model, each once.
    #[must_use]
    pub fn parameters(&self) -> usize {
        let tables = if self.tie_word_embeddings { 1 } else { 2 };
        self.num_hidden_layers * self.layer_parameters() + (tables * self.vocab_size + 1) * self.hidden_size
    }

    /// The tensors of a layer.
    fn layer(&self, layer: usize) -> Vec<Wanted> {
        let mut all = Vec::new();
        let mut add =
            |name: &str, shape: Vec<usize>, says| all.push(Wanted { name: Self::in_layer(layer, name), shape, says });
        for name in ["input_layernorm.weight", "post_attention_layernorm.weight"] {
            add(name, vec![self.hidden_size], "hidden_size");
        }
        if self.head_norms() {
            for name in ["self_attn.q_norm.weight", "self_attn.k_norm.weight"] {
                add(name, vec![self.head_dim], "head_dim");
            }
        }
        for map in Map::ALL {
            let ((inputs, outputs), says) = (
                self.widths(map),
                match map {
                    Map::Q | Map::O => "num_attention_heads, head_dim and hidden_size",
                    Map::K | Map::V => "num_key_value_heads, head_dim and hidden_size",
                    Map::Gate | Map::Up | Map::Down => "intermediate_size and hidden_size",
                },
            );
            add(&format!("{}.weight", map.module()), vec![outputs, inputs], says);
            if self.has_bias(map) {
                let says = if self.family == Family::Qwen2 {
                    "model_type qwen2"
                } else if matches!(map, Map::Gate | Map::Up | Map::Down) {
                    "mlp_bias"
                } else {
                    "attention_bias"
                };
                add(&format!("{}.bias", map.module()), vec![outputs], says);
            }
        }
        all
    }

    /// Holds a checkpoint's tensors against the config.
    fn check(&self, checkpoint: &Checkpoint) -> Result<(), ArchitectureError> {
        let contradiction = |says: String, tensor: String, is: String| {
            let path = checkpoint.config().path().to_owned();
            Err(ArchitectureError::Contradiction { path, says, tensor, is })
        };
        let table = |name: &str| Wanted {
            name: name.to_owned(),
            shape: vec![self.vocab_size, self.hidden_size],
            says: "vocab_size and hidden_size",
        };
        let last = Wanted { name: NORM.into(), shape: vec![self.hidden_size], says: "hidden_size" };
        let mut wanted = vec![table(EMBEDDING), last];
        if !self.tie_word_embeddings {
            wanted.push(Wanted { says: "tie_word_embeddings: false, vocab_size and hidden_size", ..table(HEAD) });
        }
        wanted.extend((0..self.num_hidden_layers).flat_map(|layer| self.layer(layer)));
        for Wanted { name, shape, says } in wanted {
            match checkpoint.tensor(&name) {
                None => return contradiction(format!("a shape of {shape:?} by {says}"), name, "is missing".into()),
                Some(tensor) if tensor.shape != shape => {
                    let is = format!("has shape {:?}", tensor.shape);
                    return contradiction(format!("a shape of {shape:?} by {says}"), name, is);
                }
                Some(tensor) if !tensor.dtype.is_float() => {
                    let how = format!("tensor `{name}` is {}", Dtype::as_str(tensor.dtype));
                    return Err(ArchitectureError::Quantised { path: checkpoint.config().path().to_owned(), how });
                }
                Some(_) => {}
            }
        }
        for (name, _) in checkpoint.tensors() {
            let Some((layer, rest)) = name.strip_prefix("model.layers.").and_then(|name| name.split_once('.')) else {
                continue;
            };
            if layer.parse().is_ok_and(|layer: usize| layer >= self.num_hidden_layers) {
                return contradiction(
                    format!("num_hidden_layers {}", self.num_hidden_layers),
                    name.into(),
                    "is of a further layer".into(),
                );
            }
            let of = |map: &Map| rest.strip_suffix(".bias") == Some(map.module());
            if let Some(map) = Map::ALL.into_iter().find(of).filter(|map| !self.has_bias(*map)) {
                return contradiction(format!("that `{}` has no bias", map.module()), name.into(), "is there".into());
            }
        }
        Ok(())
    }
}

/// Which layers have windows. `layer_types` wins over `use_sliding_window` and `max_window_layers`.
fn windows(family: Family, config: &Config, layers: usize) -> Result<Vec<Option<usize>>, ArchitectureError> {
    let json = config.json();
    let field = |field: &str| ArchitectureError::Field { path: config.path().to_owned(), field: field.to_owned() };
    let window = match (json.get("sliding_window"), family) {
        // transformers: the classes of Mistral and Qwen have a window of 4,096 where the field is missing.
        (None, _) => Some(4096),
        (Some(serde_json::Value::Null), _) => None,
        (Some(value), _) => {
            let window = value.as_u64().filter(|n| (1..1 << 32).contains(n));
            Some(window.ok_or_else(|| field("sliding_window"))? as usize)
        }
    };
    match family {
        Family::Llama => Ok(vec![None; layers]),
        Family::Mistral => Ok(vec![window; layers]),
        Family::Qwen2 | Family::Qwen3 => {
            let window = window.filter(|_| json["use_sliding_window"].as_bool().unwrap_or(false));
            let inconsistent = |what: String| ArchitectureError::Inconsistent { path: config.path().to_owned(), what };
            if let Some(types) = json["layer_types"].as_array() {
                let one = |kind: &serde_json::Value| match kind.as_str() {
                    Some("full_attention") => Ok(None),
                    Some("sliding_attention") => window.map(Some).ok_or_else(|| {
                        inconsistent(
                            "`layer_types` names sliding_attention, but `use_sliding_window` is not set".into(),
                        )
                    }),
                    other => Err(ArchitectureError::NotImplemented {
                        path: config.path().to_owned(),
                        what: format!("a layer's type is `{}`", other.unwrap_or_default()),
                    }),
                };
                if types.len() != layers {
                    let what =
                        format!("`layer_types` has {} entries, but `num_hidden_layers` is {layers}", types.len());
                    return Err(inconsistent(what));
                }
                return types.iter().map(one).collect();
            }
            let first = json["max_window_layers"].as_u64().unwrap_or(28) as usize;
            Ok((0..layers).map(|layer| window.filter(|_| layer >= first)).collect())
        }
    }
}
