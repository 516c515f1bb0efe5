//! The sparsifier of `della` and `della_linear`: in every row (a 1-D tensor is one) the magnitudes are ranked ascending,
//! and rank r of n stays with probability p = (density − ε) + 2ε·r/(n − 1).

use super::dare::recorded;
use super::mask::Keep;
use super::probability::Probability;
use crate::MergeError;
use crate::method::Resolved;
use crate::random::Stream;
use crate::source::Source;

pub(super) fn keep(p: &Resolved, source: &Source<'_>, experts: &[usize]) -> Result<Vec<Keep>, MergeError> {
    experts
        .iter()
        .enumerate()
        .map(|(position, expert)| {
            let density = p.of(*expert, "density").unwrap_or(1.0);
            let epsilon = p.of(*expert, "epsilon").unwrap_or(0.15);
            if density >= 1.0 {
                return Ok(Keep::All);
            }
            if density <= 0.0 {
                return Ok(Keep::None);
            }
            if density + epsilon >= 1.0 || density - epsilon <= 0.0 {
                let reason = format!(
                    "density {density} ± epsilon {epsilon} of `{}` must lie strictly between 0 and 1; lower epsilon",
                    source.inputs[*expert].model.name
                );
                return Err(MergeError::tensor(source.name, reason));
            }
            Ok(match recorded(source, *expert)? {
                Some(mask) => Keep::Recorded(mask),
                None => Keep::ByRank(
                    Stream::new(source.session.seed, source.name, position),
                    Probability { density, epsilon },
                ),
            })
        })
        .collect()
}
