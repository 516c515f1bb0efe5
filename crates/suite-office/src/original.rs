//! From a reply to an action in the original, zlwang-cs/OfficeBench@4434746: the text from its first to its last brace
//! is a Python expression. Upstream evaluates it; here it is read as a literal and never run.

use crate::apps::{app, joined};
use rolegraft_python::{self as literal, Object};
use serde_json::{Map, Value};

/// What any error is answered with.
const MALFORMED: &str = "Malformed action! You must follow the given action format! Try a different action.";
/// The original's apps.
const APPS: [&str; 8] = ["calendar", "excel", "ocr", "pdf", "shell", "word", "email", "llm"];
/// Command lines that the original has otherwise than its local variant, or alone.
const OWN: [(&str, &str, &str, &str); 2] = [
    ("ocr", "recognize_file", "python3 /apps/ocr_app/ocr_recognize_file.py --file_path ", "file_path"),
    ("llm", "complete_text", "python3 /apps/llm_app/llm_query.py --prompt '''", "prompt"),
];

/// What becomes of a reply.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Taken {
    /// The text that was read.
    pub(crate) action: String,
    /// What the model sees, if nothing is run.
    pub(crate) observation: Option<String>,
    /// The app that is open afterwards.
    pub(crate) app: String,
    /// Whether the episode ends.
    pub(crate) done: bool,
    /// The words that are run.
    pub(crate) words: Option<Vec<String>>,
    /// What `answer.txt` is to hold.
    pub(crate) answer: Option<String>,
    /// The action as the history shows it.
    pub(crate) shown: String,
}

/// Takes a reply with an app open.
pub(crate) fn take(reply: &str, open: &str) -> Taken {
    let cut = reply.find('{').zip(reply.rfind('}')).and_then(|(from, to)| reply.get(from..=to)).unwrap_or(reply);
    let mut taken = Taken { action: cut.to_owned(), app: open.to_owned(), shown: cut.to_owned(), ..Taken::default() };
    taken.done = cut.contains("finish_task") || cut.contains("got_stuck");
    if act(cut, &mut taken).is_none() {
        taken.observation = Some(MALFORMED.into());
    }
    taken
}

fn act(cut: &str, taken: &mut Taken) -> Option<()> {
    let Some(Object::Dict(mut fields)) = literal::exact(cut) else { return None };
    for (_, value) in &mut fields {
        if let Object::List(items) = value
            && items.len() == 1
        {
            *value = items.swap_remove(0);
        }
    }
    let several = |name: &str| fields.iter().position(|(k, v)| k.text() == name && matches!(v, Object::List(_)));
    if let Some(at) = several("recipient") {
        fields[at].1 = Object::Str("Multiple recipients".into());
    }
    let field = |name: &str| fields.iter().find(|(key, _)| key.text() == name).map(|(_, value)| value);
    let (named, action) = (field("app")?.text(), field("action")?.text());
    let arguments: Map<String, Value> = fields.iter().map(|(key, value)| (key.text(), value.json())).collect();
    match (named.as_str(), action.as_str()) {
        (_, "switch_app") => {
            taken.app = field("target_app")?.text();
            taken.observation = Some(format!("Successfully switched to app: {}", taken.app));
            fields
                .iter_mut()
                .filter(|(key, _)| key.text() == "app")
                .for_each(|(_, v)| *v = Object::Str("system".into()));
        }
        ("system", "finish_task") => {
            taken.answer = Some(echoed(&field("answer").map_or_else(|| "None".into(), Object::text))?);
            taken.observation = Some("Task finished".into());
        }
        ("system", "got_stuck") => taken.observation = Some("Task failed".into()),
        ("system", _) => {}
        ("shell", _) => {
            let command = match arguments.get("command")? {
                Value::Array(items) => joined(items, " ").ok()?,
                command => command.as_str()?.to_owned(),
            };
            let command = match command.strip_prefix("cd") {
                Some(_) => format!("cd /{}", command.split_once("cd ")?.1.trim().trim_start_matches('/')),
                None => command,
            };
            taken.words = Some(split(&command)?);
        }
        (named, action) => {
            let own = OWN.iter().find(|(app, known, ..)| *app == named && *known == action);
            let line = match own {
                Some((app, _, line, field)) => {
                    let value = Object::from(arguments.get(*field)?).text();
                    format!("{line}{value}{}", if *app == "llm" { "'''" } else { "" })
                }
                None => {
                    let known = APPS.contains(&named).then(|| app(named)).flatten()?;
                    let known = known.actions.iter().find(|known| known.action == action)?;
                    known.filled(&arguments).ok()?
                }
            };
            taken.words = Some(split(&line)?);
        }
    }
    taken.shown = Object::Dict(fields).repr();
    Some(())
}

/// What an answer leaves in its file, its quotes deleted: bash's `echo` takes some for options. `None` if it cannot be run.
fn echoed(answer: &str) -> Option<String> {
    let answer = answer.replace(['\'', '"'], "");
    let options = answer.strip_prefix('-').filter(|o| !o.is_empty() && o.chars().all(|c| "neE".contains(c)));
    match options {
        _ if answer.contains('\0') => None,
        Some(options) => Some(if options.contains('n') { String::new() } else { "\n".into() }),
        None => Some(answer + "\n"),
    }
}

/// The words that `/bin/bash -c """ LINE """` becomes without a shell: Python's `shlex.split`.
fn split(line: &str) -> Option<Vec<String>> {
    let whole = format!("/bin/bash -c \"\"\" {} \"\"\"", line.trim());
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut chars = whole.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\r' | '\n' => words.extend(word.take()),
            '\\' => word.get_or_insert_default().push(chars.next()?),
            '\'' | '"' => {
                let text = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        end if end == c => break,
                        '\\' if c == '"' => {
                            let next = chars.next()?;
                            if !matches!(next, '\\' | '"') {
                                text.push('\\');
                            }
                            text.push(next);
                        }
                        other => text.push(other),
                    }
                }
            }
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_as_literals() {
        let taken = take("I choose {'app': 'excel', 'action': 'switch_app', 'target_app': ['word']} now", "pdf");
        assert_eq!(taken.observation.as_deref(), Some("Successfully switched to app: word"));
        assert_eq!(taken.app, "word");
        for bad in [
            "{'app': __import__('os').system('id'), 'action': 'x'}",
            "{'app': 'calculator', 'action': 'calculate'}",
            "none",
        ] {
            assert_eq!(take(bad, "pdf").observation.as_deref(), Some(MALFORMED), "{bad}");
        }
        for (answer, left) in [
            ("", "None\n"),
            (", 'answer': None", "None\n"),
            (", 'answer': 'it\\'s'", "its\n"),
            (", 'answer': ''", "\n"),
            (", 'answer': '-n'", ""),
            (", 'answer': '-e'", "\n"),
            (", 'answer': '-n 5'", "-n 5\n"),
            (", 'answer': ['-5']", "-5\n"),
        ] {
            let taken = take(&format!("{{'app': 'system', 'action': 'finish_task'{answer}}}"), "pdf");
            assert_eq!(taken.observation.as_deref(), Some("Task finished"), "{answer}");
            assert_eq!((taken.answer.as_deref(), taken.done), (Some(left), true), "{answer}");
        }
        let taken = take("{'app': 'word', 'action': 'read_file', 'file_path': 'a b\"c d\"'}", "pdf");
        let line = " python3 /apps/word_app/word_read_file.py --file_path a bc d ";
        assert_eq!(
            taken.words.unwrap(),
            ["/bin/bash", "-c", " python3 /apps/word_app/word_read_file.py --file_path a bc", "d "],
            "{line}"
        );
    }
}
