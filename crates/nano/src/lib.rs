//! The laptop-sized expert pool: task generators with their solutions, and the training of the four checkpoints.
//!
//! Everything is a function of a seed. Tasks are in the suites' own file formats; the observations that training reads
//! are predicted by the generators, and the workspace's tests hold them against the real environments. The network is
//! trained by a forward and backward pass of our own over `gemm`, on oracle trajectories.

pub mod build;
pub mod builtin;
pub mod dialogues;
pub mod tasks;
pub mod tokenizer;
pub mod train;
pub mod words;

/// A seed from a number.
#[must_use]
pub fn seed(number: u64) -> rolegraft_trajectory::Seed {
    rolegraft_trajectory::Seed(number)
}
