//! How large a difference of two models a number of tasks shows, and how many tasks show a difference.
//!
//! Paired, with m the mean square of a task's difference δ: n = (z₀.₉₇₅·√m + z_power·√(m − δ²))² / δ² (Connor 1987, Biometrics 43:207, of
//! which McNemar's test is the case of rewards 0 and 1). Of k trials a task m is what differs between tasks, and a kth of what differs
//! between trials.

use crate::intervals::{mean, variance, z95};
use statrs::distribution::{ContinuousCDF, Normal};

/// The chance with which a difference is to be shown, where nothing else is said.
pub const POWER: f64 = 0.8;

/// What is known of the differences of two models on a suite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Tasks.
    pub tasks: usize,
    /// Trials a task.
    pub trials: usize,
    /// Mean square of the differences that differ from task to task, however often each is played.
    pub between: f64,
    /// What a trial adds to it; `None` where tasks were played once.
    pub within: Option<f64>,
}

impl Spread {
    /// The mean square of differences, of so many trials a task. Where trials were not told apart, more do not help.
    fn square(&self, trials: usize) -> f64 {
        self.between + self.within.unwrap_or_default() / trials as f64
    }

    /// The smallest difference, of 0 to 1, that as many tasks show with a chance of `power` at 5 %; 1 if none.
    #[must_use]
    pub fn detectable(&self, power: f64) -> f64 {
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..60 {
            let middle = (low + high) / 2.0;
            match self.needed(middle, power, self.trials) > self.tasks as f64 {
                true => low = middle,
                false => high = middle,
            }
        }
        high
    }

    /// The tasks that show a difference, of so many trials each.
    #[must_use]
    pub fn needed(&self, difference: f64, power: f64, trials: usize) -> f64 {
        let (square, chance) = (self.square(trials), Normal::standard().inverse_cdf(power));
        let root = z95() * square.sqrt() + chance * (square - difference * difference).max(0.0).sqrt();
        (root / difference).powi(2)
    }

    /// Of two models' rewards of the same tasks, a trial each. Two tasks solved by one of them, of four more, are added, since what never
    /// differed in few tasks may yet differ (Agresti & Coull 1998).
    #[must_use]
    pub fn of(pairs: &[(&Vec<f64>, &Vec<f64>)]) -> Option<Self> {
        let trials =
            pairs.iter().map(|(ours, theirs)| ours.len().min(theirs.len())).min().filter(|least| *least > 0)?;
        let squares: f64 = pairs.iter().map(|(ours, theirs)| (mean(ours) - mean(theirs)).powi(2)).sum();
        let square = (squares + 2.0) / (pairs.len() as f64 + 4.0);
        let within = (trials > 1).then(|| {
            let all: f64 = pairs.iter().map(|(ours, theirs)| variance(ours) + variance(theirs)).sum();
            (all / pairs.len() as f64).min(square * trials as f64)
        });
        let between = square - within.unwrap_or_default() / trials as f64;
        Some(Self { tasks: pairs.len(), trials, between, within })
    }

    /// The mean over pairs of models, of the fewest tasks and trials among them.
    pub(crate) fn mean(all: &[Self]) -> Option<Self> {
        let (first, count) = (all.first()?, all.len() as f64);
        let within: Option<Vec<f64>> = all.iter().map(|spread| spread.within).collect();
        Some(Self {
            tasks: all.iter().map(|spread| spread.tasks).min().unwrap_or(first.tasks),
            trials: all.iter().map(|spread| spread.trials).min().unwrap_or(first.trials),
            between: all.iter().map(|spread| spread.between).sum::<f64>() / count,
            within: within.map(|within| within.iter().sum::<f64>() / count),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_tasks_show_smaller_differences() {
        // 30 % of tasks are solved by one of two alone: for 10 points 195 tasks, as by Connor's formula with its normal quantiles.
        let spread = Spread { tasks: 60, trials: 1, between: 0.3, within: None };
        let needed = spread.needed(0.1, 0.8, 1);
        assert!((needed - 233.0).abs() < 2.0, "{needed}");
        let detectable = spread.detectable(0.8);
        assert!((spread.needed(detectable, 0.8, 1) - 60.0).abs() < 0.01 && detectable > 0.15, "{detectable}");
        assert!(Spread { tasks: 240, ..spread }.detectable(0.8) < detectable / 1.9);
        // What differs from trial to trial goes with them.
        let both = Spread { within: Some(0.2), between: 0.1, trials: 1, ..spread };
        assert!(both.needed(0.1, 0.8, 4) < 0.6 * both.needed(0.1, 0.8, 1));
    }

    #[test]
    fn trials_are_told_from_tasks() {
        let (ours, theirs) = (vec![1.0, 0.0], vec![1.0, 0.0]);
        let pairs: Vec<(&Vec<f64>, &Vec<f64>)> = (0..40).map(|_| (&ours, &theirs)).collect();
        let spread = Spread::of(&pairs).unwrap();
        assert!(spread.trials == 2 && spread.within.unwrap() > 0.0 && spread.between >= 0.0, "{spread:?}");
        assert_eq!(Spread::of(&[]), None);
        let once = vec![1.0];
        assert_eq!(Spread::of(&[(&once, &once)]).unwrap().within, None);
    }
}
