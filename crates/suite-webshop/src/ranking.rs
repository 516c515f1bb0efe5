//! The way through postings to the best hits.

use crate::layout::asin;
use crate::postings::{BLOCK, BLOCK_HEAD, read_number, word};

/// A product that a search found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// The product's number.
    pub document: u32,
    /// How well it fits.
    pub score: f32,
}

/// Stands after the last document of a term.
pub(crate) const END: u32 = u32::MAX;
/// What rounding may add to a sum.
pub(crate) const SLACK: f64 = 1e-5;

/// The best hits so far.
pub(crate) struct Top<'i> {
    /// Ids of all products.
    asins: &'i [u8],
    k: usize,
    hits: Vec<Hit>,
    /// The least score that counts, once there are enough.
    least: f32,
}

impl<'i> Top<'i> {
    /// Nothing yet; there is room for `k`.
    pub(crate) fn new(asins: &'i [u8], k: usize) -> Self {
        Self { asins, k, hits: Vec::new(), least: 0.0 }
    }

    /// The least score that counts.
    pub(crate) fn least(&self) -> f32 {
        self.least
    }

    /// Takes a hit. Whether the least score that counts has changed.
    pub(crate) fn add(&mut self, hit: Hit) -> bool {
        if hit.score < self.least {
            return false;
        }
        self.hits.push(hit);
        if self.hits.len() < 2 * self.k.max(1) {
            return false;
        }
        self.cut();
        true
    }

    fn cut(&mut self) {
        let id = |hit: &Hit| asin(self.asins, hit.document);
        self.hits.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then_with(|| id(a).cmp(id(b))));
        self.hits.truncate(self.k);
        if self.hits.len() == self.k {
            self.least = self.hits.last().map_or(f32::INFINITY, |hit| hit.score);
        }
    }

    pub(crate) fn finish(mut self) -> Vec<Hit> {
        self.cut();
        self.hits
    }
}

/// A way through a term's postings, a block at a time.
pub(crate) struct Cursor<'i> {
    weight: f32,
    /// The most that it gives a document.
    pub(crate) most: f64,
    heads: &'i [u8],
    body: &'i [u8],
    blocks: usize,
    block: usize,
    documents: [u32; BLOCK],
    counts: [u32; BLOCK],
    held: usize,
    at: usize,
}

impl<'i> Cursor<'i> {
    /// At the first of so many blocks.
    pub(crate) fn new(weight: f32, most: f64, heads: &'i [u8], body: &'i [u8], blocks: usize) -> Self {
        let (documents, counts) = ([0; BLOCK], [0; BLOCK]);
        let mut cursor = Self { weight, most, heads, body, blocks, block: 0, documents, counts, held: 0, at: 0 };
        cursor.load();
        cursor
    }

    fn head(&self, block: usize, part: usize) -> u32 {
        word(self.heads, block * BLOCK_HEAD + part * 4)
    }

    /// The last document of a block.
    fn last(&self, block: usize) -> u32 {
        self.head(block, 0)
    }

    /// Reads the block it stands at.
    fn load(&mut self) {
        (self.held, self.at) = (0, 0);
        if self.block >= self.blocks {
            return;
        }
        let (mut document, mut from) = match self.block.checked_sub(1) {
            Some(before) => (self.last(before), self.head(before, 1) as usize),
            None => (0, 0),
        };
        let bytes = self.body.get(..self.head(self.block, 1) as usize).unwrap_or_default();
        while self.held < BLOCK
            && let (Some(step), Some(count)) = (read_number(bytes, &mut from), read_number(bytes, &mut from))
        {
            document = document.wrapping_add(step);
            (self.documents[self.held], self.counts[self.held]) = (document, count);
            self.held += 1;
        }
    }

    pub(crate) fn document(&self) -> u32 {
        if self.at < self.held { self.documents[self.at] } else { END }
    }

    pub(crate) fn score(&self, factor: f32) -> f32 {
        self.weight - self.weight / (1.0 + self.counts[self.at] as f32 * factor)
    }

    pub(crate) fn next(&mut self) {
        self.at += 1;
        if self.at >= self.held && self.block < self.blocks {
            self.block += 1;
            self.load();
        }
    }

    /// Goes on to the first document from `target` on.
    pub(crate) fn seek(&mut self, target: u32) {
        if self.document() >= target {
            return;
        }
        if self.last(self.block) < target {
            while self.block < self.blocks && self.last(self.block) < target {
                self.block += 1;
            }
            self.load();
        }
        while self.at < self.held && self.documents[self.at] < target {
            self.at += 1;
        }
    }

    /// Goes past blocks that give less than `least`. Whether any is left.
    pub(crate) fn pass(&mut self, least: f64) -> bool {
        if self.at == 0 {
            let begin = self.block;
            while self.block < self.blocks && f64::from(self.weight * f32::from_bits(self.head(self.block, 2))) < least
            {
                self.block += 1;
            }
            if self.block > begin {
                self.load();
            }
        }
        self.block < self.blocks
    }
}
