//! Calls of tools.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A call with its arguments, as upstream's tasks write it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// The tool.
    pub name: String,
    /// Its arguments.
    #[serde(alias = "arguments")]
    pub kwargs: Map<String, Value>,
}
