//! Training-free merging of checkpoints: recipes, operators, and the loop that streams a pool through one of them.
//!
//! A [`Recipe`] (mergekit's grammar, in YAML or TOML) and its models make a [`Plan`]: every output tensor with its inputs
//! and parameters, checked before anything is computed. [`Plan::execute`] runs it. Tensors are never held whole: an
//! [`Operator`] gathers a tensor's statistics in as many passes as it needs, then maps blocks of the inputs to blocks of
//! the output, which go to their place on disk at once. The spectral operators (`tsv_m`, `iso_c`, `resmerge`) are the
//! exception and say so.
//!
//! Bytes depend on recipe, models and seed alone: sums are made of segments whose borders the tensor's size decides,
//! random masks come from counters, and no fused or reordered operation depends on the processor. Formulas and sources are
//! in each operator's file. Activations are measured elsewhere; their statistics come in as plain tensors.
//!
//! ```no_run
//! use rolegraft_merge::{Execution, Plan, PlanOptions, Recipe};
//! use std::path::Path;
//!
//! let recipe = Recipe::read(Path::new("recipe.yaml"))?;
//! let plan = Plan::new(recipe, &[Path::new(".")], &PlanOptions::default())?;
//! plan.execute(Path::new("merged"), &Execution::default())?;
//! # Ok::<(), rolegraft_merge::MergeError>(())
//! ```

mod arithmetic;
mod card;
mod chat_template;
mod donor;
mod error;
mod execute;
mod extract;
mod method;
mod model;
mod operators;
mod plan;
mod random;
mod rank;
mod recipe;
mod registry;
mod row_map;
mod source;
mod statistics;
mod vocabulary;

pub use arithmetic::Compute;
pub use card::recipe_text;
pub use donor::end_of_turn;
pub use error::MergeError;
pub use execute::{Execution, Outcome, Progress};
pub use extract::{Extracted, extract_adapter};
pub use method::{Base, Fallback, Parameter, Resolved, Scope, Spec, Value};
pub use model::Model;
pub use operators::probability::keep_probabilities;
pub use plan::{Output, Plan, PlanOptions, read_importance};
pub use recipe::{
    Aim, Fit, Part, Preset, Recipe, RowOrigin, Solution, TokenRule, TokenWeights, TokenizerRule, TokenizerSource,
};
pub use registry::Operator;
pub use source::BLOCK;
pub use statistics::{TaskVectors, task_vectors};

/// For messages about an unknown word: `; did you mean …?` if a known one is near, else all known ones.
#[must_use]
pub fn nearest(word: &str, known: &[&str]) -> String {
    let best =
        known.iter().map(|k| (strsim::normalized_damerau_levenshtein(word, k), k)).max_by(|a, b| a.0.total_cmp(&b.0));
    match best {
        Some((score, name)) if score > 0.5 => format!("; did you mean `{name}`?"),
        _ => format!("; known: {}", known.join(", ")),
    }
}
