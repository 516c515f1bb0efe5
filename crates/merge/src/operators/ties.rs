//! The sparsifier of `ties`: the k = max(1, ⌊density·n⌋) elements of largest magnitude, equal magnitudes by lower index.
//! Per tensor, as mergekit trims; the paper trims over the whole vector.

use super::mask::Keep;
use crate::MergeError;
use crate::arithmetic::{Arithmetic, with_arithmetic};
use crate::method::Resolved;
use crate::rank::{Keys, largest};
use crate::source::{Source, View};

pub(super) fn keep(p: &Resolved, source: &Source<'_>, base: usize, experts: &[usize]) -> Result<Vec<Keep>, MergeError> {
    let len = source.len();
    let wanted: Vec<u64> = experts
        .iter()
        .map(|e| match p.of(*e, "density").unwrap_or(1.0) {
            d if d >= 1.0 => len as u64,
            d if d <= 0.0 => 0,
            d => ((d * len as f64) as u64).max(1),
        })
        .collect();
    let cuts = with_arithmetic!(source.compute, cuts(source, base, experts, &wanted))?;
    Ok(cuts
        .into_iter()
        .zip(wanted)
        .map(|(cut, wanted)| match cut {
            _ if wanted >= len as u64 => Keep::All,
            Some(cut) => Keep::Cuts(vec![cut]),
            None => Keep::None,
        })
        .collect())
}

fn cuts<R: Arithmetic>(
    source: &Source<'_>,
    base: usize,
    experts: &[usize],
    wanted: &[u64],
) -> Result<Vec<Option<crate::rank::Cut>>, MergeError> {
    largest(source, wanted, magnitudes::<R>(base, experts))
}

/// |Δ| of every expert, as keys.
pub(super) fn magnitudes<R: Arithmetic>(base: usize, experts: &[usize]) -> impl Keys + '_ {
    #[inline(always)]
    move |view: &View<'_>, stream: usize, keys: &mut [u32]| {
        for ((key, w), b) in keys.iter_mut().zip(view.input(experts[stream])).zip(view.input(base)) {
            *key = R::r(w - b).abs().to_bits();
        }
    }
}
