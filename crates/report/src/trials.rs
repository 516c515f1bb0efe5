//! Scores of suites as their own benchmarks report them: average reward and, over several trials, pass^k.

use crate::tally::TaskTally;
use crate::{Table, Tally, interval};

/// One model on one suite.
#[derive(Debug, Clone, PartialEq)]
pub struct SuiteScore {
    /// The suite, or a name for several.
    pub suite: String,
    /// Different tasks.
    pub tasks: usize,
    /// Trials a task.
    pub trials: usize,
    /// Mean reward, 0 to 1.
    pub reward: f64,
    /// Its 95 % interval (bootstrap over tasks).
    pub interval: (f64, f64),
    /// pass^k for k = 1, 2, … up to the number of trials.
    pub pass: Vec<f64>,
}

/// pass^k: the chance that all of k trials of a task succeed, estimated from n ≥ k trials with c successes as
/// C(c, k) / C(n, k) and averaged over tasks (arXiv 2406.12045; sierra-research/tau-bench@59a200c:tau_bench/run.py).
/// `successes` holds c for each task.
#[must_use]
pub fn pass_hat(successes: &[usize], trials: usize, k: usize) -> f64 {
    // A ratio of binomials as a product: no number in it is large.
    let one = |c: usize| (0..k).map(|i| (c as f64 - i as f64).max(0.0) / (trials - i) as f64).product::<f64>();
    if successes.is_empty() || k > trials {
        0.0
    } else {
        successes.iter().map(|c| one(*c)).sum::<f64>() / successes.len() as f64
    }
}

/// Scores per suite, in the suites' order; the last is the macro-average where there are several.
#[must_use]
pub fn suite_scores(tally: &Tally, seed: u64) -> Vec<SuiteScore> {
    let suites = tally.by_suite();
    let (mut scores, mut groups) = (Vec::new(), Vec::new());
    for (suite, counts) in suites {
        let sum = |of: &dyn Fn(&TaskTally) -> f64| counts.tasks.values().map(of).sum::<f64>();
        let trials = counts.trials.len();
        let means: Vec<f64> = counts.tasks.values().map(|task| task.rewards / task.trials as f64).collect();
        let successes: Vec<usize> = counts.tasks.values().map(|task| task.successes).collect();
        scores.push(SuiteScore {
            suite: suite.clone(),
            tasks: counts.tasks.len(),
            trials,
            reward: sum(&|task| task.rewards) / sum(&|task| task.trials as f64),
            interval: interval(&[(1.0, means.clone())], seed),
            pass: (1..=trials).map(|k| pass_hat(&successes, trials, k)).collect(),
        });
        groups.push((1.0 / suites.len() as f64, means));
    }
    if scores.len() > 1 {
        let mean = |of: &dyn Fn(&SuiteScore) -> f64| scores.iter().map(of).sum::<f64>() / scores.len() as f64;
        let trials = scores.iter().map(|s| s.trials).min().unwrap_or(0);
        let all = SuiteScore {
            suite: "macro-average".into(),
            tasks: scores.iter().map(|s| s.tasks).sum(),
            trials,
            reward: mean(&|s| s.reward),
            interval: interval(&groups, seed),
            pass: (0..trials).map(|k| mean(&|s| s.pass[k])).collect(),
        };
        scores.push(all);
    }
    scores
}

/// Scores of several models as a table.
#[must_use]
pub fn score_table(models: &[(String, Vec<SuiteScore>)]) -> Table {
    let most = models.iter().flat_map(|(_, scores)| scores).map(|s| s.pass.len()).max().unwrap_or(0);
    let passes: Vec<String> = (1..=most).map(|k| format!("pass^{k}")).collect();
    let mut head = vec!["model", "suite", "tasks", "trials", "reward", "95 %"];
    head.extend(passes.iter().map(String::as_str));
    let mut table = Table::new("Scores (%)", &head);
    let percent = |x: f64| format!("{:.1}", 100.0 * x);
    for (model, scores) in models {
        for score in scores {
            let (low, high) = score.interval;
            let mut row = vec![
                model.clone(),
                score.suite.clone(),
                score.tasks.to_string(),
                score.trials.to_string(),
                percent(score.reward),
                format!("{} to {}", percent(low), percent(high)),
            ];
            row.extend((0..most).map(|k| score.pass.get(k).map_or("–".into(), |p| percent(*p))));
            table.rows.push(row);
        }
    }
    table.note =
        "Reward: mean over episodes, its interval by bootstrap over tasks. pass^k: all of k trials succeed.".into();
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pass_hat_is_upstreams_estimator() {
        // One task solved in 3 of 4 trials, one in 1, one never.
        let successes = [3, 1, 0];
        assert!((pass_hat(&successes, 4, 1) - (0.75 + 0.25) / 3.0).abs() < 1e-12);
        assert!((pass_hat(&successes, 4, 2) - (3.0 / 6.0) / 3.0).abs() < 1e-12);
        assert!((pass_hat(&successes, 4, 3) - (1.0 / 4.0) / 3.0).abs() < 1e-12);
        assert_eq!(pass_hat(&successes, 4, 4), 0.0);
        assert_eq!(pass_hat(&[4, 4], 4, 4), 1.0);
        assert_eq!(pass_hat(&[], 4, 1), 0.0);
        assert!(pass_hat(&[900; 3], 1000, 500).is_finite());
    }
}
