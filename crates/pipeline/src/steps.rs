//! The loop's steps on files, as commands take them: read what a stage needs, call it, write what it makes.

use crate::artefact::{self, ArtefactError, Calibration, Traced};
use crate::error::RunError;
use crate::experiment::{Shift, Tokens};
use crate::logs::same_file;
use crate::machine::{Machine, Member};
use crate::stages::diagnose::{Compared, Diagnosed};
use crate::stages::select::{File, Selected};
use crate::stages::trace::Of;
use crate::stages::transplant::Planned;
use crate::stages::{calibrate, diagnose, fit, select, trace, transplant};
use rolegraft_checkpoint::{Checkpoint, check_pool, write_atomic};
use rolegraft_graft::{DiagnosisRules, Protect};
use rolegraft_merge::TokenWeights;
use rolegraft_report::Benchmark;
use rolegraft_spans::Format;
use rolegraft_trajectory::{Episode, EpisodeLog};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

/// Episode logs → a calibration set of tokens.
///
/// # Errors
/// As [`calibrate::tokens`], or if a log cannot be read or holds nothing.
pub fn tokenize(
    machine: &Machine<'_>,
    logs: &[PathBuf],
    model: &Path,
    benchmark: Option<&str>,
    format: Option<&Format>,
    out: &Path,
) -> Result<Calibration, RunError> {
    let mut episodes = Vec::new();
    for log in logs {
        if same_file(log, out) {
            let reason = "is one of the logs that are read; choose another --out".into();
            return Err(RunError::File { path: out.to_owned(), reason });
        }
        episodes.extend(EpisodeLog::read(log)?.1);
    }
    let mut seen = HashSet::new();
    // Several models may have played one task; one trajectory counts once.
    let said = |episode: &Episode| serde_json::to_string(&episode.messages).unwrap_or_default();
    if let Some(twice) = episodes.iter().find(|episode| !seen.insert((episode.key.clone(), said(episode)))) {
        let (task, trial) = (&twice.key.task, twice.key.trial);
        let reason = format!("would hold one trajectory twice (task `{task}`, trial {trial}); give each log once");
        return Err(RunError::File { path: out.to_owned(), reason });
    }
    let Some(first) = episodes.first() else { return Err(RunError::NoTrajectories) };
    let benchmark = benchmark.unwrap_or(&first.key.suite).to_owned();
    let set = calibrate::tokens(machine, model, &benchmark, &episodes, format)?;
    write_atomic(out, &set.encode()).map_err(ArtefactError::from)?;
    Ok(set)
}

/// Calibration sets → a saliency, of activations or of how far they are from another checkpoint's. What is done is kept in `OUT.partial`, with which the same call goes on.
///
/// # Errors
/// As [`trace::trace`], or if a file cannot be used.
pub fn trace(
    machine: &Machine<'_>,
    (model, against): (&Path, Option<&Path>),
    sets: &[PathBuf],
    tokens: Tokens,
    shift: Shift,
    out: &Path,
) -> Result<Traced, RunError> {
    let journal = out.with_added_extension("partial");
    let (checkpoint, member) = Member::named_by_path("model", model)?;
    let other = against.map(|dir| Member::named_by_path("model", dir)).transpose()?;
    let against = other.as_ref().map(|(checkpoint, member)| (checkpoint, &member.digest));
    let of = Of { model: (&checkpoint, &member.digest), against };
    let traced = trace::trace(machine, of, &read_sets(sets, out)?, tokens, shift, &journal)?;
    write_atomic(out, &traced.encode()).map_err(ArtefactError::from)?;
    // It goes when nothing hangs on it any more.
    let _ = std::fs::remove_file(journal);
    Ok(traced)
}

/// Calibration sets → the Gram matrices of what goes into a checkpoint's maps: how many tokens they are of. What is done is kept
/// in `OUT.partial`, with which the same call goes on.
///
/// # Errors
/// As [`rolegraft_least_squares::record`], or if a file cannot be used.
pub fn gram(
    machine: &Machine<'_>,
    model: &Path,
    sets: &[PathBuf],
    weights: TokenWeights,
    out: &Path,
) -> Result<usize, RunError> {
    let (checkpoint, member) = Member::named_by_path("model", model)?;
    fit::gram(machine, (&checkpoint, &member.digest), &read_sets(sets, out)?, weights, out)
}

/// Calibration sets, each once, none of them the output.
fn read_sets(paths: &[PathBuf], out: &Path) -> Result<Vec<(PathBuf, Calibration)>, RunError> {
    for (at, path) in paths.iter().enumerate() {
        let refuse = |reason: &str| RunError::File { path: path.clone(), reason: reason.into() };
        if same_file(path, out) {
            return Err(refuse("is one of the sets that are read; choose another --out"));
        }
        if paths[..at].iter().any(|first| same_file(first, path)) {
            return Err(refuse("is given twice; a set counts once"));
        }
    }
    Ok(paths.iter().map(|path| Ok((path.clone(), Calibration::read(path)?))).collect::<Result<_, ArtefactError>>()?)
}

fn traced(path: &Path) -> Result<File, ArtefactError> {
    Ok((path.to_owned(), Traced::read(path)?))
}

/// Saliencies → the AOS table. Candidates are (name, benchmark, file), experts (benchmark, file).
///
/// # Errors
/// As [`select::select`], or if a file cannot be used.
pub fn select(
    candidates: &[(String, String, PathBuf)],
    experts: &[(String, PathBuf)],
    k: f64,
    seed: u64,
    out: Option<&Path>,
) -> Result<Selected, RunError> {
    let mut of_candidates: Vec<(String, BTreeMap<String, File>)> = Vec::new();
    for (name, benchmark, path) in candidates {
        let file = traced(path)?;
        match of_candidates.iter_mut().find(|(known, _)| known == name) {
            Some((_, files)) => drop(files.insert(benchmark.clone(), file)),
            None => of_candidates.push((name.clone(), [(benchmark.clone(), file)].into())),
        }
    }
    let of_experts = experts.iter().map(|(benchmark, path)| Ok((benchmark.clone(), traced(path)?)));
    let selected = select::select(&of_candidates, &of_experts.collect::<Result<_, ArtefactError>>()?, k, seed)?;
    if let Some(out) = out {
        artefact::write(out, &selected)?;
    }
    Ok(selected)
}

/// Episode logs of a backbone and of experts → weak benchmarks. `benchmarks` joins suites; a suite that is in none is a
/// benchmark of its own.
///
/// # Errors
/// If a log cannot be read, or a benchmark has episodes of one side alone.
pub fn diagnose(
    backbone: &[PathBuf],
    experts: &[PathBuf],
    benchmarks: &[(String, Vec<String>)],
    rules: &DiagnosisRules,
    out: Option<&Path>,
) -> Result<Diagnosed, RunError> {
    let read = |logs: &[PathBuf]| -> Result<Vec<Episode>, RunError> {
        let mut episodes = Vec::new();
        for log in logs {
            episodes.extend(EpisodeLog::read(log)?.1);
        }
        Ok(episodes)
    };
    let (ours, theirs) = (read(backbone)?, read(experts)?);
    let mut columns: Vec<(String, Vec<String>)> = benchmarks.to_vec();
    for suite in ours.iter().chain(&theirs).map(|e| &e.key.suite) {
        if !columns.iter().any(|(_, suites)| suites.contains(suite)) {
            columns.push((suite.clone(), vec![suite.clone()]));
        }
    }
    let mut compared = Vec::new();
    for (id, suites) in columns {
        let of = |episodes: &[Episode]| -> Vec<Episode> {
            episodes.iter().filter(|e| suites.contains(&e.key.suite)).cloned().collect()
        };
        let (backbone, expert) = (of(&ours), of(&theirs));
        for (side, episodes) in [("backbone", &backbone), ("expert", &expert)] {
            if episodes.is_empty() {
                return Err(RunError::OneSided { benchmark: id, side });
            }
        }
        let benchmark = Benchmark { title: id.clone(), id, suites };
        compared.push(Compared { benchmark, backbone, expert });
    }
    let diagnosed = diagnose::diagnose(&compared, rules);
    if let Some(out) = out {
        artefact::write(out, &diagnosed)?;
    }
    Ok(diagnosed)
}

/// What to transplant.
pub struct Repair<'r> {
    /// The checkpoint to repair.
    pub backbone: &'r Path,
    /// The checkpoint that serves each benchmark.
    pub donors: &'r [(String, PathBuf)],
    /// Traces of the backbone and of the donors, in any order: each says whose it is.
    pub saliencies: &'r [PathBuf],
    /// Weak benchmarks with their gaps, largest first.
    pub weak: &'r [(String, f64)],
    /// Share of a layer's neurons that are salient.
    pub k: f64,
    /// Whose neurons are left alone.
    pub protect: Protect,
}

/// Traces and weak benchmarks → a plan, and the repaired checkpoint in `out`; without `out` the plan alone, which is
/// written to `plan_to` where that is given.
///
/// # Errors
/// If a trace is missing or of another checkpoint, a donor does not fit, or the disk refuses.
pub fn transplant(repair: &Repair<'_>, plan_to: Option<&Path>, out: Option<&Path>) -> Result<Planned, RunError> {
    let (backbone, member) = Member::named_by_path("backbone", repair.backbone)?;
    // One expert may serve several benchmarks.
    let mut opened: BTreeMap<PathBuf, (Checkpoint, Member)> = BTreeMap::new();
    let mut donors: Vec<(&str, PathBuf)> = Vec::new();
    for (benchmark, dir) in repair.donors {
        let path = dir.canonicalize().unwrap_or_else(|_| dir.clone());
        if !opened.contains_key(&path) {
            opened.insert(path.clone(), Member::named_by_path("donor", dir)?);
        }
        donors.push((benchmark, path));
    }
    check_pool(&backbone, &opened.values().map(|(checkpoint, _)| checkpoint).collect::<Vec<_>>())?;
    let files: Vec<File> = repair.saliencies.iter().map(|path| traced(path)).collect::<Result<_, _>>()?;
    let of = |member: &Member, benchmark: &str, gives: bool| -> Result<File, RunError> {
        let fits = |(_, t): &&File| t.model == member.digest.as_str() && t.benchmark == benchmark;
        let mut found = files.iter().filter(fits).filter(|(_, t)| gives || t.against.is_none());
        let missing = || RunError::NoTrace { model: member.dir.display().to_string(), benchmark: benchmark.to_owned() };
        let first = found.next().ok_or_else(missing)?;
        match found.find(|(_, t)| t.against != first.1.against) {
            None => Ok(first.clone()),
            Some((path, _)) => Err(ArtefactError::Form {
                path: path.clone(),
                expected: "trace to choose by",
                reason: format!("`{}` traces the same donor in another way; give one of them", first.0.display()),
            }
            .into()),
        }
    };
    let (mut own, mut experts) = (BTreeMap::new(), BTreeMap::new());
    for (benchmark, path) in &donors {
        let (_, donor) = &opened[path];
        own.insert((*benchmark).to_owned(), of(&member, benchmark, false)?);
        experts.insert((*benchmark).to_owned(), (donor.clone(), of(donor, benchmark, true)?));
    }
    let planned = transplant::plan(repair.weak, (&member, &own), &experts, repair.k, repair.protect)?;
    if let Some(path) = plan_to {
        artefact::write(path, &planned)?;
    }
    if let Some(out) = out {
        let givers = opened.values().map(|(checkpoint, member)| (member.name.clone(), checkpoint)).collect();
        transplant::apply(&planned, &backbone, &givers, out)?;
    }
    Ok(planned)
}
