//! Models behind servers: how they are asked, and what is asked before anything is played.

use crate::chat::conversations;
use crate::engine::EngineError;
use crate::error::RunError;
use crate::machine::Machine;
use rolegraft_model::{EndpointConfig, FieldError, Fields, KEY_VARIABLE, Probed, Sampling, Wanted, probe};
use rolegraft_suites::Suite;
use rolegraft_trajectory::{ChatArguments, ChatTokenizer, Role};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// Environment variable that holds the key of the model that plays a user, where it is another than the agent's.
const USER_KEY_VARIABLE: &str = "ROLEGRAFT_USER_API_KEY";

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
    /// What a flag says of a field: `FIELD=NAME`, `FIELD=VALUE` or `FIELD=`.
    ///
    /// # Errors
    /// If it is none of these, or the field is the question itself.
    pub fn change(&mut self, pair: &str) -> Result<(), FieldError> {
        self.fields.change(pair)
    }

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

    /// The tokenizer that is named; arguments of a chat template are for one that is.
    fn chat(&self, address: &str, arguments: &ChatArguments) -> Result<Option<ChatTokenizer>, EngineError> {
        match (&self.tokenizer, arguments.iter().next()) {
            (Some(dir), _) => Ok(Some(ChatTokenizer::open(dir, arguments)?)),
            (None, Some((key, _))) => Err(EngineError::Rendered { model: address.to_owned(), key: key.to_owned() }),
            (None, None) => Ok(None),
        }
    }
}

/// Whether a model is named by an address.
#[must_use]
pub fn is_endpoint(model: &str) -> bool {
    model.starts_with("http://") || model.starts_with("https://")
}

/// Asks the servers at an address for a model that is to play a suite.
pub(crate) fn ask(machine: &Machine<'_>, address: &str, suite: &dyn Suite) -> Result<Probed, RunError> {
    let rules = &machine.endpoints.agent;
    let limits = suite.limits();
    let wanted = Wanted {
        tokenizer: rules.chat(address, machine.chat)?,
        tools: suite.tools().is_some(),
        conversations: conversations(suite),
        sampling: Sampling { temperature: limits.temperature, top_p: limits.top_p, max_tokens: limits.tokens },
        fingerprint: rules.fingerprint,
        version: None,
        cache_salt: None,
    };
    let asked = machine.runtime.block_on(probe(rules.config(address, vec![KEY_VARIABLE]), wanted));
    let probed = asked.map_err(EngineError::from)?;
    probed.notes.iter().for_each(|note| machine.progress.note(note));
    match probed.refused.into_iter().next() {
        Some((roles, said)) => {
            let (suite, roles) = (suite.id().to_owned(), names(&roles));
            Err(RunError::ServerRefuses { suite, roles, said })
        }
        None => Ok(Probed { refused: Vec::new(), ..probed }),
    }
}

/// Who speaks, for people.
#[must_use]
pub fn names(roles: &[Role]) -> String {
    roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(", ")
}

/// Asks the servers of a model that plays a user.
pub(crate) async fn ask_user(
    address: &str,
    rules: &EndpointRules,
    chat: &ChatArguments,
    sampling: Sampling,
) -> Result<Probed, EngineError> {
    // The day alone is no argument of a server's own template.
    let arguments = if rules.tokenizer.is_some() { chat.clone() } else { ChatArguments::default() };
    let wanted = Wanted {
        tokenizer: rules.chat(address, &arguments)?,
        tools: false,
        conversations: Vec::new(),
        sampling,
        fingerprint: false,
        version: None,
        cache_salt: None,
    };
    Ok(probe(rules.config(address, vec![USER_KEY_VARIABLE, KEY_VARIABLE]), wanted).await?)
}

/// Conversations of every kind that suites hold: with tools' answers, and with two users in a row.
const KINDS: [&[Role]; 4] =
    [&[Role::User], &[Role::System, Role::User], &[Role::User, Role::Assistant, Role::Tool], &[Role::User, Role::User]];

/// Asks a server what it is and understands, for a person.
///
/// # Errors
/// If there is none, or it has another model.
pub fn examine(runtime: &tokio::runtime::Runtime, address: &str, rules: &EndpointRules) -> Result<Probed, RunError> {
    let wanted = Wanted {
        tokenizer: rules.chat(address, &ChatArguments::default())?,
        tools: false,
        conversations: KINDS.map(<[Role]>::to_vec).into(),
        sampling: Sampling { temperature: 0.0, top_p: 1.0, max_tokens: 512 },
        fingerprint: rules.fingerprint,
        version: None,
        cache_salt: None,
    };
    let asked = runtime.block_on(probe(rules.config(address, vec![KEY_VARIABLE]), wanted));
    Ok(asked.map_err(EngineError::from)?)
}
