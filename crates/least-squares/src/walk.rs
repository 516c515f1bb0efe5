//! Experts' samples on their way through the layers: what goes into the maps is summed, layer by layer.

use crate::error::{LeastSquaresError, Result};
use crate::gram::Gram;
use crate::sample::Expert;
use crate::stream::{self, Stream};
use rolegraft_checkpoint::{Architecture, Checkpoint};
use rolegraft_decoder::{DecoderError, Pass, Place, Site, States, Want};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// How it is done.
pub(crate) struct Fitting<'f> {
    /// Bytes that it may use besides a layer's weights and statistics.
    pub(crate) memory: usize,
    /// A folder for states that do not fit.
    pub(crate) scratch: &'f Path,
    /// Ends it.
    pub(crate) stop: &'f AtomicBool,
    /// Told how far it is.
    pub(crate) progress: &'f dyn Fn(&Step<'_>),
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

/// The samples of all experts, at some layer.
pub(crate) struct Walk<'w> {
    architecture: &'w Architecture,
    fitting: &'w Fitting<'w>,
    /// Whether a layer's inputs are what the merged layers before make of the tokens, instead of the expert's own.
    sequential: bool,
    pass: Pass,
    pub(crate) streams: Vec<Stream<'w>>,
    /// Whether the states lie in a scratch file.
    pub(crate) spilled: bool,
    done: usize,
    tokens: usize,
}

impl<'w> Walk<'w> {
    /// At the embeddings: of the experts, or of what they are merged to.
    pub(crate) fn new(
        experts: &'w [Expert<'w>],
        architecture: &'w Architecture,
        merged: Option<&Checkpoint>,
        fitting: &'w Fitting<'w>,
    ) -> Result<Self> {
        let sequential = merged.is_some();
        let (longest, standing) = room(experts, architecture)?;
        let most = fitting.memory.checked_sub(standing).filter(|left| stream::cap(architecture, *left) >= longest);
        let Some(most) = most else {
            let least = standing + States::bytes(architecture, longest + 1) * if sequential { 2 } else { 1 };
            return Err(LeastSquaresError::Memory { memory: fitting.memory, least });
        };
        // A second buffer holds what a sequential fit goes back to.
        let cap = stream::cap(architecture, if sequential { most / 2 } else { most }).max(longest);
        let (all, buffer) = stream::bytes(experts, architecture, cap);
        let spilled = all + if sequential { buffer } else { 0 } > most;
        let scratch = spilled.then_some(fitting.scratch);
        let mut streams = Vec::new();
        for expert in experts {
            streams.push(Stream::new(expert, merged.unwrap_or(expert.checkpoint), architecture, cap, scratch)?);
        }
        let pass = Pass::new(architecture, longest, &Place::cpu())?;
        let per_layer: usize = streams.iter().flat_map(|s| &s.waves).map(|wave| wave.rows).sum();
        let tokens = per_layer * architecture.num_hidden_layers;
        Ok(Self { architecture, fitting, sequential, pass, streams, spilled, done: 0, tokens })
    }

    pub(crate) fn say(&self, layer: usize, what: &str) {
        let layers = self.architecture.num_hidden_layers;
        let step = Step { layer: layer + 1, layers, what, done: self.done.min(self.tokens), tokens: self.tokens };
        (self.fitting.progress)(&step);
    }

    pub(crate) fn goes_on(&self) -> Result<()> {
        if self.fitting.stop.load(Ordering::Relaxed) { Err(LeastSquaresError::Interrupted) } else { Ok(()) }
    }

    /// One expert's layer over its samples: adds what goes into the maps of `sites` to their sums. The stream is at the next
    /// layer then, where there is one or `beyond` says that what comes after is wanted; of a sequential walk it stays.
    pub(crate) fn gather(
        &mut self,
        layer: usize,
        stream: usize,
        sites: &'static [Site],
        sums: &mut [(Site, Gram)],
        beyond: bool,
    ) -> Result<()> {
        let expert = self.streams[stream].expert;
        if let Some(theirs) = &expert.sums {
            self.say(layer, &expert.name);
            return sums.iter_mut().try_for_each(|(site, sum)| theirs.read(layer, *site, sum));
        }
        self.say(layer, &expert.name);
        self.pass.load(expert.checkpoint, layer)?;
        let own = !self.sequential;
        let last = layer + 1 == self.architecture.num_hidden_layers;
        let whole = own && (!last || beyond);
        let mut before = None;
        for wave in 0..self.streams[stream].waves.len() {
            self.goes_on()?;
            let (stop, pass, of) = (self.fitting.stop, &mut self.pass, &mut self.streams[stream]);
            let weights = std::mem::take(&mut of.weights[wave]);
            let done = of.with(wave, own, |states, wave| {
                if !own {
                    before.get_or_insert_with(|| states.clone()).clone_from(states);
                }
                let passed = pass.run(states, &wave.segments, Want { sites, whole }, &mut |seen| {
                    if stop.load(Ordering::Relaxed) {
                        return Err(DecoderError::Stopped("interrupted"));
                    }
                    if let Some((_, sum)) = sums.iter_mut().find(|(site, _)| *site == seen.site) {
                        sum.add(seen, &weights[seen.first..seen.first + seen.rows]);
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
            of.weights[wave] = weights;
            done?;
            if own {
                self.done += self.streams[stream].waves[wave].rows;
                self.say(layer, &expert.name);
            }
        }
        Ok(())
    }

    /// Takes all samples through a merged layer.
    pub(crate) fn go_on(&mut self, merged: &Checkpoint, layer: usize) -> Result<()> {
        self.pass.load(merged, layer)?;
        for stream in 0..self.streams.len() {
            for wave in 0..self.streams[stream].waves.len() {
                self.goes_on()?;
                let (pass, of) = (&mut self.pass, &mut self.streams[stream]);
                of.with(wave, true, |states, wave| {
                    Ok(pass.run(states, &wave.segments, Want { sites: &[], whole: true }, &mut |_| Ok(()))?)
                })?;
                self.done += of.waves[wave].rows;
            }
        }
        Ok(())
    }

    /// E[h hᵀ] of an expert's last states that predict tokens of replies.
    pub(crate) fn head(&mut self, stream: usize, normed_by: &Checkpoint) -> Result<Gram> {
        let mut gram = Gram::new(self.architecture.hidden_size);
        if let Some(theirs) = &self.streams[stream].expert.sums {
            theirs.read_head(&mut gram)?;
            return Ok(gram);
        }
        let norm = normed_by.f32(self.architecture.last_norm())?;
        for wave in 0..self.streams[stream].waves.len() {
            self.goes_on()?;
            let of = &mut self.streams[stream];
            let weights = std::mem::take(&mut of.predicting[wave]);
            of.with(wave, false, |states, _| {
                Ok(states.normed(&norm, self.architecture.rms_norm_eps as f32, &mut |seen| {
                    gram.add(seen, &weights[seen.first..seen.first + seen.rows]);
                    Ok(())
                })?)
            })?;
        }
        Ok(gram)
    }
}
