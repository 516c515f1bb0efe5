//! Saliency, salient sets, and their overlap.

use rolegraft_checkpoint::Architecture;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// s[ℓ, j]: the mean over trajectories of the mean over role tokens of |z[ℓ, j]| (arXiv 2601.07309).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Saliency {
    /// Sums over trajectories, layer by layer: `[layers][d_ff]`.
    pub sums: Vec<Vec<f64>>,
    /// Trajectories with at least one role token.
    pub traced: usize,
    /// Trajectories without one, left out.
    pub without_role: usize,
    /// Role tokens in all.
    pub tokens: usize,
    /// The same sums over every tenth trajectory, from the first, the second, … on: what intervals are drawn from.
    #[serde(default, skip)]
    pub tenths: Vec<Tenth>,
}

/// A part of the trajectories.
#[derive(Debug, Clone, PartialEq)]
pub struct Tenth {
    /// Sums over its trajectories, `[layers][d_ff]`.
    pub sums: Vec<Vec<f32>>,
    /// How many it has.
    pub traced: usize,
}

/// Parts that trajectories are dealt out to.
pub const TENTHS: usize = 10;

/// Why saliencies cannot be combined.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("saliencies of {0} and {1} neurons do not belong to one architecture")]
pub struct SaliencyError(usize, usize);

impl Saliency {
    /// Nothing traced yet.
    #[must_use]
    pub fn empty(layers: usize, width: usize) -> Self {
        let tenth = Tenth { sums: vec![vec![0.0; width]; layers], traced: 0 };
        let tenths = vec![tenth; TENTHS];
        Self { sums: vec![vec![0.0; width]; layers], traced: 0, without_role: 0, tokens: 0, tenths }
    }

    /// Bytes of the sums of a model.
    #[must_use]
    pub fn bytes(architecture: &Architecture) -> usize {
        let neuron = size_of::<f64>() + TENTHS * size_of::<f32>();
        architecture.num_hidden_layers * architecture.intermediate_size * neuron
    }

    /// Counts a trajectory of so many role tokens.
    pub(crate) fn count(&mut self, tokens: usize) {
        self.tenths[self.traced % TENTHS].traced += 1;
        self.traced += 1;
        self.tokens += tokens;
    }

    /// Adds a trajectory's sums in a layer, by the trajectory's number and weight.
    pub(crate) fn add(&mut self, layer: usize, number: usize, weight: f64, sums: &[f64]) {
        let tenth = &mut self.tenths[number % TENTHS].sums[layer];
        for ((whole, part), sum) in self.sums[layer].iter_mut().zip(tenth).zip(sums) {
            *whole += sum * weight;
            *part += (sum * weight) as f32;
        }
    }

    /// What tracing other trajectories would have given: tenths drawn with replacement. Nothing if there are none.
    #[must_use]
    pub fn resampled(&self, picks: &[usize]) -> Option<Self> {
        let mut drawn =
            Self { tenths: Vec::new(), ..Self::empty(self.sums.len(), self.sums.first().map_or(0, Vec::len)) };
        for tenth in picks.iter().map(|pick| self.tenths.get(*pick)) {
            let tenth = tenth?;
            for (sum, part) in drawn.sums.iter_mut().flatten().zip(tenth.sums.iter().flatten()) {
                *sum += f64::from(*part);
            }
            drawn.traced += tenth.traced;
        }
        Some(drawn)
    }

    /// The mean, `[layers][d_ff]`; zeros if nothing was traced.
    #[must_use]
    pub fn mean(&self) -> Vec<Vec<f64>> {
        let n = self.traced.max(1) as f64;
        self.sums.iter().map(|layer| layer.iter().map(|s| s / n).collect()).collect()
    }

    /// Adds the trace of another shard of the same calibration set.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn merge(&mut self, other: &Self) -> Result<(), SaliencyError> {
        let size = |s: &Self| s.sums.iter().map(Vec::len).sum::<usize>();
        if size(self) != size(other) || self.sums.len() != other.sums.len() {
            return Err(SaliencyError(size(self), size(other)));
        }
        for (a, b) in self.sums.iter_mut().flatten().zip(other.sums.iter().flatten()) {
            *a += b;
        }
        if self.tenths.len() == other.tenths.len() {
            for (mine, theirs) in self.tenths.iter_mut().zip(&other.tenths) {
                for (a, b) in mine.sums.iter_mut().flatten().zip(theirs.sums.iter().flatten()) {
                    *a += b;
                }
                mine.traced += theirs.traced;
            }
        } else {
            self.tenths.clear();
        }
        self.traced += other.traced;
        self.without_role += other.without_role;
        self.tokens += other.tokens;
        Ok(())
    }

    /// Per layer the ⌈k·d_ff⌉ neurons of highest saliency; ties go to the lower index.
    #[must_use]
    pub fn top(&self, k: f64) -> NeuronSet {
        let pick = |layer: &Vec<f64>| {
            let count = ((k * layer.len() as f64).ceil() as usize).min(layer.len());
            let mut order: Vec<usize> = (0..layer.len()).collect();
            order.sort_by(|a, b| layer[*b].total_cmp(&layer[*a]).then(a.cmp(b)));
            order.into_iter().take(count).collect()
        };
        NeuronSet { layers: self.sums.iter().map(pick).collect() }
    }
}

/// Neurons (ℓ, j), by layer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NeuronSet {
    /// Indices into the MLP's width.
    pub layers: Vec<BTreeSet<usize>>,
}

impl NeuronSet {
    /// How many neurons.
    #[must_use]
    pub fn len(&self) -> usize {
        self.layers.iter().map(BTreeSet::len).sum()
    }
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Neurons in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a.intersection(b).copied().collect())
    }
    /// Neurons in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a.union(b).copied().collect())
    }
    /// Neurons here and not there.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a.difference(b).copied().collect())
    }
    fn combine(&self, other: &Self, f: impl Fn(&BTreeSet<usize>, &BTreeSet<usize>) -> BTreeSet<usize>) -> Self {
        let layers = self.layers.len().max(other.layers.len());
        let at = |set: &'_ Self, i: usize| set.layers.get(i).cloned().unwrap_or_default();
        Self { layers: (0..layers).map(|i| f(&at(self, i), &at(other, i))).collect() }
    }
}

/// Activation overlap: the Jaccard index of two sets. Two empty sets overlap fully.
#[must_use]
pub fn aos(a: &NeuronSet, b: &NeuronSet) -> f64 {
    match a.union(b).len() {
        0 => 1.0,
        union => a.intersection(b).len() as f64 / union as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_lower_index_and_sizes_round_up() {
        let s = Saliency { sums: vec![vec![1.0, 3.0, 3.0, 0.0, 3.0]], ..Saliency::empty(1, 5) };
        assert_eq!(s.top(0.21).layers[0], BTreeSet::from([1, 2]));
        assert_eq!(s.top(1.0).len(), 5);
        assert_eq!(s.top(0.0).len(), 0);
    }

    proptest::proptest! {
        #[test]
        fn overlap_is_a_similarity(a in proptest::collection::btree_set(0usize..20, 0..10), b in proptest::collection::btree_set(0usize..20, 0..10)) {
            let (a, b) = (NeuronSet { layers: vec![a] }, NeuronSet { layers: vec![b] });
            proptest::prop_assert_eq!(aos(&a, &b), aos(&b, &a));
            proptest::prop_assert_eq!(aos(&a, &a), 1.0);
            proptest::prop_assert!((0.0..=1.0).contains(&aos(&a, &b)));
            proptest::prop_assert!(a.difference(&b).intersection(&b).is_empty());
        }
    }
}
