//! FeatCal: a merge calibrated to the experts, layer by layer (arXiv 2605.13030; egangu/featcal@1849d10:src/featcal/solver.py).
//!
//! x_s are a map's inputs in the merged stream, x_e in the expert's, x_τ = α x_e + (1 − α) x_s; S = E[x_s x_sᵀ], K = E[x_s x_τᵀ], n = ‖S‖_F,
//! A = ρ W_M + (1 − ρ) W₀: Wᵀ = (Σ S/n + (λ + 10⁻⁸) I)⁻¹ (Σ (K/n) Wᵢᵀ + λ Aᵀ). Norms and biases stay the merge's: upstream calibrates those of
//! LayerNorm, and biases where there are any.

use crate::error::{LeastSquaresError, Result};
use crate::fit::Outcome;
use crate::gram::{Cross, Gram};
use crate::sample::{Expert, need_tokens};
use crate::solve::{add_full_product, solve};
use crate::stream::{self, Stream};
use crate::target::{Target, weight, weight_of};
use crate::walk::{Fitting, Step, room};
use rolegraft_checkpoint::{Architecture, Map};
use rolegraft_decoder::{DecoderError, Pass, Place, Segment, Site, States, Want};
use std::sync::atomic::Ordering;

/// What is added to λ, so that equations can be solved without it.
const LEAST: f64 = 1e-8;
/// Tokens whose inputs are held at once.
const HELD: usize = 2048;

/// How a merge is calibrated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FeatCal {
    /// λ.
    pub ridge: f64,
    /// ρ.
    pub blend: f64,
    /// α.
    pub teacher: f64,
}

/// A site's sums.
struct Sums {
    site: Site,
    own: Gram,
    cross: Cross,
    all: Gram,
    /// (inputs, outputs) of each map, column after column.
    sides: Vec<(Map, Vec<f64>)>,
    /// The merged stream's inputs of a wave.
    seen: Vec<f32>,
}

/// Calibrates the merge that `target` holds; its anchor is the base.
///
/// # Errors
/// As for a fit.
pub(crate) fn calibrate(
    experts: &[Expert<'_>],
    rules: &FeatCal,
    target: &mut Target<'_>,
    fitting: &Fitting<'_>,
) -> Result<Outcome> {
    let architecture = Architecture::of(&target.merged).map_err(DecoderError::from)?;
    need_tokens(experts)?;
    let (longest, mut standing) = room(experts, &architecture)?;
    let width = |site: Site| architecture.widths(site.maps()[0]).0;
    // Another layer's weights, and the inputs of a wave at all sites.
    let rows = longest.max(HELD);
    let inputs: usize = Site::ALL.into_iter().map(width).sum();
    standing += Pass::bytes(&architecture, longest).0 + size_of::<f32>() * rows * inputs;
    let least = standing + 3 * States::bytes(&architecture, rows);
    let Some(most) = fitting.memory.checked_sub(standing).filter(|_| fitting.memory >= least) else {
        return Err(LeastSquaresError::Memory { memory: fitting.memory, least });
    };
    let spilled = 2 * stream::bytes(experts, &architecture, rows).0 > most;
    let scratch = spilled.then_some(fitting.scratch);
    let mut streams = Vec::new();
    for expert in experts {
        let teacher = Stream::new(expert, expert.checkpoint, &architecture, rows, scratch)?;
        let student = Stream::new(expert, &target.merged, &architecture, rows, scratch)?;
        streams.push((teacher, student));
    }
    let site = |site: Site| {
        let side = |map: &Map| (*map, vec![0.0; width(site) * architecture.widths(*map).1]);
        let (own, all, cross) = (Gram::new(width(site)), Gram::new(width(site)), Cross::new(width(site)));
        Sums { site, own, cross, all, sides: site.maps().iter().map(side).collect(), seen: Vec::new() }
    };
    let mut sums: Vec<Sums> = Site::ALL.into_iter().map(site).collect();
    let mut taught = Pass::new(&architecture, longest, &Place::cpu())?;
    let mut merged = Pass::new(&architecture, longest, &Place::cpu())?;
    let layers = architecture.num_hidden_layers;
    let per_layer: usize = streams.iter().flat_map(|(s, _)| &s.waves).map(|wave| wave.rows).sum();
    let say = |layer: usize, what: &str, done: usize| {
        (fitting.progress)(&Step { layer: layer + 1, layers, what, done, tokens: per_layer * layers });
    };
    let goes_on = || match fitting.stop.load(Ordering::Relaxed) {
        true => Err(LeastSquaresError::Interrupted),
        false => Ok(()),
    };
    let mut done = 0;
    for layer in 0..layers {
        let (last, fits) = (layer + 1 == layers, layer >= target.note.layers);
        if fits {
            merged.load(&target.merged, layer)?;
        }
        for (teacher, student) in &mut streams {
            taught.load(teacher.expert.checkpoint, layer)?;
            let mut before = None;
            for wave in 0..teacher.waves.len() {
                goes_on()?;
                say(layer, &teacher.expert.name, done);
                if fits {
                    student.with(wave, false, |states, wave| {
                        look(states, &wave.segments, &mut merged, &mut sums, &mut before)
                    })?;
                }
                let weights = std::mem::take(&mut teacher.weights[wave]);
                let sites: &'static [Site] = if fits { &Site::ALL } else { &[] };
                let passed = teacher.with(wave, true, |states, wave| {
                    Ok(taught.run(states, &wave.segments, Want { sites, whole: !last }, &mut |seen| {
                        if let Some(sums) = sums.iter_mut().find(|sums| sums.site == seen.site) {
                            let weights = &weights[seen.first..seen.first + seen.rows];
                            let width = sums.own.width;
                            let own = &sums.seen[seen.first * width..(seen.first + seen.rows) * width];
                            sums.own.add_rows(own.chunks_exact(width), weights);
                            sums.cross.add(own, seen, rules.teacher, weights);
                        }
                        Ok(())
                    })?)
                });
                teacher.weights[wave] = weights;
                passed?;
                done += teacher.waves[wave].rows;
            }
            if fits {
                let (checkpoint, name) = (teacher.expert.checkpoint, &teacher.expert.name);
                for Sums { own, cross, all, sides, .. } in &mut sums {
                    let scale = 1.0 / own.norm().max(LEAST);
                    for (map, side) in sides.iter_mut() {
                        let theirs = weight(checkpoint, name, &architecture, layer, *map)?;
                        add_full_product(side, &cross.sums, &theirs, scale);
                    }
                    all.add_sums(own, scale);
                    own.clear();
                    cross.clear();
                }
            }
        }
        if fits {
            say(layer, "equations", done);
            target.begin()?;
            for Sums { own, all, sides, .. } in &mut sums {
                for (map, side) in sides.iter_mut() {
                    let tensor = weight_of(layer, *map);
                    let merge = weight(&target.merged, "the merge", &architecture, layer, *map)?;
                    for ((side, merge), base) in side.iter_mut().zip(&merge).zip(target.anchor(&tensor)?) {
                        *side += rules.ridge * (rules.blend * merge + (1.0 - rules.blend) * f64::from(base));
                    }
                }
                let mut right: Vec<&mut Vec<f64>> = sides.iter_mut().map(|(_, side)| side).collect();
                if solve(all, own, rules.ridge + LEAST, &mut right).is_none() {
                    return Err(LeastSquaresError::Unsolvable(weight_of(layer, sides[0].0)));
                }
                for (map, side) in sides.iter_mut() {
                    let fitted: Vec<f32> = side.iter().map(|value| *value as f32).collect();
                    target.store(&weight_of(layer, *map), &fitted)?;
                    side.fill(0.0);
                }
                all.clear();
                own.clear();
            }
            target.done(layer, Vec::new())?;
        }
        if !last {
            merged.load(&target.merged, layer)?;
            for (_, student) in &mut streams {
                for wave in 0..student.waves.len() {
                    goes_on()?;
                    student.with(wave, true, |states, wave| {
                        let want = Want { sites: &[], whole: true };
                        Ok(merged.run(states, &wave.segments, want, &mut |_| Ok(()))?)
                    })?;
                }
            }
        }
    }
    Ok(Outcome { singular: Vec::new(), spilled })
}

/// The merged layer's inputs of a wave, at all sites; the states stay as they were.
fn look(
    states: &mut States,
    segments: &[Segment],
    merged: &mut Pass,
    sums: &mut [Sums],
    before: &mut Option<States>,
) -> Result<()> {
    before.get_or_insert_with(|| states.clone()).clone_from(states);
    sums.iter_mut().for_each(|sums| sums.seen.clear());
    merged.run(states, segments, Want { sites: &Site::ALL, whole: false }, &mut |seen| {
        if let Some(sums) = sums.iter_mut().find(|sums| sums.site == seen.site) {
            (seen.first..seen.first + seen.rows).for_each(|row| sums.seen.extend(seen.row(row)));
        }
        Ok(())
    })?;
    if let Some(before) = before {
        states.clone_from(before);
    }
    Ok(())
}
