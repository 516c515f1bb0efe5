//! `benchmarks/SUITE/suite.toml`, and the official data: concrete suites by name.

use crate::agentbench::{self, AgentBenchOptions};
use crate::engine::{EngineError, EngineKind, open_user};
use crate::progress::Progress;
use crate::speaker::ModelSpeaker;
use rolegraft_checkpoint::Digest;
use rolegraft_spans::{Format, FormatError};
use rolegraft_suite::{AgentBenchProtocol, Limits, Speaker, Split, Suite, Task, TaskSet, TasksError};
use rolegraft_suite_alfworld::{AlfWorldSuite, Profile};
use rolegraft_suite_db::{DbSuite, Place, Server};
use rolegraft_suite_office::{Apps, Mode, OfficeSuite, SANE};
use rolegraft_suite_os::{OsSuite, Setup};
use rolegraft_suite_remote::{Api, Client, Controller, RemoteSuite};
use rolegraft_suite_tau::{Domain, Protocol, Strategy, TauSetup, TauSuite, Users, known_bad};
use rolegraft_suite_webshop::WebShopSuite;
use rolegraft_trajectory::ChatArguments;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// Why a suite cannot be set up.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum SuitesError {
    #[error("there is no suite `{suite}`: `{}` is missing", path.display())]
    Missing { suite: String, path: PathBuf },
    #[error("`{}`: {message}", path.display())]
    Toml { path: PathBuf, message: String },
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error(transparent)]
    Tasks(#[from] TasksError),
    #[error("suite `{suite}`: {source}")]
    Official { suite: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error(
        "suite `{0}` has no official data to read (tau-retail, tau-airline, officebench-2-apps, officebench-3-apps, os, \
         dbbench, webshop and alfworld have); leave out --data, and unset ROLEGRAFT_DATA"
    )]
    NoOfficial(String),
    #[error("suite `{0}` has official tasks only: say with --data where they are")]
    NeedsOfficial(String),
    #[error("suite `{suite}` has no `{split}` tasks{hint}")]
    NoSplit { suite: String, split: &'static str, hint: &'static str },
    #[error("suite `{suite}` has {found} `{split}` tasks, but {wanted} are asked for")]
    TooFew { suite: String, split: &'static str, found: usize, wanted: usize },
    #[error(
        "a user played as `{0}` needs a model: name one with --user-model (in an experiment: `user_model` under [tau])"
    )]
    NoUserModel(&'static str),
    #[error("a person can only take part in `rolegraft eval`")]
    NoPerson,
    #[error("suite `{suite}` has its own prompt for `{own}`; play it in another format on the official data only")]
    OtherProtocol { suite: String, own: &'static str },
    #[error(
        "AgentBench's OS tasks change everything in their box: name a root folder for it with --os-root, or a Docker image with \
         --os-docker (in an experiment: `os_root` or `os_docker` under [agentbench]); docs/agentbench.md says how to make either"
    )]
    NoRoot,
    #[error("the catalogue has {goals} goals; `{field}` asks for those from {from} to {to}")]
    NoGoals { goals: usize, field: &'static str, from: usize, to: usize },
    #[error("suite `{suite}`: {reason}")]
    Remote { suite: String, reason: String },
    #[error("the user's model: {0}")]
    User(Box<EngineError>),
}

/// How τ-bench is played.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TauOptions {
    /// How the agent calls tools; `hermes` if absent.
    pub format: Option<Protocol>,
    /// Who answers the agent.
    pub user: Strategy,
    /// The model that plays the user: an endpoint or a checkpoint.
    pub user_model: Option<String>,
    /// Leave out official tasks whose expected outcome is known to be wrong.
    pub exclude_known_bad: bool,
}

/// How OfficeBench's official tasks are played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OfficeOptions {
    /// Whether upstream's oddities are kept.
    pub mode: Mode,
}

/// Where suites come from and how they are played.
pub struct SuiteOptions<'a> {
    /// Folder of the suites' folders.
    pub root: &'a Path,
    /// Official data; a suite that has none is played on its built-in tasks.
    pub data: Option<&'a Path>,
    /// τ-bench's options.
    pub tau: &'a TauOptions,
    /// OfficeBench's options.
    pub office: OfficeOptions,
    /// AgentBench's options.
    pub agentbench: &'a AgentBenchOptions,
    /// The person who plays the user, where one does.
    pub person: Option<Arc<dyn Speaker>>,
    /// Where a simulated user's model runs.
    pub runtime: &'a Handle,
    /// What plays a user's checkpoint.
    pub engine: EngineKind,
    /// How the agent's conversations are rendered; a user's have the day in common with them.
    pub chat: &'a ChatArguments,
    /// Who is told of work that takes long.
    pub progress: Option<&'a dyn Progress>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SuiteFile {
    kind: Kind,
    format: String,
    limits: Limits,
    prompt: toml::Value,
    tasks: BTreeMap<String, PathBuf>,
    /// For ALFWorld: the domain and the grammar of its games.
    domain: Option<PathBuf>,
    grammar: Option<PathBuf>,
}

#[derive(Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    TauRetail,
    TauAirline,
    Officebench,
    Os,
    Dbbench,
    Webshop,
    Alfworld,
}

/// A suite on one of AgentBench's servers.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoteFile {
    /// Its address: `http://HOST:5000/api`. Absent: the worker that reports itself at `listen`.
    remote: Option<String>,
    /// Where workers of the function-call version send their heartbeats: `0.0.0.0:5020`.
    listen: Option<String>,
    /// The server's name of the task.
    task: String,
    #[serde(default)]
    api: Api,
    format: String,
    limits: Limits,
}

/// How long to wait for a worker to report itself.
const WORKER_PATIENCE: Duration = Duration::from_secs(60);

/// A suite with its task files.
pub struct SuiteLibrary {
    /// The rules.
    pub suite: Arc<dyn Suite>,
    pub(crate) source: Source,
    pub(crate) not_run: Vec<NotRun>,
    pub(crate) lacks: Option<&'static str>,
}

/// A task that cannot be played here, and is therefore neither played nor counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotRun {
    /// Which.
    pub task: String,
    /// What it lacks: a program, and the packages that bring it.
    pub lacks: String,
}

pub(crate) enum Source {
    /// Files by split.
    Files(BTreeMap<String, PathBuf>),
    /// Tasks of the official data, by split.
    Official(BTreeMap<&'static str, TaskSet>),
}

/// What an official τ-bench episode may use (arXiv 2601.07309, table 5).
const TAU_LIMITS: Limits = Limits { turns: 30, tokens: 1024, temperature: 0.2, top_p: 1.0 };
/// What an official OfficeBench episode may use (the same table; turns of the published runs).
const OFFICE_LIMITS: Limits = Limits { turns: 25, tokens: 512, temperature: 0.7, top_p: 1.0 };

impl SuiteOptions<'_> {
    fn users(&self) -> Result<Users, SuitesError> {
        let strategy = self.tau.user;
        if strategy == Strategy::Human {
            let person = self.person.clone().ok_or(SuitesError::NoPerson)?;
            return Ok(Users::played(strategy, None, person));
        }
        if !strategy.needs_model() {
            return Ok(Users::scripted());
        }
        let name = self.tau.user_model.as_ref().ok_or(SuitesError::NoUserModel(strategy.as_str()))?;
        let model = self
            .runtime
            .block_on(open_user(name, self.engine, &self.chat.only_date()))
            .map_err(|e| SuitesError::User(Box::new(e)))?;
        let speaker = ModelSpeaker { model, runtime: self.runtime.clone() };
        Ok(Users::played(strategy, Some(name.clone()), Arc::new(speaker)))
    }
}

impl SuiteLibrary {
    /// Opens the suite `name`: on the official data where there is any and the suite has some, else `ROOT/NAME`. A format
    /// in `ROOT/../parsers` wins over the built-in one of the same name.
    ///
    /// # Errors
    /// If a file is missing or wrong, or the user cannot be played as asked.
    pub fn open(options: &SuiteOptions<'_>, name: &str) -> Result<Self, SuitesError> {
        if let (Some(data), Some(domain)) = (options.data, Domain::ALL.into_iter().find(|d| d.suite() == name)) {
            return Self::open_tau(options, domain, data);
        }
        let (plain, mode) = name.strip_suffix(SANE).map_or((name, options.office.mode), |plain| (plain, Mode::Sane));
        if let Some(apps) = Apps::SCORED.into_iter().find(|apps| apps.suite() == plain) {
            let data = options.data.ok_or_else(|| SuitesError::NeedsOfficial(name.to_owned()))?;
            return Self::open_office(options, apps, mode, data);
        }
        match (options.data, name) {
            (Some(data), name) if agentbench::SUITES.contains(&name) => return agentbench::open(options, name, data),
            _ => {}
        }
        let dir = options.root.join(name);
        let path = dir.join("suite.toml");
        let text = std::fs::read_to_string(&path)
            .map_err(|_| SuitesError::Missing { suite: name.to_owned(), path: path.clone() })?;
        let wrong = |message: String| SuitesError::Toml { path: path.clone(), message };
        let table: toml::Table = toml::from_str(&text).map_err(|e| wrong(e.to_string()))?;
        if table.contains_key("remote") || table.contains_key("listen") {
            let file: RemoteFile = toml::from_str(&text).map_err(|e| wrong(e.to_string()))?;
            return Self::open_remote(options, name, &file);
        }
        let file: SuiteFile = toml::from_str(&text).map_err(|e| wrong(e.to_string()))?;
        let format = format(options.root, &file.format)?;
        let prompt = file.prompt;
        let tau = |domain, format, prompt: toml::Value| -> Result<Arc<dyn Suite>, SuitesError> {
            let prompt: SystemPrompt = prompt.try_into().map_err(|e: toml::de::Error| wrong(e.to_string()))?;
            if options.tau.format.is_some_and(|f| f != Protocol::Hermes) {
                return Err(SuitesError::OtherProtocol { suite: name.to_owned(), own: Protocol::Hermes.as_str() });
            }
            let setup = TauSetup {
                domain,
                protocol: Protocol::Hermes,
                format,
                limits: file.limits,
                system: prompt.system,
                users: options.users()?,
                tools: Vec::new(),
                tables: None,
            };
            Ok(Arc::new(TauSuite::new(setup)?))
        };
        let suite: Arc<dyn Suite> = match file.kind {
            Kind::TauRetail => tau(Domain::Retail, format, prompt)?,
            Kind::TauAirline => tau(Domain::Airline, format, prompt)?,
            Kind::Officebench => {
                let prompt = prompt.try_into().map_err(|e: toml::de::Error| wrong(e.to_string()))?;
                Arc::new(OfficeSuite::new(format, file.limits, prompt))
            }
            Kind::Dbbench => {
                let prompt = prompt.try_into().map_err(|e: toml::de::Error| wrong(e.to_string()))?;
                let place = Place::named(options.agentbench.db.as_deref());
                let protocol = AgentBenchProtocol::Text;
                Arc::new(DbSuite::new(protocol, format, file.limits, prompt, place))
            }
            Kind::Webshop => {
                let prompts = prompt.try_into().map_err(|e: toml::de::Error| wrong(e.to_string()))?;
                Arc::new(WebShopSuite::new(AgentBenchProtocol::Text, format, file.limits, prompts, None))
            }
            Kind::Alfworld => {
                let prompts = prompt.try_into().map_err(|e: toml::de::Error| wrong(e.to_string()))?;
                let read = |part: &Option<PathBuf>, what: &str| {
                    let part = part.as_ref().ok_or_else(|| wrong(format!("`{what}` is missing")))?;
                    std::fs::read_to_string(dir.join(part))
                        .map_err(|e| wrong(format!("{what} `{}`: {e}", part.display())))
                };
                let logic = Some((read(&file.domain, "domain")?, read(&file.grammar, "grammar")?));
                let (protocol, profile) = (AgentBenchProtocol::Text, Profile::Embedded);
                let setup = rolegraft_suite_alfworld::Setup { protocol, profile, prompts, games: dir.clone(), logic };
                Arc::new(AlfWorldSuite::new(format, file.limits, setup))
            }
            Kind::Os => {
                let prompt = prompt.try_into().map_err(|e: toml::de::Error| wrong(e.to_string()))?;
                let setup = Setup { prompt, ..Default::default() };
                Arc::new(OsSuite::new(format, file.limits, setup))
            }
        };
        let tasks = file.tasks.into_iter().map(|(split, path)| (split, dir.join(path))).collect();
        let server = "a MariaDB (package: mariadb-server-core), or a server named with --db (`db` under [agentbench])";
        let no_server = file.kind == Kind::Dbbench && options.agentbench.db.is_none() && !Server::installed();
        Ok(Self { suite, source: Source::Files(tasks), not_run: Vec::new(), lacks: no_server.then_some(server) })
    }

    /// Whether a suite has official data that is read here.
    #[must_use]
    pub fn has_official(name: &str) -> bool {
        let plain = name.strip_suffix(SANE).unwrap_or(name);
        agentbench::SUITES.contains(&name)
            || Domain::ALL.iter().any(|d| d.suite() == name)
            || Apps::SCORED.iter().any(|apps| apps.suite() == plain)
    }

    /// What this machine lacks for any of its tasks.
    #[must_use]
    pub fn lacks(&self) -> Option<&'static str> {
        self.lacks
    }

    /// Tasks of all splits that cannot be played here.
    #[must_use]
    pub fn not_run(&self) -> &[NotRun] {
        &self.not_run
    }

    /// OfficeBench on its official tasks; those that need one app alone calibrate, where they are there.
    fn open_office(options: &SuiteOptions<'_>, apps: Apps, mode: Mode, data: &Path) -> Result<Self, SuitesError> {
        let wrong = |source: rolegraft_suite_office::OfficialError| SuitesError::Official {
            suite: apps.suite().to_owned(),
            source: Box::new(source),
        };
        let official = rolegraft_suite_office::Official::open(data, apps).map_err(wrong)?;
        let (mut sets, mut not_run) = (BTreeMap::new(), Vec::new());
        let one = rolegraft_suite_office::Official::open(data, Apps::One).ok();
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
        let format = format(options.root, "officebench")?;
        let suite = OfficeSuite::official(format, OFFICE_LIMITS, official, mode);
        Ok(Self { suite: Arc::new(suite), source: Source::Official(sets), not_run, lacks: None })
    }

    /// A suite on a server: its samples are the test tasks.
    fn open_remote(options: &SuiteOptions<'_>, name: &str, file: &RemoteFile) -> Result<Self, SuitesError> {
        let failed = |reason: String| SuitesError::Remote { suite: name.to_owned(), reason };
        let address = match (&file.remote, &file.listen) {
            (Some(address), _) => address.clone(),
            (None, Some(listen)) => {
                let controller = Controller::listen(listen).map_err(|e| failed(format!("`{listen}`: {e}")))?;
                let worker = controller.worker(&file.task, WORKER_PATIENCE);
                let none =
                    || failed(format!("no worker of `{}` reported itself at {}", file.task, controller.address()));
                worker.ok_or_else(none)?.address
            }
            (None, None) => return Err(failed("neither `remote` nor `listen`".into())),
        };
        let client = Client::new(&address).map_err(|e| failed(e.to_string()))?;
        let format = format(options.root, &file.format)?;
        let suite = RemoteSuite::open(name, &file.task, file.api, client, format, file.limits);
        let suite = suite.map_err(|e| failed(e.to_string()))?;
        let tasks = suite.tasks();
        let names: Vec<&str> = tasks.iter().map(|task| task.id.as_str()).collect();
        let digest = Digest::of(names.join("\n").as_bytes()).as_str().to_owned();
        let sets = [("test", TaskSet { tasks, digest })].into();
        Ok(Self { suite: Arc::new(suite), source: Source::Official(sets), not_run: Vec::new(), lacks: None })
    }

    /// τ-bench on its official data. Upstream's split `train` calibrates.
    fn open_tau(options: &SuiteOptions<'_>, domain: Domain, data: &Path) -> Result<Self, SuitesError> {
        let wrong = |source: rolegraft_suite_tau::OfficialError| SuitesError::Official {
            suite: domain.suite().to_owned(),
            source: Box::new(source),
        };
        let official = rolegraft_suite_tau::Official::open(data, domain).map_err(wrong)?;
        let protocol = options.tau.format.unwrap_or(Protocol::Hermes);
        let mut sets = BTreeMap::new();
        for (split, file) in [("test", "test"), ("dev", "dev"), ("calibration", "train")] {
            let Some((goals, text)) = official.tasks(file).map_err(wrong)? else { continue };
            let mut tasks = Vec::new();
            for (index, goal) in goals.iter().enumerate() {
                if options.tau.exclude_known_bad
                    && known_bad(domain).iter().any(|t| t.split == file && t.index == index)
                {
                    continue;
                }
                let id = format!("{}-{file}-{index:03}", domain.as_str());
                tasks.push(Task { id, fields: goal.fields(protocol) });
            }
            sets.insert(split, TaskSet { tasks, digest: Digest::of(text.as_bytes()).to_string() });
        }
        let setup = TauSetup {
            domain,
            protocol,
            format: format(options.root, protocol.format())?,
            limits: TAU_LIMITS,
            system: protocol.system(&official.wiki, &official.tools),
            users: options.users()?,
            tools: official.tools,
            tables: Some(official.tables),
        };
        Ok(Self {
            suite: Arc::new(TauSuite::new(setup)?),
            source: Source::Official(sets),
            not_run: Vec::new(),
            lacks: None,
        })
    }

    /// The first `limit` tasks of a split.
    ///
    /// # Errors
    /// If the file is missing or has fewer.
    pub fn tasks(&self, split: Split, limit: Option<usize>) -> Result<TaskSet, SuitesError> {
        let (suite, name) = (self.suite.id(), split.as_str());
        let none = |hint| SuitesError::NoSplit { suite: suite.to_owned(), split: name, hint };
        match &self.source {
            Source::Files(files) => {
                let file = files.get(name).ok_or_else(|| none("; add them to its suite.toml"))?;
                Ok(TaskSet::read(file, limit)?)
            }
            Source::Official(sets) => {
                let set = sets.get(name).ok_or_else(|| none(" in its official data"))?;
                let wanted = limit.unwrap_or(set.tasks.len());
                if set.tasks.len() < wanted {
                    let found = set.tasks.len();
                    return Err(SuitesError::TooFew { suite: suite.to_owned(), split: name, found, wanted });
                }
                Ok(TaskSet { tasks: set.tasks[..wanted].to_vec(), digest: set.digest.clone() })
            }
        }
    }
}

pub(crate) fn format(root: &Path, name: &str) -> Result<Format, SuitesError> {
    let own = root.join("../parsers").join(format!("{name}.toml"));
    Ok(if own.exists() { Format::load(&own)? } else { Format::builtin(name)? })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SystemPrompt {
    system: String,
}
