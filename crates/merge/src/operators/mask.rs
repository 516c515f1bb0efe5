//! Which elements of a task vector a sparsifier keeps.

use super::probability::{Probability, Ranks};
use crate::random::Stream;
use crate::rank::Cut;
use crate::source::TILE;

/// Which elements of one expert's task vector stay.
pub(crate) enum Keep {
    All,
    None,
    /// By magnitude: all the cuts must keep it.
    Cuts(Vec<Cut>),
    /// Draw below the bound.
    Random(Stream, u32),
    /// Draw below a bound that grows with the rank of the magnitude in its row.
    ByRank(Stream, Probability),
    /// As a recording says.
    Recorded(Vec<u8>),
    /// As was decided before.
    Decided(Decisions),
}

/// A bit an element: whether it stays.
pub(crate) struct Decisions {
    /// Elements of a segment.
    pub(super) segment: usize,
    pub(super) bits: Vec<Vec<u8>>,
}

impl Decisions {
    #[inline(always)]
    fn mask(&self, delta: &mut [f32], start: usize) {
        let bits = &self.bits[start / self.segment][start % self.segment / 8..];
        let (chunks, tail) = delta.as_chunks_mut::<8>();
        for (chunk, bits) in chunks.iter_mut().zip(bits) {
            for (i, d) in chunk.iter_mut().enumerate() {
                *d = if bits >> i & 1 == 0 { 0.0 } else { *d };
            }
        }
        for (i, d) in tail.iter_mut().enumerate() {
            *d = if bits[chunks.len()] >> i & 1 == 0 { 0.0 } else { *d };
        }
    }

    /// Adds the decisions on a run; what is zero anyway may go.
    #[inline(always)]
    pub(super) fn note(bits: &mut Vec<u8>, delta: &[f32]) {
        let mut flags = [0u8; TILE];
        for run in delta.chunks(TILE) {
            for (flag, d) in flags.iter_mut().zip(run) {
                *flag = u8::from(*d != 0.0);
            }
            flags[run.len()..].iter_mut().for_each(|f| *f = 0);
            let from = bits.len();
            bits.resize(from + run.len().div_ceil(8), 0);
            // Eight bytes of 0 or 1 become a byte of eight bits by one multiplication.
            for (out, flags) in bits[from..].iter_mut().zip(flags.as_chunks::<8>().0) {
                *out = (u64::from_le_bytes(*flags).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u8;
            }
        }
    }
}

/// Reused by masks.
#[derive(Default)]
pub(crate) struct Scratch {
    draws: Vec<u32>,
    ranks: Ranks,
}

impl Keep {
    /// Zeroes what does not stay. `delta` starts at element `start`, and at a row's beginning where ranks are by row.
    #[inline(always)]
    pub(super) fn mask(&self, delta: &mut [f32], start: usize, row: usize, scratch: &mut Scratch) {
        match self {
            Self::All => {}
            Self::None => delta.fill(0.0),
            Self::Cuts(cuts) => cuts.iter().for_each(|cut| cut.mask(delta, start as u64)),
            Self::Random(stream, bound) => {
                scratch.draws.resize(delta.len(), 0);
                stream.fill(start as u64, &mut scratch.draws);
                for (d, draw) in delta.iter_mut().zip(&scratch.draws) {
                    *d = if draw < bound { *d } else { 0.0 };
                }
            }
            Self::ByRank(stream, probability) => {
                scratch.draws.resize(delta.len(), 0);
                stream.fill(start as u64, &mut scratch.draws);
                for (delta, draws) in delta.chunks_mut(row).zip(scratch.draws.chunks(row)) {
                    probability.mask(delta, draws, &mut scratch.ranks);
                }
            }
            Self::Decided(decisions) => decisions.mask(delta, start),
            Self::Recorded(mask) => {
                for (d, kept) in delta.iter_mut().zip(&mask[start..]) {
                    *d = if *kept == 0 { 0.0 } else { *d };
                }
            }
        }
    }
}
