//! Which runs go together, in which order, within a budget.

use crate::saliency::Saliency;
use rolegraft_checkpoint::{Architecture, WriteError};
use rolegraft_decoder::{DecoderError, Pass, States, Wave, waves};
use std::borrow::Cow;

/// Tokens that the model saw as one context. Runs of one trajectory follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run<'c> {
    /// The trajectory: usually of one run; of several where the chat template rewrites earlier turns.
    pub trajectory: usize,
    /// Ids from the start of the context.
    pub ids: &'c [u32],
}

/// Where one saliency is read: by run, positions in ascending order; nothing for runs of trajectories that are no part of
/// it. A trajectory without a position is counted as such.
pub type Reading<'c> = Box<dyn Fn(usize) -> Option<Cow<'c, [u32]>> + 'c>;

/// Why a trace ends early.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum TraceError {
    #[error(transparent)]
    Decoder(#[from] DecoderError),
    #[error("interrupted")]
    Interrupted,
    #[error(
        "{} of memory are too little to trace {tokens} tokens in a row: at least {} are needed beside a layer's weights ({}); \
         give more with --memory, or leave out longer runs",
        size(*.memory), size(*.least), size(*.layer)
    )]
    Memory { memory: usize, least: usize, layer: usize, tokens: usize },
    #[error("what was traced so far cannot be kept: {0}")]
    Journal(#[from] WriteError),
}

/// Bytes for people, rounded up.
fn size(bytes: usize) -> String {
    const MB: usize = 1_000_000;
    if bytes < 10_000 * MB { format!("{} MB", bytes.div_ceil(MB)) } else { format!("{:.1} GB", bytes as f64 / 1e9) }
}

/// What a plan keeps to.
#[derive(Clone, Copy)]
pub(crate) struct Budget {
    /// Bytes besides one layer's weights.
    pub(crate) memory: usize,
    /// Of these, bytes held by others.
    pub(crate) held: usize,
    /// Tokens of a wave at most.
    pub(crate) cap: usize,
    /// Whether another checkpoint reads along.
    pub(crate) compares: bool,
}

/// All waves.
pub(crate) struct Plan {
    /// Runs that are looked at, by their ids.
    pub(crate) order: Vec<usize>,
    /// What is not done yet.
    pub(crate) waves: Vec<Wave>,
    /// Tokens of the longest run.
    pub(crate) longest: usize,
}

/// What a trace needs whatever it traces: sums of the readings, and what a pass holds besides the weights.
pub(crate) fn standing(architecture: &Architecture, longest: usize, readings: usize) -> usize {
    // Written once more where they are kept after a wave.
    Pass::bytes(architecture, longest).1 + 2 * readings * Saliency::bytes(architecture)
}

impl Plan {
    /// Of what is left after the first `done` runs.
    pub(crate) fn new(
        architecture: &Architecture,
        runs: &[Run<'_>],
        readings: &[Reading<'_>],
        Budget { memory, held, cap, compares }: Budget,
        done: usize,
    ) -> Result<Self, TraceError> {
        // Of a run: tokens up to the last that is looked at, how many are looked at, and by how many readings.
        let mut seen: Vec<(usize, usize, usize)> = Vec::with_capacity(runs.len());
        for (at, run) in runs.iter().enumerate() {
            let (mut end, mut looked, mut looks) = (0, 0, 0);
            for positions in readings.iter().filter_map(|reading| reading(at)) {
                end = end.max(positions.last().map_or(0, |last| *last as usize + 1));
                looked += positions.len();
                looks += usize::from(!positions.is_empty());
            }
            let limit = run.ids.len().min(architecture.max_position_embeddings);
            if end > limit {
                return Err(DecoderError::TooLong { tokens: end, limit }.into());
            }
            seen.push((end, looked, looks));
        }
        let ids = |run: usize| &runs[run].ids[..seen[run].0];
        let mut order: Vec<usize> = (0..runs.len()).filter(|run| seen[*run].0 > 0).collect();
        // By all their ids, whoever looks at how many: sums come about in this order.
        order.sort_by(|a, b| runs[*a].ids.cmp(runs[*b].ids).then(a.cmp(b)));
        let longest = seen.iter().map(|(end, ..)| *end).max().unwrap_or(0).max(1);

        // Another checkpoint's states, its activations where it is looked at, and a layer's `down_proj` besides.
        let (hidden, width) = (architecture.hidden_size, architecture.intermediate_size);
        let (states, activations, down) = if compares { (2, width, hidden * width) } else { (1, 0, 0) };
        let fixed = held
            + size_of::<f32>() * down
            + standing(architecture, longest, readings.len())
            + 4 * longest
            + 64 * runs.len();
        // What a run needs of which so many tokens are worked out.
        let cost = |run: usize, rows: usize| {
            let (_, looked, looks) = seen[run];
            let sums = size_of::<f64>() * width * looks;
            size_of::<f32>() * (states * hidden * rows + (1 + activations) * looked) + sums + 128 * looks
        };
        let block = states * States::bytes(architecture, 1);
        let worst = order.iter().map(|run| (cost(*run, seen[*run].0), seen[*run].0)).max().unwrap_or((0, 0));
        let least = fixed + block + worst.0;
        if least > memory {
            let layer = Pass::bytes(architecture, longest).0;
            return Err(TraceError::Memory { memory, least, layer, tokens: worst.1 });
        }
        let room = (cap, memory - fixed - block);
        let waves = waves(|at| ids(order[at]), done..order.len(), room, |at, rows| cost(order[at], rows));
        Ok(Self { order, waves, longest })
    }

    /// Tokens of the largest wave.
    pub(crate) fn rows(&self) -> usize {
        self.waves.iter().map(|wave| wave.rows).max().unwrap_or(0)
    }

    /// Tokens that are worked out.
    pub(crate) fn tokens(&self) -> usize {
        self.waves.iter().map(|wave| wave.rows).sum()
    }
}
