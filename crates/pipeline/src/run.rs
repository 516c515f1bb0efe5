//! The order of the stages.

use crate::energy::task_vector_energy;
use crate::error::RunError;
use crate::experiment::Experiment;
use crate::kept::{Kept, open_suites, served};
use crate::machine::{Machine, Member};
use crate::progress::Progress;
use crate::record::{self, Results};
use crate::stages::diagnose::{Compared, diagnose};
use crate::stages::select::{File, select};
use crate::stages::transplant::plan;
use crate::store::Store;
use rolegraft_checkpoint::{Checkpoint, check_pool};
use rolegraft_suites::Split;
use std::collections::BTreeMap;
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
    let store = Store::new(results);
    let _lock = store.lock(&experiment.name)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(RunError::Runtime)?;
    let mut experiment = experiment.clone();
    let suites = open_suites(&mut experiment, &runtime, progress)?;
    let (engine, engines, seed) = (experiment.engine, experiment.engines, experiment.seed);
    let machine = Machine { runtime: &runtime, stop, progress, engine, engines, chat: &experiment.chat, seed };
    let mut kept = Kept {
        experiment: &experiment,
        store: &store,
        suites: &suites,
        machine: &machine,
        files: Vec::new(),
        timings: Vec::new(),
    };
    let results = all_stages(&mut kept)?;
    let dir = store.run(&experiment.name);
    progress.stage("report");
    let tables = record::write(&experiment, &dir, &results)?;
    Ok(RunSummary { dir, tables })
}

fn all_stages(kept: &mut Kept<'_>) -> Result<Results, RunError> {
    let experiment = kept.experiment;
    let (base, base_member) = Member::open("base", "base", &experiment.pool.base)?;
    let open = |(name, dir): (&String, &PathBuf)| Member::open("expert", name, dir);
    let experts: Vec<(Checkpoint, Member)> = experiment.pool.experts.iter().map(open).collect::<Result<_, _>>()?;
    check_pool(&base, &experts.iter().map(|(checkpoint, _)| checkpoint).collect::<Vec<_>>())?;
    let members: Vec<Member> = experts.iter().map(|(_, member)| member.clone()).collect();
    // Merged models have the base's template or an expert's.
    kept.check_templates(std::iter::once(&base_member).chain(&members))?;

    let candidates = kept.stage("merge", |kept| kept.merges(&base_member, &members))?;
    let served = served(experiment, &members);
    let trajectories = kept.stage("calibrate", |kept| {
        let mut all = BTreeMap::new();
        for (benchmark, expert) in &served {
            let mut episodes = Vec::new();
            for suite in &benchmark.suites {
                episodes.extend(kept.trajectories(suite, expert)?);
            }
            all.insert(benchmark.id.clone(), episodes);
        }
        Ok(all)
    })?;

    let k = experiment.saliency.k;
    let traces = kept.stage("trace", |kept| kept.traces(&candidates, &served, &trajectories))?;

    // A file of the store is named by the digest of what it was made from.
    let named = |(path, _): &File| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let names = |files: &BTreeMap<String, File>| files.values().map(named).collect::<Vec<_>>();
    let rows: Vec<_> = traces.candidates.iter().map(|(name, files)| (name, names(files))).collect();
    let selected = kept.stage("select", |kept| {
        let inputs = (k, experiment.seed, &rows, names(&traces.experts));
        kept.document("selection.json", &inputs, || select(&traces.candidates, &traces.experts, k, experiment.seed))
    })?;
    kept.machine.progress.note(&format!("selected `{}` by activation overlap", selected.selection.chosen));
    let at = candidates.iter().position(|c| c.name == selected.selection.chosen).unwrap_or(0);
    let backbone = &candidates[at];

    let diagnosed = kept.stage("diagnose", |kept| {
        let mut compared = Vec::new();
        for (benchmark, expert) in &served {
            let mut dev = |model| kept.play(model, &benchmark.suites, Split::Dev, (experiment.tasks.dev, 1));
            let (ours, theirs) = (dev(backbone)?, dev(expert)?);
            compared.push(Compared { benchmark: record::benchmark(benchmark), backbone: ours, expert: theirs });
        }
        let diagnosed = diagnose(&compared, &experiment.diagnosis);
        kept.document("diagnosis.json", &diagnosed.clone(), || Ok(diagnosed))
    })?;

    let (planned, arm) = kept.stage("transplant", |kept| {
        let serving =
            served.iter().map(|(b, expert)| (b.id.clone(), ((*expert).clone(), traces.experts[&b.id].clone())));
        let (weak, protect) = (&diagnosed.diagnosis.weak, experiment.transplant.protect);
        let planned = plan(weak, (backbone, &traces.candidates[at].1), &serving.collect(), k, protect)?;
        let planned = kept.document("plan.json", &planned.clone(), || Ok(planned))?;
        let arm = kept.transplanted(&planned, backbone, &experts)?;
        Ok((planned, arm))
    })?;

    let energy =
        |(expert, member): &(Checkpoint, Member)| Ok((member.name.clone(), task_vector_energy(&base, expert)?));
    let energy = experts.iter().map(energy).collect::<Result<Vec<_>, RunError>>()?;
    let models: Vec<Member> = [vec![base_member], members.clone(), candidates.clone(), vec![arm]].concat();
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
