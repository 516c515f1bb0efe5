//! What experts are calibrated on.

use crate::error::{LeastSquaresError, Result};
use crate::sums::Sums;
use rolegraft_checkpoint::Checkpoint;
use std::collections::BTreeMap;

/// A context that an expert reads, with a weight for each of its tokens.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sample<'s> {
    /// Ids from the start of the context.
    pub ids: &'s [u32],
    /// How much each counts, from 0 on.
    pub weights: Vec<f64>,
    /// Positions whose last states predict a token of the model's own, ascending.
    pub predicts: Vec<u32>,
}

/// An expert with its calibration sets.
pub struct Expert<'e> {
    pub(crate) name: String,
    pub(crate) checkpoint: &'e Checkpoint,
    /// By their ids, weights summing to 1 over all.
    pub(crate) samples: Vec<Weighed<'e>>,
    /// The share of each token.
    pub(crate) shares: BTreeMap<u32, f64>,
    /// What goes into its maps, summed before: in place of samples.
    pub(crate) sums: Option<Sums>,
}

/// Refuses experts of which only sums are known.
pub(crate) fn need_tokens(experts: &[Expert<'_>]) -> Result<()> {
    let without = experts.iter().find(|expert| expert.sums.is_some());
    without.map_or(Ok(()), |expert| Err(LeastSquaresError::NeedsTokens(expert.name.clone())))
}

/// A sample whose weights are those among all of its expert's.
pub(crate) struct Weighed<'s> {
    pub(crate) ids: &'s [u32],
    pub(crate) weights: Vec<f64>,
    pub(crate) predicts: Vec<u32>,
    /// How much a position that predicts counts.
    pub(crate) each: f64,
}

impl<'e> Expert<'e> {
    /// Sets weigh alike, whatever their sizes; within one, tokens count by their weights.
    ///
    /// # Errors
    /// If there is no set, or one whose weights are all 0, no numbers, or not as many as ids.
    pub fn new(name: &str, checkpoint: &'e Checkpoint, sets: Vec<Vec<Sample<'e>>>) -> Result<Self> {
        let expert = || name.to_owned();
        if sets.is_empty() {
            return Err(LeastSquaresError::NoCalibration(expert()));
        }
        let (count, mut samples, mut shares) = (sets.len() as f64, Vec::new(), BTreeMap::new());
        for (at, set) in sets.into_iter().enumerate() {
            let set_number = at + 1;
            let mut total = 0.0;
            for sample in &set {
                let (ids, weights) = (sample.ids.len(), sample.weights.len());
                if ids != weights {
                    return Err(LeastSquaresError::Lengths { expert: expert(), set: set_number, ids, weights });
                }
                if let Some(weight) = sample.weights.iter().find(|w| !(w.is_finite() && **w >= 0.0)) {
                    return Err(LeastSquaresError::Weight { expert: expert(), weight: *weight });
                }
                total += sample.weights.iter().sum::<f64>();
            }
            if total <= 0.0 {
                return Err(LeastSquaresError::Weightless { expert: expert(), set: set_number });
            }
            let tokens: usize = set.iter().map(|sample| sample.ids.len()).sum();
            for id in set.iter().flat_map(|sample| sample.ids) {
                *shares.entry(*id).or_default() += 1.0 / (tokens as f64 * count);
            }
            let predicting: usize = set.iter().map(|sample| sample.predicts.len()).sum();
            let each = 1.0 / (predicting.max(1) as f64 * count);
            for Sample { ids, mut weights, predicts } in set {
                weights.iter_mut().for_each(|w| *w /= total * count);
                // What comes after the last token that counts is not needed.
                let counts = weights.iter().rposition(|w| *w > 0.0).map_or(0, |last| last + 1);
                let end = predicts.last().map_or(0, |last| *last as usize + 1).max(counts).min(ids.len());
                weights.truncate(end);
                if end > 0 {
                    samples.push(Weighed { ids: &ids[..end], weights, predicts, each });
                }
            }
        }
        samples.sort_by(|a, b| a.ids.cmp(b.ids));
        Ok(Self { name: expert(), checkpoint, samples, shares, sums: None })
    }

    /// An expert of which the sums are there already.
    ///
    /// # Errors
    /// If they have no shares of tokens.
    pub fn of_sums(name: &str, checkpoint: &'e Checkpoint, sums: Sums) -> Result<Self> {
        let shares = sums.token_shares()?;
        Ok(Self { name: name.to_owned(), checkpoint, samples: Vec::new(), shares, sums: Some(sums) })
    }

    /// Whether any token of a reply is predicted in its samples.
    pub(crate) fn replies(&self) -> bool {
        match &self.sums {
            Some(sums) => sums.replies(),
            None => self.samples.iter().any(|sample| !sample.predicts.is_empty()),
        }
    }

    /// Tokens of all samples.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.samples.iter().map(|sample| sample.ids.len()).sum()
    }
}
