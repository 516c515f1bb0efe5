//! A graft that carries a donor's whole change, but for what would show where other benchmarks' roles are played.
//!
//! W = W_M + δ (I − X_Pᵀ(X_P X_Pᵀ + λI)⁻¹X_P), δ = W_donor − W_M, X_P the backbone's inputs at protected roles (after arXiv 2602.22538;
//! K1nght/RAIN-Merging@05003cc). That is the least-squares fit to the backbone on these inputs, pulled to the donor: `regmean` of the backbone
//! alone with the donor for an anchor. Inputs that span a layer's width would leave nothing of the change, so only the directions that
//! hold most of their energy are protected.

use crate::error::RunError;
use crate::experiment::{BenchmarkEntry, TransplantRules};
use crate::kept::{Kept, Trajectories};
use crate::machine::Member;
use crate::stages::fit::{CalibrationOf, fit};
use crate::stages::merge::{SHARD, plan_of};
use rolegraft_checkpoint::{Architecture, Checkpoint, Map};
use rolegraft_decoder::DecoderError;
use rolegraft_graft::Protect;
use rolegraft_merge::{Execution, MergeError, Recipe};
use serde_json::json;
use std::path::Path;

/// Grafts for weak benchmarks, the largest gap last, so that it wins.
pub(crate) fn projected(
    kept: &mut Kept<'_>,
    weak: &[(String, f64)],
    backbone: &Member,
    served: &[(&BenchmarkEntry, &Member)],
    trajectories: &Trajectories,
    rules: TransplantRules,
) -> Result<Member, RunError> {
    let mut current = backbone.clone();
    for (benchmark, _) in weak.iter().rev() {
        let donor = served.iter().find(|(entry, _)| entry.id == *benchmark).map(|(_, donor)| *donor);
        let donor = donor.ok_or_else(|| RunError::NoDonor { benchmark: benchmark.clone() })?;
        let protected = |(entry, expert): &&(&BenchmarkEntry, &Member)| match rules.protect {
            Protect::Strict => entry.id != *benchmark,
            Protect::OtherDonors => expert.name != donor.name,
            Protect::None => false,
        };
        let (mut sets, mut digests) = (CalibrationOf::new(), Vec::new());
        for (entry, _) in served.iter().filter(protected) {
            let (episodes, said) = &trajectories[&entry.id];
            digests.push((&entry.id, said));
            let set = kept.calibration(&current, &entry.id, (episodes, said))?;
            sets.entry("backbone".to_owned()).or_default().sets.push(set);
        }
        let dir = kept.store.place("arm", &("projected", &current.digest, &donor.digest, &digests, rules));
        if !dir.exists() {
            let mut parameters = json!({"ridge": rules.ridge, "energy": rules.energy, "anchor": "base", "weights": {"reply": 0, "context": 0}});
            if rules.embedding {
                parameters["embedding"] = json!(1.0);
            }
            if !rules.attention {
                parameters["only"] = json!("mlp");
            }
            let recipe = json!({
                "merge_method": "regmean", "base_model": "donor", "models": [{"model": "backbone"}], "parameters": parameters,
            });
            let recipe = Recipe::parse(&recipe.to_string(), Path::new("graft.yaml")).map_err(MergeError::Recipe)?;
            let plan = plan_of(recipe, &[("backbone", &current.dir), ("donor", &donor.dir)])?;
            let machine = kept.machine;
            let execution = Execution { shard_size: SHARD, stop: &machine.stop, ..Execution::default() };
            fit(&plan, &sets, &dir, &execution, machine.compute.budget(), machine.progress)?;
        }
        let (result, member) = Member::open("result", "arm", &dir)?;
        let maps: &[Map] = if rules.attention { &Map::ALL } else { &[Map::Gate, Map::Up, Map::Down] };
        let share = survival(maps, &result, &Checkpoint::open(&current.dir)?, &Checkpoint::open(&donor.dir)?)?;
        kept.machine.progress.note(&format!(
            "{benchmark}: {:.1} % of what `{}` changed survives protection",
            100.0 * share,
            donor.name
        ));
        current = member;
    }
    Ok(current)
}

/// ‖W − W_M‖ / ‖W_donor − W_M‖ over these maps of the decoder layers.
fn survival(maps: &[Map], result: &Checkpoint, backbone: &Checkpoint, donor: &Checkpoint) -> Result<f64, RunError> {
    let architecture = Architecture::of(backbone).map_err(DecoderError::from)?;
    let (mut kept, mut whole) = (0.0, 0.0);
    for layer in 0..architecture.num_hidden_layers {
        for map in maps {
            let tensor = Architecture::in_layer(layer, &format!("{}.weight", map.module()));
            let (ours, before, theirs) = (result.f32(&tensor)?, backbone.f32(&tensor)?, donor.f32(&tensor)?);
            for ((ours, before), theirs) in ours.iter().zip(&before).zip(&theirs) {
                kept += f64::from(ours - before).powi(2);
                whole += f64::from(theirs - before).powi(2);
            }
        }
    }
    Ok(if whole > 0.0 { (kept / whole).sqrt() } else { 1.0 })
}
