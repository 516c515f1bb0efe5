//! Episodes: who speaks when, what ends one, and the reward.

use crate::database::{Database, Tables};
use crate::domain::TRANSFER;
use crate::prompts::Protocol;
use crate::user::{Recorded, STOP, Silence, User};
use crate::users::Users;
use crate::{Call, Domain, Goal};
use rolegraft_spans::{Actions, Format, Reading, ViolationKind, python_json};
use rolegraft_suite::{Environment, Limits, Outcome, Roles, SpeakerError, Step, Suite, SuiteError, Task};
use rolegraft_trajectory::{Message, Spent, Status};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The action that speaks to the user.
const RESPOND: &str = "respond";

/// A domain with its prompt and user.
pub struct TauSuite {
    domain: Domain,
    protocol: Protocol,
    format: Arc<Format>,
    actions: Arc<Actions>,
    tools: Option<Arc<Vec<Value>>>,
    limits: Limits,
    system: String,
    users: Users,
    shared: Option<Arc<Tables>>,
}

/// What a suite is made of.
pub struct TauSetup {
    /// Airline or retail.
    pub domain: Domain,
    /// How the agent calls tools.
    pub protocol: Protocol,
    /// The reply format that reads it.
    pub format: Format,
    /// What an episode may use.
    pub limits: Limits,
    /// The system prompt.
    pub system: String,
    /// Who answers.
    pub users: Users,
    /// Schemas of the tools, where the data has them.
    pub tools: Vec<Value>,
    /// The database of tasks that do not bring their own.
    pub tables: Option<Arc<Tables>>,
}

impl TauSuite {
    /// A suite.
    ///
    /// # Errors
    /// If a tool's schema is none.
    pub fn new(setup: TauSetup) -> Result<Self, rolegraft_spans::FormatError> {
        let TauSetup { domain, protocol, format, limits, system, users, tools, tables } = setup;
        let actions = Actions::of_tools(&tools)?;
        let actions = domain.tools().iter().fold(actions, |known, name| known.and(name)).and(RESPOND);
        Ok(Self {
            domain,
            protocol,
            format: Arc::new(format),
            actions: Arc::new(actions),
            tools: (protocol == Protocol::Native).then(|| Arc::new(tools)),
            limits,
            system,
            users,
            shared: tables,
        })
    }
}

#[derive(Deserialize)]
struct TaskFields {
    #[serde(default)]
    database: Option<Map<String, Value>>,
    /// The user's messages, known beforehand.
    #[serde(default)]
    user_says: Option<Vec<String>>,
}

impl Suite for TauSuite {
    fn id(&self) -> &str {
        self.domain.suite()
    }
    fn format(&self) -> &Format {
        &self.format
    }
    fn limits(&self) -> Limits {
        self.limits
    }
    fn version(&self) -> u32 {
        3
    }
    fn settings(&self) -> Value {
        json!({
            "system": self.system, "protocol": self.protocol, "tools": self.tools.as_deref(),
            "user": self.users.strategy(), "user_model": self.users.model(),
        })
    }
    fn tools(&self) -> Option<Arc<Vec<Value>>> {
        self.tools.clone()
    }
    fn waits(&self) -> bool {
        self.users.are_played()
    }
    fn roles(&self) -> Roles {
        match self.protocol {
            Protocol::Hermes | Protocol::Native => Roles::with_tools(),
            Protocol::React | Protocol::Act => Roles::with_user(true),
        }
    }
    fn start(&self, task: &Task) -> Result<Box<dyn Environment>, SuiteError> {
        let wrong = |reason: String| SuiteError::Task { suite: self.id().to_owned(), task: task.id.clone(), reason };
        let goal = Goal::deserialize(&task.fields).map_err(|e| wrong(e.to_string()))?;
        let fields = TaskFields::deserialize(&task.fields).map_err(|e| wrong(e.to_string()))?;
        let tables = match fields.database {
            Some(tables) => Arc::new(Tables::new(tables)),
            None => {
                self.shared.clone().ok_or_else(|| wrong("no database: give the official data with `--data`".into()))?
            }
        };
        let user = match fields.user_says {
            Some(messages) => Box::new(Recorded(messages.into())),
            None => self.users.of(&goal),
        };
        Ok(Box::new(Episode {
            task: task.id.clone(),
            domain: self.domain,
            protocol: self.protocol,
            format: self.format.clone(),
            actions: self.actions.clone(),
            system: self.system.clone(),
            fresh: Database::new(tables.clone()),
            data: Database::new(tables),
            goal,
            user,
            turns: 0,
            limit: self.limits.turns,
            said: Vec::new(),
            written: Vec::new(),
            done: false,
            broken: None,
        }))
    }
}

struct Episode {
    task: String,
    domain: Domain,
    protocol: Protocol,
    format: Arc<Format>,
    actions: Arc<Actions>,
    system: String,
    goal: Goal,
    fresh: Database,
    data: Database,
    user: Box<dyn User>,
    turns: usize,
    limit: usize,
    /// What the agent told the user.
    said: Vec<String>,
    /// Turns whose call may have changed the database.
    written: Vec<usize>,
    /// Whether the user or a transfer ended the conversation; upstream scores nothing else.
    done: bool,
    /// Why it broke off, where upstream would have raised.
    broken: Option<String>,
}

/// What a reply asks the environment to do.
enum Wish {
    Say(String),
    Call(Call),
    /// What upstream raises over, which ends its episode without a reward.
    Raise(String),
}

impl Episode {
    /// Ends the episode over a silent user, unless whoever plays it is at fault.
    fn break_off(&mut self, silence: Silence) -> Result<(), SuiteError> {
        self.broken = Some(match silence {
            Silence::Unreadable(reason) => reason,
            Silence::Speaker(SpeakerError::Overflow) => "the conversation no longer fits the user's context".into(),
            Silence::Speaker(source) => {
                let suite = self.domain.suite().to_owned();
                return Err(SuiteError::Speaker { suite, task: self.task.clone(), party: "user", source });
            }
        });
        Ok(())
    }

    /// What the reply asks for, as the agent of the protocol reads it upstream.
    fn wish(&self, reply: &str, reading: &Reading) -> Wish {
        let Some(span) = reading.spans.first() else {
            // upstream: a whole reply that is JSON, but no action, fails an assertion.
            let text = reading.said(reply);
            return match self.protocol {
                Protocol::React | Protocol::Act if python_json::loads(text.trim()).is_ok() => {
                    Wish::Raise("the reply is JSON, but not an action".into())
                }
                _ => Wish::Say(text.into_owned()),
            };
        };
        let Some(action) = &span.action else {
            let detail = || span.violations.first().map(|v| v.detail.clone()).unwrap_or_default();
            let no_json = |kind| matches!(kind, ViolationKind::InvalidJson | ViolationKind::BadEscape);
            let unreadable = span.violations.iter().any(|v| no_json(v.kind));
            return match self.protocol {
                // upstream: `this is a hack`.
                Protocol::React | Protocol::Act if unreadable => Wish::Say(span.text.clone()),
                // A server's parser passes on as words what it cannot read as a call.
                Protocol::Hermes => Wish::Say(reading.said(reply).into_owned()),
                _ => Wish::Raise(detail()),
            };
        };
        let Value::Object(kwargs) = &action.payload else { return Wish::Raise("the arguments are no object".into()) };
        if action.name == RESPOND {
            return match kwargs.get("content") {
                Some(Value::String(content)) => Wish::Say(content.clone()),
                _ => Wish::Raise("`respond` without a text as its `content`".into()),
            };
        }
        Wish::Call(Call { name: action.name.clone(), kwargs: kwargs.clone() })
    }

    fn call(&mut self, call: &Call) -> (String, bool) {
        let observed = self.domain.observe(&mut self.data, &call.name, &call.kwargs);
        let succeeded = !observed.starts_with("Error: ") && !observed.starts_with("Unknown action ");
        if succeeded && !Domain::reads(&call.name) && call.name != TRANSFER {
            self.written.push(self.turns - 1);
        }
        (observed, succeeded)
    }
}

impl Environment for Episode {
    fn open(&mut self) -> Result<Vec<Message>, SuiteError> {
        let first = self.user.open().or_else(|silence| self.break_off(silence).map(|()| String::new()))?;
        Ok(vec![Message::system(&self.system), Message::user(first)])
    }

    fn ended_at_once(&self) -> Option<Status> {
        self.broken.as_ref().map(|_| Status::TaskError)
    }

    fn step(&mut self, reply: &str) -> Result<Step, SuiteError> {
        let reading = self.format.read(reply, Some(&self.actions));
        self.turns += 1;
        let over = |status| {
            Ok(Step { reading: reading.clone(), succeeded: false, observations: Vec::new(), ended: Some(status) })
        };
        let limit = (self.turns >= self.limit).then_some(Status::TaskLimitReached);
        let (observation, succeeded) = match self.wish(reply, &reading) {
            Wish::Raise(reason) => {
                self.broken = Some(reason);
                return over(Status::AgentValidationFailed);
            }
            Wish::Call(call) => {
                let (observed, succeeded) = self.call(&call);
                self.done = call.name == TRANSFER;
                let text = matches!(self.protocol, Protocol::React | Protocol::Act);
                let message =
                    if text { Message::user(format!("API output: {observed}")) } else { Message::tool(observed) };
                (message, succeeded)
            }
            Wish::Say(text) => {
                let answer = self.user.reply(&text);
                self.said.push(text);
                let answer = match answer {
                    Ok(answer) => answer,
                    Err(silence) => {
                        self.break_off(silence)?;
                        return over(Status::TaskError);
                    }
                };
                self.done = answer.contains(STOP);
                (Message::user(answer), reading.violations().next().is_none())
            }
        };
        let ended = if self.done { Some(Status::Completed) } else { limit };
        Ok(Step { reading, succeeded, observations: vec![observation], ended })
    }

    fn outcome(&mut self) -> Outcome {
        let judgement = self.goal.judge(self.domain, &self.fresh, &self.data, self.said.iter().map(String::as_str));
        let missing: Vec<_> = judgement.outputs.iter().filter(|(_, said)| !said).map(|(output, _)| output).collect();
        let required: Vec<_> =
            self.goal.actions.iter().filter(|a| !Domain::reads(&a.name) && a.name != TRANSFER).collect();
        let mut detail = json!({
            "database": judgement.database, "missing_outputs": missing, "required": required, "written": self.written,
        });
        if let Some(reason) = &self.broken {
            detail["broken"] = json!(reason);
        }
        // upstream: an episode that ran out of steps has no reward, whatever it did.
        Outcome { reward: if self.done { judgement.reward() } else { 0.0 }, detail }
    }

    fn spent(&self) -> Spent {
        self.user.spent()
    }
}
