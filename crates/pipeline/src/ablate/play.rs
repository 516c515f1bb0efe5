//! Playing the models of an ablation, with the time left.

use crate::ablate::values::{Grid, Score};
use crate::compute::duration;
use crate::error::RunError;
use crate::experiment::BenchmarkEntry;
use crate::kept::Kept;
use crate::machine::{Machine, Member};
use crate::progress::Progress;
use rolegraft_report::{Stratum, of_means};
use rolegraft_suites::Split;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Rewards of one model: suite → task → a reward a seed.
pub(crate) type Rewards = BTreeMap<String, BTreeMap<String, Vec<f64>>>;

/// How long work that goes on as it went will take.
pub(crate) fn time_left(begun: Instant, done: usize, of: usize) -> String {
    let seconds = begun.elapsed().as_secs_f64() / done.max(1) as f64 * of.saturating_sub(done) as f64;
    format!("{} left", duration(seconds))
}

/// Counts the episodes of many logs, and says how long the rest takes.
struct Pace<'p> {
    inner: &'p dyn Progress,
    begun: Instant,
    /// Episodes that the store lacked at the beginning.
    of: usize,
    counted: Mutex<Counted>,
}

/// What was played: in logs that are finished, and in the last one, whose first report said what it held before.
#[derive(Default)]
struct Counted {
    before: usize,
    label: String,
    held: usize,
    finished: usize,
}

impl Progress for Pace<'_> {
    fn stage(&self, name: &str) {
        self.inner.stage(name);
    }
    fn update(&self, finished: usize, _: usize, what: &str) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.label != what || finished < counted.finished {
            let before = counted.before + counted.finished - counted.held;
            *counted = Counted { before, label: what.to_owned(), held: finished, finished };
        }
        counted.finished = finished;
        let done = counted.before + counted.finished - counted.held;
        if self.of > 0 {
            let left = time_left(self.begun, done, self.of);
            self.inner.update(done, self.of, &format!("{what}, {left}"));
        }
    }
    fn note(&self, text: &str) {
        self.inner.note(text);
    }
}

/// Plays every model with every seed on the suites that experts serve, each checkpoint once; the rewards by its digest.
pub(crate) fn play(kept: &Kept<'_>, models: &[Member], grid: &Grid) -> Result<BTreeMap<String, Rewards>, RunError> {
    let mut distinct: Vec<&Member> = Vec::new();
    for model in models {
        if !distinct.iter().any(|known| known.digest == model.digest) {
            distinct.push(model);
        }
    }
    let suites = kept.experiment.suite_names();
    let machine = kept.machine;
    let on = |seed: u64, progress| {
        let (stop, seed) = (machine.stop.clone(), machine.seed.wrapping_add(seed));
        let Machine { runtime, engine, engines, compute, precision, chat, servers, endpoints, .. } = *machine;
        Machine { runtime, stop, progress, engine, engines, compute, precision, chat, servers, endpoints, seed }
    };
    let mut lacking = 0;
    for seed in 0..grid.seeds {
        let machine = on(seed, kept.machine.progress);
        for model in &distinct {
            lacking += kept.on(&machine).lacking_episodes(model, &suites, Split::Test)?;
        }
    }
    let tasks = kept.experiment.test_tasks();
    let of = distinct.len() * tasks * grid.seeds as usize;
    let (checkpoints, held) = (distinct.len(), of - lacking);
    machine.progress.note(&format!(
        "{of} episodes: {checkpoints} checkpoints, {} suites, {tasks} tasks, {} seeds; {held} are in the store, {lacking} are played",
        suites.len(),
        grid.seeds
    ));
    let pace = Pace { inner: machine.progress, begun: Instant::now(), of: lacking, counted: Mutex::default() };
    let mut all: BTreeMap<String, Rewards> = BTreeMap::new();
    for model in distinct {
        for seed in 0..grid.seeds {
            machine.goes_on()?;
            let machine = on(seed, &pace);
            let mut seeded = kept.on(&machine);
            let rewards = all.entry(model.digest.to_string()).or_default();
            for episode in seeded.play(model, &suites, Split::Test)? {
                let of_suite = rewards.entry(episode.key.suite).or_default();
                of_suite.entry(episode.key.task).or_default().push(episode.reward);
            }
        }
    }
    Ok(all)
}

/// AVG over benchmarks, each the mean of its suites, with the interval over tasks, a task's seeds together.
pub(crate) fn score(rewards: &Rewards, benchmarks: &[BenchmarkEntry], seed: u64) -> Score {
    let share = |b: &BenchmarkEntry| 100.0 / (benchmarks.len() * b.suites.len()) as f64;
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let tasks = |suite: &String| -> Vec<f64> {
        rewards.get(suite).map(|tasks| tasks.values().map(|plays| mean(plays)).collect()).unwrap_or_default()
    };
    let suites: Vec<Stratum<f64>> =
        benchmarks.iter().flat_map(|b| b.suites.iter().map(move |suite| (share(b), tasks(suite)))).collect();
    let single = rewards.values().flat_map(|tasks| tasks.values()).all(|plays| plays.len() == 1);
    let (low, high) = of_means(&suites, single, seed).unwrap_or_default();
    Score { avg: suites.iter().map(|(share, tasks)| share * mean(tasks)).sum(), low, high }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Told(Mutex<Vec<(usize, usize)>>);

    impl Progress for Told {
        fn stage(&self, _: &str) {}
        fn update(&self, finished: usize, of: usize, _: &str) {
            self.0.lock().unwrap().push((finished, of));
        }
        fn note(&self, _: &str) {}
    }

    #[test]
    fn only_what_is_played_counts() {
        let told = Told::default();
        let pace = Pace { inner: &told, begun: Instant::now(), of: 5, counted: Mutex::default() };
        // One log held 2 of 4; the next was whole; of one label with the last, the third was empty.
        for (finished, of, what) in [(2, 4, "a"), (3, 4, "a"), (4, 4, "a"), (4, 4, "b"), (0, 3, "b"), (3, 3, "b")] {
            pace.update(finished, of, what);
        }
        assert_eq!(*told.0.lock().unwrap(), [(0, 5), (1, 5), (2, 5), (2, 5), (2, 5), (5, 5)]);
    }

    #[test]
    fn suites_of_a_benchmark_share_its_weight() {
        let entry = |id: &str, suites: &[&str]| BenchmarkEntry {
            id: id.into(),
            title: id.into(),
            expert: None,
            suites: suites.iter().map(|s| (*s).to_owned()).collect(),
        };
        let rewards = |suite: &str, reward: f64| {
            let tasks: BTreeMap<String, Vec<f64>> = (0..5).map(|i| (format!("t{i}"), vec![reward; 2])).collect();
            (suite.to_owned(), tasks)
        };
        let rewards = [rewards("a", 1.0), rewards("b", 0.0), rewards("c", 0.5)].into();
        let Score { avg, low, high } = score(&rewards, &[entry("x", &["a", "b"]), entry("y", &["c"])], 1);
        // Tasks that all end alike do not make it certain.
        assert!(
            (avg - 50.0).abs() < 1e-9 && (20.0..45.0).contains(&low) && (55.0..80.0).contains(&high),
            "{low} {high}"
        );
    }
}
