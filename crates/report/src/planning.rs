//! How many tasks and trials to play: a table of finished logs.

use crate::intervals::{mean, variance};
use crate::power::Spread;
use crate::{ModelScores, Table};
use std::collections::BTreeSet;

/// What models' logs say of the tasks and trials that a difference needs, suite by suite: of every two models on the tasks that both
/// played; of one alone, as against another that is as good and fails elsewhere.
#[must_use]
pub fn power_table(models: &[ModelScores], differences: &[f64], power: f64) -> Table {
    let points = |difference: &f64| format!("tasks for {difference} points");
    let mut head: Vec<String> = ["suite", "tasks", "trials", "shows from"].map(str::to_owned).to_vec();
    head.extend(differences.iter().map(points));
    head.push("with twice the trials".into());
    let percent = 100.0 * power;
    let mut table =
        Table { title: format!("Differences that show with a chance of {percent:.0} %"), head, ..Table::default() };
    let suites: BTreeSet<&String> = models.iter().flat_map(|model| model.rewards.keys()).collect();
    for suite in suites {
        let Some(spread) = spread_of(models, suite) else { continue };
        let needed = |trials: usize| {
            let tasks = move |difference: &f64| spread.needed(difference / 100.0, power, trials).ceil().to_string();
            differences.iter().map(tasks).collect::<Vec<_>>()
        };
        let mut row = vec![suite.clone(), spread.tasks.to_string(), spread.trials.to_string()];
        row.push(format!("{:.1} points", 100.0 * spread.detectable(power)));
        row.extend(needed(spread.trials));
        row.push(match spread.within {
            Some(_) => needed(2 * spread.trials).join(", "),
            None => "not known: tasks were played once".into(),
        });
        table.rows.push(row);
    }
    table.note = "Two-sided at 5 %, paired: n = (z₀.₉₇₅ √m + z √(m − δ²))² / δ², m the mean square of a task's difference. More tasks help always, more \
                  trials only as far as trials of a task differ."
        .into();
    table
}

fn spread_of(models: &[ModelScores], suite: &str) -> Option<Spread> {
    let of: Vec<_> = models.iter().filter_map(|model| model.rewards.get(suite)).collect();
    if let [only] = of.as_slice() {
        let rewards: Vec<f64> = only.values().map(|trials| mean(trials)).collect();
        let share = (rewards.iter().sum::<f64>() + 2.0) / (rewards.len() as f64 + 4.0);
        let whole = 2.0 * share * (1.0 - share);
        let trials = only.values().map(Vec::len).min()?;
        let within = (trials > 1)
            .then(|| (2.0 * mean(&only.values().map(|trials| variance(trials)).collect::<Vec<_>>())).min(whole));
        let between = whole - within.unwrap_or_default();
        return Some(Spread { tasks: rewards.len(), trials, between, within });
    }
    let mut spreads = Vec::new();
    for (at, ours) in of.iter().enumerate() {
        for theirs in &of[at + 1..] {
            let shared = ours.iter().filter_map(|(task, rewards)| Some((rewards, theirs.get(task)?)));
            spreads.extend(Spread::of(&shared.collect::<Vec<_>>()));
        }
    }
    Spread::mean(&spreads)
}
