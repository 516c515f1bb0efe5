//! Results of tau2-bench (sierra-research/tau2-bench@a2c0247:src/tau2/data_model/simulation.py): one file of simulations.

use super::source::{Log, call, create, plain, turn_of};
use crate::error::{RunError, unwritten};
use rolegraft_trajectory::{Episode, Role, Status};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

pub(super) fn write(log: &Log<'_>, out: &Path) -> Result<(Vec<PathBuf>, usize), RunError> {
    let path = out.join(format!("{}_{}.json", plain(&log.model), plain(&log.suite)));
    let fail = unwritten(&path);
    let mut file = BufWriter::new(create(&path)?);
    let (mut tasks, mut count, mut policy) = (BTreeSet::new(), 0, Value::Null);
    write!(file, "{{\"timestamp\": {}, \"simulations\": [", json!(log.written)).map_err(fail)?;
    for episode in log.episodes()? {
        let episode = episode?;
        if let (Value::Null, Some(system)) = (&policy, episode.messages.first().filter(|m| m.role == Role::System)) {
            policy = json!(system.content);
        }
        let comma = if count > 0 { ",\n" } else { "\n" };
        write!(file, "{comma}{}", simulation(&episode, log)).map_err(fail)?;
        tasks.insert(episode.key.task);
        count += 1;
    }
    let tasks: Vec<Value> = tasks.into_iter().map(|id| json!({"id": id})).collect();
    let info = json!({
        "environment_info": {"domain_name": log.suite, "policy": policy}, "agent_info": {"implementation": "rolegraft", "llm": log.model},
    });
    write!(file, "\n], \"tasks\": {}, \"info\": {info}}}\n", Value::Array(tasks))
        .and_then(|()| file.flush())
        .map_err(fail)?;
    Ok((vec![path], count))
}

fn simulation(episode: &Episode, log: &Log<'_>) -> Value {
    let mut open = None;
    let messages = episode.messages.iter().enumerate().filter(|(at, said)| *at > 0 || said.role != Role::System).map(|(at, said)| {
        match (said.role, turn_of(episode, at).and_then(|turn| Some((format!("call_{turn}"), call(episode, turn)?)))) {
            (Role::Assistant, Some((id, (name, arguments)))) => {
                open = Some(id.clone());
                json!({"role": "assistant", "content": null,
                       "tool_calls": [{"id": id, "name": name, "arguments": arguments, "requestor": "assistant"}]})
            }
            (Role::Tool, _) => json!({"role": "tool", "id": open.take(), "content": said.content, "requestor": "assistant", "error": false}),
            (role, _) => json!({"role": role, "content": said.content}),
        }
    });
    let messages: Vec<Value> = messages.collect();
    let reason = match episode.status {
        Status::Completed => "agent_stop",
        Status::TaskLimitReached => "max_steps",
        _ => "too_many_errors",
    };
    json!({
        "id": format!("{}-{}", episode.key.task, episode.key.trial), "task_id": episode.key.task, "trial": episode.key.trial, "seed": null,
        "start_time": log.written, "end_time": log.written, "duration": episode.seconds, "termination_reason": reason,
        "agent_cost": null, "user_cost": null, "reward_info": {"reward": episode.reward}, "messages": messages,
    })
}
