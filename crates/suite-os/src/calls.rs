//! The function-call protocol: THUDM/AgentBench@578c5e9:`src/server/tasks/os_interaction/task.py`.

use rolegraft_python::Object;
use rolegraft_spans::python_json;
use rolegraft_trajectory::calls::NativeCall;
use serde_json::Value;

/// What a turn without a call is told.
pub(crate) const NO_CALL: &str = "No executable tool calls found. Please call a tool instead";
/// What a call of no such tool is told.
const NO_TOOL: &str = "Invalid function call. Please call a tool instead";

/// What a call asks for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Wish {
    /// Run this, if it is a text.
    Run(Value),
    /// Commit this.
    Commit(Value),
    /// Nothing that can be done: the tool's message.
    Refused(String),
    /// Upstream raises, which ends the episode.
    Raised,
}

/// Reads the first call of a turn; `said` is what was said beside it.
pub(crate) fn wish(call: &NativeCall, said: &str) -> Wish {
    let arguments = match python_json::loads(&call.arguments) {
        Ok(arguments) => arguments,
        Err(error) => return Wish::Refused(error.to_string()),
    };
    let kind = Object::from(&arguments).kind();
    let Value::Object(map) = &arguments else {
        let iterable = matches!(arguments, Value::Array(_) | Value::String(_));
        return Wish::Refused(match said.is_empty() && !iterable {
            true => format!("argument of type '{kind}' is not iterable"),
            false => format!("'{kind}' object has no attribute 'values'"),
        });
    };
    // upstream: the first value, whatever its name.
    let first = map.values().next().cloned();
    match (call.name.as_str(), first) {
        ("bash_action", Some(script)) => Wish::Run(script),
        ("answer_action", Some(answer)) => Wish::Commit(answer),
        ("finish_action", thought) => Wish::Commit(thought.unwrap_or(Value::Null)),
        ("bash_action" | "answer_action", None) => Wish::Raised,
        _ => Wish::Refused(NO_TOOL.into()),
    }
}
