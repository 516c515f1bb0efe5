//! A log's first line: where its episodes come from.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io;

/// 2: turns say what the model was shown.
pub(super) const VERSION: u32 = 2;
/// The first version whose turns say what the model was shown.
pub(super) const WITH_CONTEXTS: u32 = 2;

#[derive(Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) rolegraft_log: u32,
    #[serde(flatten)]
    pub(super) origin: Origin,
}

/// Where a log's episodes come from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Origin {
    /// Digest of everything that the episodes depend on: tasks, model, seed and rules.
    pub digest: String,
    /// Digests of the rules alone, by suite: prompts, limits, formats and scorers. Absent from logs that are older.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rules: BTreeMap<String, String>,
    /// Absent where the replies come from no server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served: Option<Served>,
}

impl Origin {
    /// Of which only the digest is known.
    #[must_use]
    pub fn of(digest: impl Into<String>) -> Self {
        Self { digest: digest.into(), ..Self::default() }
    }
}

/// How a log's replies came from a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// Who answers: what the server says of its model, and a fingerprint of what it says.
    pub identity: Value,
    /// How it was asked.
    pub road: Road,
    /// Whether a turn's text is what the model wrote; absent where that did not show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<bool>,
    /// Fields that were sent otherwise than OpenAI's API names them, as an experiment says it.
    pub fields: Value,
}

/// How a server is asked for a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Road {
    /// `/completions` with token ids.
    TokenIds,
    /// `/completions` with text.
    Text,
    /// SGLang's `/generate` with token ids.
    Generate,
    /// `/chat/completions`: the server renders, and may read the reply before it gives it.
    Chat,
}

impl Road {
    /// For people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TokenIds => "token ids through /completions",
            Self::Text => "text through /completions",
            Self::Generate => "token ids through /generate",
            Self::Chat => "messages through /chat/completions",
        }
    }
}

/// A log's first line.
pub(super) fn header(origin: &Origin) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(&Header { rolegraft_log: VERSION, origin: origin.clone() })?;
    line.push(b'\n');
    Ok(line)
}
