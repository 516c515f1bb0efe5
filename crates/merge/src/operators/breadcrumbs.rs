//! The sparsifier of `breadcrumbs`: with keep = ⌊density·n⌋, top = ⌊gamma·n⌋, bot = max(0, n − keep − top), the elements of
//! ascending magnitude ranks bot … bot + keep − 1. At large gamma fewer outliers are dropped, so that density holds.

use super::mask::Keep;
use super::ties::magnitudes;
use crate::MergeError;
use crate::arithmetic::{Arithmetic, with_arithmetic};
use crate::method::Resolved;
use crate::rank::{Cut, indices_of, places};
use crate::source::Source;

pub(super) fn keep(p: &Resolved, source: &Source<'_>, base: usize, experts: &[usize]) -> Result<Vec<Keep>, MergeError> {
    with_arithmetic!(source.compute, keep_in(p, source, base, experts))
}

fn keep_in<R: Arithmetic>(
    p: &Resolved,
    source: &Source<'_>,
    base: usize,
    experts: &[usize],
) -> Result<Vec<Keep>, MergeError> {
    let len = source.len();
    // Ascending ranks of the first element kept and of the first one above the band.
    let bands: Vec<Option<(u64, u64)>> = experts
        .iter()
        .map(|e| {
            let density = p.of(*e, "density").unwrap_or(1.0);
            if density >= 1.0 {
                return None;
            }
            let share = |s: f64| (s.max(0.0) * len as f64) as usize;
            let keep = share(density);
            let bottom = len.saturating_sub(keep + share(p.of(*e, "gamma").unwrap_or(0.01)));
            Some((bottom as u64, (bottom + keep) as u64))
        })
        .collect();
    let inner = |rank: u64| rank > 0 && rank < len as u64;
    let ranks: Vec<Vec<u64>> = bands
        .iter()
        .map(|band| band.iter().filter(|(a, b)| a < b).flat_map(|(a, b)| [*a, *b]).filter(|r| inner(*r)).collect())
        .collect();
    let key = magnitudes::<R>(base, experts);
    let found = places(source, &ranks, &key)?;
    let questions: Vec<_> =
        found.iter().enumerate().flat_map(|(s, places)| places.iter().map(move |p| (s, p, p.before))).collect();
    let mut boundaries = found.iter().flatten().zip(indices_of(source, &questions, &key)?);
    Ok(bands
        .iter()
        .map(|band| match *band {
            None => Keep::All,
            Some((first, end)) if first == end => Keep::None,
            Some((first, end)) => {
                let mut cuts = Vec::new();
                if inner(first) {
                    cuts.extend(boundaries.next().map(|(p, index)| Cut::From(p.key, index)));
                }
                if inner(end) {
                    cuts.extend(boundaries.next().map(|(p, index)| Cut::Below(p.key, index)));
                }
                Keep::Cuts(cuts)
            }
        })
        .collect())
}
