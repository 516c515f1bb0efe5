//! A folder that `datasets.load_dataset` reads: JSON lines with OpenAI's `messages`, and a card that names them.

use super::source::{Log, create, plain, rest};
use crate::error::{RunError, unwritten};
use serde_json::json;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

pub(super) fn write(log: &Log<'_>, out: &Path) -> Result<(Vec<PathBuf>, usize), RunError> {
    let name = format!("{}_{}", plain(&log.model), plain(&log.suite));
    let path = out.join("data").join(format!("{name}.jsonl"));
    let fail = unwritten(&path);
    std::fs::create_dir_all(out.join("data")).map_err(fail)?;
    let mut file = BufWriter::new(create(&path)?);
    let mut count = 0;
    for episode in log.episodes()? {
        let episode = episode?;
        // What differs in form from episode to episode is a text: columns have one type.
        let line = json!({
            "suite": episode.key.suite, "task_id": episode.key.task, "trial": episode.key.trial, "model": log.model, "reward": episode.reward,
            "status": episode.status.as_str(), "messages": episode.messages, "rolegraft": rest(&episode).to_string(),
        });
        writeln!(file, "{line}").map_err(fail)?;
        count += 1;
    }
    file.flush().map_err(fail)?;
    let card = out.join("README.md");
    let mut files = vec![path.clone()];
    if !card.exists() {
        let text = "---\ntags:\n- rolegraft\n- agent\nconfigs:\n- config_name: default\n  data_files: data/*.jsonl\n---\n# Episodes of agents\n\nA line an episode: \
                    `messages`, `reward` (0 to 1), `status`, and in `rolegraft`, as JSON, what else the log says: turns, spans, violations, tokens.\n";
        create(&card)?.write_all(text.as_bytes()).map_err(fail)?;
        files.push(card);
    }
    Ok((files, count))
}
