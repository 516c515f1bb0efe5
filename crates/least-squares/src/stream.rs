//! The residual stream of an expert's samples, in memory or in a scratch file.

use crate::error::{LeastSquaresError, Result};
use crate::sample::Expert;
use rolegraft_checkpoint::{Architecture, Checkpoint};
use rolegraft_decoder::{States, Wave, waves};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Tokens of a wave: few enough for a small buffer, many enough that reading the weights again for each costs little.
const WAVE: usize = 16_384;

/// An expert's samples on their way through the layers.
pub(crate) struct Stream<'s> {
    pub(crate) expert: &'s Expert<'s>,
    pub(crate) waves: Vec<Wave>,
    /// Of each wave's rows.
    pub(crate) weights: Vec<Vec<f32>>,
    /// How much each wave's rows count for what they predict.
    pub(crate) predicting: Vec<Vec<f32>>,
    place: Place,
}

/// Where states are between two layers.
enum Place {
    /// A buffer a wave.
    Memory(Vec<States>),
    /// One after another in a file without a name.
    File { file: File, path: PathBuf, starts: Vec<u64>, buffer: States },
}

/// Tokens of the longest sample.
pub(crate) fn longest(experts: &[Expert<'_>]) -> usize {
    experts.iter().flat_map(|e| &e.samples).map(|sample| sample.ids.len()).max().unwrap_or(1)
}

/// Bytes that the states of all experts take in memory, and those of one buffer where they lie in a file.
pub(crate) fn bytes(experts: &[Expert<'_>], architecture: &Architecture, cap: usize) -> (usize, usize) {
    let all = |e: &Expert<'_>| cut(e, cap).iter().map(|w| States::bytes(architecture, w.rows)).sum::<usize>();
    (experts.iter().map(all).sum(), States::bytes(architecture, cap.max(longest(experts))))
}

/// The cap on a wave's tokens for a buffer of so many bytes.
pub(crate) fn cap(architecture: &Architecture, bytes: usize) -> usize {
    (bytes / (size_of::<f32>() * architecture.hidden_size)).min(WAVE)
}

fn cut(expert: &Expert<'_>, cap: usize) -> Vec<Wave> {
    waves(|at| expert.samples[at].ids, 0..expert.samples.len(), (cap, usize::MAX), |_, _| 0)
}

impl<'s> Stream<'s> {
    /// The embeddings of an expert's samples, as `embedding` has them. In memory, or in a file of the folder `scratch`.
    pub(crate) fn new(
        expert: &'s Expert<'s>,
        embedding: &Checkpoint,
        architecture: &Architecture,
        cap: usize,
        scratch: Option<&Path>,
    ) -> Result<Self> {
        let waves = cut(expert, cap);
        let weights = waves.iter().map(|wave| weigh(expert, wave, Of::Tokens)).collect();
        let predicting = waves.iter().map(|wave| weigh(expert, wave, Of::Predictions)).collect();
        let embed = |states: &mut States, wave: &Wave| -> Result<()> {
            states.clear();
            for (run, segment) in wave.runs.clone().zip(&wave.segments) {
                let ids = &expert.samples[run].ids[segment.start..segment.start + segment.rows];
                let of = |source| LeastSquaresError::Expert { expert: expert.name.clone(), source };
                states.embed(embedding, architecture, ids).map_err(of)?;
            }
            Ok(())
        };
        let place = match scratch {
            None => {
                let mut all = Vec::new();
                for wave in &waves {
                    let mut states = States::new(architecture, wave.rows);
                    embed(&mut states, wave)?;
                    all.push(states);
                }
                Place::Memory(all)
            }
            Some(dir) => {
                let path = dir.join("states");
                let at = |source| LeastSquaresError::Scratch { path: path.clone(), source };
                let file =
                    File::options().read(true).write(true).create(true).truncate(true).open(&path).map_err(at)?;
                // Whatever ends the process, it leaves nothing; the next stream has a file of its own.
                std::fs::remove_file(&path).map_err(at)?;
                let mut buffer = States::new(architecture, waves.iter().map(|wave| wave.rows).max().unwrap_or(0));
                let (mut starts, mut start) = (Vec::new(), 0);
                for wave in &waves {
                    embed(&mut buffer, wave)?;
                    starts.push(start);
                    start = buffer.write(&file, start).map_err(at)?;
                }
                Place::File { file, path, starts, buffer }
            }
        };
        Ok(Self { expert, waves, weights, predicting, place })
    }

    /// Does something with a wave's states, which are kept if it changes them.
    pub(crate) fn with(
        &mut self,
        wave: usize,
        keep: bool,
        work: impl FnOnce(&mut States, &Wave) -> Result<()>,
    ) -> Result<()> {
        let segments = &self.waves[wave];
        match &mut self.place {
            Place::Memory(all) => work(&mut all[wave], segments),
            Place::File { file, path, starts, buffer } => {
                let at = |source| LeastSquaresError::Scratch { path: path.clone(), source };
                buffer.read(file, starts[wave], segments.rows).map_err(at)?;
                work(buffer, segments)?;
                if keep {
                    buffer.write(file, starts[wave]).map_err(at)?;
                }
                Ok(())
            }
        }
    }
}

/// What rows count for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Tokens,
    Predictions,
}

/// A row counts for every sample that it is a part of.
fn weigh(expert: &Expert<'_>, wave: &Wave, of: Of) -> Vec<f32> {
    let mut weights = vec![0.0_f64; wave.rows];
    let (mut row_of, mut rows): (Vec<usize>, usize) = (Vec::new(), 0);
    for (run, segment) in wave.runs.clone().zip(&wave.segments) {
        row_of.truncate(segment.start);
        row_of.extend(rows..rows + segment.rows);
        rows += segment.rows;
        let sample = &expert.samples[run];
        match of {
            Of::Tokens => row_of.iter().zip(&sample.weights).for_each(|(row, weight)| weights[*row] += weight),
            Of::Predictions => {
                sample
                    .predicts
                    .iter()
                    .filter_map(|at| row_of.get(*at as usize))
                    .for_each(|row| weights[*row] += sample.each);
            }
        }
    }
    weights.into_iter().map(|weight| weight as f32).collect()
}
