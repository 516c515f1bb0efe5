//! Trajectories from elsewhere: logs of ours, OpenAI's `messages` and ShareGPT's `conversations` (the forms of agents' SFT
//! data), results of tau2, logs of inspect.
//!
//! What cannot be used is named with its line and reason, and counted; nothing is dropped in silence. Structured calls of
//! an assistant are written as Hermes and Qwen write them, since that is what their templates make of them.

use crate::error::RunError;
use crate::export::restored;
use rolegraft_spans::Format;
use rolegraft_trajectory::{
    Episode, EpisodeKey, EpisodeLog, Finish, LogWriter, Message, Origin, Role, Spent, Status, Turn, begins_log,
};
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::io::Read;
use std::path::Path;

/// Largest file read, and largest sample of an archive, in bytes.
const MOST: u64 = 4 << 30;

/// What was found in files.
#[derive(Debug, Default)]
pub struct Imported {
    /// Trajectories with at least one reply.
    pub episodes: Vec<Episode>,
    /// What cannot be used: where, and why.
    pub unusable: Vec<(String, String)>,
    /// Trajectories that announce tools of their own, which prompts here do not show.
    pub with_tools: usize,
}

/// Reads trajectories as episodes of `suite`; `format` finds the spans in replies that were not logged here.
///
/// # Errors
/// If a file cannot be read at all.
pub fn import(path: &Path, suite: &str, format: &Format) -> Result<Imported, RunError> {
    let fail = |source| RunError::File { path: path.to_owned(), reason: format!("cannot be read: {source}") };
    let mut bytes = Vec::new();
    std::fs::File::open(path).and_then(|file| file.take(MOST).read_to_end(&mut bytes)).map_err(fail)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut found = Found { suite, format, name, imported: Imported::default() };
    if bytes.starts_with(b"PK\x03\x04") {
        found.archive(bytes).map_err(|reason| RunError::File { path: path.to_owned(), reason })?;
        return Ok(found.imported);
    }
    if begins_log(&bytes) {
        found.imported.episodes = EpisodeLog::read(path)?.1;
        return Ok(found.imported);
    }
    let text = String::from_utf8(bytes)
        .map_err(|e| RunError::File { path: path.to_owned(), reason: format!("is not UTF-8: {e}") })?;
    match serde_json::from_str::<Value>(&text) {
        Ok(Value::Array(all)) => {
            all.iter().enumerate().for_each(|(i, one)| found.one(&format!("entry {}", i + 1), one))
        }
        Ok(whole) if whole["simulations"].is_array() => found.simulations(&whole),
        Ok(whole) => found.one("line 1", &whole),
        Err(_) => {
            for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
                match serde_json::from_str(line) {
                    Ok(one) => found.one(&format!("line {}", i + 1), &one),
                    Err(error) => found.unusable(&format!("line {}", i + 1), format!("it is not JSON: {error}")),
                }
            }
        }
    }
    Ok(found.imported)
}

/// Writes trajectories from elsewhere as a log; where two are of one task and trial, tasks' trials are numbered anew. A log that is there already is
/// refused.
///
/// # Errors
/// If the log is there, or the disk refuses.
pub fn write_log(path: &Path, episodes: &mut [Episode]) -> Result<(), RunError> {
    if path.exists() {
        let reason = "is there already; remove it or choose another --out".into();
        return Err(RunError::File { path: path.to_owned(), reason });
    }
    let mut next: BTreeMap<(String, String), u32> = BTreeMap::new();
    let distinct = episodes.iter().map(|episode| &episode.key).collect::<HashSet<_>>().len() == episodes.len();
    for episode in episodes.iter_mut().filter(|_| !distinct) {
        let trial = next.entry((episode.key.suite.clone(), episode.key.task.clone())).or_default();
        episode.key.trial = *trial;
        *trial += 1;
    }
    let digest = crate::stages::calibrate::digest(episodes);
    let mut log = LogWriter::create(path, &Origin::of(digest.as_str()))?;
    for episode in episodes {
        log.add(episode)?;
    }
    Ok(log.finish()?)
}

struct Found<'f> {
    suite: &'f str,
    format: &'f Format,
    name: String,
    imported: Imported,
}

impl Found<'_> {
    fn unusable(&mut self, at: &str, reason: String) {
        self.imported.unusable.push((format!("{} {at}", self.name), reason));
    }

    /// One conversation in either form.
    fn one(&mut self, at: &str, value: &Value) {
        let said = match (value["messages"].as_array(), value["conversations"].as_array()) {
            (Some(messages), _) => messages.iter().map(message).collect::<Result<Vec<_>, _>>(),
            (None, Some(turns)) => turns.iter().map(turn).collect(),
            (None, None) => Err("it has neither `messages` nor `conversations`".into()),
        };
        let system = value["system"].as_str().filter(|text| !text.is_empty());
        let said = said.map(|mut messages| {
            if let Some(text) = system.filter(|_| messages.first().is_none_or(|m| m.role != Role::System)) {
                messages.insert(0, Message::system(text));
            }
            messages
        });
        let tools = !(value["tools"].is_null() || value["tools"] == "" || value["tools"] == Value::Array(Vec::new()));
        self.keep(at, value, said, tools);
    }

    /// tau2's results: `{"simulations": [{"task_id", "trial", "messages": […]}]}`.
    fn simulations(&mut self, whole: &Value) {
        let policy = whole.pointer("/info/environment_info/policy").and_then(Value::as_str);
        for (i, simulation) in whole["simulations"].as_array().into_iter().flatten().enumerate() {
            let said = simulation["messages"].as_array().ok_or_else(|| "it has no `messages`".to_owned());
            // A user's own tool calls and their results are not the agent's to see.
            let said = said.and_then(|messages| {
                let theirs =
                    |m: &&Value| m["requestor"] == "user" || (m["role"] == "user" && !m["tool_calls"].is_null());
                messages.iter().filter(|m| !theirs(m)).map(message).collect::<Result<Vec<_>, _>>()
            });
            let said = said.map(|messages| policy.map(Message::system).into_iter().chain(messages).collect());
            self.keep(&format!("simulation {}", i + 1), simulation, said, false);
        }
    }

    /// inspect's log: an archive with a sample a file.
    fn archive(&mut self, bytes: Vec<u8>) -> Result<(), String> {
        let mut archive =
            zip::ZipArchive::new(std::io::Cursor::new(bytes)).map_err(|e| format!("is no archive: {e}"))?;
        let mut names: Vec<String> = archive
            .file_names()
            .filter(|n| n.starts_with("samples/") && n.ends_with(".json"))
            .map(str::to_owned)
            .collect();
        names.sort();
        if names.is_empty() {
            return Err("holds no `samples/*.json`, as a log of inspect does".into());
        }
        for name in names {
            let mut text = String::new();
            let read = archive
                .by_name(&name)
                .map_err(|e| e.to_string())
                .and_then(|file| file.take(MOST).read_to_string(&mut text).map_err(|e| e.to_string()));
            match read.and_then(|_| serde_json::from_str::<Value>(&text).map_err(|e| format!("it is not JSON: {e}"))) {
                Ok(sample) => {
                    let said = sample["messages"].as_array().ok_or_else(|| "it has no `messages`".to_owned());
                    let said = said.and_then(|messages| messages.iter().map(message).collect::<Result<Vec<_>, _>>());
                    self.keep(&name, &sample, said, false);
                }
                Err(reason) => self.unusable(&name, reason),
            }
        }
        Ok(())
    }

    fn keep(&mut self, at: &str, whole: &Value, said: Result<Vec<Message>, String>, tools: bool) {
        if let Some(episode) = ours(whole) {
            self.imported.episodes.push(episode);
            return;
        }
        let messages = match said {
            Ok(messages) if messages.iter().any(|m| m.role == Role::Assistant) => messages,
            Ok(_) => return self.unusable(at, "nothing in it was said by an assistant".into()),
            Err(reason) => return self.unusable(at, reason),
        };
        self.imported.with_tools += usize::from(tools);
        let word = |value: &Value| value.as_str().map(str::to_owned).or_else(|| Some(value.as_i64()?.to_string()));
        let named = ["task_id", "id", "uuid"].iter().find_map(|field| word(&whole[*field]));
        let trial = ["trial", "epoch"].iter().find_map(|field| whole[*field].as_u64()).unwrap_or(0);
        let task = named.unwrap_or_else(|| format!("{} {at}", self.name));
        let turns = messages.iter().enumerate().filter(|(_, m)| m.role == Role::Assistant).map(|(message, said)| {
            let reading = self.format.read(&said.content, None);
            Turn::of(message, Finish::Stop, &reading, reading.violations().next().is_none())
        });
        let reward = whole.pointer("/reward_info/reward").or(whole.get("reward")).and_then(Value::as_f64);
        self.imported.episodes.push(Episode {
            key: EpisodeKey { suite: self.suite.to_owned(), task, trial: u32::try_from(trial).unwrap_or(0) },
            status: Status::Unknown,
            reward: reward.unwrap_or(0.0).clamp(0.0, 1.0),
            turns: turns.collect(),
            messages,
            detail: serde_json::json!({"from": self.name}),
            spent: Spent::default(),
            others_spent: Spent::default(),
            seconds: 0.0,
        });
    }
}

/// An episode that was exported from a log of ours, with all that the log said of it.
fn ours(whole: &Value) -> Option<Episode> {
    let rest = match &whole["rolegraft"] {
        Value::String(text) => serde_json::from_str(text).ok()?,
        _ => whole.pointer("/metadata/rolegraft")?.clone(),
    };
    let plain = |message: &Value| {
        let text = message["content"].as_str()?.to_owned();
        Some(Message::new(serde_json::from_value(message["role"].clone()).ok()?, text))
    };
    let messages: Option<Vec<Message>> = whole["messages"].as_array()?.iter().map(plain).collect();
    restored(&rest, &messages?)
}

/// A text, or the text parts of a content in parts.
fn content(value: &Value) -> Result<String, String> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => {
            let one = |part: &Value| match (part["type"].as_str(), part["text"].as_str(), part["reasoning"].as_str()) {
                (Some("text") | None, Some(text), _) => Ok(text.to_owned()),
                (Some("reasoning"), _, Some(thought)) => Ok(format!("<think>\n{thought}\n</think>\n\n")),
                (kind, ..) => Err(format!("a message has content of type `{}`, not text", kind.unwrap_or("?"))),
            };
            parts.iter().map(one).collect()
        }
        _ => Err("a message's content is no text".into()),
    }
}

/// A message as OpenAI's API and inspect write it.
fn message(value: &Value) -> Result<Message, String> {
    let role = match value["role"].as_str() {
        Some("system" | "developer") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("tool" | "function") => Role::Tool,
        Some(other) => return Err(format!("there is no role `{other}`")),
        None => return Err("a message has no `role`".into()),
    };
    let mut text = content(&value["content"])?;
    if let Some(thought) = value["reasoning_content"].as_str().filter(|t| !t.is_empty()) {
        text = format!("<think>\n{thought}\n</think>\n\n{text}");
    }
    for call in value["tool_calls"].as_array().into_iter().flatten() {
        // inspect: the name itself under `function`; tau2: under `name`.
        let name = call.pointer("/function/name").or(call.get("function")).or(call.get("name")).and_then(Value::as_str);
        let name = name.ok_or("a tool call has no name")?;
        let arguments = call.pointer("/function/arguments").or(call.get("arguments")).unwrap_or(&Value::Null);
        let arguments = arguments.as_str().map_or_else(|| spaced(arguments), str::to_owned);
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text += &format!("<tool_call>\n{{\"name\": {}, \"arguments\": {arguments}}}\n</tool_call>", Value::from(name));
    }
    Ok(Message::new(role, text))
}

/// JSON with blanks behind commas and colons, as templates write it.
fn spaced(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let pairs: Vec<String> =
                map.iter().map(|(k, v)| format!("{}: {}", Value::from(k.as_str()), spaced(v))).collect();
            format!("{{{}}}", pairs.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(spaced).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

/// A turn as ShareGPT writes it.
fn turn(value: &Value) -> Result<Message, String> {
    let role = match value["from"].as_str().or(value["role"].as_str()) {
        Some("system") => Role::System,
        Some("human" | "user") => Role::User,
        Some("gpt" | "assistant" | "model" | "function_call") => Role::Assistant,
        Some("tool" | "observation" | "function_response" | "function") => Role::Tool,
        Some(other) => return Err(format!("nobody is called `{other}`")),
        None => return Err("a turn has no `from`".into()),
    };
    let text = value["value"].as_str().or(value["content"].as_str()).ok_or("a turn's `value` is no text")?;
    // LLaMA-Factory: a call without its markup.
    let bare = value["from"] == "function_call" && !text.contains("<tool_call>");
    Ok(Message::new(role, if bare { format!("<tool_call>\n{text}\n</tool_call>") } else { text.to_owned() }))
}
