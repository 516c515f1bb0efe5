//! How fast this machine runs a model, found by running a part of it.

use crate::error::Result;
use crate::pass::{Pass, Segment, States, Want};
use crate::place::Place;
use candle_core::{DType, Tensor};
use rayon::prelude::*;
use rolegraft_checkpoint::{Architecture, Checkpoint};
use std::time::{Duration, Instant};

/// Speeds of a model on a device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Tokens a second through all layers, many at once: traces, prompts.
    pub reading: f64,
    /// Seconds to load all layers once.
    pub loading: f64,
    /// Tokens a second, one after another, if nothing but the weights' way from memory took time: replies.
    pub writing: f64,
}

/// Tokens that are read at once.
const ROWS: usize = 1024;
/// Numbers that are summed up to see how fast memory is.
const NUMBERS: usize = 1 << 26;

impl Pace {
    /// Measures the first layer for about twice so long.
    ///
    /// # Errors
    /// If it cannot be run.
    pub fn measure(checkpoint: &Checkpoint, place: &Place, time: Duration) -> Result<Self> {
        let architecture = Architecture::of(checkpoint)?;
        let rows = ROWS.min(architecture.max_position_embeddings);
        let ids: Vec<u32> = (0..rows).map(|at| (at * 7919 % architecture.vocab_size) as u32).collect();
        let layers = architecture.num_hidden_layers as f64;
        let mut states = States::new(&architecture, rows);
        let mut pass = Pass::new(&architecture, rows, place)?;
        let begun = Instant::now();
        pass.load(checkpoint, 0)?;
        let loading = layers * begun.elapsed().as_secs_f64();
        let mut run = || {
            states.clear();
            states.embed(checkpoint, &architecture, &ids)?;
            // What was worked out has been waited for when it is seen.
            pass.run(&mut states, &[Segment { start: 0, rows }], Want { sites: &[], whole: true }, &mut |_| Ok(()))
        };
        // The first time is slower.
        run()?;
        let (begun, mut runs) = (Instant::now(), 0);
        while runs == 0 || begun.elapsed() < time {
            run()?;
            runs += 1;
        }
        let reading = (runs * rows) as f64 / begun.elapsed().as_secs_f64() / layers;
        let weights = (architecture.parameters() * if place.is_cpu() { 4 } else { 2 }) as f64;
        Ok(Self { reading, loading, writing: bandwidth(place, time)? / weights })
    }
}

/// Bytes that come from a device's memory in a second.
fn bandwidth(place: &Place, time: Duration) -> Result<f64> {
    let on_card = match place.is_cpu() {
        true => None,
        false => Some(Tensor::zeros(NUMBERS, DType::F32, &place.device)?),
    };
    let in_memory = vec![1.0_f32; if place.is_cpu() { NUMBERS } else { 0 }];
    let sum = || match &on_card {
        Some(tensor) => tensor.sum_all()?.to_scalar::<f32>(),
        None => Ok(in_memory.par_chunks(1 << 16).map(sum_of).sum()),
    };
    std::hint::black_box(sum()?);
    let (begun, mut sums) = (Instant::now(), 0);
    while sums == 0 || begun.elapsed() < time {
        std::hint::black_box(sum()?);
        sums += 1;
    }
    Ok((sums * NUMBERS * size_of::<f32>()) as f64 / begun.elapsed().as_secs_f64())
}

/// In lanes, so that adding takes no time beside reading.
fn sum_of(numbers: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 32];
    for chunk in numbers.chunks_exact(lanes.len()) {
        lanes.iter_mut().zip(chunk).for_each(|(lane, x)| *lane += x);
    }
    lanes.iter().sum()
}
