//! A layer on the CPU: few large products in which all threads work, and rows in between.

use super::rows::{Activations, BLOCK, GRAIN, See, Segment, Site, Want, blocks, finite};
use super::states::States;
use super::weights::{Maps, Scratch};
use crate::error::Result;
use crate::gemm::{Matrix, multiply};
use crate::kernels;
use crate::rotary::Angles;
use rayon::prelude::*;
use rolegraft_checkpoint::{Architecture, Checkpoint, Map};
use std::sync::{Mutex, PoisonError};

/// Queries that attend together: those of the positions from a multiple of this on.
const QUERIES: usize = 64;
/// Rows that a thread takes at least.
const ROWS: usize = 8;

/// A layer on the CPU.
pub struct CpuPass {
    architecture: Architecture,
    layer: usize,
    angles: Angles,
    input_norm: Vec<f32>,
    post_norm: Vec<f32>,
    head_norms: Option<(Vec<f32>, Vec<f32>)>,
    qkv: Maps,
    output: Maps,
    gate_up: Maps,
    down: Maps,
    path: Path,
    rows: Rows,
    scratch: Scratch,
}

/// Keys and values of the sequence that is worked on, by position. A segment that goes on with an earlier sequence finds
/// that one's here.
struct Path {
    capacity: usize,
    /// (groups, width of a head, positions)
    keys: Vec<f32>,
    /// (groups, positions, width of a head)
    values: Vec<f32>,
    /// Queries and scores of a thread.
    threads: Vec<Mutex<Vec<f32>>>,
}

/// A block's rows between products.
struct Rows {
    normed: Vec<f32>,
    qkv: Vec<f32>,
    /// (query blocks, heads, queries, width of a head)
    attended: Vec<f32>,
    mixed: Vec<f32>,
    gate_up: Vec<f32>,
}

/// Query blocks that a block of rows touches at most.
const TOUCHED: usize = BLOCK / QUERIES + 1;

impl CpuPass {
    pub(super) fn new(architecture: &Architecture, longest: usize) -> Self {
        let a = architecture;
        let capacity = longest.next_multiple_of(QUERIES);
        let (queries, keys) = (a.queries(), a.keys());
        let per_thread = QUERIES * (2 * a.head_dim + capacity);
        let maps = |maps: &[Map]| Maps::new(a, maps);
        Self {
            layer: 0,
            angles: Angles::new(a, longest),
            input_norm: vec![0.0; a.hidden_size],
            post_norm: vec![0.0; a.hidden_size],
            head_norms: a.head_norms().then(|| (vec![0.0; a.head_dim], vec![0.0; a.head_dim])),
            qkv: maps(&[Map::Q, Map::K, Map::V]),
            output: maps(&[Map::O]),
            gate_up: maps(&[Map::Gate, Map::Up]),
            down: maps(&[Map::Down]),
            path: Path {
                capacity,
                keys: vec![0.0; keys * capacity],
                values: vec![0.0; keys * capacity],
                threads: (0..rayon::current_num_threads()).map(|_| Mutex::new(vec![0.0; per_thread])).collect(),
            },
            rows: Rows {
                normed: vec![0.0; BLOCK * a.hidden_size],
                qkv: vec![0.0; BLOCK * (queries + 2 * keys)],
                attended: vec![0.0; TOUCHED * QUERIES * queries],
                mixed: vec![0.0; BLOCK * queries],
                gate_up: vec![0.0; BLOCK * 2 * a.intermediate_size],
            },
            scratch: Scratch::default(),
            architecture: architecture.clone(),
        }
    }

    /// Bytes besides the weights.
    pub(super) fn bytes(architecture: &Architecture, longest: usize) -> usize {
        let a = architecture;
        let capacity = longest.next_multiple_of(QUERIES);
        let threads = rayon::current_num_threads() * QUERIES * (2 * a.head_dim + capacity);
        let rows = a.hidden_size + a.queries() + 2 * a.keys() + a.queries() + 2 * a.intermediate_size;
        let floats = 2 * a.keys() * capacity + threads + BLOCK * rows + TOUCHED * QUERIES * a.queries();
        size_of::<f32>() * floats + Angles::bytes(a) * longest + Scratch::bytes(a)
    }

    pub(super) fn load(&mut self, checkpoint: &Checkpoint, layer: usize) -> Result<()> {
        self.layer = layer;
        for maps in [&mut self.qkv, &mut self.output, &mut self.gate_up, &mut self.down] {
            maps.load(checkpoint, layer, &mut self.scratch)?;
        }
        let mut norm = |out: &mut [f32], part: &str| -> Result<()> {
            let name = Architecture::in_layer(layer, &format!("{part}.weight"));
            let len = out.len();
            out.copy_from_slice(self.scratch.read(checkpoint, &name, 0, len)?);
            Ok(())
        };
        norm(&mut self.input_norm, "input_layernorm")?;
        norm(&mut self.post_norm, "post_attention_layernorm")?;
        if let Some((q, k)) = &mut self.head_norms {
            norm(q, "self_attn.q_norm")?;
            norm(k, "self_attn.k_norm")?;
        }
        Ok(())
    }

    pub(super) fn run(
        &mut self,
        states: &mut States,
        segments: &[Segment],
        want: Want,
        see: &mut See<'_>,
    ) -> Result<()> {
        let a = &self.architecture;
        let (eps, neurons) = (a.rms_norm_eps as f32, a.intermediate_size);
        let Rows { normed, qkv, attended, mixed, gate_up } = &mut self.rows;
        for (first, pieces) in blocks(segments) {
            let count = pieces.iter().map(|piece| piece.rows).sum::<usize>();
            let x = states.block(first, count);
            let all = count.next_multiple_of(GRAIN);
            let (normed, qkv) = (&mut normed[..all * a.hidden_size], &mut qkv[..all * self.qkv.outputs]);
            let (mixed, gate_up) = (&mut mixed[..all * a.queries()], &mut gate_up[..all * 2 * neurons]);
            let mut show = |site, values: &[f32], stride, width| match want.sites.contains(&site) {
                true => see(Activations { site, values, stride, width, first, rows: count }),
                false => Ok(()),
            };
            norm_rows(normed, x, &self.input_norm, eps);
            show(Site::Attention, normed, a.hidden_size, a.hidden_size)?;
            linear(qkv, normed, &self.qkv);
            turn(qkv, &pieces, a, &self.angles, self.head_norms.as_ref());
            let mut row = 0;
            for piece in pieces {
                let width = self.qkv.outputs;
                let rows = row..row + piece.rows;
                let qkv = &qkv[rows.start * width..rows.end * width];
                self.path.keep(qkv, piece, a);
                self.path.attend(attended, qkv, piece, a, self.layer);
                gather(&mut mixed[rows.start * a.queries()..rows.end * a.queries()], attended, piece, a);
                row += piece.rows;
            }
            mixed[count * a.queries()..].fill(0.0);
            show(Site::Output, mixed, a.queries(), a.queries())?;
            add_linear(x, Matrix::new(mixed, all, a.queries()), &self.output);
            norm_rows(normed, x, &self.post_norm, eps);
            show(Site::Mlp, normed, a.hidden_size, a.hidden_size)?;
            linear(gate_up, normed, &self.gate_up);
            gate_up.par_chunks_mut(2 * neurons).with_min_len(ROWS).for_each(|row| {
                let (gate, up) = row.split_at_mut(neurons);
                kernels::silu_up(gate, up);
            });
            let seen = &gate_up[..count * 2 * neurons];
            finite(seen, self.layer)?;
            show(Site::Down, seen, 2 * neurons, neurons)?;
            if want.whole {
                add_linear(x, Matrix { values: gate_up, rows: all, columns: neurons, stride: 2 * neurons }, &self.down);
            }
        }
        Ok(())
    }
}

fn norm_rows(out: &mut [f32], x: &[f32], weight: &[f32], eps: f32) {
    let width = weight.len();
    let rows = out.par_chunks_mut(width).zip(x.par_chunks(width)).with_min_len(ROWS);
    rows.for_each(|(out, row)| kernels::rms_norm(out, row, weight, eps));
}

/// out = y·W + b
fn linear(out: &mut [f32], y: &[f32], maps: &Maps) {
    let weight = Matrix::new(&maps.weight, maps.inputs, maps.outputs);
    multiply(out, maps.outputs, Matrix::new(y, y.len() / maps.inputs, maps.inputs), weight, false, true);
    add_bias(out, maps);
}

/// x += y·W + b
fn add_linear(x: &mut [f32], y: Matrix<'_>, maps: &Maps) {
    multiply(x, maps.outputs, y, Matrix::new(&maps.weight, maps.inputs, maps.outputs), true, true);
    add_bias(x, maps);
}

fn add_bias(out: &mut [f32], maps: &Maps) {
    if !maps.bias.is_empty() {
        out.chunks_exact_mut(maps.outputs).for_each(|row| kernels::add(row, &maps.bias));
    }
}

/// Norms and turns queries and keys.
fn turn(qkv: &mut [f32], pieces: &[Segment], a: &Architecture, angles: &Angles, norms: Option<&(Vec<f32>, Vec<f32>)>) {
    let (queries, keys, dim, eps) = (a.queries(), a.keys(), a.head_dim, a.rms_norm_eps as f32);
    let positions: Vec<usize> = pieces.iter().flat_map(|piece| piece.start..piece.start + piece.rows).collect();
    let rows = qkv.par_chunks_mut(queries + 2 * keys).zip(&positions).with_min_len(ROWS);
    rows.for_each(|(row, position)| {
        let (q, rest) = row.split_at_mut(queries);
        for (heads, norm) in [(q, norms.map(|n| &n.0)), (&mut rest[..keys], norms.map(|n| &n.1))] {
            for head in heads.chunks_exact_mut(dim) {
                if let Some(weight) = norm {
                    kernels::rms_norm_in_place(head, weight, eps);
                }
                kernels::rotate(head, angles.at(*position));
            }
        }
    });
}

impl Path {
    /// Keeps the keys and values of a piece.
    fn keep(&mut self, qkv: &[f32], piece: Segment, a: &Architecture) {
        let (queries, keys, dim) = (a.queries(), a.keys(), a.head_dim);
        let width = queries + 2 * keys;
        let (capacity, groups) = (self.capacity, self.keys.par_chunks_mut(dim * self.capacity));
        groups.zip(self.values.par_chunks_mut(dim * capacity)).enumerate().for_each(|(group, (k, v))| {
            for (row, position) in qkv.chunks_exact(width).zip(piece.start..) {
                let (key, value) = (&row[queries + group * dim..][..dim], &row[queries + keys + group * dim..][..dim]);
                key.iter().enumerate().for_each(|(i, key)| k[i * capacity + position] = *key);
                v[position * dim..][..dim].copy_from_slice(value);
            }
        });
    }

    /// Attention of a piece's queries. Blocks of queries are those of their positions, whole even where the piece has a part
    /// of one: products have the same shapes wherever a sequence is cut.
    fn attend(&mut self, attended: &mut [f32], qkv: &[f32], piece: Segment, a: &Architecture, layer: usize) {
        let (heads, dim) = (a.num_attention_heads, a.head_dim);
        let (width, repeat) = (a.queries() + 2 * a.keys(), heads / a.num_key_value_heads);
        let (scale, window) = (1.0 / (dim as f32).sqrt(), a.windows[layer]);
        let end = piece.start + piece.rows;
        let from = piece.start / QUERIES;
        let touched = end.div_ceil(QUERIES) - from;
        let this = &*self;
        let tasks = attended.par_chunks_mut(QUERIES * dim).take(touched * heads).enumerate();
        tasks.for_each(|(task, out)| {
            let (block, head) = (from + task / heads, task % heads);
            let group = head / repeat;
            let positions = block * QUERIES..(block + 1) * QUERIES;
            // Keys from a multiple of the block's width on: what is summed does not hang on where a piece begins.
            let first = window.map_or(0, |window| (positions.start + 1).saturating_sub(window) / QUERIES * QUERIES);
            let seen = positions.end - first;
            let thread = &this.threads[rayon::current_thread_index().unwrap_or(0)];
            let mut thread = thread.lock().unwrap_or_else(PoisonError::into_inner);
            let (q, scores) = thread.split_at_mut(QUERIES * dim);
            let scores = &mut scores[..QUERIES * seen];
            for (position, q) in positions.clone().zip(q.chunks_exact_mut(dim)) {
                match position.checked_sub(piece.start).filter(|row| *row < piece.rows) {
                    Some(row) => q.copy_from_slice(&qkv[row * width + head * dim..][..dim]),
                    None => q.fill(0.0),
                }
            }
            let keys = &this.keys[group * dim * this.capacity + first..(group + 1) * dim * this.capacity];
            let keys = Matrix { values: keys, rows: dim, columns: seen, stride: this.capacity };
            multiply(scores, seen, Matrix::new(q, QUERIES, dim), keys, false, false);
            for (position, scores) in positions.zip(scores.chunks_exact_mut(seen)) {
                let nearest = window.map_or(0, |window| (position + 1).saturating_sub(window).max(first) - first);
                kernels::softmax(scores, (nearest, position + 1 - first), scale);
            }
            let values = &this.values[(group * this.capacity + first) * dim..(group + 1) * this.capacity * dim];
            multiply(out, dim, Matrix::new(scores, QUERIES, seen), Matrix::new(values, seen, dim), false, false);
        });
    }
}

/// What attention gave, by row.
fn gather(mixed: &mut [f32], attended: &[f32], piece: Segment, a: &Architecture) {
    let (heads, dim) = (a.num_attention_heads, a.head_dim);
    let from = piece.start / QUERIES;
    for (row, position) in mixed.chunks_exact_mut(heads * dim).zip(piece.start..) {
        let (block, query) = (position / QUERIES - from, position % QUERIES);
        for (head, out) in row.chunks_exact_mut(dim).enumerate() {
            let at = ((block * heads + head) * QUERIES + query) * dim;
            out.copy_from_slice(&attended[at..at + dim]);
        }
    }
}
