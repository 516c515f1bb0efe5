//! Fields of requests that a server wants otherwise: under another name, with another value, or not at all.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Fields that may be renamed: those whose name or presence differs between servers.
const RENAMED: [&str; 4] = ["max_tokens", "temperature", "top_p", "seed"];
/// Fields that carry the question itself.
const KEPT: [&str; 6] = ["model", "messages", "prompt", "tools", "stream", "n"];

/// What is done to requests before they are sent. In text, `max_tokens=max_completion_tokens` renames, `seed=` leaves out, and
/// `reasoning_effort=low` or `top_k=20` adds or sets (JSON, or a word).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields(BTreeMap<String, Change>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Change {
    LeaveOut,
    Rename(String),
    Set(Value),
}

/// Why a change of a field cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum FieldError {
    #[error("`{0}` is not FIELD=NAME, FIELD=VALUE or FIELD= (which leaves it out)")]
    Shape(String),
    #[error("field `{0}` is the question itself: it cannot be changed")]
    Kept(String),
}

impl Fields {
    /// Adds a change as the command line says it.
    ///
    /// # Errors
    /// If it says none, or changes what is asked.
    pub fn change(&mut self, pair: &str) -> Result<(), FieldError> {
        let (field, to) = pair.split_once('=').ok_or_else(|| FieldError::Shape(pair.to_owned()))?;
        let value = serde_json::from_str(to).unwrap_or_else(|_| Value::String(to.to_owned()));
        self.set(field, value)
    }

    /// Adds a change as an experiment says it: an empty string leaves a field out, a string renames one whose name differs
    /// between servers, and anything else is the value to send.
    ///
    /// # Errors
    /// If it changes what is asked.
    pub fn set(&mut self, field: &str, to: Value) -> Result<(), FieldError> {
        if field.is_empty() {
            return Err(FieldError::Shape(format!("={to}")));
        }
        if KEPT.contains(&field) {
            return Err(FieldError::Kept(field.to_owned()));
        }
        let change = match to {
            Value::String(name) if name.is_empty() => Change::LeaveOut,
            Value::String(name) if RENAMED.contains(&field) => Change::Rename(name),
            value => Change::Set(value),
        };
        self.0.insert(field.to_owned(), change);
        Ok(())
    }

    /// Mends a request that a server refused for a field: by the name that newer servers want, or by leaving it out. `None`
    /// if nothing is left to try.
    pub(crate) fn mend(&mut self, refused: &str) -> Option<String> {
        if KEPT.contains(&refused) {
            return None;
        }
        // A server may complain of the name that we gave a field.
        let renamed = self.0.iter().find(|(_, change)| matches!(change, Change::Rename(name) if name == refused));
        let field = renamed.map_or(refused, |(field, _)| field).to_owned();
        let (change, said) = match (field.as_str(), self.0.get(&field)) {
            ("max_tokens", None) => {
                let name = "max_completion_tokens".to_owned();
                (Change::Rename(name), "`max_tokens` is sent as `max_completion_tokens`".to_owned())
            }
            (_, Some(Change::LeaveOut)) => return None,
            _ => (Change::LeaveOut, format!("`{field}` is not sent")),
        };
        self.0.insert(field, change);
        Some(said)
    }

    /// Changes a request.
    pub(crate) fn apply(&self, body: &mut Map<String, Value>) {
        for (field, change) in &self.0 {
            match change {
                Change::LeaveOut => drop(body.shift_remove(field)),
                Change::Set(value) => drop(body.insert(field.clone(), value.clone())),
                Change::Rename(name) => {
                    if let Some(value) = body.shift_remove(field) {
                        body.insert(name.clone(), value);
                    }
                }
            }
        }
    }

    /// The name under which a field is sent; `None` if it is not.
    pub(crate) fn name_of<'f>(&'f self, field: &'f str) -> Option<&'f str> {
        match self.0.get(field) {
            None | Some(Change::Set(_)) => Some(field),
            Some(Change::Rename(name)) => Some(name),
            Some(Change::LeaveOut) => None,
        }
    }

    /// Fields of a request that may be changed.
    pub(crate) fn open(body: &Map<String, Value>) -> Vec<String> {
        body.keys().filter(|field| !KEPT.contains(&field.as_str())).cloned().collect()
    }

    /// As an experiment says it.
    fn as_json(&self) -> Map<String, Value> {
        let said = |change: &Change| match change {
            Change::LeaveOut => Value::String(String::new()),
            Change::Rename(name) => Value::String(name.clone()),
            Change::Set(value) => value.clone(),
        };
        self.0.iter().map(|(field, change)| (field.clone(), said(change))).collect()
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.as_json().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut fields = Self::default();
        for (field, to) in Map::deserialize(deserializer)? {
            fields.set(&field, to).map_err(serde::de::Error::custom)?;
        }
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn applied(fields: &Fields) -> Value {
        let mut body = json!({"model": "m", "max_tokens": 5, "temperature": 0.0, "seed": 1});
        fields.apply(body.as_object_mut().unwrap());
        body
    }

    #[test]
    fn fields_are_renamed_left_out_and_added() {
        let mut fields = Fields::default();
        for pair in ["max_tokens=max_completion_tokens", "seed=", "reasoning_effort=low", "temperature=1", "top_k=20"] {
            fields.change(pair).unwrap();
        }
        let expected = json!({"model": "m", "reasoning_effort": "low", "temperature": 1, "top_k": 20,
            "max_completion_tokens": 5});
        assert_eq!(applied(&fields), expected);
        let again: Fields = serde_json::from_value(serde_json::to_value(&fields).unwrap()).unwrap();
        assert_eq!(again, fields);
        for (pair, expected) in [("seed", "is not FIELD="), ("=1", "is not FIELD="), ("model=x", "question itself")] {
            let error = fields.change(pair).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_refused_field_gets_its_newer_name_and_then_goes() {
        let mut fields = Fields::default();
        assert_eq!(fields.mend("max_tokens").unwrap(), "`max_tokens` is sent as `max_completion_tokens`");
        assert_eq!(fields.name_of("max_tokens"), Some("max_completion_tokens"));
        assert_eq!(fields.mend("max_completion_tokens").unwrap(), "`max_tokens` is not sent");
        assert_eq!(fields.mend("seed").unwrap(), "`seed` is not sent");
        assert_eq!((fields.mend("seed"), fields.mend("model")), (None, None));
        assert_eq!(applied(&fields), json!({"model": "m", "temperature": 0.0}));
    }
}
