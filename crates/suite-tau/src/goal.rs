//! What a task wants, and whether an episode got it: upstream's `Env.calculate_reward`.

use crate::call::Call;
use crate::database::Database;
use crate::domain::TRANSFER;
use crate::{Domain, Protocol};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A task of upstream's: who the user is and wants, and what an agent that serves them does and says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Goal {
    /// The user's key in the database.
    #[serde(default)]
    pub user_id: String,
    /// What the user knows and wants.
    pub instruction: String,
    /// Calls that lead to the wanted database.
    pub actions: Vec<Call>,
    /// Texts that the agent must say.
    #[serde(default)]
    pub outputs: Vec<String>,
}

/// How an episode compares with its goal.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// Whether the database ended as wanted.
    pub database: bool,
    /// Each required text once, and whether the agent said it.
    pub outputs: Vec<(String, bool)>,
}

impl Judgement {
    /// 1 if the database is as wanted and every text was said, else 0.
    #[must_use]
    pub fn reward(&self) -> f64 {
        f64::from(u8::from(self.database && self.outputs.iter().all(|(_, said)| *said)))
    }
}

impl Goal {
    /// The task as the suite takes it, with the replies of an agent that calls the goal's own actions, then says the
    /// required texts.
    #[must_use]
    pub fn fields(&self, protocol: Protocol) -> Value {
        let mut replies: Vec<String> =
            self.actions.iter().enumerate().map(|(i, call)| protocol.write(call, i)).collect();
        let said = if self.outputs.is_empty() { "It is done.".to_owned() } else { self.outputs.join(" ") };
        // A transfer ends the episode, so whatever is to be said comes before it.
        let ending = replies.len() - usize::from(self.actions.last().is_some_and(|a| a.name == TRANSFER));
        if ending == replies.len() || !self.outputs.is_empty() {
            replies.insert(ending, protocol.say(&said));
        }
        json!({
            "user_id": self.user_id, "instruction": self.instruction, "actions": self.actions, "outputs": self.outputs,
            "oracle": replies,
        })
    }

    /// The database that the goal's own actions lead to, from `fresh`.
    #[must_use]
    pub fn reached(&self, domain: Domain, fresh: &Database) -> Database {
        let mut gold = fresh.clone();
        for action in self.actions.iter().filter(|a| a.name != TRANSFER) {
            let _ = domain.call(&mut gold, &action.name, &action.kwargs);
        }
        gold
    }

    /// Whether `said`, lower-cased and without commas, holds each required text, lower-cased.
    pub(crate) fn outputs<'s>(&self, said: impl Iterator<Item = &'s str> + Clone) -> Vec<(String, bool)> {
        let texts: Vec<String> = said.map(|text| text.to_lowercase().replace(',', "")).collect();
        let mut outputs: Vec<(String, bool)> = Vec::new();
        for output in &self.outputs {
            if !outputs.iter().any(|(known, _)| known == output) {
                let wanted = output.to_lowercase();
                outputs.push((output.clone(), texts.iter().any(|text| text.contains(&wanted))));
            }
        }
        outputs
    }

    /// Judges an episode that ended with `data` and whose agent said `said` to the user.
    #[must_use]
    pub fn judge<'s>(
        &self,
        domain: Domain,
        fresh: &Database,
        data: &Database,
        said: impl Iterator<Item = &'s str> + Clone,
    ) -> Judgement {
        Judgement { database: self.reached(domain, fresh).same_state(data), outputs: self.outputs(said) }
    }
}
