//! inspect_ai's `.eval`, version 2, as 0.3.285 reads it (UKGovernmentBEIS/inspect_ai@0.3.285:src/inspect_ai/log/_recorders/eval.py): an archive of
//! `header.json`, `samples/ID_epoch_N.json` and `summaries.json`.

use super::source::{Log, call, create, plain, rest, turn_of};
use crate::error::{RunError, unwritten};
use rolegraft_trajectory::{Episode, Finish, Role};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::HashSet;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

pub(super) fn write(log: &Log<'_>, out: &Path) -> Result<(Vec<PathBuf>, usize), RunError> {
    let (task, id) = (plain(&log.suite), log.id("task"));
    let path = out.join(format!("{}_{task}-{}_{id}.eval", log.written.replace(':', "-"), plain(&log.model)));
    let fail = unwritten(&path);
    let mut archive = ZipWriter::new(BufWriter::new(create(&path)?));
    let mut member = |name: &str, value: &Value| {
        let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
        archive.start_file(name, options).map_err(|e| fail(e.into()))?;
        archive.write_all(value.to_string().as_bytes()).map_err(fail)
    };
    let (mut seen, mut names) = (HashSet::new(), HashSet::new());
    let (mut summaries, mut ids, mut rewards, mut epochs, mut spent) = (Vec::new(), Vec::new(), 0.0, 1, [0, 0]);
    for episode in log.episodes()? {
        let episode = episode?;
        let sample = sample(&episode, &log.model);
        let epoch = episode.key.trial + 1;
        let mut name = format!("samples/{}_epoch_{epoch}.json", sought(&episode.key.task));
        while !names.insert(name.clone()) {
            name.insert("samples/".len(), '_');
        }
        member(&name, &sample)?;
        summaries.push(json!({
            "id": sample["id"], "epoch": epoch, "input": sample["input"], "target": "", "scores": sample["scores"], "completed": true,
        }));
        if seen.insert(episode.key.task.clone()) {
            ids.push(sample["id"].clone());
        }
        rewards += episode.reward;
        epochs = epochs.max(epoch);
        spent = [spent[0] + episode.spent.prompt_tokens, spent[1] + episode.spent.completion_tokens];
    }
    let count = summaries.len();
    let mean = json!({"name": "mean", "value": rewards / count.max(1) as f64, "params": {}});
    let header = json!({
        "version": 2, "status": "success",
        "eval": {
            "created": log.written, "task": log.suite, "task_id": id, "eval_id": log.id("eval"), "run_id": log.id("run"),
            "dataset": {"name": log.suite, "samples": ids.len(), "sample_ids": ids}, "model": format!("rolegraft/{}", log.model),
            "config": {"epochs": epochs}, "packages": {"rolegraft": env!("CARGO_PKG_VERSION")},
        },
        "plan": {"name": "plan", "steps": []},
        "results": {
            "total_samples": count, "completed_samples": count,
            "scores": [{
                "name": "reward", "scorer": "reward", "scored_samples": count, "unscored_samples": 0, "params": {}, "metrics": {"mean": mean},
            }],
        },
        "stats": {
            "started_at": log.written, "completed_at": log.written,
            "model_usage": {format!("rolegraft/{}", log.model): usage(spent[0], spent[1])},
        },
    });
    member("summaries.json", &Value::Array(summaries))?;
    member("header.json", &header)?;
    archive.finish().map_err(|e| fail(e.into()))?.flush().map_err(fail)?;
    Ok((vec![path], count))
}

/// The name by which a task's sample is sought: its id, whatever it holds; but one that would leave the folder where the archive
/// is unpacked is made harmless.
fn sought(task: &str) -> Cow<'_, str> {
    let leaves = task.split(['/', '\\']).any(|part| part.is_empty() || part == "..") || task.contains('\0');
    if leaves { plain(task).into() } else { task.into() }
}

fn usage(read: u64, written: u64) -> Value {
    json!({"input_tokens": read, "output_tokens": written, "total_tokens": read + written})
}

fn sample(episode: &Episode, model: &str) -> Value {
    let model = format!("rolegraft/{model}");
    let mut open: Option<(String, String)> = None;
    let messages: Vec<Value> = episode
        .messages
        .iter()
        .enumerate()
        .map(|(at, said)| match said.role {
            Role::Assistant => {
                let mut message =
                    json!({"role": "assistant", "content": said.content, "source": "generate", "model": model});
                open = turn_of(episode, at).and_then(|turn| Some((format!("call_{turn}"), call(episode, turn)?))).map(
                    |(id, (name, arguments))| {
                        message["tool_calls"] =
                            json!([{"id": id, "function": name, "arguments": arguments, "type": "function"}]);
                        (id, name)
                    },
                );
                message
            }
            Role::Tool => match open.take() {
                Some((id, name)) => {
                    json!({"role": "tool", "content": said.content, "tool_call_id": id, "function": name})
                }
                None => json!({"role": "tool", "content": said.content}),
            },
            Role::System => json!({"role": "system", "content": said.content}),
            Role::User => json!({"role": "user", "content": said.content}),
        })
        .collect();
    let last = messages.iter().rfind(|message| message["role"] == "assistant");
    let completion = last.map_or(Value::from(""), |message| message["content"].clone());
    let stop = match episode.turns.last().map(|turn| turn.finish) {
        Some(Finish::Length) => "max_tokens",
        Some(Finish::ContextLimit) => "model_length",
        Some(Finish::Filtered) => "content_filter",
        Some(Finish::Unreadable) => "unknown",
        Some(Finish::Stop) | None => "stop",
    };
    let choices: Vec<Value> = last.iter().map(|message| json!({"message": message, "stop_reason": stop})).collect();
    let input = episode.messages.iter().find(|said| said.role == Role::User).map_or("", |said| &said.content);
    let spans: Vec<Value> = episode
        .turns
        .iter()
        .map(|turn| {
            json!({"message": turn.message, "spans": turn.spans, "violations": turn.violations, "succeeded": turn.succeeded})
        })
        .collect();
    json!({
        "id": episode.key.task, "epoch": episode.key.trial + 1, "input": input, "target": "", "messages": messages,
        "output": {"model": model, "choices": choices, "completion": completion},
        "scores": {"reward": {
            "value": episode.reward, "answer": completion, "explanation": episode.status.as_str(), "metadata": {"detail": episode.detail},
        }},
        "metadata": {"suite": episode.key.suite, "status": episode.status, "spans": spans, "rolegraft": rest(episode)},
        "total_time": episode.seconds,
        "model_usage": {model: usage(episode.spent.prompt_tokens, episode.spent.completion_tokens)},
        "store": {}, "events": [], "attachments": {},
    })
}
