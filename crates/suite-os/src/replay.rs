//! AgentBench OS: recorded steps of THUDM/AgentBench@41e6807 and @578c5e9, by file name.
//!
//! | file | a case |
//! |---|---|
//! | `os_parse.jsonl` | one reply: the action and its content |
//! | `os_shell.jsonl` | a terminal's frames: the observation, what raises, frames left unread |
//! | `os_fc.jsonl` | one turn of function calls |
//! | `history_trim.jsonl` | a text's segments, or a history's messages that are shown |
//! | `os_tasks.jsonl` | one task: right and wrong answers in a box of its own |

use crate::recorded::{self, Oracle};
use crate::{FORMAT, Official, OsSuite, Prompt, Setup};
use rolegraft_spans::Format;
use rolegraft_suite::recordings::{Replayed, Report, UnreadableError, cases, same, text};
use rolegraft_suite::sandbox::Image;
use rolegraft_suite::{AgentBenchProtocol, Limits, Task, history};
use rolegraft_trajectory::{Message, Role, Shown, calls::NativeCall};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Replays recorded steps. `data` holds the tasks; `image` is what boxes hold, without which tasks are not replayed.
///
/// # Errors
/// If the recordings cannot be read.
pub(crate) fn replay(traces: &Path, data: &Path, image: Option<&Image>) -> Result<Report, UnreadableError> {
    let boxes = Boxes::open(data, image);
    cases(traces, |kind, _, case| {
        Some(Replayed::Compared(match kind {
            "os_parse" => Format::builtin(FORMAT).map_err(|e| e.to_string()).and_then(|f| read_as(&f, case, case)),
            "os_shell" => shell(case),
            "os_fc" => calls(case),
            "history_trim" => trim(case),
            "os_tasks" => match &boxes {
                Ok(boxes) => boxes.play(case),
                Err(reason) => return Some(Replayed::Lacking(reason.clone())),
            },
            _ => return None,
        }))
    })
}

/// A reply as its harness read it: a case of `conformance parse`.
pub(crate) fn reply(format: &Format, case: &Value) -> Result<(), String> {
    read_as(format, case, &case["expected"])
}

fn read_as(format: &Format, case: &Value, expected: &Value) -> Result<(), String> {
    let reading = format.read(text(case, "reply"), None);
    let (action, content) = match reading.action() {
        None => (Value::Null, Value::Null),
        Some(a) if a.name == "bash" => ("bash".into(), a.payload.clone()),
        Some(a) => ("commit".into(), a.payload.clone()),
    };
    same("action", &expected["action"], &action)?;
    same("content", &expected["content"], &content)
}

/// Bytes written as Latin-1.
fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect()
}

fn shell(case: &Value) -> Result<(), String> {
    let frames: Vec<Vec<u8>> =
        case["frames"].as_array().into_iter().flatten().filter_map(Value::as_str).map(bytes).collect();
    let got = recorded::frames(&frames);
    same("observation", &case["observation"], &got["observation"])?;
    same("raises", &(!case["raises"].is_null()).into(), &got["raises"])?;
    same("frames left", &case["frames_left"], &got["frames_left"])
}

fn calls(case: &Value) -> Result<(), String> {
    let message = &case["message"];
    let first = &message["tool_calls"][0];
    let field = |name: &str| first["function"][name].as_str().unwrap_or_default().to_owned();
    let call = first.is_object().then(|| NativeCall {
        id: first["id"].as_str().unwrap_or_default().to_owned(),
        name: field("name"),
        arguments: field("arguments"),
    });
    let output = match case["shell_output_utf8"].as_str() {
        Some(text) => text.as_bytes().to_vec(),
        None => bytes(text(case, "shell_output")),
    };
    let got = recorded::call(text(message, "content"), call.as_ref(), &output);
    for what in ["executed", "commit", "answer"] {
        same(what, &case[what], &got[what])?;
    }
    same("raises", &(!case["raises"].is_null()).into(), &got["raises"])?;
    let injected = case["injected"].as_array().and_then(|all| all.iter().find(|m| m.is_object()));
    let injected = injected.map_or(Value::Null, |m| json!([m["role"], m["content"]]));
    same("injected", &injected, &got["injected"])
}

fn trim(case: &Value) -> Result<(), String> {
    if let Some(text) = case["text"].as_str() {
        return same("segments", &case["segments"], &history::segments(text).into());
    }
    let message = |m: &Value| {
        let role = if m["role"] == "user" { Role::User } else { Role::Assistant };
        Message::new(role, text(m, "content"))
    };
    let messages: Vec<Message> = case["history"].as_array().into_iter().flatten().map(message).collect();
    let (kept, notice) = history::kept(&Shown::all(&messages));
    same("kept messages", &case["kept_indices"], &json!(kept))?;
    same("notice", &case["notice"], &notice.into())
}

/// The tasks, and a suite to play them.
struct Boxes {
    suite: OsSuite,
    tasks: BTreeMap<String, Task>,
}

impl Boxes {
    fn open(data: &Path, image: Option<&Image>) -> Result<Self, String> {
        let image =
            image.ok_or("no image: name a root folder with --os-root, or a Docker image with --os-docker")?.clone();
        let official = Official::open(data).map_err(|e| e.to_string())?;
        let mut tasks = BTreeMap::new();
        for split in ["test", "dev"] {
            tasks.extend(official.tasks(split).map_err(|e| e.to_string())?.0.into_iter().map(|t| (t.id.clone(), t)));
        }
        let format = Format::builtin(FORMAT).map_err(|e| e.to_string())?;
        let limits = Limits { turns: 8, tokens: 0, temperature: 0.0, top_p: 1.0 };
        let prompt = Prompt::upstream(AgentBenchProtocol::Text);
        let setup = Setup { image, prompt, ..Setup::default() };
        Ok(Self { suite: OsSuite::new(format, limits, setup), tasks })
    }

    /// The verdicts on a right and a wrong answer. What is right may depend on what the box holds: then the box is asked.
    fn play(&self, case: &Value) -> Result<(), String> {
        let task = self.tasks.get(text(case, "index")).ok_or("the data has no such task")?;
        let verdict = |oracle: Oracle| recorded::verdict(&self.suite, task, &oracle);
        let right = match text(case, "oracle") {
            "example-output" => Oracle::ExampleOutput,
            "example-then-finish" => Oracle::ExampleThenFinish,
            _ => Oracle::Answer(case["right"]["answer"].clone()),
        };
        same("the right answer", &case["right"]["result"], &verdict(right)?.into())?;
        let wrong = Oracle::Answer(case["wrong"]["answer"].clone());
        same("the wrong answer", &case["wrong"]["result"], &verdict(wrong)?.into())
    }
}
