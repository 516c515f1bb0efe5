//! The inputs of a merged tensor, as recorded merges are checked against them.

use crate::tolerance::Tolerance;
use rolegraft_checkpoint::Dtype;
use rolegraft_merge::{Compute, Plan};

/// A tensor's inputs, whole: the checks work on them in the plainest way.
pub(crate) struct Inputs {
    pub(crate) values: Vec<Vec<f32>>,
    pub(crate) base: Option<usize>,
    pub(crate) weights: Vec<f32>,
    pub(crate) densities: Vec<f64>,
    pub(crate) gammas: Vec<f64>,
    pub(crate) topk: f64,
    /// Length of a column's stride: the last axis.
    pub(crate) row: usize,
    pub(crate) by_row: bool,
    pub(crate) compute: Compute,
}

impl Inputs {
    pub(crate) fn read(plan: &Plan, name: &str) -> Result<Self, String> {
        let output = plan.outputs.iter().find(|o| o.name == name).ok_or_else(|| format!("`{name}` is not planned"))?;
        let compute = plan.recipe.compute;
        let values = output.inputs.iter().map(|(model, tensor)| {
            let tensors = &plan.models[*model].tensors;
            let dtype = tensors.tensor(tensor).map_or(Dtype::F32, |t| t.dtype);
            let values = dtype.to_f32(tensors.bytes(tensor).map_err(|e| e.to_string())?).unwrap_or_default();
            Ok(values.into_iter().map(|v| compute.round(v)).collect())
        });
        let of = |parameter: &str, default: f64| -> Vec<f64> {
            (0..output.inputs.len()).map(|i| output.parameters.of(i, parameter).unwrap_or(default)).collect()
        };
        Ok(Self {
            values: values.collect::<Result<_, String>>()?,
            base: output.base,
            weights: of("weight", 0.0).into_iter().map(|w| w as f32).collect(),
            densities: of("density", 1.0),
            gammas: of("gamma", 0.01),
            topk: output.parameters.number("select_topk"),
            row: if output.shape.len() > 1 { output.shape[output.shape.len() - 1] } else { 1 },
            by_row: name.contains("embed_tokens"),
            compute,
        })
    }

    pub(crate) fn experts(&self) -> Vec<usize> {
        (0..self.values.len()).filter(|i| Some(*i) != self.base).collect()
    }
    pub(crate) fn base(&self) -> Vec<f32> {
        self.base.map_or_else(|| vec![0.0; self.values[0].len()], |b| self.values[b].clone())
    }
    pub(crate) fn delta(&self, i: usize) -> Vec<f32> {
        self.values[i].iter().zip(self.base()).map(|(w, b)| self.compute.round(w - b)).collect()
    }

    pub(crate) fn has_column_of_base(&self) -> bool {
        let base = self.base();
        let columns = if self.by_row { base.len() / self.row } else { self.row };
        self.experts().iter().any(|e| {
            let mut differs = vec![false; columns];
            for (i, (w, b)) in self.values[*e].iter().zip(&base).enumerate() {
                differs[if self.by_row { i / self.row } else { i % self.row }] |= w.to_bits() != b.to_bits();
            }
            differs.contains(&false)
        })
    }

    pub(crate) fn each_is_an_input(&self, at: &[usize], ours: &[f32], tolerance: Tolerance) -> bool {
        at.iter().all(|i| self.values.iter().any(|v| tolerance.accepts(ours[*i], v[*i])))
    }

    /// W₀ + Σ wᵢΔᵢ / Σ wᵢ over the experts.
    pub(crate) fn linear(&self) -> Vec<f32> {
        let (base, experts) = (self.base(), self.experts());
        let sum: f32 = experts.iter().map(|e| self.weights[*e]).sum();
        let mean =
            |i: usize| experts.iter().map(|e| self.weights[*e] / sum * (self.values[*e][i] - base[i])).sum::<f32>();
        (0..base.len()).map(|i| base[i] + mean(i)).collect()
    }

    /// Elements that a trim might as well have decided the other way: their key equals that of its last or first element.
    pub(crate) fn on_threshold(&self, operator: &str) -> Result<Vec<bool>, String> {
        let n = self.values[0].len();
        let mut on = vec![false; n];
        let mut mark = |keys: &[f32], at: &[usize]| {
            let mut sorted = keys.to_vec();
            sorted.sort_by(f32::total_cmp);
            for bound in at.iter().filter_map(|i| sorted.get(*i)) {
                on.iter_mut().zip(keys).for_each(|(o, k)| *o |= k == bound);
            }
        };
        if operator == "sce" {
            let deltas: Vec<Vec<f32>> = self.experts().iter().map(|e| self.delta(*e)).collect();
            let variances: Vec<f32> = (0..n).map(|i| variance(&deltas, i)).collect();
            let keep = (variances.iter().filter(|v| **v != 0.0).count() as f64 * self.topk) as usize;
            if keep > 0 && keep < n {
                // The reference's variances are rounded to the recipe's dtype, and equal where these are.
                let half = if self.compute == Compute::F32 { Compute::BF16 } else { self.compute };
                let rounded: Vec<f32> = variances.iter().map(|v| half.round(*v)).collect();
                mark(&rounded, &[n - keep, n - keep - 1]);
            }
            return Ok(on);
        }
        for e in self.experts() {
            let keys: Vec<f32> = self.delta(e).iter().map(|d| d.abs()).collect();
            let keep = (self.densities[e] * n as f64) as usize;
            if keep >= n {
                continue;
            }
            let bottom = match operator {
                "ties" => n - keep.max(1),
                _ => n.saturating_sub(keep + (self.gammas[e] * n as f64) as usize),
            };
            let top = if operator == "ties" { n } else { bottom + keep };
            mark(&keys, &[bottom, bottom.wrapping_sub(1), top, top.wrapping_sub(1)]);
        }
        Ok(on)
    }
}

fn variance(deltas: &[Vec<f32>], i: usize) -> f32 {
    let n = deltas.len() as f32;
    let mean = deltas.iter().map(|d| d[i]).sum::<f32>() / n;
    deltas.iter().map(|d| (d[i] - mean).powi(2)).sum::<f32>() / n
}
