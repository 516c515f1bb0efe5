//! Where arithmetic is done, and how exactly.

use crate::error::{DecoderError, Result};
use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A device by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceName {
    /// A GPU where this program was built for one and one is there, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU of NVIDIA's.
    Cuda(usize),
    /// A GPU of Apple's.
    Metal(usize),
}

impl FromStr for DeviceName {
    type Err = String;
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let unknown = || format!("`{text}` is no device: auto, cpu, cuda:N or metal:N");
        match text.split_once(':').unwrap_or((text, "0")) {
            ("auto", "0") => Ok(Self::Auto),
            ("cpu", "0") => Ok(Self::Cpu),
            ("cuda", n) => n.parse().map(Self::Cuda).map_err(|_| unknown()),
            ("metal", n) => n.parse().map(Self::Metal).map_err(|_| unknown()),
            _ => Err(unknown()),
        }
    }
}

impl TryFrom<String> for DeviceName {
    type Error = String;
    fn try_from(text: String) -> std::result::Result<Self, String> {
        text.parse()
    }
}

impl From<DeviceName> for String {
    fn from(name: DeviceName) -> Self {
        name.to_string()
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => write!(f, "auto"),
            Self::Cpu => write!(f, "cpu"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
            Self::Metal(n) => write!(f, "metal:{n}"),
        }
    }
}

/// How exactly a GPU multiplies. On the CPU everything is F32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Weights, activations and products in F32: the reference.
    #[default]
    F32,
    /// As F32, but products are of numbers cut to ten bits.
    Tf32,
    /// Weights and activations in BF16.
    Bf16,
}

impl Precision {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F32, Self::Tf32, Self::Bf16];

    /// The name used in files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
        }
    }
}

/// A device, opened.
#[derive(Debug, Clone)]
pub struct Place {
    pub(crate) device: Device,
    pub(crate) precision: Precision,
}

impl Place {
    /// The CPU.
    #[must_use]
    pub fn cpu() -> Self {
        Self { device: Device::Cpu, precision: Precision::F32 }
    }

    /// Opens a device.
    ///
    /// # Errors
    /// If this program was not built for it, or it is not there.
    pub fn open(name: DeviceName, precision: Precision) -> Result<Self> {
        let none = |why: String| DecoderError::Device { asked: name.to_string(), why };
        let first = |e: candle_core::Error| none(e.to_string().lines().next().unwrap_or_default().to_owned());
        let unbuilt = |feature: &str| {
            none(format!(
                "this program was built without it; build with `cargo build --release --features {feature}`, or say cpu"
            ))
        };
        let cuda = |n| {
            if candle_core::utils::cuda_is_available() {
                Device::new_cuda(n).map_err(first)
            } else {
                Err(unbuilt("cuda"))
            }
        };
        let metal = |n| {
            if candle_core::utils::metal_is_available() {
                Device::new_metal(n).map_err(first)
            } else {
                Err(unbuilt("metal"))
            }
        };
        let device = match name {
            DeviceName::Auto => cuda(0).or_else(|_| metal(0)).unwrap_or(Device::Cpu),
            DeviceName::Cpu => Device::Cpu,
            DeviceName::Cuda(n) => cuda(n)?,
            DeviceName::Metal(n) => metal(n)?,
        };
        #[cfg(feature = "cuda")]
        candle_core::cuda::set_gemm_reduced_precision_f32(precision == Precision::Tf32);
        Ok(Self { precision: if device.is_cpu() { Precision::F32 } else { precision }, device })
    }

    /// Whether it is the CPU.
    #[must_use]
    pub fn is_cpu(&self) -> bool {
        self.device.is_cpu()
    }

    /// How exactly it multiplies.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.precision
    }

    pub(crate) fn dtype(&self) -> DType {
        if self.precision == Precision::Bf16 { DType::BF16 } else { DType::F32 }
    }
}
