//! What an experiment hands to a chat template beside the conversation.

use chrono::NaiveDate;
use rolegraft_jinja::Value;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// The argument that is not a variable: the day that `strftime_now` writes.
const DATE: &str = "date";

/// Template arguments (`[chat] enable_thinking = false`, `--chat KEY=VALUE`): every key is a variable of the template,
/// except `date` ("YYYY-MM-DD"), which is the day that `strftime_now` writes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChatArguments(BTreeMap<String, Json>);

/// Why something is not a template argument.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum ArgumentError {
    #[error("`{0}` is not a template argument; write KEY=VALUE, such as enable_thinking=false")]
    Form(String),
    #[error("`{0}` cannot be a template argument: a name has letters, digits and `_`, and starts with a letter")]
    Name(String),
    #[error("`{0}` cannot be a template argument: the conversation itself sets it")]
    Reserved(String),
    #[error("template argument `date` is {0}; expected a day such as \"2026-11-28\"")]
    Date(String),
}

impl ChatArguments {
    /// Reads `KEY=VALUE`. VALUE is JSON where it can be (`true`, `1`, `"x"`, `null`, `[…]`, `{…}`) and text otherwise.
    ///
    /// # Errors
    /// If there is no `=`, or KEY cannot be a variable.
    pub fn parse(text: &str) -> Result<Self, ArgumentError> {
        let (key, value) = text.split_once('=').ok_or_else(|| ArgumentError::Form(text.to_owned()))?;
        let mut arguments = Self::default();
        let value = serde_json::from_str(value.trim()).unwrap_or_else(|_| Json::from(value));
        arguments.set(key.trim(), value)?;
        Ok(arguments)
    }
    /// Sets an argument.
    ///
    /// # Errors
    /// If `key` cannot be a variable, or is `date` and `value` no day.
    pub fn set(&mut self, key: &str, value: impl Into<Json>) -> Result<(), ArgumentError> {
        let value = value.into();
        check(key, &value)?;
        self.0.insert(key.to_owned(), value);
        Ok(())
    }
    /// Takes over other arguments; theirs win.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }
    /// Checks all of them, where they were read from a file.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn validate(&self) -> Result<(), ArgumentError> {
        self.0.iter().try_for_each(|(key, value)| check(key, value))
    }
    /// The day that `strftime_now` writes, if it is set.
    ///
    /// # Errors
    /// If it is no day.
    pub fn date(&self) -> Result<Option<NaiveDate>, ArgumentError> {
        self.0.get(DATE).map(day).transpose()
    }
    /// The day that `strftime_now` writes: today, if it is not set.
    ///
    /// # Errors
    /// If it is no day.
    pub fn day(&self) -> Result<NaiveDate, ArgumentError> {
        Ok(self.date()?.unwrap_or_else(today))
    }
    /// The day alone, where it is set: what conversations of other parties have in common with these.
    #[must_use]
    pub fn only_date(&self) -> Self {
        Self(self.0.get_key_value(DATE).map(|(key, day)| (key.clone(), day.clone())).into_iter().collect())
    }
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Json)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }
    /// Those that are variables, as a template sees them.
    pub(super) fn variables(&self) -> impl Iterator<Item = (&str, Value)> {
        self.iter().filter(|(key, _)| *key != DATE).map(|(key, json)| (key, Value::from_serialize(json)))
    }
    /// Whether there are tools, be they none at all: not where `tools` is null.
    pub(super) fn has_tools(&self) -> bool {
        self.0.get("tools").is_some_and(|tools| !tools.is_null())
    }
}

fn check(key: &str, value: &Json) -> Result<(), ArgumentError> {
    let named = key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    match key {
        _ if !named => Err(ArgumentError::Name(key.to_owned())),
        "messages" | "add_generation_prompt" => Err(ArgumentError::Reserved(key.to_owned())),
        DATE => day(value).map(drop),
        _ => Ok(()),
    }
}

/// Today in UTC, so that machines in one run agree; transformers takes the local day.
fn today() -> NaiveDate {
    let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |past| past.as_secs());
    chrono::DateTime::from_timestamp(i64::try_from(seconds).unwrap_or(0), 0).unwrap_or_default().date_naive()
}

fn day(value: &Json) -> Result<NaiveDate, ArgumentError> {
    let refused = || ArgumentError::Date(value.to_string());
    let text = value.as_str().filter(|text| text.len() == "YYYY-MM-DD".len()).ok_or_else(refused)?;
    text.parse().map_err(|_| refused())
}
