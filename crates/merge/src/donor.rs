//! What a merge takes of one of its inputs besides weights: end-of-turn ids, special tokens, chat template, ways to sample.

use crate::chat_template;
use crate::model::Model;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

fn json(path: &Path) -> Value {
    let bytes = std::fs::read(path).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// The ids that end a model's turn: those of `generation_config.json` in its directory, else those of its config.
#[must_use]
pub fn end_of_turn(dir: &Path, config: &Value) -> BTreeSet<u64> {
    let ids = |value: &Value| -> BTreeSet<u64> {
        match value {
            Value::Array(ids) => ids.iter().filter_map(Value::as_u64).collect(),
            id => id.as_u64().into_iter().collect(),
        }
    };
    let own = ids(&json(&dir.join("generation_config.json"))["eos_token_id"]);
    if own.is_empty() { ids(&config["eos_token_id"]) } else { own }
}

/// How a model differs from the one whose files a merge gets, in words for a note.
pub(crate) fn difference(donor: &Model, other: &Model) -> Option<String> {
    let mut parts = Vec::new();
    let (ours, theirs) = (end_of_turn(&donor.dir, &donor.config), end_of_turn(&other.dir, &other.config));
    if ours != theirs {
        parts.push(format!("end-of-turn ids ({theirs:?}, not {ours:?})"));
    }
    let special = |model: &Model| {
        let config = json(&model.dir.join("tokenizer_config.json"));
        ["bos_token", "eos_token", "pad_token", "unk_token"].map(|token| {
            let value = &config[token];
            value["content"].as_str().or(value.as_str()).unwrap_or_default().to_owned()
        })
    };
    if special(donor) != special(other) {
        parts.push("special tokens".into());
    }
    if chat_template::of_model(donor) != chat_template::of_model(other) {
        parts.push("the chat template".into());
    }
    let sampling = |model: &Model| {
        let mut config = json(&model.dir.join("generation_config.json"));
        if let Value::Object(entries) = &mut config {
            // What ends turns is told above, and who wrote the file does not matter.
            entries.retain(|key, _| {
                !["eos_token_id", "transformers_version", "_from_model_config"].contains(&key.as_str())
            });
        }
        config
    };
    if sampling(donor) != sampling(other) {
        parts.push("generation_config.json".into());
    }
    let (name, from) = (&other.name, &donor.name);
    (!parts.is_empty()).then(|| {
        format!(
            "of `{name}` the merge does not get {}: `{from}` has others; `chat_template: {name}` takes its template and how its turns end, \
             `tokenizer_source: {name}` its tokens",
            parts.join(", ")
        )
    })
}
