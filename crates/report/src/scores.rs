//! Scores per benchmark, AVG, WS, RHM: the paper's tables 1 and 3.

use crate::Table;
use crate::intervals::{Stratum, counts, mean, of_differences, of_means, resampled};
use crate::power::{POWER, Spread};
use crate::significance::{holm, mcnemar, permutation};
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

/// Rewards of one model: suite → task → a trial each.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelScores {
    /// The model's name.
    pub name: String,
    /// Rewards between 0 and 1.
    pub rewards: BTreeMap<String, BTreeMap<String, Vec<f64>>>,
}

impl ModelScores {
    /// From episodes, each counted.
    #[must_use]
    pub fn new<'a>(name: &str, episodes: impl IntoIterator<Item = &'a Episode>) -> Self {
        let mut rewards: BTreeMap<String, BTreeMap<String, Vec<f64>>> = BTreeMap::new();
        for e in episodes {
            rewards.entry(e.key.suite.clone()).or_default().entry(e.key.task.clone()).or_default().push(e.reward);
        }
        Self { name: name.into(), rewards }
    }

    /// A suite's tasks, each the mean of its trials.
    fn suite(&self, suite: &str) -> Vec<f64> {
        self.rewards.get(suite).map(|tasks| tasks.values().map(|trials| mean(trials)).collect()).unwrap_or_default()
    }

    /// Whether every task of a suite was played once.
    fn single(&self, suite: &str) -> bool {
        self.rewards.get(suite).is_some_and(|tasks| tasks.values().all(|trials| trials.len() == 1))
    }

    /// The benchmark's score, 0 to 100; `None` if one of its suites was not played.
    #[must_use]
    pub fn score(&self, benchmark: &Benchmark) -> Option<f64> {
        let means: Option<Vec<f64>> =
            benchmark.suites.iter().map(|s| Some(self.suite(s)).filter(|r| !r.is_empty()).map(|r| mean(&r))).collect();
        means.map(|m| 100.0 * mean(&m))
    }

    /// Tasks of a benchmark that were played.
    #[must_use]
    pub fn tasks(&self, benchmark: &Benchmark) -> usize {
        benchmark.suites.iter().filter_map(|suite| self.rewards.get(suite)).map(BTreeMap::len).sum()
    }
}

/// A paired difference in points, with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// The difference.
    pub points: f64,
    /// The interval's lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// Tasks that it is of.
    pub tasks: usize,
    /// Of the test that there is none: McNemar's for rewards of 0 and 1 of a suite, else by permutation.
    pub p: f64,
}

impl Difference {
    /// From how many points on a difference shows on so many tasks, with a chance of 80 %: by the interval's width.
    #[must_use]
    pub fn detectable(&self) -> f64 {
        (self.high - self.low) / 2.0 * 2.801_585 / 1.959_964
    }

    /// Whether the interval leaves out 0.
    #[must_use]
    pub fn is_significant(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }
}

/// Rewards of a task: a trial each of two models.
type Pair<'r> = (&'r Vec<f64>, &'r Vec<f64>);

/// Rewards of the tasks that two models played, by suite.
fn shared<'r>(ours: &'r ModelScores, other: &'r ModelScores, benchmark: &Benchmark) -> Vec<Vec<Pair<'r>>> {
    let of = |suite: &String| {
        let (ours, other) = (ours.rewards.get(suite), other.rewards.get(suite));
        ours.into_iter().flatten().filter_map(|(task, rewards)| Some((rewards, other?.get(task)?))).collect()
    };
    benchmark.suites.iter().map(of).collect()
}

/// The same of a benchmark, weighed, with the means of trials.
fn strata(suites: Vec<Vec<Pair<'_>>>, weight: f64) -> Vec<Stratum<(f64, f64)>> {
    let means = |pairs: Vec<Pair<'_>>| pairs.into_iter().map(|(ours, theirs)| (mean(ours), mean(theirs))).collect();
    suites.into_iter().map(|pairs| (weight, means(pairs))).collect()
}

fn changes(suites: &[Stratum<(f64, f64)>]) -> Vec<Stratum<f64>> {
    suites.iter().map(|(weight, pairs)| (*weight, pairs.iter().map(|(a, o)| a - o).collect())).collect()
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

    /// The 95 % interval of a model's score on one benchmark, 0 to 100.
    #[must_use]
    pub fn interval(&self, model: &ModelScores, benchmark: &Benchmark) -> Option<(f64, f64)> {
        let weight = 100.0 / benchmark.suites.len() as f64;
        let suites: Vec<_> = benchmark.suites.iter().map(|s| (weight, model.suite(s))).collect();
        of_means(&suites, benchmark.suites.iter().all(|suite| model.single(suite)), self.seed)
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
        for model in &self.models {
            let mut row = vec![model.name.clone()];
            let merged = !self.experts.contains(&model.name);
            for (b, best) in self.benchmarks.iter().zip(&best) {
                let (score, interval) = (model.score(b), self.interval(model, b));
                row.push(score.zip(interval).map_or("–".into(), |(score, (low, high))| {
                    let change = if merged { relative(score, *best) } else { String::new() };
                    format!("{score:.1}{change} [{low:.0}, {high:.0}; {}]", model.tasks(b))
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
        table.note = "In parentheses: change against the best expert. In brackets: 95 % interval (Wilson's, or BCa over tasks), and tasks."
            .into();
        table
    }

    /// Table 3: AVG, WS, RHM, the AVG with its interval.
    #[must_use]
    pub fn table3(&self) -> Table {
        let head = ["model", "AVG", "95 %", "WS", "95 %", "RHM", "95 %", "tasks"];
        let mut table = Table::new("Table 3: average, worst suite, relative harmonic mean", &head);
        for model in &self.models {
            let Some(summary) = self.summary(model) else { continue };
            let (low, high) = self.average_interval(model);
            let [worst, harmonic] = self.summary_intervals(model);
            table.rows.push(vec![
                model.name.clone(),
                format!("{:.1}", summary.avg),
                format!("{low:.1} to {high:.1}"),
                format!("{:.1}", summary.ws),
                format!("{:.1} to {:.1}", worst.0, worst.1),
                format!("{:.3}", summary.rhm),
                format!("{:.3} to {:.3}", harmonic.0, harmonic.1),
                self.benchmarks.iter().map(|b| model.tasks(b)).sum::<usize>().to_string(),
            ]);
        }
        table.note =
            "95 %: bootstrap over tasks within suites, of RHM together with the experts' scores on the same tasks."
                .into();
        table
    }

    /// A suite's share of AVG.
    fn share(&self, benchmark: &Benchmark) -> f64 {
        1.0 / (benchmark.suites.len() * self.benchmarks.len()) as f64
    }

    fn suites(&self) -> impl Iterator<Item = (&Benchmark, &String)> {
        self.benchmarks.iter().flat_map(|b| b.suites.iter().map(move |suite| (b, suite)))
    }

    /// The 95 % interval of a model's AVG; all of 0 to 100 where a suite was not played.
    #[must_use]
    pub fn average_interval(&self, model: &ModelScores) -> (f64, f64) {
        let suites: Vec<_> = self.suites().map(|(b, suite)| (100.0 * self.share(b), model.suite(suite))).collect();
        let single = self.suites().all(|(_, suite)| model.single(suite));
        of_means(&suites, single, self.seed).unwrap_or((0.0, 100.0))
    }

    /// The 95 % intervals of a model's WS and RHM. Where a benchmark's tasks all ended alike, resampling cannot move its score: then the
    /// bounds are those of the benchmarks' own intervals.
    fn summary_intervals(&self, model: &ModelScores) -> [(f64, f64); 2] {
        let experts: Vec<&ModelScores> = self.experts.iter().filter_map(|expert| self.model(expert)).collect();
        // Of each suite: the model's tasks, and what each expert got on them, where it played them.
        let tasks: Vec<Vec<Vec<Option<f64>>>> = self
            .suites()
            .map(|(_, suite)| {
                let of = |scores: &ModelScores, task| Some(mean(scores.rewards.get(suite)?.get(task)?));
                let ids = model.rewards.get(suite).into_iter().flatten().map(|(task, _)| task);
                ids.map(|task| [model].iter().chain(&experts).map(|scores| of(scores, task)).collect()).collect()
            })
            .collect();
        let lengths: Vec<usize> = tasks.iter().map(Vec::len).collect();
        let scores_of = |who: usize, drawn: &[Vec<usize>]| -> Vec<f64> {
            let of_suite = |(tasks, drawn): (&Vec<Vec<Option<f64>>>, &Vec<usize>)| {
                mean(&drawn.iter().filter_map(|task| tasks[*task][who]).collect::<Vec<_>>())
            };
            let mut means = tasks.iter().zip(drawn).map(of_suite);
            let of_benchmark = |b: &Benchmark| 100.0 * mean(&means.by_ref().take(b.suites.len()).collect::<Vec<_>>());
            self.benchmarks.iter().map(of_benchmark).collect()
        };
        let (worsts, harmonics) = resampled(&lengths, self.seed, |drawn| {
            let ours = scores_of(0, drawn);
            let mut best = vec![0.0_f64; ours.len()];
            for who in 0..experts.len() {
                best.iter_mut().zip(scores_of(who + 1, drawn)).for_each(|(best, score)| *best = best.max(score));
            }
            (worst(&ours), rhm(&ours, &best))
        });
        let ends: Vec<(f64, f64)> =
            self.benchmarks.iter().map(|b| self.interval(model, b).unwrap_or((0.0, 100.0))).collect();
        let [low, high]: [Vec<f64>; 2] =
            [ends.iter().map(|end| end.0).collect(), ends.iter().map(|end| end.1).collect()];
        let best = self.best_expert();
        let still = self.suites().any(|(_, suite)| model.suite(suite).windows(2).all(|pair| pair[0] == pair[1]));
        let wide = |found: (f64, f64), otherwise: (f64, f64)| match still && found.0 == found.1 {
            true => otherwise,
            false => found,
        };
        [wide(worsts, (worst(&low), worst(&high))), wide(harmonics, (rhm(&low, &best), rhm(&high, &best)))]
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
        let weight = 1.0 / benchmark.suites.len() as f64;
        self.weighted(&strata(shared(ours, other, benchmark), weight), both_single(ours, other, benchmark))
    }

    /// What a model has more of AVG than others, one of which is asked for by benchmark.
    #[must_use]
    pub fn average_difference<'m>(
        &'m self,
        ours: &ModelScores,
        other: &dyn Fn(&Benchmark) -> Option<&'m ModelScores>,
    ) -> Option<Difference> {
        let (mut all, mut single) = (Vec::new(), true);
        for b in &self.benchmarks {
            let other = other(b)?;
            all.extend(strata(shared(ours, other, b), self.share(b)));
            single &= both_single(ours, other, b);
        }
        self.weighted(&all, single)
    }

    fn weighted(&self, suites: &[Stratum<(f64, f64)>], single: bool) -> Option<Difference> {
        let (low, high) = of_differences(suites, single, self.seed)?;
        let points: f64 = changes(suites).iter().map(|(weight, tasks)| weight * mean(tasks)).sum();
        let tasks = suites.iter().map(|(_, tasks)| tasks.len()).sum();
        // McNemar's where it is one suite of rewards of 0 and 1: elsewhere its terms do not weigh alike.
        let p = match suites {
            [(_, pairs)] if single && counts(pairs).is_some() => {
                let [_, wins, losses, _] = counts(pairs).unwrap_or_default();
                mcnemar(wins, losses)
            }
            _ => permutation(&changes(suites), self.seed),
        };
        Some(Difference { points: 100.0 * points, low: 100.0 * low, high: 100.0 * high, tasks, p })
    }

    /// Paired differences of `model` against every other, with intervals, tasks and p-values; and what so many tasks can show.
    #[must_use]
    pub fn paired(&self, model: &str) -> Table {
        let mut table = Table { title: format!("Paired differences: {model} against the others"), ..Table::default() };
        table.head.push("against".into());
        table.head.extend(self.benchmarks.iter().map(|b| b.title.clone()));
        let averaged = self.benchmarks.len() > 1;
        table.head.extend(averaged.then(|| "AVG".into()));
        let Some(ours) = self.model(model) else { return table };
        let others: Vec<&ModelScores> = self.models.iter().filter(|m| m.name != model).collect();
        let mut rows: Vec<Vec<Option<Difference>>> = Vec::new();
        for other in &others {
            let mut row: Vec<_> = self.benchmarks.iter().map(|b| self.difference(ours, other, b)).collect();
            row.extend(averaged.then(|| self.average_difference(ours, &|_| Some(other))));
            rows.push(row);
        }
        // Benchmarks are one family of comparisons, averages another.
        let width = self.benchmarks.len();
        for columns in [0..width, width..width + usize::from(averaged)] {
            let family = || rows.iter().flat_map(|row| &row[columns.clone()]).flatten();
            let mut adjusted = holm(&family().map(|difference| difference.p).collect::<Vec<_>>()).into_iter();
            let cells = rows.iter_mut().flat_map(|row| &mut row[columns.clone()]).flatten();
            cells.for_each(|difference| difference.p = adjusted.next().unwrap_or(1.0));
        }
        for (other, row) in others.iter().zip(rows) {
            let cell = |difference: Option<Difference>| {
                difference.map_or("–".into(), |Difference { points, low, high, tasks, p }| {
                    let p = if p < 0.001 { "p < 0.001".into() } else { format!("p = {p:.3}") };
                    format!("{points:+.1} [{low:+.1}, {high:+.1}; {tasks}] {p}")
                })
            };
            table.rows.push([vec![other.name.clone()], row.into_iter().map(cell).collect()].concat());
        }
        table.note = "Points gained on the tasks that both played, with the same seeds. In brackets: 95 % interval (Newcombe's for rewards of 0 and \
                      1, else BCa over tasks), and tasks. p: exact McNemar test for such rewards, else paired permutation, adjusted by Holm over \
                      the benchmarks' columns and over AVG's."
            .into();
        if let Some(shown) = self.detectable(ours, &others) {
            table.note += &format!(" {shown}");
        }
        table
    }

    /// From what difference on so many tasks show one, suite by suite.
    fn detectable(&self, ours: &ModelScores, others: &[&ModelScores]) -> Option<String> {
        let of = |(_, suite): (&Benchmark, &String)| {
            let alone = Benchmark { id: suite.clone(), title: suite.clone(), suites: vec![suite.clone()] };
            let spreads = others.iter().filter_map(|other| Spread::of(&shared(ours, other, &alone).concat()));
            let spread = Spread::mean(&spreads.collect::<Vec<_>>())?;
            Some(format!("{suite} from {:.0} points on ({} tasks)", 100.0 * spread.detectable(POWER), spread.tasks))
        };
        let shown: Vec<String> = self.suites().filter_map(of).collect();
        let list = shown.join(", ");
        (!shown.is_empty()).then(|| format!("Differences that so many tasks show, with a chance of 80 %: {list}."))
    }
}

fn both_single(ours: &ModelScores, other: &ModelScores, benchmark: &Benchmark) -> bool {
    benchmark.suites.iter().all(|suite| ours.single(suite) && other.single(suite))
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
                .map(|(suite, r)| (suite.into(), (0..20).map(|i| (format!("t{i:02}"), vec![r])).collect()))
                .into(),
        };
        let board = Scoreboard {
            benchmarks: vec![benchmark("x", &["a", "b"]), benchmark("y", &["c"])],
            models: vec![model("one", 0.5, 0.5, 1.0), model("two", 0.0, 0.5, 0.0)],
            experts: vec!["two".into()],
            seed: 1,
        };
        let paired = board.paired("one");
        let [.., average] = paired.rows[0].as_slice() else { panic!("{paired:?}") };
        assert!(average.starts_with("+62.5 [+4") && average.ends_with("; 60] p < 0.001"), "{average}");
        let row = &board.table3().rows[0];
        assert!(row[1] == "75.0" && row[7] == "60", "{row:?}");
        // One suite at its edge, two that do not move: still no interval of width 0.
        let (low, high) = board.average_interval(&board.models[0]);
        assert!(low < 70.0 && high > 75.0 && high <= 100.0, "{low} {high}");
        let [worst, harmonic] = board.summary_intervals(&board.models[1]);
        assert!(worst.0 == 0.0 && worst.1 > 10.0 && harmonic.0 == 0.0 && harmonic.1 > 0.0, "{worst:?} {harmonic:?}");
    }
}
