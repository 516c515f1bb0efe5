//! Element types of tensors, and their conversion to and from f32.

use half::f16;
use half::slice::HalfFloatSliceExt;
use serde::{Deserialize, Serialize};

/// An element type, named as safetensors names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the documentation")]
pub enum Dtype {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U8,
    BOOL,
}

impl Dtype {
    /// Reads the name used in safetensors headers.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "F64" => Self::F64,
            "F32" => Self::F32,
            "F16" => Self::F16,
            "BF16" => Self::BF16,
            "I64" => Self::I64,
            "I32" => Self::I32,
            "I16" => Self::I16,
            "I8" => Self::I8,
            "U8" => Self::U8,
            "BOOL" => Self::BOOL,
            _ => return None,
        })
    }
    /// The name used in safetensors headers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::I64 => "I64",
            Self::I32 => "I32",
            Self::I16 => "I16",
            Self::I8 => "I8",
            Self::U8 => "U8",
            Self::BOOL => "BOOL",
        }
    }
    /// The name used in `config.json` (`torch_dtype`).
    #[must_use]
    pub fn torch_name(self) -> &'static str {
        match self {
            Self::F64 => "float64",
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::BF16 => "bfloat16",
            Self::I64 => "int64",
            Self::I32 => "int32",
            Self::I16 => "int16",
            Self::I8 => "int8",
            Self::U8 => "uint8",
            Self::BOOL => "bool",
        }
    }
    /// Bytes per element.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::BOOL => 1,
        }
    }
    /// Whether the elements are floating-point numbers.
    #[must_use]
    pub fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::BF16)
    }

    /// Little-endian bytes of a float dtype as f32; `None` for integers.
    #[must_use]
    pub fn to_f32(self, bytes: &[u8]) -> Option<Vec<f32>> {
        let mut out = vec![0.0; bytes.len() / self.size()];
        self.decode(bytes, &mut out).then_some(out)
    }

    /// f32 numbers as little-endian bytes of a float dtype, rounded to nearest even; `None` for integers.
    #[must_use]
    pub fn from_f32(self, values: &[f32]) -> Option<Vec<u8>> {
        let mut out = vec![0; values.len() * self.size()];
        self.encode(values, &mut out).then_some(out)
    }

    /// As [`Self::to_f32`], into a slice as long as the numbers are many; `false` for integers. Inlined, so that callers
    /// who compile for wider vectors get them.
    #[inline(always)]
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) -> bool {
        match self {
            Self::F32 => out
                .iter_mut()
                .zip(bytes.chunks_exact(4))
                .for_each(|(o, b)| *o = f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            Self::BF16 => out
                .iter_mut()
                .zip(bytes.chunks_exact(2))
                .for_each(|(o, b)| *o = f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16)),
            Self::F16 => {
                let mut lane = [f16::ZERO; LANE];
                for (out, bytes) in out.chunks_mut(LANE).zip(bytes.chunks(2 * LANE)) {
                    let lane = &mut lane[..out.len()];
                    lane.iter_mut().zip(bytes.chunks_exact(2)).for_each(|(l, b)| *l = f16::from_le_bytes([b[0], b[1]]));
                    lane.convert_to_f32_slice(out);
                }
            }
            Self::F64 => out.iter_mut().zip(bytes.chunks_exact(8)).for_each(|(o, b)| {
                *o = f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32;
            }),
            _ => return false,
        }
        true
    }

    /// As [`Self::from_f32`], into a slice of the right length; `false` for integers.
    #[inline(always)]
    pub fn encode(self, values: &[f32], out: &mut [u8]) -> bool {
        match self {
            Self::F32 => {
                out.chunks_exact_mut(4).zip(values).for_each(|(o, v)| o.copy_from_slice(&v.to_le_bytes()));
            }
            Self::BF16 => out
                .chunks_exact_mut(2)
                .zip(values)
                .for_each(|(o, v)| o.copy_from_slice(&((round_bf16(*v).to_bits() >> 16) as u16).to_le_bytes())),
            Self::F16 => {
                let mut lane = [f16::ZERO; LANE];
                for (values, out) in values.chunks(LANE).zip(out.chunks_mut(2 * LANE)) {
                    let lane = &mut lane[..values.len()];
                    lane.convert_from_f32_slice(values);
                    out.chunks_exact_mut(2).zip(lane).for_each(|(o, l)| o.copy_from_slice(&l.to_le_bytes()));
                }
            }
            Self::F64 => {
                out.chunks_exact_mut(8).zip(values).for_each(|(o, v)| o.copy_from_slice(&f64::from(*v).to_le_bytes()));
            }
            _ => return false,
        }
        true
    }
}

/// Numbers that F16 conversion takes at once, so that the processor's own instructions serve.
const LANE: usize = 64;

/// Rounds to the nearest bfloat16, ties to even; NaN stays a (quiet) NaN. Branch-free, so that loops of it vectorise.
#[must_use]
#[inline(always)]
pub fn round_bf16(value: f32) -> f32 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) & 0xFFFF_0000;
    let quiet = (bits | 0x0040_0000) & 0xFFFF_0000;
    f32::from_bits(if value.is_nan() { quiet } else { rounded })
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    #[test]
    fn rounding_agrees_with_half() {
        for i in 0..=u32::MAX / 4099 {
            let value = f32::from_bits(i * 4099);
            assert_eq!(round_bf16(value).to_bits(), u32::from(bf16::from_f32(value).to_bits()) << 16, "{value:e}");
            let mut bytes = [0; 2];
            Dtype::F16.encode(&[value], &mut bytes);
            assert_eq!(u16::from_le_bytes(bytes), f16::from_f32(value).to_bits(), "{value:e}");
        }
    }

    #[test]
    fn every_half_comes_back() {
        for dtype in [Dtype::BF16, Dtype::F16] {
            let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
            let values = dtype.to_f32(&bytes).unwrap();
            for (pair, value) in dtype.from_f32(&values).unwrap().chunks(2).zip(bytes.chunks(2)) {
                let nan = dtype.to_f32(value).unwrap()[0].is_nan();
                assert!(nan || pair == value);
            }
        }
    }
}
