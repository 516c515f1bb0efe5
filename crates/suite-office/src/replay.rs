//! OfficeBench: recorded steps of the paper's variant (microsoft/Simia-Agent-Training@ea77d9d:OfficeBench), by file name.
//!
//! | file | a case |
//! |---|---|
//! | `args.jsonl` | one action: the words and typed values that reach its tool |
//! | `malformed.jsonl` | one reply on a fresh task 2-13/0: observation, app, whether it ends, `answer.txt` |
//! | `readers.jsonl` | one input file: what a tool shows of it |
//! | `evalfn.jsonl` | one check on `fixtures/evalfn` |
//! | `episodes.jsonl`, `episodes-1app.jsonl` | one episode: every observation, the files it leaves, its checks |
//! | `untouched.jsonl` | one task's checks on its untouched files |
//! | `golden.jsonl` | tools called directly, then the task's checks |
//! | `original-parse.jsonl` | one reply to zlwang-cs/OfficeBench@4434746: what is read and run |
//!
//! Other recordings are named as not replayed.

use crate::{Mode, Program, recorded};
use rolegraft_spans::Format;
use rolegraft_suite::recordings::{Replayed, Report, UnreadableError, cases, same, text};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// The app that is open before each reply of `original-parse.jsonl`.
const ORIGINAL_APP: &str = "calendar";
/// A folder of tasks, and where it lies in the data.
const FOLDERS: [&str; 2] = ["tasks", "tasks-1app"];

/// Replays recorded steps on the data in `data`, a folder that holds `tasks`, `tasks-1app` and `fixtures`, or such a
/// folder's parent.
///
/// # Errors
/// If the recordings or the data cannot be read.
pub(crate) fn replay(traces: &Path, data: &Path) -> Result<Report, UnreadableError> {
    let nested = data.join("officebench");
    let data = if nested.is_dir() { nested } else { data.to_owned() };
    cases(traces, |kind, _, case| {
        let replay = replay_of(kind)?;
        Some(match lacks(case) {
            Some(program) => Replayed::Lacking(format!("`{}` is not installed", program.command())),
            None => Replayed::Compared(replay(&data, case)),
        })
    })
}

/// A program that a case cannot be replayed without and that is not installed.
fn lacks(case: &Value) -> Option<Program> {
    let replies = case["steps"].as_array().into_iter().flatten().filter_map(|step| step["reply"].as_str());
    let mut texts: Vec<String> = replies.map(str::to_owned).collect();
    texts.extend(["file", "args", "actions"].map(|field| case[field].to_string()));
    let told = |words: &[&str]| texts.iter().any(|text| words.iter().all(|word| text.contains(word)));
    let needed = [
        (Program::LibreOffice, told(&["convert_to_pdf"])),
        (Program::PdfToPpm, told(&["convert_to_image"])),
        (Program::PdfToText, told(&["\"pdf\"", "read_file"]) || told(&[".pdf"])),
    ];
    needed.into_iter().find(|(program, needed)| *needed && !program.installed()).map(|(program, _)| program)
}

type Replay = fn(&Path, &Value) -> Result<(), String>;

fn replay_of(kind: &str) -> Option<Replay> {
    Some(match kind {
        "args" => arguments,
        "malformed" => malformed,
        "readers" => readers,
        "evalfn" => checks,
        "untouched" => untouched,
        "episodes" | "episodes-1app" => episode,
        "golden" => direct,
        "original-parse" => original,
        _ => return None,
    })
}

fn arguments(_: &Path, case: &Value) -> Result<(), String> {
    let action = case["action"].as_object().ok_or("no `action`")?;
    let got = recorded::arguments(action, "./local_workdir/tasks/2-13").map_err(|e| e.to_string())?;
    same("reached", &case["reached"], &got["reached"])?;
    if case["reached"] != true {
        // A shell's own words are not part of what is compared here.
        let by_shell = case["action"]["app"] == "shell" && case["no_command"].is_null();
        return if by_shell || case["observation"].is_null() {
            Ok(())
        } else {
            same("observation", &case["observation"], &got["observation"])
        };
    }
    for what in ["argv", "call", "rejected"] {
        same(what, &case[what], &got[what])?;
    }
    Ok(())
}

/// A task's file, and the folder of its files.
fn task(data: &Path, name: &str, subtask: &str) -> Result<(Value, PathBuf), String> {
    let folder = FOLDERS.iter().map(|f| data.join(f).join(name)).find(|p| p.is_dir());
    let folder = folder.ok_or_else(|| format!("the data has no task {name}"))?;
    let path = folder.join("subtasks").join(format!("{subtask}.json"));
    let text = std::fs::read_to_string(&path).map_err(|e| format!("`{}`: {e}", path.display()))?;
    Ok((serde_json::from_str(&text).map_err(|e| format!("`{}`: {e}", path.display()))?, folder))
}

fn malformed(data: &Path, case: &Value) -> Result<(), String> {
    let (task, folder) = task(data, "2-13", "0")?;
    let text = |v: &Value, field: &str| v[field].as_str().unwrap_or_default().to_owned();
    let got = recorded::reply(
        &folder.join("testbed"),
        "./local_workdir/tasks/2-13",
        &text(&task, "task"),
        case["app_before"].as_str(),
        &text(case, "reply"),
    );
    let got = got.map_err(|e| e.to_string())?;
    for what in ["observation", "app_after", "done", "answer_txt"] {
        if case.get(what).is_some() {
            same(what, &case[what], &got[what])?;
        }
    }
    Ok(())
}

fn readers(data: &Path, case: &Value) -> Result<(), String> {
    let text = |field: &str| case[field].as_str().unwrap_or_default();
    let path = Path::new(text("file"));
    // `tasks/T/testbed/…`: tools see the testbed.
    let parts: Vec<_> = path.iter().collect();
    let at = parts.iter().position(|p| *p == "testbed").map_or(0, |i| i + 1);
    let (folder, inside): (PathBuf, PathBuf) = (parts[..at].iter().collect(), parts[at..].iter().collect());
    let reader = match text("reader") {
        "eml" => ("eml", inside.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()),
        other => (other, inside.to_string_lossy().into_owned()),
    };
    let got = recorded::text(&data.join(folder), reader.0, &reader.1, text("user"))?;
    let (expected, got) = if text("reader") == "emails" {
        (blocks(text("text")), blocks(&got))
    } else {
        (text("text").trim().to_owned(), got.trim().to_owned())
    };
    let (expected, got) =
        if text("reader") == "xlsx" { (text("text").to_owned(), got + "\n") } else { (expected, got) };
    if expected.trim_end() == got.trim_end() { Ok(()) } else { Err(differing(&expected, &got)) }
}

/// A listing's messages, sorted: upstream lists them in the directory's order.
fn blocks(text: &str) -> String {
    let mut blocks: Vec<&str> = text.split("Email ID: ").map(str::trim).collect();
    blocks.sort_unstable();
    blocks.join("\n")
}

/// Two texts from shortly before they part.
fn differing(expected: &str, got: &str) -> String {
    let same = expected.chars().zip(got.chars()).take_while(|(a, b)| a == b).count();
    let cut = |text: &str| text.chars().skip(same.saturating_sub(20)).take(120).collect::<String>();
    format!("from character {same}: expected {:?}, got {:?}", cut(expected), cut(got))
}

/// Compares a verdict: true, false, or that the check raises.
fn verdict(expected: &Value, got: &Result<bool, String>) -> Result<(), String> {
    let fine = match (expected, got) {
        (Value::Bool(expected), Ok(got)) => expected == got,
        (Value::String(error), Err(_)) => error.starts_with("error"),
        _ => false,
    };
    if fine { Ok(()) } else { Err(format!("expected {expected}, got {got:?}")) }
}

fn checks(data: &Path, case: &Value) -> Result<(), String> {
    let folder = data.join("fixtures/evalfn");
    let (cache, reference) = (folder.join("cache/testbed"), folder.join("reference"));
    let function = case["function"].as_str().unwrap_or_default();
    let got = recorded::check(
        &folder.join("testbed"),
        cache.is_dir().then_some(cache.as_path()),
        reference.is_dir().then_some(reference.as_path()),
        function,
        &case["args"],
        Mode::Official,
    );
    verdict(&case["local"], &got).map_err(|e| format!("{function} {}: {e}", case["args"]))
}

fn untouched(data: &Path, case: &Value) -> Result<(), String> {
    let text = |field: &str| case[field].as_str().unwrap_or_default();
    let (task, folder) = task(data, text("task"), text("subtask"))?;
    let (testbed, reference) = (folder.join("testbed"), folder.join("reference"));
    let reference = reference.is_dir().then_some(reference.as_path());
    let checks = task["evaluation"].as_array().ok_or("no `evaluation`")?;
    let expected = case["checks"].as_array().ok_or("no `checks`")?;
    let empty = Map::new();
    let mut all = true;
    for (check, expected) in checks.iter().zip(expected) {
        let check = check.as_object().unwrap_or(&empty);
        let function = check.get("function").and_then(Value::as_str).unwrap_or_default();
        let args = check.get("args").unwrap_or(&Value::Null);
        let got = recorded::check(&testbed, Some(&testbed), reference, function, args, Mode::Official);
        all &= got == Ok(true);
        verdict(expected, &got).map_err(|e| format!("{} {} {function} {args}: {e}", text("task"), text("subtask")))?;
    }
    same("success", &case["success"], &all.into())
}

/// Tools called directly, on files under `/testbed`.
fn direct(data: &Path, case: &Value) -> Result<(), String> {
    let text = |field: &str| case[field].as_str().unwrap_or_default();
    let (task, source) = task(data, text("task"), text("subtask"))?;
    let mut session = recorded::Session::new(&source, "", "", true, Mode::Official).map_err(|e| e.to_string())?;
    let pairs = |field: &str| case[field].as_array().into_iter().flatten();
    for (i, (action, expected)) in pairs("actions").zip(pairs("observations")).enumerate() {
        let got = session.call(action.as_object().ok_or("an action is no object")?)?;
        let expected = expected.as_str().unwrap_or_default();
        let (wanted, found) = match action["action"].as_str() {
            Some("list_emails") => (blocks(expected), blocks(&got)),
            _ => (expected.trim().to_owned(), got.trim().to_owned()),
        };
        if wanted != found {
            return Err(format!("action {i}, {action}: {}", differing(&wanted, &found)));
        }
    }
    let left = session.folder().ok_or("the episode has no files")?;
    let mut all = true;
    for (check, expected) in task["evaluation"].as_array().into_iter().flatten().zip(pairs("checks")) {
        let function = check["function"].as_str().unwrap_or_default();
        let reference = Some(source.join("reference")).filter(|r| r.is_dir());
        let before = source.join("testbed");
        let got = recorded::check(left, Some(&before), reference.as_deref(), function, &check["args"], Mode::Official);
        verdict(expected, &got).map_err(|e| format!("{function} {}: {e}", check["args"]))?;
        all &= got == Ok(true);
    }
    same("success", &case["success"], &all.into())
}

/// The original's way from a reply to an action; what its commands print is the recording's own.
fn original(_: &Path, case: &Value) -> Result<(), String> {
    let got = recorded::original(case["reply"].as_str().unwrap_or_default(), ORIGINAL_APP);
    for field in ["action", "app_after", "done", "argv", "answer_txt"] {
        same(field, &case[field], &got[field])?;
    }
    if case["argv"].is_null() {
        same("observation", &case["observation"], &got["observation"])?;
    }
    same("history", &case["history"][0][0], &got["history"])
}

/// Words alone: converters lay text out each in their own way.
fn words(text: &str) -> String {
    text.split_whitespace().collect()
}

fn episode(data: &Path, case: &Value) -> Result<(), String> {
    let text = |field: &str| case[field].as_str().unwrap_or_default();
    let (name, subtask) = (text("task"), text("subtask"));
    let (task, source) = task(data, name, subtask)?;
    let folder = format!("./local_workdir/tasks/{name}");
    let said = task["task"].as_str().unwrap_or_default();
    let prepared = text("kind") == "mkdir_first";
    let mut session =
        recorded::Session::new(&source, &folder, said, prepared, Mode::Official).map_err(|e| e.to_string())?;
    let at = |step: usize| format!("{name}/{subtask} ({}), step {step}", text("kind"));
    let mut messages = session.opening(&task);
    for (i, step) in case["steps"].as_array().ok_or("no `steps`")?.iter().enumerate() {
        let (observed, over) = session.step(step["reply"].as_str().unwrap_or_default());
        let (expected, got) = (step["observation"].as_str().unwrap_or_default(), observed.unwrap_or_default());
        messages.push(json!({"role": "assistant", "content": step["reply"]}));
        // What counts as the same need not be the same letters: the recording's own go into its prompt.
        messages.push(json!({"role": "user", "content": expected}));
        let fine = match step["compare"].as_str() {
            Some("blocks") => blocks(expected) == blocks(&got),
            Some("words") => words(expected) == words(&got),
            Some("prefix") => expected.split(':').next() == got.split(':').next(),
            Some("skip") => true,
            _ => expected == got,
        };
        if !fine {
            return Err(format!("{}: {}", at(i), differing(expected, &got)));
        }
        same(&format!("{}: the open app", at(i)), &step["app"], &session.app().map_or(Value::Null, Into::into))?;
        same(&format!("{}: whether it ends", at(i)), &step["done"], &over.into())?;
    }
    // The last prompt: everything before the last reply.
    messages.truncate(messages.len().saturating_sub(2));
    if let Some(expected) = case.get("messages") {
        same(&format!("{name}/{subtask}: the last prompt"), expected, &json!(messages))?;
    }
    let left = session.folder().ok_or("the episode has no files")?;
    for (path, expected) in case["changed"].as_object().into_iter().flatten() {
        left_file(left, path, expected).map_err(|e| format!("{name}/{subtask} ({}), {path}: {e}", text("kind")))?;
    }
    for path in case["deleted"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if left.join(path).exists() {
            return Err(format!("{name}/{subtask}: {path} is still there"));
        }
    }
    let reference = source.join("reference");
    let reference = reference.is_dir().then_some(reference.as_path());
    let before = source.join("testbed");
    let checks = task["evaluation"].as_array().ok_or("no `evaluation`")?;
    for (check, expected) in checks.iter().zip(case["checks"].as_array().into_iter().flatten()) {
        let function = check["function"].as_str().unwrap_or_default();
        let got = recorded::check(left, Some(&before), reference, function, &check["args"], Mode::Official);
        verdict(expected, &got)
            .map_err(|e| format!("{name}/{subtask} ({}), {function} {}: {e}", text("kind"), check["args"]))?;
    }
    Ok(())
}

/// What becomes of a recorded episode's replies in a mode: whether the task is solved.
///
/// # Errors
/// If the data has no such task, or the recording is not one of an episode.
pub fn recorded_verdict(data: &Path, case: &Value, mode: Mode) -> Result<bool, String> {
    let text = |field: &str| case[field].as_str().unwrap_or_default();
    let (task, source) = task(data, text("task"), text("subtask"))?;
    let folder = format!("./local_workdir/tasks/{}", text("task"));
    let prepared = text("kind") == "mkdir_first";
    let mut session = recorded::Session::new(&source, &folder, "", prepared, mode).map_err(|e| e.to_string())?;
    for step in case["steps"].as_array().ok_or("no `steps`")? {
        if session.step(step["reply"].as_str().unwrap_or_default()).1 {
            break;
        }
    }
    let left = session.folder().ok_or("the episode has no files")?;
    let reference = Some(source.join("reference")).filter(|r| r.is_dir());
    let holds = |check: &Value| {
        let function = check["function"].as_str().unwrap_or_default();
        let before = source.join("testbed");
        recorded::check(left, Some(&before), reference.as_deref(), function, &check["args"], mode) == Ok(true)
    };
    Ok(task["evaluation"].as_array().ok_or("no `evaluation`")?.iter().all(holds))
}

/// Compares a file that an episode left with what it should be.
fn left_file(folder: &Path, path: &str, expected: &Value) -> Result<(), String> {
    let file = folder.join(path);
    if !file.is_file() {
        return Err("is missing".into());
    }
    if expected["compare"] == "exists" || !expected["error"].is_null() {
        return Ok(());
    }
    let raw = || std::fs::read(&file).map(|b| String::from_utf8_lossy(&b).into_owned()).map_err(|e| e.to_string());
    let wanted = expected["text"].as_str().unwrap_or_default();
    let (wanted, got) = match expected["kind"].as_str() {
        Some("xlsx") => (wanted.to_owned(), recorded::text(folder, "xlsx", path, "")?),
        Some("pdf") => (words(wanted), words(&recorded::text(folder, "pdf", path, "")?)),
        Some("docx") => (wanted.to_owned(), recorded::text(folder, "docx", path, "")?),
        Some("eml") => (mail(wanted), mail(&raw()?)),
        Some("ics") => {
            let lines = raw()?
                .split_inclusive("\r\n")
                .map(|l| if l.starts_with("DTSTAMP:") { "DTSTAMP:$NOW\r\n" } else { l })
                .collect();
            (wanted.to_owned(), lines)
        }
        _ => (wanted.to_owned(), raw()?),
    };
    if wanted == got { Ok(()) } else { Err(differing(&wanted, &got)) }
}

/// What counts of a message: From, To, Subject and the decoded body.
fn mail(text: &str) -> String {
    recorded::message(text.as_bytes()).unwrap_or_else(|| format!("not a message: {text}"))
}

/// A reply as its harness read it: a case of `conformance parse`.
pub(crate) fn reply(format: &Format, case: &Value) -> Result<(), String> {
    let (reading, expected) = (format.read(text(case, "reply"), None), &case["expected"]);
    let payload = reading.action().map_or(Value::Null, |action| action.payload.clone());
    same("payload", &expected["payload"], &payload)?;
    // Python's own complaint stands in what the model is told.
    match expected["error"].as_str().filter(|error| error.contains("(char ")) {
        Some(error) if !reading.violations().next().is_some_and(|v| error.contains(v.detail.as_str())) => {
            Err(format!("error: expected {error}"))
        }
        _ => Ok(()),
    }
}
