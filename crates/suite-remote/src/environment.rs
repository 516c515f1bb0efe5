//! Episodes on a server.

use crate::client::{Client, RemoteError};
use crate::wire::{EnvOut, Output, assistant, ended, score};
use rolegraft_spans::Format;
use rolegraft_suite::{Environment, Limits, Outcome, Roles, SpeakerError, Step, Suite, SuiteError, Task};
use rolegraft_trajectory::{Message, Role, Shown, Status};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Which of AgentBench's interfaces a server has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Api {
    /// The controller of v0.2.
    #[default]
    #[serde(rename = "v0.2")]
    Controller,
    /// A worker of the function-call version.
    #[serde(rename = "fc")]
    Worker,
}

/// A suite on a server.
pub struct RemoteSuite {
    id: String,
    /// The task's name on the server.
    task: String,
    api: Api,
    client: Client,
    format: Arc<Format>,
    limits: Limits,
    tools: Option<Arc<Vec<Value>>>,
    indices: Vec<Value>,
    /// Function calls: the next session.
    sessions: Arc<AtomicU64>,
}

impl RemoteSuite {
    /// The suite `id`: the server's task `task`.
    ///
    /// # Errors
    /// If the server does not answer, or does not know the task.
    pub fn open(
        id: &str,
        task: &str,
        api: Api,
        client: Client,
        format: Format,
        limits: Limits,
    ) -> Result<Self, RemoteError> {
        // Sessions are ours to number; another harness at the same worker must not use the same ones.
        let sessions = Arc::new(AtomicU64::new(u64::from(std::process::id()) << 20));
        let indices = client.indices((api == Api::Controller).then_some(task))?;
        let mut suite = Self {
            id: id.to_owned(),
            task: task.to_owned(),
            api,
            client,
            format: Arc::new(format),
            limits,
            tools: None,
            indices,
            sessions,
        };
        // A worker tells its tools with a sample.
        if let (Api::Worker, Some(index)) = (api, suite.indices.first()) {
            let session = suite.sessions.fetch_add(1, Ordering::Relaxed);
            let out = suite.client.start_calls(session, index)?;
            if !out.finish {
                suite.client.cancel(session);
            }
            suite.tools = Some(Arc::new(out.tools));
        }
        Ok(suite)
    }

    /// The server's samples as tasks.
    #[must_use]
    pub fn tasks(&self) -> Vec<Task> {
        let id = |index: &Value| index.as_str().map_or_else(|| index.to_string(), str::to_owned);
        self.indices.iter().map(|index| Task { id: id(index), fields: json!({"index": index}) }).collect()
    }

    /// A server's failure: the episode has no result, and is played when the command is given again.
    fn lost(&self, task: &str, error: &RemoteError) -> SuiteError {
        SuiteError::Speaker {
            suite: self.id.clone(),
            task: task.to_owned(),
            party: "server",
            source: SpeakerError::Unavailable(error.to_string()),
        }
    }
}

impl Suite for RemoteSuite {
    fn id(&self) -> &str {
        &self.id
    }
    fn format(&self) -> &Format {
        &self.format
    }
    fn limits(&self) -> Limits {
        self.limits
    }
    fn tools(&self) -> Option<Arc<Vec<Value>>> {
        self.tools.clone()
    }
    fn version(&self) -> u32 {
        1
    }
    fn settings(&self) -> Value {
        json!({"task": self.task, "api": self.api})
    }
    fn roles(&self) -> Roles {
        match self.api {
            Api::Controller => Roles::with_user(false),
            Api::Worker => Roles::with_tools(),
        }
    }
    fn start(&self, task: &Task) -> Result<Box<dyn Environment>, SuiteError> {
        let index = &task.fields["index"];
        let lost = |error: RemoteError| self.lost(&task.id, &error);
        let (session, first) = match self.api {
            Api::Controller => {
                let (session, output) = self.client.start(&self.task, index).map_err(lost)?;
                (session, Said::Output(output))
            }
            Api::Worker => {
                let session = self.sessions.fetch_add(1, Ordering::Relaxed);
                (session, Said::Env(self.client.start_calls(session, index).map_err(lost)?))
            }
        };
        let mut episode = Episode {
            suite: self.id.clone(),
            task: task.id.clone(),
            client: self.client.clone(),
            format: self.format.clone(),
            api: self.api,
            session,
            shown: Vec::new(),
            ended: None,
            result: Value::Null,
            turns_left: self.limits.turns,
        };
        episode.take(first);
        Ok(Box::new(episode))
    }
}

/// What a server says of a session.
enum Said {
    Output(Output),
    Env(EnvOut),
}

struct Episode {
    suite: String,
    task: String,
    client: Client,
    format: Arc<Format>,
    api: Api,
    session: u64,
    /// The conversation as the server shows it.
    shown: Vec<Message>,
    ended: Option<Status>,
    result: Value,
    turns_left: usize,
}

impl Episode {
    /// Takes in what the server says, and gives what is new to the agent.
    fn take(&mut self, said: Said) -> Vec<Message> {
        match said {
            Said::Output(output) => {
                self.shown = output.messages();
                self.ended = ended(&output.status);
                if self.ended.is_some() {
                    self.result = output.result;
                }
                self.shown.last().filter(|m| m.role == Role::User).cloned().into_iter().collect()
            }
            Said::Env(out) => {
                let said = out.said();
                self.shown.extend(said.clone());
                self.ended =
                    if out.finish { Some(ended(&out.status).unwrap_or(Status::Completed)) } else { ended(&out.status) };
                if self.ended.is_some() {
                    self.result = json!({"reward": out.reward, "metric": out.metric});
                }
                said
            }
        }
    }

    fn give(&self, reply: &str) -> Result<Said, RemoteError> {
        match self.api {
            Api::Controller => self.client.interact(self.session, Some(reply)).map(Said::Output),
            Api::Worker => self.client.interact_calls(self.session, &assistant(reply)).map(Said::Env),
        }
    }
}

impl Environment for Episode {
    fn open(&mut self) -> Result<Vec<Message>, SuiteError> {
        Ok(self.shown.clone())
    }

    fn ended_at_once(&self) -> Option<Status> {
        self.ended
    }

    fn shown(&self, messages: &[Message]) -> Option<Vec<Shown>> {
        // v0.2's server cuts long conversations; workers say only what is new.
        (self.api == Api::Controller).then(|| Shown::matched(&self.shown, messages))
    }

    fn step(&mut self, reply: &str) -> Result<Step, SuiteError> {
        let reading = self.format.read(reply, None);
        self.turns_left = self.turns_left.saturating_sub(1);
        self.shown.push(Message::assistant(reply));
        let said = self.give(reply).map_err(|error| SuiteError::Speaker {
            suite: self.suite.clone(),
            task: self.task.clone(),
            party: "server",
            source: SpeakerError::Unavailable(error.to_string()),
        })?;
        let new = self.take(said);
        let ended = self.ended.or((self.turns_left == 0).then_some(Status::TaskLimitReached));
        let observations = if ended.is_some() { Vec::new() } else { new };
        let succeeded = ended.is_none_or(|status| status == Status::Completed);
        Ok(Step { reading, succeeded, observations, ended })
    }

    fn outcome(&mut self) -> Outcome {
        // Still open: the conversation no longer fits the agent's context.
        if self.ended.is_none()
            && self.api == Api::Controller
            && let Ok(output) = self.client.interact(self.session, None)
        {
            self.take(Said::Output(output));
        }
        let reward = score(&self.result).unwrap_or(0.0).clamp(0.0, 1.0);
        Outcome { reward, detail: json!({"result": self.result}) }
    }
}

impl Drop for Episode {
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.client.cancel(self.session);
        }
    }
}
