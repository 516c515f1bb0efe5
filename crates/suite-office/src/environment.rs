//! Episodes: from a reply's JSON to an app and back.

use crate::desk::{Desk, Done, MEMORY};
use crate::evaluation::{self, Evidence};
use crate::files::{Testbed, is_the_disks};
use crate::flaws;
use crate::mode::Mode;
use crate::official::{self, Official};
use crate::workbook;
use rolegraft_files::no_room;
use rolegraft_python::Object;
use rolegraft_spans::{Format, Reading};
use rolegraft_suite::{Environment, Limits, Outcome, Roles, Step, Suite, SuiteError, Task};
use rolegraft_trajectory::{Message, Status};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How the name of a suite ends that is played with upstream's oddities mended.
pub const SANE: &str = "-sane";

/// Identical replies in a row that end an episode.
const STUCK: usize = 5;

/// What the model is told. `{task}` and `{app}` are filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    /// The system message.
    pub system: String,
    /// The first user message.
    pub opening: String,
    /// The observation after an app was opened.
    pub switched: String,
    /// The directory in which paths start, as the model sees it.
    #[serde(default)]
    pub workdir: String,
}

/// The suite.
pub struct OfficeSuite {
    id: String,
    format: Arc<Format>,
    limits: Limits,
    mode: Mode,
    source: Source,
}

/// Where tasks come from.
enum Source {
    /// Task files with files in them, and a prompt of their own.
    Own(Arc<Prompt>),
    /// Upstream's folders, with its prompt.
    Official(Official),
}

impl OfficeSuite {
    /// A suite on tasks of one's own, with the given reply format and prompt; upstream's oddities mended.
    #[must_use]
    pub fn new(format: Format, limits: Limits, prompt: Prompt) -> Self {
        let id = "officebench".into();
        Self { id, format: Arc::new(format), limits, mode: Mode::Sane, source: Source::Own(Arc::new(prompt)) }
    }

    /// A suite on official tasks. Its name says if it is not played as published.
    #[must_use]
    pub fn official(format: Format, limits: Limits, official: Official, mode: Mode) -> Self {
        let id = match mode {
            Mode::Official => official.set().suite().to_owned(),
            Mode::Sane => format!("{}{SANE}", official.set().suite()),
        };
        Self { id, format: Arc::new(format), limits, mode, source: Source::Official(official) }
    }
}

#[derive(Deserialize)]
struct Rules {
    task: String,
    #[serde(default)]
    date: String,
    #[serde(default)]
    files: Map<String, Value>,
    #[serde(default)]
    evaluation: Vec<Value>,
    /// An official task's folder.
    #[serde(default)]
    folder: String,
}

impl Suite for OfficeSuite {
    fn id(&self) -> &str {
        &self.id
    }
    fn format(&self) -> &Format {
        &self.format
    }
    fn limits(&self) -> Limits {
        self.limits
    }
    fn version(&self) -> u32 {
        4
    }
    fn settings(&self) -> Value {
        match &self.source {
            Source::Own(prompt) => json!({"prompt": **prompt, "mode": self.mode}),
            Source::Official(_) => json!({"mode": self.mode}),
        }
    }
    fn roles(&self) -> Roles {
        Roles::with_user(match &self.source {
            Source::Own(prompt) => !prompt.system.is_empty(),
            Source::Official(_) => true,
        })
    }
    fn start(&self, task: &Task) -> Result<Box<dyn Environment>, SuiteError> {
        let wrong = |reason: String| SuiteError::Task { suite: self.id().to_owned(), task: task.id.clone(), reason };
        let rules: Rules = serde_json::from_value(task.fields.clone()).map_err(|e| wrong(e.to_string()))?;
        let (source, folder, bed) = match &self.source {
            Source::Own(prompt) => {
                (None, prompt.workdir.trim_end_matches("/testbed").to_owned(), filled(prompt, &rules))
            }
            Source::Official(official) => {
                let (from, shown) = (official.root.join(&rules.folder), official::shown(&rules.folder));
                let bed = Testbed::of_task(&from, &shown, self.mode == Mode::Sane);
                (Some(from), shown, bed)
            }
        };
        let inside = |name: &str| source.as_ref().map(|from| from.join(name)).filter(|folder| folder.is_dir());
        let (switched, opening) = match &self.source {
            Source::Own(prompt) => (Some(prompt.switched.clone()), prompt.opening(&rules.task)),
            Source::Official(_) => (None, official::opening(&task.fields, &folder)),
        };
        let desk = Desk {
            bed: bed.map_err(|error| match is_the_disks(&error) || !std::env::temp_dir().is_dir() {
                true => SuiteError::Environment { suite: self.id().to_owned(), reason: no_room(&error) },
                false => wrong(format!("no testbed: {error}")),
            })?,
            app: None,
            task: rules.task.clone(),
            folder,
            reference: inside("reference"),
            mode: self.mode,
            switched,
            memory: MEMORY.into(),
            now: format!("{}T000000Z", rules.date.replace('-', "")),
            missing: BTreeSet::new(),
            killed: false,
        };
        Ok(Box::new(Episode {
            suite: self.id().to_owned(),
            task: task.id.clone(),
            desk,
            opening,
            untouched: inside("testbed"),
            official: source.is_some(),
            evaluation: rules.evaluation,
            format: self.format.clone(),
            turns_left: self.limits.turns,
            stuck: Stuck::default(),
        }))
    }
}

/// A testbed with the files that a task of one's own describes.
fn filled(prompt: &Prompt, rules: &Rules) -> io::Result<Testbed> {
    let bed = Testbed::empty(&prompt.workdir, true)?;
    for (name, content) in &rules.files {
        let bytes = match (content.as_str(), content.get("xlsx")) {
            (Some(text), _) => text.as_bytes().to_vec(),
            (None, Some(rows)) => {
                let rows: Vec<Vec<Value>> = serde_json::from_value(rows.clone())?;
                let rows: Vec<Vec<Object>> = rows.iter().map(|row| row.iter().map(Object::from).collect()).collect();
                workbook::of_rows(&rows).map_err(io::Error::other)?
            }
            (None, None) => return Err(io::Error::other(format!("file `{name}` is neither text nor xlsx rows"))),
        };
        let path = Path::new(name);
        bed.make_parent(path).and_then(|()| bed.write(path, &bytes))?;
    }
    Ok(bed)
}

impl Prompt {
    /// The messages before the first reply.
    fn opening(&self, task: &str) -> Vec<Message> {
        let system = (!self.system.is_empty()).then(|| Message::system(&self.system));
        system.into_iter().chain([Message::user(self.opening.replace("{task}", task))]).collect()
    }
}

struct Episode {
    suite: String,
    task: String,
    desk: Desk,
    opening: Vec<Message>,
    /// The files as the episode found them.
    untouched: Option<PathBuf>,
    /// Whether the task is an official one.
    official: bool,
    evaluation: Vec<Value>,
    format: Arc<Format>,
    turns_left: usize,
    stuck: Stuck,
}

/// Identical replies in a row: the fifth is taken for a crash.
#[derive(Debug, Default)]
pub(crate) struct Stuck {
    last: String,
    times: usize,
}

impl Stuck {
    /// Carries out a reply, and says whether it ends the episode.
    pub(crate) fn step(&mut self, desk: &mut Desk, reading: &Reading, reply: &str) -> (Done, bool) {
        if self.times > 0 && self.last == reply {
            self.times += 1;
        } else {
            reply.clone_into(&mut self.last);
            self.times = 1;
        }
        let stuck = self.times >= STUCK;
        let effective = if stuck { "{\"app\": \"system\", \"action\": \"got_stuck\"}" } else { reply };
        let done = if stuck { desk.malformed(effective) } else { desk.answer(effective, reading) };
        let over = match desk.mode {
            // upstream: the words anywhere in the reply end the episode.
            Mode::Official => effective.contains("finish_task") || effective.contains("got_stuck"),
            Mode::Sane => stuck || done.finished,
        };
        (done, over)
    }
}

impl Environment for Episode {
    fn open(&mut self) -> Result<Vec<Message>, SuiteError> {
        Ok(self.opening.clone())
    }

    fn step(&mut self, reply: &str) -> Result<Step, SuiteError> {
        self.turns_left = self.turns_left.saturating_sub(1);
        let mut reading = self.format.read(reply, None);
        flaws::flag(&mut reading);
        let (done, over) = self.stuck.step(&mut self.desk, &reading, reply);
        let ended =
            if over { Some(Status::Completed) } else { (self.turns_left == 0).then_some(Status::TaskLimitReached) };
        let seen = ended.is_none().then(|| Message::user(done.observation.unwrap_or_default()));
        Ok(Step { reading, succeeded: done.succeeded, observations: seen.into_iter().collect(), ended })
    }

    fn intact(&mut self) -> Result<bool, SuiteError> {
        match self.desk.bed.fault() {
            None => Ok(!self.desk.killed),
            Some(reason) => {
                let (suite, task) = (self.suite.clone(), self.task.clone());
                Err(SuiteError::Lost { suite, task, what: "room for its files", reason })
            }
        }
    }

    fn outcome(&mut self) -> Outcome {
        let at = |folder: &Option<PathBuf>| folder.as_deref().and_then(|path| Testbed::at(path).ok());
        let (untouched, reference) = (at(&self.untouched), at(&self.desk.reference));
        let holds = |bed: &Testbed| {
            let evidence = Evidence::with(bed, untouched.as_ref(), reference.as_ref(), self.desk.mode);
            evaluation::evaluate(&evidence, &self.evaluation)
        };
        let verdict = holds(&self.desk.bed);
        let mut detail = json!({"failed_check": verdict.as_ref().err()});
        // Some official tasks are solved by doing nothing.
        if self.official && verdict.is_ok() {
            detail["free"] = untouched.as_ref().is_some_and(|bed| holds(bed).is_ok()).into();
        }
        if !self.desk.missing.is_empty() {
            detail["missing"] = self.desk.missing.iter().map(|program| program.command()).collect();
        }
        Outcome { reward: if verdict.is_ok() { 1.0 } else { 0.0 }, detail }
    }
}
