//! What servers are asked before anything is played.

use crate::chat::{conversations, names};
use crate::endpoints::EndpointRules;
use crate::engine_error::EngineError;
use crate::error::RunError;
use crate::machine::Machine;
use rolegraft_model::{KEY_VARIABLE, Probed, Sampling, Wanted, probe};
use rolegraft_suites::Suite;
use rolegraft_trajectory::{ChatArguments, ChatTokenizer, Role};

/// Environment variable that holds the key of the model that plays a user, where it is another than the agent's.
const USER_KEY_VARIABLE: &str = "ROLEGRAFT_USER_API_KEY";

/// The tokenizer that is named; arguments of a chat template are for one that is.
fn tokenizer(
    rules: &EndpointRules,
    address: &str,
    arguments: &ChatArguments,
) -> Result<Option<ChatTokenizer>, EngineError> {
    match (&rules.tokenizer, arguments.iter().next()) {
        (Some(dir), _) => Ok(Some(ChatTokenizer::open(dir, arguments)?)),
        (None, Some((key, _))) => Err(EngineError::Rendered { model: address.to_owned(), key: key.to_owned() }),
        (None, None) => Ok(None),
    }
}

/// Asks the servers at an address for a model that is to play a suite.
pub(crate) fn ask(machine: &Machine<'_>, address: &str, suite: &dyn Suite) -> Result<Probed, RunError> {
    let rules = &machine.endpoints.agent;
    let limits = suite.limits();
    let sampling = Sampling { temperature: limits.temperature, top_p: limits.top_p, max_tokens: limits.tokens };
    let wanted = Wanted {
        tools: suite.tools().is_some(),
        conversations: conversations(suite),
        fingerprint: rules.fingerprint,
        ..Wanted::text(tokenizer(rules, address, machine.chat)?, sampling)
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

/// Asks the servers of a model that plays a user.
pub(crate) async fn ask_user(
    address: &str,
    rules: &EndpointRules,
    chat: &ChatArguments,
    sampling: Sampling,
) -> Result<Probed, EngineError> {
    // The day alone is no argument of a server's own template.
    let arguments = if rules.tokenizer.is_some() { chat.clone() } else { ChatArguments::default() };
    let wanted = Wanted { fingerprint: false, ..Wanted::text(tokenizer(rules, address, &arguments)?, sampling) };
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
    let sampling = Sampling { temperature: 0.0, top_p: 1.0, max_tokens: 512 };
    let wanted = Wanted {
        conversations: KINDS.map(<[Role]>::to_vec).into(),
        fingerprint: rules.fingerprint,
        ..Wanted::text(tokenizer(rules, address, &ChatArguments::default())?, sampling)
    };
    let asked = runtime.block_on(probe(rules.config(address, vec![KEY_VARIABLE]), wanted));
    Ok(asked.map_err(EngineError::from)?)
}
