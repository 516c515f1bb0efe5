//! AgentBench's loop around the games (THUDM/AgentBench@6af78d0, and @578c5e9 for function calls).

use crate::bleu::bleu;
use crate::game::{Game, Profile, Session};
use rolegraft_spans::{Format, Reading};
use rolegraft_suite::{
    AgentBenchProtocol, Environment, Limits, Outcome, Roles, Step, Suite, SuiteError, Task, history,
};
use rolegraft_trajectory::{Message, Role, Shown, Status, calls};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

/// The reply format of the text protocol.
pub const FORMAT: &str = "agentbench-alfworld";
/// What begins the list of commands in a message.
const AVAILABLE: &str = "AVAILABLE ACTIONS";
/// Least likeness of a command that stands for another.
const LIKENESS: f64 = 0.01;
/// Prefixes of a game's folder and their examples, in the order in which they are tried.
const EXAMPLES: [(&str, &str); 6] = [
    ("pick_and_place", "put"),
    ("pick_clean_then_place", "clean"),
    ("pick_heat_then_place", "heat"),
    ("pick_cool_then_place", "cool"),
    ("look_at_obj", "examine"),
    ("pick_two_obj", "puttwo"),
];

/// What stands before a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompts {
    /// The first message.
    pub instruction: String,
    /// The agent's answer to it; the two make one message of the user's if it is empty.
    #[serde(default)]
    pub ok: String,
    /// Turns of an example, user first, by its name.
    #[serde(default)]
    pub examples: BTreeMap<String, Vec<String>>,
    /// For function calls: the system message.
    #[serde(default)]
    pub system: String,
    /// For function calls: the tools.
    #[serde(default)]
    pub tools: Vec<Value>,
    /// Whether the commands that can be given are listed.
    #[serde(default = "yes")]
    pub lists: bool,
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

/// How a suite is played.
#[derive(Debug, Clone, PartialEq)]
pub struct Setup {
    /// How the agent speaks.
    pub protocol: AgentBenchProtocol,
    /// Which generation of texts.
    pub profile: Profile,
    /// What it is told first.
    pub prompts: Prompts,
    /// Where games' paths start.
    pub games: PathBuf,
    /// The domain and the grammar of games that bring none; [`UNKNOWN_GOAL`] in it stands for a game's own sentence.
    pub logic: Option<(String, String)>,
}

/// What stands in a grammar for a game's own sentence.
pub const UNKNOWN_GOAL: &str = "UNKNOWN GOAL.";

/// The suite.
pub struct AlfWorldSuite {
    format: Arc<Format>,
    limits: Limits,
    setup: Arc<Setup>,
}

impl AlfWorldSuite {
    /// A suite with the given reply format.
    #[must_use]
    pub fn new(format: Format, limits: Limits, setup: Setup) -> Self {
        Self { format: Arc::new(format), limits, setup: Arc::new(setup) }
    }
}

/// A task: a game's path, or the game itself and what is to be done.
#[derive(Deserialize)]
struct Fields {
    game: Value,
    #[serde(default)]
    sentence: String,
}

impl Suite for AlfWorldSuite {
    fn id(&self) -> &str {
        "alfworld"
    }
    fn format(&self) -> &Format {
        &self.format
    }
    fn limits(&self) -> Limits {
        self.limits
    }
    fn tools(&self) -> Option<Arc<Vec<Value>>> {
        (self.setup.protocol == AgentBenchProtocol::Fc).then(|| Arc::new(self.setup.prompts.tools.clone()))
    }
    fn version(&self) -> u32 {
        1
    }
    fn settings(&self) -> Value {
        let Setup { protocol, profile, prompts, logic, .. } = &*self.setup;
        json!({"protocol": protocol, "profile": profile, "prompts": prompts, "logic": logic})
    }
    fn waits(&self) -> bool {
        false
    }
    fn roles(&self) -> Roles {
        if self.setup.protocol == AgentBenchProtocol::Fc {
            return Roles::with_tools();
        }
        let prompts = &self.setup.prompts;
        let (messages, _) = opening(prompts, prompts.examples.values().next().map(Vec::as_slice), "");
        Roles { opening: messages.iter().map(|m| m.role).collect(), answers: vec![Role::User] }
    }
    fn start(&self, task: &Task) -> Result<Box<dyn Environment>, SuiteError> {
        let wrong = |reason: String| SuiteError::Task { suite: "alfworld".into(), task: task.id.clone(), reason };
        let fields: Fields = serde_json::from_value(task.fields.clone()).map_err(|e| wrong(e.to_string()))?;
        let (game, folder) = match &fields.game {
            Value::String(path) => {
                let game = Game::open(&self.setup.games.join(path), self.setup.profile);
                (game.map_err(|e| wrong(e.to_string()))?, path.split('/').rev().nth(2).unwrap_or_default().to_owned())
            }
            game => {
                let mut game = game.clone();
                if let (Some((domain, grammar)), Some(fields_of_game)) = (&self.setup.logic, game.as_object_mut()) {
                    fields_of_game.entry("pddl_domain").or_insert_with(|| domain.clone().into());
                    let own = || grammar.replace(UNKNOWN_GOAL, &fields.sentence).into();
                    fields_of_game.entry("grammar").or_insert_with(own);
                }
                (Game::read(&game.to_string(), self.setup.profile).map_err(wrong)?, String::new())
            }
        };
        Ok(Box::new(Episode {
            session: Session::new(Arc::new(game)),
            setup: self.setup.clone(),
            format: self.format.clone(),
            folder,
            turns_left: self.limits.turns,
            replies: Vec::new(),
            opening: 0,
            result: false,
        }))
    }
}

struct Episode {
    session: Session,
    setup: Arc<Setup>,
    format: Arc<Format>,
    /// The game's folder, which names its kind.
    folder: String,
    turns_left: usize,
    replies: Vec<String>,
    /// Messages before the task's.
    opening: usize,
    result: bool,
}

/// The command that a text stands for among those that can be given.
#[must_use]
pub fn chosen(said: &str, choices: &[&str]) -> String {
    if choices.is_empty() || choices.contains(&said) {
        return said.to_owned();
    }
    let mut best = (LIKENESS, said);
    for choice in choices {
        let likeness = bleu(choice, said);
        if likeness > best.0 {
            best = (likeness, choice);
        }
    }
    best.1.to_owned()
}

/// What stands before the first reply of the text protocol, and which message of it the task is.
fn opening(prompts: &Prompts, example: Option<&[String]>, task: &str) -> (Vec<Message>, usize) {
    let mut messages = vec![Message::user(&prompts.instruction)];
    if !prompts.ok.is_empty() {
        messages.push(Message::assistant(&prompts.ok));
    }
    for (i, text) in example.into_iter().flatten().enumerate() {
        messages.push(match i {
            0 => Message::user(format!("Here is one example.\n{text}")),
            i if i % 2 == 0 => Message::user(text),
            _ => Message::assistant(text),
        });
    }
    let at = messages.len();
    match messages.as_mut_slice() {
        // Nobody answered the instruction: the task goes on with it.
        [only] if prompts.ok.is_empty() => {
            only.content = format!("{}\n{task}", only.content);
            (messages, 0)
        }
        _ => {
            messages.push(Message::user(task));
            (messages, at)
        }
    }
}

/// The conversation as upstream keeps it: only the last of the messages from `start` on lists commands.
#[must_use]
pub fn cut(messages: &[Message], start: usize) -> Vec<Shown> {
    let mut out = Shown::all(messages);
    let last = messages.iter().rposition(|m| m.role == Role::User).unwrap_or(0);
    for Shown { message, .. } in &mut out[start.min(last)..last] {
        if message.role == Role::User
            && let Some(at) = message.content.find(AVAILABLE)
        {
            message.content.truncate(at);
        }
    }
    out
}

impl Episode {
    /// What follows an observation.
    fn available(&self) -> String {
        match self.setup.prompts.lists {
            true => {
                let list: Vec<&str> = self.session.admissible().collect();
                format!(" {AVAILABLE}: {}\n", list.join("\n"))
            }
            false => String::new(),
        }
    }

    /// Gives a command: what is seen, and whether it was one that could be given as it was said.
    fn act(&mut self, said: &str) -> (String, bool) {
        let choices: Vec<&str> = self.session.admissible().collect();
        let (command, exact) = (chosen(said, &choices), choices.contains(&said));
        let seen = self.session.step(&command);
        let told = seen.starts_with("You arrive at loc ").then(|| seen.split_once(". ")).flatten();
        (format!("{}{}", told.map_or(seen.as_str(), |(_, rest)| rest), self.available()), exact)
    }

    /// What a call of the one tool asks for.
    fn called(&self, reply: &str) -> Result<String, &'static str> {
        let (_, called) = calls::read(reply);
        let call = called.first().ok_or("No executable tool calls found. Please call a tool instead")?;
        let arguments = rolegraft_spans::python_json::loads(&call.arguments).ok();
        let first = arguments.as_ref().and_then(|a| a.as_object()?.values().next()?.as_str());
        first.map(str::to_owned).ok_or("No valid tool calls found. Please call a tool instead.")
    }
}

impl Environment for Episode {
    fn open(&mut self) -> Result<Vec<Message>, SuiteError> {
        let intro = self.session.intro();
        let told: Vec<&str> = intro.split("\n\n").skip(1).collect();
        let task = format!("Here is your task. {}{}", told.join("\n"), self.available());
        let prompts = &self.setup.prompts;
        if self.setup.protocol == AgentBenchProtocol::Fc {
            return Ok(vec![Message::system(&prompts.system), Message::user(task)]);
        }
        let kind = EXAMPLES.iter().find(|(prefix, _)| self.folder.starts_with(prefix));
        let example = kind.and_then(|(_, name)| prompts.examples.get(*name));
        let (messages, opening) = opening(prompts, example.map(Vec::as_slice), &task);
        self.opening = opening;
        Ok(messages)
    }

    fn shown(&self, messages: &[Message]) -> Option<Vec<Shown>> {
        (self.setup.protocol == AgentBenchProtocol::Text).then(|| history::shown(&cut(messages, self.opening)))
    }

    fn step(&mut self, reply: &str) -> Result<Step, SuiteError> {
        let reading = self.format.read(reply, None);
        self.turns_left = self.turns_left.saturating_sub(1);
        let over = |reading: Reading, status: Status| {
            Ok(Step { reading, succeeded: false, observations: Vec::new(), ended: Some(status) })
        };
        let said = match self.setup.protocol {
            AgentBenchProtocol::Text => match reading.action().and_then(|a| a.payload.as_str()) {
                Some(said) => said.to_lowercase(),
                None => return over(reading, Status::AgentInvalidAction),
            },
            AgentBenchProtocol::Fc => match self.called(&reading.said(reply)) {
                Ok(said) => said,
                Err(complaint) => {
                    let ended = (self.turns_left == 0).then_some(Status::TaskLimitReached);
                    let observations = vec![Message::user(complaint)];
                    return Ok(Step { reading, succeeded: false, observations, ended });
                }
            },
        };
        let (seen, succeeded) = self.act(&said);
        self.replies.push(reply.to_owned());
        let repeats = self.setup.protocol == AgentBenchProtocol::Text
            && self.replies.len() > 3
            && self.replies.iter().rev().take(3).all(|earlier| earlier == reply);
        // upstream: looked at before the goal, so that a win on such a step is lost.
        let ended = if repeats {
            Some(Status::AgentInvalidAction)
        } else if self.session.won() {
            self.result = true;
            Some(Status::Completed)
        } else {
            (self.turns_left == 0).then_some(Status::TaskLimitReached)
        };
        let message = match self.setup.protocol {
            AgentBenchProtocol::Text => Message::user(seen),
            AgentBenchProtocol::Fc => Message::tool(seen),
        };
        Ok(Step { reading, succeeded, observations: vec![message], ended })
    }

    fn outcome(&mut self) -> Outcome {
        let reward = if self.result { 1.0 } else { 0.0 };
        Outcome { reward, detail: json!({"won": self.session.won()}) }
    }
}
