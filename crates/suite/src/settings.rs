//! Settings of benchmarks: tables of their own in experiments, keys of `--set`, and flags.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// A benchmark's settings as they were written: its table in an experiment, or what flags say.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Settings(toml::Table);

/// The settings of all benchmarks, by the benchmark's name.
pub type AllSettings = BTreeMap<String, Settings>;

/// Why settings cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum SettingsError {
    #[error("[suite.{benchmark}]: {reason}")]
    Wrong { benchmark: String, reason: String },
    #[error("`{0}` is not how a setting is given: `--set NAME.KEY=VALUE`")]
    Pair(String),
    #[error("there is no benchmark `{name}` to set anything of; there are {known}")]
    Unknown { name: String, known: String },
    #[error("`{path}` of the experiment is `{now}` now, and both are given; leave out the former")]
    Both { path: String, now: String },
}

impl Settings {
    /// The settings as the benchmark's own type.
    ///
    /// # Errors
    /// If a key or a value is unknown.
    pub fn read<T: DeserializeOwned>(&self, benchmark: &str) -> Result<T, SettingsError> {
        let wrong = |e: toml::de::Error| SettingsError::Wrong {
            benchmark: benchmark.to_owned(),
            reason: e.to_string().trim_end().replace('\n', ", "),
        };
        self.0.clone().try_into().map_err(wrong)
    }
    /// The same, as plain values.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn checked<T: DeserializeOwned + Serialize>(&self, benchmark: &str) -> Result<Value, SettingsError> {
        Ok(serde_json::to_value(self.read::<T>(benchmark)?).unwrap_or_default())
    }
    /// For benchmarks without settings: an error if there are any.
    ///
    /// # Errors
    /// If anything is set.
    pub fn none_of(&self, benchmark: &str) -> Result<Value, SettingsError> {
        match self.0.keys().next() {
            None => Ok(Value::Null),
            Some(key) => Err(SettingsError::Wrong {
                benchmark: benchmark.to_owned(),
                reason: format!("unknown field `{key}`; there is nothing to set"),
            }),
        }
    }
    /// Sets `key`, of which dots lead into tables.
    pub fn set(&mut self, key: &str, value: impl Into<toml::Value>) {
        let mut table = &mut self.0;
        let mut parts: Vec<&str> = key.split('.').collect();
        let last = parts.pop().unwrap_or_default();
        for part in parts {
            let inner = table.entry(part).or_insert_with(|| toml::Table::new().into());
            if !inner.is_table() {
                *inner = toml::Table::new().into();
            }
            let toml::Value::Table(inner) = inner else { return };
            table = inner;
        }
        table.insert(last.to_owned(), value.into());
    }
    /// Whether `key` is set.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        let mut parts = key.split('.');
        let first = parts.next().and_then(|part| self.0.get(part));
        parts.fold(first, |value, part| value?.get(part)).is_some()
    }
}

/// The value of a `KEY=VALUE`: TOML's, or else the text itself.
#[must_use]
pub fn value(text: &str) -> toml::Value {
    let parsed: Option<toml::Table> = toml::from_str(&format!("value = {text}")).ok();
    match parsed.filter(|table| table.len() == 1).and_then(|mut table| table.remove("value")) {
        Some(value) => value,
        None => text.into(),
    }
}

/// Which commands take a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Taken {
    /// Those that set a benchmark up for anything.
    Always,
    /// Those that read or score what agents say.
    Reading,
    /// Those that play.
    Playing,
}

/// A setting with a flag of its own on the command line. Benchmarks may share one.
#[derive(Debug, Clone)]
pub struct Flag {
    /// Its name, without dashes.
    pub name: &'static str,
    /// The key that it sets.
    pub key: &'static str,
    /// What the value is called in help; none for a switch.
    pub value: Option<&'static str>,
    /// Whether the value is a whole number, not a text.
    pub number: bool,
    /// The values there are; any if empty.
    pub values: Vec<&'static str>,
    /// Which is meant where nothing is said.
    pub default: Option<&'static str>,
    /// A variable of the environment that says the same.
    pub env: Option<&'static str>,
    /// Flags that it cannot stand beside.
    pub conflicts: &'static [&'static str],
    /// Which commands take it.
    pub taken: Taken,
    /// Help.
    pub help: &'static str,
}

impl Flag {
    /// A flag with one of several values.
    #[must_use]
    pub fn choice(name: &'static str, taken: Taken, values: impl IntoIterator<Item = &'static str>) -> Self {
        Self { value: Some("NAME"), values: values.into_iter().collect(), ..Self::switch(name, taken) }
    }
    /// A flag with any value, called `value` in help.
    #[must_use]
    pub fn text(name: &'static str, taken: Taken, value: &'static str) -> Self {
        Self { value: Some(value), ..Self::switch(name, taken) }
    }
    /// A flag with a number.
    #[must_use]
    pub fn number(name: &'static str, taken: Taken) -> Self {
        Self { number: true, ..Self::text(name, taken, "N") }
    }
    /// A flag without a value.
    #[must_use]
    pub fn switch(name: &'static str, taken: Taken) -> Self {
        Self {
            name,
            key: name,
            value: None,
            number: false,
            values: Vec::new(),
            default: None,
            env: None,
            conflicts: &[],
            taken,
            help: "",
        }
    }
    /// The flag of benchmarks that know of official tasks with a wrong expected outcome.
    #[must_use]
    pub fn known_bad() -> Self {
        Self::switch("exclude-known-bad", Taken::Playing)
            .sets("exclude_known_bad")
            .help("Leave out official tasks whose expected outcome is known to be wrong")
    }
    /// With the key that it sets, where that is not its name.
    #[must_use]
    pub fn sets(self, key: &'static str) -> Self {
        Self { key, ..self }
    }
    /// With a default.
    #[must_use]
    pub fn or(self, default: &'static str) -> Self {
        Self { default: Some(default), ..self }
    }
    /// With a variable of the environment.
    #[must_use]
    pub fn env(self, name: &'static str) -> Self {
        Self { env: Some(name), ..self }
    }
    /// With help.
    #[must_use]
    pub fn help(self, help: &'static str) -> Self {
        Self { help, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Own {
        root: Option<String>,
        dev: (u32, u32),
    }

    #[test]
    fn values_are_tomls_or_texts() {
        assert_eq!(value("true"), toml::Value::Boolean(true));
        assert_eq!(value("[200, 280]").as_array().map(Vec::len), Some(2));
        for text in ["/srv/box", "mysql://u:p@h:1", "local-os/{}", "", "a = 1", "1\nb = 2"] {
            assert_eq!(value(text).as_str(), Some(text));
        }
    }

    #[test]
    fn keys_are_set_read_and_refused_by_name() {
        let mut settings = Settings::default();
        settings.set("root", "/box");
        settings.set("dev", value("[1, 2]"));
        assert_eq!(settings.read::<Own>("x").unwrap(), Own { root: Some("/box".into()), dev: (1, 2) });
        assert!(settings.has("root") && !settings.has("shell") && !settings.has("root.x"));
        settings.set("roto", "/box");
        let error = settings.read::<Own>("x").unwrap_err().to_string();
        assert!(error.contains("[suite.x]") && error.contains("roto"), "{error}");
        let mut nested = Settings::default();
        nested.set("a.b", "c");
        assert!(nested.has("a.b") && nested.none_of("x").is_err());
    }
}
