//! AgentBench's loop around the shop (THUDM/AgentBench@6af78d0, and @578c5e9 for function calls).

use crate::catalogue::{Catalogue, CatalogueError};
use crate::goals::Goal;
use crate::product::RawProduct;
use crate::shop::{Session, Stepped};
use rolegraft_files::no_room;
use rolegraft_python::Object;
use rolegraft_spans::Format;
use rolegraft_suite::{
    AgentBenchProtocol, Environment, Limits, Outcome, Roles, Step, Suite, SuiteError, Task, history,
};
use rolegraft_trajectory::{Message, Role, Shown, Status, calls};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

/// The reply format of the text protocol.
pub const FORMAT: &str = "agentbench-webshop";

/// What stands before a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompts {
    /// Turns of an instruction and an example, user first. One alone begins the first observation's message.
    pub messages: Vec<Turn>,
    /// For function calls: the system message.
    #[serde(default)]
    pub system: String,
    /// For function calls: the tools.
    #[serde(default)]
    pub tools: Vec<Value>,
    /// Whether what can be clicked is listed.
    #[serde(default = "yes")]
    pub lists: bool,
}

/// A turn of a prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    /// `user` or `agent`.
    pub role: String,
    /// What is said.
    pub content: String,
}

fn yes() -> bool {
    true
}

impl Prompts {
    /// Upstream's.
    #[must_use]
    pub fn upstream() -> &'static Self {
        static PROMPTS: LazyLock<Prompts> = LazyLock::new(|| {
            #[allow(clippy::expect_used, reason = "it comes with the program")]
            serde_json::from_str(include_str!("../data/prompts.json")).expect("upstream's prompts")
        });
        &PROMPTS
    }
}

/// The suite.
pub struct WebShopSuite {
    format: Arc<Format>,
    limits: Limits,
    protocol: AgentBenchProtocol,
    prompts: Arc<Prompts>,
    /// The shop; none where each task brings its own.
    catalogue: Option<Arc<Catalogue>>,
}

impl WebShopSuite {
    /// A suite with the given reply format, on a catalogue, or on those that tasks bring.
    #[must_use]
    pub fn new(
        protocol: AgentBenchProtocol,
        format: Format,
        limits: Limits,
        prompts: Prompts,
        catalogue: Option<Arc<Catalogue>>,
    ) -> Self {
        Self { format: Arc::new(format), limits, protocol, prompts: Arc::new(prompts), catalogue }
    }
}

/// A task: a goal of the catalogue, by number, or a goal and products of its own.
#[derive(Deserialize)]
struct Fields {
    goal: Value,
    #[serde(default)]
    catalogue: Option<Vec<RawProduct>>,
}

impl Suite for WebShopSuite {
    fn id(&self) -> &str {
        "webshop"
    }
    fn format(&self) -> &Format {
        &self.format
    }
    fn limits(&self) -> Limits {
        self.limits
    }
    fn tools(&self) -> Option<Arc<Vec<Value>>> {
        (self.protocol == AgentBenchProtocol::Fc).then(|| Arc::new(self.prompts.tools.clone()))
    }
    fn version(&self) -> u32 {
        1
    }
    fn settings(&self) -> Value {
        let nouns = self.catalogue.as_ref().map(|catalogue| catalogue.nouns_source());
        json!({"protocol": self.protocol, "prompts": *self.prompts, "nouns": nouns})
    }
    fn waits(&self) -> bool {
        false
    }
    fn roles(&self) -> Roles {
        match self.protocol {
            AgentBenchProtocol::Text => Roles {
                opening: opening(&self.prompts, "").iter().map(|m| m.role).collect(),
                answers: vec![Role::User],
            },
            AgentBenchProtocol::Fc => Roles::with_tools(),
        }
    }
    fn start(&self, task: &Task) -> Result<Box<dyn Environment>, SuiteError> {
        let wrong = |reason: String| SuiteError::Task { suite: "webshop".into(), task: task.id.clone(), reason };
        let fields: Fields = serde_json::from_value(task.fields.clone()).map_err(|e| wrong(e.to_string()))?;
        let catalogue = match (fields.catalogue, &self.catalogue) {
            (Some(products), _) => Arc::new(Catalogue::of(products).map_err(|error| match error {
                CatalogueError::Write { source, .. } => {
                    SuiteError::Environment { suite: "webshop".into(), reason: no_room(&source) }
                }
                other => wrong(other.to_string()),
            })?),
            (None, Some(catalogue)) => catalogue.clone(),
            (None, None) => return Err(wrong("it has no `catalogue`".into())),
        };
        let goal: Goal = match fields.goal.as_u64() {
            Some(number) => catalogue.goals().get(number as usize).cloned().ok_or_else(|| {
                wrong(format!("the catalogue has {} goals, none of number {number}", catalogue.goals().len()))
            })?,
            None => serde_json::from_value(fields.goal).map_err(|e| wrong(e.to_string()))?,
        };
        Ok(Box::new(Episode {
            session: Session::new(catalogue, goal),
            protocol: self.protocol,
            prompts: self.prompts.clone(),
            format: self.format.clone(),
            turns_left: self.limits.turns,
            bought: None,
        }))
    }
}

/// What stands before the first reply of the text protocol: upstream's turns, and what is seen first.
fn opening(prompts: &Prompts, seen: &str) -> Vec<Message> {
    let turn = |turn: &Turn| {
        let role = if turn.role == "user" { Role::User } else { Role::Assistant };
        Message::new(role, &turn.content)
    };
    let mut messages: Vec<Message> = prompts.messages.iter().map(turn).collect();
    let first = format!("Observation:\n{seen}");
    match messages.last_mut() {
        Some(last) if last.role == Role::User => last.content = format!("{}\n{first}", last.content),
        _ => messages.push(Message::user(first)),
    }
    messages
}

struct Episode {
    session: Session,
    protocol: AgentBenchProtocol,
    prompts: Arc<Prompts>,
    format: Arc<Format>,
    turns_left: usize,
    bought: Option<crate::reward::Reward>,
}

impl Episode {
    /// What the agent sees.
    fn seen(&self) -> String {
        match self.prompts.lists {
            true => format!("{}\n\nAvailable Actions:\n{}", self.session.text(), self.session.available().repr()),
            false => self.session.text(),
        }
    }

    /// The action that a call asks for; or what is said instead.
    fn called(&self, reply: &str) -> Result<String, Vec<Message>> {
        let (_, called) = calls::read(reply);
        let page = || Message::user(format!("Observation:\n{}", self.seen()));
        let Some(call) = called.first() else {
            let complaint = "No executable tool calls found! You should call a tool instead.";
            let available = self.session.available().repr();
            return Err(vec![Message::user(format!("Observation:\n{complaint}\n\nAvailable Actions:\n{available}"))]);
        };
        let arguments = rolegraft_spans::python_json::loads(&call.arguments).ok();
        // upstream: the first value, whatever its name; a call without any raises, one of another name does nothing.
        let Some(first) = arguments.as_ref().and_then(|a| a.as_object()) else {
            return Err(vec![Message::user("No valid tool call found from agent."), page()]);
        };
        let name = match call.name.as_str() {
            "search_action" => "search",
            "click_action" => "click",
            _ => return Err(vec![page()]),
        };
        match first.values().next() {
            Some(value) => Ok(format!("{name}[{}]", Object::from(value).text())),
            None => Err(vec![Message::user("No valid tool call found from agent."), page()]),
        }
    }
}

impl Environment for Episode {
    fn open(&mut self) -> Result<Vec<Message>, SuiteError> {
        if self.protocol == AgentBenchProtocol::Fc {
            let first = format!("The initial observation:\n{}", self.seen());
            return Ok(vec![Message::system(&self.prompts.system), Message::user(first)]);
        }
        Ok(opening(&self.prompts, &self.seen()))
    }

    fn shown(&self, messages: &[Message]) -> Option<Vec<Shown>> {
        (self.protocol == AgentBenchProtocol::Text).then(|| history::shown(&Shown::all(messages)))
    }

    fn step(&mut self, reply: &str) -> Result<Step, SuiteError> {
        let reading = self.format.read(reply, None);
        self.turns_left = self.turns_left.saturating_sub(1);
        let limit = (self.turns_left == 0).then_some(Status::TaskLimitReached);
        let action = match self.protocol {
            AgentBenchProtocol::Text => match reading.action() {
                Some(action) => Ok(format!("{}[{}]", action.name, action.payload.as_str().unwrap_or_default())),
                None => {
                    let ended = Some(Status::AgentValidationFailed);
                    return Ok(Step { reading, succeeded: false, observations: Vec::new(), ended });
                }
            },
            AgentBenchProtocol::Fc => self.called(&reading.said(reply)),
        };
        let action = match action {
            Ok(action) => action,
            Err(observations) => return Ok(Step { reading, succeeded: false, observations, ended: limit }),
        };
        let Stepped { acted, reward } = self.session.step(&action);
        if reward.is_some() {
            self.bought = reward;
            return Ok(Step { reading, succeeded: true, observations: Vec::new(), ended: Some(Status::Completed) });
        }
        if limit.is_some() {
            // upstream: nobody is there to see it.
            return Ok(Step { reading, succeeded: acted, observations: Vec::new(), ended: limit });
        }
        let seen = match self.protocol {
            AgentBenchProtocol::Text => Message::user(format!("Observation:\n{}", self.seen())),
            AgentBenchProtocol::Fc => Message::tool(format!("Action: {action}\n\nObservation:\n{}", self.seen())),
        };
        Ok(Step { reading, succeeded: acted, observations: vec![seen], ended: None })
    }

    fn outcome(&mut self) -> Outcome {
        match &self.bought {
            Some(reward) => Outcome { reward: reward.total, detail: reward.info.clone() },
            None => Outcome { reward: 0.0, detail: json!({"bought": null}) },
        }
    }
}
