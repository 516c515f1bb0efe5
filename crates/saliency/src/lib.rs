//! Role-conditioned activation tracing: the saliency of every neuron at the tokens of a role; salient sets and their overlap
//! (AOS).
//!
//! Sums are F64 and kept as (sum, count), so files traced from shards of a calibration set add up.

mod importance;
mod journal;
mod plan;
mod saliency;
mod tracer;

pub use importance::{Importance, channel_importance};
pub use plan::{Reading, Run, TraceError};
pub use saliency::{NeuronSet, Saliency, SaliencyError, TENTHS, Tenth, aos};
pub use tracer::{Step, Tracing, Trajectory, trace, trace_as, trace_readings, union_overlap, wave_tokens};
