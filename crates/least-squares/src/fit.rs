//! The layers one after another: statistics, solution, on to the next.

use crate::error::{LeastSquaresError, Result};
use crate::essential::{Changes, Part, join};
use crate::gram::Gram;
use crate::sample::Expert;
use crate::solve::{Solved, add_product, solve};
use crate::stream::{self, Stream};
use crate::target::{Target, weight, weight_of};
use crate::vocabulary::Vocabulary;
use rolegraft_checkpoint::{Architecture, Checkpoint, Map};
use rolegraft_decoder::{DecoderError, Pass, Place, Site, States, Want};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

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

/// How it is done.
pub struct Fitting<'f> {
    /// Bytes that it may use besides a layer's weights and statistics.
    pub memory: usize,
    /// A folder for states that do not fit.
    pub scratch: &'f Path,
    /// Ends it.
    pub stop: &'f AtomicBool,
    /// Told how far it is.
    pub progress: &'f dyn Fn(&Step<'_>),
}

/// How far a fit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step<'s> {
    /// The layer, from 1.
    pub layer: usize,
    /// Of how many.
    pub layers: usize,
    /// What is worked on: an expert's inputs, or the layer's equations.
    pub what: &'s str,
    /// Tokens through layers so far.
    pub done: usize,
    /// Of how many.
    pub tokens: usize,
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
    let (longest, standing) = room(experts, &architecture)?;
    let most = fitting.memory.checked_sub(standing).filter(|left| stream::cap(&architecture, *left) >= longest);
    let Some(most) = most else {
        let least = standing + States::bytes(&architecture, longest + 1) * if rules.sequential { 2 } else { 1 };
        return Err(LeastSquaresError::Memory { memory: fitting.memory, least });
    };
    // A second buffer holds what a sequential fit goes back to.
    let cap = stream::cap(&architecture, if rules.sequential { most / 2 } else { most }).max(longest);
    let (all, buffer) = stream::bytes(experts, &architecture, cap);
    let spilled = all + if rules.sequential { buffer } else { 0 } > most;
    let scratch = spilled.then_some(fitting.scratch);
    let mut streams = Vec::new();
    for expert in experts {
        let embedding = if rules.sequential { &target.merged } else { expert.checkpoint };
        streams.push(Stream::new(expert, embedding, &architecture, cap, scratch)?);
    }
    let mut pass = Pass::new(&architecture, longest, &Place::cpu())?;
    let per_layer: usize = streams.iter().flat_map(|s| &s.waves).map(|wave| wave.rows).sum();
    let tokens = per_layer * architecture.num_hidden_layers;
    let mut statistics =
        (target.note.layers < architecture.num_hidden_layers).then(|| Statistics::new(&architecture, rules));
    let changes = match rules.essential {
        None => None,
        Some(_) => {
            let maps = rules.sites.iter().flat_map(|site| site.maps()).copied().collect();
            Some(Changes::open(target, &architecture, maps)?)
        }
    };
    let (experts_of, changes_of) = (experts.len(), changes.as_ref());
    let mut work =
        Work { architecture: &architecture, rules, fitting, experts: experts_of, changes: changes_of, done: 0, tokens };
    for layer in 0..architecture.num_hidden_layers {
        let last = layer + 1 == architecture.num_hidden_layers;
        let fits = layer >= target.note.layers;
        if fits || !rules.sequential {
            for stream in &mut streams {
                let statistics = statistics.as_mut().filter(|_| fits);
                work.expert(layer, stream, &mut pass, statistics, target)?;
            }
        }
        if let Some(statistics) = statistics.as_mut().filter(|_| fits) {
            work.say(layer, "equations");
            let singular = match work.changes {
                Some(changes) => work.join(layer, statistics, changes)?,
                None => work.solve(layer, statistics, target)?,
            };
            target.done(layer, singular)?;
        }
        if rules.sequential && (!last || rules.embedding.is_some()) {
            pass.load(&target.merged, layer)?;
            for stream in &mut streams {
                work.go_on(stream, &mut pass)?;
            }
        }
    }
    if let Some(lookup) = rules.embedding {
        drop(statistics);
        work.say(architecture.num_hidden_layers - 1, "vocabulary");
        let mut heads = Vec::new();
        for stream in &mut streams {
            let normed_by = if rules.sequential { &target.merged } else { stream.expert.checkpoint };
            heads.push(work.head(stream, normed_by)?);
        }
        Vocabulary { architecture: &architecture, experts, heads, ridge: rules.ridge, lookup }.fit(target)?;
    }
    if let (Some(scale), Some(changes)) = (rules.essential, changes) {
        changes.finish(scale, target)?;
    }
    Ok(Outcome { singular: target.note.singular.clone(), spilled })
}

/// Tokens of the longest sample, and bytes needed whatever the budget.
pub(crate) fn room(experts: &[Expert<'_>], architecture: &Architecture) -> Result<(usize, usize)> {
    let (longest, limit) = (stream::longest(experts), architecture.max_position_embeddings);
    for expert in experts {
        let tokens = stream::longest(std::slice::from_ref(expert));
        if tokens > limit {
            let source = DecoderError::TooLong { tokens, limit };
            return Err(LeastSquaresError::Expert { expert: expert.name.clone(), source });
        }
    }
    let rows: usize = experts.iter().map(Expert::tokens).sum();
    let weights = rows * (size_of::<f32>() + size_of::<f64>());
    Ok((longest, Pass::bytes(architecture, longest).1 + weights))
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
    sites: Vec<SiteStatistics>,
}

struct SiteStatistics {
    site: Site,
    /// Of the expert whose turn it is.
    own: Gram,
    /// Of all.
    all: Gram,
    /// Σ Gᵢ Wᵢᵀ of each map: (inputs, outputs), column after column.
    sides: Vec<(Map, Vec<f64>)>,
    /// What experts add to an essential subspace, a map each, in place of the sums of all.
    parts: Vec<(Map, Vec<Part>)>,
}

impl Statistics {
    fn new(architecture: &Architecture, rules: &Rules) -> Self {
        let essential = rules.essential.is_some();
        let site = |site: &Site| {
            let width = architecture.widths(site.maps()[0]).0;
            let side = |map: &Map| (*map, vec![0.0; width * architecture.widths(*map).1]);
            let maps = site.maps().iter();
            let (sides, parts) = match essential {
                false => (maps.map(side).collect(), Vec::new()),
                true => (Vec::new(), maps.map(|map| (*map, Vec::new())).collect()),
            };
            let all = Gram::new(if essential { 0 } else { width });
            SiteStatistics { site: *site, own: Gram::new(width), all, sides, parts }
        };
        Self { sites: rules.sites.iter().map(site).collect() }
    }
}

struct Work<'w> {
    architecture: &'w Architecture,
    rules: &'w Rules,
    fitting: &'w Fitting<'w>,
    experts: usize,
    /// Where an essential subspace's layers go.
    changes: Option<&'w Changes>,
    done: usize,
    tokens: usize,
}

impl Work<'_> {
    fn say(&self, layer: usize, what: &str) {
        let layers = self.architecture.num_hidden_layers;
        let step = Step { layer: layer + 1, layers, what, done: self.done.min(self.tokens), tokens: self.tokens };
        (self.fitting.progress)(&step);
    }

    fn goes_on(&self) -> Result<()> {
        if self.fitting.stop.load(Ordering::Relaxed) { Err(LeastSquaresError::Interrupted) } else { Ok(()) }
    }

    /// One expert's layer over its samples, with the statistics of what goes into its maps.
    fn expert(
        &mut self,
        layer: usize,
        stream: &mut Stream<'_>,
        pass: &mut Pass,
        mut statistics: Option<&mut Statistics>,
        target: &Target<'_>,
    ) -> Result<()> {
        let expert = stream.expert;
        self.say(layer, &expert.name);
        pass.load(expert.checkpoint, layer)?;
        // Sequentially, the stream goes on as the merged layer takes it.
        let own = !self.rules.sequential;
        let last = layer + 1 == self.architecture.num_hidden_layers;
        let whole = own && (!last || self.rules.embedding.is_some());
        let sites: &'static [Site] = if statistics.is_some() { self.rules.sites } else { &[] };
        let mut before = None;
        for wave in 0..stream.waves.len() {
            self.goes_on()?;
            let (stop, weights) = (self.fitting.stop, std::mem::take(&mut stream.weights[wave]));
            let done = stream.with(wave, own, |states, wave| {
                if !own {
                    before.get_or_insert_with(|| states.clone()).clone_from(states);
                }
                let passed = pass.run(states, &wave.segments, Want { sites, whole }, &mut |seen| {
                    if stop.load(Ordering::Relaxed) {
                        return Err(DecoderError::Stopped("interrupted"));
                    }
                    let at = statistics.as_mut().and_then(|all| all.sites.iter_mut().find(|s| s.site == seen.site));
                    if let Some(site) = at {
                        site.own.add(seen, &weights[seen.first..seen.first + seen.rows]);
                    }
                    Ok(())
                });
                if let (false, Some(before)) = (own, &before) {
                    states.clone_from(before);
                }
                match passed {
                    Err(DecoderError::Stopped(_)) => Err(LeastSquaresError::Interrupted),
                    passed => Ok(passed?),
                }
            });
            stream.weights[wave] = weights;
            done?;
            if own {
                self.done += stream.waves[wave].rows;
                self.say(layer, &expert.name);
            }
        }
        let Some(statistics) = statistics else { return Ok(()) };
        for SiteStatistics { own, all, sides, parts, .. } in &mut statistics.sites {
            self.goes_on()?;
            if self.rules.off_diagonal != 1.0 {
                own.scale_off_diagonal(self.rules.off_diagonal);
            }
            if self.rules.energy < 1.0 && !own.keep(self.rules.energy) {
                return Err(LeastSquaresError::Unsolvable(weight_of(layer, sides[0].0)));
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
    fn solve(&self, layer: usize, statistics: &mut Statistics, target: &Target<'_>) -> Result<Vec<String>> {
        let mut singular = Vec::new();
        for SiteStatistics { own, all, sides, .. } in &mut statistics.sites {
            self.goes_on()?;
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
    fn join(&self, layer: usize, statistics: &mut Statistics, changes: &Changes) -> Result<Vec<String>> {
        for (map, parts) in statistics.sites.iter_mut().flat_map(|site| &mut site.parts) {
            self.goes_on()?;
            let change = join(parts, self.architecture.widths(*map));
            let change = change.ok_or_else(|| LeastSquaresError::Unsolvable(weight_of(layer, *map)))?;
            changes.write(layer, *map, &change)?;
            parts.clear();
        }
        Ok(Vec::new())
    }

    /// The merged layer over an expert's samples.
    fn go_on(&mut self, stream: &mut Stream<'_>, pass: &mut Pass) -> Result<()> {
        for wave in 0..stream.waves.len() {
            self.goes_on()?;
            stream.with(wave, true, |states, wave| {
                Ok(pass.run(states, &wave.segments, Want { sites: &[], whole: true }, &mut |_| Ok(()))?)
            })?;
            self.done += stream.waves[wave].rows;
        }
        Ok(())
    }

    /// E[h hᵀ] of the last states that predict tokens of replies.
    fn head(&self, stream: &mut Stream<'_>, normed_by: &Checkpoint) -> Result<Gram> {
        let norm = normed_by.f32(self.architecture.last_norm())?;
        let mut gram = Gram::new(self.architecture.hidden_size);
        for wave in 0..stream.waves.len() {
            self.goes_on()?;
            let weights = std::mem::take(&mut stream.predicting[wave]);
            stream.with(wave, false, |states, _| {
                Ok(states.normed(&norm, self.architecture.rms_norm_eps as f32, &mut |seen| {
                    gram.add(seen, &weights[seen.first..seen.first + seen.rows]);
                    Ok(())
                })?)
            })?;
        }
        Ok(gram)
    }
}
