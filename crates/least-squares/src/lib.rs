//! Merges in closed form: forward passes over each expert's calibration set give Gram matrices, layer by layer, and every
//! linear map of the merged model is the least-squares fit to what the experts' maps do to their own inputs.
//!
//! [`merge()`] of a recipe of `regmean` is RegMean (arXiv 2212.09849; tanganke/fusion_bench@54c9e8c:fusion_bench/method/regmean) and, sequentially, RegMean++
//! (arXiv 2508.03121; nthehai01/RegMean-plusplus@8f4bf1f), with token weights, a ridge that pulls to an anchor, and the tied
//! embedding as the two maps that it is. One layer's statistics are in memory at a time.
//!
//! Sums and solutions are F64; products of activations are F32, at most 1,024 tokens at a time.

mod consensus;
mod error;
mod essential;
mod featcal;
mod fit;
mod gram;
mod merge;
mod record;
mod sample;
mod solve;
mod stream;
mod sums;
mod target;
mod vocabulary;
mod walk;

pub use error::LeastSquaresError;
pub use fit::{Outcome, statistics_bytes};
pub use merge::{Calibration, Means, Sets, merge};
pub use record::record;
pub use sample::{Expert, Sample};
pub use sums::Sums;
pub use walk::Step;
