//! The registry of benchmarks: the one place that names them all.
//!
//! A benchmark is a crate with a [`Benchmark`] and a line in [`Registry::default`]. Whoever plays, replays, checks or lists suites
//! asks the registry, and names none.

mod former;

pub use rolegraft_suite::*;

use rolegraft_suite::recordings::{Report, UnreadableError};
use serde_json::Value;
use std::path::Path;

/// Benchmarks, in the order in which they are listed.
#[derive(Clone)]
pub struct Registry(Vec<&'static dyn Benchmark>);

impl Default for Registry {
    fn default() -> Self {
        Self(vec![
            &rolegraft_suite_tau::Tau,
            &rolegraft_suite_office::OfficeBench,
            &rolegraft_suite_os::Os,
            &rolegraft_suite_db::DbBench,
            &rolegraft_suite_webshop::WebShop,
            &rolegraft_suite_alfworld::AlfWorld,
            &rolegraft_suite_remote::Remote,
        ])
    }
}

/// Two are the same if they list the same names.
impl PartialEq for Registry {
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().map(|b| b.name()).eq(other.0.iter().map(|b| b.name()))
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|b| b.name())).finish()
    }
}

/// Where suites come from and how they are played.
#[derive(Clone, Copy)]
pub struct Setup<'a> {
    /// Who plays them.
    pub registry: &'a Registry,
    /// Folder of the suites' folders.
    pub suites: &'a Path,
    /// Official data; a suite that has none is played on its built-in tasks.
    pub data: Option<&'a Path>,
    /// Every benchmark's settings.
    pub settings: &'a AllSettings,
}

impl Setup<'_> {
    /// Opens the suite `name`: on the official data where there is any and the suite has some, else `SUITES/NAME`.
    ///
    /// # Errors
    /// If a file or a setting is missing or wrong, or the host has not what the benchmark asks for.
    pub fn open(&self, name: &str, host: &dyn Host) -> Result<Library, OpenError> {
        self.registry.check(self.settings)?;
        let none = Settings::default();
        let opening = |benchmark: &dyn Benchmark| Opening {
            suites: self.suites,
            settings: self.settings.get(benchmark.name()).unwrap_or(&none),
            host,
        };
        let serving = self.registry.iter().find(|benchmark| benchmark.serves(name));
        if let (Some(benchmark), Some(data)) = (serving, self.data) {
            return benchmark.open_official(name, data, &opening(benchmark));
        }
        if serving.is_some() && self.suites.is_dir() && !SuiteFile::path_of(self.suites, name).exists() {
            return Err(OpenError::NeedsOfficial(name.to_owned()));
        }
        let file = SuiteFile::open(self.suites, name)?;
        let kinds = || self.registry.iter().flat_map(|b| b.kinds()).copied().collect::<Vec<_>>().join("`, `");
        let unknown = || file.wrong(format!("`kind` is none of `{}`", kinds()));
        let benchmark = self.registry.iter().find(|benchmark| benchmark.reads(&file)).ok_or_else(unknown)?;
        benchmark.open(&file, &opening(benchmark))
    }
}

impl Registry {
    /// With one more.
    #[must_use]
    pub fn with(mut self, benchmark: &'static dyn Benchmark) -> Self {
        self.0.push(benchmark);
        self
    }
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &'static dyn Benchmark> + '_ {
        self.0.iter().copied()
    }
    /// The one of that name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&'static dyn Benchmark> {
        self.iter().find(|benchmark| benchmark.name() == name)
    }
    /// All suites on official data.
    #[must_use]
    pub fn official(&self) -> Vec<&'static str> {
        self.iter().flat_map(|benchmark| benchmark.official()).copied().collect()
    }
    /// That a suite has official data.
    ///
    /// # Errors
    /// If no benchmark plays it on any.
    pub fn has_official(&self, suite: &str) -> Result<(), OpenError> {
        match self.iter().any(|benchmark| benchmark.serves(suite)) {
            true => Ok(()),
            false => Err(OpenError::NoOfficial { suite: suite.to_owned(), known: self.official() }),
        }
    }
    /// Every benchmark's settings as they are understood, without secrets; what is not set has its default.
    ///
    /// # Errors
    /// If a benchmark, a key or a value is unknown.
    pub fn check(&self, settings: &AllSettings) -> Result<Value, SettingsError> {
        if let Some(name) = settings.keys().find(|name| self.named(name).is_none()) {
            return Err(self.unknown(name));
        }
        let none = Settings::default();
        let one = |benchmark: &'static dyn Benchmark| {
            let name = benchmark.name();
            Ok((name.to_owned(), benchmark.checked(settings.get(name).unwrap_or(&none))?))
        };
        self.iter().map(one).collect::<Result<serde_json::Map<_, _>, _>>().map(Value::Object)
    }
    /// What `NAME.KEY=VALUE` says, added to the settings.
    ///
    /// # Errors
    /// If it is no such pair, or there is no such benchmark.
    pub fn set(&self, settings: &mut AllSettings, pair: &str) -> Result<(), SettingsError> {
        let split = || {
            let (path, value) = pair.split_once('=')?;
            let (name, key) = path.split_once('.')?;
            (!name.is_empty() && !key.is_empty()).then_some((name, key, value))
        };
        let (name, key, value) = split().ok_or_else(|| SettingsError::Pair(pair.to_owned()))?;
        let benchmark = self.named(name).ok_or_else(|| self.unknown(name))?;
        settings.entry(benchmark.name().to_owned()).or_default().set(key, settings::value(value));
        Ok(())
    }
    /// The flags that commands of a kind take, and whose they are: a flag that several benchmarks share is one.
    #[must_use]
    pub fn flags(&self, taken: Taken) -> Vec<(Flag, Vec<(&'static str, &'static str)>)> {
        let mut flags: Vec<(Flag, Vec<_>)> = Vec::new();
        for benchmark in self.iter() {
            for flag in benchmark.flags().into_iter().filter(|flag| flag.taken <= taken) {
                let target = (benchmark.name(), flag.key);
                match flags.iter_mut().find(|(known, _)| known.name == flag.name) {
                    Some((_, targets)) => targets.push(target),
                    None => flags.push((flag, vec![target])),
                }
            }
        }
        flags
    }
    /// Replays recordings of a benchmark.
    ///
    /// # Errors
    /// If the recordings, the settings or the data cannot be read.
    pub fn replay(
        &self,
        benchmark: &str,
        (traces, data): (&Path, &Path),
        settings: &AllSettings,
    ) -> Result<Report, UnreadableError> {
        let wrong = |e: SettingsError| UnreadableError::Data(e.into());
        let named = self.named(benchmark).ok_or_else(|| wrong(self.unknown(benchmark)))?;
        named.replay(traces, data, settings.get(benchmark).unwrap_or(&Settings::default()))
    }
    fn unknown(&self, name: &str) -> SettingsError {
        let known = self.iter().map(|benchmark| format!("`{}`", benchmark.name())).collect::<Vec<_>>().join(", ");
        SettingsError::Unknown { name: name.to_owned(), known }
    }
}
