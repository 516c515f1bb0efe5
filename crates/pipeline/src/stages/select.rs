//! Which merge kept most of the experts' salient neurons.

use crate::artefact::{Document, Traced};
use crate::error::RunError;
use rayon::prelude::*;
use rolegraft_graft::{Candidate, Selection, select as choose};
use rolegraft_saliency::{NeuronSet, Saliency, TENTHS};
use rolegraft_trajectory::{Key, Seed};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Samples that intervals are drawn from.
const SAMPLES: u64 = 200;
/// The share of samples that an interval leaves out at each end.
const TAIL: f64 = 0.025;

/// The AOS table with what it was made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Selected {
    /// Share of a layer's neurons that are salient.
    pub k: f64,
    /// The table and its winner.
    pub selection: Selection,
    /// Per candidate, the 95 % interval of its mean over trajectories; none where traces do not hold tenths.
    pub intervals: Vec<Option<(f64, f64)>>,
    /// Digests of the checkpoints that serve the benchmarks.
    pub experts: BTreeMap<String, String>,
    /// Digests of the candidates.
    pub candidates: BTreeMap<String, String>,
    /// Per candidate, its scores on dev tasks in the order of the benchmarks, and their mean, where these decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dev: Option<Vec<(Vec<f64>, f64)>>,
}

impl Selected {
    /// Lets scores on dev tasks decide, in the order of candidates and benchmarks. Ties go to the earlier.
    pub(crate) fn by_dev(mut self, scores: Vec<Vec<f64>>) -> Self {
        let mean = |scores: &Vec<f64>| scores.iter().sum::<f64>() / scores.len().max(1) as f64;
        let rows: Vec<(Vec<f64>, f64)> = scores.into_iter().map(|row| (row.clone(), mean(&row))).collect();
        let best = rows.iter().enumerate().reduce(|a, b| if b.1.1 > a.1.1 { b } else { a });
        if let Some((name, ..)) = best.and_then(|(at, _)| self.selection.rows.get(at)) {
            self.selection.chosen.clone_from(name);
        }
        self.dev = Some(rows);
        self
    }
}

impl Document for Selected {
    const KIND: &'static str = "selection";
}

/// A trace and the file that it came from.
pub type File = (PathBuf, Traced);

/// Chooses among candidates by the overlap of their salient sets with the experts'; both by benchmark.
///
/// # Errors
/// If traces do not go together, or a candidate misses one.
pub fn select(
    candidates: &[(String, BTreeMap<String, File>)],
    experts: &BTreeMap<String, File>,
    k: f64,
    seed: u64,
) -> Result<Selected, RunError> {
    for (name, traces) in candidates {
        for (benchmark, (path, expert)) in experts {
            let Some((own_path, own)) = traces.get(benchmark) else {
                return Err(RunError::NoTrace { model: name.clone(), benchmark: benchmark.clone() });
            };
            own.goes_with(own_path, expert, path)?;
            own.is_of_activations(own_path)?;
            expert.is_of_activations(path)?;
        }
    }
    let drawn: Option<Vec<Vec<f64>>> = (0..SAMPLES)
        .into_par_iter()
        .map(|sample| {
            let mut draws = Key::new(Seed(seed)).child("selection").index(sample).rng();
            let picks: Vec<usize> = (0..TENTHS).map(|_| draws.below(TENTHS)).collect();
            let whole = std::iter::once(experts).chain(candidates.iter().map(|(_, traces)| traces));
            let known = whole.flat_map(BTreeMap::values).all(|(_, t)| t.saliency.tenths.len() == TENTHS);
            let resampled = |s: &Saliency| s.resampled(&picks).map(|s| s.top(k)).unwrap_or_default();
            known.then(|| table(candidates, experts, &resampled).rows.into_iter().map(|(.., mean)| mean).collect())
        })
        .collect();
    let interval = |at: usize| {
        let mut means: Vec<f64> = drawn.as_ref()?.iter().filter_map(|means| means.get(at).copied()).collect();
        means.sort_by(f64::total_cmp);
        let quantile = |q: f64| means.get((q * (means.len() - 1) as f64).round() as usize).copied();
        Some((quantile(TAIL)?, quantile(1.0 - TAIL)?))
    };
    let digest =
        |traces: &BTreeMap<String, File>| traces.values().next().map(|(_, t)| t.model.clone()).unwrap_or_default();
    Ok(Selected {
        k,
        selection: table(candidates, experts, &|saliency| saliency.top(k)),
        intervals: (0..candidates.len()).map(interval).collect(),
        experts: experts.iter().map(|(benchmark, (_, t))| (benchmark.clone(), t.model.clone())).collect(),
        candidates: candidates.iter().map(|(name, traces)| (name.clone(), digest(traces))).collect(),
        dev: None,
    })
}

/// The AOS table of the sets that `of` makes of saliencies.
pub(crate) fn table(
    candidates: &[(String, BTreeMap<String, File>)],
    experts: &BTreeMap<String, File>,
    of: &dyn Fn(&Saliency) -> NeuronSet,
) -> Selection {
    let sets = |traces: &BTreeMap<String, File>| -> BTreeMap<String, NeuronSet> {
        let kept = traces.iter().filter(|(benchmark, _)| experts.contains_key(*benchmark));
        kept.map(|(benchmark, (_, traced))| (benchmark.clone(), of(&traced.saliency))).collect()
    };
    let candidates: Vec<Candidate> =
        candidates.iter().map(|(name, traces)| Candidate { name: name.clone(), sets: sets(traces) }).collect();
    choose(&candidates, &sets(experts))
}
