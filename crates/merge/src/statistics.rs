//! How far experts are from their base, and from each other.

use crate::execute::NEVER;
use crate::model::Model;
use crate::plan::{Plan, PlanOptions};
use crate::source::{Rows, Session, View};
use crate::{MergeError, Preset, Recipe};
use std::collections::BTreeMap;

/// Statistics of the task vectors of one tensor, or of several together.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TaskVectors {
    /// Elements.
    pub elements: u64,
    /// ‖W₀‖².
    pub base: f64,
    /// ⟨Δᵢ, Δⱼ⟩, row by row.
    pub gram: Vec<Vec<f64>>,
    /// Elements of each Δᵢ that are not zero.
    pub changed: Vec<u64>,
}

impl TaskVectors {
    /// ‖Δᵢ‖.
    #[must_use]
    pub fn norm(&self, expert: usize) -> f64 {
        self.gram[expert][expert].sqrt()
    }
    /// ‖Δᵢ‖/‖W₀‖.
    #[must_use]
    pub fn relative_norm(&self, expert: usize) -> f64 {
        if self.base > 0.0 { self.norm(expert) / self.base.sqrt() } else { 0.0 }
    }
    /// Share of elements that an expert left alone.
    #[must_use]
    pub fn sparsity(&self, expert: usize) -> f64 {
        1.0 - self.changed[expert] as f64 / self.elements.max(1) as f64
    }
    /// Cosine between two experts' task vectors; none where one is zero.
    #[must_use]
    pub fn cosine(&self, i: usize, j: usize) -> Option<f64> {
        let norms = self.norm(i) * self.norm(j);
        (norms > 0.0).then(|| self.gram[i][j] / norms)
    }

    /// Adds those of further elements.
    pub fn add(&mut self, other: &Self) {
        let n = other.changed.len();
        if self.changed.is_empty() {
            (self.gram, self.changed) = (vec![vec![0.0; n]; n], vec![0; n]);
        }
        self.elements += other.elements;
        self.base += other.base;
        self.gram.iter_mut().flatten().zip(other.gram.iter().flatten()).for_each(|(s, g)| *s += g);
        self.changed.iter_mut().zip(&other.changed).for_each(|(s, c)| *s += c);
    }
}

/// Statistics per tensor of `experts` against `base`; `progress` is told (tensors done, of).
///
/// # Errors
/// If the checkpoints do not fit together or cannot be read.
pub fn task_vectors(
    base: Model,
    experts: Vec<Model>,
    progress: &dyn Fn(usize, usize),
) -> Result<Vec<(String, TaskVectors)>, MergeError> {
    let n = experts.len();
    let names: Vec<&str> = experts.iter().map(|e| e.name.as_str()).collect();
    let recipe = Recipe::of_pool("task_arithmetic", &BTreeMap::new(), &base.name, &names, Preset::Arm)
        .map_err(MergeError::Recipe)?;
    let mut models: Vec<Option<Model>> = experts.into_iter().chain([base]).map(Some).collect();
    let ordered = recipe.models.iter().filter_map(|name| {
        models.iter_mut().find(|m| m.as_ref().is_some_and(|m| m.name == *name)).and_then(Option::take)
    });
    let ordered = ordered.collect();
    let plan = Plan::of_models(recipe, ordered, &PlanOptions::default())?;
    let session = Session::plain(&NEVER);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut out = Vec::new();
    for (i, output) in plan.outputs.iter().enumerate().filter(|(_, o)| o.dtype.is_float() && !o.is_empty()) {
        let source = plan.source(&session, output, threads, &[]);
        let (base, experts) = (source.base()?, source.experts());
        // Vectors: the task vectors, then the base.
        let fill = |view: &View<'_>, v: usize, out: &mut [f32]| {
            let base = view.input(base);
            match experts.get(v) {
                Some(e) => out.iter_mut().zip(view.input(*e)).zip(base).for_each(|((o, w), b)| *o = w - b),
                None => out.copy_from_slice(base),
            }
        };
        let gram = source.gram::<crate::arithmetic::Single>(n + 1, fill)?;
        let changed = source.sums(
            Rows::Any,
            n,
            #[inline(always)]
            |sums, view| {
                let base = view.input(base);
                for (sum, e) in sums.iter_mut().zip(&experts) {
                    *sum += view.input(*e).iter().zip(base).map(|(w, b)| u32::from(w != b)).sum::<u32>() as f64;
                }
            },
        )?;
        let vectors = TaskVectors {
            elements: output.len() as u64,
            base: gram[n][n],
            gram: gram[..n].iter().map(|row| row[..n].to_vec()).collect(),
            changed: changed.into_iter().map(|c| c as u64).collect(),
        };
        out.push((output.name.clone(), vectors));
        progress(i + 1, plan.outputs.len());
    }
    Ok(out)
}
