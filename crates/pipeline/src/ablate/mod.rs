//! The ablations of an experiment: the paper's figures 3 to 5 and three checks.
//!
//! Every model passes over every calibration set once, and all that is asked of its activations (role and reply tokens, moved
//! spans, shares of the trajectories) is read in that pass. Traces, checkpoints and episodes are kept in the store under
//! the names that a run gives them, so nothing that a run made is made again.

mod checks;
mod figures;
mod outputs;
mod play;
mod values;

use crate::error::RunError;
use crate::experiment::{BenchmarkEntry, Experiment, Tokens};
use crate::kept::{Kept, pairs, served, with_stages};
use crate::machine::Member;
use crate::progress::Progress;
use crate::repair::{Pool, Repaired, pool, repair, serving};
use crate::stages::trace::{Passed, Reading};
use crate::stages::transplant::{Planned, plan};
use rolegraft_checkpoint::Digest;
use rolegraft_graft::Protect;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

pub use values::Grid;
use values::{Ablation, CandidatePoint, SweepPoint, TokensCheck};

/// What finished ablations say on the terminal.
#[derive(Debug, Clone, PartialEq)]
pub struct AblationSummary {
    /// Their directory.
    pub dir: PathBuf,
    /// What figures and checks show, a line each.
    pub says: Vec<String>,
    /// What went through models this time.
    pub passes: String,
}

/// Runs the ablations of an experiment, or what is left of them. `stop` ends them between turns; what is finished is kept.
///
/// # Errors
/// The first thing that keeps them from finishing.
pub fn ablate(
    experiment: &Experiment,
    grid: &Grid,
    results: &Path,
    stop: Arc<AtomicBool>,
    progress: &dyn Progress,
) -> Result<AblationSummary, RunError> {
    let mut experiment = experiment.clone();
    // Benchmarks that only look on are not played.
    experiment.benchmark.retain(|benchmark| benchmark.expert.is_some());
    let grid = Grid { tasks: grid.tasks.min(experiment.tasks.test), ..grid.clone() };
    with_stages(&experiment, results, stop, progress, |kept| {
        announce(&experiment, &grid, progress);
        let ablation = ablation(kept, &grid)?;
        progress.stage("report");
        let dir = kept.store.run(&experiment.name).join("ablation");
        let says = outputs::write(&dir, &ablation)?;
        Ok(AblationSummary { dir, says, passes: passes(kept) })
    })
}

/// Everything that is read of activations, each once; the first is what the run itself reads.
fn readings(experiment: &Experiment, grid: &Grid) -> Vec<Reading> {
    let own = experiment.saliency.tokens;
    let mut all = vec![Reading::whole(own), Reading::whole(Tokens::Reply), Reading::jitter(0)];
    all.extend(grid.tokens.iter().map(|tokens| Reading::whole(*tokens)));
    all.extend(grid.jitter.iter().map(|by| Reading::jitter(*by)));
    all.extend(shares(grid).map(|(share, seed)| Reading::share(own, share, seed)));
    let mut distinct: Vec<Reading> = Vec::new();
    for reading in all {
        if !distinct.contains(&reading) {
            distinct.push(reading);
        }
    }
    distinct
}

/// Shares of the trajectories with the seeds that draw them; there is one whole.
fn shares(grid: &Grid) -> impl Iterator<Item = (f64, u64)> {
    let seeds = |share: f64| if share < 1.0 { grid.seeds } else { 1 };
    grid.calibration.iter().flat_map(move |share| (0..seeds(*share)).map(|seed| (*share, seed)))
}

fn announce(experiment: &Experiment, grid: &Grid, progress: &dyn Progress) {
    let transplants = grid.k.len() * grid.protect.len();
    let checkpoints = experiment.candidate.len() + transplants + grid.tokens.len();
    let suites = experiment.suite_names().len();
    progress.note(&format!(
        "at most {checkpoints} checkpoints ({} candidates, {transplants} transplants, {} by other tokens) and {} episodes ({suites} suites, {} tasks, \
         {} seeds); what the store holds is not made again",
        experiment.candidate.len(),
        grid.tokens.len(),
        checkpoints * suites * grid.tasks * grid.seeds as usize,
        grid.tasks,
        grid.seeds,
    ));
}

fn ablation(kept: &mut Kept<'_>, grid: &Grid) -> Result<Ablation, RunError> {
    let experiment = kept.experiment;
    let (k, tokens, protect) = (experiment.saliency.k, experiment.saliency.tokens, experiment.transplant.protect);
    let pool = pool(kept)?;
    let served = served(experiment, &pool.members);
    kept.stage("trace", |kept| pass(kept, &pool, &served, &readings(experiment, grid)))?;
    let repaired = repair(kept, &pool, tokens)?;
    let mut by_tokens: Vec<(Tokens, Repaired)> = Vec::new();
    for other in &grid.tokens {
        by_tokens.push((*other, repair(kept, &pool, *other)?));
    }
    let sweep = kept.stage("transplant", |kept| transplants(kept, &pool, &repaired, grid))?;

    let mut models: Vec<Member> = pool.candidates.clone();
    models.extend(sweep.iter().map(|(_, arm)| arm.clone()));
    models.extend(by_tokens.iter().map(|(_, repaired)| repaired.arm.clone()));
    let rewards = kept.stage("evaluate", |kept| play::play(kept, &models, grid))?;
    let score = |model: &Member| play::score(&rewards[model.digest.as_str()], &experiment.benchmark, experiment.seed);

    kept.stage("checks", |kept| {
        let overlap: Result<Vec<_>, _> =
            grid.tokens.iter().map(|tokens| checks::overlap(kept, &pool, &served, *tokens)).collect();
        let one_expert = checks::one_expert(kept, &pool, &served)?;
        let mut select = |reading| checks::selection(kept, &pool, &served, reading);
        let by_role = select(Reading::jitter(0))?;
        let mut jitter = Vec::new();
        for by in &grid.jitter {
            jitter.push((*by, checks::changed(&by_role, &select(Reading::jitter(*by))?)));
        }
        let whole = select(Reading::whole(tokens))?;
        let mut calibration = Vec::new();
        for (share, seed) in shares(grid) {
            let changed = checks::changed(&whole, &select(Reading::share(tokens, share, seed))?);
            calibration.push((share, seed, changed));
        }
        let rows = pool.candidates.iter().zip(&repaired.selected.selection.rows).zip(&repaired.selected.intervals);
        Ok(Ablation {
            experiment: experiment.name.clone(),
            grid: grid.clone(),
            settings: (k, protect, tokens),
            candidates: pool.candidates.iter().map(|candidate| candidate.name.clone()).collect(),
            backbone: repaired.backbone.name.clone(),
            backbone_score: score(&repaired.backbone),
            weak: repaired.diagnosed.diagnosis.weak.clone(),
            selection: rows
                .map(|((model, (name, _, aos)), interval)| CandidatePoint {
                    name: name.clone(),
                    aos: *aos,
                    interval: *interval,
                    score: score(model),
                })
                .collect(),
            overlap: overlap?,
            sweep: sweep
                .iter()
                .map(|(planned, arm)| SweepPoint {
                    protect: planned.protect,
                    k: planned.k,
                    neurons: planned.plan.neurons(),
                    protected_away: planned.plan.protected_away(),
                    score: score(arm),
                })
                .collect(),
            one_expert,
            tokens: by_tokens.iter().map(|(tokens, repaired)| tokens_check(*tokens, repaired, &score)).collect(),
            jitter,
            calibration,
        })
    })
}

fn tokens_check(tokens: Tokens, repaired: &Repaired, score: &dyn Fn(&Member) -> values::Score) -> TokensCheck {
    let rows = &repaired.selected.selection.rows;
    TokensCheck {
        tokens,
        backbone: repaired.backbone.name.clone(),
        aos: rows.iter().find(|(name, ..)| *name == repaired.backbone.name).map_or(0.0, |(.., mean)| *mean),
        weak: repaired.diagnosed.diagnosis.weak.iter().map(|(benchmark, _)| benchmark.clone()).collect(),
        neurons: repaired.planned.plan.neurons(),
        score: score(&repaired.arm),
    }
}

/// Passes over what the store lacks: every model once over every calibration set.
fn pass(
    kept: &mut Kept<'_>,
    pool: &Pool,
    served: &[(&BenchmarkEntry, &Member)],
    readings: &[Reading],
) -> Result<(), RunError> {
    let mut all: Vec<(&Member, &BenchmarkEntry)> = served.iter().map(|(b, expert)| (*expert, *b)).collect();
    all.extend(pairs(&pool.candidates, served));
    let mut lacking = Vec::new();
    for (model, benchmark) in &all {
        let said = &pool.trajectories[&benchmark.id].1;
        let readings = kept.lacking_traces(model, &benchmark.id, said, readings)?;
        if !readings.is_empty() {
            lacking.push((*model, *benchmark, readings));
        }
    }
    let traces = all.len() * readings.len();
    let made: usize = lacking.iter().map(|(.., readings)| readings.len()).sum();
    let progress = kept.machine.progress;
    progress.note(&format!(
        "{traces} traces: {} of each of {} models on a benchmark; {} are in the store, {made} are made in {} passes",
        readings.len(),
        all.len(),
        traces - made,
        lacking.len()
    ));
    let begun = Instant::now();
    for (at, (model, benchmark, readings)) in lacking.iter().enumerate() {
        let (episodes, said) = &pool.trajectories[&benchmark.id];
        kept.traced(model, &benchmark.id, (episodes, said), readings)?;
        let left = play::time_left(begun, at + 1, lacking.len());
        progress.update(at + 1, lacking.len(), &format!("{} · {}, {left}", model.name, benchmark.id));
    }
    Ok(())
}

/// How much went through models, in words.
fn passes(kept: &Kept<'_>) -> String {
    let all = &kept.passes;
    let (runs, tokens) =
        all.iter().fold((0, 0), |(runs, tokens), (.., passed)| (runs + passed.runs, tokens + passed.tokens));
    let seen = |(at, (model, benchmark, _)): &(usize, &(Digest, String, Passed))| {
        all[..*at].iter().any(|(m, b, _)| m == model && b == benchmark)
    };
    let again = all.iter().enumerate().filter(seen).count();
    format!(
        "forward passes: {} of a model over a calibration set, {again} of them again; {runs} runs, {tokens} tokens",
        all.len()
    )
}

/// A plan and its checkpoint for every k and protection. Plans that take the same neurons share a checkpoint.
fn transplants(
    kept: &mut Kept<'_>,
    pool: &Pool,
    repaired: &Repaired,
    grid: &Grid,
) -> Result<Vec<(Planned, Member)>, RunError> {
    let served = served(kept.experiment, &pool.members);
    let (serving, own) = (serving(&served, &repaired.traces), repaired.own());
    let weak = &repaired.diagnosed.diagnosis.weak;
    let mut made: Vec<(Planned, Member)> = vec![(repaired.planned.clone(), repaired.arm.clone())];
    let all: Vec<(Protect, f64)> =
        grid.protect.iter().flat_map(|protect| grid.k.iter().map(|k| (*protect, *k))).collect();
    for (at, (protect, k)) in all.iter().enumerate() {
        kept.machine.goes_on()?;
        let planned = plan(weak, (&repaired.backbone, &own), &serving, *k, *protect)?;
        let takes = |planned: &Planned| {
            let grafts = planned.plan.grafts.iter().filter(|graft| !graft.neurons.is_empty());
            grafts.map(|graft| (graft.donor.clone(), graft.neurons.clone())).collect::<Vec<_>>()
        };
        let arm = match made.iter().find(|(known, _)| takes(known) == takes(&planned)) {
            _ if takes(&planned).is_empty() => repaired.backbone.clone(),
            Some((_, known)) => known.clone(),
            None => kept.transplanted(&planned, &repaired.backbone, &pool.experts)?,
        };
        let name = format!("k {k}, {}", protect.as_str());
        kept.machine.progress.update(at + 1, all.len(), &name);
        made.push((planned, Member { name, ..arm }));
    }
    Ok(made.split_off(1))
}
