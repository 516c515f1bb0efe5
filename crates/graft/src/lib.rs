//! ARM's decisions as pure functions: select a backbone, diagnose weak benchmarks, plan the transplant; and the one
//! impure step, [`Plan::apply`], which copies neurons between checkpoints.
//!
//! Notation and equations: arXiv 2601.07309. This crate never reads text: it sees scores, saliencies and weights.
//! Invariants: grafted neurons are disjoint from protected ones; tensors outside the MLP projections are byte-identical
//! before and after; a plan applied twice changes nothing.

mod apply;
mod decide;

pub use apply::ApplyError;
pub use decide::{
    Candidate, Diagnosis, DiagnosisRules, Evidence, Graft, Plan, Protect, Selection, Signal, diagnose, plan, select,
};
