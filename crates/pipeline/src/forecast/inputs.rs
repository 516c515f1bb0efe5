//! What an experiment is made of, opened as far as it is there.

use super::found::Forecast;
use crate::chat::{read_template, takes};
use crate::endpoints::is_endpoint;
use crate::engine::EngineKind;
use crate::experiment::{Experiment, Source};
use rolegraft_checkpoint::{Architecture, Checkpoint, check_pool};
use rolegraft_suites::{Host, Library, Speaker, SpeakerError};
use rolegraft_trajectory::{Message, Spent};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Checkpoints and suites that could be opened.
pub(super) struct Inputs {
    pub(super) base: Option<Checkpoint>,
    experts: BTreeMap<String, Option<Checkpoint>>,
    pub(super) suites: BTreeMap<String, Library>,
}

/// An error with its causes, in a line.
pub(super) fn told(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    for error in std::iter::successors(error.source(), |error| (*error).source()) {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

impl Inputs {
    /// Opens everything; what cannot be opened is noted as missing.
    pub(super) fn open(experiment: &Experiment, found: &mut Forecast) -> Self {
        let mut checkpoint = |what: String, source: &Source| match source {
            Source::Endpoint(_) => None,
            Source::Checkpoint(dir) => {
                let mut missing = |error: &(dyn Error + 'static)| found.lacks(format!("{what}: {}", told(error)));
                let checkpoint = Checkpoint::open(dir).map_err(|error| missing(&error)).ok()?;
                if let Err(error) = Architecture::of(&checkpoint) {
                    missing(&error);
                }
                Some(checkpoint)
            }
        };
        let base = checkpoint("pool.base".into(), &experiment.pool.base);
        let experts = experiment.pool.experts.iter();
        let experts = experts.map(|(name, source)| (name.clone(), checkpoint(format!("pool.experts.{name}"), source)));
        let mut inputs = Self { base, experts: experts.collect(), suites: BTreeMap::new() };
        inputs.suites = open_suites(experiment, found);
        inputs.check_models(experiment, found);
        if experiment.engine == EngineKind::Server && experiment.server.is_none() {
            found.lacks("engine `server` needs a table [server]: docs/servers.md".into());
        }
        inputs
    }

    /// Whether the models go together, and their templates take what the suites say.
    fn check_models(&self, experiment: &Experiment, found: &mut Forecast) {
        let models = self.base.iter().chain(self.experts.values().flatten());
        if let Some(base) = &self.base {
            for expert in self.experts.values().flatten() {
                if let Err(error) = check_pool(base, &[expert]) {
                    found.lacks(told(&error));
                }
            }
        }
        for model in models {
            let template = match read_template(model.dir()) {
                Ok(template) => template,
                Err(error) => {
                    found.lacks(told(&error));
                    continue;
                }
            };
            for library in self.suites.values() {
                if let Err(error) = takes(&template, &experiment.chat, &*library.suite) {
                    found.lacks(format!("`{}`: {}", model.dir().display(), told(&error)));
                }
            }
        }
    }

    /// Where the base is, and the experts by name, as the experiment says it, if all are there.
    pub(super) fn pool<'e>(&self, experiment: &'e Experiment) -> Option<(&'e Path, Vec<(&'e str, PathBuf)>)> {
        let place = |source: &'e Source| match source {
            Source::Checkpoint(path) => Some(path.as_path()),
            Source::Endpoint(_) => None,
        };
        let opened = |name: &String| self.experts.get(name).is_some_and(Option::is_some);
        let experts = experiment.pool.experts.iter().map(|(name, source)| {
            opened(name).then_some(())?;
            Some((name.as_str(), place(source)?.to_owned()))
        });
        let base = self.base.as_ref().and_then(|_| place(&experiment.pool.base))?;
        Some((base, experts.collect::<Option<_>>()?))
    }

    /// Where the base should be, for messages.
    pub(super) fn base_dir(&self) -> &Path {
        self.base.as_ref().map_or(Path::new(""), Checkpoint::dir)
    }
}

fn open_suites(experiment: &Experiment, found: &mut Forecast) -> BTreeMap<String, Library> {
    let (mut suites, users) = (BTreeMap::new(), Users::default());
    for benchmark in &experiment.benchmark {
        for name in benchmark.suites.iter() {
            let library = match experiment.setup().open(name, &users) {
                Ok(library) => library,
                Err(error) => {
                    found.lacks(told(&error));
                    continue;
                }
            };
            if let Some(lacks) = &library.lacks {
                found.notes.push(format!("suite {name} cannot be played here, and is left out: it lacks {lacks}"));
            }
            found.notes.extend(library.notes.iter().cloned());
            if !library.not_run.is_empty() {
                let first = library.not_run.first().map(|task| task.lacks.clone()).unwrap_or_default();
                let of = library.not_run.len();
                found.notes.push(format!("suite {name}: {of} tasks cannot be played here; the first lacks {first}"));
            }
            experiment.tasks.lacking(benchmark, name, &library).for_each(|error| found.lacks(told(&error)));
            suites.insert(name.clone(), library);
        }
    }
    let users = users.0.into_inner().unwrap_or_else(PoisonError::into_inner);
    for user in users {
        if !is_endpoint(&user) && !Path::new(&user).exists() {
            found.lacks(format!("the user's model `{user}` is not there"));
        } else if is_endpoint(&user) && std::env::var_os("ROLEGRAFT_USER_API_KEY").is_none() {
            found.notes.push(format!("ROLEGRAFT_USER_API_KEY is not set, with which {user} is asked"));
        }
    }
    suites
}

/// A host whose models never speak; it takes note of those that are asked for.
#[derive(Default)]
struct Users(Mutex<Vec<String>>);

impl Host for Users {
    fn speaker(&self, model: &str) -> Result<Arc<dyn Speaker>, Box<dyn Error + Send + Sync>> {
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !users.iter().any(|known| known == model) {
            users.push(model.to_owned());
        }
        Ok(Arc::new(Silent))
    }
}

struct Silent;

impl Speaker for Silent {
    fn say(&self, _: &[Message]) -> Result<(String, Spent), SpeakerError> {
        Err(SpeakerError::Unavailable("nothing is played while planning".into()))
    }
}
