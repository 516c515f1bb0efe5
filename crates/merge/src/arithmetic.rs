//! The precision of a merge: every elementwise step rounds to it, as the reference's tensors do.

use half::f16;
use rolegraft_checkpoint::{Dtype, round_bf16};

/// Working precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compute {
    /// One rounding, at the end: the default.
    F32,
    /// mergekit's `dtype: bfloat16`.
    BF16,
    /// mergekit's `dtype: float16`.
    F16,
}

impl Compute {
    /// Of a dtype; none for integers and float64.
    #[must_use]
    pub fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Self::F32),
            Dtype::BF16 => Some(Self::BF16),
            Dtype::F16 => Some(Self::F16),
            _ => None,
        }
    }
    /// Rounds a number to it.
    #[must_use]
    pub fn round(self, x: f32) -> f32 {
        match self {
            Self::F32 => x,
            Self::BF16 => Bfloat::r(x),
            Self::F16 => Half::r(x),
        }
    }
}

/// A precision that kernels are compiled for.
pub(crate) trait Arithmetic: Copy + Send + Sync + 'static {
    /// Whether steps round, so that their order matters beyond a last bit.
    const ROUNDS: bool = true;
    /// Rounds to it.
    fn r(x: f32) -> f32;
    /// Rounds a statistic to it.
    #[inline(always)]
    fn r64(x: f64) -> f32 {
        Self::r(x as f32)
    }
    /// A product that is going to be summed.
    #[inline(always)]
    fn product(a: f32, b: f32) -> f64 {
        f64::from(Self::r(a * b))
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Single;
#[derive(Clone, Copy)]
pub(crate) struct Bfloat;
#[derive(Clone, Copy)]
pub(crate) struct Half;

impl Arithmetic for Single {
    const ROUNDS: bool = false;
    #[inline(always)]
    fn r(x: f32) -> f32 {
        x
    }
    #[inline(always)]
    fn product(a: f32, b: f32) -> f64 {
        f64::from(a) * f64::from(b)
    }
}
impl Arithmetic for Bfloat {
    #[inline(always)]
    fn r(x: f32) -> f32 {
        round_bf16(x)
    }
}
impl Arithmetic for Half {
    #[inline(always)]
    fn r(x: f32) -> f32 {
        f16::from_f32(x).to_f32()
    }
}

/// Calls a generic function with the arithmetic that a [`Compute`] names.
macro_rules! with_arithmetic {
    ($compute:expr, $f:ident ( $($argument:expr),* $(,)? )) => {
        match $compute {
            $crate::arithmetic::Compute::F32 => $f::<$crate::arithmetic::Single>($($argument),*),
            $crate::arithmetic::Compute::BF16 => $f::<$crate::arithmetic::Bfloat>($($argument),*),
            $crate::arithmetic::Compute::F16 => $f::<$crate::arithmetic::Half>($($argument),*),
        }
    };
}
pub(crate) use with_arithmetic;

/// Runs a loop compiled for the widest vectors this processor has. Results are the same on every processor: nothing is
/// contracted or reordered, and fused operations are written as such.
#[inline(always)]
pub(crate) fn simd<T>(f: impl FnOnce() -> T) -> T {
    pulp::Arch::new().dispatch(f)
}

/// Numbers that one accumulator of a sum takes; the order of summation is fixed by it.
const SUM_LANES: usize = 16;

/// Σ f(aᵢ, bᵢ) in f64, sixteen partial sums side by side.
#[inline(always)]
pub(crate) fn sum64(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f64) -> f64 {
    let mut lanes = [0.0; SUM_LANES];
    let ((a, a_tail), (b, b_tail)) = (a.as_chunks::<SUM_LANES>(), b.as_chunks::<SUM_LANES>());
    for (a, b) in a.iter().zip(b) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += f(*a, *b);
        }
    }
    let tail: f64 = a_tail.iter().zip(b_tail).map(|(a, b)| f(*a, *b)).sum();
    lanes.iter().sum::<f64>() + tail
}

/// ‖x‖₁: sixteen additions in f32 at most, then f64.
#[inline(always)]
pub(crate) fn magnitude64(x: &[f32]) -> f64 {
    const LANES: usize = 32;
    let mut sum = 0.0;
    for run in x.chunks(16 * LANES) {
        let mut lanes = [0.0f32; LANES];
        let (chunks, tail) = run.as_chunks::<LANES>();
        for chunk in chunks {
            for (lane, x) in lanes.iter_mut().zip(chunk) {
                *lane += x.abs();
            }
        }
        for x in lanes.iter().chain(tail) {
            sum += f64::from(x.abs());
        }
    }
    sum
}
