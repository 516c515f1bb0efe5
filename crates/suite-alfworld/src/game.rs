//! Games: a file, and a session on it.

use crate::grammar::{Grammar, Teller};
use crate::problem::{Symbol, World};
use crate::state::{Instance, State};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Said of a command that is none.
pub const NOTHING: &str = "Nothing happens.";
/// What the later generation of texts says, and what the earlier said (alfworld/alfworld@ca98194:scripts/patch_tw-pddl.py, undone).
const EARLIER: [(&str, &str); 3] = [
    ("You arrive at {r.name}.", "You arrive at {lend.name}."),
    ("You move the {o.name} to the {r.name}.", "You put the {o.name} in/on the {r.name}."),
    ("\"move {o} to {r}\"", "\"put {o} in/on {r}\""),
];
/// The action that came with the later generation.
const LATER_ACTION: &str = "help";

/// Why a game cannot be played.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum GameError {
    #[error("cannot read the game `{}`", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the game `{}`: {reason}", path.display())]
    Format { path: PathBuf, reason: String },
}

/// Which of the two generations of texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// `put X in/on Y`, arrivals at `loc N`: ALFWorld's data up to 2.1.1, and AgentBench's prompts.
    #[default]
    Classic,
    /// What the file says.
    Embedded,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Classic, Self::Embedded];

    /// The name used in files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Embedded => "embedded",
        }
    }
}

#[derive(Deserialize)]
struct GameFile {
    pddl_domain: String,
    grammar: String,
    pddl_problem: String,
    #[serde(default)]
    walkthrough: Vec<String>,
}

/// A game.
#[derive(Debug)]
pub struct Game {
    world: World,
    grammar: Grammar,
    first: State,
    names: Vec<String>,
    walkthrough: Vec<String>,
}

impl Game {
    /// Reads `game.tw-pddl`.
    ///
    /// # Errors
    /// If it is missing, or not such a file.
    pub fn open(path: &Path, profile: Profile) -> Result<Self, GameError> {
        let text = std::fs::read_to_string(path).map_err(|source| GameError::Read { path: path.to_owned(), source })?;
        Self::read(&text, profile).map_err(|reason| GameError::Format { path: path.to_owned(), reason })
    }

    /// Reads a game from its file's text.
    ///
    /// # Errors
    /// With what is wrong with it.
    pub fn read(text: &str, profile: Profile) -> Result<Self, String> {
        let file: GameFile = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let (mut world, facts) = World::read(&file.pddl_domain, &file.pddl_problem)?;
        let first = State::new(facts);
        let (mut grammar, mut walkthrough) = (file.grammar, file.walkthrough);
        if profile == Profile::Classic {
            world.actions.retain(|action| action.name != LATER_ACTION);
            for (later, earlier) in EARLIER {
                grammar = grammar.replace(later, earlier);
            }
            walkthrough = walkthrough.iter().map(|command| classic(command)).collect();
        }
        let grammar = Grammar::read(&grammar, &world)?;
        let names = names(&world, &first);
        Ok(Self { world, grammar, first, names, walkthrough })
    }

    /// Commands that win.
    #[must_use]
    pub fn walkthrough(&self) -> &[String] {
        &self.walkthrough
    }

    /// What an object or a place is called.
    #[must_use]
    pub fn name_of(&self, id: &str) -> Option<&str> {
        self.world.symbol(id).map(|symbol| self.names[usize::from(symbol)].as_str())
    }
}

/// A command of the later generation in the words of the earlier.
fn classic(command: &str) -> String {
    match command.strip_prefix("move ").and_then(|rest| rest.split_once(" to ")) {
        Some((object, receptacle)) => format!("put {object} in/on {receptacle}"),
        None => command.to_owned(),
    }
}

/// Display names: things of a kind are numbered downwards in the order of their ids.
fn names(world: &World, first: &State) -> Vec<String> {
    let mut names = world.symbols.clone();
    let named: BTreeSet<Symbol> = first.named();
    let base = |id: &str| {
        let (before, _) = id.split_once("_bar_")?;
        Some(format!("{before}{}", if id.contains("basin") { "basin" } else { "" }))
    };
    let mut left: BTreeMap<String, usize> = BTreeMap::new();
    for symbol in &named {
        if let Some(base) = base(&world.symbols[usize::from(*symbol)]) {
            *left.entry(base).or_default() += 1;
        }
    }
    for symbol in named {
        let id = &world.symbols[usize::from(symbol)];
        names[usize::from(symbol)] = match base(id) {
            None => format!("{id} "),
            Some(base) => {
                let number = left.get_mut(&base).map_or(0, |left| {
                    *left -= 1;
                    *left + 1
                });
                format!("{base} {number}")
            }
        };
    }
    names
}

/// A game being played.
#[derive(Debug, Clone)]
pub struct Session {
    game: Arc<Game>,
    state: State,
    /// What may be done now, by its command: the first of those with equal commands.
    commands: BTreeMap<String, Instance>,
    won: bool,
}

impl Session {
    /// Starts a game.
    #[must_use]
    pub fn new(game: Arc<Game>) -> Self {
        let state = game.first.clone();
        let mut session = Self { game, state, commands: BTreeMap::new(), won: false };
        session.look_around();
        session
    }

    fn teller(&self) -> Teller<'_> {
        let Game { world, grammar, names, .. } = &*self.game;
        Teller { world, grammar, names, state: &self.state, expanded: std::cell::Cell::new(0) }
    }

    fn look_around(&mut self) {
        let teller = self.teller();
        let mut commands = BTreeMap::new();
        for instance in self.state.applicable(&self.game.world) {
            if let Some(command) = teller.command(instance.action, &instance.arguments) {
                commands.entry(command).or_insert(instance);
            }
        }
        self.commands = commands;
        self.won = self.state.is_won(&self.game.world);
    }

    /// What is told at the beginning.
    #[must_use]
    pub fn intro(&self) -> String {
        self.teller().symbol("intro")
    }

    /// Commands that can be given now, sorted.
    pub fn admissible(&self) -> impl Iterator<Item = &str> {
        self.commands.keys().map(String::as_str)
    }

    /// Whether the goal is reached.
    #[must_use]
    pub fn won(&self) -> bool {
        self.won
    }

    /// Gives a command, and returns what is said.
    pub fn step(&mut self, command: &str) -> String {
        let Some(instance) = self.commands.get(rolegraft_python::strip(command)).cloned() else {
            return NOTHING.into();
        };
        self.state.apply(&self.game.world, &instance);
        self.look_around();
        self.teller().feedback(instance.action, &instance.arguments).unwrap_or_default()
    }
}
