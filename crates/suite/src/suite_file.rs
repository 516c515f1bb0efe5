//! `SUITES/NAME/suite.toml`: a built-in suite.

use crate::open_error::OpenError;
use crate::{Limits, TasksError};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A `suite.toml`, and where it lies.
#[derive(Debug, Clone)]
pub struct SuiteFile {
    /// The suite's name: its folder's.
    pub name: String,
    /// The suite's folder.
    pub dir: PathBuf,
    text: String,
    kind: Option<String>,
    keys: Vec<String>,
}

/// What most built-in suites say.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuiltIn<P> {
    /// Which benchmark's.
    pub kind: String,
    /// How replies are read.
    pub format: String,
    /// What an episode may use.
    pub limits: Limits,
    /// The benchmark's own words.
    pub prompt: P,
    /// Files of tasks, by split.
    pub tasks: BTreeMap<String, PathBuf>,
}

impl SuiteFile {
    /// Where the file of a suite is.
    #[must_use]
    pub fn path_of(suites: &Path, name: &str) -> PathBuf {
        suites.join(name).join("suite.toml")
    }
    /// Reads the file of the suite `name`.
    ///
    /// # Errors
    /// If it is missing, or no TOML.
    pub fn open(suites: &Path, name: &str) -> Result<Self, OpenError> {
        let path = Self::path_of(suites, name);
        let text = std::fs::read_to_string(&path).map_err(|_| OpenError::missing(suites, name))?;
        let table: toml::Table = toml::from_str(&text).map_err(|e| OpenError::Toml { path, message: e.to_string() })?;
        let kind = table.get("kind").and_then(toml::Value::as_str).map(str::to_owned);
        let keys = table.keys().cloned().collect();
        Ok(Self { name: name.to_owned(), dir: suites.join(name), text, kind, keys })
    }
    /// Which benchmark's it is.
    #[must_use]
    pub fn kind(&self) -> Option<&str> {
        self.kind.as_deref()
    }
    /// Whether a key is there.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.keys.iter().any(|k| k == key)
    }
    /// The file as its benchmark's own type: often [`BuiltIn`].
    ///
    /// # Errors
    /// If it is not that.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, OpenError> {
        toml::from_str(&self.text).map_err(|e| self.wrong(e.to_string()))
    }
    /// That something in it is wrong.
    #[must_use]
    pub fn wrong(&self, message: String) -> OpenError {
        OpenError::Toml { path: self.dir.join("suite.toml"), message }
    }
    /// A file that it names, as text.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn text_of(&self, part: &Path) -> Result<String, OpenError> {
        let path = self.dir.join(part);
        std::fs::read_to_string(&path).map_err(|source| TasksError::Read { path, source }.into())
    }
}
