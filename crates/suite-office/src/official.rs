//! The official data: tasks with their files, as upstream's folders hold them.

use crate::apps::{apps, prompt};
use crate::convert::Program;
use crate::desk::names;
use rolegraft_suite::Task;
use rolegraft_trajectory::Message;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// The first line of upstream's system message.
const SYSTEM: &str = "You're a helpful assistant. ";

/// Tasks by how many apps they need: the first character of a task's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Apps {
    /// 93 tasks of zlwang-cs/OfficeBench: calibration.
    One,
    /// 51 tasks.
    Two,
    /// 55 tasks.
    Three,
}

impl Apps {
    /// The sets that are scored.
    pub const SCORED: [Self; 2] = [Self::Two, Self::Three];

    /// The suite that plays them.
    #[must_use]
    pub fn suite(self) -> &'static str {
        match self {
            Self::One => "officebench-1-app",
            Self::Two => "officebench-2-apps",
            Self::Three => "officebench-3-apps",
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::One => "1-",
            Self::Two => "2-",
            Self::Three => "3-",
        }
    }

    /// The folders that may hold them.
    fn folders(self) -> &'static [&'static str] {
        if self == Self::One { &["tasks-1app", "tasks"] } else { &["tasks"] }
    }
}

/// Why official data cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum OfficialError {
    #[error(
        "`{}` holds no OfficeBench tasks: --data must hold `tasks/{prefix}N/subtasks/M.json` with `testbed` beside \
         `subtasks`, as in microsoft/Simia-Agent-Training's `OfficeBench` (1-app tasks as in zlwang-cs/OfficeBench)",
        path.display()
    )]
    Missing { path: PathBuf, prefix: &'static str },
    #[error("`{}`: {reason}", path.display())]
    Format { path: PathBuf, reason: String },
}

/// Where the official tasks of a set lie.
#[derive(Debug, Clone)]
pub struct Official {
    set: Apps,
    /// The folder of the tasks' folders.
    pub(crate) root: PathBuf,
}

impl Official {
    /// Finds a set's tasks in `data`, `data/officebench` or `data/OfficeBench`.
    ///
    /// # Errors
    /// If there are none.
    pub fn open(data: &Path, set: Apps) -> Result<Self, OfficialError> {
        let inside = ["officebench", "OfficeBench", ""].map(|folder| data.join(folder));
        let mut roots = inside.iter().flat_map(|base| set.folders().iter().map(|folder| base.join(folder)));
        let holds = |root: &PathBuf| subfolders(root).iter().any(|name| name.starts_with(set.prefix()));
        let root = roots.find(holds);
        Ok(Self { set, root: root.ok_or(OfficialError::Missing { path: data.to_owned(), prefix: set.prefix() })? })
    }

    /// Which set.
    #[must_use]
    pub fn set(&self) -> Apps {
        self.set
    }

    /// The tasks by number, and the digest of everything that shapes them: their rules and their files.
    ///
    /// # Errors
    /// If a task's file is not what upstream's look like.
    pub fn tasks(&self) -> Result<(Vec<Task>, String), OfficialError> {
        let mut found: Vec<(u32, u32, String, String)> = Vec::new();
        for folder in subfolders(&self.root).into_iter().filter(|name| name.starts_with(self.set.prefix())) {
            for file in files(&self.root.join(&folder).join("subtasks")) {
                let (Some(number), Some(subtask)) = (folder[2..].parse().ok(), file.strip_suffix(".json")) else {
                    continue;
                };
                if let Ok(order) = subtask.parse() {
                    found.push((number, order, folder.clone(), subtask.to_owned()));
                }
            }
        }
        found.sort();
        let mut digest = Sha256::new();
        let mut tasks = Vec::new();
        let mut last = None;
        for (_, _, folder, subtask) in found {
            let path = self.root.join(&folder).join("subtasks").join(format!("{subtask}.json"));
            let wrong = |reason: String| OfficialError::Format { path: path.clone(), reason };
            let text = std::fs::read_to_string(&path).map_err(|e| wrong(e.to_string()))?;
            let mut fields: Value = serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
            for field in ["username", "date", "weekday", "time", "task"] {
                fields[field].as_str().ok_or_else(|| wrong(format!("no `{field}`")))?;
            }
            fields["evaluation"].as_array().ok_or_else(|| wrong("no `evaluation`".into()))?;
            fields["folder"] = folder.as_str().into();
            if last.as_ref() != Some(&folder) {
                for inside in ["testbed", "reference"] {
                    let from = self.root.join(&folder).join(inside);
                    digest_folder(&from, &mut digest)
                        .map_err(|e| OfficialError::Format { path: from, reason: e.to_string() })?;
                }
            }
            for part in [&folder, &subtask, &text] {
                digest.update(part.len().to_le_bytes());
                digest.update(part);
            }
            tasks.push(Task { id: format!("{folder}-{subtask}"), fields });
            last = Some(folder);
        }
        Ok((tasks, format!("{:x}", digest.finalize())))
    }

    /// Programs that a task cannot be solved or checked without.
    #[must_use]
    pub fn needs(&self, task: &Task) -> Vec<Program> {
        let mut needed = checked_with(&task.fields["evaluation"]);
        let folder = task.fields["folder"].as_str().unwrap_or_default();
        if files(&self.root.join(folder).join("testbed/data")).iter().any(|name| name.ends_with(".pdf")) {
            needed.push(Program::PdfToText);
        }
        needed.sort();
        needed.dedup();
        needed
    }
}

/// Programs that checks cannot do without: a PDF or an image that they ask for comes from a conversion.
fn checked_with(checks: &Value) -> Vec<Program> {
    let mut needed = Vec::new();
    for check in checks.as_array().into_iter().flatten() {
        if check["function"] == "evaluate_file_not_exist" || check["function"] == "evaluate_not_contain" {
            continue;
        }
        for file in ["file", "result_file", "output_file"].iter().filter_map(|field| check["args"][field].as_str()) {
            let file = file.to_lowercase();
            if file.ends_with(".pdf") {
                needed.push(Program::LibreOffice);
                needed.extend((check["args"]["doc_type"] == "pdf").then_some(Program::PdfToText));
            } else if [".jpg", ".jpeg", ".png"].iter().any(|ending| file.ends_with(ending)) {
                needed.extend([Program::LibreOffice, Program::PdfToPpm]);
            }
        }
    }
    needed
}

/// The messages before the first reply.
pub(crate) fn opening(task: &Value, folder: &str) -> Vec<Message> {
    let field = |name: &str| task[name].as_str().unwrap_or_default();
    let intros: String = apps().iter().map(|app| format!(" - {}\n", app.intro)).collect();
    let system = prompt(
        "system_message",
        &[
            ("username", field("username")),
            ("date", field("date")),
            ("weekday", field("weekday")),
            ("time", field("time")),
            ("testbed_data_path", &format!("{folder}/testbed/data")),
            ("app_introduction", &intros),
        ],
    );
    let first = prompt("prompt_undecided_app", &[("task", field("task")), ("available_apps", &names(|_| true))]);
    vec![Message::system(SYSTEM), Message::user(format!("{}\n\n{first}", system.trim()))]
}

/// How the model sees a task's folder.
pub(crate) fn shown(folder: &str) -> String {
    format!("./local_workdir/tasks/{folder}")
}

fn entries(folder: &Path, directories: bool) -> Vec<String> {
    let found = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let kept = found.filter(|e| e.file_type().is_ok_and(|t| if directories { t.is_dir() } else { t.is_file() }));
    let mut names: Vec<String> = kept.filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    names
}

fn subfolders(folder: &Path) -> Vec<String> {
    entries(folder, true)
}

fn files(folder: &Path) -> Vec<String> {
    entries(folder, false)
}

fn digest_folder(folder: &Path, digest: &mut Sha256) -> std::io::Result<()> {
    for name in files(folder) {
        let bytes = std::fs::read(folder.join(&name))?;
        digest.update(name.len().to_le_bytes());
        digest.update(&name);
        digest.update(bytes.len().to_le_bytes());
        digest.update(&bytes);
    }
    for name in subfolders(folder) {
        digest.update([0xff]);
        digest.update(&name);
        digest_folder(&folder.join(name), digest)?;
    }
    Ok(())
}
