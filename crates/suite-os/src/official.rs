//! The official tasks: a checkout of AgentBench v0.2 (`data/os_interaction`), or its normal form (`os/tasks.jsonl`).

use rolegraft_suite::Task;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::path::{Component, Path, PathBuf};

/// Folders of test tasks.
const FOLDERS: [u8; 7] = [1, 2, 3, 4, 5, 6, 7];
/// Upstream's comparers, by their script's file name.
const BUILTINS: [&str; 5] = ["containing", "in", "integer-match", "size-match", "string-match"];

/// Test tasks whose expected outcome cannot be had or does not hold still, with the reason.
pub const KNOWN_BAD: [(&str, &str); 3] = [
    ("std-004-Q09-00000", "its set-up writes to file descriptor 123321, which needs that many to be allowed"),
    ("std-005-new-00005", "size-match reads no `4.0K`, which `du -h` prints below ten units"),
    ("std-007-bootstrap-00008", "it counts files of the whole root, /proc included, between the answer and its check"),
];

/// Why official data cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum OfficialError {
    #[error(
        "`{}` holds no AgentBench OS tasks: --data must hold `data/os_interaction` of a checkout of AgentBench v0.2, or \
         `os/tasks.jsonl`",
        path.display()
    )]
    Missing { path: PathBuf },
    #[error("`{}`, task {task}: {reason}", path.display())]
    Format { path: PathBuf, task: usize, reason: String },
}

/// Where the tasks lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Official {
    /// The normal form.
    Lines(PathBuf),
    /// The folder `os_interaction` of a checkout.
    Checkout(PathBuf),
}

impl Official {
    /// Finds the tasks.
    ///
    /// # Errors
    /// If there are none.
    pub fn open(data: &Path) -> Result<Self, OfficialError> {
        let lines = ["agentbench/os", "os", ""].map(|folder| data.join(folder).join("tasks.jsonl"));
        if let Some(path) = lines.into_iter().find(|path| path.is_file()) {
            return Ok(Self::Lines(path));
        }
        let folders = ["data/os_interaction", "os_interaction", ""].map(|folder| data.join(folder));
        let found = folders.into_iter().find(|folder| folder.join("data/dev.json").is_file());
        found.map(Self::Checkout).ok_or_else(|| OfficialError::Missing { path: data.to_owned() })
    }

    /// The tasks of `test` or `dev` under upstream's names, and the digest of everything that shapes them.
    ///
    /// # Errors
    /// If a file is not what upstream's look like.
    pub fn tasks(&self, split: &str) -> Result<(Vec<Task>, String), OfficialError> {
        let tasks = match self {
            Self::Lines(path) => of_lines(path, split)?,
            Self::Checkout(root) => of_checkout(root, split)?,
        };
        let mut digest = Sha256::new();
        for task in &tasks {
            digest.update(format!("{}\n{}\n", task.id, task.fields));
        }
        Ok((tasks, format!("{:x}", digest.finalize())))
    }
}

fn read(path: &Path, task: usize) -> Result<String, OfficialError> {
    std::fs::read_to_string(path).map_err(|e| OfficialError::Format {
        path: path.to_owned(),
        task,
        reason: e.to_string(),
    })
}

fn of_lines(path: &Path, split: &str) -> Result<Vec<Task>, OfficialError> {
    let mut tasks = Vec::new();
    for (i, line) in read(path, 0)?.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |reason: String| OfficialError::Format { path: path.to_owned(), task: i, reason };
        let fields: Value = serde_json::from_str(line).map_err(|e| wrong(e.to_string()))?;
        let id = fields["index"].as_str().ok_or_else(|| wrong("no `index`".into()))?.to_owned();
        if fields["split"] == split {
            tasks.push(Task { id, fields });
        }
    }
    Ok(tasks)
}

fn of_checkout(root: &Path, split: &str) -> Result<Vec<Task>, OfficialError> {
    if split == "dev" {
        return of_file(&root.join("data/dev.json"), &root.join("scripts/dev"), "dev-001-");
    }
    let mut tasks = Vec::new();
    for folder in FOLDERS {
        let data = root.join(format!("data/{folder}"));
        let entries = std::fs::read_dir(&data).into_iter().flatten().flatten().map(|entry| entry.path());
        let is_tasks = |path: &PathBuf| path.extension().is_some_and(|e| e == "json" || e == "jsonl");
        let mut files: Vec<PathBuf> = entries.filter(is_tasks).collect();
        files.sort();
        for file in files {
            tasks.extend(of_file(&file, &root.join(format!("scripts/{folder}")), &format!("std-00{folder}-"))?);
        }
    }
    Ok(tasks)
}

/// A file of tasks: a list, a single one, or one a line.
fn of_file(path: &Path, scripts: &Path, prefix: &str) -> Result<Vec<Task>, OfficialError> {
    let wrong = |task: usize, reason: String| OfficialError::Format { path: path.to_owned(), task, reason };
    let text = read(path, 0)?;
    let items: Vec<Value> = match path.extension().is_some_and(|e| e == "jsonl") {
        true => {
            text.lines().map(serde_json::from_str).collect::<Result<_, _>>().map_err(|e| wrong(0, e.to_string()))?
        }
        false => match serde_json::from_str(&text).map_err(|e| wrong(0, e.to_string()))? {
            Value::Array(items) => items,
            item => vec![item],
        },
    };
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let one = |(i, item): (usize, &Value)| {
        let fields = normal(item, scripts).map_err(|reason| wrong(i, reason))?;
        Ok(Task { id: format!("{prefix}{stem}-{i:05}"), fields })
    };
    items.iter().enumerate().map(one).collect()
}

/// A task in the normal form, its scripts' files read.
fn normal(item: &Value, scripts: &Path) -> Result<Value, String> {
    let mut out = Map::new();
    let description = item["description"].as_str().ok_or("no `description`")?;
    out.insert("description".into(), description.into());
    // A list by mistake, in one of upstream's tasks, holds neither image nor scripts.
    let create = &item["create"];
    out.insert("local".into(), create["local"].clone());
    let init: Vec<Value> = listed(&create["init"]).map(|s| script(s, scripts)).collect::<Result<_, _>>()?;
    out.insert("init".into(), init.into_iter().filter(|s| !s.is_null()).collect());
    if let Some(start) = item.get("start") {
        out.insert("start".into(), script(start, scripts)?["code"].clone());
    }
    let evaluation = &item["evaluation"];
    if let Some(rule) = evaluation.get("match") {
        out.insert("match".into(), rule.clone());
    } else if let Some(check) = evaluation.get("check") {
        let checks: Vec<Value> = match check {
            Value::Array(items) => items.iter().map(|s| script(s, scripts)).collect::<Result<_, _>>()?,
            one => vec![script(one, scripts)?],
        };
        out.insert("check".into(), checks.into());
        if let Some(example) = evaluation.get("example") {
            out.insert("example".into(), script(example, scripts)?);
        }
    } else {
        return Err("neither `check` nor `match` in `evaluation`".into());
    }
    Ok(out.into())
}

fn listed(value: &Value) -> impl Iterator<Item = &Value> {
    match value {
        Value::Array(items) => items.iter(),
        Value::Null => [].iter(),
        one => std::slice::from_ref(one).iter(),
    }
}

/// A script with its text; upstream's comparers by name.
fn script(value: &Value, scripts: &Path) -> Result<Value, String> {
    if value.is_null() {
        return Ok(Value::Null);
    }
    if let Some(code) = value.as_str() {
        return Ok(json!({"language": "bash", "code": code}));
    }
    let language = value["language"].as_str().unwrap_or("bash");
    if let Some(file) = value["file"].as_str() {
        let path = Path::new(file);
        if path.components().any(|c| !matches!(c, Component::Normal(_) | Component::CurDir)) {
            return Err(format!("the script `{file}` lies outside the scripts' folder"));
        }
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        if language == "python" && path.starts_with("check") && BUILTINS.contains(&stem.as_ref()) {
            return Ok(json!({"builtin": stem}));
        }
        let code = std::fs::read_to_string(scripts.join(path)).map_err(|e| format!("the script `{file}`: {e}"))?;
        return Ok(json!({"language": language, "code": code}));
    }
    let code = value["code"].as_str().ok_or("a script has neither `file` nor `code`")?;
    Ok(json!({"language": language, "code": code}))
}
