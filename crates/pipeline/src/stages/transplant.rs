//! Neurons that bring back what was lost: which, and the checkpoint that has them.

use crate::artefact::Document;
use crate::error::RunError;
use crate::machine::Member;
use crate::stages::merge::SHARD;
use crate::stages::select::File;
use rolegraft_checkpoint::Checkpoint;
use rolegraft_graft::{Plan, Protect, plan as decide};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// A plan, with what it was made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// Digest of the checkpoint that is repaired.
    pub backbone: String,
    /// Digests of the checkpoints that give, by name.
    pub donors: BTreeMap<String, String>,
    /// Share of a layer's neurons that are salient.
    pub k: f64,
    /// Whose neurons are left alone.
    pub protect: Protect,
    /// What is taken from whom.
    pub plan: Plan,
}

impl Document for Planned {
    const KIND: &'static str = "plan";
}

/// Plans the repair of `weak` benchmarks, largest gap first. `backbone` holds its traces by benchmark; `experts` the
/// checkpoint that serves a benchmark, and its trace.
///
/// # Errors
/// If a trace is missing, or is not of the checkpoint that it stands for.
pub fn plan(
    weak: &[(String, f64)],
    (backbone, traces): (&Member, &BTreeMap<String, File>),
    experts: &BTreeMap<String, (Member, File)>,
    k: f64,
    protect: Protect,
) -> Result<Planned, RunError> {
    for (benchmark, _) in weak {
        if !experts.contains_key(benchmark) {
            return Err(RunError::NoDonor { benchmark: benchmark.clone() });
        }
    }
    for (benchmark, (donor, (path, traced))) in experts {
        of_model(path, traced, donor)?;
        let (own_path, own) = traces
            .get(benchmark)
            .ok_or_else(|| RunError::NoTrace { model: backbone.name.clone(), benchmark: benchmark.clone() })?;
        of_model(own_path, own, backbone)?;
        own.goes_with(own_path, traced, path)?;
        own.is_of_activations(own_path)?;
        if let Some(other) = &traced.against
            && *other != backbone.digest.as_str()
        {
            return Err(of_another(path, "against", other, backbone));
        }
    }
    let own = traces.iter().map(|(benchmark, (_, t))| (benchmark.clone(), t.saliency.top(k))).collect();
    let sets = experts
        .iter()
        .map(|(benchmark, (donor, (_, t)))| (benchmark.clone(), (donor.name.clone(), t.saliency.top(k))))
        .collect();
    Ok(Planned {
        backbone: backbone.digest.to_string(),
        donors: experts.values().map(|(donor, _)| (donor.name.clone(), donor.digest.to_string())).collect(),
        k,
        protect,
        plan: decide(weak, &own, &sets, protect),
    })
}

fn of_model(path: &Path, traced: &crate::artefact::Traced, member: &Member) -> Result<(), RunError> {
    if traced.model == member.digest.as_str() {
        return Ok(());
    }
    Err(of_another(path, "model", &traced.model, member))
}

fn of_another(path: &Path, field: &'static str, found: &str, member: &Member) -> RunError {
    crate::artefact::ArtefactError::Mismatch {
        path: path.to_owned(),
        field,
        found: format!("`{found}`"),
        expected: format!("`{}`", member.digest),
        other: format!("checkpoint `{}`", member.dir.display()),
        mend: "trace this checkpoint",
    }
    .into()
}

/// Writes the repaired checkpoint.
///
/// # Errors
/// If a donor is missing or does not fit, or the disk refuses.
pub fn apply(
    planned: &Planned,
    backbone: &Checkpoint,
    donors: &BTreeMap<String, &Checkpoint>,
    out: &Path,
) -> Result<(), RunError> {
    Ok(planned.plan.apply(backbone, donors, out, SHARD, &card(planned))?)
}

/// The model card of a repaired checkpoint.
fn card(planned: &Planned) -> String {
    let mut card = format!(
        "---\nlibrary_name: transformers\ntags:\n- merge\n- rolegraft\n---\n# Agent-role merge\n\nAgent-role merging (arXiv \
         2601.07309) by rolegraft: the backbone `sha256:{}`, with neurons transplanted from experts.\n\n",
        planned.backbone
    );
    for graft in &planned.plan.grafts {
        let digest = planned.donors.get(&graft.donor).map(String::as_str).unwrap_or_default();
        card += &format!(
            "- `{}`: {} neurons from `{}` (`sha256:{digest}`)\n",
            graft.benchmark,
            graft.neurons.len(),
            graft.donor
        );
    }
    if planned.plan.grafts.is_empty() {
        card += "No benchmark was weak, so nothing was transplanted.\n";
    }
    card
}
