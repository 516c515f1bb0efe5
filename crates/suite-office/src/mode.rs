//! Official or sane.

use serde::{Deserialize, Serialize};

/// How faithfully upstream's oddities are kept (`docs/officebench.md` lists them).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// As published: what scores are compared with.
    #[default]
    Official,
    /// Mended: arguments reach the tools as they were written, a failed tool says so, and so on.
    Sane,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Official, Self::Sane];

    /// The name used in files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Official => "official",
            Self::Sane => "sane",
        }
    }
}
