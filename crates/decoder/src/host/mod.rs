//! A whole model in main memory that reads for many sequences at once, in F32.

mod attention;
mod packed;

use crate::error::Result;
use crate::kernels;
use crate::pass::{Maps, Scratch};
use crate::rotary::Angles;
use attention::Kept;
use packed::{LARGE, Packed, Products};
use rayon::prelude::*;
use rolegraft_checkpoint::{Architecture, Checkpoint, Map, OpenError};
use std::sync::{Mutex, PoisonError};

/// Rows that go through the layers together, at most.
const ROWS: usize = 256;

/// Keys and values of a sequence, by layer.
pub(crate) type HostCache = Vec<Kept>;

/// A model's weights.
pub(crate) struct Host {
    /// The embedding, where it is not the head.
    embedding: Option<Vec<f32>>,
    layers: Vec<HostLayer>,
    norm: Vec<f32>,
    head: Packed,
    angles: Angles,
    /// What threads do not use now.
    memory: Mutex<Vec<Memory>>,
}

struct HostLayer {
    input_norm: Vec<f32>,
    post_norm: Vec<f32>,
    head_norms: Option<(Vec<f32>, Vec<f32>)>,
    qkv: Linear,
    output: Linear,
    gate_up: Linear,
    down: Linear,
}

struct Linear {
    weight: Packed,
    /// Empty, if it has none.
    bias: Vec<f32>,
}

/// What a sequence reads next: ids after what its cache holds.
pub(crate) struct Read<'r> {
    pub(crate) ids: &'r [u32],
    /// Position of the first.
    pub(crate) start: usize,
    pub(crate) cache: &'r mut HostCache,
}

/// Where a row is: in which sequence, at which position, and whether its logits are wanted.
struct Row {
    of: usize,
    position: usize,
    last: bool,
}

#[derive(Default)]
struct Memory {
    x: Vec<f32>,
    normed: Vec<f32>,
    qkv: Vec<f32>,
    mixed: Vec<f32>,
    gate_up: Vec<f32>,
    scores: Vec<f32>,
    products: Products,
}

impl Host {
    pub(crate) fn load(checkpoint: &Checkpoint, a: &Architecture, positions: usize) -> Result<Self> {
        let mut scratch = Scratch::default();
        let mut head = Packed::new(a.hidden_size, a.vocab_size);
        let whole = |name: &str| checkpoint.f32(name);
        let (embedding, head_rows) = match a.tie_word_embeddings {
            true => (None, whole(a.embedding())?),
            false => (Some(whole(a.embedding())?), whole(a.head())?),
        };
        head_rows.chunks_exact(a.hidden_size).enumerate().for_each(|(id, row)| head.set(id, row));
        drop(head_rows);
        let layers = (0..a.num_hidden_layers).map(|layer| HostLayer::load(checkpoint, a, layer, &mut scratch));
        Ok(Self {
            embedding,
            layers: layers.collect::<Result<_>>()?,
            norm: whole(a.last_norm())?,
            head,
            angles: Angles::new(a, positions),
            memory: Mutex::default(),
        })
    }

    /// Logits of the last token of each.
    pub(crate) fn forward(&self, a: &Architecture, all: &mut [Read<'_>]) -> Vec<Vec<f32>> {
        let mut logits: Vec<Vec<f32>> = all.iter().map(|_| Vec::new()).collect();
        let rows = all.iter().enumerate().flat_map(|(of, read)| {
            let (start, count) = (read.start, read.ids.len());
            (0..count).map(move |i| Row { of, position: start + i, last: i + 1 == count })
        });
        let rows: Vec<Row> = rows.collect();
        let unused = || self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let mut memory = unused().pop().unwrap_or_default();
        for rows in rows.chunks(ROWS) {
            self.rows(a, rows, all, &mut memory, &mut logits);
        }
        unused().push(memory);
        logits
    }

    fn rows(&self, a: &Architecture, rows: &[Row], all: &mut [Read<'_>], m: &mut Memory, logits: &mut [Vec<f32>]) {
        let (hidden, eps) = (a.hidden_size, a.rms_norm_eps as f32);
        m.x.resize(rows.len() * hidden, 0.0);
        for (row, x) in rows.iter().zip(m.x.chunks_exact_mut(hidden)) {
            let read = &all[row.of];
            let id = read.ids[row.position - read.start] as usize;
            match &self.embedding {
                Some(embedding) => x.copy_from_slice(&embedding[id * hidden..][..hidden]),
                None => self.head.row(id, x),
            }
        }
        for (index, layer) in self.layers.iter().enumerate() {
            layer.forward(a, &self.angles, (index, rows), all, m);
        }
        let wanted: Vec<usize> = (0..rows.len()).filter(|at| rows[*at].last).collect();
        m.normed.resize(wanted.len() * hidden, 0.0);
        for (at, normed) in wanted.iter().zip(m.normed.chunks_exact_mut(hidden)) {
            kernels::rms_norm(normed, &m.x[at * hidden..][..hidden], &self.norm, eps);
        }
        wanted.iter().for_each(|at| logits[rows[*at].of] = vec![0.0; a.vocab_size]);
        if !wanted.is_empty() {
            self.head.multiply(&m.normed, &mut m.products, |row, first, values| {
                logits[rows[wanted[row]].of][first..][..values.len()].copy_from_slice(values);
            });
        }
    }
}

impl HostLayer {
    fn load(checkpoint: &Checkpoint, a: &Architecture, layer: usize, scratch: &mut Scratch) -> Result<Self> {
        let norm = |part: &str| checkpoint.f32(&Architecture::in_layer(layer, &format!("{part}.weight")));
        let head_norms =
            a.head_norms().then(|| Ok::<_, OpenError>((norm("self_attn.q_norm")?, norm("self_attn.k_norm")?)));
        let (input_norm, post_norm) = (norm("input_layernorm")?, norm("post_attention_layernorm")?);
        let mut linear = |maps: &[Map]| Linear::load(checkpoint, a, maps, layer, scratch);
        Ok(Self {
            input_norm,
            post_norm,
            head_norms: head_norms.transpose()?,
            qkv: linear(&[Map::Q, Map::K, Map::V])?,
            output: linear(&[Map::O])?,
            gate_up: linear(&[Map::Gate, Map::Up])?,
            down: linear(&[Map::Down])?,
        })
    }

    fn forward(
        &self,
        a: &Architecture,
        angles: &Angles,
        (index, rows): (usize, &[Row]),
        all: &mut [Read<'_>],
        m: &mut Memory,
    ) {
        let (hidden, dim, eps) = (a.hidden_size, a.head_dim, a.rms_norm_eps as f32);
        let (queries, keys, neurons) = (a.queries(), a.keys(), a.intermediate_size);
        let norm = |out: &mut Vec<f32>, x: &[f32], weight: &[f32]| {
            out.resize(x.len(), 0.0);
            let rows = out.chunks_exact_mut(hidden).zip(x.chunks_exact(hidden));
            rows.for_each(|(out, row)| kernels::rms_norm(out, row, weight, eps));
        };
        norm(&mut m.normed, &m.x, &self.input_norm);
        self.qkv.set(&mut m.qkv, &m.normed, &mut m.products);
        let norms = self.head_norms.as_ref();
        m.mixed.resize(rows.len() * queries, 0.0);
        for (row, qkv) in rows.iter().zip(m.qkv.chunks_exact_mut(queries + 2 * keys)) {
            let (q, rest) = qkv.split_at_mut(queries);
            let (k, v) = rest.split_at_mut(keys);
            for (heads, norm) in [(&mut *q, norms.map(|n| &n.0)), (&mut *k, norms.map(|n| &n.1))] {
                for head in heads.chunks_exact_mut(dim) {
                    if let Some(weight) = norm {
                        kernels::rms_norm_in_place(head, weight, eps);
                    }
                    kernels::rotate(head, angles.at(row.position));
                }
            }
            all[row.of].cache[index].push(k, v, dim);
        }
        let attend = |scores: &mut Vec<f32>, ((row, qkv), mixed): ((&Row, &[f32]), &mut [f32])| {
            let query = (&qkv[..queries], row.position);
            all[row.of].cache[index].attend(query, mixed, (a, a.windows[index]), scores);
        };
        let seen: usize = rows.iter().map(|row| row.position + 1).sum();
        if seen * queries >= LARGE {
            let qkv = m.qkv.par_chunks_exact(queries + 2 * keys);
            let each = rows.par_iter().zip(qkv).zip(m.mixed.par_chunks_exact_mut(queries));
            each.for_each_init(Vec::new, attend);
        } else {
            let each = rows.iter().zip(m.qkv.chunks_exact(queries + 2 * keys)).zip(m.mixed.chunks_exact_mut(queries));
            each.for_each(|each| attend(&mut m.scores, each));
        }
        self.output.add(&mut m.x, &m.mixed, &mut m.products);
        norm(&mut m.normed, &m.x, &self.post_norm);
        self.gate_up.set(&mut m.gate_up, &m.normed, &mut m.products);
        // What is left of a row is silu(gate)·up.
        m.mixed.resize(rows.len() * neurons, 0.0);
        for (row, kept) in m.gate_up.chunks_exact_mut(2 * neurons).zip(m.mixed.chunks_exact_mut(neurons)) {
            let (gate, up) = row.split_at_mut(neurons);
            kernels::silu_up(gate, up);
            kept.copy_from_slice(gate);
        }
        self.down.add(&mut m.x, &m.mixed, &mut m.products);
    }
}

impl Linear {
    fn load(
        checkpoint: &Checkpoint,
        a: &Architecture,
        maps: &[Map],
        layer: usize,
        scratch: &mut Scratch,
    ) -> Result<Self> {
        let mut read = Maps::new(a, maps);
        read.load(checkpoint, layer, scratch)?;
        let mut weight = Packed::new(read.inputs, read.outputs);
        weight.fill(&read.weight);
        Ok(Self { weight, bias: read.bias })
    }

    /// out = y·W + b
    fn set(&self, out: &mut Vec<f32>, y: &[f32], products: &mut Products) {
        let width = self.weight.outputs();
        out.resize(y.len() / self.weight.inputs() * width, 0.0);
        self.weight.multiply(y, products, |row, first, values| {
            out[row * width + first..][..values.len()].copy_from_slice(values);
        });
        if !self.bias.is_empty() {
            out.chunks_exact_mut(width).for_each(|row| kernels::add(row, &self.bias));
        }
    }

    /// x += y·W + b
    fn add(&self, x: &mut [f32], y: &[f32], products: &mut Products) {
        let width = self.weight.outputs();
        self.weight.multiply(y, products, |row, first, values| {
            kernels::add(&mut x[row * width + first..][..values.len()], values);
        });
        if !self.bias.is_empty() {
            x.chunks_exact_mut(width).for_each(|row| kernels::add(row, &self.bias));
        }
    }
}
