//! From a recipe to a checkpoint: the rest is merged first, then the maps are fitted in its place, layer by layer.

use crate::consensus::{draw_back, measure};
use crate::error::{LeastSquaresError, Result};
use crate::featcal::{FeatCal, calibrate};
use crate::fit::{Outcome, Rules, fit};
use crate::sample::{Expert, Sample};
use crate::sums::Sums;
use crate::target::{Bench, Target};
use crate::walk::{Fitting, Step};
use rolegraft_checkpoint::{Checkpoint, Digest, WriteError, check_pool, write_atomic};
use rolegraft_decoder::Site;
use rolegraft_merge::{Execution, Fit, MergeError, Part, Plan, Solution};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// What experts are calibrated on, by their names in the recipe.
pub type Sets<'s> = BTreeMap<String, Calibration<'s>>;

/// What an expert is calibrated on.
pub enum Calibration<'s> {
    /// Sets of samples.
    Samples(Vec<Vec<Sample<'s>>>),
    /// A file of what such sets come to.
    Sums(PathBuf),
}

/// How a fit is done besides.
pub struct Means<'m> {
    /// Bytes that it may use besides a layer's weights and statistics.
    pub memory: usize,
    /// Told how far the fit is.
    pub progress: &'m dyn Fn(&Step<'_>),
}

/// Executes a plan whose recipe has a [`Fit`]. Killed or stopped, the same call goes on after the last fitted layer; `out`
/// appears when it is whole.
///
/// # Errors
/// If there are no calibration sets for an expert, the pool's models differ in kind, or as [`Plan::execute`] and [`fit`].
pub fn merge(
    plan: &Plan,
    mut sets: Sets<'_>,
    out: &Path,
    execution: &Execution<'_>,
    means: &Means<'_>,
) -> Result<(rolegraft_merge::Outcome, Outcome)> {
    let none = || MergeError::Recipe("a least-squares merge needs a recipe of `regmean`".into());
    let (Some(rules), Some(anchor)) = (&plan.recipe.fit, &plan.anchor) else { return Err(none().into()) };
    refuse_what_is_there(out)?;
    let identity = identity(plan, anchor, rules, &sets, execution.seed)?;
    let checkpoints = rules.experts.iter().map(|name| {
        let model = plan.models.iter().find(|model| model.name == *name);
        Ok(Checkpoint::open(model.map_or_else(|| name.into(), |model| model.location().path()))?)
    });
    let checkpoints: Vec<Checkpoint> = checkpoints.collect::<Result<_>>()?;
    if let Some((first, others)) = checkpoints.split_first() {
        check_pool(first, &others.iter().collect::<Vec<_>>())?;
    }
    let experts = rules.experts.iter().zip(&checkpoints).map(|(name, checkpoint)| match sets.remove(name) {
        Some(Calibration::Samples(sets)) => Expert::new(name, checkpoint, sets),
        Some(Calibration::Sums(path)) => Expert::of_sums(name, checkpoint, Sums::open(&path)?),
        None => Err(LeastSquaresError::NoCalibration(name.clone())),
    });
    let experts: Vec<Expert<'_>> = experts.collect::<Result<_>>()?;
    if let Some(expert) = experts.iter().find(|e| rules.embedding.is_some() && !e.replies()) {
        return Err(LeastSquaresError::NoReplies(expert.name.clone()));
    }
    let bench = Bench::open(out)?;
    let note = bench.resume(&identity)?;
    let merged = bench.dir.join("merged");
    let rest = if merged.exists() {
        rolegraft_merge::Outcome::default()
    } else {
        let rest = match plan.execute_rest(&merged, execution) {
            Ok(rest) => rest,
            Err(error) => {
                // What a merge can go on from it keeps itself.
                bench.leave();
                return Err(error.into());
            }
        };
        bench.write(&note)?;
        rest
    };
    let fitting = Fitting { memory: means.memory, scratch: &bench.dir, stop: execution.stop, progress: means.progress };
    let hopeless = |error: &LeastSquaresError| !error.may_pass();
    if let Solution::Consensus { theta } = rules.solution {
        let base = anchor.recipe.base.and_then(|at| anchor.models.get(at)).ok_or_else(none)?;
        let drawn = bench.dir.join("drawn");
        let draw = || -> Result<()> {
            let base = base.location().path();
            let of = (&Checkpoint::open(&base)?, &Checkpoint::open(&merged)?);
            let coefficients = measure(&experts, of, theta, &fitting)?;
            draw_back((&base, &merged), &coefficients, &drawn, execution)?;
            let said = coefficients.iter().map(|(module, share)| format!("{module} {share:.3}"));
            add_to_card(
                &drawn,
                &format!("Shares of what differs from the base that are kept: {}", said.collect::<Vec<_>>().join(", ")),
            )
        };
        return match draw() {
            Ok(()) => {
                bench.publish(&drawn, out)?;
                Ok((rest, Outcome::default()))
            }
            Err(error) => {
                if hopeless(&error) {
                    bench.remove();
                }
                Err(error)
            }
        };
    }
    let fitted = anchor.evaluate(execution, |anchor| -> Result<Outcome> {
        let mut target = Target { merged: Checkpoint::open(&merged)?, anchor, bench: &bench, note };
        let Fit { ridge, off_diagonal, energy, sequential, embedding, only, solution, .. } = *rules;
        let essential = match solution {
            Solution::FeatCal { blend, teacher } => {
                return calibrate(&experts, &FeatCal { ridge, blend, teacher }, &mut target, &fitting);
            }
            Solution::EssentialSubspace { scale } => Some(scale),
            Solution::LeastSquares | Solution::Consensus { .. } => None,
        };
        let sites: &[Site] = match only {
            None => &Site::ALL,
            Some(Part::Attention) => &[Site::Attention, Site::Output],
            Some(Part::Mlp) => &[Site::Mlp, Site::Down],
        };
        let of = Rules { ridge, off_diagonal, energy, sequential, embedding, sites, essential };
        fit(&experts, &of, &mut target, &fitting)
    });
    let fitted = match fitted {
        Ok(fitted) => fitted,
        Err(error) => {
            if hopeless(&error) {
                bench.remove();
            }
            return Err(error);
        }
    };
    if !fitted.singular.is_empty() {
        let said = format!(
            "{} maps have singular equations; what their inputs do not span is the anchor's: {}",
            fitted.singular.len(),
            fitted.singular.join(", ")
        );
        add_to_card(&merged, &said)?;
    }
    bench.publish(&merged, out)?;
    Ok((rest, fitted))
}

/// A paragraph more in a model card.
fn add_to_card(dir: &Path, said: &str) -> Result<()> {
    let card = dir.join("README.md");
    let text = std::fs::read_to_string(&card).unwrap_or_default();
    Ok(write_atomic(&card, format!("{text}\n{said}\n").as_bytes())?)
}

/// What weights of the same digest come from.
fn identity(plan: &Plan, anchor: &Plan, fit: &Fit, sets: &Sets<'_>, seed: u64) -> Result<Digest> {
    let Fit { ridge, off_diagonal, energy, sequential, embedding, only, solution, .. } = fit;
    let mut parts = vec![
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("rest", plan.digest(seed)?.to_string()),
        ("anchor", anchor.digest(seed)?.to_string()),
        ("fit", format!("{ridge:?} {off_diagonal:?} {energy:?} {sequential} {embedding:?} {only:?} {solution:?}")),
    ];
    for (expert, calibration) in sets {
        let sets = match calibration {
            Calibration::Samples(sets) => sets.as_slice(),
            Calibration::Sums(path) => {
                let digest = Digest::of_file(path).map_err(WriteError::at(path))?;
                parts.push(("sums", format!("{expert} {digest}")));
                &[]
            }
        };
        for (at, set) in sets.iter().enumerate() {
            let samples = set.iter().map(|sample| {
                let ids = sample.ids.iter().flat_map(|id| id.to_le_bytes());
                let weights = sample.weights.iter().flat_map(|weight| weight.to_le_bytes());
                let predicts = sample.predicts.iter().flat_map(|position| position.to_le_bytes());
                let bytes: Vec<u8> = ids.chain(weights).chain(predicts).collect();
                Digest::of(&bytes).to_string()
            });
            parts.push(("set", format!("{expert} {at} {}", samples.collect::<Vec<_>>().join(" "))));
        }
    }
    Ok(Digest::of_parts(parts.iter().map(|(name, text)| (*name, text.as_bytes()))))
}

fn refuse_what_is_there(out: &Path) -> Result<()> {
    let full = std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some()) || out.is_file();
    let why = "it is there already and not empty; remove it, or give another place";
    if full { Err(WriteError::at(out)(io::Error::new(io::ErrorKind::AlreadyExists, why)).into()) } else { Ok(()) }
}
