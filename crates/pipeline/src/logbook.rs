//! Logs as files: listed, searched, put together and taken apart.

use crate::error::{RunError, unwritten};
use crate::logs::{Games, other_games};
use rolegraft_checkpoint::Digest;
use rolegraft_trajectory::{Episode, EpisodeKey, Episodes, LogError, LogWriter, Origin};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// What a log holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Listed {
    /// The file.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// The version of its format.
    pub version: u32,
    /// By suite: tasks, episodes, and the sum of rewards.
    pub suites: BTreeMap<String, (usize, usize, f64)>,
    /// How it was asked, where a server was.
    pub road: Option<&'static str>,
}

/// Says what logs hold.
///
/// # Errors
/// If one cannot be read.
pub fn list_logs(paths: &[PathBuf]) -> Result<Vec<Listed>, RunError> {
    let list = |path: &PathBuf| {
        let mut log = Episodes::open(path)?;
        let mut tasks: BTreeMap<String, (BTreeSet<String>, usize, f64)> = BTreeMap::new();
        while let Some(episode) = log.next().transpose()? {
            let of = tasks.entry(episode.key.suite).or_default();
            of.0.insert(episode.key.task);
            (of.1, of.2) = (of.1 + 1, of.2 + episode.reward);
        }
        let bytes = std::fs::metadata(path).map_or(0, |meta| meta.len());
        let suites = tasks.into_iter().map(|(suite, (tasks, episodes, sum))| (suite, (tasks.len(), episodes, sum)));
        let road = log.origin().served.as_ref().map(|served| served.road.as_str());
        Ok(Listed { path: path.clone(), bytes, version: log.version(), suites: suites.collect(), road })
    };
    paths.iter().map(list).collect()
}

/// Hands on the episodes of logs, each with its log.
///
/// # Errors
/// If a log cannot be read.
pub fn each_episode(paths: &[PathBuf], with: &mut dyn FnMut(&Path, &Episode)) -> Result<(), RunError> {
    for path in paths {
        let mut log = Episodes::open(path)?;
        while let Some(episode) = log.next().transpose()? {
            with(path, &episode);
        }
    }
    Ok(())
}

/// How logs are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MergeRules {
    /// Of an episode that is there several times the last stays; otherwise that is an error.
    pub last: bool,
    /// Lines that are no episodes are left out; otherwise they are an error.
    pub skip_bad: bool,
    /// Logs of other inputs go together; otherwise that is an error.
    pub mixed: bool,
}

/// What was put together.
#[derive(Debug, Default)]
pub struct LogsMerged {
    /// Episodes written.
    pub episodes: usize,
    /// Lines left out.
    pub skipped: Vec<LogError>,
}

/// Puts logs together into one that is not there yet, compressed where its name ends in `.zst`.
///
/// # Errors
/// If a log cannot be read, or breaks the rules, or the disk refuses.
pub fn merge_logs(paths: &[PathBuf], rules: MergeRules, out: &Path) -> Result<LogsMerged, RunError> {
    if !rules.mixed
        && let Some(Games { first, second, .. }) = other_games(paths.iter())?
    {
        let first = first.display();
        let reason = format!("was played by other rules than `{first}`; put them together all the same with --mixed");
        return Err(RunError::File { path: second.clone(), reason });
    }
    let mut origins: Vec<Origin> = Vec::new();
    for path in paths {
        let origin = Episodes::open(path)?.origin().clone();
        if let Some(first) = origins.first().filter(|first| first.digest != origin.digest && !rules.mixed) {
            let (path, found, expected) = (path.clone(), &origin.digest, &first.digest);
            let reason = format!(
                "is of other inputs than `{}` (digest {found}, not {expected}: other tasks, model, seed or scorer); put them together all the same with --mixed",
                paths[0].display()
            );
            return Err(RunError::File { path, reason });
        }
        origins.push(origin);
    }
    let mut merged = LogsMerged::default();
    // Where each episode stays.
    let mut last: HashMap<EpisodeKey, (usize, usize)> = HashMap::new();
    for (at, path) in paths.iter().enumerate() {
        let mut log = Episodes::open(path)?;
        loop {
            let next = log.next_good(&mut |error| merged.skipped.push(error))?;
            if !rules.skip_bad && !merged.skipped.is_empty() {
                return Err(merged.skipped.swap_remove(0).into());
            }
            let Some(episode) = next else { break };
            if let Some((first, _)) = last.insert(episode.key.clone(), (at, log.line())).filter(|_| !rules.last) {
                return Err(LogError::twice(path, log.line(), &episode.key, Some(&paths[first])).into());
            }
        }
    }
    let mut writer = LogWriter::create(out, &common(origins))?;
    for (at, path) in paths.iter().enumerate() {
        let mut log = Episodes::open(path)?;
        while let Some(episode) = log.next_good(&mut |_| {})? {
            if last.get(&episode.key) == Some(&(at, log.line())) {
                writer.add(&episode)?;
                merged.episodes += 1;
            }
        }
    }
    writer.finish()?;
    Ok(merged)
}

/// What can be said of logs together: how they were played where that is one way, and by which rules each suite was.
fn common(origins: Vec<Origin>) -> Origin {
    let mut digests: Vec<&str> = origins.iter().map(|origin| origin.digest.as_str()).collect();
    digests.dedup();
    let digest = match digests.as_slice() {
        [only] => (*only).to_owned(),
        several => Digest::of_parts(several.iter().map(|digest| ("log", digest.as_bytes()))).to_string(),
    };
    let mut rules: BTreeMap<String, String> = BTreeMap::new();
    for (suite, said) in origins.iter().flat_map(|origin| &origin.rules).collect::<BTreeSet<_>>() {
        // What was mixed compares with nothing that was not.
        let all = rules.entry(suite.clone()).or_default();
        *all = if all.is_empty() { said.clone() } else { format!("{all}+{said}") };
    }
    let first = origins.first().and_then(|first| first.served.clone());
    Origin { digest, rules, served: first.filter(|first| origins.iter().all(|o| o.served.as_ref() == Some(first))) }
}

/// Takes a log apart into one a suite, `SUITE-NAME` in a directory: the files, with their episodes.
///
/// # Errors
/// If the log cannot be read, a file is there already, or the disk refuses.
pub fn split_log(path: &Path, out: &Path) -> Result<Vec<(PathBuf, usize)>, RunError> {
    std::fs::create_dir_all(out).map_err(unwritten(out))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut log = Episodes::open(path)?;
    let mut writers: BTreeMap<String, (PathBuf, LogWriter, usize)> = BTreeMap::new();
    while let Some(episode) = log.next().transpose()? {
        if !writers.contains_key(&episode.key.suite) {
            let file = out.join(format!("{}-{name}", episode.key.suite.replace('/', "-")));
            let mut origin = log.origin().clone();
            origin.rules.retain(|suite, _| *suite == episode.key.suite);
            let writer = LogWriter::create(&file, &origin)?;
            writers.insert(episode.key.suite.clone(), (file, writer, 0));
        }
        if let Some((_, writer, count)) = writers.get_mut(&episode.key.suite) {
            writer.add(&episode)?;
            *count += 1;
        }
    }
    let mut closed: Vec<(PathBuf, usize)> = Vec::new();
    for (file, writer, count) in writers.into_values() {
        if let Err(error) = writer.finish() {
            // All of them or none: the same command is to be given again.
            for (file, _) in closed {
                let _ = std::fs::remove_file(file);
            }
            return Err(error.into());
        }
        closed.push((file, count));
    }
    Ok(closed)
}
