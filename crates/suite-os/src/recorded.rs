//! Single steps of the suite, for comparing them with what upstream's code recorded.

use crate::calls::{NO_CALL, Wish, wish};
use crate::environment::OsSuite;
use crate::terminal::{observation, read_frames};
use rolegraft_suite::Task;
use rolegraft_trajectory::calls::NativeCall;
use serde_json::{Value, json};

/// What upstream's reader makes of a terminal's frames: `{observation, raises, frames_left}`.
#[must_use]
pub fn frames(frames: &[Vec<u8>]) -> Value {
    let (bytes, taken) = read_frames(frames.iter().map(Vec::as_slice));
    let text = String::from_utf8(bytes).ok();
    json!({
        "raises": text.is_none(), "observation": text.map(|text| observation(&text)), "frames_left": frames.len() - taken,
    })
}

/// What a turn of the function-call protocol comes to: `{executed, commit, answer, injected, raises}`; the shell answers `output`.
#[must_use]
pub fn call(said: &str, call: Option<&NativeCall>, output: &[u8]) -> Value {
    let nothing = || json!({"executed": [], "commit": false, "answer": null, "injected": null, "raises": false});
    let mut out = nothing();
    let Some(call) = call else {
        out["injected"] = json!(["user", NO_CALL]);
        return out;
    };
    match wish(call, said) {
        Wish::Raised => out["raises"] = true.into(),
        Wish::Refused(message) => out["injected"] = json!(["tool", message]),
        Wish::Commit(answer) => {
            out["commit"] = true.into();
            out["answer"] = answer;
        }
        Wish::Run(script) => {
            let text = String::from_utf8(output.to_vec());
            let text = text.unwrap_or_else(|_| "OS Environment output cannot be decoded as UTF-8".into());
            out["executed"] = json!([script]);
            out["injected"] = json!(["tool", observation(&text)]);
        }
    }
    out
}

/// What a task's own example says of its answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Oracle {
    /// The answer is what the example prints.
    ExampleOutput,
    /// The example does what is asked for; there is no answer.
    ExampleThenFinish,
    /// This answer.
    Answer(Value),
}

/// Whether an answer to a task is right, in a fresh box.
///
/// # Errors
/// If there is no box, or the task cannot be prepared.
pub fn verdict(suite: &OsSuite, task: &Task, oracle: &Oracle) -> Result<bool, String> {
    let mut episode = suite.begin(task).map_err(|e| e.to_string())?;
    let answer = match oracle {
        Oracle::ExampleOutput => Value::String(episode.example()?),
        Oracle::ExampleThenFinish => {
            episode.example()?;
            Value::Null
        }
        Oracle::Answer(answer) => answer.clone(),
    };
    episode.judge(&answer)
}
