//! AgentBench's suites on their official data.

use crate::suites::{Source, SuiteLibrary, SuiteOptions, SuitesError, format};
use rolegraft_checkpoint::Digest;
use rolegraft_suite::sandbox::{BoxUser, Image};
use rolegraft_suite::{AgentBenchProtocol, Limits, Suite, Task, TaskSet};
use rolegraft_suite_alfworld::{AlfWorldSuite, Profile};
use rolegraft_suite_db::{DbSuite, Place};
use rolegraft_suite_os::{OsSuite, Setup, Shell};
use rolegraft_suite_webshop::{Catalogue, Settings, WebShopSuite};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Suites of AgentBench with official data.
pub(crate) const SUITES: [&str; 4] = ["os", "dbbench", "webshop", "alfworld"];

/// What an official episode may use (arXiv 2601.07309, table 5), but for its turns, which are upstream's.
const fn limits(turns: usize) -> Limits {
    Limits { turns, tokens: 1024, temperature: 0.7, top_p: 1.0 }
}

/// Goals of WebShop's test set: upstream's first.
const WEBSHOP_TEST: Range = Range(0, 200);

/// How AgentBench's official tasks are played.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentBenchOptions {
    /// How the agent speaks.
    pub protocol: AgentBenchProtocol,
    /// What it sees of the shell.
    pub shell: Shell,
    /// The root folder of the boxes.
    pub os_root: Option<PathBuf>,
    /// Who root is in them; the better of the two here if absent.
    pub os_user: Option<BoxUser>,
    /// The boxes' Docker image, in place of a root folder; `{}` stands for the task's own.
    pub os_docker: Option<String>,
    /// The database server, `mysql://…` or `docker:IMAGE`; a private one if absent. It may hold a password, and is not shown.
    #[serde(skip_serializing)]
    pub db: Option<String>,
    /// Which generation of ALFWorld's texts.
    pub alfworld_profile: Profile,
    /// WebShop's catalogue.
    pub webshop: Settings,
    /// WebShop's goals that diagnose and calibrate: from the first number up to, and without, the second.
    pub webshop_dev: Range,
}

/// Numbers from the first up to, and without, the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range(pub usize, pub usize);

/// Upstream's goals for development.
impl Default for Range {
    fn default() -> Self {
        Self(200, 280)
    }
}

impl AgentBenchOptions {
    /// What the boxes hold.
    #[must_use]
    pub fn image(&self) -> Option<Image> {
        let root = || {
            let user = self.os_user.unwrap_or_else(BoxUser::best);
            Some(Image::Root { path: self.os_root.clone()?, user })
        };
        self.os_docker.clone().map(Image::Docker).or_else(root)
    }
}

/// Opens one of [`SUITES`].
pub(crate) fn open(options: &SuiteOptions<'_>, name: &str, data: &Path) -> Result<SuiteLibrary, SuitesError> {
    match name {
        "os" => open_os(options, data),
        "dbbench" => open_db(options, data),
        "webshop" => open_webshop(options, data),
        _ => open_alfworld(options, data),
    }
}

fn official(suite: &str, source: impl std::error::Error + Send + Sync + 'static) -> SuitesError {
    SuitesError::Official { suite: suite.into(), source: Box::new(source) }
}

/// A suite whose one small set beside the test set both diagnoses and calibrates.
fn library(suite: impl Suite + 'static, mut sets: BTreeMap<&'static str, TaskSet>) -> SuiteLibrary {
    let small = sets.get("dev").cloned();
    sets.extend(small.map(|set| ("calibration", set)));
    SuiteLibrary { suite: Arc::new(suite), source: Source::Official(sets), not_run: Vec::new(), lacks: None }
}

/// AgentBench OS on its official tasks.
fn open_os(options: &SuiteOptions<'_>, data: &Path) -> Result<SuiteLibrary, SuitesError> {
    let wrong = |source: rolegraft_suite_os::OfficialError| official("os", source);
    let chosen = options.agentbench;
    let image = chosen.image().ok_or(SuitesError::NoRoot)?;
    let tasks_of = rolegraft_suite_os::Official::open(data).map_err(wrong)?;
    let mut sets = BTreeMap::new();
    for (split, file) in [("test", "test"), ("dev", "dev")] {
        let (mut tasks, digest) = tasks_of.tasks(file).map_err(wrong)?;
        let bad = |task: &Task| rolegraft_suite_os::KNOWN_BAD.iter().any(|(id, _)| *id == task.id);
        tasks.retain(|task| !(options.tau.exclude_known_bad && bad(task)));
        sets.insert(split, TaskSet { tasks, digest });
    }
    let protocol = chosen.protocol;
    let setup = Setup {
        protocol,
        shell: chosen.shell,
        image,
        prompt: rolegraft_suite_os::Prompt::upstream(protocol),
        trims: protocol == AgentBenchProtocol::Text,
    };
    let suite = OsSuite::new(format(options.root, protocol.format(rolegraft_suite_os::FORMAT))?, limits(8), setup);
    Ok(library(suite, sets))
}

/// DB-bench on its official tasks.
fn open_db(options: &SuiteOptions<'_>, data: &Path) -> Result<SuiteLibrary, SuitesError> {
    use rolegraft_suite_db::{FORMAT, KNOWN_BAD, Prompt, entries, folder};
    let wrong = |source: rolegraft_suite_db::OfficialError| official("dbbench", source);
    let protocol = options.agentbench.protocol;
    let folder = folder(data).map_err(wrong)?;
    let mut sets = BTreeMap::new();
    for (split, file) in [("test", "standard.jsonl"), ("dev", "dev.jsonl")] {
        let entries = entries(&folder, file, protocol == AgentBenchProtocol::Fc).map_err(wrong)?;
        let digest = Digest::of(&serde_json::to_vec(&entries).unwrap_or_default()).as_str().to_owned();
        let stem = file.trim_end_matches(".jsonl");
        let bad = |i: usize| {
            let known = KNOWN_BAD.iter().find(|(index, ..)| *index == i && split == "test");
            known.is_some_and(|(_, text_only, _)| !text_only || protocol == AgentBenchProtocol::Text)
        };
        let numbered = entries.into_iter().enumerate();
        let wanted = numbered.filter(|(i, _)| !(options.tau.exclude_known_bad && bad(*i)));
        let tasks = wanted.map(|(i, fields)| Task { id: format!("{stem}-{i:03}"), fields }).collect();
        sets.insert(split, TaskSet { tasks, digest });
    }
    let place = Place::named(options.agentbench.db.as_deref());
    let format = format(options.root, protocol.format(FORMAT))?;
    let suite = DbSuite::new(protocol, format, limits(15), Prompt::upstream(), place);
    Ok(library(suite, sets))
}

/// AgentBench WebShop on a catalogue.
fn open_webshop(options: &SuiteOptions<'_>, data: &Path) -> Result<SuiteLibrary, SuitesError> {
    use rolegraft_suite_webshop::{FORMAT, Prompts};
    let chosen = options.agentbench;
    let folder = Catalogue::folder(data, &chosen.webshop);
    let watch = |products: u32| {
        if let Some(progress) = options.progress {
            progress.note(&format!("indexing WebShop's catalogue: {products} products"));
        }
    };
    let catalogue = Catalogue::open(&folder, &chosen.webshop, &watch).map_err(|e| official("webshop", e))?;
    if let Some(progress) = options.progress {
        progress.note(&format!(
            "WebShop: {} products, {} goals; nouns of titles: {}",
            catalogue.len(),
            catalogue.goals().len(),
            catalogue.nouns_source()
        ));
    }
    let mut sets = BTreeMap::new();
    for (split, field, Range(from, to)) in [("test", "test", WEBSHOP_TEST), ("dev", "webshop_dev", chosen.webshop_dev)]
    {
        let goals = catalogue.goals().get(from..to.min(catalogue.goals().len())).unwrap_or_default();
        if goals.is_empty() {
            return Err(SuitesError::NoGoals { goals: catalogue.goals().len(), field, from, to });
        }
        let digest = Digest::of(&serde_json::to_vec(goals).unwrap_or_default()).as_str().to_owned();
        let task = |number: usize| Task { id: format!("webshop-{number:03}"), fields: json!({"goal": number}) };
        sets.insert(split, TaskSet { tasks: (from..from + goals.len()).map(task).collect(), digest });
    }
    let protocol = chosen.protocol;
    let limits = limits(if protocol == AgentBenchProtocol::Fc { 20 } else { 10 });
    let format = format(options.root, protocol.format(FORMAT))?;
    let prompts = Prompts::upstream().clone();
    Ok(library(WebShopSuite::new(protocol, format, limits, prompts, Some(Arc::new(catalogue))), sets))
}

/// AgentBench ALFWorld on the official games.
fn open_alfworld(options: &SuiteOptions<'_>, data: &Path) -> Result<SuiteLibrary, SuitesError> {
    use rolegraft_suite_alfworld::{FORMAT, Official, OfficialError, Prompts};
    let wrong = |source: OfficialError| official("alfworld", source);
    let games = Official::open(data).map_err(wrong)?;
    let protocol = options.agentbench.protocol;
    let (test, turns) = match protocol {
        AgentBenchProtocol::Text => ("standard", 35),
        AgentBenchProtocol::Fc => ("new_std", 20),
    };
    let mut sets = BTreeMap::new();
    for (split, list) in [("test", test), ("dev", "dev")] {
        let (tasks, digest) = games.tasks(list).map_err(wrong)?;
        sets.insert(split, TaskSet { tasks, digest });
    }
    let setup = rolegraft_suite_alfworld::Setup {
        protocol,
        profile: options.agentbench.alfworld_profile,
        prompts: Prompts::upstream().clone(),
        games: games.root().to_owned(),
        logic: None,
    };
    let format = format(options.root, protocol.format(FORMAT))?;
    Ok(library(AlfWorldSuite::new(format, limits(turns), setup), sets))
}
