//! The sparsifier of `dare_linear` and `dare_ties`: every element stays with probability density, independently.

use super::mask::Keep;
use crate::MergeError;
use crate::method::Resolved;
use crate::random::{Stream, bound};
use crate::source::Source;

pub(super) fn keep(p: &Resolved, source: &Source<'_>, experts: &[usize]) -> Result<Vec<Keep>, MergeError> {
    experts
        .iter()
        .enumerate()
        .map(|(position, expert)| match p.of(*expert, "density").unwrap_or(1.0) {
            d if d >= 1.0 => Ok(Keep::All),
            d => match recorded(source, *expert)? {
                Some(mask) => Ok(Keep::Recorded(mask)),
                None => Ok(Keep::Random(Stream::new(source.session.seed, source.name, position), bound(d))),
            },
        })
        .collect()
}

/// A recorded mask, where the session has any.
pub(super) fn recorded(source: &Source<'_>, expert: usize) -> Result<Option<Vec<u8>>, MergeError> {
    let Some(masks) = source.session.masks else { return Ok(None) };
    let name = format!("{}/{}", source.inputs[expert].model.name, source.name);
    let bytes = masks.bytes(&name)?;
    if bytes.len() != source.len() {
        return Err(MergeError::tensor(&name, format!("the mask has {} elements, not {}", bytes.len(), source.len())));
    }
    Ok(Some(bytes.to_vec()))
}
