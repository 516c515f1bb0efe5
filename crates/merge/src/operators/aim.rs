//! AIM (ahnobari/ActivationInformedMerging@e7eccd5): relaxes another merge W_m towards the base where the base's activations are
//! large: W = W₀ + (W_m − W₀) ⊙ (1 − ã(1 − ω)), ã = a / max a per module along the last axis, a the mean |input| per channel.
//!
//! Biases and an untied embedding stay as merged. Where the head is tied, upstream writes the relaxed head into the shared
//! tensor, so the embedding gets the head's relaxation; `tied: leave` leaves it as merged.

use crate::MergeError;
use crate::arithmetic::{Arithmetic, Compute, with_arithmetic};
use crate::source::{Kernel, Rows, View};
use std::collections::BTreeMap;

/// A merge to be relaxed, tensor by tensor.
pub(crate) struct Relaxation<'a> {
    pub(crate) importance: &'a BTreeMap<String, Vec<f32>>,
    pub(crate) omega: f64,
    /// Whether the embedding gets the head's relaxation.
    pub(crate) head_is_tied: bool,
}

impl Relaxation<'_> {
    /// The kernel that relaxes what another merges, or that kernel where nothing is relaxed.
    pub(crate) fn relax(
        &self,
        name: &str,
        row: usize,
        base: usize,
        compute: Compute,
        inner: Box<dyn Kernel>,
    ) -> Result<Box<dyn Kernel>, MergeError> {
        let Some(module) = self.module(name) else { return Ok(inner) };
        let Some(values) = self.importance.get(module) else {
            return Err(MergeError::tensor(name, format!("AIM has no importance of `{module}`")));
        };
        if values.len() != row {
            let reason = format!("the importance of `{module}` has {} channels, not {row}", values.len());
            return Err(MergeError::tensor(name, reason));
        }
        let relaxed = Relaxed { inner, base, importance: values.clone(), omega: self.omega as f32 };
        Ok(with_arithmetic!(compute, boxed(relaxed)))
    }

    /// The module whose importance a tensor takes; none for biases and an embedding that is left.
    fn module<'n>(&self, name: &'n str) -> Option<&'n str> {
        let module = name.strip_suffix(".weight")?;
        match module.contains("embed") {
            true if self.head_is_tied => Some("lm_head"),
            true => None,
            false => Some(module),
        }
    }
}

fn boxed<R: Arithmetic>(mut relaxed: Relaxed) -> Box<dyn Kernel> {
    let top = relaxed.importance.iter().copied().fold(0.0, f32::max);
    for a in &mut relaxed.importance {
        let share = if top > 0.0 { *a / top } else { 0.0 };
        *a = 1.0 - share * (1.0 - relaxed.omega);
    }
    Box::new(Typed::<R>(relaxed, std::marker::PhantomData))
}

struct Relaxed {
    inner: Box<dyn Kernel>,
    base: usize,
    /// a, and in a [`Typed`] 1 − ã(1 − ω).
    importance: Vec<f32>,
    omega: f32,
}

struct Typed<R>(Relaxed, std::marker::PhantomData<R>);

impl<R: Arithmetic> Kernel for Typed<R> {
    fn rows(&self) -> Rows {
        self.0.inner.rows()
    }
    fn apply(&self, view: &View<'_>, out: &mut [f32]) {
        self.0.inner.apply(view, out);
        let row = self.0.importance.len();
        for (i, (o, b)) in out.iter_mut().zip(view.input(self.0.base)).enumerate() {
            let keep = self.0.importance[(view.start + i) % row];
            // upstream: importances are float32, so only the task vector and the result are rounded.
            *o = R::r(b + R::r(*o - b) * keep);
        }
    }
}
