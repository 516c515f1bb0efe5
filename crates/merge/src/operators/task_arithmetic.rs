//! Task arithmetic and its sparse relatives: W = W₀ + λ·D with D = Σ wᵢ·S(Δᵢ), S a sparsifier, D perhaps by sign
//! consensus (Ilharco et al. 2023; mergekit `generalized_task_arithmetic`).
//!
//! | method | sparsifier | consensus | normalize | rescale |
//! |---|---|---|---|---|
//! | `task_arithmetic` | none | no | no | |
//! | `ties` (Yadav et al. 2023) | largest magnitudes | yes | yes | no |
//! | `dare_linear`, `dare_ties` (Yu et al. 2024) | at random | no, yes | no | yes |
//! | `della_linear`, `della` (Deep et al. 2024) | at random by rank | no, yes | no, yes | yes |
//! | `breadcrumbs`, `breadcrumbs_ties` (Davari & Belilovsky 2024) | a band of magnitudes | no, yes | no | no |
//!
//! Consensus elects per element the sign of Σ wᵢδᵢ (zero elects plus) and keeps what agrees; the divisor is then the sum
//! of the weights kept (0 becomes 1), otherwise Σ wᵢ. `rescale` restores ‖Δ‖₁ with one factor per tensor and expert, as
//! mergekit does; `rescale: inverse-density` is the DARE paper's 1/density, our extension.

use super::breadcrumbs;
use super::dare;
use super::della;
use super::mask::{Decisions, Keep, Scratch};
use super::ties;
use crate::MergeError;
use crate::arithmetic::{Arithmetic, magnitude64, simd, with_arithmetic};
use crate::method::{Base, Fallback, Method, Parameter, Resolved, Spec, Value};
use crate::source::{Kernel, Rows, Source, TILE, View};

#[derive(Clone, Copy, PartialEq)]
enum Sparsifier {
    None,
    Magnitude,
    Random,
    ByRank,
    Band,
}

pub(crate) struct TaskArithmetic {
    spec: Spec,
    sparsifier: Sparsifier,
    consensus: bool,
}

const WEIGHT: Parameter = Parameter::expert("weight", Fallback::Required);
const DENSITY: Parameter = Parameter::expert("density", Fallback::Number(1.0));

macro_rules! parameters {
    ($normalize:literal, $rescale:literal $(, $more:expr)*) => {
        &[
            WEIGHT,
            DENSITY,
            $($more,)*
            Parameter::shared("normalize", Fallback::Bool($normalize)),
            Parameter::shared("rescale", Fallback::Bool($rescale)),
            Parameter::shared("lambda", Fallback::Number(1.0)),
            Parameter::shared("int8_mask", Fallback::Bool(false)),
        ]
    };
}

const fn family(
    name: &'static str,
    summary: &'static str,
    sparsifier: Sparsifier,
    consensus: bool,
    parameters: &'static [Parameter],
) -> TaskArithmetic {
    let spec = Spec { name, summary, base: Base::Required, experts: (1, usize::MAX), parameters };
    TaskArithmetic { spec, sparsifier, consensus }
}

const GAMMA: Parameter = Parameter::expert("gamma", Fallback::Number(0.01));
const EPSILON: Parameter = Parameter::expert("epsilon", Fallback::Number(0.15));

pub(crate) static TASK_ARITHMETIC: TaskArithmetic = family(
    "task_arithmetic",
    "base plus the weighted sum of task vectors",
    Sparsifier::None,
    false,
    &[
        WEIGHT,
        Parameter::shared("normalize", Fallback::Bool(false)),
        Parameter::shared("lambda", Fallback::Number(1.0)),
        Parameter::shared("int8_mask", Fallback::Bool(false)),
        // upstream: accepted and without effect, since nothing is sparsified.
        DENSITY,
        Parameter::shared("rescale", Fallback::Bool(false)),
    ],
);
pub(crate) static TIES: TaskArithmetic = family(
    "ties",
    "task vectors trimmed to their largest changes, merged by sign consensus",
    Sparsifier::Magnitude,
    true,
    parameters!(true, false),
);
pub(crate) static DARE_LINEAR: TaskArithmetic = family(
    "dare_linear",
    "task vectors thinned at random and rescaled, summed",
    Sparsifier::Random,
    false,
    parameters!(false, true),
);
pub(crate) static DARE_TIES: TaskArithmetic = family(
    "dare_ties",
    "task vectors thinned at random and rescaled, merged by sign consensus",
    Sparsifier::Random,
    true,
    parameters!(false, true),
);
pub(crate) static DELLA: TaskArithmetic = family(
    "della",
    "task vectors thinned at random, small changes more often, merged by sign consensus",
    Sparsifier::ByRank,
    true,
    parameters!(true, true, EPSILON),
);
pub(crate) static DELLA_LINEAR: TaskArithmetic = family(
    "della_linear",
    "task vectors thinned at random, small changes more often, summed",
    Sparsifier::ByRank,
    false,
    parameters!(false, true, EPSILON),
);
pub(crate) static BREADCRUMBS: TaskArithmetic = family(
    "breadcrumbs",
    "task vectors without their smallest and their very largest changes, summed",
    Sparsifier::Band,
    false,
    parameters!(false, false, GAMMA),
);
pub(crate) static BREADCRUMBS_TIES: TaskArithmetic = family(
    "breadcrumbs_ties",
    "task vectors without their smallest and their very largest changes, merged by sign consensus",
    Sparsifier::Band,
    true,
    parameters!(false, false, GAMMA),
);

/// Most bits kept of one tensor, all experts together.
const MOST_BITS: usize = 1 << 26;

/// An expert's part of the sum.
pub(crate) struct Term {
    input: usize,
    keep: Keep,
    /// Factor on what stays, if any.
    factor: Option<f32>,
    weight: f32,
}

impl Method for TaskArithmetic {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn prepare(&self, p: &Resolved, source: &Source<'_>) -> Result<Box<dyn Kernel>, MergeError> {
        let base = source.base()?;
        let experts = source.experts();
        let keeps = match self.sparsifier {
            Sparsifier::None => experts.iter().map(|_| Keep::All).collect(),
            Sparsifier::Magnitude => ties::keep(p, source, base, &experts)?,
            Sparsifier::Band => breadcrumbs::keep(p, source, base, &experts)?,
            Sparsifier::Random => dare::keep(p, source, &experts)?,
            Sparsifier::ByRank => della::keep(p, source, &experts)?,
        };
        let mut terms: Vec<Term> = experts
            .iter()
            .zip(keeps)
            .map(|(input, keep)| Term {
                input: *input,
                keep,
                factor: None,
                weight: source.compute.round(p.of(*input, "weight").unwrap_or(0.0) as f32),
            })
            .collect();
        match p.shared.get("rescale") {
            Some(Value::Bool(true)) if self.sparsifier != Sparsifier::None => restore_norms(source, base, &mut terms)?,
            Some(Value::Text(rule)) if rule == "inverse-density" => {
                for term in terms.iter_mut().filter(|t| !matches!(t.keep, Keep::All | Keep::None)) {
                    term.factor = p.of(term.input, "density").filter(|d| *d > 0.0).map(|d| (1.0 / d) as f32);
                }
            }
            Some(Value::Text(rule)) => {
                let reason = format!("`rescale` is `{rule}`, but must be true, false or inverse-density");
                return Err(MergeError::tensor(source.name, reason));
            }
            _ => {}
        }
        let sum: f32 = terms.iter().map(|t| t.weight).sum();
        let sum = source.compute.round(sum);
        let merged = Merged {
            base,
            row: source.row(),
            rows: if self.sparsifier == Sparsifier::ByRank { Rows::Whole } else { Rows::Any },
            terms,
            consensus: self.consensus,
            normalize: p.flag("normalize"),
            divisor: if sum.abs() < 1e-8 { 1.0 } else { sum },
            lambda: p.number("lambda") as f32,
        };
        Ok(with_arithmetic!(source.compute, boxed(merged)))
    }
}

fn boxed<R: Arithmetic>(merged: Merged) -> Box<dyn Kernel> {
    Box::new(Typed::<R>(merged, std::marker::PhantomData))
}

/// ‖Δ‖₁ / ‖S(Δ)‖₁ per expert; none where either is below 1e-7.
fn restore_norms(source: &Source<'_>, base: usize, terms: &mut [Term]) -> Result<(), MergeError> {
    with_arithmetic!(source.compute, restore_norms_in(source, base, terms))
}

fn restore_norms_in<R: Arithmetic>(source: &Source<'_>, base: usize, terms: &mut [Term]) -> Result<(), MergeError> {
    if terms.iter().all(|t| matches!(t.keep, Keep::All | Keep::None)) {
        return Ok(());
    }
    let rows = if terms.iter().any(|t| matches!(t.keep, Keep::ByRank(..))) { Rows::Whole } else { Rows::Any };
    let (row, tile) = (source.row(), tile_of(rows, source.row()));
    let ranked: Vec<bool> = terms.iter().map(|t| matches!(t.keep, Keep::ByRank(..))).collect();
    // Sorting rows is dear: if they fit, decisions are kept for the second pass. Runs must end at whole bytes, or be the
    // only one.
    let aligned = row.is_multiple_of(8) || source.len() <= tile;
    let keeps = aligned && ranked.iter().filter(|r| **r).count() * source.len() <= MOST_BITS;
    let shared: &[Term] = terms;
    let make = || (vec![0.0; 2 * shared.len()], vec![Vec::new(); shared.len()]);
    let parts = source.scan(
        rows,
        usize::MAX,
        make,
        #[inline(always)]
        |(sums, bits), view| {
            let mut delta = vec![0.0f32; tile];
            let mut scratch = Scratch::default();
            for at in (0..view.len).step_by(tile) {
                let part = view.part(at, tile.min(view.len - at));
                let delta = &mut delta[..part.len];
                for (i, term) in shared.iter().enumerate() {
                    difference::<R>(delta, part.input(term.input), part.input(base));
                    sums[2 * i] += magnitude64(delta);
                    term.keep.mask(delta, part.start, row, &mut scratch);
                    sums[2 * i + 1] += magnitude64(delta);
                    if keeps && ranked[i] {
                        Decisions::note(&mut bits[i], delta);
                    }
                }
            }
        },
    )?;
    let mut sums = vec![0.0; 2 * terms.len()];
    let mut decided: Vec<Vec<Vec<u8>>> = vec![Vec::new(); terms.len()];
    for (part, bits) in parts {
        sums.iter_mut().zip(part).for_each(|(s, p)| *s += p);
        decided.iter_mut().zip(bits).for_each(|(all, bits)| all.push(bits));
    }
    for ((term, bits), _) in terms.iter_mut().zip(decided).zip(ranked).filter(|(_, ranked)| keeps && *ranked) {
        term.keep = Keep::Decided(Decisions { segment: source.segment(rows), bits });
    }
    for (term, norms) in terms.iter_mut().zip(sums.chunks(2)) {
        let (before, after) = (R::r64(norms[0]), R::r64(norms[1]));
        term.factor = (before >= 1e-7 && after >= 1e-7).then(|| R::r(before / after));
    }
    Ok(())
}

/// Elements worked on at a time, of whole rows where these are asked for.
fn tile_of(rows: Rows, row: usize) -> usize {
    if rows == Rows::Whole { (TILE / row).max(1) * row } else { TILE }
}

#[inline(always)]
pub(crate) fn difference<R: Arithmetic>(out: &mut [f32], expert: &[f32], base: &[f32]) {
    for ((d, w), b) in out.iter_mut().zip(expert).zip(base) {
        *d = R::r(w - b);
    }
}

struct Merged {
    base: usize,
    row: usize,
    rows: Rows,
    terms: Vec<Term>,
    consensus: bool,
    normalize: bool,
    /// Σ wᵢ, for sums without consensus.
    divisor: f32,
    lambda: f32,
}

struct Typed<R>(Merged, std::marker::PhantomData<R>);

impl<R: Arithmetic> Kernel for Typed<R> {
    fn rows(&self) -> Rows {
        self.0.rows
    }
    fn apply(&self, view: &View<'_>, out: &mut [f32]) {
        simd(
            #[inline(always)]
            || self.0.apply::<R>(view, out),
        );
    }
}

impl Merged {
    #[inline(always)]
    fn apply<R: Arithmetic>(&self, view: &View<'_>, out: &mut [f32]) {
        let tile = tile_of(self.rows, self.row);
        let count = self.terms.len();
        let mut deltas = vec![0.0f32; count * tile];
        let (mut sum, mut divisor, mut elected) = (vec![0.0f32; tile], vec![0.0f32; tile], vec![0.0f32; tile]);
        let mut scratch = Scratch::default();
        for at in (0..view.len).step_by(tile) {
            let len = tile.min(view.len - at);
            let base = &view.input(self.base)[at..at + len];
            let (sum, divisor) = (&mut sum[..len], &mut divisor[..len]);
            sum.fill(0.0);
            for (term, delta) in self.terms.iter().zip(deltas.chunks_mut(tile)) {
                let delta = &mut delta[..len];
                difference::<R>(delta, &view.input(term.input)[at..at + len], base);
                term.keep.mask(delta, view.start + at, self.row, &mut scratch);
                if let Some(factor) = term.factor {
                    delta.iter_mut().for_each(|d| *d = R::r(*d * factor));
                }
                for (s, d) in sum.iter_mut().zip(delta) {
                    *d = R::r(*d * term.weight);
                    *s += *d;
                }
            }
            if self.consensus {
                divisor.fill(0.0);
                // The elected sign, ±1, then the sum of what agrees: `sum` is read before it is overwritten.
                let elected = &mut elected[..len];
                for (e, s) in elected.iter_mut().zip(sum.iter_mut()) {
                    *e = if R::r(*s) >= 0.0 { 1.0 } else { -1.0 };
                    *s = 0.0;
                }
                for (term, delta) in self.terms.iter().zip(deltas.chunks(tile)) {
                    for (((s, v), e), d) in
                        sum.iter_mut().zip(divisor.iter_mut()).zip(elected.iter()).zip(&delta[..len])
                    {
                        let agrees = d * e > 0.0;
                        *s += if agrees { *d } else { 0.0 };
                        *v += if agrees { term.weight } else { 0.0 };
                    }
                }
                divisor.iter_mut().for_each(|v| {
                    let rounded = R::r(*v);
                    *v = if rounded == 0.0 { 1.0 } else { rounded };
                });
            } else {
                divisor.fill(self.divisor);
            }
            let out = &mut out[at..at + len];
            for (((o, s), v), b) in out.iter_mut().zip(sum.iter()).zip(divisor.iter()).zip(base) {
                let mut merged = R::r(*s);
                merged = if self.normalize { R::r(merged / v) } else { merged };
                merged = if self.lambda == 1.0 { merged } else { R::r(merged * self.lambda) };
                *o = R::r(b + merged);
            }
        }
    }
}
