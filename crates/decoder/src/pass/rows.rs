//! Rows of states: how they are cut, and what is seen of them.

use crate::error::{DecoderError, Result};
use rolegraft_checkpoint::Map;

/// Rows that are worked on together: many, since a product rearranges the weights first.
pub(crate) const BLOCK: usize = 1024;
/// Products have a multiple of so many rows. The library sums alike for all such (gemm-common 0.19, cache.rs: how the sum is
/// divided hangs on its length alone), so what comes out for a row does not depend on how many others there are.
pub(crate) const GRAIN: usize = 128;

/// Consecutive tokens of a sequence. Those before `start` are the first `start` of the sequence that came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// The position of its first token.
    pub start: usize,
    /// How many tokens it has: rows of the states, after those of the segment before.
    pub rows: usize,
}

/// Where a layer's linear maps get their input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Site {
    /// The normed stream that queries, keys and values come from.
    Attention,
    /// What attention mixed, heads side by side.
    Output,
    /// The normed stream that gate and up come from.
    Mlp,
    /// The MLP's activations, act(gate)·up.
    Down,
    /// The normed stream after the last layer, which the head reads.
    Head,
}

impl Site {
    /// A layer's, in the order in which it comes to them.
    pub const ALL: [Self; 4] = [Self::Attention, Self::Output, Self::Mlp, Self::Down];

    /// The maps of this input.
    #[must_use]
    pub fn maps(self) -> &'static [Map] {
        match self {
            Self::Attention => &[Map::Q, Map::K, Map::V],
            Self::Output => &[Map::O],
            Self::Mlp => &[Map::Gate, Map::Up],
            Self::Down => &[Map::Down],
            Self::Head => &[],
        }
    }
}

/// What a pass is run for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// What is seen.
    pub sites: &'static [Site],
    /// Whether the stream goes on to a next layer. If not, the layer's last product is left out.
    pub whole: bool,
}

/// What some rows are at a site.
#[derive(Clone, Copy)]
pub struct Activations<'z> {
    /// Where.
    pub site: Site,
    pub(super) values: &'z [f32],
    pub(super) stride: usize,
    pub(super) width: usize,
    /// The first of the rows.
    pub first: usize,
    /// How many there are.
    pub rows: usize,
}

impl Activations<'_> {
    /// A row: a number a channel; of [`Site::Down`], a neuron.
    #[must_use]
    pub fn row(&self, row: usize) -> &[f32] {
        let at = (row - self.first) * self.stride;
        &self.values[at..at + self.width]
    }
}

/// Sees activations, block by block, in order, each at the sites that are wanted. May stop the pass.
pub type See<'s> = dyn FnMut(Activations<'_>) -> Result<()> + 's;

/// Segments cut at every [`BLOCK`] rows: the first row, and the pieces by position and length.
pub(super) fn blocks(segments: &[Segment]) -> Vec<(usize, Vec<Segment>)> {
    let mut blocks: Vec<(usize, Vec<Segment>)> = Vec::new();
    let mut row = 0;
    for segment in segments {
        let (mut start, mut left) = (segment.start, segment.rows);
        while left > 0 {
            if row % BLOCK == 0 {
                blocks.push((row, Vec::new()));
            }
            let rows = left.min(BLOCK - row % BLOCK);
            if let Some((_, pieces)) = blocks.last_mut() {
                pieces.push(Segment { start, rows });
            }
            (row, start, left) = (row + rows, start + rows, left - rows);
        }
    }
    blocks
}

/// Refuses activations that are no numbers.
pub(super) fn finite(values: &[f32], layer: usize) -> Result<()> {
    // Not `all`, which looks at one after another.
    let finite = values.iter().fold(true, |finite, v| finite & v.is_finite());
    if finite { Ok(()) } else { Err(DecoderError::NonFinite { layer }) }
}
