//! ACM: a merge drawn back to the base, layer by layer, the more a layer's outputs tell of the base's (arXiv 2505.14009;
//! iacobellimario/L2S-MultiObjective-Evolutionary-Merging@8cb439e:project_new/ACM/methods/acm.py, a copy of the authors' script).
//!
//! I is the mutual information, in nats, of two outputs of a module in the base and in the merge, of one sample, element by element, each
//! value in BF16 a label: t = mean over samples of 1 / (1 + exp(−θ (I − max I))). W = W₀ + (1 − t) (W_M − W₀) for every tensor of a layer by
//! its `down_proj`, for the embedding, the last norm and the head by their own outputs.
//!
//! Upstream runs models in BF16; here they run in F32 and outputs are rounded.

use crate::error::{LeastSquaresError, Result};
use crate::sample::{Expert, need_tokens};
use crate::stream::{self, Stream};
use crate::target::{read_rows, weight};
use crate::walk::{Fitting, Step, room};
use rayon::prelude::*;
use rolegraft_checkpoint::{Architecture, Checkpoint, Map, round_bf16, write_atomic};
use rolegraft_decoder::{
    Activations, DecoderError, Matrix, Pass, Place, Site, States, Want, Wave, multiply_transposed,
};
use rolegraft_merge::{Execution, MergeError, Model, Plan, PlanOptions, Recipe};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;

/// Tokens of a wave whose outputs are held.
const HELD: usize = 2048;
/// Rows of a head that are multiplied at once.
const PANEL: usize = 4096;
/// Terms of less count for nothing.
const NOTHING: f64 = f64::EPSILON;

/// 1 − t by module: `layers.N.`, and the names of what lies before and after.
pub(crate) type Coefficients = Vec<(String, f64)>;

/// Pairs of labels, counted.
#[derive(Default)]
struct Pairs {
    counts: BTreeMap<u32, u64>,
    fresh: Vec<u32>,
}

/// BF16 of a number, as a label: zeros are one.
fn label(value: f32) -> u32 {
    let bits = round_bf16(value).to_bits() >> 16;
    if bits == 0x8000 { 0 } else { bits }
}

impl Pairs {
    fn add(&mut self, base: &[f32], merged: &[f32]) {
        self.fresh.extend(base.iter().zip(merged).map(|(a, b)| (label(*a) << 16) | label(*b)));
        if self.fresh.len() >= 1 << 22 {
            self.settle();
        }
    }

    fn settle(&mut self) {
        self.fresh.sort_unstable();
        for same in self.fresh.chunk_by(|a, b| a == b) {
            *self.counts.entry(same[0]).or_default() += same.len() as u64;
        }
        self.fresh.clear();
    }

    /// Their mutual information, in nats.
    fn information(mut self) -> f64 {
        self.settle();
        let (mut ours, mut theirs) = (BTreeMap::<u32, u64>::new(), BTreeMap::<u32, u64>::new());
        for (pair, count) in &self.counts {
            *ours.entry(pair >> 16).or_default() += count;
            *theirs.entry(pair & 0xFFFF).or_default() += count;
        }
        let all: u64 = ours.values().sum();
        if ours.len() < 2 || theirs.len() < 2 {
            return 0.0;
        }
        let log = |count: u64| (count as f64).ln();
        let term = |(pair, count): (&u32, &u64)| {
            let share = *count as f64 / all as f64;
            let apart = log(ours[&(pair >> 16)]) + log(theirs[&(pair & 0xFFFF)]);
            share * (log(*count) - log(all)) + share * (2.0 * log(all) - apart)
        };
        self.counts.iter().map(term).filter(|term| term.abs() >= NOTHING).sum::<f64>().max(0.0)
    }
}

/// 1 − t of what samples' outputs tell.
fn coefficient(told: &[f64], theta: f64) -> f64 {
    let most = told.iter().copied().fold(0.0, f64::max);
    let t = told.iter().map(|told| 1.0 / (1.0 + (-theta * (told - most)).exp())).sum::<f64>() / told.len() as f64;
    1.0 - t
}

/// Rows of each sample of a wave.
fn rows(wave: &Wave) -> Vec<Vec<usize>> {
    let (mut all, mut row_of, mut next) = (Vec::new(), Vec::new(), 0);
    for segment in &wave.segments {
        row_of.truncate(segment.start);
        row_of.extend(next..next + segment.rows);
        next += segment.rows;
        all.push(row_of.clone());
    }
    all
}

/// x Wᵀ of rows (n, in) by some rows of a weight (out, in).
fn product(x: &[f32], weight: &[f32], width: usize) -> Vec<f32> {
    let (rows, outputs) = (x.len() / width, weight.len() / width);
    // Both are read as columns of (in, ·).
    let turned = |values: &[f32], count: usize| -> Vec<f32> {
        (0..width)
            .flat_map(|at| (0..count).map(move |row| (row, at)))
            .map(|(row, at)| values[row * width + at])
            .collect()
    };
    let (x, weight) = (turned(x, rows), turned(weight, outputs));
    let mut out = vec![0.0; rows * outputs];
    let left = Matrix { values: &x, rows: width, columns: rows, stride: rows };
    let right = Matrix { values: &weight, rows: width, columns: outputs, stride: outputs };
    multiply_transposed(&mut out, outputs, left, right);
    out
}

/// Measures what a merge's outputs tell of its base's, on all samples.
pub(crate) fn measure(
    experts: &[Expert<'_>],
    (base, merged): (&Checkpoint, &Checkpoint),
    theta: f64,
    fitting: &Fitting<'_>,
) -> Result<Coefficients> {
    let architecture = Architecture::of(merged).map_err(DecoderError::from)?;
    need_tokens(experts)?;
    let (longest, mut standing) = room(experts, &architecture)?;
    let (held, hidden) = (longest.max(HELD), architecture.hidden_size);
    let neurons = architecture.widths(Map::Down).0;
    // Inputs and outputs of a wave twice over, and labels that are not counted yet.
    standing += 2 * size_of::<f32>() * held * (2 * neurons + 2 * hidden) + (64 << 20);
    let least = standing + 3 * States::bytes(&architecture, held);
    let Some(most) = fitting.memory.checked_sub(standing).filter(|_| fitting.memory >= least) else {
        return Err(LeastSquaresError::Memory { memory: fitting.memory, least });
    };
    let spilled = 2 * stream::bytes(experts, &architecture, held).0 > most;
    let scratch = spilled.then_some(fitting.scratch);
    let mut streams = Vec::new();
    for expert in experts {
        let of = |model| Stream::new(expert, model, &architecture, held, scratch);
        streams.push((of(base)?, of(merged)?));
    }
    let goes_on = || match fitting.stop.load(Ordering::Relaxed) {
        true => Err(LeastSquaresError::Interrupted),
        false => Ok(()),
    };
    let layers = architecture.num_hidden_layers;
    let tokens = streams.iter().flat_map(|(s, _)| &s.waves).map(|wave| wave.rows).sum::<usize>() * layers;
    let mut done = 0;
    let mut pass = Pass::new(&architecture, longest, &Place::cpu())?;
    let mut coefficients = Coefficients::new();
    for layer in 0..layers {
        let mut told = Vec::new();
        for (ours, theirs) in &mut streams {
            for wave in 0..ours.waves.len() {
                goes_on()?;
                let step = Step { layer: layer + 1, layers, what: &ours.expert.name, done, tokens };
                (fitting.progress)(&step);
                let mut outputs = |stream: &mut Stream<'_>, model| -> Result<Vec<f32>> {
                    let mut inputs = Vec::new();
                    pass.load(model, layer)?;
                    stream.with(wave, true, |states, wave| {
                        let want = Want { sites: &[Site::Down], whole: true };
                        Ok(pass.run(states, &wave.segments, want, &mut |seen| collect(&mut inputs, seen))?)
                    })?;
                    let weight = weight(model, "the merge", &architecture, layer, Map::Down)?;
                    let weight: Vec<f32> = weight.into_iter().map(|value| value as f32).collect();
                    Ok(product(&inputs, &weight, neurons))
                };
                let (a, b) = (outputs(ours, base)?, outputs(theirs, merged)?);
                told.extend(informations(&ours.waves[wave], &a, &b, hidden));
                done += ours.waves[wave].rows;
            }
        }
        coefficients.push((format!("layers.{layer}."), coefficient(&told, theta)));
    }
    let embedding = architecture.embedding();
    let (mut of_embedding, mut of_norm, mut of_head) = (Vec::new(), Vec::new(), Vec::new());
    let head = (!architecture.tie_word_embeddings).then(|| architecture.head());
    for (ours, theirs) in &mut streams {
        for sample in &ours.expert.samples {
            goes_on()?;
            let mut pairs = Pairs::default();
            pairs.add(&base.rows_f32(embedding, sample.ids)?, &merged.rows_f32(embedding, sample.ids)?);
            of_embedding.push(pairs.information());
        }
        for wave in 0..ours.waves.len() {
            goes_on()?;
            let normed = |stream: &mut Stream<'_>, model: &Checkpoint| -> Result<Vec<f32>> {
                let norm = model.f32(architecture.last_norm())?;
                let mut rows = Vec::new();
                stream.with(wave, false, |states, _| {
                    Ok(states.normed(&norm, architecture.rms_norm_eps as f32, &mut |seen| collect(&mut rows, seen))?)
                })?;
                Ok(rows)
            };
            let (a, b) = (normed(ours, base)?, normed(theirs, merged)?);
            let wave = &ours.waves[wave];
            of_norm.extend(informations(wave, &a, &b, hidden));
            let Some(head) = head else { continue };
            let mut pairs: Vec<Pairs> = wave.segments.iter().map(|_| Pairs::default()).collect();
            let height = architecture.vocab_size;
            for first in (0..height).step_by(PANEL) {
                goes_on()?;
                let some = first..(first + PANEL).min(height);
                let logits = |model, rows: &[f32]| -> Result<Vec<f32>> {
                    let weight = read_rows((model, "the merge"), head, (height, hidden), some.clone())?;
                    Ok(product(rows, &weight, hidden))
                };
                count(wave, &mut pairs, &logits(base, &a)?, &logits(merged, &b)?, some.len());
            }
            of_head.extend(pairs.into_iter().map(Pairs::information));
        }
    }
    coefficients.push((embedding.to_owned(), coefficient(&of_embedding, theta)));
    coefficients.push((architecture.last_norm().to_owned(), coefficient(&of_norm, theta)));
    if let Some(head) = head {
        coefficients.push((head.to_owned(), coefficient(&of_head, theta)));
    }
    Ok(coefficients)
}

/// Writes the merge drawn back to its base by these coefficients, with the merge's own files.
pub(crate) fn draw_back(
    (base, merged): (&Path, &Path),
    coefficients: &Coefficients,
    out: &Path,
    execution: &Execution<'_>,
) -> Result<()> {
    let weights = |of: fn(f64) -> f64, otherwise: f64| {
        let filters = coefficients.iter().map(|(filter, value)| json!({"filter": filter, "value": of(*value)}));
        filters.chain([json!({"value": otherwise})]).collect::<Vec<_>>()
    };
    let models = json!([
        {"model": "merged", "parameters": {"weight": weights(|value| value, 1.0)}},
        {"model": "base", "parameters": {"weight": weights(|value| 1.0 - value, 0.0)}},
    ]);
    let recipe = json!({"merge_method": "linear", "models": models}).to_string();
    let recipe = Recipe::parse(&recipe, Path::new("recipe.yaml")).map_err(MergeError::Recipe)?;
    let models = vec![Model::open("merged", merged)?, Model::open("base", base)?];
    Plan::of_models(recipe, models, &PlanOptions::default())?.execute(out, execution)?;
    for name in ["README.md", "mergekit_config.yml"] {
        let bytes = std::fs::read(merged.join(name)).unwrap_or_default();
        write_atomic(&out.join(name), &bytes)?;
    }
    Ok(())
}

fn collect(rows: &mut Vec<f32>, seen: Activations<'_>) -> std::result::Result<(), DecoderError> {
    (seen.first..seen.first + seen.rows).for_each(|row| rows.extend_from_slice(seen.row(row)));
    Ok(())
}

/// What each sample's outputs (rows, width) tell.
fn informations(wave: &Wave, base: &[f32], merged: &[f32], width: usize) -> Vec<f64> {
    let mut pairs: Vec<Pairs> = wave.segments.iter().map(|_| Pairs::default()).collect();
    count(wave, &mut pairs, base, merged, width);
    pairs.into_par_iter().map(Pairs::information).collect()
}

fn count(wave: &Wave, pairs: &mut [Pairs], base: &[f32], merged: &[f32], width: usize) {
    pairs.par_iter_mut().zip(rows(wave)).for_each(|(pairs, rows)| {
        for row in rows {
            let of = row * width..(row + 1) * width;
            pairs.add(&base[of.clone()], &merged[of]);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn information_is_that_of_labels() {
        let of = |a: &[f32], b: &[f32]| {
            let mut pairs = Pairs::default();
            pairs.add(a, b);
            pairs.information()
        };
        // sklearn.metrics.mutual_info_score of the same labels.
        let told = of(&[0.0, 1.0, 1.0, 0.0, 1.0, 0.0], &[0.0, 1.0, -0.0, 0.0, 1.0, 1.0]);
        assert!((told - 0.056_633_012_265_132_426).abs() < 1e-15, "{told}");
        assert_eq!(of(&[1.0, 2.0], &[3.0, 3.0]), 0.0);
        assert!((of(&[1.0, 2.0], &[3.0, 4.0]) - 2f64.ln()).abs() < 1e-15);
        assert!((coefficient(&[0.5], 0.7) - 0.5).abs() < 1e-15);
    }
}
