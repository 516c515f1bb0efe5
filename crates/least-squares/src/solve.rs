//! Symmetric systems.

use crate::gram::Gram;
use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor::{LltParams, LltRegularization, cholesky_in_place, cholesky_in_place_scratch};
use faer::linalg::cholesky::llt::solve::solve_in_place;
use faer::linalg::evd::{ComputeEigenvectors, SelfAdjointEvdParams, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::{Accum, Auto, Mat, MatMut, MatRef, Par, Spec};

/// What is below this share of the largest, or of what it was, is rounding of F32 products.
const NOTHING: f64 = 1e-6;

fn par() -> Par {
    Par::rayon(0)
}

/// `out` (width, columns) has `factor`·G·B added. All are column-major.
pub(crate) fn add_product(out: &mut [f64], gram: &Gram, b: &[f64], factor: f64) {
    let (width, columns) = (gram.width, b.len() / gram.width);
    let lower = MatRef::from_column_major_slice(&gram.sums, width, width);
    let b = MatRef::from_column_major_slice(b, width, columns);
    let mut out = MatMut::from_column_major_slice_mut(out, width, columns);
    for (half, structure) in
        [(lower, BlockStructure::TriangularLower), (lower.transpose(), BlockStructure::StrictTriangularUpper)]
    {
        let all = BlockStructure::Rectangular;
        triangular::matmul(out.as_mut(), all, Accum::Add, half, structure, b, all, factor, par());
    }
}

/// `out` (width, columns) has `factor`·K·B added, K (width, width) whole. All are column-major.
pub(crate) fn add_full_product(out: &mut [f64], whole: &[f64], b: &[f64], factor: f64) {
    let width = (whole.len() as f64).sqrt().round() as usize;
    let columns = b.len() / width;
    let (whole, b) =
        (MatRef::from_column_major_slice(whole, width, width), MatRef::from_column_major_slice(b, width, columns));
    let out = MatMut::from_column_major_slice_mut(out, width, columns);
    matmul(out, Accum::Add, whole, b, factor, par());
}

/// How a system was solved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Solved {
    /// By Cholesky's factors.
    Factors,
    /// By eigenvalues, since it is not positive definite: where it says nothing, the solution is 0.
    Eigenvalues,
}

/// Solves (G + ridge·I) X = B for each of the right-hand sides, in place. Nothing if not even eigenvalues can be had. The sums
/// of both matrices are used up; `spare` is of the same width.
pub(crate) fn solve(gram: &mut Gram, spare: &mut Gram, ridge: f64, sides: &mut [&mut Vec<f64>]) -> Option<Solved> {
    let width = gram.width;
    let before: Vec<f64> = gram.sums.iter().step_by(width + 1).copied().collect();
    gram.add_to_diagonal(ridge);
    spare.sums.copy_from_slice(&gram.sums);
    let params = Spec::new(<LltParams as Auto<f64>>::auto());
    let mut memory = MemBuffer::new(cholesky_in_place_scratch::<f64>(width, par(), params));
    let factored = cholesky_in_place(
        MatMut::from_column_major_slice_mut(&mut gram.sums, width, width),
        LltRegularization::default(),
        par(),
        MemStack::new(&mut memory),
        params,
    );
    let factors = MatRef::from_column_major_slice(&gram.sums, width, width);
    // With a ridge worth the name, no pivot is nothing.
    let mean = before.iter().sum::<f64>() / width as f64;
    let spans = |at: usize| factors[(at, at)] * factors[(at, at)] > NOTHING * before[at];
    if factored.is_ok() && (ridge > NOTHING * mean || (0..width).all(spans)) {
        for side in sides.iter_mut() {
            let columns = side.len() / width;
            let side = MatMut::from_column_major_slice_mut(side, width, columns);
            solve_in_place(factors, side, par(), MemStack::new(&mut MemBuffer::new(faer::dyn_stack::StackReq::EMPTY)));
        }
        return Some(Solved::Factors);
    }
    by_eigenvalues(spare, sides)
}

impl Gram {
    /// Keeps what the largest eigenvalues hold of the energy, up to a share of it; `false` if they cannot be computed.
    pub(crate) fn keep(&mut self, share: f64) -> bool {
        let Some((vectors, values)) = decompose(self) else { return false };
        let (width, all) = (self.width, values.iter().map(|value| value.max(0.0)).sum::<f64>());
        let (mut held, mut first) = (0.0, width);
        while first > 0 && held < share * all {
            first -= 1;
            held += values[first].max(0.0);
        }
        let kept = vectors.subcols(first, width - first);
        let scaled = Mat::from_fn(width, width - first, |row, at| kept[(row, at)] * values[first + at]);
        let out = MatMut::from_column_major_slice_mut(&mut self.sums, width, width);
        let (lower, all) = (BlockStructure::TriangularLower, BlockStructure::Rectangular);
        self::triangular::matmul(out, lower, Accum::Replace, scaled.as_ref(), all, kept.transpose(), all, 1.0, par());
        true
    }
}

/// The eigenvectors and eigenvalues of G + ridge·I.
pub(crate) fn eigen(gram: &mut Gram, ridge: f64) -> Option<(Mat<f64>, Vec<f64>)> {
    gram.add_to_diagonal(ridge);
    decompose(gram)
}

fn decompose(gram: &Gram) -> Option<(Mat<f64>, Vec<f64>)> {
    let width = gram.width;
    // Its lower triangle is looked at.
    let matrix = MatRef::from_column_major_slice(&gram.sums, width, width);
    let (mut vectors, mut values) = (Mat::<f64>::zeros(width, width), Diag::<f64>::zeros(width));
    let params = Spec::new(<SelfAdjointEvdParams as Auto<f64>>::auto());
    let need = self_adjoint_evd_scratch::<f64>(width, ComputeEigenvectors::Yes, par(), params);
    let mut memory = MemBuffer::new(need);
    self_adjoint_evd(matrix, values.as_mut(), Some(vectors.as_mut()), par(), MemStack::new(&mut memory), params)
        .ok()?;
    let values: Vec<f64> = values.column_vector().iter().copied().collect();
    values.iter().all(|value| value.is_finite()).then_some((vectors, values))
}

fn by_eigenvalues(gram: &Gram, sides: &mut [&mut Vec<f64>]) -> Option<Solved> {
    let width = gram.width;
    let (vectors, values) = decompose(gram)?;
    let most = values.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
    for side in sides {
        let columns = side.len() / width;
        let mut turned = Mat::<f64>::zeros(width, columns);
        let b = MatRef::from_column_major_slice(side, width, columns);
        matmul(turned.as_mut(), Accum::Replace, vectors.transpose(), b, 1.0, par());
        for column in 0..columns {
            for (row, value) in values.iter().enumerate() {
                turned[(row, column)] *= if *value > NOTHING * most { 1.0 / value } else { 0.0 };
            }
        }
        let out = MatMut::from_column_major_slice_mut(side, width, columns);
        matmul(out, Accum::Replace, vectors.as_ref(), turned.as_ref(), 1.0, par());
    }
    Some(Solved::Eigenvalues)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// G = X Xᵀ of so many columns of pseudo-random numbers, and X.
    fn gram(width: usize, columns: usize) -> (Gram, Vec<Vec<f64>>) {
        let value = |at: usize| ((at * 7919 + 13) % 101) as f64 / 50.0 - 1.0;
        let x: Vec<Vec<f64>> =
            (0..columns).map(|c| (0..width).map(|r| value(c * width + r + c * c)).collect()).collect();
        let mut gram = Gram::new(width);
        for column in 0..width {
            for row in column..width {
                gram.sums[column * width + row] = x.iter().map(|x| x[row] * x[column]).sum();
            }
        }
        (gram, x)
    }

    #[test]
    fn solutions_solve() {
        let (width, ridge) = (70, 0.3);
        let (mut regular, _) = gram(width, 90);
        let wanted: Vec<f64> = (0..2 * width).map(|at| (at % 17) as f64 - 8.0).collect();
        let mut side = vec![0.0; 2 * width];
        add_product(&mut side, &regular, &wanted, 1.0);
        side.iter_mut().zip(&wanted).for_each(|(side, wanted)| *side += ridge * wanted);
        assert_eq!(solve(&mut regular, &mut Gram::new(width), ridge, &mut [&mut side]), Some(Solved::Factors));
        assert!(side.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 1e-8));
    }

    #[test]
    fn a_share_of_the_energy_is_that_of_the_largest_eigenvalues() {
        let width = 40;
        let whole = || gram(width, 60).0;
        let (mut most, mut all) = (whole(), whole());
        assert!(most.keep(0.8) && all.keep(1.0));
        assert!(all.sums.iter().zip(&whole().sums).all(|(a, b)| (a - b).abs() < 1e-9));
        let trace = |gram: &Gram| gram.sums.iter().step_by(width + 1).sum::<f64>();
        let share = trace(&most) / trace(&whole());
        let (_, values) = decompose(&whole()).unwrap();
        let (_, left) = decompose(&most).unwrap();
        let kept = left.iter().filter(|value| **value > 1e-9).count();
        assert!((0.8..0.95).contains(&share) && kept < width, "{share} by {kept}");
        assert!(left.iter().rev().zip(values.iter().rev()).take(kept).all(|(a, b)| (a - b).abs() < 1e-9));
    }

    #[test]
    fn what_singular_equations_do_not_say_is_nothing() {
        let width = 70;
        let (mut singular, x) = gram(width, 9);
        let wanted: Vec<f64> = (0..width).map(|at| (at % 17) as f64 - 8.0).collect();
        let mut side = vec![0.0; width];
        add_product(&mut side, &singular, &wanted, 1.0);
        assert_eq!(solve(&mut singular, &mut Gram::new(width), 0.0, &mut [&mut side]), Some(Solved::Eigenvalues));
        // Along every x it is what was wanted; what is left over is orthogonal to all of them.
        let along = |v: &[f64], x: &[f64]| v.iter().zip(x).map(|(a, b)| a * b).sum::<f64>();
        assert!(x.iter().all(|x| (along(&side, x) - along(&wanted, x)).abs() < 1e-6));
        assert!(along(&side, &side) < along(&wanted, &wanted));
        let rest: Vec<f64> = wanted.iter().zip(&side).map(|(a, b)| a - b).collect();
        assert!(along(&rest, &side).abs() < 1e-5);
    }
}
