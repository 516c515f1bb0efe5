//! Attention of single queries over keys and values that grow.

use crate::kernels;
use rolegraft_checkpoint::Architecture;

/// Positions whose keys lie side by side.
const BLOCK: usize = 32;

/// Keys and values of a sequence in one layer, by group of heads.
#[derive(Clone, Default)]
pub(crate) struct Kept {
    groups: Vec<Group>,
}

#[derive(Clone, Default)]
struct Group {
    /// (blocks of positions, width of a head, BLOCK)
    keys: Vec<f32>,
    /// (positions, width of a head)
    values: Vec<f32>,
}

impl Kept {
    /// Keeps the next position's keys and values, (groups, width of a head) each.
    pub(super) fn push(&mut self, keys: &[f32], values: &[f32], dim: usize) {
        self.groups.resize_with(keys.len() / dim, Group::default);
        for ((group, key), value) in self.groups.iter_mut().zip(keys.chunks_exact(dim)).zip(values.chunks_exact(dim)) {
            let position = group.values.len() / dim;
            let block = position / BLOCK * BLOCK * dim;
            group.keys.resize(block + BLOCK * dim, 0.0);
            let places = group.keys[block + position % BLOCK..].iter_mut().step_by(BLOCK);
            places.zip(key).for_each(|(to, from)| *to = *from);
            group.values.extend_from_slice(value);
        }
    }

    /// Forgets all positions from `len` on.
    pub(crate) fn truncate(&mut self, len: usize, dim: usize) {
        for group in &mut self.groups {
            group.values.truncate(len * dim);
            group.keys.truncate(len.div_ceil(BLOCK) * BLOCK * dim);
        }
    }

    /// What the query at `position` gets, all heads: (heads, width of a head) each. It sees the last `window` keys.
    pub(super) fn attend(
        &self,
        (query, position): (&[f32], usize),
        out: &mut [f32],
        (architecture, window): (&Architecture, Option<usize>),
        scores: &mut Vec<f32>,
    ) {
        let (dim, heads) = (architecture.head_dim, architecture.num_attention_heads);
        let (repeat, scale) = (heads / architecture.num_key_value_heads, 1.0 / (dim as f32).sqrt());
        let first = window.map_or(0, |window| (position + 1).saturating_sub(window));
        // Whole blocks, the first and the last included: what is not seen weighs nothing.
        let blocks = first / BLOCK..position / BLOCK + 1;
        scores.resize(blocks.len() * BLOCK, 0.0);
        for (head, (query, out)) in query.chunks_exact(dim).zip(out.chunks_exact_mut(dim)).enumerate() {
            let group = &self.groups[head / repeat];
            let start = blocks.start * BLOCK;
            kernels::block_scores(scores, query, &group.keys[start * dim..blocks.end * BLOCK * dim]);
            kernels::softmax(scores, (first - start, position + 1 - start), scale);
            kernels::weighted(out, &scores[first - start..=position - start], &group.values[first * dim..]);
        }
    }
}
