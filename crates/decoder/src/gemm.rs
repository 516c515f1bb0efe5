//! Products of matrices in slices.

use gemm::Parallelism;

/// A matrix in a slice: `rows` of `columns`, a row every `stride` elements.
#[derive(Clone, Copy)]
pub struct Matrix<'m> {
    /// Its numbers.
    pub values: &'m [f32],
    /// How many rows.
    pub rows: usize,
    /// Of how many numbers.
    pub columns: usize,
    /// From a row to the next.
    pub stride: usize,
}

impl<'m> Matrix<'m> {
    /// One whose rows follow each other.
    pub(crate) fn new(values: &'m [f32], rows: usize, columns: usize) -> Self {
        Self { values, rows, columns, stride: columns }
    }
}

/// The elements from the first to the last of a matrix.
fn span(rows: usize, columns: usize, stride: usize) -> usize {
    if rows == 0 { 0 } else { (rows - 1) * stride + columns }
}

/// `out` (rows of `a`, columns of `b`, a row every `stride` elements) becomes a·b, or has it added.
///
/// # Panics
/// If a slice is shorter than its matrix, rows overlap, or the shapes do not go together.
pub(crate) fn multiply(out: &mut [f32], stride: usize, a: Matrix<'_>, b: Matrix<'_>, add: bool, parallel: bool) {
    product(out, stride, (a, false), b, add, parallel);
}

/// `out` (columns of `a`, columns of `b`, a row every `stride` elements) becomes aᵀ·b, in which all threads work.
///
/// # Panics
/// If a slice is shorter than its matrix, rows overlap, or the shapes do not go together.
pub fn multiply_transposed(out: &mut [f32], stride: usize, a: Matrix<'_>, b: Matrix<'_>) {
    product(out, stride, (a, true), b, false, true);
}

/// a·b, or aᵀ·b.
#[allow(unsafe_code, reason = "the library takes pointers; see the SAFETY comment")]
fn product(
    out: &mut [f32],
    stride: usize,
    (a, transposed): (Matrix<'_>, bool),
    b: Matrix<'_>,
    add: bool,
    parallel: bool,
) {
    let (rows, inner) = if transposed { (a.columns, a.rows) } else { (a.rows, a.columns) };
    let (along_columns, along_rows) = if transposed { (a.stride, 1) } else { (1, a.stride) };
    assert_eq!(inner, b.rows, "shapes of a product");
    for matrix in [&a, &b] {
        assert!(
            matrix.stride >= matrix.columns && matrix.values.len() >= span(matrix.rows, matrix.columns, matrix.stride)
        );
    }
    assert!(stride >= b.columns && out.len() >= span(rows, b.columns, stride));
    let parallelism = if parallel { Parallelism::Rayon(0) } else { Parallelism::None };
    // SAFETY: the three matrices lie in their slices, as asserted above, `a` whichever way round it is read; `out` is borrowed
    // alone, so it overlaps neither `a` nor `b`; rows of `out` do not overlap, since its stride is at least its width. F32 has
    // no invalid values.
    unsafe {
        gemm::gemm(
            rows,
            b.columns,
            inner,
            out.as_mut_ptr(),
            1,
            stride as isize,
            add,
            a.values.as_ptr(),
            along_columns as isize,
            along_rows as isize,
            b.values.as_ptr(),
            1,
            b.stride as isize,
            1.0f32,
            1.0f32,
            false,
            false,
            false,
            parallelism,
        );
    }
}
