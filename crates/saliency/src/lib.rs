//! Role-conditioned activation tracing.
//!
//! A decoder of our own (Qwen3, Qwen2, Llama) whose MLP activations can be seen; the saliency of every neuron at the
//! tokens of a role; salient sets and their overlap (AOS). The same decoder with a key-value cache is an exact, slow
//! engine for small models.
//!
//! All arithmetic is F32 on the CPU, whatever the checkpoint holds: BF16 activations move set members. Sums are F64 and
//! kept as (sum, count), so files traced from shards of a calibration set add up.

mod importance;
mod saliency;
mod tracer;

pub use importance::{Importance, channel_importance};
pub use saliency::{NeuronSet, Saliency, SaliencyError, TENTHS, Tenth, aos};
pub use tracer::{Reading, TokenRun, Trajectory, trace, trace_readings, union_overlap};
