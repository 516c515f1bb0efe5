//! The layers one after another: statistics, equations, on to the next.

use crate::error::{LeastSquaresError, Result};
use crate::essential::{Changes, Part, join};
use crate::gram::Gram;
use crate::sample::{Expert, need_tokens};
use crate::solve::{Solved, add_product, solve};
use crate::target::{Target, weight, weight_of};
use crate::vocabulary::Vocabulary;
use crate::walk::{Fitting, Walk};
use rolegraft_checkpoint::{Architecture, Map};
use rolegraft_decoder::{DecoderError, Site};

/// What is fitted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// λ: how strongly a map is pulled to the anchor, as a share of the mean square of its inputs.
    pub ridge: f64,
    /// What entries off the diagonal of each Gram matrix are multiplied by.
    pub off_diagonal: f64,
    /// The share of each expert's energy that counts, by the largest eigenvalues.
    pub energy: f64,
    /// μ: fits the vocabulary's tensors, too, with lookups of this weight beside the head.
    pub embedding: Option<f64>,
    /// Which maps.
    pub sites: &'static [Site],
    /// Whether a layer's inputs are what the merged layers before make of an expert's tokens (RegMean++), instead of the
    /// expert's own.
    pub sequential: bool,
    /// α of an essential subspace, which is made of the same sums instead of a least-squares fit.
    pub essential: Option<f64>,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Maps whose equations are singular: solved by eigenvalues, with the anchor where the inputs say nothing.
    pub singular: Vec<String>,
    /// Whether the states lay in a scratch file.
    pub spilled: bool,
}

/// Fits every linear map of the decoder layers:
///
/// Wᵀ = (Σ Gᵢ + R)⁻¹ (Σ Gᵢ Wᵢᵀ + R Aᵀ), Gᵢ = Σ w x xᵀ, R = λ · mean(diag Σ Gᵢ) · I
///
/// # Errors
/// If a checkpoint cannot be run or has other shapes, the memory does not do, the target refuses, or it is stopped.
pub fn fit(experts: &[Expert<'_>], rules: &Rules, target: &mut Target<'_>, fitting: &Fitting<'_>) -> Result<Outcome> {
    let architecture = Architecture::of(&target.merged).map_err(DecoderError::from)?;
    if rules.sequential {
        need_tokens(experts)?;
    }
    let mut walk = Walk::new(experts, &architecture, rules.sequential.then_some(&target.merged), fitting)?;
    let mut statistics =
        (target.note.layers < architecture.num_hidden_layers).then(|| Statistics::new(&architecture, rules));
    let changes = match rules.essential {
        None => None,
        Some(_) => {
            let maps = rules.sites.iter().flat_map(|site| site.maps()).copied().collect();
            Some(Changes::open(target, &architecture, maps)?)
        }
    };
    let work = Work { architecture: &architecture, rules, experts: experts.len(), changes: changes.as_ref() };
    let vocabulary = rules.embedding.is_some();
    for layer in 0..architecture.num_hidden_layers {
        let last = layer + 1 == architecture.num_hidden_layers;
        match &mut statistics {
            Some(statistics) if layer >= target.note.layers => {
                for (at, expert) in experts.iter().enumerate() {
                    walk.gather(layer, at, rules.sites, &mut statistics.own, vocabulary)?;
                    work.add(layer, expert, statistics, target, &walk)?;
                }
                walk.say(layer, "equations");
                let singular = match work.changes {
                    Some(changes) => work.join(layer, statistics, changes, &walk)?,
                    None => work.solve(layer, statistics, target, &walk)?,
                };
                target.done(layer, singular)?;
            }
            _ if rules.sequential => {}
            _ => (0..experts.len()).try_for_each(|at| walk.gather(layer, at, &[], &mut [], vocabulary))?,
        }
        if rules.sequential && (!last || vocabulary) {
            walk.go_on(&target.merged, layer)?;
        }
    }
    if let Some(lookup) = rules.embedding {
        drop(statistics);
        walk.say(architecture.num_hidden_layers - 1, "vocabulary");
        let mut heads = Vec::new();
        for (at, expert) in experts.iter().enumerate() {
            heads.push(walk.head(at, if rules.sequential { &target.merged } else { expert.checkpoint })?);
        }
        Vocabulary { architecture: &architecture, experts, heads, ridge: rules.ridge, lookup }.fit(target)?;
    }
    if let (Some(scale), Some(changes)) = (rules.essential, changes) {
        changes.finish(scale, target)?;
    }
    Ok(Outcome { singular: target.note.singular.clone(), spilled: walk.spilled })
}

/// Bytes of a layer's statistics: sums of one expert and of all, right-hand sides, and what solving the largest takes besides.
#[must_use]
pub fn statistics_bytes(architecture: &Architecture) -> usize {
    let width = |site: Site| architecture.widths(site.maps()[0]).0;
    let grams: usize = Site::ALL.into_iter().map(|site| 2 * Gram::bytes(width(site))).sum();
    let map = |map: Map| architecture.widths(map).0 * architecture.widths(map).1;
    let largest = Map::ALL.into_iter().map(map).max().unwrap_or(0);
    grams + size_of::<f64>() * (Map::ALL.into_iter().map(map).sum::<usize>() + 3 * largest)
}

/// A layer's sums.
struct Statistics {
    /// Of the expert whose turn it is, a site each.
    own: Vec<(Site, Gram)>,
    sites: Vec<SiteStatistics>,
}

struct SiteStatistics {
    /// Of all experts.
    all: Gram,
    /// Σ Gᵢ Wᵢᵀ of each map: (inputs, outputs), column after column.
    sides: Vec<(Map, Vec<f64>)>,
    /// What experts add to an essential subspace, a map each, in place of the sums of all.
    parts: Vec<(Map, Vec<Part>)>,
}

impl Statistics {
    fn new(architecture: &Architecture, rules: &Rules) -> Self {
        let essential = rules.essential.is_some();
        let width = |site: &Site| architecture.widths(site.maps()[0]).0;
        let of_site = |site: &Site| {
            let side = |map: &Map| (*map, vec![0.0; width(site) * architecture.widths(*map).1]);
            let maps = site.maps().iter();
            let (sides, parts) = match essential {
                false => (maps.map(side).collect(), Vec::new()),
                true => (Vec::new(), maps.map(|map| (*map, Vec::new())).collect()),
            };
            SiteStatistics { all: Gram::new(if essential { 0 } else { width(site) }), sides, parts }
        };
        let own = rules.sites.iter().map(|site| (*site, Gram::new(width(site)))).collect();
        Self { own, sites: rules.sites.iter().map(of_site).collect() }
    }
}

struct Work<'w> {
    architecture: &'w Architecture,
    rules: &'w Rules,
    experts: usize,
    /// Where an essential subspace's layers go.
    changes: Option<&'w Changes>,
}

impl Work<'_> {
    /// Adds what an expert's sums say to the equations, and forgets them.
    fn add(
        &self,
        layer: usize,
        expert: &Expert<'_>,
        statistics: &mut Statistics,
        target: &Target<'_>,
        walk: &Walk<'_>,
    ) -> Result<()> {
        let of_sites = statistics.own.iter_mut().zip(&mut statistics.sites);
        for ((site, own), SiteStatistics { all, sides, parts }) in of_sites {
            walk.goes_on()?;
            if self.rules.off_diagonal != 1.0 {
                own.scale_off_diagonal(self.rules.off_diagonal);
            }
            if self.rules.energy < 1.0 && !own.keep(self.rules.energy) {
                return Err(LeastSquaresError::Unsolvable(weight_of(layer, site.maps()[0])));
            }
            for (map, side) in sides.iter_mut() {
                let weight = weight(expert.checkpoint, &expert.name, self.architecture, layer, *map)?;
                add_product(side, own, &weight, 1.0);
            }
            for (map, parts) in parts.iter_mut() {
                let mut change = weight(expert.checkpoint, &expert.name, self.architecture, layer, *map)?;
                let base = target.anchor(&weight_of(layer, *map))?;
                change.iter_mut().zip(base).for_each(|(ours, base)| *ours -= f64::from(base));
                parts.extend(Part::new(own, &change, self.experts));
            }
            if !sides.is_empty() {
                all.add_sums(own, 1.0);
            }
            own.clear();
        }
        Ok(())
    }

    /// Solves a layer's equations, and forgets them: which maps' are singular.
    fn solve(
        &self,
        layer: usize,
        statistics: &mut Statistics,
        target: &Target<'_>,
        walk: &Walk<'_>,
    ) -> Result<Vec<String>> {
        let mut singular = Vec::new();
        for ((_, own), SiteStatistics { all, sides, .. }) in statistics.own.iter_mut().zip(&mut statistics.sites) {
            walk.goes_on()?;
            let ridge = self.rules.ridge * all.mean_diagonal();
            // What differs from the anchor is solved for: (Σ Gᵢ + R) (W − A)ᵀ = Σ Gᵢ Wᵢᵀ − Σ Gᵢ Aᵀ.
            let mut anchors = Vec::new();
            for (map, side) in sides.iter_mut() {
                let anchor = target.anchor(&weight_of(layer, *map))?;
                let as_f64: Vec<f64> = anchor.iter().copied().map(f64::from).collect();
                add_product(side, all, &as_f64, -1.0);
                anchors.push(anchor);
            }
            let mut right: Vec<&mut Vec<f64>> = sides.iter_mut().map(|(_, side)| side).collect();
            let solved = solve(all, own, ridge, &mut right);
            let solved = solved.ok_or_else(|| LeastSquaresError::Unsolvable(weight_of(layer, sides[0].0)))?;
            for ((map, side), anchor) in sides.iter_mut().zip(anchors) {
                let tensor = weight_of(layer, *map);
                if solved == Solved::Eigenvalues {
                    singular.push(tensor.clone());
                }
                let fitted: Vec<f32> =
                    side.iter().zip(anchor).map(|(change, anchor)| (f64::from(anchor) + change) as f32).collect();
                target.store(&tensor, &fitted)?;
                side.fill(0.0);
            }
            all.clear();
            own.clear();
        }
        Ok(singular)
    }

    /// Joins the experts' parts of a layer's maps, and forgets them.
    fn join(
        &self,
        layer: usize,
        statistics: &mut Statistics,
        changes: &Changes,
        walk: &Walk<'_>,
    ) -> Result<Vec<String>> {
        for (map, parts) in statistics.sites.iter_mut().flat_map(|site| &mut site.parts) {
            walk.goes_on()?;
            let change = join(parts, self.architecture.widths(*map));
            let change = change.ok_or_else(|| LeastSquaresError::Unsolvable(weight_of(layer, *map)))?;
            changes.write(layer, *map, &change)?;
            parts.clear();
        }
        Ok(Vec::new())
    }
}
