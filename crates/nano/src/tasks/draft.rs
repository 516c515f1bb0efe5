//! From what a generator hands back to a task with its solution.

use super::suite::Suite;
use rolegraft_trajectory::Message;
use serde_json::Value;

/// A task with its solution.
#[derive(Debug, Clone)]
pub struct Solved {
    /// The task in the suite's file format, its `oracle` replies included.
    pub task: Value,
    /// The whole conversation of the oracle, observations as predicted.
    pub dialogue: Vec<Message>,
}

/// What a generator hands back: the task's own fields, the opening request, and (reply, observation) pairs.
pub(super) struct Draft {
    pub(super) fields: Value,
    pub(super) request: String,
    pub(super) turns: Vec<(String, Option<String>)>,
}

impl Draft {
    pub(super) fn finish(self, suite: Suite, id: &str) -> Solved {
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
pub(super) fn dumps(value: &Value) -> String {
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
