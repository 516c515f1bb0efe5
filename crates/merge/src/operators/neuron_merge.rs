//! `neuron_merge`: a reconstruction of Gu et al. (Findings of ACL 2025, 2025.findings-acl.471), whose code is not public. What
//! had to be inferred: how neurons are assigned, and the coefficients.
//!
//! A unit is neuron (ℓ, j): row j of gate and up, column j of down, biases too. With sᵢ(ℓ, j) the saliency of expert i on its
//! own calibration set, normalised to mean 1 per layer, the neuron is the expert's of highest sᵢ if that is at least `margin`
//! times the second, else general. W = W₀ + Σ λᵢΔᵢ, with λ = 1 for the expert of the neuron's group and `cross` for the
//! others; general neurons and all other tensors: `general` (1/N if absent). Statistics: a safetensors file with `EXPERT/saliency`
//! of shape [layers, d_ff].

use crate::MergeError;
use crate::arithmetic::Compute;
use crate::method::{Base, Fallback, Method, Parameter, Resolved, Spec};
use crate::source::{Kernel, Source, View};

pub(crate) struct NeuronMerge;

impl Method for NeuronMerge {
    fn spec(&self) -> &Spec {
        const {
            &Spec {
                name: "neuron_merge",
                summary: "task arithmetic within groups of MLP neurons (a reconstruction)",
                base: Base::Required,
                experts: (1, usize::MAX),
                parameters: &[
                    Parameter::shared("margin", Fallback::Number(1.5)),
                    Parameter::shared("cross", Fallback::Number(0.0)),
                    Parameter::shared("general", Fallback::Absent),
                ],
            }
        }
    }
    fn prepare(&self, p: &Resolved, source: &Source<'_>) -> Result<Box<dyn Kernel>, MergeError> {
        let (base, experts) = (source.base()?, source.experts());
        let even = 1.0 / experts.len() as f32;
        let general = if p.shared.contains_key("general") { p.number("general") as f32 } else { even };
        let (units, unit) = match place(source.name) {
            Some((layer, axis)) => {
                let unit = match axis {
                    Axis::Row if source.shape.len() > 1 => Unit::Row(source.row()),
                    _ => Unit::Column(source.row()),
                };
                (groups(source, &experts, layer, p.number("margin"))?, unit)
            }
            None => (Vec::new(), Unit::None),
        };
        let cross = p.number("cross") as f32;
        let coefficients = units
            .iter()
            .map(|group| {
                (0..experts.len())
                    .map(|i| match group {
                        None => general,
                        Some(owner) if *owner == i => 1.0,
                        Some(_) => cross,
                    })
                    .collect()
            })
            .collect();
        Ok(Box::new(Grouped { base, experts, unit, coefficients, general, compute: source.compute }))
    }
}

enum Axis {
    Row,
    Column,
}

/// Layer and axis of a tensor of an MLP.
fn place(name: &str) -> Option<(usize, Axis)> {
    let (layer, rest) = name.split_once("layers.")?.1.split_once('.')?;
    let axis = match rest {
        "mlp.gate_proj.weight" | "mlp.up_proj.weight" | "mlp.gate_proj.bias" | "mlp.up_proj.bias" => Axis::Row,
        "mlp.down_proj.weight" => Axis::Column,
        _ => return None,
    };
    Some((layer.parse().ok()?, axis))
}

/// The expert that each neuron of a layer belongs to.
fn groups(source: &Source<'_>, experts: &[usize], layer: usize, margin: f64) -> Result<Vec<Option<usize>>, MergeError> {
    let missing = |name: &str, why: &str| {
        MergeError::tensor(
            name,
            format!("{why}; neuron_merge needs `statistics`, a safetensors file with the saliency of every expert"),
        )
    };
    let statistics = source.session.statistics.ok_or_else(|| missing(source.name, "no statistics are given"))?;
    let mut saliency: Vec<Vec<f64>> = Vec::new();
    for e in experts {
        let name = format!("{}/saliency", source.inputs[*e].model.name);
        let tensor = statistics.tensor(&name).ok_or_else(|| missing(&name, "the statistics do not hold it"))?;
        let width = tensor.shape.get(1).copied().unwrap_or(0);
        let all = tensor.dtype.to_f32(statistics.bytes(&name)?).unwrap_or_default();
        let row = all.get(layer * width..(layer + 1) * width).filter(|r| !r.is_empty());
        let row = row.ok_or_else(|| missing(&name, &format!("it has no layer {layer}")))?;
        let mean = row.iter().map(|s| f64::from(*s)).sum::<f64>() / width as f64;
        saliency.push(row.iter().map(|s| if mean > 0.0 { f64::from(*s) / mean } else { 0.0 }).collect());
    }
    let neurons = saliency.iter().map(Vec::len).min().unwrap_or(0);
    let expected = match place(source.name) {
        Some((_, Axis::Row)) => source.shape.first().copied().unwrap_or(0),
        _ => source.row(),
    };
    if neurons != expected {
        return Err(missing(source.name, &format!("it has {expected} neurons, the statistics {neurons}")));
    }
    Ok((0..neurons)
        .map(|j| {
            let mut order: Vec<usize> = (0..saliency.len()).collect();
            order.sort_by(|a, b| saliency[*b][j].total_cmp(&saliency[*a][j]));
            let second = order.get(1).map_or(0.0, |i| saliency[*i][j]);
            order.first().copied().filter(|i| saliency[*i][j] > 0.0 && saliency[*i][j] >= margin * second)
        })
        .collect())
}

/// Which part of a tensor is one neuron.
enum Unit {
    None,
    Row(usize),
    Column(usize),
}

struct Grouped {
    base: usize,
    experts: Vec<usize>,
    unit: Unit,
    /// Per neuron and expert.
    coefficients: Vec<Vec<f32>>,
    general: f32,
    compute: Compute,
}

impl Kernel for Grouped {
    fn apply(&self, view: &View<'_>, out: &mut [f32]) {
        let base = view.input(self.base);
        for (i, o) in out.iter_mut().enumerate() {
            let at = view.start + i;
            let coefficients = match self.unit {
                Unit::None => None,
                Unit::Row(row) => self.coefficients.get(at / row),
                Unit::Column(row) => self.coefficients.get(at % row),
            };
            let mut sum = 0.0;
            for (k, e) in self.experts.iter().enumerate() {
                sum += coefficients.map_or(self.general, |c| c[k]) * (view.input(*e)[i] - base[i]);
            }
            *o = self.compute.round(base[i] + sum);
        }
    }
}
