//! How models behind servers are asked, as experiments and flags say it.

use rolegraft_model::{EndpointConfig, Fields};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// How servers are asked: `[endpoint]` and `[user_endpoint]` of an experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EndpointRules {
    /// Fields of requests that are renamed, set, or left out (an empty string).
    pub fields: Fields,
    /// Most requests open at once; how many there are is found out.
    pub concurrency: usize,
    /// The checkpoint directory whose tokenizer and chat template render conversations, so that raw text is asked for.
    pub tokenizer: Option<PathBuf>,
    /// Whether the model's words are part of who it is.
    pub fingerprint: bool,
    /// The name under which earlier reasoning is sent back.
    pub reasoning: Option<String>,
    /// Seconds that one answer may take.
    pub timeout: u64,
    /// Seconds that a server is waited for that has gone.
    pub patience: u64,
}

impl Default for EndpointRules {
    fn default() -> Self {
        let (fields, fingerprint) = (Fields::default(), true);
        Self { fields, concurrency: 100, tokenizer: None, fingerprint, reasoning: None, timeout: 600, patience: 120 }
    }
}

/// How the servers of all parties are asked.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Endpoints {
    /// The models that are evaluated.
    pub agent: EndpointRules,
    /// Models that play a user.
    pub user: EndpointRules,
}

impl EndpointRules {
    /// What cannot be meant.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.concurrency == 0 {
            return Err("concurrency is 0, but must be at least 1".into());
        }
        if self.timeout == 0 {
            return Err("timeout is 0, but an answer takes time".into());
        }
        Ok(())
    }

    pub(crate) fn config(&self, address: &str, key_variables: Vec<&'static str>) -> EndpointConfig {
        EndpointConfig {
            timeout: Duration::from_secs(self.timeout),
            patience: Duration::from_secs(self.patience),
            fields: self.fields.clone(),
            reasoning: self.reasoning.clone(),
            ..EndpointConfig::of(address, self.concurrency, key_variables)
        }
    }
}

/// Whether a model is named by an address.
#[must_use]
pub fn is_endpoint(model: &str) -> bool {
    model.starts_with("http://") || model.starts_with("https://")
}
