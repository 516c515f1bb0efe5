//! Episode logs by path: single files, or the test episodes of runs.

use crate::error::RunError;
use rolegraft_trajectory::{Episode, EpisodeLog, LogError};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What runs call the logs of their test episodes: `test-SUITE-MODEL.jsonl`.
const TEST: &str = "test-";

/// Reads logs, or `episodes/` of run directories, and groups the episodes by model: the file's name, or what the run
/// calls it.
///
/// # Errors
/// If a path cannot be read, or holds something else.
pub fn read_logs(paths: &[PathBuf]) -> Result<Vec<(String, Vec<Episode>)>, RunError> {
    let mut models: BTreeMap<(usize, String), Vec<Episode>> = BTreeMap::new();
    for (i, path) in paths.iter().enumerate() {
        for file in files(path)? {
            let (_, episodes) = EpisodeLog::read(&file)?;
            let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let suite = episodes.first().map_or("", |e| e.key.suite.as_str());
            let of_run = stem.strip_prefix(TEST).and_then(|s| s.strip_prefix(suite)?.strip_prefix('-'));
            let model = if *path == file { stem.clone() } else { of_run.unwrap_or(&stem).to_owned() };
            models.entry((i, model)).or_default().extend(episodes);
        }
    }
    Ok(models.into_iter().map(|((_, model), episodes)| (model, episodes)).collect())
}

fn files(path: &Path) -> Result<Vec<PathBuf>, LogError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let dir = path.join("episodes");
    let fail = |source| LogError::Io { path: dir.clone(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&dir).map_err(fail)? {
        let file = entry.map_err(fail)?.path();
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(TEST) && name.ends_with(".jsonl") {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}
