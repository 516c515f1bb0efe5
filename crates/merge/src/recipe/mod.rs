//! Recipes: what to merge, how, and with which parameters. One grammar, mergekit's, in YAML or TOML.

mod node;
mod parse;
mod reader;
mod setting;
mod tokenizer;

use crate::Compute;
use crate::registry::Operator;
use rolegraft_checkpoint::Dtype;
pub(crate) use setting::{Settings, resolve};
use std::path::PathBuf;
pub use tokenizer::{RowOrigin, TokenRule, TokenizerRule, TokenizerSource};

/// A recipe, read and checked as far as it can be without its models.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// Its text, for the model card.
    pub text: String,
    /// Where it was read.
    pub path: Option<PathBuf>,
    /// The method.
    pub operator: Operator,
    /// AIM on top of it.
    pub aim: Option<Aim>,
    /// Names of the models, in order of first mention.
    pub models: Vec<String>,
    /// Index of the base.
    pub base: Option<usize>,
    /// Output slices.
    pub(crate) slices: Vec<Slice>,
    /// Parameters of the module.
    pub(crate) module: Settings,
    /// Parameters of the recipe.
    pub(crate) shared: Settings,
    /// Working precision; F32 if the recipe does not say.
    pub compute: Compute,
    /// Output dtype; each tensor's own if the recipe says neither this nor `dtype`.
    pub out_dtype: Option<Dtype>,
    /// What to do with vocabularies.
    pub tokenizer: Option<TokenizerRule>,
    /// A template's text or name, or `auto`.
    pub chat_template: Option<String>,
    /// Defaults taken instead of the methods' own.
    pub preset: Option<Preset>,
    /// A safetensors file of statistics that the method needs.
    pub statistics: Option<PathBuf>,
    /// What a user should know: unknown keys and parameters, with the nearest known name.
    pub warnings: Vec<String>,
}

/// AIM's settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Aim {
    /// How far the most active channel moves.
    pub omega: f64,
    /// Whether a tied embedding stays as merged, instead of getting the head's relaxation.
    pub leave_tied: bool,
    /// Importances of the base's channels.
    pub importance: Option<PathBuf>,
    /// Text or trajectories to measure them on.
    pub calibration: Option<PathBuf>,
}

/// Named defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// What Agent-Role Merging used, as far as known: weights and densities 1.
    Arm,
    /// The methods' own papers.
    Papers,
}

impl Preset {
    /// Its name in recipes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Arm => "arm",
            Self::Papers => "papers",
        }
    }
    /// A parameter's default under this preset.
    #[must_use]
    pub fn default_of(self, operator: Operator, parameter: &str) -> Option<f64> {
        match (self, operator.spec().name, parameter) {
            (_, _, "weight") => Some(1.0),
            (Self::Papers, "task_arithmetic", "lambda") => Some(0.4),
            (Self::Papers, "ties", "density") => Some(0.2),
            (Self::Papers, "dare_linear" | "dare_ties", "density") => Some(0.5),
            _ => None,
        }
    }
}

/// Layers of some models that become layers of the output.
#[derive(Debug, Clone)]
pub(crate) struct Slice {
    pub(crate) sources: Vec<SliceSource>,
    /// Index of the base among the models.
    pub(crate) base: Option<usize>,
    pub(crate) parameters: Settings,
}

#[derive(Debug, Clone)]
pub(crate) struct SliceSource {
    pub(crate) model: usize,
    /// First layer and one past the last; all if absent.
    pub(crate) layers: Option<(usize, usize)>,
    pub(crate) parameters: Settings,
    pub(crate) line: usize,
}
