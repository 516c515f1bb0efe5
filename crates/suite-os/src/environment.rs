//! Episodes.

use crate::calls::{NO_CALL, Wish, wish};
use crate::compare::compare;
use crate::terminal::{self, Shell, clean, observation};
use rolegraft_python::Object;
use rolegraft_spans::{Format, Reading};
use rolegraft_suite::sandbox::{CommandOutput, Image, Sandbox, SandboxError, Terminal};
use rolegraft_suite::{
    AgentBenchProtocol, Environment, Limits, Outcome, Roles, Step, Suite, SuiteError, Task, history,
};
use rolegraft_trajectory::{Message, Shown, Status, calls};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

const COMMAND_LIMIT: Duration = Duration::from_secs(30);
const SCRIPT_LIMIT: Duration = Duration::from_secs(60);
/// Silence after which upstream stops reading.
const SILENCE: Duration = Duration::from_secs(5);

/// The last part of the name of the image that upstream's text protocol plays every task on.
const DEFAULT_IMAGE: &str = "default";

/// The reply format of the text protocol.
pub const FORMAT: &str = "agentbench-os";

/// What stands before the task's description.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    /// The system message; none if empty.
    #[serde(default)]
    pub system: String,
    /// Earlier turns, user first.
    #[serde(default)]
    pub one_shot: Vec<String>,
    /// Put before the description.
    #[serde(default)]
    pub prefix: String,
}

#[derive(Deserialize, Default)]
struct Upstream {
    text: Prompt,
    fc: Prompt,
    tools: Vec<Value>,
}

fn upstream() -> &'static Upstream {
    static PROMPTS: LazyLock<Upstream> =
        LazyLock::new(|| serde_json::from_str(include_str!("../data/prompts.json")).unwrap_or_default());
    &PROMPTS
}

impl Prompt {
    /// Upstream's.
    #[must_use]
    pub fn upstream(protocol: AgentBenchProtocol) -> Self {
        match protocol {
            AgentBenchProtocol::Text => upstream().text.clone(),
            AgentBenchProtocol::Fc => upstream().fc.clone(),
        }
    }
}

/// How a suite is played.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Setup {
    /// How the agent speaks.
    pub protocol: AgentBenchProtocol,
    /// What it sees of the shell.
    pub shell: Shell,
    /// What the box holds.
    pub image: Image,
    /// What it is told first.
    pub prompt: Prompt,
    /// Whether the conversation is cut as upstream's server cuts it.
    pub trims: bool,
}

/// The suite.
pub struct OsSuite {
    format: Arc<Format>,
    limits: Limits,
    setup: Arc<Setup>,
}

impl OsSuite {
    /// A suite with the given reply format.
    #[must_use]
    pub fn new(format: Format, limits: Limits, setup: Setup) -> Self {
        Self { format: Arc::new(format), limits, setup: Arc::new(setup) }
    }
}

impl Suite for OsSuite {
    fn id(&self) -> &str {
        "os"
    }
    fn format(&self) -> &Format {
        &self.format
    }
    fn limits(&self) -> Limits {
        self.limits
    }
    fn tools(&self) -> Option<Arc<Vec<Value>>> {
        (self.setup.protocol == AgentBenchProtocol::Fc).then(|| Arc::new(upstream().tools.clone()))
    }
    fn version(&self) -> u32 {
        3
    }
    fn settings(&self) -> Value {
        let Setup { protocol, shell, prompt, trims, image } = &*self.setup;
        let own_root = *image != Image::Host;
        json!({"prompt": prompt, "shell": shell, "protocol": protocol, "trims": trims, "own_root": own_root})
    }
    fn roles(&self) -> Roles {
        let prompt = &self.setup.prompt;
        let roles = match self.setup.protocol {
            AgentBenchProtocol::Text => Roles::with_user(!prompt.system.is_empty()),
            AgentBenchProtocol::Fc => Roles::with_tools(),
        };
        roles.after(prompt.one_shot.len())
    }
    fn start(&self, task: &Task) -> Result<Box<dyn Environment>, SuiteError> {
        Ok(Box::new(self.begin(task)?))
    }
}

impl OsSuite {
    pub(crate) fn begin(&self, task: &Task) -> Result<Episode, SuiteError> {
        let wrong = |reason: String| SuiteError::Task { suite: "os".into(), task: task.id.clone(), reason };
        let mut rules: Rules = serde_json::from_value(task.fields.clone()).map_err(|e| wrong(e.to_string()))?;
        if let Some(text) = rules.answer.as_ref().and_then(Value::as_str) {
            rules.answer = Some(json!({"answer": text, "strip": true}));
        }
        if let (AgentBenchProtocol::Fc, Some(text)) = (self.setup.protocol, rules.description_fc.take()) {
            rules.description = text;
        }
        let lacking = |e: SandboxError| SuiteError::Environment { suite: "os".into(), reason: e.to_string() };
        let own = match self.setup.protocol {
            AgentBenchProtocol::Text => None,
            AgentBenchProtocol::Fc => rules.local.as_deref(),
        };
        let mut place = Place::open(&self.setup.image, own.unwrap_or(DEFAULT_IMAGE)).map_err(lacking)?;
        let broken = place.prepare(&rules).err();
        Ok(Episode {
            place,
            rules,
            format: self.format.clone(),
            setup: self.setup.clone(),
            turns_left: self.limits.turns,
            answer: None,
            broken,
        })
    }
}

/// A task in its normal form.
#[derive(Debug, Deserialize)]
pub(crate) struct Rules {
    description: String,
    #[serde(default)]
    description_fc: Option<String>,
    /// The last part of its image's name, of which upstream's function calls alone take notice.
    #[serde(default)]
    local: Option<String>,
    #[serde(default)]
    init: Vec<Script>,
    #[serde(default)]
    start: Option<String>,
    #[serde(rename = "match")]
    answer: Option<Value>,
    #[serde(default)]
    check: Option<Vec<Option<Script>>>,
    #[serde(default)]
    example: Option<Script>,
}

#[derive(Debug, Deserialize)]
struct Script {
    #[serde(default)]
    language: Option<String>,
    #[serde(default)]
    code: String,
    builtin: Option<String>,
}

/// The box, with the agent's shell in it.
struct Place {
    sandbox: Sandbox,
    /// On the host's programs the shell is the box's own.
    terminal: Option<Terminal>,
}

impl Place {
    /// A box on an image; `own` stands for `{}` in its name.
    fn open(image: &Image, own: &str) -> Result<Self, SandboxError> {
        let named = match image {
            Image::Host => return Ok(Self { sandbox: Sandbox::start()?, terminal: None }),
            Image::Root { .. } => image.clone(),
            Image::Docker(name) => Image::Docker(name.replace("{}", own)),
        };
        let (sandbox, terminal) = Sandbox::with_terminal(&named)?;
        Ok(Self { sandbox, terminal: Some(terminal) })
    }

    /// Runs what a task asks for before its agent begins.
    fn prepare(&mut self, rules: &Rules) -> Result<(), String> {
        for script in &rules.init {
            let done = self.script(script, &[])?;
            if done.status != Some(0) {
                return Err(format!("init failed: {}", String::from_utf8_lossy(&done.bytes)));
            }
        }
        let Some(start) = &rules.start else { return Ok(()) };
        match &mut self.terminal {
            Some(terminal) => terminal.type_line(start),
            None => self.sandbox.run(start, COMMAND_LIMIT).map(|_| ()),
        }
        .map_err(|e| e.to_string())
    }

    /// Runs a script apart from the agent's shell.
    fn script(&mut self, script: &Script, parameters: &[&str]) -> Result<CommandOutput, String> {
        let ran = match script.language.as_deref().unwrap_or("bash") {
            "bash" => self.sandbox.run_script(&script.code, parameters, SCRIPT_LIMIT),
            "python" => {
                let code = "c=$1; shift; exec python3 -c \"$c\" \"$@\"";
                let all: Vec<&str> = std::iter::once(script.code.as_str()).chain(parameters.iter().copied()).collect();
                self.sandbox.run_script(code, &all, SCRIPT_LIMIT)
            }
            other => return Err(format!("scripts in `{other}` are not supported")),
        };
        ran.map_err(|e| e.to_string())
    }

    /// Runs an agent's command: what it sees, and whether it went well. `None`: not text.
    fn command(&mut self, command: &str, shell: Shell) -> Result<(Option<String>, bool), SandboxError> {
        self.typed(command, shell).inspect_err(|_| {
            // A terminal that has ended does not say whether its box has, too: the box notices.
            let _ = self.sandbox.run(":", COMMAND_LIMIT);
        })
    }

    fn typed(&mut self, command: &str, shell: Shell) -> Result<(Option<String>, bool), SandboxError> {
        match (&mut self.terminal, shell) {
            (Some(terminal), Shell::Upstream) => {
                let prompt = |bytes: &[u8]| terminal::prompt_end(bytes);
                let frames = terminal.type_and_read(command, &prompt, SILENCE, COMMAND_LIMIT)?;
                let (bytes, _) = terminal::read_frames(frames.iter().map(Vec::as_slice));
                let text = String::from_utf8(bytes).ok();
                let succeeded = text.is_some();
                Ok((text, succeeded))
            }
            (Some(terminal), Shell::Clean) => {
                let done = terminal.run(command, COMMAND_LIMIT)?;
                Ok((Some(clean(&done.bytes)), done.status == Some(0)))
            }
            (None, _) => {
                let done = self.sandbox.run(command, COMMAND_LIMIT)?;
                Ok((Some(clean(&done.bytes)), done.status == Some(0)))
            }
        }
    }
}

pub(crate) struct Episode {
    place: Place,
    rules: Rules,
    format: Arc<Format>,
    setup: Arc<Setup>,
    turns_left: usize,
    /// What was committed, null after `finish`; nothing until then.
    answer: Option<Value>,
    /// Why the task could not be prepared.
    broken: Option<String>,
}

/// What a turn comes to.
enum Turn {
    Over(Status),
    Seen(Message, bool),
}

impl Episode {
    fn text_turn(&mut self, reading: &Reading) -> Turn {
        let Some(action) = reading.action() else { return Turn::Over(Status::AgentInvalidAction) };
        if action.name != "bash" {
            self.answer = Some(action.payload.clone());
            return Turn::Over(Status::Completed);
        }
        match self.place.command(action.payload.as_str().unwrap_or_default(), self.setup.shell) {
            Err(_) => Turn::Over(Status::TaskError),
            Ok((None, _)) => Turn::Over(Status::Unknown),
            Ok((Some(text), succeeded)) => Turn::Seen(Message::user(observation(&text)), succeeded),
        }
    }

    fn call_turn(&mut self, reply: &str) -> Turn {
        let (said, called) = calls::read(reply);
        let Some(call) = called.first() else { return Turn::Seen(Message::user(NO_CALL), false) };
        match wish(call, &said) {
            Wish::Raised => Turn::Over(Status::TaskError),
            Wish::Refused(message) => Turn::Seen(Message::tool(message), false),
            Wish::Commit(answer) => {
                self.answer = Some(answer);
                Turn::Over(Status::Completed)
            }
            Wish::Run(script) => match script.as_str().map(|s| self.place.command(s, self.setup.shell)) {
                Some(Err(_)) => Turn::Over(Status::TaskError),
                // upstream: what is no text is not run, and says nothing.
                None => Turn::Seen(Message::tool(observation("")), false),
                Some(Ok((text, succeeded))) => {
                    let text = text.unwrap_or_else(|| "OS Environment output cannot be decoded as UTF-8".into());
                    Turn::Seen(Message::tool(observation(&text)), succeeded)
                }
            },
        }
    }

    /// Runs the task's own example, and gives what it prints.
    pub(crate) fn example(&mut self) -> Result<String, String> {
        if let Some(reason) = &self.broken {
            return Err(reason.clone());
        }
        let example = self.rules.example.as_ref().ok_or("the task has no example")?;
        Ok(String::from_utf8_lossy(&self.place.script(example, &[])?.bytes).trim().to_owned())
    }

    /// Whether an answer is right.
    pub(crate) fn judge(&mut self, answer: &Value) -> Result<bool, String> {
        if let Some(rule) = &self.rules.answer {
            let strip = rule["strip"].as_bool().unwrap_or(true);
            let given = answer.as_str().map(|a| if strip { a.trim() } else { a });
            if let Some(pattern) = rule["regex"].as_str() {
                let regex = regex::Regex::new(pattern).map_err(|e| e.to_string())?;
                return Ok(given.is_some_and(|a| regex.is_match(a)));
            }
            return Ok(given.is_some() && given == rule["answer"].as_str());
        }
        let mut parameters = vec![Object::from(answer).text()];
        for script in self.rules.check.iter().flatten() {
            let script = match script {
                Some(script) => script,
                None => self.rules.example.as_ref().ok_or("`check` names the example, but the task has none")?,
            };
            let words: Vec<&str> = parameters.iter().map(String::as_str).collect();
            if let Some(name) = &script.builtin {
                if !compare(name, &words)? {
                    return Ok(false);
                }
                parameters.push(String::new());
                continue;
            }
            let done = self.place.script(script, &words)?;
            if done.status != Some(0) {
                return Ok(false);
            }
            parameters.push(String::from_utf8_lossy(&done.bytes).into_owned());
        }
        Ok(true)
    }
}

impl Environment for Episode {
    fn open(&mut self) -> Result<Vec<Message>, SuiteError> {
        let prompt = &self.setup.prompt;
        let mut messages = Vec::new();
        if !prompt.system.is_empty() {
            messages.push(Message::system(&prompt.system));
        }
        for (i, text) in prompt.one_shot.iter().enumerate() {
            messages.push(if i % 2 == 0 { Message::user(text) } else { Message::assistant(text) });
        }
        messages.push(Message::user(format!("{}{}", prompt.prefix, self.rules.description)));
        Ok(messages)
    }

    fn ended_at_once(&self) -> Option<Status> {
        self.broken.as_ref().map(|_| Status::Unknown)
    }

    fn shown(&self, messages: &[Message]) -> Option<Vec<Shown>> {
        self.setup.trims.then(|| history::shown(&Shown::all(messages)))
    }

    fn step(&mut self, reply: &str) -> Result<Step, SuiteError> {
        let reading = self.format.read(reply, None);
        self.turns_left = self.turns_left.saturating_sub(1);
        let turn = match self.setup.protocol {
            AgentBenchProtocol::Text => self.text_turn(&reading),
            AgentBenchProtocol::Fc => self.call_turn(&reading.said(reply)),
        };
        Ok(match turn {
            Turn::Over(status) => {
                let succeeded = status == Status::Completed;
                Step { reading, succeeded, observations: Vec::new(), ended: Some(status) }
            }
            Turn::Seen(message, succeeded) => {
                let ended = (self.turns_left == 0).then_some(Status::TaskLimitReached);
                Step { reading, succeeded, observations: vec![message], ended }
            }
        })
    }

    fn intact(&mut self) -> Result<bool, SuiteError> {
        Ok(!self.place.sandbox.killed())
    }

    fn outcome(&mut self) -> Outcome {
        if let Some(reason) = &self.broken {
            return Outcome { reward: 0.0, detail: json!({"error": reason}) };
        }
        let Some(answer) = self.answer.clone() else {
            return Outcome { reward: 0.0, detail: json!({"answer": null}) };
        };
        let judged = self.judge(&answer);
        Outcome {
            reward: if judged == Ok(true) { 1.0 } else { 0.0 },
            detail: json!({"answer": answer, "error": judged.err()}),
        }
    }
}
