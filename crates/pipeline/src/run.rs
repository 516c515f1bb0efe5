//! The order of the stages.

use crate::energy::task_vector_energy;
use crate::error::RunError;
use crate::experiment::{Experiment, Source};
use crate::forecast::check;
use crate::kept::{Kept, with_stages};
use crate::logs::write_logs_report;
use crate::machine::Member;
use crate::progress::Progress;
use crate::record::{self, Results};
use crate::repair::{Repaired, pool, repair};
use rolegraft_checkpoint::Checkpoint;
use rolegraft_report::{Format, LogsReport, Wanted, overview};
use rolegraft_suites::Split;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What a finished run says on the terminal.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSummary {
    /// The run's directory.
    pub dir: PathBuf,
    /// The tables, in Markdown.
    pub tables: String,
}

/// Runs an experiment, or what is left of it. `stop` ends it between turns; what is finished is kept.
///
/// # Errors
/// The first thing that keeps it from finishing.
pub fn run(
    experiment: &Experiment,
    results: &Path,
    stop: Arc<AtomicBool>,
    progress: &dyn Progress,
) -> Result<RunSummary, RunError> {
    check(experiment, results)?;
    with_stages(experiment, results, stop, progress, |kept| {
        if experiment.candidate.is_empty() {
            return evaluate_pool(kept);
        }
        let results = all_stages(kept)?;
        let dir = kept.store.run(&experiment.name);
        progress.stage("report");
        let tables = record::write(kept.experiment, &dir, &results)?;
        Ok(RunSummary { dir, tables })
    })
}

/// Plays the pool as it is, endpoints included.
fn evaluate_pool(kept: &mut Kept<'_>) -> Result<RunSummary, RunError> {
    let experiment = kept.experiment;
    kept.machine.progress.note("there is no [[candidate]]: the pool is evaluated, and nothing is merged");
    let suites = experiment.suite_names();
    let mut models = Vec::new();
    for (name, source) in experiment.pool.models() {
        let logs = match source {
            Source::Checkpoint(dir) => {
                let member = Member::open("model", name, dir)?.1;
                kept.check_templates(std::iter::once(&member))?;
                kept.logs(&member, &suites, Split::Test)?
            }
            Source::Endpoint(address) => kept.served_logs((name, address), &suites, Split::Test)?,
        };
        models.push((name.to_owned(), logs));
    }
    let wanted = Wanted { tasks: Some(kept.test_tasks()?), last: false };
    let report = LogsReport { models, wanted, seed: experiment.seed, prices: (None, None) };
    let dir = kept.store.run(&experiment.name);
    let models = write_logs_report(&report, Some(&dir), true)?;
    record::leave(&dir, &kept.files)?;
    let tables = overview(&models, experiment.seed, report.prices);
    let tables: String = tables.iter().map(|table| table.render(Format::Markdown) + "\n").collect();
    Ok(RunSummary { dir, tables: tables + &record::not_run(&kept.suites.left_out) })
}

fn all_stages(kept: &mut Kept<'_>) -> Result<Results, RunError> {
    let experiment = kept.experiment;
    let pool = pool(kept)?;
    let Repaired { traces, selected, diagnosed, planned, arm, .. } = repair(kept, &pool, experiment.saliency.tokens)?;
    let (base, base_member) = pool.base;
    let energy =
        |(expert, member): &(Checkpoint, Member)| Ok((member.name.clone(), task_vector_energy(&base, expert)?));
    let energy = pool.experts.iter().map(energy).collect::<Result<Vec<_>, RunError>>()?;
    let models: Vec<Member> = [vec![base_member], pool.members, pool.candidates, vec![arm]].concat();
    let tasks = kept.test_tasks()?;
    let models = kept.stage("evaluate", |kept| {
        let suites = experiment.suite_names();
        let mut play = |model: Member| {
            let logs = kept.logs(&model, &suites, Split::Test)?;
            Ok((model, logs))
        };
        models.into_iter().map(&mut play).collect::<Result<Vec<_>, RunError>>()
    })?;
    let traced = traces
        .experts
        .iter()
        .map(|(b, (_, t))| (b.clone(), (t.saliency.traced, t.saliency.traced + t.saliency.without_role)));
    let (traced, files, timings) =
        (traced.collect(), std::mem::take(&mut kept.files), std::mem::take(&mut kept.timings));
    let overlap = traces.overlap;
    let left_out = kept.suites.left_out.clone();
    Ok(Results { models, tasks, selected, diagnosed, planned, energy, files, overlap, timings, left_out, traced })
}
