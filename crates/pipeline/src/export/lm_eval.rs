//! Samples and results of lm-evaluation-harness (EleutherAI/lm-evaluation-harness@4e7e0d4:lm_eval/loggers/evaluation_tracker.py).

use super::source::{Log, create, plain};
use crate::error::{RunError, unwritten};
use rolegraft_checkpoint::Digest;
use rolegraft_trajectory::Episode;
use serde_json::{Value, json};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

pub(super) fn write(log: &Log<'_>, out: &Path) -> Result<(Vec<PathBuf>, usize), RunError> {
    let (date, folder) = (log.written.replace(':', "-").replace("+00-00", ""), out.join(plain(&log.model)));
    let (samples, results) = (
        folder.join(format!("samples_{}_{date}.jsonl", plain(&log.suite))),
        folder.join(format!("results_{date}.json")),
    );
    let fail = unwritten(&samples);
    std::fs::create_dir_all(&folder).map_err(fail)?;
    let mut file = BufWriter::new(create(&samples)?);
    let (mut count, mut sum) = (0, 0.0);
    for episode in log.episodes()? {
        let episode = episode?;
        writeln!(file, "{}", sample(count, &episode)).map_err(fail)?;
        sum += episode.reward;
        count += 1;
    }
    file.flush().map_err(fail)?;
    let mean = sum / count.max(1) as f64;
    let whole = json!({
        "results": {log.suite.as_str(): {"alias": log.suite, "reward,none": mean, "sample_len": count}},
        "configs": {log.suite.as_str(): {"task": log.suite, "output_type": "generate_until", "metric_list": [{"metric": "reward", "higher_is_better": true}]}},
        "versions": {log.suite.as_str(): env!("CARGO_PKG_VERSION")},
        "n-samples": {log.suite.as_str(): {"original": count, "effective": count}},
        "config": {"model": "rolegraft", "model_args": log.model}, "model_name": log.model, "date": log.written,
    });
    writeln!(create(&results)?, "{whole}").map_err(fail)?;
    Ok((vec![samples, results], count))
}

fn sample(number: usize, episode: &Episode) -> Value {
    let last = episode.turns.last().map_or(episode.messages.len(), |turn| turn.message);
    let reply = episode.replies().last().unwrap_or_default();
    let prompt = json!(&episode.messages[..last.min(episode.messages.len())]).to_string();
    let doc = json!({"suite": episode.key.suite, "task": episode.key.task, "trial": episode.key.trial});
    let hash = |text: &str| Digest::of(text.as_bytes()).to_string();
    json!({
        "doc_id": number, "doc_hash": hash(&doc.to_string()), "prompt_hash": hash(&prompt), "target_hash": hash(""), "doc": doc, "target": "",
        "arguments": {"gen_args_0": {"arg_0": prompt, "arg_1": {}}}, "resps": [[reply]], "filtered_resps": [reply], "filter": "none",
        "metrics": ["reward"], "reward": episode.reward,
    })
}
