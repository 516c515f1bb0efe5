//! Running a plan: shard by shard, tensors or parts of them side by side.

use crate::arithmetic::simd;
use crate::model::Model;
use crate::operators::aim::Relaxation;
use crate::plan::{Output, Plan};
use crate::source::{BLOCK, Input, Kernel, Session, Source, TILE, not_finite, parallel};
use crate::{MergeError, card};
use rolegraft_checkpoint::{Digest, Dtype, OpenError, OpenShard, Writer};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Instant, UNIX_EPOCH};

pub(crate) static NEVER: AtomicBool = AtomicBool::new(false);

/// How a plan is run. None of it but `seed` changes a byte of the weights.
pub struct Execution<'a> {
    /// Threads; 0 for as many as there are cores.
    pub threads: usize,
    /// Most bytes per shard (a larger tensor has its own).
    pub shard_size: u64,
    /// Seed of random operators.
    pub seed: u64,
    /// Merge NaN and infinity as they are, and count them, instead of stopping.
    pub allow_nonfinite: bool,
    /// Elements of a large tensor that a thread works on by itself.
    pub segment: usize,
    /// Set from elsewhere to stop.
    pub stop: &'a AtomicBool,
    /// Told about every tensor that is done.
    pub progress: &'a (dyn Fn(&Progress<'_>) + Sync),
}

impl Default for Execution<'_> {
    fn default() -> Self {
        Self {
            threads: 0,
            shard_size: 5_000_000_000,
            seed: 0,
            allow_nonfinite: false,
            segment: Session::SEGMENT,
            stop: &NEVER,
            progress: &|_| {},
        }
    }
}

/// How far a merge has come.
pub struct Progress<'a> {
    /// The tensor just done.
    pub tensor: &'a str,
    /// Bytes written, those of an earlier run included.
    pub written: u64,
    /// Bytes to be written.
    pub total: u64,
    /// Bytes taken over from an earlier run.
    pub resumed: u64,
}

/// What came out.
#[derive(Debug, Default)]
pub struct Outcome {
    /// NaN or infinite elements in the inputs, where these are allowed.
    pub nonfinite_in: u64,
    /// NaN or infinite elements in the output.
    pub nonfinite_out: u64,
    /// Output tensors of nothing but zeros.
    pub all_zero: Vec<String>,
    /// Bytes taken over from an earlier run.
    pub resumed: u64,
    /// XXH3-128 of the inputs' weights, in the order of the plan's models.
    pub fingerprints: Vec<String>,
}

impl Plan {
    /// Merges into the directory `out`, which appears when it is whole. Killed or stopped, the same call goes on after
    /// the last finished shard.
    ///
    /// # Errors
    /// If an input cannot be read, changes meanwhile or holds NaN, a method's own conditions fail, or the disk refuses.
    pub fn execute(&self, out: &Path, execution: &Execution<'_>) -> Result<Outcome, MergeError> {
        if self.recipe.fit.is_some() {
            return Err(MergeError::Recipe(
                "`regmean` is more than a merge of tensors; it needs calibration sets".into(),
            ));
        }
        self.execute_rest(out, execution)
    }

    /// The same of a recipe with a [`Fit`](crate::Fit), whose linear maps are those of the rest and have to be fitted yet.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub fn execute_rest(&self, out: &Path, execution: &Execution<'_>) -> Result<Outcome, MergeError> {
        let before = self.inputs_state()?;
        let layout: Vec<_> = self.outputs.iter().map(|o| (o.name.clone(), o.dtype, o.shape.clone())).collect();
        let identity = self.identity(&before, execution.seed);
        let mut writer = Writer::resume(out, &layout, execution.shard_size, identity.as_str())?;
        let session = self.session(execution);
        let mut run = Run::new(self, execution, &session);
        let done = |shard: &usize| writer.is_done(*shard);
        let size = |shard: usize| writer.tensors(shard).iter().map(|(_, d, s)| d.size() * s.iter().product::<usize>());
        run.resumed = (0..writer.shard_count()).filter(done).flat_map(size).sum::<usize>() as u64;
        run.counters.written = AtomicU64::new(run.resumed);
        if self.recipe.operator.0.surveys() {
            run.survey = run.survey()?;
        }
        let mut next = 0;
        for shard in 0..writer.shard_count() {
            let count = writer.tensors(shard).len();
            let outputs = &self.outputs[next..next + count];
            next += count;
            if writer.is_done(shard) {
                continue;
            }
            let open = writer.open(shard)?;
            run.shard(outputs, &open)?;
            writer.close(open)?;
        }
        if self.inputs_state()? != before {
            return Err(MergeError::Changed);
        }
        let fingerprints = self
            .models
            .iter()
            .map(|m| {
                m.fingerprints.finish(&m.tensors).map_err(|source| MergeError::Model { model: m.name.clone(), source })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let files = card::files(self, &fingerprints)?;
        writer.finish(&self.models[self.donor].dir, &files)?;
        let Counters { nonfinite, all_zero, .. } = run.counters;
        let mut all_zero = all_zero.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        all_zero.sort();
        Ok(Outcome {
            nonfinite_in: session.nonfinite.load(Ordering::Relaxed),
            nonfinite_out: nonfinite.into_inner(),
            all_zero,
            resumed: run.resumed,
            fingerprints,
        })
    }

    /// Merges the first tensors, of at least so many bytes together, into `out`, which is no checkpoint and may be removed:
    /// bytes that are written in a second. Nothing for an operator that looks at the whole model first.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub fn pace(&self, out: &Path, bytes: u64, execution: &Execution<'_>) -> Result<Option<f64>, MergeError> {
        if self.recipe.operator.0.surveys() {
            return Ok(None);
        }
        let (mut count, mut total) = (0, 0);
        while count < self.outputs.len() && total < bytes {
            total += (self.outputs[count].len() * self.outputs[count].dtype.size()) as u64;
            count += 1;
        }
        let outputs = &self.outputs[..count];
        let layout: Vec<_> = outputs.iter().map(|o| (o.name.clone(), o.dtype, o.shape.clone())).collect();
        let session = self.session(execution);
        let run = Run::new(self, execution, &session);
        let begun = Instant::now();
        let mut writer = Writer::resume(out, &layout, u64::MAX, "")?;
        let open = writer.open(0)?;
        run.shard(outputs, &open)?;
        writer.close(open)?;
        Ok(Some(total as f64 / begun.elapsed().as_secs_f64()))
    }

    /// Does something with merged tensors, which are worked out as they are asked for, each whole in memory, as F32.
    ///
    /// # Errors
    /// What `work` says, or of the methods that look at the whole model first, what they find.
    pub fn evaluate<T, E: From<MergeError>>(
        &self,
        execution: &Execution<'_>,
        work: impl FnOnce(&dyn Fn(&str) -> Result<Vec<f32>, MergeError>) -> Result<T, E>,
    ) -> Result<T, E> {
        let session = self.session(execution);
        let mut run = Run::new(self, execution, &session);
        if self.recipe.operator.0.surveys() {
            run.survey = run.survey()?;
        }
        work(&|tensor| {
            let output = self.outputs.iter().find(|output| output.name == tensor && output.dtype.is_float());
            let output = output.ok_or_else(|| MergeError::tensor(tensor, "the merge does not have it"))?;
            run.values(output)
        })
    }

    fn session<'s>(&'s self, execution: &Execution<'s>) -> Session<'s> {
        Session {
            seed: execution.seed,
            allow_nonfinite: execution.allow_nonfinite,
            stop: execution.stop,
            nonfinite: AtomicU64::new(0),
            masks: self.masks.as_ref(),
            statistics: self.statistics.as_ref(),
            segment: execution.segment.max(1),
        }
    }

    /// A tensor's inputs, opened for reading.
    pub(crate) fn source<'s>(
        &'s self,
        session: &'s Session<'s>,
        output: &'s Output,
        threads: usize,
        survey: &'s [u64],
    ) -> Source<'s> {
        let input = |((model, tensor), rows): (&'s (usize, String), &'s Option<_>)| {
            let model: &Model = &self.models[*model];
            // The plan found the tensor there.
            let dtype = model.tensors.tensor(tensor).map_or(output.dtype, |t| t.dtype);
            Input { model, tensor, dtype, rows: rows.as_ref() }
        };
        Source {
            session,
            name: &output.name,
            shape: &output.shape,
            inputs: output.inputs.iter().zip(&output.rows).map(input).collect(),
            base: output.base,
            compute: self.recipe.compute,
            threads,
            survey,
        }
    }

    /// Path, length and modification time of every file that the weights depend on.
    fn inputs_state(&self) -> Result<Vec<String>, MergeError> {
        let extra = [&self.masks, &self.statistics];
        let tensors = self.models.iter().map(|m| &m.tensors).chain(extra.into_iter().flatten());
        let weights = tensors.flat_map(|t| t.files().map(Path::to_owned));
        let tokenizers = self.models.iter().map(|m| m.dir.join("tokenizer.json")).filter(|p| p.exists());
        weights
            .chain(tokenizers)
            .map(|path| {
                let meta = path.metadata().map_err(|source| MergeError::Read { path: path.clone(), source })?;
                let modified = meta.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
                Ok(format!("{} {} {:?}", path.display(), meta.len(), modified))
            })
            .collect()
    }

    /// Digest of everything that the output's weights depend on, by the inputs' paths, lengths and times.
    ///
    /// # Errors
    /// If an input is not there any more.
    pub fn digest(&self, seed: u64) -> Result<Digest, MergeError> {
        Ok(self.identity(&self.inputs_state()?, seed))
    }

    fn identity(&self, inputs: &[String], seed: u64) -> Digest {
        let what = format!(
            "{:?} {:?} {:?} {:?}",
            self.recipe.operator, self.recipe.aim, self.recipe.compute, self.recipe.tokenizer
        );
        let mut parts =
            vec![("version", env!("CARGO_PKG_VERSION").to_owned()), ("method", what), ("seed", seed.to_string())];
        parts.extend(inputs.iter().map(|i| ("input", i.clone())));
        for (module, values) in self.importance.iter().flatten() {
            let bits: Vec<u32> = values.iter().map(|v| v.to_bits()).collect();
            parts.push(("importance", format!("{module} {bits:?}")));
        }
        for o in &self.outputs {
            let text = format!("{} {:?} {:?} {:?} {:?} {:?}", o.name, o.dtype, o.shape, o.inputs, o.base, o.parameters);
            parts.push(("tensor", text));
        }
        Digest::of_parts(parts.iter().map(|(name, text)| (*name, text.as_bytes())))
    }
}

#[derive(Default)]
struct Counters {
    written: AtomicU64,
    nonfinite: AtomicU64,
    all_zero: Mutex<Vec<String>>,
}

struct Run<'a> {
    plan: &'a Plan,
    execution: &'a Execution<'a>,
    session: &'a Session<'a>,
    threads: usize,
    /// Counts over the whole model, for the methods that want them.
    survey: Vec<u64>,
    counters: Counters,
    total: u64,
    resumed: u64,
}

/// Most tensors held whole at a time, by the operators that do.
const HELD: usize = 4;

impl<'a> Run<'a> {
    fn new(plan: &'a Plan, execution: &'a Execution<'a>, session: &'a Session<'a>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            plan,
            execution,
            session,
            threads: if execution.threads == 0 { cores } else { execution.threads },
            survey: Vec::new(),
            counters: Counters::default(),
            total: plan.bytes().1,
            resumed: 0,
        }
    }

    fn shard(&self, outputs: &[Output], open: &OpenShard) -> Result<(), MergeError> {
        self.each(outputs, |output, threads| {
            self.tensor(output, open, threads)?;
            open.flush(&output.name);
            let bytes = (output.len() * output.dtype.size()) as u64;
            let written = self.counters.written.fetch_add(bytes, Ordering::Relaxed) + bytes;
            let progress = Progress { tensor: &output.name, written, total: self.total, resumed: self.resumed };
            (self.execution.progress)(&progress);
            Ok(())
        })
    }

    /// Large tensors one after the other with all threads, the others side by side.
    fn each(
        &self,
        outputs: &[Output],
        task: impl Fn(&Output, usize) -> Result<(), MergeError> + Sync,
    ) -> Result<(), MergeError> {
        if self.plan.recipe.operator.0.holds_tensors(self.plan.recipe.compute) {
            return parallel(self.threads.min(HELD), outputs.len(), || (), |i, ()| task(&outputs[i], 1)).map(drop);
        }
        let (large, small): (Vec<&Output>, Vec<&Output>) = outputs.iter().partition(|o| o.len() > self.session.segment);
        large.into_iter().try_for_each(|output| task(output, self.threads))?;
        parallel(self.threads, small.len(), || (), |i, ()| task(small[i], 1)).map(drop)
    }

    fn survey(&self) -> Result<Vec<u64>, MergeError> {
        let total: Mutex<Vec<u64>> = Mutex::default();
        let method = self.plan.recipe.operator.0;
        self.each(&self.plan.outputs, |output, threads| {
            if !output.dtype.is_float() {
                return Ok(());
            }
            let counts = method.survey(&output.parameters, &self.source(output, threads))?;
            let mut total = total.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            total.resize(counts.len(), 0);
            total.iter_mut().zip(counts).for_each(|(t, c)| *t += c);
            Ok(())
        })?;
        Ok(total.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn source<'s>(&'s self, output: &'s Output, threads: usize) -> Source<'s> {
        self.plan.source(self.session, output, threads, &self.survey)
    }

    /// What merges a tensor.
    fn kernel(&self, output: &Output, source: &Source<'_>) -> Result<Box<dyn Kernel>, MergeError> {
        let kernel = self.plan.recipe.operator.0.prepare(&output.parameters, source)?;
        let Some(aim) = &self.plan.recipe.aim else { return Ok(kernel) };
        let importance = self.plan.importance.as_ref().ok_or_else(|| {
            MergeError::Recipe("`aim` has no importances; give `importance`, or have `calibration` measured".into())
        })?;
        let relaxation =
            Relaxation { importance, omega: aim.omega, head_is_tied: self.plan.base_is_tied && !aim.leave_tied };
        relaxation.relax(&output.name, source.row(), source.base()?, source.compute, kernel)
    }

    /// A merged tensor in memory, as F32.
    fn values(&self, output: &Output) -> Result<Vec<f32>, MergeError> {
        let source = self.source(output, self.threads);
        let kernel = self.kernel(output, &source)?;
        let merged = Mutex::new(vec![0.0; output.len()]);
        source.merge(&*kernel, |start, values, _| {
            let mut merged = merged.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            merged[start..start + values.len()].copy_from_slice(values);
            Ok(())
        })?;
        Ok(merged.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn tensor(&self, output: &Output, open: &OpenShard, threads: usize) -> Result<(), MergeError> {
        if output.is_empty() {
            return Ok(());
        }
        let source = self.source(output, threads);
        if !output.dtype.is_float() {
            return copy(&source, output, open);
        }
        let kernel = self.kernel(output, &source)?;
        let (size, nonzero) = (output.dtype.size(), AtomicBool::new(false));
        source.merge(&*kernel, |start, values, bytes| {
            bytes.resize(BLOCK.min(values.len()) * size, 0);
            for (number, values) in values.chunks(BLOCK).enumerate() {
                let bytes = &mut bytes[..values.len() * size];
                let state = simd(
                    #[inline(always)]
                    || Seen::encode(output.dtype, values, bytes),
                );
                if state.nonzero {
                    nonzero.store(true, Ordering::Relaxed);
                }
                // What float16 cannot hold becomes infinite only now.
                let lost = if output.dtype == Dtype::F16 { overflows(bytes) } else { state.nonfinite };
                self.counters.nonfinite.fetch_add(lost, Ordering::Relaxed);
                open.put(&output.name, ((start + number * BLOCK) * size) as u64, bytes)?;
            }
            Ok(())
        })?;
        if !nonzero.into_inner() {
            self.counters.all_zero.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(output.name.clone());
        }
        Ok(())
    }
}

/// What a block of the output holds.
struct Seen {
    nonzero: bool,
    nonfinite: u64,
}

impl Seen {
    #[inline(always)]
    fn encode(dtype: Dtype, values: &[f32], bytes: &mut [u8]) -> Self {
        let (mut any, mut nonfinite) = (0, 0);
        for (values, bytes) in values.chunks(TILE).zip(bytes.chunks_mut(TILE * dtype.size())) {
            dtype.encode(values, bytes);
            any |= values.iter().fold(0, |any, v| any | (v.to_bits() << 1));
            nonfinite += not_finite(values);
        }
        Self { nonzero: any != 0, nonfinite }
    }
}

/// Infinite or NaN float16 values among little-endian bytes.
fn overflows(bytes: &[u8]) -> u64 {
    bytes.chunks_exact(2).map(|b| u64::from(b[1] & 0x7C == 0x7C)).sum()
}

/// Integer buffers: the same in all inputs, or there is no telling which is meant.
fn copy(source: &Source<'_>, output: &Output, open: &OpenShard) -> Result<(), MergeError> {
    let len = (output.len() * output.dtype.size()) as u64;
    let read = |input: &Input<'_>, at: u64, bytes: &mut [u8]| {
        let of = |source: OpenError| MergeError::Model { model: input.model.name.clone(), source };
        input.model.tensors.read(input.tensor, at, bytes).map_err(of)
    };
    let (first, others) =
        source.inputs.split_first().ok_or_else(|| MergeError::tensor(&output.name, "it has no input"))?;
    let (mut bytes, mut same) = (Vec::new(), Vec::new());
    for at in (0..len).step_by(BLOCK) {
        bytes.resize(((len - at) as usize).min(BLOCK), 0);
        same.resize(bytes.len(), 0);
        read(first, at, &mut bytes)?;
        for other in others {
            read(other, at, &mut same)?;
            if bytes != same || other.dtype != first.dtype {
                let reason = format!(
                    "integers cannot be merged, and those of `{}` and `{}` differ",
                    first.model.name, other.model.name
                );
                return Err(MergeError::tensor(&output.name, reason));
            }
        }
        open.put(&output.name, at, &bytes)?;
    }
    Ok(())
}

impl Plan {
    /// Memory for blocks, in bytes: threads × (inputs + 2) × one block in F32. The spectral operators hold whole tensors.
    #[must_use]
    pub fn memory(&self, threads: usize) -> u64 {
        let inputs = self.outputs.iter().map(|o| o.inputs.len()).max().unwrap_or(0) as u64;
        if self.recipe.operator.0.holds_tensors(self.recipe.compute) {
            let largest = self.outputs.iter().map(Output::len).max().unwrap_or(0) as u64;
            // In F64: task vectors, their parts, and the factors of a decomposition.
            return threads.min(HELD) as u64 * (2 * inputs + 4) * largest * 8;
        }
        threads as u64 * (inputs + 2) * BLOCK as u64 * 4
    }
}
