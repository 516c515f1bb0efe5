//! Single steps of the suite, for comparing them with what upstream's code recorded.

use crate::apps::app;
use crate::desk::{Desk, MEMORY};
use crate::environment::Stuck;
use crate::evaluation::{Evidence, one};
use crate::files::Testbed;
use crate::mode::Mode;
use crate::{calendar, convert, excel, mail, official, original, word};
use rolegraft_spans::Format;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::io;
use std::path::Path;

/// How an action reaches its tool: `{reached, argv, call: {parameter: {type: value}}, rejected, observation}`, as the
/// recordings have it.
///
/// # Errors
/// If no scratch folder can be made.
pub fn arguments(action: &Map<String, Value>, folder: &str) -> io::Result<Value> {
    let name = |field: &str| action.get(field).and_then(Value::as_str).unwrap_or_default();
    let mut desk = desk(Testbed::new("")?, folder, Mode::Official);
    desk.app = Some(name("app").to_owned());
    let known = app(name("app")).and_then(|a| a.actions.iter().find(|x| x.action == name("action")));
    let mut single = action.clone();
    for value in single.values_mut() {
        if let Value::Array(items) = value
            && items.len() == 1
        {
            *value = items.swap_remove(0);
        }
    }
    let Some(known) = known.filter(|_| name("app") != "shell") else {
        let done = desk.act(&Value::Object(action.clone()));
        return Ok(json!({"reached": false, "observation": done.observation}));
    };
    Ok(match desk.pass(known, &single) {
        Err(message) => json!({"reached": false, "observation": desk.error(&message).observation}),
        Ok(passed) => {
            let names = known.parameters();
            let called = passed.call.as_ref().and_then(|c| c.arguments.as_ref());
            let call = called.map(|values| {
                let typed = |value: &rolegraft_python::Object| {
                    use rolegraft_python::Object;
                    let shown = match value {
                        Object::None => Value::Null,
                        Object::Bool(b) => json!(b),
                        Object::Str(s) => json!(s),
                        other => json!(other.repr()),
                    };
                    json!({value.kind(): shown})
                };
                names.iter().zip(values).map(|((name, _), value)| (name.clone(), typed(value))).collect::<Map<_, _>>()
            });
            json!({
                "reached": passed.words.is_some(), "argv": passed.words, "call": call,
                "rejected": passed.call.map(|c| c.rejected),
            })
        }
    })
}

fn desk(bed: Testbed, folder: &str, mode: Mode) -> Desk {
    Desk {
        bed,
        app: None,
        task: String::new(),
        folder: folder.to_owned(),
        reference: None,
        mode,
        switched: None,
        memory: MEMORY.into(),
        now: "20240501T000000Z".into(),
        missing: BTreeSet::new(),
        killed: false,
    }
}

/// A reply to a fresh task: `{observation, app_after, executed}` and the text of `answer.txt`, if it was written.
///
/// # Errors
/// If the task's files cannot be copied.
pub fn reply(testbed: &Path, folder: &str, task: &str, app: Option<&str>, reply: &str) -> io::Result<Value> {
    let bed = Testbed::copy_of(testbed, &format!("{folder}/testbed"), false)?;
    let mut desk = desk(bed, folder, Mode::Official);
    desk.app = app.map(str::to_owned);
    desk.task = task.to_owned();
    let format = Format::builtin("officebench").map_err(io::Error::other)?;
    let done = desk.answer(reply, &format.read(reply, None));
    let answer = desk.bed.read(Path::new("data/answer.txt")).ok().and_then(|b| String::from_utf8(b).ok());
    let done_now = reply.contains("finish_task") || reply.contains("got_stuck");
    Ok(json!({
        "observation": done.observation, "app_after": desk.app, "executed": done.executed, "done": done_now,
        "answer_txt": answer,
    }))
}

/// What becomes of a reply in the original benchmark: `{action, observation, app_after, done, argv, answer_txt, history}`,
/// as the recordings have it.
#[must_use]
pub fn original(reply: &str, app: &str) -> Value {
    let taken = original::take(reply, app);
    json!({
        "action": taken.action, "observation": taken.observation, "app_after": taken.app, "done": taken.done,
        "argv": taken.words, "answer_txt": taken.answer, "history": taken.shown,
    })
}

/// An episode to be played reply by reply.
pub struct Session {
    desk: Desk,
    format: Format,
    stuck: Stuck,
}

impl Session {
    /// A fresh copy of the `testbed` in a task's folder; `prepared` makes the folders that version control dropped, as
    /// does [`Mode::Sane`].
    ///
    /// # Errors
    /// If they cannot be copied.
    pub fn new(files: &Path, folder: &str, task: &str, prepared: bool, mode: Mode) -> io::Result<Self> {
        let bed = Testbed::of_task(files, folder, prepared || mode == Mode::Sane)?;
        let mut desk = desk(bed, folder, mode);
        desk.task = task.to_owned();
        desk.reference = Some(files.join("reference")).filter(|r| r.is_dir());
        let format = Format::builtin("officebench").map_err(io::Error::other)?;
        Ok(Self { desk, format, stuck: Stuck::default() })
    }

    /// The messages before the first reply.
    #[must_use]
    pub fn opening(&self, task: &Value) -> Vec<Value> {
        official::opening(task, &self.desk.folder).into_iter().map(|message| json!(message)).collect()
    }

    /// Takes a reply: the observation, and whether the episode ends.
    pub fn step(&mut self, reply: &str) -> (Option<String>, bool) {
        let (done, over) = self.stuck.step(&mut self.desk, &self.format.read(reply, None), reply);
        (done.observation, over)
    }
    /// Calls a tool with an action's values as they are: no reply, no command line.
    ///
    /// # Errors
    /// If there is no such tool, or a value is missing.
    pub fn call(&mut self, action: &Map<String, Value>) -> Result<String, String> {
        let name = |field: &str| action.get(field).and_then(Value::as_str).unwrap_or_default();
        let known = app(name("app")).and_then(|app| app.actions.iter().find(|known| known.action == name("action")));
        let known = known.ok_or_else(|| format!("there is no action {}.{}", name("app"), name("action")))?;
        let values = self.desk.given(known, &known.prepared(action)?)?;
        let printed = self.desk.run_tool(name("app"), &known.action, &values);
        Ok(printed.returned.unwrap_or(printed.before))
    }
    /// The app that is open.
    #[must_use]
    pub fn app(&self) -> Option<&str> {
        self.desk.app.as_deref()
    }
    /// Where the files lie.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        self.desk.bed.host_path()
    }
}

/// What a tool shows of a file: `reader` is `xlsx`, `docx`, `ics`, `eml`, `emails` or `pdf`.
///
/// # Errors
/// If the file cannot be read so.
pub fn text(folder: &Path, reader: &str, file: &str, user: &str) -> Result<String, String> {
    let bed = Testbed::at(folder).map_err(|e| e.to_string())?;
    match reader {
        "xlsx" => excel::table(&bed, Path::new(file)),
        "docx" => word::text(&bed, Path::new(file)),
        "ics" => calendar::list_events(&bed, user).ok_or_else(|| "no calendar".into()),
        "emails" => mail::list(&bed, user).ok_or_else(|| "no folder".into()),
        "eml" => mail::read(&bed, user, file).flatten().ok_or_else(|| "no such message".into()),
        "pdf" => convert::pdf_text(&bed, Path::new(file)).map_err(|e| e.to_string()),
        other => Err(format!("there is no reader `{other}` here")),
    }
}

/// A message's From, To, Subject and decoded body, if it is one.
#[must_use]
pub fn message(bytes: &[u8]) -> Option<String> {
    mail::shown(bytes)
}

/// A check on a folder of files, with the untouched files and the reference where there are any.
///
/// # Errors
/// Where upstream's check raises.
pub fn check(
    testbed: &Path,
    cache: Option<&Path>,
    reference: Option<&Path>,
    function: &str,
    args: &Value,
    mode: Mode,
) -> Result<bool, String> {
    // Version control drops empty folders: a task may have no files at all.
    let open =
        |path: &Path| if path.is_dir() { Testbed::at(path) } else { Testbed::new("") }.map_err(|e| e.to_string());
    let bed = open(testbed)?;
    let (cache, reference) = (cache.map(open).transpose()?, reference.map(open).transpose()?);
    one(&Evidence::with(&bed, cache.as_ref(), reference.as_ref(), mode), function, args)
}
