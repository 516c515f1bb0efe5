//! Recipes: what to merge, how, and with which parameters. One grammar, mergekit's, in YAML or TOML.

mod fit;
mod node;
mod parse;
mod reader;
mod setting;
mod text;
mod tokenizer;
mod weights;
mod yaml;

use crate::Compute;
use crate::registry::Operator;
use rolegraft_checkpoint::Dtype;
pub(crate) use setting::{Settings, resolve};
use std::collections::BTreeMap;
use std::path::PathBuf;
pub use tokenizer::{RowOrigin, TokenRule, TokenizerRule, TokenizerSource};
pub use weights::TokenWeights;

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
    /// A fit in place of its linear maps.
    pub fit: Option<Fit>,
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

/// A least-squares fit of the decoder layers' linear maps, in place of what the recipe's method makes of them.
#[derive(Debug, Clone)]
pub struct Fit {
    /// Its name in recipes.
    pub method: &'static str,
    /// λ: how strongly maps are pulled to the anchor, as a share of the mean square of their inputs.
    pub ridge: f64,
    /// What entries off the diagonal of Gram matrices are multiplied by.
    pub off_diagonal: f64,
    /// The share of each Gram matrix's energy that counts: the eigenvectors of the largest eigenvalues that hold it.
    pub energy: f64,
    /// Whether inputs are those that the merged layers before give.
    pub sequential: bool,
    /// How much tokens count.
    pub weights: TokenWeights,
    /// Fits this part of each layer alone.
    pub only: Option<Part>,
    /// Calibration sets by expert. Empty: they come from elsewhere.
    pub calibration: BTreeMap<String, Vec<PathBuf>>,
    /// μ: fits the embedding, and the head tied to it, too.
    pub embedding: Option<f64>,
    /// The models that are fitted to.
    pub experts: Vec<String>,
    /// What maps are pulled to.
    pub anchor: Box<Recipe>,
    /// What is made of the statistics.
    pub solution: Solution,
}

/// What a fit makes of what it sees of the experts. But for least squares, the anchor is the base.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Solution {
    /// Maps that do to each expert's inputs what the expert does.
    LeastSquares,
    /// The rest of the recipe, calibrated to the experts' streams.
    FeatCal {
        /// ρ: the pull is to ρ·merge + (1 − ρ)·base.
        blend: f64,
        /// α: how much of the expert's stream the targets have.
        teacher: f64,
    },
    /// Task vectors' parts along what moves outputs most, made orthogonal.
    EssentialSubspace {
        /// α: what is added to the base is multiplied by it.
        scale: f64,
    },
    /// The rest of the recipe, the nearer to the base the more a layer's outputs tell of the base's.
    Consensus {
        /// θ: how much that counts.
        theta: f64,
    },
}

/// A part of a decoder layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Queries, keys, values and their output.
    Attention,
    /// Gate, up and down.
    Mlp,
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
