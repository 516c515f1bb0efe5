//! Task generators: each makes a task in its suite's own file format, the replies of an agent that solves it, and the
//! observations those replies will meet.
//!
//! The observations are predicted so that training needs no environment; a test plays the replies in the real
//! environments and checks that every prediction holds and every task is solved.

mod alfworld;
mod db;
mod office;
mod os;
mod tau;
mod webshop;

use crate::words::{Entities, Split};
use rolegraft_trajectory::{Key, Message, Rng, Seed};
use serde_json::Value;

/// A suite with built-in tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suite {
    /// τ-bench retail.
    TauRetail,
    /// τ-bench airline.
    TauAirline,
    /// OfficeBench.
    Office,
    /// AgentBench OS.
    Os,
    /// AgentBench WebShop.
    WebShop,
    /// AgentBench DB-bench.
    Db,
    /// AgentBench ALFWorld.
    AlfWorld,
}

impl Suite {
    /// Every suite.
    pub const ALL: [Self; 7] =
        [Self::TauRetail, Self::TauAirline, Self::Office, Self::Os, Self::WebShop, Self::Db, Self::AlfWorld];
    /// Those that an expert knows, twice each, and those that the base alone has seen.
    pub const SEEN: [Self; 12] = [
        Self::TauRetail,
        Self::TauAirline,
        Self::Office,
        Self::Os,
        Self::WebShop,
        Self::TauRetail,
        Self::TauAirline,
        Self::Office,
        Self::Os,
        Self::WebShop,
        Self::Db,
        Self::AlfWorld,
    ];

    /// The suite's id, which is also its folder under `benchmarks/`.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Self::TauRetail => "tau-retail",
            Self::TauAirline => "tau-airline",
            Self::Office => "officebench",
            Self::Os => "os",
            Self::WebShop => "webshop",
            Self::Db => "dbbench",
            Self::AlfWorld => "alfworld",
        }
    }

    /// The shortest prompt that names the reply format: the system message, or DB-bench's first.
    #[must_use]
    pub fn system_prompt(self) -> &'static str {
        match self {
            Self::TauRetail => "You are a retail agent. Use one tool per turn.",
            Self::TauAirline => "You are an airline agent. Use one tool per turn.",
            Self::Office => "You are an office assistant. Reply <think>...</think> <answer>...</answer>.",
            Self::Os => "You are an assistant on Linux. Reply Think: and Act: bash, finish or answer(...).",
            Self::WebShop => "You are web shopping. Reply Thought: and Action: search[...] or click[...].",
            Self::AlfWorld => "Interact with a household to solve a task. Reply THOUGHT: and ACTION:.",
            Self::Db => {
                "You operate a MySQL database. Reply Action: Operation with SQL, or Action: Answer and Final Answer: [...]."
            }
        }
    }
}

/// A task with its solution.
#[derive(Debug, Clone)]
pub struct Solved {
    /// The task in the suite's file format, its `oracle` replies included.
    pub task: Value,
    /// The whole conversation of the oracle, observations as predicted.
    pub dialogue: Vec<Message>,
}

/// Task number `index` of a suite's split. Pure: the same arguments give the same task.
#[must_use]
pub fn generate(suite: Suite, split: Split, seed: Seed, index: u64) -> Solved {
    let mut rng = Key::new(seed).child(suite.id()).child(split.as_str()).index(index).rng();
    let id = format!("nano-{}-{}-{index:04}", suite.id(), split.as_str());
    generate_with(suite, split, &id, &mut rng)
}

/// A task drawn from `rng`, for training.
pub(crate) fn generate_with(suite: Suite, split: Split, id: &str, rng: &mut Rng) -> Solved {
    let mut entities = Entities { split, rng };
    let draft = match suite {
        Suite::TauRetail => tau::retail(&mut entities),
        Suite::TauAirline => tau::airline(&mut entities),
        Suite::Office => office::task(&mut entities),
        Suite::Os => os::task(&mut entities),
        Suite::WebShop => webshop::task(&mut entities),
        Suite::Db => db::task(&mut entities),
        Suite::AlfWorld => alfworld::task(&mut entities),
    };
    draft.finish(suite, id)
}

/// What a generator hands back: the task's own fields, the opening request, and (reply, observation) pairs.
struct Draft {
    fields: Value,
    request: String,
    turns: Vec<(String, Option<String>)>,
}

impl Draft {
    fn finish(self, suite: Suite, id: &str) -> Solved {
        let observation = match suite {
            Suite::TauRetail | Suite::TauAirline => Message::tool as fn(String) -> Message,
            _ => Message::user,
        };
        let mut dialogue = match suite {
            Suite::Db => {
                vec![Message::user(suite.system_prompt()), Message::assistant("Ok."), Message::user(self.request)]
            }
            Suite::WebShop | Suite::AlfWorld => {
                vec![Message::user(format!("{}\n{}", suite.system_prompt(), self.request))]
            }
            _ => vec![Message::system(suite.system_prompt()), Message::user(self.request)],
        };
        let mut oracle = Vec::new();
        for (reply, observed) in self.turns {
            dialogue.push(Message::assistant(reply.clone()));
            dialogue.extend(observed.map(observation));
            oracle.push(Value::String(reply));
        }
        let mut task = serde_json::Map::new();
        task.insert("id".into(), id.into());
        if let Value::Object(fields) = self.fields {
            task.extend(fields);
        }
        task.insert("oracle".into(), Value::Array(oracle));
        Solved { task: Value::Object(task), dialogue }
    }
}

/// Python's `json.dumps` with default separators, which every suite's observations use.
fn dumps(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(dumps).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let fields: Vec<_> =
                map.iter().map(|(k, v)| format!("{}: {}", Value::from(k.as_str()), dumps(v))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        scalar => scalar.to_string(),
    }
}

/// Appends to a JSON array.
fn append(array: &mut Value, item: Value) {
    if let Some(items) = array.as_array_mut() {
        items.push(item);
    }
}
