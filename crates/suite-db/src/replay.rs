//! AgentBench DB-bench: recorded steps of THUDM/AgentBench@41e6807 and @578c5e9, by file name.
//!
//! | file | a case |
//! |---|---|
//! | `db_parse.jsonl` | replies: the SQL that is run, the status, the answer |
//! | `db_compare.jsonl`, `db_compare_fc.jsonl` | an answer and a label: whether they agree |
//! | `db_fc.jsonl` | turns of function calls on a server that answers what is recorded |
//! | `db_episodes.jsonl` | replies to a task on a real server: observations, status, answer, whether it is right |
//! | `db_repr.jsonl` | SQL on a real server, in order: the text of the result |
//!
//! Recorded errors are compared in MySQL's words, whichever server gave them.

use crate::{
    Called, DbSuite, Entry, FORMAT, NO_CALL, Place, Prompt, Talk, Turn, carry_out, compare, entries, folder, words,
};
use rolegraft_spans::Format;
use rolegraft_suite::recordings::{self, Replayed, Report, UnreadableError, cases, same, text};
use rolegraft_suite::{AgentBenchProtocol, Limits, Suite, Task};
use rolegraft_trajectory::Status;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

/// What the recorded server answers to most SQL.
const ANSWER: &str = "[('x',)]";
/// SQL statements of an episode.
const ROUNDS: usize = 15;

/// Replays recorded steps. `data` holds the tasks; a real server is started when a recording needs one, or is at `url`.
///
/// # Errors
/// If the recordings or the tasks cannot be read.
pub(crate) fn replay(traces: &Path, data: &Path, url: Option<&str>) -> Result<Report, UnreadableError> {
    let tasks = Tasks::open(data).map_err(|e| UnreadableError::Data(e.into()))?;
    let format = Format::builtin(FORMAT).map_err(|e| UnreadableError::Data(e.into()))?;
    let limits = Limits { turns: ROUNDS, tokens: 0, temperature: 0.0, top_p: 1.0 };
    let place = Place::named(url);
    let text = DbSuite::new(AgentBenchProtocol::Text, format, limits, Prompt::upstream(), place);
    // Its lines build on one another.
    let session = Mutex::new(None);
    cases(traces, |kind, _, case| {
        let real = matches!(kind, "db_episodes" | "db_repr");
        if real && let Err(error) = text.server() {
            return Some(Replayed::Lacking(error.to_string()));
        }
        Some(Replayed::Compared(match kind {
            "db_parse" => parse(case),
            "db_compare" => comparison(case),
            "db_compare_fc" => same("verdict", &case["fc"], &compare::call(&case["answer"], &case["label"]).into()),
            "db_fc" => calls(&tasks, case),
            "db_episodes" => episode(&tasks, &text, case),
            "db_repr" => results(&text, &session, traces, case),
            _ => return None,
        }))
    })
}

/// The tasks by set and number, as the recordings were made: repaired ones for `standard`.
struct Tasks {
    sets: BTreeMap<&'static str, Vec<Value>>,
}

impl Tasks {
    fn open(data: &Path) -> Result<Self, crate::OfficialError> {
        let folder = folder(data)?;
        let standard = entries(&folder, "standard.jsonl", true)?;
        Ok(Self { sets: [("standard", standard), ("dev", entries(&folder, "dev.jsonl", false)?)].into() })
    }
    fn get(&self, set: &str, index: u64) -> Result<&Value, String> {
        let found = self.sets.get(set).and_then(|all| all.get(usize::try_from(index).ok()?));
        found.ok_or_else(|| format!("the data has no task {index} in `{set}`"))
    }
}

/// Upstream's word for a status.
fn word(status: Status) -> String {
    status.as_str().replace('_', " ")
}

fn parse(case: &Value) -> Result<(), String> {
    let format = Format::builtin(FORMAT).map_err(|e| e.to_string())?;
    let rounds = case["max_round"].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(ROUNDS);
    let mut talk = Talk { rounds, taken: 0, answer: String::new() };
    let (mut executed, mut status) = (Vec::new(), "unknown".to_owned());
    for (i, reply) in case["replies"].as_array().ok_or("no `replies`")?.iter().enumerate() {
        let Some(reply) = reply.as_str() else {
            // An agent that gives no reply: its first is read as an empty one.
            let limit = reply["status"] == "agent context limit";
            status = word(match (i, limit) {
                (0, _) => Status::AgentValidationFailed,
                (_, true) => Status::AgentContextLimit,
                _ => Status::Unknown,
            });
            break;
        };
        match talk.take(reply, &format.read(reply, None)) {
            Turn::Run(sql) => executed.push(sql),
            Turn::Over(over) => {
                status = word(over);
                break;
            }
        }
    }
    // Where the recorded agent ran out of replies, upstream's harness saw an exception.
    same("executed", &case["executed"], &json!(executed))?;
    same("status", &case["status"], &status.into())?;
    same("answer", &case["answer"], &talk.answer.into())
}

fn comparison(case: &Value) -> Result<(), String> {
    // A changed table's hash is compared as it is.
    let changes = ["INSERT", "DELETE", "UPDATE"].contains(&text(case, "type"));
    let (by_text, by_call) = match (changes, case["label"].as_array()) {
        (false, Some(label)) => {
            (compare::text(text(case, "answer"), label), compare::call(&case["answer"], &case["label"]))
        }
        _ => {
            let answer = text(case, "answer");
            (case["label"] == answer, compare::call_changed(answer, &case["label"]))
        }
    };
    same("verdict (text)", &case["v0_2"], &by_text.into())?;
    case.get("fc_string").map_or(Ok(()), |expected| same("verdict (calls)", expected, &by_call.into()))
}

fn calls(tasks: &Tasks, case: &Value) -> Result<(), String> {
    let index = case.get("index").and_then(Value::as_u64).unwrap_or(0);
    let entry: Entry = serde_json::from_value(tasks.get("standard", index)?.clone()).map_err(|e| e.to_string())?;
    let rounds = case["max_round"].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(ROUNDS);
    let (mut executed, mut injected): (Vec<String>, Vec<Value>) = (Vec::new(), Vec::new());
    let mut status = Status::TaskLimitReached;
    let mut correct = None;
    'turns: for message in case["messages"].as_array().into_iter().flatten().take(rounds) {
        let called = message["tool_calls"].as_array().cloned().unwrap_or_default();
        if called.is_empty() {
            injected.push(json!(["user", NO_CALL]));
        }
        for call in called {
            let field = |name: &str| call["function"][name].as_str().unwrap_or_default().to_owned();
            let mut execute = |sql: &str| {
                executed.push(sql.to_owned());
                match sql {
                    "EMPTY" => Ok(String::new()),
                    "BOOM" => Err("boom".to_owned()),
                    _ => Ok(ANSWER.to_owned()),
                }
            };
            match carry_out(&field("name"), &field("arguments"), &mut execute) {
                Called::Said(said) => injected.push(json!(["tool", said])),
                Called::Raised => {
                    status = Status::TaskError;
                    break 'turns;
                }
                Called::Committed(answer) => {
                    status = Status::Completed;
                    if !entry.changes() {
                        correct = Some(compare::call(&answer, &entry.label));
                    }
                    break 'turns;
                }
            }
        }
    }
    same("executed", &case["executed"], &json!(executed))?;
    same("status", &case["status"], &word(status).into())?;
    let said = case["injected"].as_array().into_iter().flatten().filter(|m| m["role"].is_string());
    let said: Vec<Value> = said.map(|m| json!([m["role"], m["content"]])).collect();
    same("messages", &said.into(), &injected.into())?;
    match correct {
        Some(correct) => same("verdict", &case["result"]["is_correct"], &correct.into()),
        None => Ok(()),
    }
}

fn episode(tasks: &Tasks, suite: &DbSuite, case: &Value) -> Result<(), String> {
    let fields = tasks.get(text(case, "data"), case["index"].as_u64().unwrap_or_default())?.clone();
    let task = Task { id: text(case, "id").to_owned(), fields };
    let mut environment = suite.start(&task).map_err(|e| e.to_string())?;
    environment.open().map_err(|e| e.to_string())?;
    let format = Format::builtin(FORMAT).map_err(|e| e.to_string())?;
    let mut talk = Talk { rounds: ROUNDS, taken: 0, answer: String::new() };
    let mut recorded = case["observations"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let (mut expected, mut observations, mut status) = (Vec::new(), Vec::new(), None);
    for reply in case["replies"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if let Turn::Run(sql) = talk.take(reply, &format.read(reply, None)) {
            expected.extend(recorded.next().map(|said| words::of_mysql(said, &sql)));
        }
        let step = environment.step(reply).map_err(|e| e.to_string())?;
        observations.extend(step.observations.into_iter().map(|m| m.content));
        status = step.ended;
        if status.is_some() {
            break;
        }
    }
    expected.extend(recorded.map(str::to_owned));
    same("observations", &json!(expected), &json!(observations))?;
    same("status", &case["status"], &status.map_or("unknown".into(), word).into())?;
    let outcome = environment.outcome();
    let answer = if outcome.detail["hash"].is_null() { &outcome.detail["answer"] } else { &outcome.detail["hash"] };
    same("answer", &case["answer"], answer)?;
    same("verdict", &case["correct"], &(outcome.reward == 1.0).into())
}

/// The results of all lines so far: the first line is the set-up.
type Results = BTreeMap<String, String>;

fn results(suite: &DbSuite, session: &Mutex<Option<Results>>, traces: &Path, case: &Value) -> Result<(), String> {
    let mut session = session.lock().map_err(|e| e.to_string())?;
    let results = match &mut *session {
        Some(results) => results,
        none => none.insert(replay_all(suite, traces)?),
    };
    match case.get("sql") {
        None => Ok(()),
        Some(sql) => {
            let got = results.get(text(case, "id")).ok_or("not replayed")?;
            let expected = words::of_mysql(text(case, "result"), sql.as_str().unwrap_or_default());
            same("result", &expected.into(), &got.as_str().into())
        }
    }
}

/// Runs the file's statements in order in one database.
fn replay_all(suite: &DbSuite, traces: &Path) -> Result<Results, String> {
    let path = if traces.is_dir() { traces.join("db_repr.jsonl") } else { traces.to_owned() };
    let text = recordings::read(&path).map_err(|e| e.to_string())?;
    let server = suite.server().map_err(|e| e.to_string())?;
    let mut database = server.open("agentbench_repr", &[]).map_err(|e| e.to_string())?;
    let mut results = Results::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let case: Value = serde_json::from_str(line).map_err(|e| e.to_string())?;
        for sql in case["setup"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            database.execute(sql, false);
        }
        if let (Some(id), Some(sql)) = (case["id"].as_str(), case["sql"].as_str()) {
            results.insert(id.to_owned(), database.execute(sql, false));
        }
    }
    Ok(results)
}

/// A reply as its harness read it: a case of `conformance parse`.
pub(crate) fn reply(format: &Format, case: &Value) -> Result<(), String> {
    let (reading, expected) = (format.read(text(case, "reply"), None), &case["expected"]);
    let (action, content) = match reading.action() {
        // upstream: line ends of SQL are blanks.
        Some(action) if action.name == "operation" => {
            ("operation".into(), json!(action.payload.as_str().unwrap_or_default().trim().replace('\n', " ")))
        }
        Some(action) => ("answer".into(), action.payload.clone()),
        None => (Value::Null, Value::Null),
    };
    let read = expected["status"] == "ok";
    if read != reading.violations().next().is_none() {
        return Err(format!(
            "violations: expected status {}, got {:?}",
            expected["status"],
            reading.violations().next()
        ));
    }
    if read {
        same("action", &expected["action"], &action)?;
    }
    same("content", &expected["content"], &content)
}
