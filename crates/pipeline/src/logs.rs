//! Episode logs by path, single files or the test episodes of runs, and the reports made of logs.

use crate::error::{RunError, unwritten};
use rolegraft_files::{Scratch, write_atomic};
use rolegraft_report::{DATA, LogsReport, Price, Put, Tally, Wanted};
use rolegraft_trajectory::{Episodes, LogError, log_name};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What runs call the logs of their test episodes: `test-SUITE-MODEL.jsonl`.
const TEST: &str = "test-";

/// A report of logs, or of `episodes/` of run directories, by model: the file's name, or what the run calls it. Intervals
/// are drawn from `seed`; prices are the agent's and the users'. Of an episode that is there several times the `last` counts, or none.
///
/// # Errors
/// If a path cannot be read, or holds something else.
pub fn logs_report(
    paths: &[PathBuf],
    seed: u64,
    prices: (Option<Price>, Option<Price>),
    last: bool,
) -> Result<LogsReport, RunError> {
    for (i, path) in paths.iter().enumerate() {
        if let Some(first) = paths[..i].iter().find(|first| same_file(first, path)) {
            let reason = format!("is given twice (also as `{}`); give each log once", first.display());
            return Err(RunError::File { path: path.clone(), reason });
        }
    }
    let mut models: BTreeMap<(usize, String), Vec<PathBuf>> = BTreeMap::new();
    for (i, path) in paths.iter().enumerate() {
        for file in files(path)? {
            let stem = log_name(&file);
            let first = Episodes::open(&file)?.next().transpose()?;
            let suite = first.map_or_else(String::new, |e| e.key.suite);
            let of_run = stem.strip_prefix(TEST).and_then(|s| s.strip_prefix(&suite)?.strip_prefix('-'));
            let model = if *path == file { stem.clone() } else { of_run.unwrap_or(&stem).to_owned() };
            models.entry((i, model)).or_default().push(file);
        }
    }
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    models.keys().for_each(|(_, model)| *names.entry(model.clone()).or_default() += 1);
    // Models of one name are told apart by their paths.
    let named = |((i, model), logs): ((usize, String), Vec<PathBuf>)| match names[&model] {
        1 => (model, logs),
        _ => (format!("{model} ({})", paths[i].display()), logs),
    };
    Ok(LogsReport {
        models: models.into_iter().map(named).collect(),
        wanted: Wanted { tasks: None, last },
        seed,
        prices,
    })
}

/// The counts of a report of logs, whose page is written into `page` where one is wanted.
///
/// # Errors
/// If a log cannot be read, or the disk refuses; or if text that a server changed stands beside text as it was written,
/// unless that is wanted (`mixed`); or if logs of one suite were played by other rules.
pub fn write_logs_report(
    report: &LogsReport,
    page: Option<&Path>,
    mixed: bool,
) -> Result<Vec<(String, Tally)>, RunError> {
    let logs = report.models.iter().flat_map(|(_, logs)| logs);
    if !mixed && let Some(Games { first, second, suite }) = other_games(logs)? {
        return Err(RunError::OtherRules { first: first.clone(), second: second.clone(), suite });
    }
    let Some(dir) = page else {
        let models = report.tallies()?;
        alike(&models, mixed)?;
        return Ok(models);
    };
    if report.has_servers()? {
        // Before anything is written.
        alike(&report.tallies()?, mixed)?;
    }
    write_report(dir, |put| report.write(put))
}

/// Two logs of a suite that were played by other rules.
pub(crate) struct Games<'l> {
    pub(crate) first: &'l PathBuf,
    pub(crate) second: &'l PathBuf,
    suite: String,
}

/// The first such logs, where they say by which rules they were played.
pub(crate) fn other_games<'l>(logs: impl Iterator<Item = &'l PathBuf>) -> Result<Option<Games<'l>>, LogError> {
    let mut games: BTreeMap<String, (String, &PathBuf)> = BTreeMap::new();
    for second in logs {
        for (suite, rules) in &Episodes::open(second)?.origin().rules {
            let (known, first) = games.entry(suite.clone()).or_insert_with(|| (rules.clone(), second));
            if known != rules {
                return Ok(Some(Games { first, second, suite: suite.clone() }));
            }
        }
    }
    Ok(None)
}

/// That figures may be compared.
fn alike(models: &[(String, Tally)], mixed: bool) -> Result<(), RunError> {
    let named =
        |inexact: bool| models.iter().find(|(_, tally)| tally.is_inexact() == inexact).map(|(name, _)| name.clone());
    match (named(false), named(true)) {
        (Some(exact), Some(inexact)) if !mixed => Err(RunError::Mixed { exact, inexact }),
        _ => Ok(()),
    }
}

/// Writes a report into `dir`, in place of what stood there, which goes once all of the new one is written.
pub(crate) fn write_report<T>(
    dir: &Path,
    write: impl FnOnce(&mut Put<'_, RunError>) -> Result<T, RunError>,
) -> Result<T, RunError> {
    let data = dir.join(DATA);
    std::fs::create_dir_all(dir).map_err(unwritten(dir))?;
    let scratch = Scratch::create(&data).map_err(unwritten(&data))?;
    let mut pages = Vec::new();
    let made = write(&mut |name, bytes| {
        let path = dir.join(name);
        match path.strip_prefix(&data) {
            Ok(inside) => std::fs::write(scratch.path().join(inside), bytes).map_err(unwritten(&path)),
            Err(_) => {
                pages.push((path, bytes.to_vec()));
                Ok(())
            }
        }
    })?;
    for (path, bytes) in pages {
        write_atomic(&path, &bytes).map_err(|error| RunError::Store(error.into()))?;
    }
    match data.symlink_metadata() {
        Ok(old) if old.is_dir() => std::fs::remove_dir_all(&data).map_err(unwritten(&data))?,
        Ok(_) => std::fs::remove_file(&data).map_err(unwritten(&data))?,
        Err(_) => {}
    }
    scratch.persist().map_err(unwritten(&data))?;
    Ok(made)
}

/// Whether two paths are of one file.
pub(crate) fn same_file(a: &Path, b: &Path) -> bool {
    a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b))
}

fn files(path: &Path) -> Result<Vec<PathBuf>, LogError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let dir = path.join("episodes");
    if !dir.is_dir() {
        let why = "it is a folder without `episodes/`, which runs have; name logs, or the folder of a run";
        let source = std::io::Error::new(std::io::ErrorKind::NotFound, why);
        return Err(LogError::Io { path: path.to_owned(), source });
    }
    let fail = |source| LogError::Io { path: dir.clone(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&dir).map_err(fail)? {
        let file = entry.map_err(fail)?.path();
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(TEST) && (name.ends_with(".jsonl") || name.ends_with(".jsonl.zst")) {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}
