//! Scores of suites as their own benchmarks report them: average reward and, over several trials, pass^k.

use crate::intervals::of_means;
use crate::tally::TaskTally;
use crate::{Table, Tally};

/// One model on one suite.
#[derive(Debug, Clone, PartialEq)]
pub struct SuiteScore {
    /// The suite, or a name for several.
    pub suite: String,
    /// Different tasks.
    pub tasks: usize,
    /// Most trials that a task has.
    pub trials: usize,
    /// Mean over tasks of their trials' mean rewards, 0 to 1.
    pub reward: f64,
    /// Its 95 % interval.
    pub interval: (f64, f64),
    /// pass^k for k = 1, 2, … up to the most trials, with the tasks that have so many.
    pub pass: Vec<(f64, usize)>,
}

/// pass^k: the chance that all of k trials of a task succeed, estimated from n ≥ k trials with c successes as
/// C(c, k) / C(n, k) and averaged over tasks (arXiv 2406.12045; sierra-research/tau-bench@59a200c:tau_bench/run.py); and how many these
/// are: a task with fewer trials says nothing of it. `tasks` holds c and n of each.
#[must_use]
pub fn pass_hat(tasks: &[(usize, usize)], k: usize) -> (f64, usize) {
    // A ratio of binomials as a product: no number in it is large.
    let one = |c: usize, n: usize| (0..k).map(|i| (c as f64 - i as f64).max(0.0) / (n - i) as f64).product::<f64>();
    let enough: Vec<f64> = tasks.iter().filter(|(_, n)| *n >= k).map(|(c, n)| one(*c, *n)).collect();
    (enough.iter().sum::<f64>() / enough.len().max(1) as f64, enough.len())
}

/// Scores per suite, in the suites' order; the last is the macro-average where there are several.
#[must_use]
pub fn suite_scores(tally: &Tally, seed: u64) -> Vec<SuiteScore> {
    let suites = tally.by_suite();
    let (mut scores, mut groups, mut all_single) = (Vec::new(), Vec::new(), true);
    for (suite, counts) in suites {
        let trials = counts.tasks.values().map(TaskTally::trials).max().unwrap_or(0);
        let means: Vec<f64> = counts.tasks.values().map(TaskTally::mean).collect();
        let successes: Vec<(usize, usize)> = counts.tasks.values().map(|t| (t.successes, t.trials())).collect();
        all_single &= trials == 1;
        let suites = [(1.0, means)];
        scores.push(SuiteScore {
            suite: suite.clone(),
            tasks: counts.tasks.len(),
            trials,
            reward: suites[0].1.iter().sum::<f64>() / counts.tasks.len().max(1) as f64,
            interval: of_means(&suites, trials == 1, seed).unwrap_or((0.0, 1.0)),
            pass: (1..=trials).map(|k| pass_hat(&successes, k)).collect(),
        });
        groups.extend(suites.map(|(_, means)| means));
    }
    if scores.len() > 1 {
        let share = 1.0 / scores.len() as f64;
        let groups: Vec<_> = groups.into_iter().map(|means| (share, means)).collect();
        let trials = scores.iter().map(|s| s.trials).min().unwrap_or(0);
        let pass = |k: usize| {
            (scores.iter().map(|s| share * s.pass[k].0).sum::<f64>(), scores.iter().map(|s| s.pass[k].1).sum())
        };
        let all = SuiteScore {
            suite: "macro-average".into(),
            tasks: scores.iter().map(|s| s.tasks).sum(),
            trials,
            reward: scores.iter().map(|s| share * s.reward).sum(),
            interval: of_means(&groups, all_single, seed).unwrap_or((0.0, 1.0)),
            pass: (0..trials).map(pass).collect(),
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
            let pass = |(share, tasks): &(f64, usize)| match *tasks == score.tasks {
                true => percent(*share),
                false => format!("{} ({tasks} tasks)", percent(*share)),
            };
            row.extend((0..most).map(|k| score.pass.get(k).map_or("–".into(), pass)));
            table.rows.push(row);
        }
    }
    table.note =
        "Reward: mean over tasks; its interval: Wilson's for rewards of 0 and 1 of one trial, else BCa over tasks. pass^k: all of k trials \
         succeed, over tasks with as many."
            .into();
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pass_hat_is_upstreams_estimator() {
        // One task solved in 3 of 4 trials, one in 1, one never.
        let tasks = [(3, 4), (1, 4), (0, 4)];
        let near = |k: usize, expected: f64| {
            let (share, of) = pass_hat(&tasks, k);
            assert!((share - expected).abs() < 1e-12 && of == 3, "{k}: {share} of {of}");
        };
        near(1, (0.75 + 0.25) / 3.0);
        near(2, (3.0 / 6.0) / 3.0);
        near(3, (1.0 / 4.0) / 3.0);
        near(4, 0.0);
        assert_eq!(pass_hat(&[(4, 4), (4, 4)], 4), (1.0, 2));
        assert_eq!(pass_hat(&[], 1), (0.0, 0));
        // A task with fewer trials is missing, not failed.
        assert_eq!(pass_hat(&[(4, 4), (1, 1)], 2), (1.0, 1));
        assert!(pass_hat(&[(900, 1000); 3], 500).0.is_finite());
    }
}
