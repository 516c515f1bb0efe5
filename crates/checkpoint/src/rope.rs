//! Rotary position embedding: frequencies and their scalings
//! (huggingface/transformers@v5.24.0:src/transformers/modeling_rope_utils.py).

use crate::{ArchitectureError, Config, round_bf16};
use serde::Serialize;
use serde_json::Value;
use std::f64::consts::PI;

/// How positions become angles.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rope {
    /// Base of the angles.
    pub theta: f64,
    /// What is done to the frequencies.
    pub scaling: Scaling,
    /// Whether they are rounded to BF16: so in a PyTorch model that was cast to it, whatever it is cast to then; not in one
    /// that is loaded in it, nor in one whose weights alone are BF16.
    pub cast: bool,
}

/// How frequencies are scaled for contexts longer than those of training.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scaling {
    /// Not at all. `dynamic` begins to scale beyond `max_position_embeddings`, where no sequence of ours gets.
    Default,
    /// All divided by a factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Long wavelengths divided by a factor, short ones left, those between in proportion.
    Llama3 {
        /// The factor.
        factor: f64,
        /// Wavelengths beyond `original / low` are divided.
        low: f64,
        /// Wavelengths below `original / high` are left.
        high: f64,
        /// Positions of training.
        original: f64,
    },
    /// A ramp from frequencies left as they are to frequencies divided by a factor; cosines and sines are scaled too.
    Yarn {
        /// The factor.
        factor: f64,
        /// Turns within the positions of training from which on a frequency is left as it is.
        beta_fast: f64,
        /// Turns up to which it is divided.
        beta_slow: f64,
        /// Positions of training.
        original: f64,
        /// Whether the ramp begins and ends at whole dimensions.
        truncate: bool,
        /// What cosines and sines are multiplied by.
        attention: f64,
    },
}

impl Rope {
    /// Of a config: `rope_parameters`, or `rope_theta` and `rope_scaling` as transformers 4 wrote them, which win if both
    /// are there.
    pub(crate) fn read(config: &Config, positions: usize) -> Result<Self, ArchitectureError> {
        let json = config.json();
        let filled = |key: &str| json[key].as_object().filter(|object| !object.is_empty()).map(|_| &json[key]);
        let scaling = filled("rope_scaling");
        let key = if scaling.is_some() { "rope_scaling" } else { "rope_parameters" };
        let said = scaling.or_else(|| filled("rope_parameters")).unwrap_or(&Value::Null);
        let bad =
            |field: &str| ArchitectureError::Field { path: config.path().to_owned(), field: format!("{key}.{field}") };
        let no = |what: String| ArchitectureError::NotImplemented { path: config.path().to_owned(), what };
        if said.as_object().is_some_and(|object| object.values().any(Value::is_object)) {
            return Err(no(format!("`{key}` has rotary embeddings of its own for kinds of layers")));
        }
        let number = |field: &str| match &said[field] {
            Value::Null => Ok(None),
            value => value.as_f64().filter(|n| n.is_finite()).map(Some).ok_or_else(|| bad(field)),
        };
        let positive = |field: &str| match number(field)? {
            Some(n) if n <= 0.0 => Err(bad(field)),
            n => Ok(n),
        };
        let needed = |field: &str| positive(field)?.ok_or_else(|| bad(field));
        let partial = number("partial_rotary_factor")?.or_else(|| json["partial_rotary_factor"].as_f64());
        if let Some(partial) = partial.filter(|partial| *partial != 1.0) {
            return Err(no(format!(
                "its rotary embedding turns a part of each head (`partial_rotary_factor` {partial})"
            )));
        }
        let theta = positive("rope_theta")?.or_else(|| json["rope_theta"].as_f64()).unwrap_or(10_000.0);
        if theta <= 1.0 {
            return Err(bad("rope_theta"));
        }
        let kind = said["rope_type"].as_str().or_else(|| said["type"].as_str()).unwrap_or("default");
        // transformers: a field beside the rotary parameters wins.
        let original = || {
            let outer = json["original_max_position_embeddings"].as_f64().filter(|n| *n > 0.0);
            Ok(outer.or(positive("original_max_position_embeddings")?).unwrap_or(positions as f64))
        };
        let scaling = match kind {
            "default" | "dynamic" => Scaling::Default,
            "linear" => Scaling::Linear { factor: needed("factor")? },
            "llama3" => Scaling::Llama3 {
                factor: needed("factor")?,
                low: needed("low_freq_factor")?,
                high: needed("high_freq_factor")?,
                original: original()?,
            },
            "yarn" => {
                let original = original()?;
                let factor = positive("factor")?.unwrap_or(positions as f64 / original);
                // transformers: zero counts as not said.
                let said_of = |field: &str, unsaid: f64| Ok(number(field)?.filter(|n| *n != 0.0).unwrap_or(unsaid));
                let scale = |by: f64| if factor <= 1.0 { 1.0 } else { 0.1 * by * factor.ln() + 1.0 };
                let (mscale, all) = (number("mscale")?.unwrap_or(0.0), number("mscale_all_dim")?.unwrap_or(0.0));
                let inferred = if mscale != 0.0 && all != 0.0 { scale(mscale) / scale(all) } else { scale(1.0) };
                Scaling::Yarn {
                    factor,
                    beta_fast: said_of("beta_fast", 32.0)?,
                    beta_slow: said_of("beta_slow", 1.0)?,
                    original,
                    // transformers: `null` is false, nothing is true.
                    truncate: said.get("truncate").is_none_or(|said| said.as_bool().unwrap_or(false)),
                    attention: number("attention_factor")?.unwrap_or(inferred),
                }
            }
            other => return Err(no(format!("its rotary embedding is scaled by `{other}`"))),
        };
        Ok(Self { theta, scaling, cast: false })
    }

    /// Radians a position, for each pair of a head's dimensions.
    #[must_use]
    pub fn frequencies(&self, head_dim: usize) -> Vec<f32> {
        let dim = head_dim as f64;
        // upstream: powers and their inverses are rounded to F32, which long contexts magnify.
        let plain = |pair: usize| f64::from(1.0 / self.theta.powf(2.0 * pair as f64 / dim) as f32);
        let scaled = |pair: usize| match self.scaling {
            Scaling::Default => plain(pair),
            Scaling::Linear { factor } => plain(pair) / factor,
            Scaling::Llama3 { factor, low, high, original } => {
                let (frequency, turns) = (plain(pair), original * plain(pair) / (2.0 * PI));
                if turns > high {
                    frequency
                } else if turns < low {
                    frequency / factor
                } else {
                    let smooth = (turns - low) / (high - low);
                    (1.0 - smooth) * frequency / factor + smooth * frequency
                }
            }
            Scaling::Yarn { factor, beta_fast, beta_slow, original, truncate, .. } => {
                let at = |turns: f64| dim * (original / (turns * 2.0 * PI)).ln() / (2.0 * self.theta.ln());
                let (low, high) = (at(beta_fast), at(beta_slow));
                let (low, high) = if truncate { (low.floor(), high.ceil()) } else { (low, high) };
                let (low, high) = (low.max(0.0), high.min(dim - 1.0));
                let high = if low == high { high + 0.001 } else { high };
                let divided = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
                plain(pair) / factor * divided + plain(pair) * (1.0 - divided)
            }
        };
        let rounded = |frequency: f32| if self.cast { round_bf16(frequency) } else { frequency };
        (0..head_dim / 2).map(|pair| rounded(scaled(pair) as f32)).collect()
    }

    /// What cosines and sines are multiplied by.
    #[must_use]
    pub fn attention_factor(&self) -> f32 {
        match self.scaling {
            Scaling::Yarn { attention, .. } => attention as f32,
            _ => 1.0,
        }
    }
}
