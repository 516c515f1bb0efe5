//! `rolegraft ablate`: the paper's figures 3 to 5 and three checks.

use crate::commands::ExperimentFlags;
use crate::talk::{Reporter, note, say, stop_flag};
use anyhow::Result;
use clap::Args;
use rolegraft_pipeline::{Grid, Protect, Tokens, ablate, nearest};
use std::process::ExitCode;

/// Most values of one list.
const MOST: usize = 101;

/// Values of a flag, separated by commas.
#[derive(Clone)]
struct List<T>(Vec<T>);

fn list<T: PartialEq>(text: &str, one: impl Fn(&str) -> Result<T, String>) -> Result<List<T>, String> {
    let mut values = Vec::new();
    for part in text.split(',') {
        let value = one(part.trim())?;
        if values.contains(&value) {
            return Err(format!("`{}` is given twice; leave one out", part.trim()));
        }
        values.push(value);
    }
    Ok(List(values))
}

fn shares(text: &str) -> Result<List<f64>, String> {
    list(text, |part| {
        let share: f64 =
            part.parse().map_err(|_| format!("`{part}` is not a number; numbers in (0, 1] are expected"))?;
        if share > 0.0 && share <= 1.0 { Ok(share) } else { Err(format!("`{part}` must lie in (0, 1]")) }
    })
}

/// One of some names.
fn named<T: Copy + PartialEq>(text: &str, all: &[T], name: fn(T) -> &'static str) -> Result<List<T>, String> {
    list(text, |part| {
        let names: Vec<&str> = all.iter().map(|value| name(*value)).collect();
        let unknown = || format!("there is no `{part}`{}; known: {}", nearest(part, &names), names.join(", "));
        all.iter().copied().find(|value| name(*value) == part).ok_or_else(unknown)
    })
}

fn protections(text: &str) -> Result<List<Protect>, String> {
    named(text, &Protect::ALL, Protect::as_str)
}

fn token_kinds(text: &str) -> Result<List<Tokens>, String> {
    named(text, &Tokens::ALL, Tokens::as_str)
}

/// Whole numbers, or a range of them with both ends.
fn offsets(text: &str) -> Result<List<i32>, String> {
    let number = |part: &str| {
        let parsed = part.parse::<i32>();
        parsed.map_err(|_| format!("`{part}` is not a whole number; a list `-1,0,1` or a range `-2..2` is expected"))
    };
    let Some((from, to)) = text.split_once("..") else { return list(text, number) };
    let (from, to) = (number(from.trim())?, number(to.trim())?);
    match to.checked_sub(from) {
        Some(wide) if wide < 0 => Err(format!("`{text}` ends before it begins; write `{to}..{from}`")),
        Some(wide) if wide < MOST as i32 => Ok(List((from..=to).collect())),
        _ => Err(format!("`{text}` has more than {MOST} values")),
    }
}

fn at_least_one(text: &str) -> Result<u32, String> {
    let number: u32 = text.parse().map_err(|_| "a whole number is expected".to_owned())?;
    if number > 0 { Ok(number) } else { Err("at least 1 is needed".into()) }
}

#[derive(Args)]
pub(crate) struct Ablate {
    /// Shares of a layer's neurons that are salient (figure 5).
    #[arg(long, default_value = "0.05,0.1,0.2,0.3,0.5", value_name = "SHARES", value_parser = shares)]
    k: List<f64>,
    /// Whose neurons are left alone (figure 5): `strict`, `other-donors`, `none`.
    #[arg(long, default_value = "strict,other-donors,none", value_name = "NAMES", value_parser = protections)]
    protect: List<Protect>,
    /// Which tokens are traced (figure 4 and a check): `role`, `reply`, `all`.
    #[arg(long, default_value = "role,reply", value_name = "NAMES", value_parser = token_kinds)]
    tokens: List<Tokens>,
    /// By how many tokens role spans are moved within replies (a check): a range with both ends, or a list.
    #[arg(long, default_value = "-2..2", value_name = "RANGE", allow_hyphen_values = true, value_parser = offsets)]
    jitter: List<i32>,
    /// Shares of the calibration trajectories (a check). Of one seed, smaller shares are parts of larger ones.
    #[arg(long, default_value = "0.1,0.25,0.5,1", value_name = "SHARES", value_parser = shares)]
    calibration: List<f64>,
    /// Seeds of plays and of shares. The first play has the experiment's own seed: its episodes are the run's.
    #[arg(long, default_value = "3", value_name = "N", value_parser = at_least_one)]
    seeds: u32,
    /// Test tasks played a suite, the first of the experiment's; at most as many as it has. Time goes with this number: 20
    /// tasks make the default grid a matter of half an hour on the built-in pool.
    #[arg(long, default_value = "20", value_name = "N", value_parser = at_least_one)]
    tasks: u32,
    #[command(flatten)]
    given: ExperimentFlags,
}

impl Ablate {
    pub(crate) fn execute(&self) -> Result<ExitCode> {
        let experiment = self.given.read()?;
        let grid = Grid {
            k: self.k.0.clone(),
            protect: self.protect.0.clone(),
            tokens: self.tokens.0.clone(),
            jitter: self.jitter.0.clone(),
            calibration: self.calibration.0.clone(),
            seeds: u64::from(self.seeds),
            tasks: self.tasks as usize,
        };
        let reporter = Reporter::new();
        let outcome = ablate(&experiment, &grid, &self.given.results, stop_flag()?, &reporter);
        reporter.done();
        let summary = outcome?;
        note(&summary.passes);
        summary.says.iter().for_each(|line| say(line));
        say(&format!("Figures in {}; open {}", summary.dir.display(), summary.dir.join("ablation.html").display()));
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges_are_read_and_mistakes_named() {
        assert_eq!(shares("0.05, 1").unwrap().0, [0.05, 1.0]);
        assert_eq!(offsets("-2..2").unwrap().0, [-2, -1, 0, 1, 2]);
        assert_eq!(offsets("-1,3").unwrap().0, [-1, 3]);
        assert_eq!(protections("none,strict").unwrap().0, [Protect::None, Protect::Strict]);
        for (error, part) in [
            (shares("0").err(), "`0` must lie in (0, 1]"),
            (shares("0.1,nan").err(), "must lie in (0, 1]"),
            (shares("0.1,0.10").err(), "`0.10` is given twice"),
            (shares("").err(), "is not a number"),
            (offsets("2..-2").err(), "write `-2..2`"),
            (offsets("0..9999").err(), "more than 101"),
            (offsets("-2147483648..2147483647").err(), "more than 101"),
            (offsets("a..b").err(), "`a` is not a whole number"),
            (protections("strict,other-donor").err(), "did you mean `other-donors`?"),
            (token_kinds("rolle").err(), "did you mean `role`?"),
            (at_least_one("0").err(), "at least 1"),
        ] {
            assert!(error.as_ref().is_some_and(|error| error.contains(part)), "{error:?} should say `{part}`");
        }
    }
}
