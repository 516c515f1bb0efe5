//! Reinforced agent merging (arXiv 2601.13572), for sparse task vectors: Mᵢ = [|Δᵢ| > τ], c = Σ Mᵢ.
//!
//! - `ram` (mergekit): D = Σ MᵢΔᵢ / max(c, 1): what one expert changed keeps its full change, what several changed is averaged.
//! - `ram_plus` (xiangchi-yuan/mrl@e2d930d:ram-main.py, mode `arm-r-v2`; the paper's RAM+): unique changes are scaled by
//!   sⱼ = 1 + (r − 1)·min(1, ρⱼ), ρⱼ = overlapⱼ/(changedⱼ − overlapⱼ) counted over the whole model.
//! - `ram_r` (mode `arm-r`): ρⱼ = overlapⱼ/changedⱼ.
//! - `ram_unique`: D = [c = 1]·MⱼΔⱼ/3 for one expert j; the 3 is upstream's constant.
//! - `ram_ties`: of the shared changes of each expert the smaller nine tenths are dropped and the sign of larger mass wins;
//!   the mean of what agrees. Unique changes as in `ram`.

use crate::MergeError;
use crate::arithmetic::{Arithmetic, simd, with_arithmetic};
use crate::method::{Base, Fallback, Method, Parameter, Resolved, Spec};
use crate::rank::places;
use crate::source::{Kernel, Rows, Source, TILE, View};

#[derive(Clone, Copy, PartialEq)]
enum Variant {
    Ram,
    Plus,
    R,
    Unique,
    Ties,
}

pub(crate) struct Ram {
    spec: Spec,
    variant: Variant,
}

const THRESHOLD: Parameter = Parameter::shared("epsilon", Fallback::Number(1e-5));
const STRENGTH: Parameter = Parameter::shared("r", Fallback::Number(1.2));

const fn family(name: &'static str, summary: &'static str, variant: Variant, parameters: &'static [Parameter]) -> Ram {
    Ram { spec: Spec { name, summary, base: Base::Required, experts: (1, usize::MAX), parameters }, variant }
}

pub(crate) static RAM: Ram =
    family("ram", "unique changes in full, shared changes averaged", Variant::Ram, &[THRESHOLD]);
pub(crate) static RAM_PLUS: Ram = family(
    "ram_plus",
    "RAM with unique changes scaled up by how much the experts overlap",
    Variant::Plus,
    &[THRESHOLD, STRENGTH],
);
pub(crate) static RAM_R: Ram = family(
    "ram_r",
    "RAM with unique changes scaled up by the share of changes that overlap",
    Variant::R,
    &[THRESHOLD, STRENGTH],
);
pub(crate) static RAM_UNIQUE: Ram = family(
    "ram_unique",
    "a third of what one expert alone changed",
    Variant::Unique,
    &[THRESHOLD, Parameter::shared("target_index", Fallback::Number(0.0))],
);
pub(crate) static RAM_TIES: Ram = family(
    "ram_ties",
    "unique changes in full, shared changes trimmed and merged by sign mass",
    Variant::Ties,
    &[THRESHOLD],
);

impl Method for Ram {
    fn spec(&self) -> &Spec {
        &self.spec
    }
    fn surveys(&self) -> bool {
        matches!(self.variant, Variant::Plus | Variant::R)
    }
    /// Per expert: elements changed, and those of them that another changed too.
    fn survey(&self, p: &Resolved, source: &Source<'_>) -> Result<Vec<u64>, MergeError> {
        let changes =
            Changes { base: source.base()?, experts: source.experts(), threshold: p.number("epsilon") as f32 };
        with_arithmetic!(source.compute, survey(&changes, source))
    }
    fn prepare(&self, p: &Resolved, source: &Source<'_>) -> Result<Box<dyn Kernel>, MergeError> {
        let threshold = source.compute.round(p.number("epsilon") as f32);
        let changes = Changes { base: source.base()?, experts: source.experts(), threshold };
        let r = p.number("r").max(1.0);
        let scales = changes.experts.iter().enumerate().map(|(j, _)| {
            let (changed, overlap) = match source.survey.get(2 * j..2 * j + 2) {
                Some(counts) => (counts[0] as f64, counts[1] as f64),
                None => return 1.0,
            };
            let rho = match self.variant {
                Variant::Plus if changed > 0.0 => overlap / (changed - overlap),
                Variant::R if changed > 0.0 => overlap / changed,
                _ => return 1.0,
            };
            (1.0 + (r - 1.0) * rho.min(1.0)) as f32
        });
        let scales: Vec<f32> = scales.collect();
        let target = p.number("target_index") as usize;
        if self.variant == Variant::Unique && target >= changes.experts.len() {
            let reason = format!("target_index is {target}, but there are {} experts", changes.experts.len());
            return Err(MergeError::tensor(source.name, reason));
        }
        let trims = if self.variant == Variant::Ties { trims(&changes, source)? } else { Vec::new() };
        let merged = Merged { changes, variant: self.variant, scales, target, trims };
        Ok(with_arithmetic!(source.compute, boxed(merged)))
    }
}

/// Changed and overlapping elements of every expert, in a row: changed₀, overlap₀, changed₁, …
pub(super) fn survey<R: Arithmetic>(changes: &Changes, source: &Source<'_>) -> Result<Vec<u64>, MergeError> {
    let n = changes.experts.len();
    let counts = source.sums(
        Rows::Any,
        2 * n,
        #[inline(always)]
        |sums, view| {
            let mut counts = [0.0f32; TILE];
            for start in (0..view.len).step_by(TILE) {
                let part = view.part(start, TILE.min(view.len - start));
                let counts = &mut counts[..part.len];
                changes.counts::<R>(&part, counts);
                for (e, sums) in changes.experts.iter().zip(sums.chunks_mut(2)) {
                    let (mut changed, mut shared) = (0u32, 0u32);
                    for ((w, b), c) in part.input(*e).iter().zip(part.input(changes.base)).zip(counts.iter()) {
                        let here = u32::from(R::r(w - b).abs() > changes.threshold);
                        changed += here;
                        shared += here & u32::from(*c > 1.0);
                    }
                    sums[0] += f64::from(changed);
                    sums[1] += f64::from(shared);
                }
            }
        },
    )?;
    Ok(counts.into_iter().map(|c| c as u64).collect())
}

/// Task vectors and what counts as a change.
pub(super) struct Changes {
    pub(super) base: usize,
    pub(super) experts: Vec<usize>,
    pub(super) threshold: f32,
}

impl Changes {
    #[inline(always)]
    pub(super) fn delta<R: Arithmetic>(&self, view: &View<'_>, j: usize, i: usize) -> f32 {
        R::r(view.input(self.experts[j])[i] - view.input(self.base)[i])
    }
    /// The task vector where it counts as changed, else 0.
    #[inline(always)]
    fn change<R: Arithmetic>(&self, view: &View<'_>, j: usize, i: usize) -> f32 {
        let delta = self.delta::<R>(view, j, i);
        if delta.abs() > self.threshold { delta } else { 0.0 }
    }
    /// c at every element of a run.
    #[inline(always)]
    pub(super) fn counts<R: Arithmetic>(&self, view: &View<'_>, counts: &mut [f32]) {
        counts.fill(0.0);
        for e in &self.experts {
            for ((c, w), b) in counts.iter_mut().zip(view.input(*e)).zip(view.input(self.base)) {
                *c += if R::r(w - b).abs() > self.threshold { 1.0 } else { 0.0 };
            }
        }
    }
    /// D of a run: shared changes averaged, unique ones scaled and passed through `unique`.
    #[inline(always)]
    pub(super) fn sum<R: Arithmetic>(
        &self,
        view: &View<'_>,
        scales: &[f32],
        unique: impl Fn(f32) -> f32,
        out: &mut [f32],
    ) {
        let base = view.input(self.base);
        let mut counts = vec![0.0f32; view.len];
        self.counts::<R>(view, &mut counts);
        out.fill(0.0);
        for (e, scale) in self.experts.iter().zip(scales) {
            for (((o, c), w), b) in out.iter_mut().zip(&counts).zip(view.input(*e)).zip(base) {
                let delta = R::r(w - b);
                let delta = if delta.abs() > self.threshold { delta } else { 0.0 };
                *o += if *c > 1.0 { R::r(delta / c) } else { unique(delta * scale) };
            }
        }
    }
    /// c at an element.
    #[inline(always)]
    pub(super) fn count<R: Arithmetic>(&self, view: &View<'_>, i: usize) -> u32 {
        (0..self.experts.len()).map(|j| u32::from(self.delta::<R>(view, j, i).abs() > self.threshold)).sum()
    }
}

/// Per expert: the smallest magnitude among its shared changes that stays. Positions where fewer than two experts
/// changed count as nothing and rank lowest.
fn trims(changes: &Changes, source: &Source<'_>) -> Result<Vec<u32>, MergeError> {
    use crate::arithmetic::Single;
    let shared = source.sums(
        Rows::Any,
        1,
        #[inline(always)]
        |sums, view| {
            sums[0] += (0..view.len).filter(|i| changes.count::<Single>(view, *i) > 1).count() as f64;
        },
    )?[0];
    let drop = (0.9 * shared) as u64;
    if drop == 0 {
        return Ok(vec![0; changes.experts.len()]);
    }
    // Shared positions rank above all others: among n elements the k-th smallest of d shared ones has rank n − d + k − 1.
    let rank = source.len() as u64 - shared as u64 + drop - 1;
    let ranks = vec![vec![rank]; changes.experts.len()];
    let found = places(
        source,
        &ranks,
        #[inline(always)]
        |view: &View<'_>, j: usize, keys: &mut [u32]| {
            for (i, key) in keys.iter_mut().enumerate() {
                let magnitude = changes.change::<Single>(view, j, i).abs().to_bits();
                *key = if changes.count::<Single>(view, i) > 1 { magnitude + 1 } else { 0 };
            }
        },
    )?;
    Ok(found.iter().map(|p| p[0].key.saturating_sub(1)).collect())
}

fn boxed<R: Arithmetic>(merged: Merged) -> Box<dyn Kernel> {
    Box::new(Typed::<R>(merged, std::marker::PhantomData))
}

struct Merged {
    changes: Changes,
    variant: Variant,
    scales: Vec<f32>,
    target: usize,
    trims: Vec<u32>,
}

struct Typed<R>(Merged, std::marker::PhantomData<R>);

impl<R: Arithmetic> Kernel for Typed<R> {
    fn apply(&self, view: &View<'_>, out: &mut [f32]) {
        simd(
            #[inline(always)]
            || {
                let merged = &self.0;
                if matches!(merged.variant, Variant::Unique | Variant::Ties) {
                    for (i, o) in out.iter_mut().enumerate() {
                        *o = R::r(view.input(merged.changes.base)[i] + merged.special::<R>(view, i));
                    }
                } else {
                    merged.average::<R>(view, out);
                }
            },
        );
    }
}

impl Merged {
    /// `ram`, `ram_plus`, `ram_r`.
    #[inline(always)]
    fn average<R: Arithmetic>(&self, view: &View<'_>, out: &mut [f32]) {
        self.changes.sum::<R>(view, &self.scales, R::r, out);
        let base = view.input(self.changes.base);
        out.iter_mut().zip(base).for_each(|(o, b)| *o = R::r(b + R::r(*o)));
    }

    /// D at one element, for the variants that are not an average.
    fn special<R: Arithmetic>(&self, view: &View<'_>, i: usize) -> f32 {
        let (changes, n) = (&self.changes, self.changes.experts.len());
        let change = |j: usize| changes.change::<R>(view, j, i);
        let count = changes.count::<R>(view, i);
        if self.variant == Variant::Unique {
            return if count == 1 { change(self.target) / 3.0 } else { 0.0 };
        }
        if count <= 1 {
            return (0..n).map(change).sum();
        }
        let kept = |j: &usize| change(*j).abs().to_bits() >= self.trims[*j];
        let mass: f32 = (0..n).filter(kept).map(change).sum();
        let (mut sum, mut agreeing) = (0.0, 0.0f32);
        for d in (0..n).filter(kept).map(change).filter(|d| d * mass > 0.0) {
            sum += d;
            agreeing += 1.0;
        }
        sum / agreeing.max(1.0)
    }
}
