//! The machine's means: devices and memory.

use rolegraft_decoder::{DecoderError, DeviceName, Place, Precision};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// What work may use: `[compute]` of an experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Compute {
    /// Where models are played and traced.
    pub device: DeviceName,
    /// Memory for tracing, besides a layer's weights; half of what is free, if it is not said.
    pub memory: Option<Bytes>,
}

/// Bytes, as people say them: `12GB`, `800MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bytes(pub usize);

const UNITS: [(&str, u64); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

impl FromStr for Bytes {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no amount of memory: 12GB, 800MB and 4GiB are");
        let ends = |unit: &str| text.len() >= unit.len() && text[text.len() - unit.len()..].eq_ignore_ascii_case(unit);
        let (unit, size) = UNITS.into_iter().find(|(unit, _)| text.is_ascii() && ends(unit)).ok_or_else(wrong)?;
        let number: f64 = text[..text.len() - unit.len()].trim().parse().map_err(|_| wrong())?;
        let bytes = number * size as f64;
        if (0.0..9e18).contains(&bytes) { Ok(Self(bytes as usize)) } else { Err(wrong()) }
    }
}

impl TryFrom<String> for Bytes {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Bytes> for String {
    fn from(bytes: Bytes) -> Self {
        format!("{}B", bytes.0)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n @ 0..1_000 => write!(f, "{n} B"),
            n @ 1_000..1_000_000 => write!(f, "{:.1} kB", n as f64 / 1e3),
            n @ 1_000_000..1_000_000_000 => write!(f, "{:.1} MB", n as f64 / 1e6),
            n => write!(f, "{:.2} GB", n as f64 / 1e9),
        }
    }
}

impl Compute {
    /// Opens the device that is wanted.
    ///
    /// # Errors
    /// If it is not there.
    pub fn place(&self, precision: Precision) -> Result<Place, DecoderError> {
        Place::open(self.device, precision)
    }

    /// Bytes that a trace may use.
    #[must_use]
    pub fn budget(&self) -> usize {
        self.memory.map_or_else(|| free_memory() / 2, |bytes| bytes.0)
    }
}

/// Seconds, as people read them.
#[must_use]
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => "< 1 s".into(),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

/// Bytes of main memory that can be had, by the machine and by the group of processes that this one is in.
#[must_use]
pub fn free_memory() -> usize {
    let what = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(what);
    let group = system.cgroup_limits().map_or(u64::MAX, |limits| limits.free_memory);
    usize::try_from(system.available_memory().min(group)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_people_say_them() {
        for (text, bytes) in [("12GB", 12_000_000_000), ("1.5 GiB", 3 << 29), ("800mb", 800_000_000), ("7B", 7)] {
            assert_eq!(text.parse::<Bytes>().unwrap().0, bytes, "{text}");
        }
        for text in ["", "12", "GB", "-1GB", "é4GB", "1e30GB", "nanGB"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
        assert!(free_memory() > 1 << 20);
    }
}
