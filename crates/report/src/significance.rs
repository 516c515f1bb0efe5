//! Tests of paired differences, and what a family of them allows. Every random draw comes from a seed.

use rolegraft_trajectory::{Key, Seed};
use statrs::distribution::{Binomial, DiscreteCDF};

/// Differences up to which every pattern of signs is tried.
const EXACT: usize = 14;
/// Patterns that are drawn otherwise.
const DRAWS: usize = 10_000;

/// Exact two-sided McNemar test: `wins` and `losses` are the tasks that only one of two models solved.
#[must_use]
pub fn mcnemar(wins: usize, losses: usize) -> f64 {
    let n = wins + losses;
    let tail = Binomial::new(0.5, n as u64).map_or(0.5, |tosses| tosses.cdf(wins.min(losses) as u64));
    (2.0 * tail).min(1.0)
}

/// Two-sided permutation test of a weighted sum of suites' mean differences: the share of sign patterns whose sum is at least as far
/// from 0. Exact for few differences, else of drawn patterns, the observed one among them (Phipson & Smyth 2010).
#[must_use]
pub fn permutation(suites: &[(f64, Vec<f64>)], seed: u64) -> f64 {
    let terms = suites.iter().flat_map(|(weight, tasks)| tasks.iter().map(move |d| weight * d / tasks.len() as f64));
    let terms: Vec<f64> = terms.filter(|term| *term != 0.0).collect();
    let observed = terms.iter().sum::<f64>().abs();
    let least = observed - 1e-12 * observed.max(1e-3);
    let far = |sum: f64| usize::from(sum.abs() >= least);
    if terms.len() <= EXACT {
        let patterns = 1_usize << terms.len();
        let sum = |pattern: usize| {
            let signed = terms.iter().enumerate().map(|(at, term)| if pattern >> at & 1 == 1 { -term } else { *term });
            signed.sum::<f64>()
        };
        return (0..patterns).map(|pattern| far(sum(pattern))).sum::<usize>() as f64 / patterns as f64;
    }
    let mut rng = Key::new(Seed(seed)).child("permutation").rng();
    let mut sum = || terms.iter().map(|term| if rng.below(2) == 1 { -term } else { *term }).sum::<f64>();
    let beyond: usize = (0..DRAWS).map(|_| far(sum())).sum();
    (beyond + 1) as f64 / (DRAWS + 1) as f64
}

/// Holm's adjusted p-values, in the order of the given ones.
#[must_use]
pub fn holm(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let (mut adjusted, mut most) = (vec![0.0; values.len()], 0.0_f64);
    for (rank, at) in order.into_iter().enumerate() {
        most = most.max((values[at] * (values.len() - rank) as f64).min(1.0));
        adjusted[at] = most;
    }
    adjusted
}

/// Pearson's correlation; `None` where one side does not vary.
#[must_use]
pub fn correlation(x: &[f64], y: &[f64]) -> Option<f64> {
    let n = x.len().min(y.len()) as f64;
    let (mx, my) = (x.iter().sum::<f64>() / n, y.iter().sum::<f64>() / n);
    let cov: f64 = x.iter().zip(y).map(|(a, b)| (a - mx) * (b - my)).sum();
    let (vx, vy) = (x.iter().map(|a| (a - mx).powi(2)).sum::<f64>(), y.iter().map(|b| (b - my).powi(2)).sum::<f64>());
    (n >= 2.0 && vx > 0.0 && vy > 0.0).then(|| cov / (vx * vy).sqrt())
}

/// Ranks from 1, ties sharing their mean: Spearman is [`correlation`] of these.
#[must_use]
pub fn ranks(x: &[f64]) -> Vec<f64> {
    x.iter()
        .map(|v| {
            let below = x.iter().filter(|w| *w < v).count() as f64;
            let equal = x.iter().filter(|w| *w == v).count() as f64;
            below + (equal + 1.0) / 2.0
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mcnemar_is_the_exact_binomial() {
        assert_eq!(mcnemar(0, 0), 1.0);
        assert!((mcnemar(0, 5) - 0.0625).abs() < 1e-12);
        assert!((mcnemar(10, 2) - 0.038574).abs() < 1e-5);
        assert_eq!(mcnemar(3, 3), 1.0);
        assert!(mcnemar(3000, 2000) < 1e-40);
    }

    #[test]
    fn permutations_are_exact_where_they_are_few() {
        // All five the same sign: 2 of 32 patterns.
        assert_eq!(permutation(&[(1.0, vec![0.5, 0.2, 0.1, 0.4, 0.3])], 1), 2.0 / 32.0);
        assert_eq!(permutation(&[(1.0, vec![0.0; 9])], 1), 1.0);
        assert_eq!(permutation(&[(1.0, vec![0.5, -0.5])], 1), 1.0);
        // Of many of one size the test is the binomial's.
        let many: Vec<f64> = (0..40).map(|i| if i < 28 { 1.0 } else { -1.0 }).collect();
        let p = permutation(&[(1.0, many)], 1);
        assert!((p - mcnemar(28, 12)).abs() < 0.005, "{p}");
    }

    #[test]
    fn holm_steps_down() {
        let adjusted = holm(&[0.01, 0.04, 0.03, 0.005]);
        let expected = [0.03, 0.06, 0.06, 0.02];
        assert!(adjusted.iter().zip(expected).all(|(a, e)| (a - e).abs() < 1e-12), "{adjusted:?}");
        assert_eq!(holm(&[]), Vec::<f64>::new());
    }

    #[test]
    fn correlations() {
        assert_eq!(correlation(&[1.0, 2.0, 3.0], &[2.0, 4.0, 6.0]), Some(1.0));
        assert_eq!(correlation(&[1.0, 1.0], &[2.0, 4.0]), None);
        assert_eq!(ranks(&[5.0, 1.0, 5.0]), [2.5, 1.0, 2.5]);
    }
}
