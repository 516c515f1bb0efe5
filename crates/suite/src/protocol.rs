//! How an agent speaks on AgentBench's suites.

use serde::{Deserialize, Serialize};

/// Which of AgentBench's two protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentBenchProtocol {
    /// In words, as in AgentBench v0.2.
    #[default]
    Text,
    /// With the chat API's own calls, as in AgentBench FC.
    Fc,
}

impl AgentBenchProtocol {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Text, Self::Fc];

    /// The name used in files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Fc => "fc",
        }
    }

    /// The reply format: `in_words`, or the one of native calls.
    #[must_use]
    pub fn format(self, in_words: &'static str) -> &'static str {
        match self {
            Self::Text => in_words,
            Self::Fc => "native",
        }
    }
}
