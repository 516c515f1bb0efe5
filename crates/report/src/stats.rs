//! Intervals and tests. Every random draw comes from a seed.

use rayon::prelude::*;
use rolegraft_trajectory::{Key, Rng, Seed};

/// Resamples of a bootstrap.
const RESAMPLES: usize = 2000;

/// Exact two-sided McNemar test: `wins` and `losses` are the tasks that only one of two models solved.
#[must_use]
pub fn mcnemar(wins: usize, losses: usize) -> f64 {
    let n = wins + losses;
    if n == 0 {
        return 1.0;
    }
    // Binomial tail in logarithms: n can be large.
    let ln_factorial = |k: usize| (1..=k).map(|i| (i as f64).ln()).sum::<f64>();
    let ln_choose = |k: usize| ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k);
    let tail: f64 = (0..=wins.min(losses)).map(|k| (ln_choose(k) - n as f64 * 2.0f64.ln()).exp()).sum();
    (2.0 * tail).min(1.0)
}

/// 95 % interval of a weighted sum of suites' means, resampled over tasks within each suite. `suites` holds each suite's
/// weight and its values (rewards, or paired differences); (0, 0) if one of them is empty.
#[must_use]
pub fn interval(suites: &[(f64, Vec<f64>)], seed: u64) -> (f64, f64) {
    let one = |(weight, values): &(f64, Vec<f64>)| (*weight, values.iter().map(|value| vec![*value]).collect());
    nested_interval(&suites.iter().map(one).collect::<Vec<_>>(), seed)
}

/// [`interval`] where a task was played several times: resampled over tasks, and over what was played of each drawn task.
#[must_use]
pub fn nested_interval(suites: &[(f64, Vec<Vec<f64>>)], seed: u64) -> (f64, f64) {
    if suites.is_empty() || suites.iter().any(|(_, tasks)| tasks.is_empty() || tasks.iter().any(Vec::is_empty)) {
        return (0.0, 0.0);
    }
    let key = Key::new(Seed(seed)).child("bootstrap");
    let mut sums: Vec<f64> = (0..RESAMPLES)
        .into_par_iter()
        .map(|r| {
            let mut rng = key.index(r as u64).rng();
            let played = |values: &[f64], rng: &mut Rng| match values {
                [only] => *only,
                several => {
                    several.iter().map(|_| several[rng.below(several.len())]).sum::<f64>() / several.len() as f64
                }
            };
            let mean = |tasks: &[Vec<f64>], rng: &mut Rng| {
                let drawn = (0..tasks.len()).map(|_| {
                    let task = rng.below(tasks.len());
                    played(&tasks[task], rng)
                });
                drawn.sum::<f64>() / tasks.len() as f64
            };
            suites.iter().map(|(weight, tasks)| weight * mean(tasks, &mut rng)).sum()
        })
        .collect();
    sums.sort_by(f64::total_cmp);
    (sums[RESAMPLES * 25 / 1000], sums[RESAMPLES * 975 / 1000])
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
    }

    #[test]
    fn correlations() {
        assert_eq!(correlation(&[1.0, 2.0, 3.0], &[2.0, 4.0, 6.0]), Some(1.0));
        assert_eq!(correlation(&[1.0, 1.0], &[2.0, 4.0]), None);
        assert_eq!(ranks(&[5.0, 1.0, 5.0]), [2.5, 1.0, 2.5]);
    }

    #[test]
    fn intervals_hold_the_mean_and_repeat() {
        let values: Vec<f64> = (0..50).map(|i| f64::from(i % 3) - 1.0).collect();
        let (low, high) = interval(&[(1.0, values.clone())], 1);
        assert!(low < -0.02 && high > -0.02 && high - low < 0.6);
        assert_eq!(interval(&[(1.0, values.clone())], 1), (low, high));
        // Weights count: a suite of weight 0 changes nothing but the draws.
        let (low, high) = interval(&[(0.5, vec![1.0; 9]), (0.5, vec![3.0; 9])], 1);
        assert_eq!((low, high), (2.0, 2.0));
    }

    #[test]
    fn what_differs_between_plays_of_a_task_widens_the_interval() {
        let tasks = |spread: f64| vec![vec![0.5 - spread, 0.5, 0.5 + spread]; 20];
        let (low, high) = nested_interval(&[(1.0, tasks(0.5))], 1);
        assert!(low < 0.5 && 0.5 < high && high - low < 0.4);
        assert_eq!(nested_interval(&[(1.0, tasks(0.0))], 1), (0.5, 0.5));
        assert_eq!(nested_interval(&[(1.0, vec![Vec::new()])], 1), (0.0, 0.0));
    }
}
