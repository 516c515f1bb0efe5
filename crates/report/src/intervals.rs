//! 95 % intervals, of means of rewards and of paired differences. Every random draw comes from a seed.
//!
//! | what | interval |
//! |---|---|
//! | rewards of 0 and 1, one suite, one trial a task | Wilson's score (Wilson 1927) |
//! | other means, and weighted means over suites | BCa bootstrap over tasks within suites (Efron 1987), trials of a task together |
//! | paired differences of rewards of 0 and 1, one suite | Newcombe's method 10 (Newcombe 1998, Stat. Med. 17:2635) |
//! | other paired differences | BCa bootstrap as above |
//!
//! A suite whose tasks all have one value does not move when it is resampled, though its mean is not known for sure: its part of a
//! weighted mean has Wilson's interval for that share of its tasks (or Newcombe's), and distances add up as squares (MOVER, Zou & Donner
//! 2008).

use rayon::prelude::*;
use rolegraft_trajectory::{Key, Seed};
use statrs::distribution::{ContinuousCDF, Normal};

/// Resamples of a bootstrap.
const RESAMPLES: usize = 2000;

/// A suite's weight, and a value for each of its tasks.
pub type Stratum<T> = (f64, Vec<T>);

/// The normal quantile of 97.5 %.
pub(crate) fn z95() -> f64 {
    Normal::standard().inverse_cdf(0.975)
}

/// Wilson's interval of a share of `n`; `successes` need not be whole. (0, 1) of nothing.
#[must_use]
pub fn wilson(successes: f64, n: usize) -> (f64, f64) {
    let n = n as f64;
    if n == 0.0 {
        return (0.0, 1.0);
    }
    let (p, square) = (successes / n, z95().powi(2));
    let middle = (p + square / (2.0 * n)) / (1.0 + square / n);
    let half = z95() / (1.0 + square / n) * (p * (1.0 - p) / n + square / (4.0 * n * n)).sqrt();
    // The edges are their own bounds, exactly.
    (if p == 0.0 { 0.0 } else { middle - half }, if p == 1.0 { 1.0 } else { middle + half })
}

/// Newcombe's interval of the difference of two shares of the same tasks, by how many both solved, one alone, the other alone,
/// neither.
#[must_use]
pub fn newcombe([both, first, second, neither]: [usize; 4]) -> (f64, f64) {
    let n = both + first + second + neither;
    let [a, b, c, d] = [both, first, second, neither].map(|count| count as f64);
    let product = (a + b) * (c + d) * (a + c) * (b + d);
    let cross = a * d - b * c;
    let corrected = if cross > 0.0 { (cross - n as f64 / 2.0).max(0.0) } else { cross };
    let correlation = if product > 0.0 { corrected / product.sqrt() } else { 0.0 };
    apart((a + b, a + c), n, correlation)
}

/// MOVER of the difference of two shares.
fn apart((first, second): (f64, f64), n: usize, correlation: f64) -> (f64, f64) {
    let count = n.max(1) as f64;
    let (p, q) = (first / count, second / count);
    let ((low_p, high_p), (low_q, high_q)) = (wilson(first, n), wilson(second, n));
    let distance = |x: f64, y: f64| (x * x - 2.0 * correlation * x * y + y * y).max(0.0).sqrt();
    (p - q - distance(p - low_p, high_q - q), p - q + distance(high_p - p, q - low_q))
}

/// The interval of a weighted sum of suites' means of rewards in [0, 1]; `single` says that each task was played once. `None` if a
/// suite has no task.
#[must_use]
pub fn of_means(suites: &[Stratum<f64>], single: bool, seed: u64) -> Option<(f64, f64)> {
    if let [(weight, rewards)] = suites
        && single
        && !rewards.is_empty()
        && rewards.iter().all(|reward| is_binary(*reward))
    {
        let (low, high) = wilson(rewards.iter().sum(), rewards.len());
        return Some((weight * low, weight * high));
    }
    let still = |rewards: &[f64]| wilson(rewards.iter().sum(), rewards.len());
    combined(suites, |reward| *reward, still, seed)
}

/// The interval of a weighted sum of suites' mean differences, of pairs of rewards in [0, 1].
#[must_use]
pub fn of_differences(suites: &[Stratum<(f64, f64)>], single: bool, seed: u64) -> Option<(f64, f64)> {
    let still = |pairs: &[(f64, f64)]| match counts(pairs) {
        Some(counts) => newcombe(counts),
        None => {
            let sum = |of: fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>();
            apart((sum(|pair| pair.0), sum(|pair| pair.1)), pairs.len(), 0.0)
        }
    };
    if let [(weight, pairs)] = suites
        && single
        && let Some(counts) = counts(pairs).filter(|_| !pairs.is_empty())
    {
        let (low, high) = newcombe(counts);
        return Some((weight * low, weight * high));
    }
    combined(suites, |(ours, theirs)| ours - theirs, still, seed)
}

fn is_binary(reward: f64) -> bool {
    reward == 0.0 || reward == 1.0
}

/// Tasks that both solved, the first alone, the second alone, neither; `None` if rewards lie between.
pub(crate) fn counts(pairs: &[(f64, f64)]) -> Option<[usize; 4]> {
    let mut counts = [0; 4];
    for (ours, theirs) in pairs {
        if !is_binary(*ours) || !is_binary(*theirs) {
            return None;
        }
        counts[2 * usize::from(*ours == 0.0) + usize::from(*theirs == 0.0)] += 1;
    }
    Some(counts)
}

pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The unbiased variance of two values or more.
pub(crate) fn variance(values: &[f64]) -> f64 {
    let middle = mean(values);
    values.iter().map(|value| (value - middle).powi(2)).sum::<f64>() / (values.len() - 1) as f64
}

/// The bootstrap's interval of the suites that vary, with that of those that do not.
fn combined<T>(
    suites: &[Stratum<T>],
    value: impl Fn(&T) -> f64,
    still: impl Fn(&[T]) -> (f64, f64),
    seed: u64,
) -> Option<(f64, f64)> {
    if suites.is_empty() || suites.iter().any(|(_, tasks)| tasks.is_empty()) {
        return None;
    }
    let (mut moving, mut centre, mut squares) = (Vec::new(), 0.0, (0.0, 0.0));
    for (weight, tasks) in suites {
        let values: Vec<f64> = tasks.iter().map(&value).collect();
        let middle = mean(&values);
        centre += weight * middle;
        if values.iter().all(|value| *value == values[0]) {
            let (low, high) = still(tasks);
            squares.0 += (weight * (middle - low)).powi(2);
            squares.1 += (weight * (high - middle)).powi(2);
        } else {
            moving.push((*weight, values));
        }
    }
    if !moving.is_empty() {
        let middle: f64 = moving.iter().map(|(weight, values)| weight * mean(values)).sum();
        let (low, high) = bootstrap(&moving, seed);
        squares.0 += (middle - low).powi(2);
        squares.1 += (high - middle).powi(2);
    }
    Some((centre - squares.0.sqrt(), centre + squares.1.sqrt()))
}

/// BCa over tasks within suites, as scipy.stats.bootstrap has it for several samples.
fn bootstrap(suites: &[(f64, Vec<f64>)], seed: u64) -> (f64, f64) {
    let key = Key::new(Seed(seed)).child("bootstrap");
    let mut sums: Vec<f64> = (0..RESAMPLES)
        .into_par_iter()
        .map(|resample| {
            let mut rng = key.index(resample as u64).rng();
            let mut drawn = |tasks: &[f64]| (0..tasks.len()).map(|_| tasks[rng.below(tasks.len())]).sum::<f64>();
            suites.iter().map(|(weight, tasks)| weight * drawn(tasks) / tasks.len() as f64).sum()
        })
        .collect();
    sums.sort_by(f64::total_cmp);
    let centre: f64 = suites.iter().map(|(weight, tasks)| weight * mean(tasks)).sum();
    // Sums of the same numbers in another order differ in the last bits.
    let near = 1e-12 * centre.abs().max(1.0);
    let below = sums.partition_point(|sum| *sum < centre - near);
    let until = sums.partition_point(|sum| *sum <= centre + near);
    let normal = Normal::standard();
    let bias = normal.inverse_cdf((below + until) as f64 / (2 * RESAMPLES) as f64);
    // Influences by leaving one task out.
    let (mut cubes, mut squares) = (0.0, 0.0);
    for (weight, tasks) in suites.iter().filter(|(_, tasks)| tasks.len() > 1) {
        let (n, middle) = (tasks.len() as f64, mean(tasks));
        for value in tasks {
            let influence = weight * (value - middle);
            cubes += influence.powi(3) / n.powi(3);
            squares += influence.powi(2) / n.powi(2);
        }
    }
    let acceleration = if squares > 0.0 { cubes / (6.0 * squares.powf(1.5)) } else { 0.0 };
    let end = |z: f64| {
        let moved = bias + (bias + z) / (1.0 - acceleration * (bias + z));
        quantile(&sums, normal.cdf(moved))
    };
    (end(-z95()), end(z95()))
}

/// 95 % intervals, by percentiles, of two functions of resampled tasks: of each suite so many, drawn with replacement.
pub(crate) fn resampled(
    lengths: &[usize],
    seed: u64,
    of: impl Fn(&[Vec<usize>]) -> (f64, f64) + Sync,
) -> ((f64, f64), (f64, f64)) {
    let key = Key::new(Seed(seed)).child("bootstrap");
    let all: Vec<(f64, f64)> = (0..RESAMPLES)
        .into_par_iter()
        .map(|resample| {
            let mut rng = key.index(resample as u64).rng();
            let drawn: Vec<Vec<usize>> =
                lengths.iter().map(|length| (0..*length).map(|_| rng.below(*length)).collect()).collect();
            of(&drawn)
        })
        .collect();
    let ends = |pick: fn(&(f64, f64)) -> f64| {
        let mut values: Vec<f64> = all.iter().map(pick).collect();
        values.sort_by(f64::total_cmp);
        (quantile(&values, 0.025), quantile(&values, 0.975))
    };
    (ends(|pair| pair.0), ends(|pair| pair.1))
}

/// Linear between neighbours, as numpy has it.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = share.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let (low, rest) = (at.floor() as usize, at.fract());
    let high = (low + 1).min(sorted.len() - 1);
    sorted[low] + rest * (sorted[high] - sorted[low])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_at_the_edges_have_wide_intervals() {
        let (low, high) = of_means(&[(1.0, vec![0.0; 10])], true, 1).unwrap();
        assert!(low == 0.0 && (high - 0.27753).abs() < 1e-4, "{high}");
        let (low, high) = of_means(&[(1.0, vec![1.0; 10])], false, 1).unwrap();
        assert!(high == 1.0 && (low - 0.72247).abs() < 1e-4, "{low}");
        let (low, high) = of_differences(&[(1.0, vec![(1.0, 1.0); 10])], true, 1).unwrap();
        assert!(low < -0.2 && high > 0.2, "{low} {high}");
        assert_eq!(of_means(&[(1.0, Vec::new())], true, 1), None);
        assert_eq!(wilson(0.0, 0), (0.0, 1.0));
    }

    #[test]
    fn suites_that_do_not_vary_widen_the_mean_of_those_that_do() {
        let varying: Vec<f64> = (0..40).map(|i| f64::from(i % 2)).collect();
        let width = |suites: &[Stratum<f64>]| {
            let (low, high) = of_means(suites, true, 1).unwrap();
            high - low
        };
        let alone = width(&[(0.5, varying.clone())]);
        let both = width(&[(0.5, varying.clone()), (0.5, vec![0.0; 10])]);
        assert!(both > alone && both < alone + 0.5 * 0.28, "{both} {alone}");
        let repeated = of_means(&[(0.5, varying.clone()), (0.5, varying.clone())], true, 1);
        assert_eq!(repeated, of_means(&[(0.5, varying.clone()), (0.5, varying)], true, 1));
    }
}
