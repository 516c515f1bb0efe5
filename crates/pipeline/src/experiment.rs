//! The experiment file.

pub use crate::columns::{BenchmarkEntry, Share, TaskCounts};
use crate::compute::Compute;
use crate::endpoints::{EndpointRules, Endpoints, is_endpoint};
use crate::engine::EngineKind;
use rolegraft_checkpoint::Location;
use rolegraft_decoder::Precision;
use rolegraft_graft::{DiagnosisRules, Protect};
use rolegraft_merge::{Preset, Recipe, nearest};
use rolegraft_servers::{ServerRules, Urls};
use rolegraft_suites::{AllSettings, Registry, Setup, Split};
use rolegraft_trajectory::ChatArguments;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// An experiment, as its file says it; paths are relative to the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// Names the run's directory.
    pub name: String,
    /// Seeds every draw.
    #[serde(default)]
    pub seed: u64,
    /// What plays the models.
    #[serde(default)]
    pub engine: EngineKind,
    /// Engines side by side; on a card, replies at once. 0: one a core; on a card, 32.
    #[serde(default)]
    pub engines: usize,
    /// Devices and memory.
    #[serde(default)]
    pub compute: Compute,
    /// How models are traced.
    #[serde(default)]
    pub trace: TraceRules,
    /// How servers of models are asked.
    #[serde(default)]
    pub endpoint: EndpointRules,
    /// How servers of models that play a user are asked.
    #[serde(default)]
    pub user_endpoint: EndpointRules,
    /// Servers that are started for the checkpoints, or named, where `engine` is `server`.
    #[serde(default)]
    pub server: Option<ServerRules>,
    /// Folder of the suites' folders.
    pub suites: PathBuf,
    /// Official data; without it every suite plays its built-in tasks.
    #[serde(default)]
    pub data: Option<PathBuf>,
    /// Every benchmark's own settings, which may hold secrets: `[suite.NAME]`.
    #[serde(default, skip_serializing)]
    pub suite: AllSettings,
    /// The benchmarks there are.
    #[serde(skip)]
    pub registry: Registry,
    /// Arguments of the chat templates: `enable_thinking = false`, and `date`, the day that some write.
    #[serde(default)]
    pub chat: ChatArguments,
    /// The checkpoints.
    pub pool: Pool,
    /// Columns of the tables.
    pub benchmark: Vec<BenchmarkEntry>,
    /// Tasks per suite.
    pub tasks: TaskCounts,
    /// Candidate backbones, in the order that breaks ties. Without a word of them, the [preset](auto) where weights can be merged; with an
    /// empty list, or models behind servers, the pool is evaluated as it is.
    #[serde(default)]
    pub candidate: Vec<CandidateEntry>,
    /// Salient sets.
    #[serde(default)]
    pub saliency: SaliencyRules,
    /// What makes a candidate the backbone.
    #[serde(default)]
    pub selection: SelectionRules,
    /// What makes a benchmark weak.
    #[serde(default)]
    pub diagnosis: DiagnosisRules,
    /// The transplant.
    #[serde(default)]
    pub transplant: TransplantRules,
}

/// The models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// The model the experts come from.
    pub base: Source,
    /// Experts by name.
    pub experts: BTreeMap<String, Source>,
}

/// Where a model is. Weights of one behind a server cannot be merged; it can be played.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Source {
    /// A checkpoint directory.
    Checkpoint(PathBuf),
    /// An address, `http(s)://HOST/v1#MODEL`.
    Endpoint(String),
}

impl From<String> for Source {
    fn from(text: String) -> Self {
        if is_endpoint(&text) { Self::Endpoint(text) } else { Self::Checkpoint(text.into()) }
    }
}

impl From<Source> for String {
    fn from(source: Source) -> Self {
        match source {
            Source::Checkpoint(dir) => dir.to_string_lossy().into_owned(),
            Source::Endpoint(address) => address,
        }
    }
}

impl Pool {
    /// Every model by the name that tables call it.
    pub(crate) fn models(&self) -> impl Iterator<Item = (&str, &Source)> {
        std::iter::once(("base", &self.base)).chain(self.experts.iter().map(|(name, source)| (name.as_str(), source)))
    }
}

/// A candidate backbone: a name, an operator, and its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CandidateEntry {
    /// Its name in tables.
    pub name: String,
    /// How it is merged.
    pub operator: String,
    /// With what; the rest as the preset `arm` has it.
    #[serde(default)]
    pub parameters: BTreeMap<String, serde_json::Value>,
    /// Seed of random operators.
    #[serde(default)]
    pub seed: u64,
}

/// The candidates of an experiment that names none: what the built-in pools recommend (docs/study/README.md).
#[must_use]
pub fn auto() -> Vec<CandidateEntry> {
    let entry = |name: &str, operator: &str, parameters: serde_json::Value| CandidateEntry {
        name: name.to_owned(),
        operator: operator.to_owned(),
        parameters: parameters.as_object().cloned().unwrap_or_default().into_iter().collect(),
        seed: 0,
    };
    let weights = json!({"context": 0.3});
    let anchor = json!({"merge_method": "task_arithmetic", "parameters": {"lambda": 0.7, "normalize": true}});
    vec![
        entry("average", "average", json!({})),
        entry("swudi", "swudi", json!({})),
        entry("regmean", "regmean", json!({"ridge": 0.003, "weights": weights, "embedding": 1.0})),
        entry("anchored", "regmean", json!({"ridge": 0.1, "weights": weights, "anchor": anchor, "rest": "anchor"})),
    ]
}

impl CandidateEntry {
    /// How it is merged from a base and experts of these names.
    pub(crate) fn recipe(&self, base: &str, experts: &[&str]) -> Result<Recipe, String> {
        let recipe = Recipe::of_pool(&self.operator, &self.parameters, base, experts, Preset::Arm);
        // Lines are those of the recipe that is made of it.
        let told = |why: String| match why.strip_prefix("line ").and_then(|rest| rest.split_once(": ")) {
            Some((_, why)) => why.to_owned(),
            None => why,
        };
        let recipe = recipe.map_err(|why| format!("candidate `{}`: {}", self.name, told(why)))?;
        match &recipe.fit {
            Some(fit) if !fit.calibration.is_empty() => Err(format!(
                "candidate `{}` names calibration sets; an experiment fits experts to its own, so leave `calibration` out",
                self.name
            )),
            _ => Ok(recipe),
        }
    }
}

/// Which tokens count, and how many neurons are salient.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SaliencyRules {
    /// Share of a layer's neurons.
    pub k: f64,
    /// Which position stands for a token.
    pub shift: Shift,
    /// Role tokens, all tokens of the model's turns, or all there are.
    pub tokens: Tokens,
}

impl Default for SaliencyRules {
    fn default() -> Self {
        Self { k: 0.1, shift: Shift::Read, tokens: Tokens::Role }
    }
}

/// What makes a candidate the backbone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SelectionRules {
    /// The measure.
    pub by: SelectBy,
}

/// By what candidates are ranked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SelectBy {
    /// Activation overlap with the experts (the paper's).
    #[default]
    Aos,
    /// Scores on the dev tasks of the benchmarks that an expert serves, averaged: every candidate plays them.
    Dev,
}

/// How models are traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TraceRules {
    /// How exactly a GPU multiplies; F32 is the reference.
    pub precision: Precision,
}

/// Which position stands for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shift {
    /// Where the model reads it (the paper's).
    Read,
    /// Where the model predicts it: one earlier.
    Predict,
}

impl Shift {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Read, Self::Predict];

    /// The name used in files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Predict => "predict",
        }
    }
}

/// Which tokens are traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tokens {
    /// Those of role spans.
    Role,
    /// All tokens of the model's turns: the ablation.
    #[serde(alias = "response")]
    Reply,
    /// All tokens, those that the model only read included.
    All,
}

impl Tokens {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Role, Self::Reply, Self::All];

    /// The name used in files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Role => "role",
            Self::Reply => "reply",
            Self::All => "all",
        }
    }
}

/// The transplant.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransplantRules {
    /// Whose neurons are left alone, or whose roles' inputs.
    pub protect: Protect,
    /// What is taken of a donor.
    pub graft: GraftOf,
    /// Which of a donor's neurons are salient.
    #[serde(skip_serializing_if = "GraftBy::is_usual")]
    pub saliency: GraftBy,
    /// Of a projected graft, λ: the less, the less of the change survives where protected inputs lie.
    pub ridge: f64,
    /// Of a projected graft, the share of the energy of protected inputs that is protected: the less, the more survives.
    pub energy: f64,
    /// Whether a projected graft takes attention's maps too.
    pub attention: bool,
    /// Whether a projected graft takes the embedding and the head too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub embedding: bool,
}

/// What is taken of a donor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GraftOf {
    /// Salient neurons (the paper's).
    #[default]
    Neurons,
    /// The whole change of the MLPs, but for what would show at protected roles.
    Projected,
}

/// Which of a donor's neurons are salient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GraftBy {
    /// The most active at role tokens (the paper's).
    #[default]
    Activation,
    /// Those that differ most from the backbone's there, in what they give: E |z − z_backbone| · ‖down_proj[:, j]‖.
    Change,
}

impl GraftBy {
    fn is_usual(&self) -> bool {
        *self == Self::Activation
    }
}

impl Default for TransplantRules {
    fn default() -> Self {
        Self {
            protect: Protect::Strict,
            graft: GraftOf::Neurons,
            saliency: GraftBy::Activation,
            ridge: 1e-4,
            energy: 0.95,
            attention: false,
            embedding: false,
        }
    }
}

/// Why an experiment file cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum ExperimentError {
    #[error("cannot read the experiment `{}`", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("`{}`: {message}", path.display())]
    Toml { path: PathBuf, message: String },
    #[error("`{}`: {what}", path.display())]
    Rule { path: PathBuf, what: String },
}

impl Experiment {
    /// Reads and checks an experiment file, and makes its paths absolute or relative to the working directory.
    ///
    /// # Errors
    /// If the file is missing, has unknown keys or operators (the nearest known one is suggested), or contradicts
    /// itself.
    pub fn read(path: &Path) -> Result<Self, ExperimentError> {
        Self::read_with(path, Registry::default())
    }

    /// The same, with other benchmarks than the program's own.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_with(path: &Path, registry: Registry) -> Result<Self, ExperimentError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ExperimentError::Read { path: path.to_owned(), source })?;
        let rule = |what: String| ExperimentError::Rule { path: path.to_owned(), what };
        let former = toml::from_str(&text).ok().map(|table| registry.modern(&table)).transpose();
        let modern = former.map_err(|e| rule(e.to_string()))?.flatten().map(|table| table.to_string());
        let mut experiment: Self = toml::from_str(modern.as_deref().unwrap_or(&text))
            .map_err(|e| ExperimentError::Toml { path: path.to_owned(), message: suggest(&e.to_string()) })?;
        experiment.registry = registry;
        let says = |table: &toml::Table| table.contains_key("candidate");
        if !toml::from_str(&text).is_ok_and(|table| says(&table)) && experiment.may_merge() {
            experiment.candidate = auto();
        }
        let here = path.parent().unwrap_or(Path::new(""));
        experiment.suites = here.join(&experiment.suites);
        experiment.data.iter_mut().for_each(|dir| *dir = here.join(&*dir));
        for rules in [&mut experiment.endpoint, &mut experiment.user_endpoint] {
            rules.tokenizer.iter_mut().for_each(|dir| *dir = here.join(&*dir));
        }
        if let Some(Urls::Folder(folder)) = experiment.server.as_mut().and_then(|server| server.urls.as_mut()) {
            *folder = here.join(&*folder);
        }
        let pool = &mut experiment.pool;
        let mut base = None;
        for source in std::iter::once(&mut pool.base).chain(pool.experts.values_mut()) {
            if let Source::Checkpoint(path) = source {
                *path = Location::relative(here, path, base.as_deref());
                base.get_or_insert_with(|| path.clone());
            }
        }
        experiment.check().map_err(rule)?;
        Ok(experiment)
    }

    /// Whether there are weights to merge, and benchmarks to merge them for.
    fn may_merge(&self) -> bool {
        let served = self.benchmark.iter().any(|benchmark| benchmark.expert.is_some());
        let checkpoints = self.pool.models().all(|(_, source)| matches!(source, Source::Checkpoint(_)));
        served && checkpoints && self.pool.experts.len() > 1
    }

    /// Where its suites come from and how they are played.
    pub(crate) fn setup(&self) -> Setup<'_> {
        Setup { registry: &self.registry, suites: &self.suites, data: self.data.as_deref(), settings: &self.suite }
    }

    /// How servers of all parties are asked.
    #[must_use]
    pub fn endpoints(&self) -> Endpoints {
        Endpoints { agent: self.endpoint.clone(), user: self.user_endpoint.clone() }
    }

    /// All suites, each once.
    pub(crate) fn suite_names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for suite in self.benchmark.iter().flat_map(|b| &b.suites) {
            if !names.contains(suite) {
                names.push(suite.clone());
            }
        }
        names
    }

    /// Test tasks of all suites.
    pub(crate) fn test_tasks(&self) -> usize {
        self.suite_names().iter().map(|suite| self.tasks.of(suite, Split::Test).tasks).sum()
    }

    fn check(&self) -> Result<(), String> {
        let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if self.name.is_empty() || self.name.starts_with('.') || !self.name.chars().all(fine) {
            return Err(format!("name `{}` must be of letters, digits, `-`, `_` and `.`", self.name));
        }
        self.registry.check(&self.suite).map_err(|e| e.to_string())?;
        for (table, rules) in [("endpoint", &self.endpoint), ("user_endpoint", &self.user_endpoint)] {
            rules.check().map_err(|e| format!("under [{table}]: {e}"))?;
        }
        if let Some(server) = &self.server {
            server.check().map_err(|e| format!("under [server]: {e}"))?;
        }
        self.chat.validate().map_err(|e| format!("under [chat]: {e}"))?;
        let served = self.pool.models().find_map(|(name, source)| match source {
            Source::Endpoint(address) => Some((name, address)),
            Source::Checkpoint(_) => None,
        });
        if let Some((name, address)) = served.filter(|_| !self.candidate.is_empty()) {
            return Err(format!(
                "model `{name}` of the pool is the endpoint {address}: weights behind a server cannot be merged, traced or \
                 grafted; give its checkpoint directory, or leave out every [[candidate]], so that the pool is evaluated alone"
            ));
        }
        if !(self.saliency.k > 0.0 && self.saliency.k <= 1.0) {
            return Err(format!("saliency.k is {}, but must lie in (0, 1]", self.saliency.k));
        }
        let mut names: Vec<&str> = vec!["base", "arm"];
        names.extend(self.pool.experts.keys().map(String::as_str));
        for candidate in &self.candidate {
            if names.contains(&candidate.name.as_str()) {
                return Err(format!("candidate `{}` bears a name that is taken", candidate.name));
            }
            names.push(&candidate.name);
            let experts: Vec<&str> = self.pool.experts.keys().map(String::as_str).collect();
            candidate.recipe("base", &experts)?;
        }
        for benchmark in &self.benchmark {
            match &benchmark.expert {
                Some(expert) if !self.pool.experts.contains_key(expert) => {
                    let known: Vec<&str> = self.pool.experts.keys().map(String::as_str).collect();
                    return Err(format!(
                        "benchmark `{}` names expert `{expert}`, which the pool does not have{}",
                        benchmark.id,
                        nearest(expert, &known)
                    ));
                }
                _ if benchmark.suites.is_empty() => return Err(format!("benchmark `{}` has no suites", benchmark.id)),
                _ => {}
            }
        }
        self.tasks.check(&self.benchmark)?;
        let TransplantRules { protect, graft, ridge, energy, .. } = self.transplant;
        if graft == GraftOf::Projected && protect == Protect::None {
            return Err(
                "transplant.graft = \"projected\" without protection would be the donor itself; protect something"
                    .into(),
            );
        }
        if !(ridge.is_finite() && ridge > 0.0) {
            return Err(format!("transplant.ridge is {ridge}, but must be above 0"));
        }
        if !(energy > 0.0 && energy <= 1.0) {
            return Err(format!("transplant.energy is {energy}, but must be above 0, and at most 1"));
        }
        if !self.candidate.is_empty() && !self.benchmark.iter().any(|b| b.expert.is_some()) {
            return Err("no benchmark names an `expert`, so there is nothing to select by".into());
        }
        Ok(())
    }
}

/// Adds the nearest known word to serde's complaint about an unknown one.
fn suggest(message: &str) -> String {
    let message = message.trim_end();
    let complaint = message.lines().find(|l| l.contains("unknown field") || l.contains("unknown variant"));
    let Some(complaint) = complaint else { return message.to_owned() };
    let quoted: Vec<&str> = complaint.split('`').skip(1).step_by(2).collect();
    match quoted.split_first() {
        Some((unknown, known)) if !known.is_empty() => format!("{message}{}", nearest(unknown, known)),
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "name = \"x\"\nsuites = \".\"\n[pool]\nbase = \"b\"\nexperts = { tau = \"t\" }\n[[benchmark]]\nid = \"tau\"\n\
        title = \"τ\"\nexpert = \"tau\"\nsuites = [\"tau-retail\"]\n[tasks]\ncalibration = 1\ndev = 1\ntest = 1\n\
        [[candidate]]\nname = \"ties\"\noperator = \"ties\"\n";

    fn read(text: &str) -> Result<Experiment, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("e.toml");
        std::fs::write(&path, text).unwrap();
        Experiment::read(&path).map_err(|e| e.to_string())
    }

    #[test]
    fn a_suite_may_have_counts_of_its_own() {
        let own = "suites = [\"tau-retail\", \"tau-airline\"]\n[tasks.suite.tau-airline]\ncalibration = 0\n\
            dev_from = \"calibration\"\ndev = 7\ntest = 50\n[tasks]\ntrajectories = 2";
        let text = GOOD.replace("suites = [\"tau-retail\"]\n[tasks]", own);
        let tasks = read(&text).unwrap().tasks;
        let share = |split, tasks, trials| Share { split, tasks, trials };
        assert_eq!(tasks.of("tau-airline", Split::Dev), share(Split::Calibration, 7, 1));
        assert_eq!(tasks.of("tau-airline", Split::Calibration).tasks, 0);
        assert_eq!(tasks.of("tau-retail", Split::Calibration), share(Split::Calibration, 1, 2));
        let fewer = tasks.with_at_most(20);
        assert_eq!((fewer.of("tau-airline", Split::Test).tasks, fewer.of("tau-retail", Split::Test).tasks), (20, 1));
    }

    #[test]
    fn mistakes_are_named_with_the_mend() {
        assert_eq!(read(GOOD).unwrap().saliency.k, 0.1);
        for (from, to, expected) in [
            ("operator = \"ties\"", "operator = \"tise\"", "did you mean `ties`?"),
            ("[tasks]", "[task]", "did you mean `tasks`?"),
            ("tau = \"t\"", "tau = \"http://host/v1#tau\"", "cannot be merged"),
            ("expert = \"tau\"", "expert = \"tua\"", "did you mean `tau`?"),
            ("name = \"x\"", "name = \"../x\"", "must be of letters"),
            ("test = 1", "test = 0", "at least 1 test task"),
            ("dev = 1", "dev = 0", "at least 1 dev task"),
            ("test = 1", "test = 1\n[tasks.suite.tau-retial]\ndev = 2", "did you mean `tau-retail`?"),
            ("test = 1", "test = 1\n[tasks.suite.tau-retail]\ncalibration = 0", "at least 1 calibration task"),
            ("test = 1", "test = 1\n[tasks.suite.tau-retail]\ndev_from = \"test\"", "tuning"),
            ("name = \"ties\"", "name = \"tau\"", "name that is taken"),
            ("suites = [\"tau-retail\"]", "suites = []", "has no suites"),
        ] {
            let error = read(&GOOD.replace(from, to)).unwrap_err();
            assert!(error.contains(expected), "`{error}` should say `{expected}`");
        }
    }
}
