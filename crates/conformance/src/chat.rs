//! Conversations as transformers renders them, and texts as tokens.

use crate::{Report, UnreadableError};
use rolegraft_spans::python_json;
use rolegraft_suites::recordings::{Replayed, cases, read, same, text};
use rolegraft_trajectory::{ArgumentError, ChatArguments, ChatTemplate, Message, Vocabulary};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What the conversations are kept in, beside recorded templates.
const CONVERSATIONS: &str = "conversations.json";
/// The day on which templates that write one were rendered, where a recording does not say.
const DAY: &str = "2026-11-28";

/// Replays recorded renderings (`templates.jsonl`, with `conversations.json` beside it: a template a line with its
/// special tokens, and cases) and recorded tokens (`NAME-tokens.jsonl`, with `NAME-tokenizer.json` beside it: a text, its
/// ids, the bytes each covers, what they decode to). Files may be gzip-compressed.
///
/// # Errors
/// If there are no recordings, or what stands beside them is missing.
pub fn chat(traces: &Path) -> Result<Report, UnreadableError> {
    let folder = if traces.is_dir() { traces } else { traces.parent().unwrap_or(Path::new("")) };
    let mut report = Report::default();
    for path in rolegraft_suites::recordings::jsonl_files(traces)? {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let stem = name.split('.').next().unwrap_or_default();
        if let Some(tokenizer) = stem.strip_suffix("-tokens") {
            let vocabulary = beside(folder, &format!("{tokenizer}-tokenizer.json"))?;
            let vocabulary =
                Vocabulary::parse(&vocabulary, &read(&vocabulary)?).map_err(|e| UnreadableError::Data(Box::new(e)))?;
            let replayed = cases(&path, |_, _, case| Some(Replayed::Compared(tokens(&vocabulary, case))))?;
            report.verdicts.extend(replayed.verdicts);
        } else {
            templates(&path, &name, &conversations(folder)?, &mut report)?;
        }
    }
    Ok(report)
}

/// A file of the recordings' folder, gzip-compressed or not.
fn beside(folder: &Path, name: &str) -> Result<PathBuf, UnreadableError> {
    let path = folder.join(name);
    let packed = folder.join(format!("{name}.gz"));
    if packed.exists() && !path.exists() { Ok(packed) } else { Ok(path) }
}

fn conversations(folder: &Path) -> Result<BTreeMap<String, Vec<Message>>, UnreadableError> {
    let path = beside(folder, CONVERSATIONS)?;
    serde_json::from_str(&read(&path)?).map_err(|e| UnreadableError::Format { path, reason: e.to_string() })
}

/// Every case of every template is one of the report's.
fn templates(
    path: &Path,
    name: &str,
    conversations: &BTreeMap<String, Vec<Message>>,
    report: &mut Report,
) -> Result<(), UnreadableError> {
    let wrong = |line: usize, reason: String| UnreadableError::Format {
        path: path.to_owned(),
        reason: format!("line {}: {reason}", line + 1),
    };
    for (i, line) in read(path)?.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let recorded = python_json::loads(line).map_err(|e| wrong(i, e.to_string()))?;
        let template = text(&recorded, "template");
        let special = recorded["special"].as_object().into_iter().flatten();
        let special = special.filter_map(|(name, token)| Some((name.clone(), token.as_str()?.to_owned()))).collect();
        let source = recorded["source"].as_str().ok_or_else(|| wrong(i, "it has no `source`".into()))?;
        let compiled = ChatTemplate::new(Path::new(template), source, special).map_err(|e| e.to_string());
        for case in recorded["cases"].as_array().into_iter().flatten() {
            let (conversation, generate) = (text(case, "conversation"), case["generate"] == true);
            let messages =
                conversations.get(conversation).ok_or_else(|| wrong(i, format!("no conversation `{conversation}`")))?;
            let given = [&recorded["arguments"], &case["arguments"]].into_iter().filter_map(Value::as_object).flatten();
            let arguments = arguments(given).map_err(|e| wrong(i, e.to_string()))?;
            let rendered = match &compiled {
                Ok(template) => template.render(messages, generate, &arguments).map_err(|e| e.to_string()),
                Err(reason) => Err(reason.clone()),
            };
            let outcome = match (case["text"].as_str(), rendered) {
                (Some(expected), Ok(rendered)) => same_text(expected, &rendered),
                (Some(_), Err(reason)) => Err(reason),
                (None, Err(_)) => Ok(()),
                (None, Ok(rendered)) => Err(format!("expected a refusal, got {:?}", start(&rendered, 0))),
            };
            report.add(format!("{name}:{} {template}, {conversation}, generate {generate}", i + 1), outcome);
        }
    }
    Ok(())
}

fn arguments<'c>(given: impl Iterator<Item = (&'c String, &'c Value)>) -> Result<ChatArguments, ArgumentError> {
    let mut arguments = ChatArguments::default();
    arguments.set("date", DAY)?;
    for (key, value) in given {
        arguments.set(key, value.clone())?;
    }
    Ok(arguments)
}

/// Longest stretch of a text that a difference shows, in characters.
const SHOWN: usize = 60;

fn start(text: &str, at: usize) -> String {
    text.chars().skip(at).take(SHOWN).collect()
}

fn same_text(expected: &str, got: &str) -> Result<(), String> {
    if expected == got {
        return Ok(());
    }
    let at = expected.chars().zip(got.chars()).take_while(|(a, b)| a == b).count();
    Err(format!("at character {at}: expected {:?}, got {:?}", start(expected, at), start(got, at)))
}

fn tokens(vocabulary: &Vocabulary, case: &Value) -> Result<(), String> {
    let (ids, ranges) = vocabulary.tokens(text(case, "text")).map_err(|e| e.to_string())?;
    same("ids", &case["ids"], &json!(ids))?;
    same(
        "ids without ranges",
        &case["ids"],
        &json!(vocabulary.encode(text(case, "text")).map_err(|e| e.to_string())?),
    )?;
    same("bytes", &case["bytes"], &ranges.iter().map(|r| json!([r.start, r.end])).collect())?;
    same("decoded", &case["decoded"], &json!(vocabulary.decode(&ids)))
}
