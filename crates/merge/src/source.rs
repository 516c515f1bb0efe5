//! The inputs of one output tensor, read in blocks as often as an operator needs.
//!
//! Nothing is held: a second pass reads again, from the page cache if memory allows. Work is split into segments whose
//! number depends on the tensor alone, so that sums come out the same whatever the number of threads.

use crate::MergeError;
use crate::arithmetic::{Arithmetic, Compute, simd, sum64};
use crate::vocabulary::RowMap;
use rolegraft_checkpoint::{Dtype, FINGERPRINT_BLOCK, Fingerprints, Tensors};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Elements per block and input: what a thread holds of one input, in F32.
pub const BLOCK: usize = FINGERPRINT_BLOCK;
/// Elements per segment of a large tensor.
const SEGMENT: usize = 1 << 22;
/// Most segments whose accumulators are held at once, where one takes much memory.
pub(crate) const FEW_SEGMENTS: usize = 16;

/// A checkpoint among the inputs.
pub struct Model {
    /// What the recipe calls it.
    pub name: String,
    /// Its directory.
    pub dir: PathBuf,
    /// Its tensors.
    pub tensors: Tensors,
    /// Its `config.json`.
    pub config: serde_json::Value,
    pub(crate) fingerprints: Fingerprints,
}

/// Settings and counters shared by the tensors of one merge.
pub(crate) struct Session<'a> {
    pub(crate) seed: u64,
    pub(crate) allow_nonfinite: bool,
    pub(crate) stop: &'a AtomicBool,
    /// Non-finite input elements met.
    pub(crate) nonfinite: AtomicU64,
    /// Recorded masks in place of draws: `MODEL/TENSOR`, 1 = kept.
    pub(crate) masks: Option<&'a Tensors>,
    /// Statistics measured elsewhere: WIDEN's or NeuronMerge's.
    pub(crate) statistics: Option<&'a Tensors>,
    /// Elements per segment; tests make it small.
    pub(crate) segment: usize,
}

impl Session<'_> {
    pub(crate) const SEGMENT: usize = SEGMENT;
}

/// One input of one output tensor.
#[derive(Clone, Copy)]
pub(crate) struct Input<'a> {
    pub(crate) model: &'a Model,
    pub(crate) tensor: &'a str,
    pub(crate) dtype: Dtype,
    /// Rows rearranged for another vocabulary.
    pub(crate) rows: Option<&'a RowMap>,
}

/// The inputs of one output tensor.
pub(crate) struct Source<'a> {
    pub(crate) session: &'a Session<'a>,
    /// The output's name.
    pub(crate) name: &'a str,
    pub(crate) shape: &'a [usize],
    pub(crate) inputs: Vec<Input<'a>>,
    /// Which input is the base.
    pub(crate) base: Option<usize>,
    pub(crate) compute: Compute,
    /// Threads that may work on this tensor.
    pub(crate) threads: usize,
    /// What a counting pass over the whole pool found, where the operator asks for one.
    pub(crate) survey: &'a [u64],
}

/// A run of elements of every input, in working precision.
pub(crate) struct View<'v> {
    /// Index of the first element in the tensor.
    pub(crate) start: usize,
    /// Elements.
    pub(crate) len: usize,
    /// Where the run begins in the buffers.
    offset: usize,
    /// One buffer per input.
    inputs: &'v [Vec<f32>],
}

impl View<'_> {
    #[inline(always)]
    pub(crate) fn input(&self, i: usize) -> &[f32] {
        &self.inputs[i][self.offset..self.offset + self.len]
    }
}

/// A thread's buffers.
#[derive(Default)]
struct Buffers {
    raw: Vec<u8>,
    inputs: Vec<Vec<f32>>,
}

impl<'a> Source<'a> {
    /// Elements.
    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }
    /// Length of the last axis.
    pub(crate) fn row(&self) -> usize {
        self.shape.last().copied().unwrap_or(1).max(1)
    }
    /// Inputs other than the base, in order.
    pub(crate) fn experts(&self) -> Vec<usize> {
        (0..self.inputs.len()).filter(|i| Some(*i) != self.base).collect()
    }
    /// Index of the base.
    pub(crate) fn base(&self) -> Result<usize, MergeError> {
        self.base.ok_or_else(|| MergeError::tensor(self.name, "the base is not among its inputs"))
    }

    /// Elements per block where a block must hold whole rows.
    fn block(&self, rows: Rows) -> usize {
        match rows {
            Rows::Any => BLOCK,
            Rows::Whole => (BLOCK / self.row()).max(1) * self.row(),
        }
    }

    /// The tensor's segments: multiples of a block, at most `most` of them.
    fn segments(&self, rows: Rows, most: usize) -> Vec<Range<usize>> {
        let (len, block) = (self.len(), self.block(rows));
        let per = self.session.segment.max(len.div_ceil(most.max(1))).div_ceil(block) * block;
        (0..len).step_by(per.max(1)).map(|start| start..(start + per).min(len)).collect()
    }

    /// Reads the tensor once: folds every segment's blocks into an accumulator, and gives these in order.
    pub(crate) fn scan<A: Send>(
        &self,
        rows: Rows,
        most: usize,
        make: impl Fn() -> A + Sync,
        step: impl Fn(&mut A, &View<'_>) + Sync,
    ) -> Result<Vec<A>, MergeError> {
        let segments = self.segments(rows, most);
        let done: Mutex<Vec<(usize, A)>> = Mutex::new(Vec::with_capacity(segments.len()));
        self.share(segments.len(), |number, buffers| {
            let mut accumulator = make();
            self.walk(rows, segments[number].clone(), buffers, |view| {
                simd(|| step(&mut accumulator, view));
                Ok(())
            })?;
            done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((number, accumulator));
            Ok(())
        })?;
        let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        done.sort_by_key(|(number, _)| *number);
        Ok(done.into_iter().map(|(_, a)| a).collect())
    }

    /// Sums `count` statistics over the tensor in f64.
    pub(crate) fn sums(
        &self,
        rows: Rows,
        count: usize,
        step: impl Fn(&mut [f64], &View<'_>) + Sync,
    ) -> Result<Vec<f64>, MergeError> {
        let parts = self.scan(rows, usize::MAX, || vec![0.0; count], |sums, view| step(sums, view))?;
        Ok(parts.into_iter().fold(vec![0.0; count], |mut total, part| {
            total.iter_mut().zip(part).for_each(|(t, p)| *t += p);
            total
        }))
    }

    /// ⟨Vᵢ, Vⱼ⟩ for vectors made of the inputs: `fill` writes vector i of a block. Symmetric, row by row. Products off the
    /// diagonal are rounded as the precision says before they are summed.
    pub(crate) fn gram<R: Arithmetic>(
        &self,
        count: usize,
        fill: impl Fn(&View<'_>, usize, &mut [f32]) + Sync,
    ) -> Result<Vec<Vec<f64>>, MergeError> {
        const TILE: usize = 1024;
        let flat = self.sums(Rows::Any, count * count, |sums, view| {
            let mut tiles = vec![[0f32; TILE]; count];
            for start in (0..view.len).step_by(TILE) {
                let len = TILE.min(view.len - start);
                let part = View { start: view.start + start, len, offset: view.offset + start, inputs: view.inputs };
                for (i, tile) in tiles.iter_mut().enumerate() {
                    fill(&part, i, &mut tile[..len]);
                }
                for i in 0..count {
                    for j in i..count {
                        let (a, b) = (&tiles[i][..len], &tiles[j][..len]);
                        sums[i * count + j] += match i == j {
                            true => sum64(len, |k| f64::from(a[k]) * f64::from(a[k])),
                            false => sum64(len, |k| R::product(a[k], b[k])),
                        };
                    }
                }
            }
        })?;
        Ok((0..count).map(|i| (0..count).map(|j| flat[i.min(j) * count + i.max(j)]).collect()).collect())
    }

    /// Reads the tensor once more and hands every merged block to `sink` (first element, values).
    pub(crate) fn merge(
        &self,
        kernel: &dyn Kernel,
        sink: impl Fn(usize, &[f32]) -> Result<(), MergeError> + Sync,
    ) -> Result<(), MergeError> {
        let rows = kernel.rows();
        let segments = self.segments(rows, usize::MAX);
        self.share(segments.len(), |number, buffers| {
            let mut out = vec![0.0; self.block(rows).min(self.len())];
            self.walk(rows, segments[number].clone(), buffers, |view| {
                kernel.apply(view, &mut out[..view.len]);
                sink(view.start, &out[..view.len])
            })
        })
    }

    /// Runs tasks 0..count on the threads this tensor may use.
    fn share(
        &self,
        count: usize,
        task: impl Fn(usize, &mut Buffers) -> Result<(), MergeError> + Sync,
    ) -> Result<(), MergeError> {
        parallel(self.threads.min(count), count, Buffers::default, task)
    }

    fn walk(
        &self,
        rows: Rows,
        range: Range<usize>,
        buffers: &mut Buffers,
        mut visit: impl FnMut(&View<'_>) -> Result<(), MergeError>,
    ) -> Result<(), MergeError> {
        let block = self.block(rows);
        buffers.inputs.resize_with(self.inputs.len(), Vec::new);
        for start in range.clone().step_by(block) {
            if self.session.stop.load(Ordering::Relaxed) {
                return Err(MergeError::Interrupted);
            }
            let len = block.min(range.end - start);
            let Buffers { raw, inputs } = buffers;
            for (input, values) in self.inputs.iter().zip(inputs.iter_mut()) {
                if values.len() < len {
                    values.resize(len, 0.0);
                }
                self.read(input, start, &mut values[..len], raw)?;
            }
            visit(&View { start, len, offset: 0, inputs })?;
        }
        Ok(())
    }

    /// Elements from `start` of one input, in working precision.
    fn read(&self, input: &Input<'_>, start: usize, out: &mut [f32], raw: &mut Vec<u8>) -> Result<(), MergeError> {
        match input.rows {
            None => self.read_flat(input, start, out, raw)?,
            Some(map) => map.read(start, out, &mut |at, out| self.read_flat(input, at, out, raw))?,
        }
        if self.compute != Compute::F32 && Compute::of(input.dtype) != Some(self.compute) {
            out.iter_mut().for_each(|v| *v = self.compute.round(*v));
        }
        Ok(())
    }

    fn read_flat(&self, input: &Input<'_>, start: usize, out: &mut [f32], raw: &mut Vec<u8>) -> Result<(), MergeError> {
        let model = input.model;
        let size = input.dtype.size();
        raw.resize(out.len() * size, 0);
        model
            .tensors
            .read(input.tensor, (start * size) as u64, raw)
            .map_err(|source| MergeError::Model { model: model.name.clone(), source })?;
        let whole = start.is_multiple_of(BLOCK) && (out.len() == BLOCK || start + out.len() == self.len());
        let first = whole && input.rows.is_none() && model.fingerprints.note(input.tensor, start / BLOCK, raw);
        simd(|| input.dtype.decode(raw, out));
        let mut bad = simd(|| not_finite(out));
        if bad > 0 && !self.session.allow_nonfinite {
            return Err(MergeError::NonFinite { tensor: input.tensor.to_owned(), model: model.name.clone() });
        }
        if !first {
            bad = 0;
        }
        self.session.nonfinite.fetch_add(bad, Ordering::Relaxed);
        Ok(())
    }

    /// All elements of all inputs, for operators that need the tensor whole. One vector an input.
    pub(crate) fn whole(&self) -> Result<Vec<Vec<f32>>, MergeError> {
        let mut all = vec![vec![0.0; self.len()]; self.inputs.len()];
        let mut buffers = Buffers::default();
        self.walk(Rows::Any, 0..self.len(), &mut buffers, |view| {
            for (i, values) in all.iter_mut().enumerate() {
                values[view.start..view.start + view.len].copy_from_slice(view.input(i));
            }
            Ok(())
        })?;
        Ok(all)
    }

    /// The one block that starts at an element.
    pub(crate) fn range(&self, start: usize, mut visit: impl FnMut(&View<'_>)) -> Result<(), MergeError> {
        self.walk(Rows::Any, start..(start + BLOCK).min(self.len()), &mut Buffers::default(), |view| {
            visit(view);
            Ok(())
        })
    }

    /// A few short runs of elements, evenly spread: enough to guess where a rank lies.
    pub(crate) fn sample(
        &self,
        runs: usize,
        length: usize,
        mut visit: impl FnMut(&View<'_>),
    ) -> Result<(), MergeError> {
        let mut buffers = Buffers::default();
        let last = self.len().saturating_sub(length);
        for run in 0..runs {
            let start = (last as u128 * run as u128 / (runs.max(2) - 1) as u128) as usize;
            self.walk(Rows::Any, start..(start + length).min(self.len()), &mut buffers, |view| {
                visit(view);
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// Whether blocks must hold whole rows (of the last axis).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rows {
    /// Blocks may cut rows.
    Any,
    /// They may not.
    Whole,
}

/// An operator on one tensor, its statistics gathered: maps one block of the inputs to a block of the output.
pub(crate) trait Kernel: Send + Sync {
    /// Merges a block.
    fn apply(&self, view: &View<'_>, out: &mut [f32]);
    /// What blocks must hold.
    fn rows(&self) -> Rows {
        Rows::Any
    }
}

#[inline(always)]
pub(crate) fn not_finite(values: &[f32]) -> u64 {
    values.iter().map(|v| u64::from(v.to_bits() & 0x7F80_0000 == 0x7F80_0000)).sum()
}

/// Runs tasks 0..count on `threads` threads, each with a state of its own. The first error stops the others.
pub(crate) fn parallel<S>(
    threads: usize,
    count: usize,
    state: impl Fn() -> S + Sync,
    task: impl Fn(usize, &mut S) -> Result<(), MergeError> + Sync,
) -> Result<(), MergeError> {
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<MergeError>> = Mutex::new(None);
    let work = || {
        let mut state = state();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            if let Err(error) = task(number, &mut state) {
                next.store(count, Ordering::Relaxed);
                failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(error);
            }
        }
    };
    if threads <= 1 {
        work();
    } else {
        std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    }
    failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).map_or(Ok(()), Err)
}
