//! OfficeBench as an entry of the registry.

use crate::replay::{replay, reply};
use crate::{Apps, Mode, OfficeSuite, Official, OfficialError, Program, SANE};
use rolegraft_suite::recordings::{ReplayReply, Report, UnreadableError};
use rolegraft_suite::sandbox::available;
use rolegraft_suite::{
    Benchmark, BuiltIn, Flag, Library, Limits, Need, NotRun, OfficialData, OpenError, Opening, Settings, SettingsError,
    SuiteFile, Taken, TaskSet,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

const NAME: &str = "officebench";
/// What an official episode may use (arXiv 2601.07309, table 5; turns of the published runs).
const LIMITS: Limits = Limits { turns: 25, tokens: 512, temperature: 0.7, top_p: 1.0 };

/// OfficeBench.
pub struct OfficeBench;

/// How its official tasks are played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    /// Whether upstream's oddities are kept.
    mode: Mode,
}

/// The set that a suite plays, and whether its name asks for the mended mode.
fn set(suite: &str) -> Option<(Apps, bool)> {
    let (plain, sane) = suite.strip_suffix(SANE).map_or((suite, false), |plain| (plain, true));
    Some((Apps::SCORED.into_iter().find(|apps| apps.suite() == plain)?, sane))
}

/// How many official tasks need a program: `3 of 51 tasks of officebench-2-apps, …`.
fn needing(data: Option<&Path>, program: Program) -> String {
    let sets = [Apps::Two, Apps::Three, Apps::One].into_iter().filter_map(|set| {
        let official = Official::open(data?, set).ok()?;
        let (tasks, _) = official.tasks().ok()?;
        let needing = tasks.iter().filter(|task| official.needs(task).contains(&program)).count();
        Some(format!("{needing} of {} tasks of {}", tasks.len(), set.suite()))
    });
    let sets: Vec<String> = sets.collect();
    if sets.is_empty() { "some OfficeBench tasks; --data counts them".into() } else { sets.join(", ") }
}

impl Benchmark for OfficeBench {
    fn name(&self) -> &'static str {
        NAME
    }
    fn kinds(&self) -> &'static [&'static str] {
        &[NAME]
    }
    fn open(&self, file: &SuiteFile, opening: &Opening<'_>) -> Result<Library, OpenError> {
        let BuiltIn { format, limits, prompt, tasks, .. } = file.read()?;
        let mut library = Library::built_in(OfficeSuite::new(opening.format(&format)?, limits, prompt), file, tasks);
        let boxless = |error| format!("OfficeBench's shell app and conversions fail in every episode: {error}");
        library.notes.extend(available().err().map(boxless));
        Ok(library)
    }
    fn official(&self) -> &'static [&'static str] {
        &["officebench-2-apps", "officebench-3-apps"]
    }
    fn serves(&self, suite: &str) -> bool {
        set(suite).is_some()
    }
    /// Tasks that need one app alone calibrate, where they are there.
    fn open_official(&self, suite: &str, data: &Path, opening: &Opening<'_>) -> Result<Library, OpenError> {
        let Options { mode } = opening.settings.read(NAME)?;
        let (apps, sane) = set(suite).ok_or_else(|| OpenError::NeedsOfficial(suite.to_owned()))?;
        let mode = if sane { Mode::Sane } else { mode };
        let wrong = |e: OfficialError| OpenError::of(apps.suite(), e);
        let official = Official::open(data, apps).map_err(wrong)?;
        let (mut sets, mut not_run) = (BTreeMap::new(), Vec::new());
        let one = Official::open(data, Apps::One).ok();
        for (split, official) in [("test", Some(&official)), ("calibration", one.as_ref())] {
            let Some(official) = official else { continue };
            let (mut tasks, digest) = official.tasks().map_err(wrong)?;
            tasks.retain(|task| {
                let lacking = official.needs(task).into_iter().find(|program| !program.installed());
                not_run.extend(lacking.map(|program| NotRun {
                    task: task.id.clone(),
                    lacks: format!("`{}` (packages: {})", program.command(), program.packages()),
                }));
                lacking.is_none()
            });
            sets.insert(split, TaskSet { tasks, digest });
        }
        let suite = OfficeSuite::official(opening.format(NAME)?, LIMITS, official, mode);
        let mut library = Library::with_tasks(suite, sets);
        library.not_run = not_run;
        Ok(library)
    }
    fn flags(&self) -> Vec<Flag> {
        vec![Flag::choice("mode", Taken::Reading, Mode::ALL.map(Mode::as_str)).or("official").help(
            "OfficeBench's official tasks as published, oddities and all, or with these mended (not comparable with published \
             scores; docs/officebench.md lists them)",
        )]
    }
    fn former(&self) -> &'static [(&'static str, &'static str)] {
        &[("officebench.mode", "mode")]
    }
    fn checked(&self, settings: &Settings) -> Result<Value, SettingsError> {
        settings.checked::<Options>(NAME)
    }
    fn data(&self, data: &Path, _: bool) -> Vec<OfficialData> {
        let count = |apps: Apps| {
            let (tasks, digest) = Official::open(data, apps)?.tasks()?;
            Ok(vec![OfficialData::counted("test", tasks.len(), digest)])
        };
        let one = |apps: Apps| OfficialData {
            suite: apps.suite(),
            from: "https://github.com/microsoft/Simia-Agent-Training (ea77d9d), OfficeBench/tasks (docs/officebench.md)",
            licence: "MIT (from OfficeBench, Apache-2.0)",
            found: count(apps).map_err(|e: OfficialError| e.to_string()),
        };
        Apps::SCORED.map(one).into()
    }
    fn needs(&self, _: &Settings, data: Option<&Path>) -> Vec<Need> {
        let program = |program: Program| Need::Thing {
            what: format!("{}, for {}", program.command(), needing(data, program)),
            found: program
                .installed()
                .then_some(())
                .ok_or_else(|| format!("these are not run; install {}", program.packages())),
            needed: false,
        };
        let mut needs: Vec<Need> = Program::ALL.map(program).into();
        needs.push(Need::Note(
            "no OfficeBench task of the paper's variant needs OCR or a language model for its `llm` app",
        ));
        needs
    }
    fn replies(&self) -> Option<(&'static str, ReplayReply)> {
        Some((NAME, reply))
    }
    fn recordings(&self) -> Option<&'static str> {
        Some("Steps of OfficeBench as the paper's experts were tuned on it; needs its data")
    }
    fn replay(&self, traces: &Path, data: &Path, _: &Settings) -> Result<Report, UnreadableError> {
        replay(traces, data)
    }
}
