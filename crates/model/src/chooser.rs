//! Picking tokens from logits.

use crate::Sampling;
use rolegraft_trajectory::Key;

/// Picks the tokens of one turn.
#[derive(Debug, Clone)]
pub struct Chooser {
    sampling: Sampling,
    key: Key,
    /// Ids with a token; logits beyond are padding.
    vocabulary: usize,
}

impl Chooser {
    /// For one turn.
    #[must_use]
    pub fn new(sampling: Sampling, key: Key, vocabulary: usize) -> Self {
        Self { sampling, key, vocabulary }
    }

    /// Picks token number `position` of the turn. Probabilities are f64; the draw walks the kept ids in ascending
    /// order. Ties in greedy decoding go to the lower id.
    #[must_use]
    pub fn pick(&self, logits: &[f32], position: usize) -> u32 {
        let logits = &logits[..self.vocabulary.min(logits.len())];
        let best = (0..logits.len()).fold(0, |b, i| if logits[i] > logits[b] { i } else { b });
        if self.sampling.temperature <= 0.0 {
            return best as u32;
        }
        let max = f64::from(logits.get(best).copied().unwrap_or_default());
        let mut weights: Vec<f64> =
            logits.iter().map(|l| ((f64::from(*l) - max) / self.sampling.temperature).exp()).collect();
        if self.sampling.top_p < 1.0 {
            self.cut(&mut weights);
        }
        let total: f64 = weights.iter().sum();
        let target = self.key.uniform(position as u64) * total;
        let mut mass = 0.0;
        for (id, weight) in weights.iter().enumerate() {
            mass += weight;
            if mass > target {
                return id as u32;
            }
        }
        best as u32
    }

    /// Keeps the shortest head, by probability and then by id, whose mass reaches `top_p`.
    fn cut(&self, weights: &mut [f64]) {
        let total: f64 = weights.iter().sum();
        let mut order: Vec<usize> = (0..weights.len()).collect();
        order.sort_by(|a, b| weights[*b].total_cmp(&weights[*a]).then(a.cmp(b)));
        let mut mass = 0.0;
        for id in order {
            if mass >= self.sampling.top_p * total {
                weights[id] = 0.0;
            }
            mass += weights[id];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rolegraft_trajectory::Seed;

    fn chooser(temperature: f64, top_p: f64, vocabulary: usize) -> Chooser {
        Chooser::new(Sampling { temperature, top_p, max_tokens: 1 }, Key::new(Seed(1)), vocabulary)
    }

    #[test]
    fn greedy_takes_the_lower_of_equals_and_padding_is_never_picked() {
        assert_eq!(chooser(0.0, 1.0, 9).pick(&[1.0, 3.0, 3.0], 0), 1);
        assert_eq!(chooser(0.0, 1.0, 2).pick(&[1.0, 2.0, 9.0], 0), 1);
        for position in 0..100 {
            assert!(chooser(1.0, 1.0, 2).pick(&[1.0, 2.0, 50.0], position) < 2);
        }
    }

    #[test]
    fn shares_follow_the_softmax_and_the_nucleus_cuts_the_tail() {
        let logits = [0.0, (3.0f32).ln(), f32::NEG_INFINITY];
        let count = |c: &Chooser| (0..20_000).filter(|i| c.pick(&logits, *i) == 1).count() as f64 / 20_000.0;
        assert!((count(&chooser(1.0, 1.0, 3)) - 0.75).abs() < 0.02);
        assert!((count(&chooser(0.5, 1.0, 3)) - 0.9).abs() < 0.02);
        assert!((count(&chooser(1.0, 0.7, 3)) - 1.0).abs() < 1e-9);
    }
}
