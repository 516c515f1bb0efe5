//! How an agent speaks on AgentBench's suites.

use crate::Limits;
use crate::settings::{Flag, Taken};
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

    /// The flag for it.
    #[must_use]
    pub fn flag() -> Flag {
        Flag::choice("protocol", Taken::Reading, Self::ALL.map(Self::as_str))
            .or("text")
            .help("How an agent speaks on AgentBench's official tasks: in words, or with the endpoint's own tool calls")
    }
}

/// Where AgentBench's tasks come from.
pub const AGENTBENCH: &str = "https://github.com/THUDM/AgentBench (branch v0.2)";

/// What an official episode of AgentBench may use (arXiv 2601.07309, table 5), but for its turns, which are upstream's.
#[must_use]
pub const fn agentbench_limits(turns: usize) -> Limits {
    Limits { turns, tokens: 1024, temperature: 0.7, top_p: 1.0 }
}
