//! When two tensors count as the same.

use rolegraft_checkpoint::Dtype;

/// How far a value may lie from the recorded one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Tolerance {
    /// Largest absolute difference.
    Absolute(f64),
    /// Steps between neighbouring numbers of the dtype.
    Steps(u32, Dtype),
}

impl Tolerance {
    /// As a recording words it ("2e-6", "1 bf16 ulp from …"), or what its dtype and operator call for.
    pub(crate) fn of(worded: Option<&str>, dtype: Dtype, operator: &str) -> Self {
        let first = worded.and_then(|w| w.split_whitespace().next()).and_then(|w| w.parse::<f64>().ok());
        match (dtype, first, worded) {
            (Dtype::BF16 | Dtype::F16, ..) => Self::Steps(1, dtype),
            (_, Some(limit), Some(worded)) if !worded.contains("ulp") => Self::Absolute(limit),
            _ if ["tsv_m", "iso_c", "resmerge"].contains(&operator) => Self::Absolute(2e-5),
            _ => Self::Absolute(2e-6),
        }
    }

    pub(crate) fn accepts(self, ours: f32, theirs: f32) -> bool {
        match self {
            _ if ours == theirs || (ours.is_nan() && theirs.is_nan()) => true,
            Self::Absolute(limit) => f64::from((ours - theirs).abs()) <= limit,
            Self::Steps(most, dtype) => {
                steps(ours, dtype).abs_diff(steps(theirs, dtype)) <= i64::from(most).unsigned_abs()
            }
        }
    }
}

/// A number's place among those of a 16-bit dtype.
fn steps(x: f32, dtype: Dtype) -> i64 {
    let bytes = dtype.from_f32(&[x]).unwrap_or_default();
    let bits = bytes.iter().rev().fold(0i64, |bits, b| bits << 8 | i64::from(*b));
    if bits & 0x8000 == 0 { bits } else { 0x8000 - bits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_one_step_apart() {
        let one = Tolerance::of(Some("1 bf16 ulp"), Dtype::BF16, "ties");
        assert!(one.accepts(1.0, 1.007_812_5) && one.accepts(-1.0, -0.996_093_75) && one.accepts(0.0, -0.0));
        assert!(!one.accepts(1.0, 1.015_625) && !one.accepts(1.0, f32::NAN));
        assert_eq!(Tolerance::of(Some("2e-6 from the recorded stats"), Dtype::F32, "widen"), Tolerance::Absolute(2e-6));
        assert_eq!(Tolerance::of(None, Dtype::F32, "tsv_m"), Tolerance::Absolute(2e-5));
    }
}
