//! Everything that logs alone can say, for several models side by side: as tables, and as a page.

use crate::episode_files::{EpisodeFiles, Put};
use crate::verdict::leader;
use crate::ways::{cured_table, ways_table};
use crate::{
    Benchmark, HeatMap, Page, Part, Price, Scoreboard, Section, Table, Tally, cascade_table, kind_table, score_table,
    spending_table, status_table, suite_scores, unparsable_table, violation_table,
};
use rolegraft_trajectory::{EpisodeKey, Episodes, LogError, Spent};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::mpsc::sync_channel;

/// Tables of recorded episodes by model: scores with pass^k, failures, DB-bench's types, τ-bench's cascades, spending.
/// Intervals are drawn from `seed`; prices are the agent's and the users'.
#[must_use]
pub fn overview(models: &[(String, Tally)], seed: u64, prices: (Option<Price>, Option<Price>)) -> Vec<Table> {
    let models = &marked(models);
    let scores: Vec<_> = models.iter().map(|(name, tally)| (name.clone(), suite_scores(tally, seed))).collect();
    let suites: BTreeSet<&str> = models.iter().flat_map(|(_, tally)| tally.suites()).collect();
    let (mut failures, mut patterns, mut kinds, mut ways) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for suite in suites {
        for (name, tally) in models.iter().filter(|(_, tally)| tally.suites().any(|s| s == suite)) {
            failures.push((suite.to_owned(), name.clone(), tally.failures(suite)));
            ways.extend(tally.by_suite().get(suite).map(|counts| (suite.to_owned(), name.clone(), &counts.ways)));
            kinds.extend(tally.kinds(suite).map(|k| (name.clone(), k)));
            patterns.extend(tally.cascades(suite).map(|c| (suite.to_owned(), name.clone(), c)));
        }
    }
    let spent = spent(models, prices);
    let mut tables = vec![score_table(&scores)];
    // The first is compared with the others.
    if let [(first, _), _, ..] = models.as_slice() {
        tables.push(board(models, seed).paired(first));
    }
    tables.extend([unparsable_table(&failures), violation_table(&failures), status_table(&failures)]);
    tables.push(ways_table(&ways));
    if let [(first, before), (second, after)] = models.as_slice() {
        tables.push(compared(first, before, second, after));
    }
    if !kinds.is_empty() {
        tables.push(kind_table(&kinds));
    }
    if !patterns.is_empty() {
        tables.push(cascade_table(&patterns));
    }
    if !spent.is_empty() {
        tables.push(spending_table(&spent));
    }
    tables.extend(road_table(models));
    tables
}

/// Which violations one model cured of another's, and which it brought.
pub(crate) fn compared(first: &str, before: &Tally, second: &str, after: &Tally) -> Table {
    let suites: Vec<_> = before
        .by_suite()
        .iter()
        .filter_map(|(suite, counts)| Some((suite.clone(), &counts.ways, &after.by_suite().get(suite)?.ways)))
        .collect();
    cured_table(first, second, &suites)
}

/// Every suite of logs a column.
fn board(tallies: &[(String, Tally)], seed: u64) -> Scoreboard {
    let suites: BTreeSet<&str> = tallies.iter().flat_map(|(_, tally)| tally.suites()).collect();
    let column = |s: &str| Benchmark { id: s.to_owned(), title: s.to_owned(), suites: vec![s.to_owned()] };
    Scoreboard {
        benchmarks: suites.into_iter().map(column).collect(),
        models: tallies.iter().map(|(name, tally)| tally.scores(name)).collect(),
        experts: Vec::new(),
        seed,
    }
}

/// What marks figures of text that is not what the model wrote.
const INEXACT: &str = " ≈";

/// Models whose text is not exact get a mark.
fn marked(models: &[(String, Tally)]) -> Vec<(String, Tally)> {
    let mark = |tally: &Tally| if tally.is_inexact() { INEXACT } else { "" };
    models.iter().map(|(name, tally)| (format!("{name}{}", mark(tally)), tally.clone())).collect()
}

/// How servers were asked, and what that means for the figures; `None` where no server was.
pub(crate) fn road_table(models: &[(String, Tally)]) -> Option<Table> {
    let head = ["model", "asked for", "text as written", "turns put together again"];
    let mut table = Table::new("Servers: figures marked ≈ are of text that the server changed", &head);
    for (name, tally) in models {
        for (road, exact) in &tally.roads {
            let exact = exact.map_or("not known", |exact| if exact && tally.inexact == 0 { "yes" } else { "no" });
            table.rows.push(vec![name.clone(), road.as_str().into(), exact.into(), tally.inexact.to_string()]);
        }
    }
    (!table.rows.is_empty()).then_some(table)
}

/// Rows of the table of spending: the agents' and the users', where anything was spent.
pub(crate) fn spent(
    models: &[(String, Tally)],
    prices: (Option<Price>, Option<Price>),
) -> Vec<(String, Spent, Option<Price>)> {
    let both = |(name, tally): &(String, Tally)| {
        [(name.clone(), tally.agent, prices.0), (format!("{name}: users"), tally.others, prices.1)]
    };
    models.iter().flat_map(both).filter(|(_, spent, _)| !spent.is_nothing()).collect()
}

/// Logs by model.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LogsReport {
    /// Models in the order of rows, with their logs.
    pub models: Vec<(String, Vec<PathBuf>)>,
    /// Which episodes count.
    pub wanted: Wanted,
    /// The seed of the intervals.
    pub seed: u64,
    /// Prices of the agent's tokens and of the users'.
    pub prices: (Option<Price>, Option<Price>),
}

impl LogsReport {
    /// Whether some logs are of servers.
    ///
    /// # Errors
    /// If a log cannot be read.
    pub fn has_servers(&self) -> Result<bool, LogError> {
        for log in self.models.iter().flat_map(|(_, logs)| logs) {
            if Episodes::open(log)?.origin().served.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Counts every episode.
    ///
    /// # Errors
    /// If a log cannot be read.
    pub fn tallies(&self) -> Result<Vec<(String, Tally)>, LogError> {
        read(&self.models, &self.wanted, None)
    }

    /// Writes the episodes and, last, `report.html`; gives the counts. One episode is in memory at a time.
    ///
    /// # Errors
    /// If a log cannot be read, or `put` refuses.
    pub fn write<E: From<LogError>>(&self, put: &mut Put<'_, E>) -> Result<Vec<(String, Tally)>, E> {
        let tallies = read(&self.models, &self.wanted, Some(put))?;
        put("report.html", self.page(&tallies).render().as_bytes())?;
        Ok(tallies)
    }

    fn page(&self, tallies: &[(String, Tally)]) -> Page {
        let board = board(tallies, self.seed);
        let name = |model: Option<&(String, Tally)>| model.map(|(name, _)| name.clone()).unwrap_or_default();
        let tables = overview(tallies, self.seed, self.prices).into_iter().map(Part::Table).collect();
        let episodes: usize = tallies.iter().map(|(_, tally)| tally.episodes).sum();
        Page {
            title: "rolegraft: episode logs".into(),
            lead: leader(&board),
            summary: format!("{} models, {episodes} episodes, seed {}.", tallies.len(), self.seed),
            sections: vec![
                Section::new("Scores", vec![Part::Heat(HeatMap::new(&board))]),
                Section::new("Tables", tables),
                Section::new("Paired view", vec![Part::Episodes(name(tallies.first()), name(tallies.get(1)))]),
            ],
        }
    }
}

/// Which episodes of logs count.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Ids of tasks by suite; all, if absent.
    pub tasks: Option<BTreeMap<String, BTreeSet<String>>>,
    /// Of a trial that is there several times the last counts. Otherwise that is an error.
    pub last: bool,
}

/// Counts the episodes of models' logs and hands them on to `put` as the files beside a page.
pub(crate) fn read<'p, E: From<LogError>>(
    models: &[(String, Vec<PathBuf>)],
    wanted: &Wanted,
    put: Option<&'p mut Put<'p, E>>,
) -> Result<Vec<(String, Tally)>, E> {
    let mut files = put.map(EpisodeFiles::new);
    let asked = |key: &EpisodeKey| {
        wanted.tasks.as_ref().is_none_or(|tasks| tasks.get(&key.suite).is_some_and(|ids| ids.contains(&key.task)))
    };
    let mut tallies = Vec::new();
    for (name, logs) in models {
        let mut tally = Tally::default();
        if let Some(files) = &mut files {
            files.model(name);
        }
        let last = if wanted.last { Some(last_of(logs)?) } else { None };
        let mut first: HashMap<EpisodeKey, usize> = HashMap::new();
        for (at, log) in logs.iter().enumerate() {
            let mut episodes = Episodes::open(log)?;
            tally.served(episodes.origin().served.as_ref());
            // What is read next is read while this is counted.
            std::thread::scope(|scope| {
                let (send, batches) = sync_channel(1);
                scope.spawn(move || {
                    loop {
                        let batch = episodes.next_batch();
                        let over = batch.as_ref().map_or(true, Vec::is_empty);
                        if send.send((batch, episodes.is_torn())).is_err() || over {
                            break;
                        }
                    }
                });
                for (batch, torn) in batches {
                    let batch = batch?;
                    tally.torn += usize::from(torn && batch.is_empty());
                    for (line, episode) in batch {
                        if !asked(&episode.key) || last.as_ref().is_some_and(|last| last[&episode.key] != (at, line)) {
                            continue;
                        }
                        if !tally.add(&episode) {
                            let first = first.get(&episode.key).map(|at| &*logs[*at]);
                            return Err(LogError::twice(log, line, &episode.key, first).into());
                        }
                        if let Some(files) = &mut files {
                            files.add(&episode)?;
                        }
                        if logs.len() > 1 {
                            first.insert(episode.key, at);
                        }
                    }
                }
                Ok::<(), E>(())
            })?;
        }
        tallies.push((name.clone(), tally));
    }
    if let Some(files) = files {
        files.finish()?;
    }
    Ok(tallies)
}

/// Where each episode comes last: the log's number, and the line's.
fn last_of(logs: &[PathBuf]) -> Result<HashMap<EpisodeKey, (usize, usize)>, LogError> {
    let mut last = HashMap::new();
    for (at, log) in logs.iter().enumerate() {
        let mut episodes = Episodes::open(log)?;
        while let Some(key) = episodes.next_key()? {
            last.insert(key, (at, episodes.line()));
        }
    }
    Ok(last)
}
