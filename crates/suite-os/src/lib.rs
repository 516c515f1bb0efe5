//! AgentBench's OS interaction: a shell, a question or an errand, eight rounds.
//!
//! Rules: THUDM/AgentBench@41e6807:`src/server/tasks/os_interaction/task.py` (text protocol). The shell is the
//! sandbox's, cleaned of prompts and control sequences.

use rolegraft_spans::Format;
use rolegraft_suite::sandbox::{CommandOutput, Sandbox};
use rolegraft_suite::{Environment, Limits, Outcome, Step, Suite, SuiteError, Task};
use rolegraft_trajectory::{Message, Status};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const COMMAND_LIMIT: Duration = Duration::from_secs(30);
const SCRIPT_LIMIT: Duration = Duration::from_secs(60);
/// Observations longer than this many characters…
const OBSERVATION_MAX: usize = 800;
/// …are cut to this many.
const OBSERVATION_CUT: usize = 780;

/// What stands before the task's description.
#[derive(Debug, Clone, PartialEq, serde::Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    /// The system message; none if empty.
    #[serde(default)]
    pub system: String,
    /// Earlier turns, user first.
    #[serde(default)]
    pub one_shot: Vec<String>,
    /// Put before the description.
    #[serde(default)]
    pub prefix: String,
}

/// The suite.
pub struct OsSuite {
    format: Arc<Format>,
    limits: Limits,
    prompt: Prompt,
}

impl OsSuite {
    /// A suite with the given reply format and prompt.
    #[must_use]
    pub fn new(format: Format, limits: Limits, prompt: Prompt) -> Self {
        Self { format: Arc::new(format), limits, prompt }
    }
}

impl Suite for OsSuite {
    fn id(&self) -> &str {
        "os"
    }
    fn format(&self) -> &Format {
        &self.format
    }
    fn limits(&self) -> Limits {
        self.limits
    }
    fn version(&self) -> u32 {
        1
    }
    fn settings(&self) -> Value {
        json!({"prompt": self.prompt, "shell": "clean"})
    }
    fn start(&self, task: &Task) -> Result<Box<dyn Environment>, SuiteError> {
        let wrong = |reason: String| SuiteError::Task { suite: "os".into(), task: task.id.clone(), reason };
        let mut rules: Rules = serde_json::from_value(task.fields.clone()).map_err(|e| wrong(e.to_string()))?;
        if let Some(text) = rules.answer.as_ref().and_then(Value::as_str) {
            rules.answer = Some(json!({"answer": text, "strip": true}));
        }
        let mut sandbox =
            Sandbox::start().map_err(|e| SuiteError::Environment { suite: "os".into(), reason: e.to_string() })?;
        for script in &rules.init {
            let done = run(&mut sandbox, script, &[]).map_err(&wrong)?;
            if done.status != Some(0) {
                return Err(wrong(format!("init failed: {}", String::from_utf8_lossy(&done.bytes))));
            }
        }
        if let Some(start) = &rules.start {
            sandbox.run(start, COMMAND_LIMIT).map_err(|e| wrong(e.to_string()))?;
        }
        Ok(Box::new(Episode {
            sandbox,
            rules,
            format: self.format.clone(),
            prompt: self.prompt.clone(),
            turns_left: self.limits.turns,
            answer: None,
        }))
    }
}

#[derive(Deserialize)]
struct Rules {
    description: String,
    #[serde(default)]
    init: Vec<Script>,
    start: Option<String>,
    #[serde(rename = "match")]
    answer: Option<Value>,
    check: Option<Vec<Option<Script>>>,
    example: Option<Script>,
}

#[derive(Deserialize)]
struct Script {
    #[serde(default)]
    language: Option<String>,
    #[serde(default)]
    code: String,
    builtin: Option<String>,
}

struct Episode {
    sandbox: Sandbox,
    rules: Rules,
    format: Arc<Format>,
    prompt: Prompt,
    turns_left: usize,
    /// What was committed: `None` until then, `Some(None)` after `finish`.
    answer: Option<Option<String>>,
}

fn run(sandbox: &mut Sandbox, script: &Script, parameters: &[&str]) -> Result<CommandOutput, String> {
    match script.language.as_deref().unwrap_or("bash") {
        "bash" => sandbox.run_script(&script.code, parameters, SCRIPT_LIMIT).map_err(|e| e.to_string()),
        "python" => {
            let code = "c=$1; shift; exec python3 -c \"$c\" \"$@\"";
            let all: Vec<&str> = std::iter::once(script.code.as_str()).chain(parameters.iter().copied()).collect();
            sandbox.run_script(code, &all, SCRIPT_LIMIT).map_err(|e| e.to_string())
        }
        other => Err(format!("scripts in `{other}` are not supported")),
    }
}

/// The text a terminal would show: control sequences and carriage returns removed, line ends trimmed from the end.
fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next() {
                Some('[') => while chars.next().is_some_and(|c| !c.is_ascii_alphabetic()) {},
                Some(']') => while chars.next().is_some_and(|c| c != '\u{7}') {},
                _ => {}
            },
            '\r' | '\u{7}' => {}
            c => out.push(c),
        }
    }
    out.truncate(out.trim_end_matches('\n').len());
    out
}

fn observation(text: &str) -> String {
    if text.is_empty() {
        return "The output of the OS is empty.".into();
    }
    if text.chars().count() > OBSERVATION_MAX {
        let cut: String = text.chars().take(OBSERVATION_CUT).collect();
        return format!("The output of the OS:\n\n{cut}\n[truncated because the output is too long]");
    }
    format!("The output of the OS:\n\n{text}")
}

impl Environment for Episode {
    fn open(&mut self) -> Result<Vec<Message>, SuiteError> {
        let mut messages = Vec::new();
        if !self.prompt.system.is_empty() {
            messages.push(Message::system(&self.prompt.system));
        }
        for (i, text) in self.prompt.one_shot.iter().enumerate() {
            messages.push(if i % 2 == 0 { Message::user(text) } else { Message::assistant(text) });
        }
        messages.push(Message::user(format!("{}{}", self.prompt.prefix, self.rules.description)));
        Ok(messages)
    }

    fn step(&mut self, reply: &str) -> Result<Step, SuiteError> {
        let reading = self.format.read(reply, None);
        self.turns_left = self.turns_left.saturating_sub(1);
        let end = |reading, succeeded, status| Ok(Step { reading, succeeded, observation: None, ended: Some(status) });
        let Some(action) = reading.action().cloned() else {
            return end(reading, false, Status::AgentInvalidAction);
        };
        let payload = action.payload.as_str().map(str::to_owned);
        if action.name != "bash" {
            self.answer = Some(payload);
            return end(reading, true, Status::Completed);
        }
        let Ok(done) = self.sandbox.run(payload.as_deref().unwrap_or_default(), COMMAND_LIMIT) else {
            return end(reading, false, Status::TaskError);
        };
        let observation = Message::user(observation(&clean(&done.bytes)));
        let ended = (self.turns_left == 0).then_some(Status::TaskLimitReached);
        Ok(Step { reading, succeeded: done.status == Some(0), observation: Some(observation), ended })
    }

    fn outcome(&mut self) -> Outcome {
        let Some(answer) = self.answer.clone() else {
            return Outcome { reward: 0.0, detail: json!({"answer": null}) };
        };
        let judged = self.judge(answer.as_deref());
        Outcome {
            reward: if judged == Ok(true) { 1.0 } else { 0.0 },
            detail: json!({"answer": answer, "error": judged.err()}),
        }
    }
}

impl Episode {
    fn judge(&mut self, answer: Option<&str>) -> Result<bool, String> {
        if let Some(rule) = &self.rules.answer {
            let strip = rule["strip"].as_bool().unwrap_or(true);
            let given = answer.map(|a| if strip { a.trim() } else { a });
            if let Some(pattern) = rule["regex"].as_str() {
                let regex = regex::Regex::new(pattern).map_err(|e| e.to_string())?;
                return Ok(given.is_some_and(|a| regex.is_match(a)));
            }
            return Ok(given.is_some() && given == rule["answer"].as_str());
        }
        let mut parameters = vec![answer.unwrap_or("None").to_owned()];
        for script in self.rules.check.iter().flatten() {
            let script = match script {
                Some(script) => script,
                None => self.rules.example.as_ref().ok_or("`check` names the example, but the task has none")?,
            };
            let words: Vec<&str> = parameters.iter().map(String::as_str).collect();
            if let Some(name) = &script.builtin {
                if !compare(name, &words)? {
                    return Ok(false);
                }
                parameters.push(String::new());
                continue;
            }
            let done = run(&mut self.sandbox, script, &words)?;
            if done.status != Some(0) {
                return Ok(false);
            }
            parameters.push(String::from_utf8_lossy(&done.bytes).into_owned());
        }
        Ok(true)
    }
}

/// Upstream's comparers of the answer and the example's output; whatever raises there is `false`.
fn compare(name: &str, parameters: &[&str]) -> Result<bool, String> {
    let [first, second, ..] = parameters else { return Ok(false) };
    let lines = |s: &str| s.replace("\r\n", "\n").replace('\r', "\n").trim().to_owned();
    Ok(match name {
        "integer-match" => python_int(first).is_some_and(|n| Some(n) == python_int(second)),
        "string-match" => lines(first) == lines(second),
        "containing" => lines(first).contains(&lines(second)),
        "in" => lines(second).contains(&lines(first)),
        "size-match" => size(first).is_some_and(|n| Some(n) == size(second)),
        other => return Err(format!("there is no comparer `{other}`")),
    })
}

fn python_int(text: &str) -> Option<i128> {
    let digits = text.trim();
    let bare = digits.strip_prefix(['+', '-']).unwrap_or(digits);
    let fine = !bare.is_empty() && !bare.starts_with('_') && !bare.ends_with('_') && !bare.contains("__");
    fine.then(|| digits.replace('_', "").parse().ok()).flatten()
}

fn size(text: &str) -> Option<i128> {
    const UNITS: [(&str, u32); 12] = [
        ("B", 0),
        ("Byte", 0),
        ("K", 1),
        ("KB", 1),
        ("M", 2),
        ("MB", 2),
        ("G", 3),
        ("GB", 3),
        ("T", 4),
        ("TB", 4),
        ("P", 5),
        ("PB", 5),
    ];
    let text = text.trim();
    match UNITS.iter().find_map(|(unit, power)| Some((text.strip_suffix(unit)?, power))) {
        Some((number, power)) => python_int(number)?.checked_mul(1024i128.pow(*power)),
        None => python_int(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observations_are_cut_as_upstream_cuts_them() {
        assert_eq!(observation(""), "The output of the OS is empty.");
        assert_eq!(observation("5"), "The output of the OS:\n\n5");
        let long = observation(&"é".repeat(801));
        assert!(long.ends_with("é\n[truncated because the output is too long]"));
        assert_eq!(long.chars().filter(|c| *c == 'é').count(), 780);
        assert!(!observation(&"é".repeat(800)).contains("truncated"));
    }

    #[test]
    fn control_sequences_vanish() {
        assert_eq!(clean(b"\x1b[31mred\x1b[0m\r\nx\x07\n\n"), "red\nx");
        assert_eq!(clean(b"\x1b[?2004l"), "");
    }

    #[test]
    fn comparers() {
        for (name, a, b, expected) in [
            ("integer-match", " 5\n", "+5", true),
            ("integer-match", "5.0", "5", false),
            ("integer-match", "1_000", "1000", true),
            ("string-match", "a\r\nb ", "a\nb", true),
            ("size-match", "4K", "4096", true),
            ("size-match", "4KB", "4096", false),
        ] {
            assert_eq!(compare(name, &[a, b]), Ok(expected), "{name} {a} {b}");
        }
    }
}
