//! `nuslerp` (mergekit): great-circle interpolation of two models, or of their task vectors if there is a base, with
//! t = w₂/(w₁+w₂) (0.5 if |w₁+w₂| < 1e-6). `nuslerp_flatten` takes the tensor as one vector; without it every row of the
//! last axis, or with `nuslerp_row_wise` every column along the first, is one. Norms are clamped at 1e-7; vectors that are
//! colinear (1 − d² ≤ 1e-16) are interpolated linearly, and so are opposed ones (d < −1 + 1e-6), where the reference returns
//! rounding noise.

use super::slerp::arc;
use super::task_arithmetic::difference;
use crate::MergeError;
use crate::arithmetic::{Arithmetic, Single, simd, with_arithmetic};
use crate::method::{Base, Fallback, Method, Parameter, Resolved, Spec};
use crate::source::{FEW_SEGMENTS, Kernel, Rows, Source, View};

pub(crate) struct NuSlerp;

impl Method for NuSlerp {
    fn spec(&self) -> &Spec {
        const {
            &Spec {
                name: "nuslerp",
                summary: "interpolation of two models, or of their task vectors, along the sphere",
                base: Base::Optional,
                experts: (2, 2),
                parameters: &[
                    Parameter::expert("weight", Fallback::Required),
                    Parameter::shared("nuslerp_row_wise", Fallback::Bool(false)),
                    Parameter::shared("nuslerp_flatten", Fallback::Bool(true)),
                ],
            }
        }
    }
    fn prepare(&self, p: &Resolved, source: &Source<'_>) -> Result<Box<dyn Kernel>, MergeError> {
        with_arithmetic!(source.compute, prepare(p, source))
    }
}

fn prepare<R: Arithmetic>(p: &Resolved, source: &Source<'_>) -> Result<Box<dyn Kernel>, MergeError> {
    let experts = source.experts();
    let (one, two) = (experts[0], experts[1]);
    let weight = |i: usize| p.of(i, "weight").unwrap_or(0.0);
    let total = weight(one) + weight(two);
    let t = if total.abs() < 1e-6 { 0.5 } else { weight(two) / total };
    let arms = Arms { one, two, base: source.base };
    // Number of columns: vectors lie along the first axis, one for each place in the others.
    let columns = source.len() / source.shape.first().copied().unwrap_or(1).max(1);
    let vectors = match (p.flag("nuslerp_flatten"), p.flag("nuslerp_row_wise")) {
        (true, _) => Vectors::Columns(1),
        (false, true) if source.shape.len() > 1 => Vectors::Columns(columns),
        (false, _) => Vectors::Rows(source.row()),
    };
    let blends = match vectors {
        Vectors::Rows(_) => Vec::new(),
        Vectors::Columns(columns) => {
            let squares = if columns == 1 { whole::<R>(arms, source)? } else { sums::<R>(arms, source, columns, &[])? };
            let norms: Vec<Norms> = squares.into_iter().map(Norms::of::<R>).collect();
            let cosines = match R::ROUNDS {
                false => norms.iter().map(|n| n.cosine).collect(),
                true => {
                    sums::<R>(arms, source, columns, &norms)?.into_iter().map(|s| R::r64(s[2])).collect::<Vec<f32>>()
                }
            };
            cosines.into_iter().map(|c| Blend::at::<R>(c, t)).collect()
        }
    };
    Ok(Box::new(Arcs::<R> { arms, vectors, blends, t, precision: std::marker::PhantomData }))
}

/// What one vector is.
#[derive(Clone, Copy)]
enum Vectors {
    /// A row.
    Rows(usize),
    /// Everything that lies at the same place modulo so many elements: a column, or with 1 the whole tensor.
    Columns(usize),
}

#[derive(Clone, Copy)]
struct Arms {
    one: usize,
    two: usize,
    base: Option<usize>,
}

impl Arms {
    /// Writes the elements of one of the two vectors.
    #[inline(always)]
    fn vector<R: Arithmetic>(self, view: &View<'_>, input: usize, out: &mut [f32]) {
        match self.base {
            Some(base) => difference::<R>(out, view.input(input), view.input(base)),
            None => out.copy_from_slice(view.input(input)),
        }
    }
    /// Writes those of both.
    #[inline(always)]
    fn fill<R: Arithmetic>(self, view: &View<'_>, x: &mut [f32], y: &mut [f32]) {
        self.vector::<R>(view, self.one, x);
        self.vector::<R>(view, self.two, y);
    }
}

/// ‖x‖, ‖y‖ and, where nothing rounds, their cosine.
#[derive(Clone, Copy)]
struct Norms {
    x: f32,
    y: f32,
    cosine: f32,
}

impl Norms {
    fn of<R: Arithmetic>([x, y, xy]: [f64; 3]) -> Self {
        let norm = |square: f64| square.sqrt().max(1e-7);
        let cosine = (xy / (norm(x) * norm(y))).clamp(-1.0, 1.0) as f32;
        Self { x: R::r64(norm(x)), y: R::r64(norm(y)), cosine }
    }
}

/// Σx², Σy² and Σxy; with norms the last is that of unit vectors, every step rounded.
#[inline(always)]
fn products<R: Arithmetic>(sums: &mut [f64; 3], x: f32, y: f32, norms: Option<&Norms>) {
    match norms {
        Some(n) => sums[2] += f64::from(R::r(R::r(x / n.x) * R::r(y / n.y))),
        None => {
            let (x, y) = (f64::from(x), f64::from(y));
            *sums = [sums[0] + x * x, sums[1] + y * y, sums[2] + x * y];
        }
    }
}

/// [`products`] of the tensor as one vector, without norms.
fn whole<R: Arithmetic>(arms: Arms, source: &Source<'_>) -> Result<Vec<[f64; 3]>, MergeError> {
    let gram = source.gram::<Single>(
        2,
        #[inline(always)]
        |view, i, out| arms.vector::<R>(view, [arms.one, arms.two][i], out),
    )?;
    Ok(vec![[gram[0][0], gram[1][1], gram[0][1]]])
}

/// [`products`] of every vector.
fn sums<R: Arithmetic>(
    arms: Arms,
    source: &Source<'_>,
    columns: usize,
    norms: &[Norms],
) -> Result<Vec<[f64; 3]>, MergeError> {
    // One vector has several partial sums, so that they run side by side.
    let lanes = if columns == 1 { 16 } else { columns };
    let make = || vec![[0.0; 3]; lanes];
    let parts = source.scan(
        Rows::Any,
        FEW_SEGMENTS,
        make,
        #[inline(always)]
        |sums, view| {
            let (mut x, mut y) = (vec![0.0; view.len], vec![0.0; view.len]);
            arms.fill::<R>(view, &mut x, &mut y);
            for (i, (x, y)) in x.iter().zip(&y).enumerate() {
                let at = view.start + i;
                products::<R>(&mut sums[at % lanes], *x, *y, norms.get(at % columns));
            }
        },
    )?;
    let mut total = vec![[0.0; 3]; columns];
    for part in parts {
        for (lane, sums) in part.into_iter().enumerate() {
            total[lane % columns].iter_mut().zip(sums).for_each(|(t, s)| *t += s);
        }
    }
    Ok(total)
}

/// (a·x + b·y)/divisor.
#[derive(Clone, Copy)]
struct Blend {
    a: f32,
    b: f32,
    divisor: f32,
}

impl Blend {
    fn at<R: Arithmetic>(cosine: f32, t: f64) -> Self {
        let colinear = match R::ROUNDS {
            true => f64::from(R::r(1.0 - R::r(cosine * cosine))) <= 1e-16,
            false => 1.0 - f64::from(cosine) * f64::from(cosine) <= 1e-16,
        };
        if colinear || f64::from(cosine) < -1.0 + 1e-6 {
            return Self { a: (1.0 - t) as f32, b: t as f32, divisor: 1.0 };
        }
        if !R::ROUNDS {
            let (a, b) = arc(f64::from(cosine).acos(), t);
            return Self { a: a as f32, b: b as f32, divisor: 1.0 };
        }
        let theta = f64::from(R::r64(f64::from(cosine).acos()));
        let sine = |share: f64| R::r64(f64::from(R::r64(share * theta)).sin());
        Self { a: sine(1.0 - t), b: sine(t), divisor: R::r64(theta.sin()) }
    }
}

struct Arcs<R> {
    arms: Arms,
    vectors: Vectors,
    /// Of every column; rows get theirs on the way.
    blends: Vec<Blend>,
    t: f64,
    precision: std::marker::PhantomData<R>,
}

impl<R: Arithmetic> Arcs<R> {
    fn blend_of_row(&self, x: &[f32], y: &[f32]) -> Blend {
        let mut sums = [0.0; 3];
        x.iter().zip(y).for_each(|(x, y)| products::<R>(&mut sums, *x, *y, None));
        let norms = Norms::of::<R>(sums);
        if !R::ROUNDS {
            return Blend::at::<R>(norms.cosine, self.t);
        }
        let mut sums = [0.0; 3];
        x.iter().zip(y).for_each(|(x, y)| products::<R>(&mut sums, *x, *y, Some(&norms)));
        Blend::at::<R>(R::r64(sums[2]), self.t)
    }
}

impl<R: Arithmetic> Kernel for Arcs<R> {
    fn rows(&self) -> Rows {
        if matches!(self.vectors, Vectors::Rows(_)) { Rows::Whole } else { Rows::Any }
    }
    fn apply(&self, view: &View<'_>, out: &mut [f32]) {
        let base = self.arms.base.map(|b| view.input(b));
        let (mut x, mut y) = (vec![0.0; view.len], vec![0.0; view.len]);
        self.arms.fill::<R>(view, &mut x, &mut y);
        let mut blend = self.blends.first().copied().unwrap_or(Blend { a: 1.0, b: 0.0, divisor: 1.0 });
        if matches!(self.vectors, Vectors::Columns(1)) {
            return simd(
                #[inline(always)]
                || {
                    for ((o, x), y) in out.iter_mut().zip(&x).zip(&y) {
                        *o = R::r(R::r(R::r(blend.a * x) + R::r(blend.b * y)) / blend.divisor);
                    }
                    for (o, b) in out.iter_mut().zip(base.unwrap_or_default()) {
                        *o = R::r(b + *o);
                    }
                },
            );
        }
        for (i, o) in out.iter_mut().enumerate() {
            match self.vectors {
                Vectors::Rows(row) if i % row == 0 => blend = self.blend_of_row(&x[i..i + row], &y[i..i + row]),
                Vectors::Columns(columns) if columns > 1 => blend = self.blends[(view.start + i) % columns],
                _ => {}
            }
            let mixed = R::r(R::r(R::r(blend.a * x[i]) + R::r(blend.b * y[i])) / blend.divisor);
            *o = base.map_or(mixed, |b| R::r(b[i] + mixed));
        }
    }
}
