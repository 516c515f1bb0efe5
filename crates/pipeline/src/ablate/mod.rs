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
use crate::stages::select::Selected;
use crate::stages::trace::{Passed, Reading};
use crate::stages::transplant::{Planned, plan};
use rolegraft_checkpoint::Digest;
use rolegraft_graft::Protect;
use rolegraft_suites::Split;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

pub use values::Grid;
use values::{Ablation, CandidatePoint, Score, SweepPoint, TokensCheck};

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
    experiment.tasks = experiment.tasks.with_at_most(grid.tasks);
    let most = experiment.suite_names().iter().map(|suite| experiment.tasks.of(suite, Split::Test).tasks).max();
    let grid = Grid { tasks: most.unwrap_or(grid.tasks), ..grid.clone() };
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
    let (suites, tasks) = (experiment.suite_names().len(), experiment.test_tasks());
    progress.note(&format!(
        "at most {checkpoints} checkpoints ({} candidates, {transplants} transplants, {} by other tokens) and {} episodes ({suites} suites, {tasks} tasks, \
         {} seeds); what the store holds is not made again",
        experiment.candidate.len(),
        grid.tokens.len(),
        checkpoints * tasks * grid.seeds as usize,
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
    let mut others: Vec<(Tokens, Repaired)> = Vec::new();
    for other in grid.tokens.iter().filter(|other| **other != tokens) {
        kept.machine.progress.note(&format!("the same by {} tokens", other.as_str()));
        others.push((*other, repair(kept, &pool, *other)?));
    }
    let by_tokens = |tokens: &Tokens| others.iter().find(|(other, _)| other == tokens).map_or(&repaired, |(_, r)| r);
    let sweep = kept.stage("transplant", |kept| transplants(kept, &pool, &repaired, grid))?;

    let mut models: Vec<Member> = pool.candidates.clone();
    models.extend(sweep.iter().map(|(_, arm)| arm.clone()));
    models.extend(grid.tokens.iter().map(|tokens| by_tokens(tokens).arm.clone()));
    let rewards = kept.stage("evaluate", |kept| play::play(kept, &models, grid))?;
    let score = |model: &Member| play::score(&rewards[model.digest.as_str()], &experiment.benchmark, experiment.seed);

    kept.stage("checks", |kept| {
        let overlap = |tokens: &Tokens| checks::overlap(kept, &pool, &served, *tokens);
        let overlap = grid.tokens.iter().map(overlap).collect::<Result<_, _>>()?;
        let Selected { selection, intervals, .. } = &repaired.selected;
        let points = pool.candidates.iter().enumerate().zip(&selection.rows).map(|((at, model), (name, _, aos))| {
            let interval = intervals.get(at).copied().flatten();
            CandidatePoint { name: name.clone(), aos: *aos, interval, score: score(model) }
        });
        Ok(Ablation {
            experiment: experiment.name.clone(),
            grid: grid.clone(),
            settings: (k, protect, tokens),
            candidates: pool.candidates.iter().map(|candidate| candidate.name.clone()).collect(),
            backbone: repaired.backbone.name.clone(),
            backbone_score: score(&repaired.backbone),
            weak: repaired.diagnosed.diagnosis.weak.clone(),
            selection: points.collect(),
            overlap,
            sweep: sweep.iter().map(|(planned, arm)| sweep_point(planned, score(arm))).collect(),
            one_expert: checks::one_expert(kept, &pool, &served)?,
            tokens: grid.tokens.iter().map(|tokens| tokens_check(*tokens, by_tokens(tokens), &score)).collect(),
            jitter: checks::jitter(kept, &pool, &served, &grid.jitter)?,
            calibration: checks::calibration(kept, &pool, &served, shares(grid))?,
        })
    })
}

fn sweep_point(planned: &Planned, score: Score) -> SweepPoint {
    let Planned { protect, k, plan, .. } = planned;
    let (neurons, protected_away) = (plan.neurons(), plan.protected_away());
    SweepPoint { protect: *protect, k: *k, neurons, protected_away, score }
}

fn tokens_check(tokens: Tokens, repaired: &Repaired, score: &dyn Fn(&Member) -> Score) -> TokensCheck {
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
