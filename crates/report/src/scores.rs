//! Scores per benchmark, AVG, WS, RHM: the paper's tables 1 and 3.

use crate::{Table, interval, mcnemar};
use rolegraft_trajectory::Episode;
use std::collections::BTreeMap;

/// A column of the tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Benchmark {
    /// Its id in files.
    pub id: String,
    /// Its head in tables.
    pub title: String,
    /// Its suites; their macro-average is its score.
    pub suites: Vec<String>,
}

/// Rewards of one model: suite → task → mean over trials.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelScores {
    /// The model's name.
    pub name: String,
    /// Rewards between 0 and 1.
    pub rewards: BTreeMap<String, BTreeMap<String, f64>>,
}

impl ModelScores {
    /// From episodes; several trials of a task are averaged.
    #[must_use]
    pub fn new<'a>(name: &str, episodes: impl IntoIterator<Item = &'a Episode>) -> Self {
        let mut sums: BTreeMap<String, BTreeMap<String, (f64, f64)>> = BTreeMap::new();
        for e in episodes {
            let at = sums.entry(e.key.suite.clone()).or_default().entry(e.key.task.clone()).or_default();
            at.0 += e.reward;
            at.1 += 1.0;
        }
        let mean = |tasks: BTreeMap<String, (f64, f64)>| tasks.into_iter().map(|(t, (s, n))| (t, s / n)).collect();
        Self { name: name.into(), rewards: sums.into_iter().map(|(s, tasks)| (s, mean(tasks))).collect() }
    }

    fn suite(&self, suite: &str) -> Vec<f64> {
        self.rewards.get(suite).map(|t| t.values().copied().collect()).unwrap_or_default()
    }

    /// The benchmark's score, 0 to 100; `None` if one of its suites was not played.
    #[must_use]
    pub fn score(&self, benchmark: &Benchmark) -> Option<f64> {
        let means: Option<Vec<f64>> = benchmark
            .suites
            .iter()
            .map(|s| Some(self.suite(s)).filter(|r| !r.is_empty()).map(|r| r.iter().sum::<f64>() / r.len() as f64))
            .collect();
        means.map(|m| 100.0 * m.iter().sum::<f64>() / m.len() as f64)
    }
}

/// A paired difference in points, with its 95 % interval (bootstrap over tasks).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// The difference.
    pub points: f64,
    /// The interval's lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

impl Difference {
    /// Whether the interval leaves out 0.
    #[must_use]
    pub fn is_significant(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }
}

/// Rewards of the tasks that two models played, by suite.
fn shared(ours: &ModelScores, other: &ModelScores, benchmark: &Benchmark) -> Vec<Vec<(f64, f64)>> {
    let of = |suite: &String| {
        let (ours, other) = (ours.rewards.get(suite), other.rewards.get(suite));
        ours.into_iter().flatten().filter_map(|(task, reward)| Some((*reward, *other?.get(task)?))).collect()
    };
    benchmark.suites.iter().map(of).collect()
}

fn changes(suites: Vec<Vec<(f64, f64)>>) -> Vec<Vec<f64>> {
    suites.into_iter().map(|s| s.into_iter().map(|(a, o)| a - o).collect()).collect()
}

fn mean_of_means(suites: &[Vec<f64>]) -> f64 {
    suites.iter().map(|s| s.iter().sum::<f64>() / s.len().max(1) as f64).sum::<f64>() / suites.len().max(1) as f64
}

/// RHM = n / Σ (best/score); 0 if any score is 0.
#[must_use]
pub fn rhm(scores: &[f64], best: &[f64]) -> f64 {
    if scores.contains(&0.0) || scores.is_empty() {
        return 0.0;
    }
    scores.len() as f64 / scores.iter().zip(best).map(|(s, b)| b / s).sum::<f64>()
}

/// WS: the worst score.
#[must_use]
pub fn worst(scores: &[f64]) -> f64 {
    scores.iter().copied().reduce(f64::min).unwrap_or(0.0)
}

/// AVG, WS and RHM of a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Mean of the benchmarks.
    pub avg: f64,
    /// Their minimum.
    pub ws: f64,
    /// Harmonic mean relative to the best expert.
    pub rhm: f64,
}

/// Every model on every benchmark.
#[derive(Debug, Clone, Default)]
pub struct Scoreboard {
    /// The columns.
    pub benchmarks: Vec<Benchmark>,
    /// The rows.
    pub models: Vec<ModelScores>,
    /// Names of the experts among the rows.
    pub experts: Vec<String>,
    /// Seed of the intervals.
    pub seed: u64,
}

impl Scoreboard {
    /// A row by name.
    #[must_use]
    pub fn model(&self, name: &str) -> Option<&ModelScores> {
        self.models.iter().find(|m| m.name == name)
    }
    fn scores(&self, model: &ModelScores) -> Option<Vec<f64>> {
        self.benchmarks.iter().map(|b| model.score(b)).collect()
    }
    /// The best expert's score per benchmark.
    #[must_use]
    pub fn best_expert(&self) -> Vec<f64> {
        let expert =
            |b: &Benchmark| self.experts.iter().filter_map(|e| self.model(e)?.score(b)).reduce(f64::max).unwrap_or(0.0);
        self.benchmarks.iter().map(expert).collect()
    }
    /// AVG, WS, RHM; `None` if a benchmark is missing.
    #[must_use]
    pub fn summary(&self, model: &ModelScores) -> Option<Summary> {
        let scores = self.scores(model)?;
        let avg = scores.iter().sum::<f64>() / scores.len().max(1) as f64;
        Some(Summary { avg, ws: worst(&scores), rhm: rhm(&scores, &self.best_expert()) })
    }

    /// Half the width of the 95 % interval of a model's score on one benchmark.
    fn margin(&self, model: &ModelScores, benchmark: &Benchmark) -> f64 {
        let weight = 1.0 / benchmark.suites.len() as f64;
        let suites: Vec<_> = benchmark.suites.iter().map(|s| (weight, model.suite(s))).collect();
        let (low, high) = interval(&suites, self.seed);
        50.0 * (high - low)
    }

    /// Table 1: scores, with the change against the best expert in parentheses.
    #[must_use]
    pub fn table1(&self) -> Table {
        let mut table = Table { title: "Table 1: scores".into(), ..Table::default() };
        table.head.push("model".into());
        table.head.extend(self.benchmarks.iter().map(|b| b.title.clone()));
        table.head.push("AVG".into());
        let best = self.best_expert();
        let best_avg = best.iter().sum::<f64>() / best.len().max(1) as f64;
        let relative = |score: f64, best: f64| match best > 0.0 {
            true => format!(" ({:+.0} %)", 100.0 * (score - best) / best),
            false => String::new(),
        };
        let mut widest: f64 = 0.0;
        for model in &self.models {
            let mut row = vec![model.name.clone()];
            let merged = !self.experts.contains(&model.name);
            for (b, best) in self.benchmarks.iter().zip(&best) {
                row.push(model.score(b).map_or("–".into(), |s| {
                    widest = widest.max(self.margin(model, b));
                    format!("{s:.1}{}", if merged { relative(s, *best) } else { String::new() })
                }));
            }
            row.push(self.summary(model).map_or("–".into(), |s| {
                format!("{:.1}{}", s.avg, if merged { relative(s.avg, best_avg) } else { String::new() })
            }));
            table.rows.push(row);
        }
        if !self.experts.is_empty() {
            let mut row = vec![format!("best of {}", self.experts.len())];
            row.extend(best.iter().map(|b| format!("{b:.1}")));
            row.push(format!("{best_avg:.1}"));
            table.rows.push(row);
        }
        table.note = format!(
            "In parentheses: change against the best expert. 95 % intervals are at most ±{widest:.1} points wide (bootstrap over tasks)."
        );
        table
    }

    /// Table 3: AVG, WS, RHM, the AVG with its interval.
    #[must_use]
    pub fn table3(&self) -> Table {
        let mut table =
            Table::new("Table 3: average, worst suite, relative harmonic mean", &["model", "AVG", "95 %", "WS", "RHM"]);
        for model in &self.models {
            let Some(summary) = self.summary(model) else { continue };
            let (low, high) = self.average_interval(model);
            table.rows.push(vec![
                model.name.clone(),
                format!("{:.1}", summary.avg),
                format!("{low:.1} to {high:.1}"),
                format!("{:.1}", summary.ws),
                format!("{:.3}", summary.rhm),
            ]);
        }
        table
    }

    /// A suite's share of AVG.
    fn share(&self, benchmark: &Benchmark) -> f64 {
        1.0 / (benchmark.suites.len() * self.benchmarks.len()) as f64
    }

    /// The 95 % interval of a model's AVG.
    #[must_use]
    pub fn average_interval(&self, model: &ModelScores) -> (f64, f64) {
        let suites: Vec<_> =
            self.benchmarks.iter().flat_map(|b| b.suites.iter().map(|s| (self.share(b), model.suite(s)))).collect();
        let (low, high) = interval(&suites, self.seed);
        (100.0 * low, 100.0 * high)
    }

    /// The expert that is best on a benchmark.
    #[must_use]
    pub fn best_expert_on(&self, benchmark: &Benchmark) -> Option<&ModelScores> {
        let played = self.experts.iter().filter_map(|e| self.model(e)).filter(|m| m.score(benchmark).is_some());
        played.reduce(|best, next| if next.score(benchmark) > best.score(benchmark) { next } else { best })
    }

    /// What a model has more than another on a benchmark, on the tasks that both played.
    #[must_use]
    pub fn difference(&self, ours: &ModelScores, other: &ModelScores, benchmark: &Benchmark) -> Option<Difference> {
        let suites = changes(shared(ours, other, benchmark));
        let weight = 1.0 / suites.len() as f64;
        self.weighted(suites.into_iter().map(|s| (weight, s)).collect())
    }

    /// What a model has more of AVG than others, one of which is asked for by benchmark.
    #[must_use]
    pub fn average_difference<'m>(
        &'m self,
        ours: &ModelScores,
        other: &dyn Fn(&Benchmark) -> Option<&'m ModelScores>,
    ) -> Option<Difference> {
        let mut all = Vec::new();
        for b in &self.benchmarks {
            all.extend(changes(shared(ours, other(b)?, b)).into_iter().map(|s| (self.share(b), s)));
        }
        self.weighted(all)
    }

    fn weighted(&self, suites: Vec<(f64, Vec<f64>)>) -> Option<Difference> {
        if suites.is_empty() || suites.iter().any(|(_, s)| s.is_empty()) {
            return None;
        }
        let points = suites.iter().map(|(w, s)| w * s.iter().sum::<f64>() / s.len() as f64).sum::<f64>();
        let (low, high) = interval(&suites, self.seed);
        Some(Difference { points: 100.0 * points, low: 100.0 * low, high: 100.0 * high })
    }

    /// Paired differences of `model` against every other: points, and the McNemar p-value where rewards are 0 or 1.
    #[must_use]
    pub fn paired(&self, model: &str) -> Table {
        let mut table = Table { title: format!("Paired differences: {model} against the others"), ..Table::default() };
        table.head.push("against".into());
        table.head.extend(self.benchmarks.iter().map(|b| b.title.clone()));
        table.head.push("AVG, 95 %".into());
        table.note = "Points gained on the same tasks with the same seeds; p: exact McNemar test. AVG with its paired bootstrap interval.".into();
        let Some(ours) = self.model(model) else { return table };
        for other in self.models.iter().filter(|m| m.name != model) {
            let mut row = vec![other.name.clone()];
            let mut all = Vec::new();
            for b in &self.benchmarks {
                let suites = shared(ours, other, b);
                let of = |wins: &dyn Fn(&(f64, f64)) -> bool| suites.iter().flatten().filter(|pair| wins(pair)).count();
                let (wins, losses) = (of(&|(a, o)| a > o), of(&|(a, o)| a < o));
                let suites = changes(suites);
                row.push(format!("{:+.1} (p = {:.3})", 100.0 * mean_of_means(&suites), mcnemar(wins, losses)));
                all.extend(suites.into_iter().map(|s| (self.share(b), s)));
            }
            let (low, high) = interval(&all, self.seed);
            let difference = self.summary(ours).zip(self.summary(other)).map_or(0.0, |(a, o)| a.avg - o.avg);
            row.push(format!("{difference:+.1} ({:+.1} to {:+.1})", 100.0 * low, 100.0 * high));
            table.rows.push(row);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zero_makes_rhm_zero_and_equal_scores_make_it_one() {
        assert_eq!(rhm(&[0.0, 50.0], &[10.0, 50.0]), 0.0);
        assert_eq!(rhm(&[10.0, 50.0], &[10.0, 50.0]), 1.0);
        assert_eq!(rhm(&[5.0, 50.0], &[10.0, 50.0]), 2.0 / 3.0);
        assert_eq!(worst(&[3.0, 1.0, 2.0]), 1.0);
    }

    #[test]
    fn the_paired_interval_holds_the_difference_it_is_of() {
        // One benchmark of two suites beside one of a single suite: suites do not count alike.
        let benchmark = |id: &str, suites: &[&str]| Benchmark {
            id: id.into(),
            title: id.into(),
            suites: suites.iter().map(|s| (*s).into()).collect(),
        };
        let model = |name: &str, a: f64, b: f64, c: f64| ModelScores {
            name: name.into(),
            rewards: [("a", a), ("b", b), ("c", c)]
                .map(|(suite, r)| (suite.into(), (0..20).map(|i| (format!("t{i:02}"), r)).collect()))
                .into(),
        };
        let board = Scoreboard {
            benchmarks: vec![benchmark("x", &["a", "b"]), benchmark("y", &["c"])],
            models: vec![model("one", 0.5, 0.5, 1.0), model("two", 0.0, 0.5, 0.0)],
            experts: vec!["two".into()],
            seed: 1,
        };
        assert_eq!(board.paired("one").rows[0].last().unwrap(), "+62.5 (+62.5 to +62.5)");
        assert_eq!(board.table3().rows[0][1..3], ["75.0".to_string(), "75.0 to 75.0".to_string()]);
    }
}
