//! What can be asked of traces alone: figure 4, a pool of one expert, and how much selection hangs on spans and trajectories.

use crate::ablate::values::{Changed, OneExpert, Overlap};
use crate::error::RunError;
use crate::experiment::{BenchmarkEntry, Tokens};
use crate::kept::Kept;
use crate::machine::Member;
use crate::record::benchmark;
use crate::repair::Pool;
use crate::stages::diagnose::{Compared, diagnose};
use crate::stages::select::{File, select, table};
use crate::stages::trace::Reading;
use crate::stages::transplant::plan;
use rolegraft_graft::Selection;
use rolegraft_report::{correlation, ranks};
use rolegraft_saliency::{NeuronSet, aos, union_overlap};
use rolegraft_suites::Split;
use std::collections::BTreeMap;

type Served<'s> = [(&'s BenchmarkEntry, &'s Member)];

/// The serving experts' saliencies of one reading, by benchmark.
fn of_experts(
    kept: &mut Kept<'_>,
    pool: &Pool,
    served: &Served<'_>,
    reading: Reading,
) -> Result<BTreeMap<String, File>, RunError> {
    let models: Vec<_> = served.iter().map(|(benchmark, expert)| (*expert, *benchmark)).collect();
    let files = kept.read(&models, &pool.trajectories, &[reading], |_, _, _| ())?;
    Ok(served.iter().map(|(b, _)| b.id.clone()).zip(files.into_iter().flatten()).collect())
}

/// How much the experts' sets share, layer by layer.
pub(crate) fn overlap(
    kept: &mut Kept<'_>,
    pool: &Pool,
    served: &Served<'_>,
    tokens: Tokens,
) -> Result<Overlap, RunError> {
    let k = kept.experiment.saliency.k;
    let files = of_experts(kept, pool, served, Reading::whole(tokens))?;
    let sets: Vec<(String, NeuronSet)> =
        files.into_iter().map(|(b, (_, traced))| (b, traced.saliency.top(k))).collect();
    let layers = sets.first().map_or(0, |(_, set)| set.layers.len());
    let layer = |set: &NeuronSet, at: usize| NeuronSet { layers: set.layers.get(at).cloned().into_iter().collect() };
    let union = |at: usize| union_overlap(&sets.iter().map(|(_, set)| layer(set, at)).collect::<Vec<_>>());
    let mut of_pairs = Vec::new();
    for (i, (a, ours)) in sets.iter().enumerate() {
        for (b, theirs) in &sets[i + 1..] {
            let shared = (0..layers).map(|at| aos(&layer(ours, at), &layer(theirs, at))).collect();
            of_pairs.push((a.clone(), b.clone(), shared));
        }
    }
    Ok(Overlap { tokens, union: (0..layers).map(union).collect(), pairs: of_pairs })
}

/// The loop on each expert as a pool of its own.
pub(crate) fn one_expert(kept: &mut Kept<'_>, pool: &Pool, served: &Served<'_>) -> Result<Vec<OneExpert>, RunError> {
    let experiment = kept.experiment;
    let (k, seed) = (experiment.saliency.k, experiment.seed);
    let files = of_experts(kept, pool, served, Reading::whole(experiment.saliency.tokens))?;
    let mut found = Vec::new();
    for expert in &pool.members {
        let own: Vec<&BenchmarkEntry> =
            served.iter().filter(|(_, serving)| serving.name == expert.name).map(|(b, _)| *b).collect();
        if own.is_empty() {
            continue;
        }
        let traces: BTreeMap<String, File> = own.iter().map(|b| (b.id.clone(), files[&b.id].clone())).collect();
        let selected = select(&[(expert.name.clone(), traces.clone())], &traces, k, seed)?;
        let mut compared = Vec::new();
        for entry in own {
            let episodes = kept.play(expert, &entry.suites, Split::Dev)?;
            compared.push(Compared { benchmark: benchmark(entry), backbone: episodes.clone(), expert: episodes });
        }
        let weak = diagnose(&compared, &experiment.diagnosis).diagnosis.weak;
        let serving = traces.iter().map(|(b, file)| (b.clone(), (expert.clone(), file.clone()))).collect();
        let planned = plan(&weak, (expert, &traces), &serving, k, experiment.transplant.protect)?;
        found.push(OneExpert {
            expert: expert.name.clone(),
            aos: selected.selection.rows.first().map_or(0.0, |(.., mean)| *mean),
            weak: weak.len(),
            neurons: planned.plan.neurons(),
        });
    }
    Ok(found)
}

/// Selection with role spans moved.
pub(crate) fn jitter(
    kept: &mut Kept<'_>,
    pool: &Pool,
    served: &Served<'_>,
    offsets: &[i32],
) -> Result<Vec<(i32, Changed)>, RunError> {
    let unmoved = selection(kept, pool, served, Reading::jitter(0))?;
    let mut moved = |by| Ok((by, changed(&unmoved, &selection(kept, pool, served, Reading::jitter(by))?)));
    offsets.iter().map(|by| moved(*by)).collect()
}

/// Selection by shares of the trajectories, each drawn by a seed.
pub(crate) fn calibration(
    kept: &mut Kept<'_>,
    pool: &Pool,
    served: &Served<'_>,
    shares: impl Iterator<Item = (f64, u64)>,
) -> Result<Vec<(f64, u64, Changed)>, RunError> {
    let tokens = kept.experiment.saliency.tokens;
    let whole = selection(kept, pool, served, Reading::whole(tokens))?;
    let mut drawn = |(share, seed)| {
        let drawn = selection(kept, pool, served, Reading::share(tokens, share, seed))?;
        Ok((share, seed, changed(&whole, &drawn)))
    };
    shares.map(&mut drawn).collect()
}

/// The AOS table, with the experts' sets.
type Sets = (Selection, BTreeMap<String, NeuronSet>);

/// What selection makes of one reading.
fn selection(kept: &mut Kept<'_>, pool: &Pool, served: &Served<'_>, reading: Reading) -> Result<Sets, RunError> {
    let k = kept.experiment.saliency.k;
    let experts = of_experts(kept, pool, served, reading)?;
    let candidates = kept.of_candidates(&pool.candidates, served, &pool.trajectories, reading, |_, _, _| ())?;
    let sets = experts.iter().map(|(b, (_, traced))| (b.clone(), traced.saliency.top(k))).collect();
    Ok((table(&candidates, &experts, &|saliency| saliency.top(k)), sets))
}

/// What a reading changes in the selection by another.
fn changed((unchanged, unchanged_sets): &Sets, (selection, sets): &Sets) -> Changed {
    let means = |s: &Selection| s.rows.iter().map(|(.., mean)| *mean).collect::<Vec<f64>>();
    let shared: Vec<f64> = sets.iter().filter_map(|(b, set)| Some(aos(set, unchanged_sets.get(b)?))).collect();
    Changed {
        backbone: selection.chosen.clone(),
        rank: correlation(&ranks(&means(unchanged)), &ranks(&means(selection))),
        aos: means(selection),
        sets: shared.iter().sum::<f64>() / shared.len().max(1) as f64,
    }
}
