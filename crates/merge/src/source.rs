//! The inputs of one output tensor, read in blocks as often as an operator needs.
//!
//! Nothing is held: a second pass reads again, from the page cache if memory allows. Work is split into segments whose
//! number depends on the tensor alone, so that sums come out the same whatever the number of threads.

use crate::MergeError;
use crate::arithmetic::{Arithmetic, Compute, simd, sum64};
use crate::model::Model;
use crate::row_map::RowMap;
use rolegraft_checkpoint::{Dtype, FINGERPRINT_BLOCK, Tensors};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Elements per block and input: what a thread holds of one input, in F32.
pub const BLOCK: usize = FINGERPRINT_BLOCK;
/// Elements that loops work on at a time: a few such runs stay in the first-level cache.
pub(crate) const TILE: usize = 1024;
/// Elements per segment of a large tensor.
const SEGMENT: usize = 1 << 22;
/// Most segments whose accumulators are held at once, where one takes much memory.
pub(crate) const FEW_SEGMENTS: usize = 16;

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

impl<'a> Session<'a> {
    pub(crate) const SEGMENT: usize = SEGMENT;

    /// A session for looking at weights: no draws, nothing recorded.
    pub(crate) fn plain(stop: &'a AtomicBool) -> Self {
        Self {
            seed: 0,
            allow_nonfinite: true,
            stop,
            nonfinite: AtomicU64::new(0),
            masks: None,
            statistics: None,
            segment: SEGMENT,
        }
    }
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
    /// Elements `start..start + len` of the run.
    #[inline(always)]
    pub(crate) fn part(&self, start: usize, len: usize) -> Self {
        Self { start: self.start + start, len, offset: self.offset + start, inputs: self.inputs }
    }
    /// Adds ⟨Vᵢ, Vⱼ⟩ over the run to `sums[i·count + j]`, i ≤ j; as [`Source::gram`].
    #[inline(always)]
    pub(crate) fn gram<R: Arithmetic>(
        &self,
        count: usize,
        fill: &impl Fn(&View<'_>, usize, &mut [f32]),
        sums: &mut [f64],
    ) {
        let mut tiles = vec![[0f32; TILE]; count];
        for start in (0..self.len).step_by(TILE) {
            let part = self.part(start, TILE.min(self.len - start));
            for (i, tile) in tiles.iter_mut().enumerate() {
                fill(&part, i, &mut tile[..part.len]);
            }
            for i in 0..count {
                for j in i..count {
                    let (a, b) = (&tiles[i][..part.len], &tiles[j][..part.len]);
                    sums[i * count + j] += match i == j {
                        true => sum64(a, a, |x, _| f64::from(x) * f64::from(x)),
                        false => sum64(a, b, R::product),
                    };
                }
            }
        }
    }
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

    /// Elements of every segment but the last, as [`Self::sums`] and [`Self::merge`] cut them.
    pub(crate) fn segment(&self, rows: Rows) -> usize {
        self.segments(rows, usize::MAX).first().map_or(1, ExactSizeIterator::len)
    }

    /// The tensor's segments: multiples of a block, at most `most` of them.
    fn segments(&self, rows: Rows, most: usize) -> Vec<Range<usize>> {
        let (len, block) = (self.len(), self.block(rows));
        let per = self.session.segment.min(len).max(len.div_ceil(most.max(1))).div_ceil(block) * block;
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
                simd(
                    #[inline(always)]
                    || step(&mut accumulator, view),
                );
                Ok(())
            })?;
            done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((number, accumulator));
            Ok(())
        })?;
        let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        done.sort_by_key(|(number, _)| *number);
        Ok(done.into_iter().map(|(_, a)| a).collect())
    }

    /// As [`Self::scan`], with one accumulator a thread: for what may be added up in any order.
    pub(crate) fn tally<A: Send>(
        &self,
        make: impl Fn() -> A + Sync,
        step: impl Fn(&mut A, &View<'_>) + Sync,
    ) -> Result<Vec<A>, MergeError> {
        let segments = self.segments(Rows::Any, usize::MAX);
        let state = || (Buffers::default(), make());
        let states = parallel(self.threads.min(segments.len()), segments.len(), state, |number, (buffers, tally)| {
            self.walk(Rows::Any, segments[number].clone(), buffers, |view| {
                simd(
                    #[inline(always)]
                    || step(tally, view),
                );
                Ok(())
            })
        })?;
        Ok(states.into_iter().map(|(_, tally)| tally).collect())
    }

    /// Sums `count` statistics over the tensor in f64.
    pub(crate) fn sums(
        &self,
        rows: Rows,
        count: usize,
        step: impl Fn(&mut [f64], &View<'_>) + Sync,
    ) -> Result<Vec<f64>, MergeError> {
        let parts = self.scan(
            rows,
            usize::MAX,
            || vec![0.0; count],
            #[inline(always)]
            |sums, view| step(sums, view),
        )?;
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
        let flat = self.sums(
            Rows::Any,
            count * count,
            #[inline(always)]
            |sums, view| view.gram::<R>(count, &fill, sums),
        )?;
        Ok((0..count).map(|i| (0..count).map(|j| flat[i.min(j) * count + i.max(j)]).collect()).collect())
    }

    /// Reads the tensor once more and hands every merged block to `sink`: first element, values,
    /// and a buffer to use.
    pub(crate) fn merge(
        &self,
        kernel: &dyn Kernel,
        sink: impl Fn(usize, &[f32], &mut Vec<u8>) -> Result<(), MergeError> + Sync,
    ) -> Result<(), MergeError> {
        let rows = kernel.rows();
        let segments = self.segments(rows, usize::MAX);
        self.share(segments.len(), |number, buffers| {
            let (mut out, mut bytes) = (vec![0.0; self.block(rows).min(self.len())], Vec::new());
            self.walk(rows, segments[number].clone(), buffers, |view| {
                kernel.apply(view, &mut out[..view.len]);
                sink(view.start, &out[..view.len], &mut bytes)
            })
        })
    }

    /// Runs tasks 0..count on the threads this tensor may use.
    fn share(
        &self,
        count: usize,
        task: impl Fn(usize, &mut Buffers) -> Result<(), MergeError> + Sync,
    ) -> Result<(), MergeError> {
        parallel(self.threads.min(count), count, Buffers::default, task).map(drop)
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
        let mut bad = simd(
            #[inline(always)]
            || {
                let (mut bad, raw) = (0, raw.chunks(TILE * size));
                for (out, raw) in out.chunks_mut(TILE).zip(raw) {
                    input.dtype.decode(raw, out);
                    bad += not_finite(out);
                }
                bad
            },
        );
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

/// Runs tasks 0..count on `threads` threads, each with a state of its own, and gives the states. The first error stops
/// the others.
pub(crate) fn parallel<S: Send>(
    threads: usize,
    count: usize,
    state: impl Fn() -> S + Sync,
    task: impl Fn(usize, &mut S) -> Result<(), MergeError> + Sync,
) -> Result<Vec<S>, MergeError> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut state = state();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(state);
            }
            task(number, &mut state).inspect_err(|_| next.store(count, Ordering::Relaxed))?;
        }
    };
    if threads <= 1 {
        return Ok(vec![work()?]);
    }
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|w| w.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}
