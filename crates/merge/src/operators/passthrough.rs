//! `passthrough` (mergekit): W = scale·W₁, or W₁ as it is. For stacking layers.

use super::Combination;
use crate::MergeError;
use crate::method::{Base, Fallback, Method, Parameter, Resolved, Scope, Spec};
use crate::source::{Kernel, Source};

pub(crate) struct Passthrough;

impl Method for Passthrough {
    fn spec(&self) -> &Spec {
        const {
            &Spec {
                name: "passthrough",
                summary: "one model's tensors as they are, or scaled; for stacking layers",
                base: Base::Ignored,
                experts: (1, 1),
                parameters: &[Parameter { name: "scale", scope: Scope::Input, default: Fallback::Absent }],
            }
        }
    }
    fn prepare(&self, p: &Resolved, source: &Source<'_>) -> Result<Box<dyn Kernel>, MergeError> {
        Ok(Box::new(Combination(vec![p.of(0, "scale").unwrap_or(1.0) as f32], source.compute)))
    }
}
