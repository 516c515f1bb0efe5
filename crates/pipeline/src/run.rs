//! The order of the stages.

use crate::energy::task_vector_energy;
use crate::error::RunError;
use crate::experiment::Experiment;
use crate::kept::{Kept, with_stages};
use crate::machine::Member;
use crate::progress::Progress;
use crate::record::{self, Results};
use crate::repair::{Repaired, pool, repair};
use rolegraft_checkpoint::Checkpoint;
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
    with_stages(experiment, results, stop, progress, |kept| {
        let results = all_stages(kept)?;
        let dir = kept.store.run(&experiment.name);
        progress.stage("report");
        let tables = record::write(kept.experiment, &dir, &results)?;
        Ok(RunSummary { dir, tables })
    })
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
    let tasks = kept.task_ids(Split::Test, experiment.tasks.test)?;
    let models = kept.stage("evaluate", |kept| {
        let suites = experiment.suite_names();
        let mut play = |model: Member| {
            let logs = kept.logs(&model, &suites, Split::Test, (experiment.tasks.test, 1))?;
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
    Ok(Results { models, tasks, selected, diagnosed, planned, energy, files, overlap, timings, traced })
}
