//! The loop up to the repaired checkpoint, which a run and its ablations share.

use crate::error::RunError;
use crate::experiment::{BenchmarkEntry, CandidateEntry, GraftBy, GraftOf, SelectBy, Source, Tokens};
use crate::kept::{Kept, Traces, Trajectories, served};
use crate::machine::Member;
use crate::projected::projected;
use crate::record;
use crate::stages::calibrate::digest_with;
use crate::stages::diagnose::{Compared, Diagnosed, diagnose};
use crate::stages::select::{File, Selected, select};
use crate::stages::transplant::{Planned, plan};
use rolegraft_checkpoint::{Checkpoint, check_pool};
use rolegraft_merge::end_of_turn;
use rolegraft_report::ModelScores;
use rolegraft_suites::Split;
use rolegraft_trajectory::Episode;
use std::collections::BTreeMap;

/// The checkpoints of an experiment, its candidates merged, and the trajectories that they are traced on.
pub(crate) struct Pool {
    pub(crate) base: (Checkpoint, Member),
    pub(crate) experts: Vec<(Checkpoint, Member)>,
    pub(crate) members: Vec<Member>,
    pub(crate) candidates: Vec<Member>,
    pub(crate) trajectories: Trajectories,
}

/// Opens the checkpoints, merges the candidates, plays the trajectories, and fits those candidates that are fitted to them.
pub(crate) fn pool(kept: &mut Kept<'_>) -> Result<Pool, RunError> {
    let experiment = kept.experiment;
    if experiment.candidate.is_empty() {
        return Err(RunError::NoCandidates);
    }
    let open = |role, name: &str, source: &Source| match source {
        Source::Checkpoint(dir) => Member::open(role, name, dir),
        Source::Endpoint(address) => Err(RunError::Served { name: name.to_owned(), address: address.clone() }),
    };
    let (base, base_member) = open("base", "base", &experiment.pool.base)?;
    let experts = experiment.pool.experts.iter().map(|(name, source)| open("expert", name, source));
    let experts: Vec<(Checkpoint, Member)> = experts.collect::<Result<_, _>>()?;
    check_pool(&base, &experts.iter().map(|(checkpoint, _)| checkpoint).collect::<Vec<_>>())?;
    let ends = |checkpoint: &Checkpoint| end_of_turn(checkpoint.dir(), checkpoint.config().json());
    for (expert, member) in &experts {
        let lost: Vec<u64> = ends(expert).difference(&ends(&base)).copied().collect();
        if !lost.is_empty() {
            return Err(RunError::EndOfTurn { expert: member.name.clone(), ids: lost });
        }
    }
    let members: Vec<Member> = experts.iter().map(|(_, member)| member.clone()).collect();
    // Merged models have the base's template or an expert's.
    kept.check_templates(std::iter::once(&base_member).chain(&members))?;

    // Data-free merges come first: what is wrong with a checkpoint is known before anything is played.
    let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    let fits = |entry: &&CandidateEntry| entry.recipe("base", &names).is_ok_and(|recipe| recipe.fit.is_some());
    let (fitted, plain): (Vec<&CandidateEntry>, Vec<_>) = experiment.candidate.iter().partition(fits);
    let mut candidates = kept.stage("merge", |kept| kept.merges(&plain, &base_member, &members, None))?;
    let trajectories = kept.stage("calibrate", |kept| {
        let mut all = BTreeMap::new();
        for (benchmark, expert) in served(experiment, &members) {
            let episodes = kept.trajectories(&benchmark.suites, expert)?;
            let said = digest_with(&episodes, None);
            all.insert(benchmark.id.clone(), (episodes, said));
        }
        Ok(all)
    })?;
    if !fitted.is_empty() {
        let merges = |kept: &mut Kept<'_>| kept.merges(&fitted, &base_member, &members, Some(&trajectories));
        candidates.extend(kept.stage("fit", merges)?);
        let place = |member: &Member| experiment.candidate.iter().position(|entry| entry.name == member.name);
        candidates.sort_by_key(place);
    }
    Ok(Pool { base: (base, base_member), experts, members, candidates, trajectories })
}

/// What the loop decides, and the checkpoint that comes of it.
pub(crate) struct Repaired {
    pub(crate) traces: Traces,
    pub(crate) selected: Selected,
    pub(crate) backbone: Member,
    pub(crate) diagnosed: Diagnosed,
    pub(crate) planned: Planned,
    pub(crate) arm: Member,
}

impl Repaired {
    /// The backbone's traces, by benchmark.
    pub(crate) fn own(&self) -> BTreeMap<String, File> {
        let own = self.traces.candidates.iter().find(|(name, _)| *name == self.backbone.name);
        own.map(|(_, files)| files.clone()).unwrap_or_default()
    }
}

/// Traces, selects, diagnoses and transplants, by the neurons at some tokens.
pub(crate) fn repair(kept: &mut Kept<'_>, pool: &Pool, tokens: Tokens) -> Result<Repaired, RunError> {
    let experiment = kept.experiment;
    let served = served(experiment, &pool.members);
    let k = experiment.saliency.k;
    let traces = kept.stage("trace", |kept| kept.traces(&pool.candidates, &served, &pool.trajectories, tokens))?;

    // A file of the store is named by the digest of what it was made from.
    let named = |(path, _): &File| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let names = |files: &BTreeMap<String, File>| files.values().map(named).collect::<Vec<_>>();
    let rows: Vec<_> = traces.candidates.iter().map(|(name, files)| (name, names(files))).collect();
    let selected = kept.stage("select", |kept| {
        let inputs = (k, experiment.seed, &rows, names(&traces.experts));
        let by_overlap = || select(&traces.candidates, &traces.experts, k, experiment.seed);
        if experiment.selection.by == SelectBy::Aos {
            return kept.document("selection.json", &inputs, by_overlap);
        }
        // What overlap says is kept apart; scores make another document of it.
        let overlap = kept.document("selection-aos.json", &inputs, by_overlap)?;
        let selected = overlap.by_dev(dev_scores(kept, &pool.candidates, &served)?);
        kept.document("selection.json", &selected.clone(), || Ok(selected))
    })?;
    let by = match experiment.selection.by {
        SelectBy::Aos => "activation overlap",
        SelectBy::Dev => "scores on dev tasks",
    };
    kept.machine.progress.note(&format!("selected `{}` by {by}", selected.selection.chosen));
    let at = pool.candidates.iter().position(|c| c.name == selected.selection.chosen).unwrap_or(0);
    let backbone = &pool.candidates[at];

    let diagnosed = kept.stage("diagnose", |kept| {
        let mut dev = |model: &Member| {
            let plays = |suite: &String| {
                let mut of = served.iter().filter(|(benchmark, _)| benchmark.suites.contains(suite));
                of.any(|(_, expert)| model == backbone || model == *expert)
            };
            // Each model is loaded once for all that it plays.
            let suites: Vec<String> = experiment.suite_names().into_iter().filter(plays).collect();
            kept.play(model, &suites, Split::Dev)
        };
        let (ours, mut theirs) = (dev(backbone)?, BTreeMap::new());
        for (_, expert) in &served {
            if !theirs.contains_key(&expert.name) {
                theirs.insert(expert.name.clone(), dev(expert)?);
            }
        }
        let of = |episodes: &[Episode], benchmark: &BenchmarkEntry| -> Vec<Episode> {
            episodes.iter().filter(|episode| benchmark.suites.contains(&episode.key.suite)).cloned().collect()
        };
        let compared = |(benchmark, expert): &(&BenchmarkEntry, &Member)| Compared {
            benchmark: record::benchmark(benchmark),
            backbone: of(&ours, benchmark),
            expert: of(&theirs[&expert.name], benchmark),
        };
        let compared: Vec<Compared> = served.iter().map(compared).collect();
        let diagnosed = diagnose(&compared, &experiment.diagnosis);
        kept.document("diagnosis.json", &diagnosed.clone(), || Ok(diagnosed))
    })?;

    let (planned, arm) = kept.stage("transplant", |kept| {
        let (weak, protect) = (&diagnosed.diagnosis.weak, experiment.transplant.protect);
        let mut serving = serving(&served, &traces);
        if experiment.transplant.saliency == GraftBy::Change {
            for (benchmark, (donor, file)) in serving.iter_mut().filter(|(id, _)| weak.iter().any(|(w, _)| w == *id)) {
                let (episodes, said) = &pool.trajectories[benchmark];
                *file = kept.change((donor, backbone), benchmark, (episodes, said), tokens)?;
            }
        }
        let planned = plan(weak, (backbone, &traces.candidates[at].1), &serving, k, protect)?;
        let planned = kept.document("plan.json", &planned.clone(), || Ok(planned))?;
        let rules = experiment.transplant;
        let arm = match rules.graft {
            GraftOf::Projected if !weak.is_empty() => {
                projected(kept, weak, backbone, &served, &pool.trajectories, rules)?
            }
            _ => kept.transplanted(&planned, backbone, &pool.experts)?,
        };
        Ok((planned, arm))
    })?;
    Ok(Repaired { traces, selected, backbone: backbone.clone(), diagnosed, planned, arm })
}

/// Scores of candidates on the dev tasks of served benchmarks, in the order of their ids.
fn dev_scores(
    kept: &mut Kept<'_>,
    candidates: &[Member],
    served: &[(&BenchmarkEntry, &Member)],
) -> Result<Vec<Vec<f64>>, RunError> {
    let mut benchmarks: Vec<&BenchmarkEntry> = served.iter().map(|(benchmark, _)| *benchmark).collect();
    benchmarks.sort_by(|a, b| a.id.cmp(&b.id));
    let plays = |suite: &String| benchmarks.iter().any(|benchmark| benchmark.suites.contains(suite));
    let suites: Vec<String> = kept.experiment.suite_names().into_iter().filter(plays).collect();
    let mut all = Vec::new();
    for candidate in candidates {
        let scores = ModelScores::new("", &kept.play(candidate, &suites, Split::Dev)?);
        let score = |entry: &&BenchmarkEntry| {
            let mut benchmark = record::benchmark(entry);
            benchmark.suites.retain(|suite| kept.experiment.tasks.of(suite, Split::Dev).tasks > 0);
            scores.score(&benchmark).unwrap_or(0.0)
        };
        all.push(benchmarks.iter().map(score).collect());
    }
    Ok(all)
}

/// Who serves a benchmark, with its trace.
pub(crate) fn serving(served: &[(&BenchmarkEntry, &Member)], traces: &Traces) -> BTreeMap<String, (Member, File)> {
    let one =
        |(b, expert): &(&BenchmarkEntry, &Member)| (b.id.clone(), ((*expert).clone(), traces.experts[&b.id].clone()));
    served.iter().map(one).collect()
}
