//! Tracing: wave after wave of runs, each layer by layer, in memory that is known beforehand.
//!
//! Runs are taken in the order of their ids, so that one goes on where it parts from the one before: what they share is
//! worked out once a wave. What a run adds to a saliency does not depend on the waves, nor do sums on their order, so results
//! are the same to the bit for every budget and number of threads.

use crate::journal::{Journal, Sums};
use crate::plan::{Budget, Plan, Reading, Run, TraceError, standing};
use crate::{NeuronSet, Saliency};
use rayon::prelude::*;
use rolegraft_checkpoint::{Architecture, Checkpoint, Map};
use rolegraft_decoder::{DecoderError, Pass, Place, Site, States, Want, Wave, add_magnitudes};
use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How a trace is done.
pub struct Tracing<'t> {
    /// The checkpoint's architecture, where it is not to be taken as its config says it.
    pub architecture: Option<Architecture>,
    /// Another checkpoint of the pool that reads the same tokens: what counts is then by how much a neuron's activation differs
    /// from the other's, times the length of its column of `down_proj`.
    pub against: Option<&'t Checkpoint>,
    /// Where.
    pub place: Place,
    /// Bytes that it may use besides one layer's weights.
    pub memory: usize,
    /// Of these, bytes that the caller holds: the calibration set.
    pub held: usize,
    /// Tokens of a wave at most: what an interruption loses. 0: what reading the weights again for a wave hardly costs.
    pub wave: usize,
    /// Where sums are kept after each wave, and the digest of what they are of.
    pub journal: Option<(PathBuf, String)>,
    /// Ends it between blocks.
    pub stop: &'t AtomicBool,
    /// Told how far it is.
    pub progress: &'t dyn Fn(&Step),
}

/// How far a trace is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// The wave, from 1.
    pub wave: usize,
    /// Of how many.
    pub waves: usize,
    /// The layer, from 1.
    pub layer: usize,
    /// Of how many.
    pub layers: usize,
    /// Tokens through all layers so far, in proportion.
    pub done: f64,
    /// Tokens in all.
    pub tokens: usize,
    /// Tokens a second through all layers.
    pub rate: f64,
}

impl Step {
    /// How long the rest takes at this rate.
    #[must_use]
    pub fn left(&self) -> Duration {
        let seconds = (self.tokens as f64 - self.done) / self.rate;
        Duration::try_from_secs_f64(seconds).unwrap_or_default()
    }
}

impl Tracing<'static> {
    /// On the CPU, with as much memory as it takes, to the end.
    #[must_use]
    pub fn unbounded() -> Self {
        static GO_ON: AtomicBool = AtomicBool::new(false);
        Self {
            architecture: None,
            against: None,
            place: Place::cpu(),
            memory: usize::MAX,
            held: 0,
            wave: 0,
            journal: None,
            stop: &GO_ON,
            progress: &|_| {},
        }
    }
}

/// Runs of one trajectory, each with its ids and the positions of role tokens, ascending.
pub type Trajectory = Vec<(Vec<u32>, Vec<u32>)>;

/// Traces trajectories, [unbounded](Tracing::unbounded).
///
/// # Errors
/// As [`trace_readings`].
pub fn trace(checkpoint: &Checkpoint, trajectories: &[Trajectory]) -> Result<Saliency, TraceError> {
    trace_as(&Tracing::unbounded(), checkpoint, trajectories)
}

/// The same in some way.
///
/// # Errors
/// As [`trace_readings`].
pub fn trace_as(
    tracing: &Tracing<'_>,
    checkpoint: &Checkpoint,
    trajectories: &[Trajectory],
) -> Result<Saliency, TraceError> {
    let all = || trajectories.iter().enumerate().flat_map(|(at, runs)| runs.iter().map(move |run| (at, run)));
    let runs: Vec<Run<'_>> = all().map(|(trajectory, (ids, _))| Run { trajectory, ids }).collect();
    let roles: Vec<&[u32]> = all().map(|(_, (_, role))| role.as_slice()).collect();
    let reading: Reading<'_> = Box::new(|run| Some(Cow::Borrowed(roles[run])));
    Ok(trace_readings(checkpoint, &runs, &[reading], tracing)?.swap_remove(0))
}

/// Tokens of a wave on the CPU: reading 8 billion parameters again costs a hundredth of their products with so many.
const WAVE: usize = 16_384;
/// The same on a GPU, which multiplies faster than it is fed.
const WAVE_ON_DEVICE: usize = 65_536;

fn usual_wave(place: &Place) -> usize {
    if place.is_cpu() { WAVE } else { WAVE_ON_DEVICE }
}

/// Tokens that will go through the layers together in a trace of runs of at most `longest` tokens, and the bytes that it
/// will use for them besides one layer's weights.
///
/// # Errors
/// If the memory does not do for one such run: with what would.
pub fn wave_tokens(
    architecture: &Architecture,
    longest: usize,
    memory: usize,
    place: &Place,
) -> Result<(usize, usize), TraceError> {
    let fixed = standing(architecture, longest, 1) + States::bytes(architecture, 1);
    let row = size_of::<f32>() * architecture.hidden_size;
    let rows = memory.saturating_sub(fixed) / row;
    if rows < longest {
        let (least, layer) = (fixed + row * longest, Pass::bytes(architecture, longest).0);
        return Err(TraceError::Memory { memory, least, layer, tokens: longest });
    }
    let rows = rows.min(usual_wave(place).max(longest));
    Ok((rows, fixed + row * rows))
}

/// Traces runs of tokens, teacher-forced, once for several readings: each gets, to the bit, what a trace of its own would give
/// it.
///
/// # Errors
/// If the checkpoint cannot be run, a position lies outside its run or beyond the model's positions, the memory does not do,
/// or the trace is stopped.
pub fn trace_readings<'c>(
    checkpoint: &Checkpoint,
    runs: &[Run<'c>],
    readings: &[Reading<'c>],
    tracing: &Tracing<'_>,
) -> Result<Vec<Saliency>, TraceError> {
    let architecture = match &tracing.architecture {
        Some(architecture) => architecture.clone(),
        None => Architecture::of(checkpoint).map_err(DecoderError::from)?,
    };
    let mut sums: Vec<Sums> = readings.iter().map(|reading| weigh(&architecture, runs, reading)).collect();
    let cap = if tracing.wave == 0 { usual_wave(&tracing.place) } else { tracing.wave };
    let journal = tracing.journal.as_ref().map(|(path, key)| Journal::new(path, key));
    let kept = journal.as_ref().map_or(0, |journal| journal.read(&mut sums));
    let budget = Budget { memory: tracing.memory, held: tracing.held, cap, compares: tracing.against.is_some() };
    let plan = Plan::new(&architecture, runs, readings, budget, kept)?;
    let mut pass = Pass::new(&architecture, plan.longest, &tracing.place)?;
    let mut states = States::new(&architecture, plan.rows());
    let mut other = tracing.against.map(|checkpoint| Other {
        checkpoint,
        states: States::new(&architecture, plan.rows()),
        rows: Vec::new(),
        activations: Vec::new(),
    });
    let (begun, tokens, mut before) = (Instant::now(), plan.tokens(), 0);
    for (at, wave) in plan.waves.iter().enumerate() {
        let work = Work { checkpoint, architecture: &architecture, runs, readings, stop: tracing.stop };
        let tell = |layer: usize| {
            let layers = architecture.num_hidden_layers;
            let done = before as f64 + (wave.rows * layer) as f64 / layers as f64;
            let rate = done / begun.elapsed().as_secs_f64().max(1e-9);
            (tracing.progress)(&Step { wave: at + 1, waves: plan.waves.len(), layer, layers, done, tokens, rate });
        };
        work.wave(wave, &plan, (&mut pass, &mut states, other.as_mut()), &mut sums, &tell)?;
        before += wave.rows;
        if let Some(journal) = journal.as_ref().filter(|_| at + 1 < plan.waves.len()) {
            journal.write(wave.runs.end, &sums)?;
        }
    }
    Ok(sums.into_iter().map(|sums| sums.saliency).collect())
}

/// Counts a reading's trajectories and tokens.
fn weigh(architecture: &Architecture, runs: &[Run<'_>], reading: &Reading<'_>) -> Sums {
    let mut saliency = Saliency::empty(architecture.num_hidden_layers, architecture.intermediate_size);
    let mut weights = Vec::new();
    let mut at = 0;
    for runs in runs.chunk_by(|a, b| a.trajectory == b.trajectory) {
        let positions: Option<Vec<usize>> = (at..at + runs.len()).map(|run| Some(reading(run)?.len())).collect();
        at += runs.len();
        weights.resize(runs[0].trajectory + 1, (0.0, 0));
        let Some(tokens) = positions.map(|positions| positions.into_iter().sum::<usize>()) else { continue };
        if tokens == 0 {
            saliency.without_role += 1;
            continue;
        }
        weights[runs[0].trajectory] = (1.0 / tokens as f64, saliency.traced);
        saliency.count(tokens);
    }
    Sums { saliency, weights }
}

/// A look at a run's activations.
struct Look {
    reading: usize,
    trajectory: usize,
    /// Rows of the wave, ascending.
    rows: Vec<u32>,
    sums: Vec<f64>,
}

/// The checkpoint that is compared with.
struct Other<'o> {
    checkpoint: &'o Checkpoint,
    states: States,
    /// Rows of the wave that are looked at, ascending.
    rows: Vec<u32>,
    /// Its activations there, row after row.
    activations: Vec<f32>,
}

impl Other<'_> {
    /// Its activations of a row that is looked at.
    fn row(&self, row: u32, width: usize) -> &[f32] {
        let at = self.rows.partition_point(|r| *r < row) * width;
        &self.activations[at..at + width]
    }
}

/// What the waves have in common.
struct Work<'w, 'c> {
    checkpoint: &'w Checkpoint,
    architecture: &'w Architecture,
    runs: &'w [Run<'c>],
    readings: &'w [Reading<'c>],
    stop: &'w AtomicBool,
}

impl Work<'_, '_> {
    /// One wave through all layers.
    fn wave(
        &self,
        wave: &Wave,
        plan: &Plan,
        (pass, states, mut other): (&mut Pass, &mut States, Option<&mut Other<'_>>),
        sums: &mut [Sums],
        tell: &dyn Fn(usize),
    ) -> Result<(), TraceError> {
        states.clear();
        if let Some(other) = &mut other {
            other.states.clear();
        }
        let (mut looks, mut row_of): (Vec<Look>, Vec<u32>) = (Vec::new(), Vec::new());
        for (order, segment) in wave.runs.clone().zip(&wave.segments) {
            let run = plan.order[order];
            let ids = &self.runs[run].ids[segment.start..segment.start + segment.rows];
            row_of.truncate(segment.start);
            row_of.extend((states.rows()..states.rows() + ids.len()).map(|row| row as u32));
            states.embed(self.checkpoint, self.architecture, ids)?;
            if let Some(other) = &mut other {
                other.states.embed(other.checkpoint, self.architecture, ids)?;
            }
            for (reading, positions) in self.readings.iter().enumerate() {
                let Some(positions) = positions(run).filter(|positions| !positions.is_empty()) else { continue };
                let rows = positions.iter().map(|position| row_of[*position as usize]).collect();
                let sums = vec![0.0; self.architecture.intermediate_size];
                looks.push(Look { reading, trajectory: self.runs[run].trajectory, rows, sums });
            }
        }
        let width = self.architecture.intermediate_size;
        if let Some(other) = &mut other {
            other.rows = looks.iter().flat_map(|look| look.rows.iter().copied()).collect();
            other.rows.sort_unstable();
            other.rows.dedup();
        }
        for layer in 0..self.architecture.num_hidden_layers {
            let whole = layer + 1 < self.architecture.num_hidden_layers;
            let mut norms = None;
            if let Some(other) = &mut other {
                self.other(wave, layer, pass, other)?;
                norms = Some(column_norms(self.checkpoint, self.architecture, layer)?);
            }
            pass.load(self.checkpoint, layer)?;
            looks.par_iter_mut().for_each(|look| look.sums.fill(0.0));
            let passed = pass.run(states, &wave.segments, Want { sites: &[Site::Down], whole }, &mut |seen| {
                if self.stop.load(Ordering::Relaxed) {
                    return Err(DecoderError::Stopped("interrupted"));
                }
                looks.par_iter_mut().for_each(|look| {
                    let at = |row: usize| look.rows.partition_point(|r| (*r as usize) < row);
                    for row in &look.rows[at(seen.first)..at(seen.first + seen.rows)] {
                        match &other {
                            None => add_magnitudes(&mut look.sums, seen.row(*row as usize)),
                            Some(other) => add_changes(&mut look.sums, seen.row(*row as usize), other.row(*row, width)),
                        }
                    }
                });
                Ok(())
            });
            match passed {
                Err(DecoderError::Stopped(_)) => return Err(TraceError::Interrupted),
                passed => passed?,
            }
            if let Some(norms) = norms {
                for look in &mut looks {
                    look.sums.iter_mut().zip(&norms).for_each(|(sum, norm)| *sum *= norm);
                }
            }
            for look in &looks {
                let Sums { saliency, weights } = &mut sums[look.reading];
                let (weight, number) = weights[look.trajectory];
                saliency.add(layer, number, weight, &look.sums);
            }
            tell(layer + 1);
        }
        Ok(())
    }

    /// A layer of the checkpoint that is compared with.
    fn other(&self, wave: &Wave, layer: usize, pass: &mut Pass, other: &mut Other<'_>) -> Result<(), TraceError> {
        let whole = layer + 1 < self.architecture.num_hidden_layers;
        let Other { checkpoint, states, rows, activations } = other;
        pass.load(checkpoint, layer)?;
        activations.clear();
        let passed = pass.run(states, &wave.segments, Want { sites: &[Site::Down], whole }, &mut |seen| {
            if self.stop.load(Ordering::Relaxed) {
                return Err(DecoderError::Stopped("interrupted"));
            }
            // Blocks come in the order of their rows.
            let at = |row: usize| rows.partition_point(|r| (*r as usize) < row);
            for row in &rows[at(seen.first)..at(seen.first + seen.rows)] {
                activations.extend_from_slice(seen.row(*row as usize));
            }
            Ok(())
        });
        match passed {
            Err(DecoderError::Stopped(_)) => Err(TraceError::Interrupted),
            passed => Ok(passed?),
        }
    }
}

/// Σ |z − z'|, neuron by neuron.
fn add_changes(sums: &mut [f64], ours: &[f32], theirs: &[f32]) {
    for ((sum, ours), theirs) in sums.iter_mut().zip(ours).zip(theirs) {
        *sum += f64::from((ours - theirs).abs());
    }
}

/// The lengths of `down_proj`'s columns, of a matrix (hidden, d_ff).
fn column_norms(checkpoint: &Checkpoint, architecture: &Architecture, layer: usize) -> Result<Vec<f64>, TraceError> {
    let tensor = Architecture::in_layer(layer, &format!("{}.weight", Map::Down.module()));
    let weights = checkpoint.f32(&tensor).map_err(DecoderError::from)?;
    let mut squares = vec![0.0; architecture.intermediate_size];
    for row in weights.chunks_exact(architecture.intermediate_size) {
        squares.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value).powi(2));
    }
    Ok(squares.into_iter().map(f64::sqrt).collect())
}

/// The share of the union of several sets that at least two of them have.
#[must_use]
pub fn union_overlap(sets: &[NeuronSet]) -> f64 {
    let union = sets.iter().fold(NeuronSet::default(), |u, s| u.union(s));
    let shared = sets.iter().enumerate().fold(NeuronSet::default(), |shared, (i, a)| {
        sets[i + 1..].iter().fold(shared, |shared, b| shared.union(&a.intersection(b)))
    });
    if union.is_empty() { 0.0 } else { shared.len() as f64 / union.len() as f64 }
}
