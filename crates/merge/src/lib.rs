//! Training-free merge operators, and the loop that streams a pool through one of them.
//!
//! An [`Operator`] is a function of one tensor at a time; all arithmetic is F32 and rounded once to the base's dtype.
//! Random operators draw from a counter keyed by seed, tensor, expert and element, so the bytes do not depend on the
//! number of threads. Formulas follow the reference implementations named in each operator's file.

mod merge;
mod operators;
mod random;

pub use merge::{MergeError, merge};
pub use operators::{Operator, Parameters};
