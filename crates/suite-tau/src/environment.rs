//! Episodes: who speaks when, what ends one, and the reward.

use crate::Domain;
use crate::database::{Database, Tables};
use crate::domain::TRANSFER;
use rolegraft_spans::Format;
use rolegraft_suite::{Environment, Limits, Outcome, Step, Suite, SuiteError, Task};
use rolegraft_trajectory::{Message, Status};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Who answers the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum User {
    /// States the task's instruction, and ends the conversation at the agent's first message.
    Scripted,
}

/// A domain with its prompt and user.
pub struct TauSuite {
    id: String,
    domain: Domain,
    format: Arc<Format>,
    tools: Arc<Vec<String>>,
    limits: Limits,
    system: String,
    user: User,
    shared: Option<Arc<Tables>>,
}

impl TauSuite {
    /// A suite whose tasks bring their own databases, or share `database`.
    #[must_use]
    pub fn new(
        domain: Domain,
        format: Format,
        limits: Limits,
        system: String,
        user: User,
        database: Option<Map<String, Value>>,
    ) -> Self {
        Self {
            id: domain.suite().into(),
            domain,
            format: Arc::new(format),
            tools: Arc::new(domain.tools()),
            limits,
            system,
            user,
            shared: database.map(|tables| Arc::new(Tables::new(tables))),
        }
    }
}

#[derive(Deserialize)]
struct Rules {
    instruction: String,
    actions: Vec<Call>,
    #[serde(default)]
    outputs: Vec<String>,
    database: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
struct Call {
    name: String,
    #[serde(alias = "arguments")]
    kwargs: Map<String, Value>,
}

impl Suite for TauSuite {
    fn id(&self) -> &str {
        &self.id
    }
    fn format(&self) -> &Format {
        &self.format
    }
    fn limits(&self) -> Limits {
        self.limits
    }
    fn version(&self) -> u32 {
        1
    }
    fn settings(&self) -> Value {
        json!({"system": self.system, "user": self.user})
    }
    fn start(&self, task: &Task) -> Result<Box<dyn Environment>, SuiteError> {
        let wrong = |reason: String| SuiteError::Task { suite: self.id.clone(), task: task.id.clone(), reason };
        let mut rules: Rules = serde_json::from_value(task.fields.clone()).map_err(|e| wrong(e.to_string()))?;
        let tables = match rules.database.take() {
            Some(tables) => Arc::new(Tables::new(tables)),
            None => {
                self.shared.clone().ok_or_else(|| wrong("no database: give the official data with `--data`".into()))?
            }
        };
        Ok(Box::new(Episode {
            domain: self.domain,
            format: self.format.clone(),
            tools: self.tools.clone(),
            system: self.system.clone(),
            fresh: Database::new(tables.clone()),
            data: Database::new(tables),
            rules,
            turns_left: self.limits.turns,
            said: Vec::new(),
        }))
    }
}

struct Episode {
    domain: Domain,
    format: Arc<Format>,
    tools: Arc<Vec<String>>,
    system: String,
    rules: Rules,
    fresh: Database,
    data: Database,
    turns_left: usize,
    said: Vec<String>,
}

impl Environment for Episode {
    fn open(&mut self) -> Vec<Message> {
        vec![Message::system(&self.system), Message::user(&self.rules.instruction)]
    }

    fn step(&mut self, reply: &str) -> Step {
        let reading = self.format.read(reply, Some(&self.tools));
        self.turns_left = self.turns_left.saturating_sub(1);
        let limit = (self.turns_left == 0).then_some(Status::TaskLimitReached);
        let call = reading.action().map(|a| (a.name.clone(), a.payload.clone()));
        if let Some((name, arguments)) = call {
            let observed = arguments.as_object().and_then(|a| self.domain.call(&mut self.data, &name, a));
            let observed = observed.unwrap_or_else(|| format!("Unknown action {name}"));
            let succeeded = !observed.starts_with("Error: ") && !observed.starts_with("Unknown action ");
            let ended = if name == TRANSFER { Some(Status::Completed) } else { limit };
            return Step { reading, succeeded, observation: Some(Message::tool(observed)), ended };
        }
        if let Some(span) = reading.spans.first() {
            // A call that cannot be read is answered, so that the agent may mend it.
            let detail = span.violations.first().map(|v| v.detail.clone()).unwrap_or_default();
            let observation = Some(Message::tool(format!("Error: the tool call cannot be read: {detail}")));
            return Step { reading, succeeded: false, observation, ended: limit };
        }
        // Everything else is a message to the user, in whatever wrapper: upstream's `respond`.
        let succeeded = reading.violations.is_empty();
        self.said.push(reply.to_owned());
        Step { reading, succeeded, observation: Some(Message::user("###STOP###")), ended: Some(Status::Completed) }
    }

    fn outcome(&mut self) -> Outcome {
        let mut gold = self.fresh.clone();
        for action in self.rules.actions.iter().filter(|a| a.name != TRANSFER) {
            let _ = self.domain.call(&mut gold, &action.name, &action.kwargs);
        }
        let same = self.data.same_state(&gold);
        let said = |output: &str| {
            let wanted = output.to_lowercase();
            self.said.iter().any(|text| text.to_lowercase().replace(',', "").contains(&wanted))
        };
        let missing: Vec<_> = self.rules.outputs.iter().filter(|o| !said(o)).collect();
        let ended = !self.said.is_empty() || self.turns_left > 0;
        let reward = if same && missing.is_empty() && ended { 1.0 } else { 0.0 };
        Outcome { reward, detail: json!({"database": same, "missing_outputs": missing}) }
    }
}
