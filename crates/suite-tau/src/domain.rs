//! The two domains and their tools.

use crate::database::Database;
use crate::python::{Arguments, Raised, Signature};
use crate::{airline, retail};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Airline or retail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Domain {
    /// Orders, returns and exchanges of a shop.
    Retail,
    /// Reservations of an airline.
    Airline,
}

/// The tool that ends an episode.
pub(crate) const TRANSFER: &str = "transfer_to_human_agents";

impl Domain {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Retail, Self::Airline];

    /// Upstream's name, also of its folder.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retail => "retail",
            Self::Airline => "airline",
        }
    }
    /// The suite's id.
    #[must_use]
    pub fn suite(self) -> &'static str {
        match self {
            Self::Retail => "tau-retail",
            Self::Airline => "tau-airline",
        }
    }
    /// Names of its tables.
    #[must_use]
    pub fn tables(self) -> [&'static str; 3] {
        match self {
            Self::Retail => ["orders", "products", "users"],
            Self::Airline => ["flights", "reservations", "users"],
        }
    }
    fn table(self) -> &'static [(&'static str, &'static str, &'static [&'static str], retail::Body)] {
        match self {
            Self::Retail => &retail::TOOLS,
            Self::Airline => &airline::TOOLS,
        }
    }
    /// Names of its tools.
    #[must_use]
    pub fn tools(self) -> Vec<String> {
        self.table().iter().map(|t| t.0.to_owned()).collect()
    }
    /// Whether a tool only looks: calling it again changes nothing.
    #[must_use]
    pub fn reads(tool: &str) -> bool {
        ["get_", "find_", "search_", "list_"].iter().any(|start| tool.starts_with(start))
            || tool == "calculate"
            || tool == "think"
    }

    /// Calls a tool as upstream's `Env.step` does. `None` if there is none of that name.
    #[must_use]
    pub fn call(self, data: &mut Database, name: &str, arguments: &Map<String, Value>) -> Option<String> {
        let (_, class, parameters, body) = self.table().iter().find(|t| t.0 == name)?;
        let signature = Signature { domain: self.as_str(), name, class, parameters };
        let result = Arguments::bind(&signature, arguments).and_then(|a| body(data, &a));
        Some(result.unwrap_or_else(|Raised(message)| format!("Error: {message}")))
    }

    /// [`Self::call`], with upstream's answer where there is no such tool.
    #[must_use]
    pub fn observe(self, data: &mut Database, name: &str, arguments: &Map<String, Value>) -> String {
        self.call(data, name, arguments).unwrap_or_else(|| format!("Unknown action {name}"))
    }
}
