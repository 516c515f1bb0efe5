//! An episode's database: tables shared by all episodes, and what this one changed.

use crate::python::{Raised, Result, hashable_repr, key, no_key, str_repr};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

/// The tables as every episode finds them: an object of objects.
#[derive(Debug, Default)]
pub struct Tables {
    tables: Map<String, Value>,
    /// By table, in the order of the names, each row's key and its text in the hash; made when first asked for.
    texts: OnceLock<BTreeMap<String, BTreeMap<String, String>>>,
}

impl Tables {
    /// Tables by name, rows by key.
    #[must_use]
    pub fn new(tables: Map<String, Value>) -> Self {
        Self { tables, texts: OnceLock::new() }
    }
    fn texts(&self) -> &BTreeMap<String, BTreeMap<String, String>> {
        self.texts.get_or_init(|| {
            let rows = |table: &Value| {
                table.as_object().into_iter().flatten().map(|(key, row)| (key.clone(), state(key, row))).collect()
            };
            self.tables.iter().map(|(name, table)| (name.clone(), rows(table))).collect()
        })
    }
}

/// An episode's view: cloning it, or starting from [`Tables`], copies only what was changed.
#[derive(Debug, Clone)]
pub struct Database {
    base: Arc<Tables>,
    overlays: BTreeMap<String, Overlay>,
}

/// What an episode changed in one table.
#[derive(Debug, Clone, Default)]
struct Overlay {
    rows: HashMap<String, Value>,
    /// Keys that the base does not have, in the order in which they came.
    added: Vec<String>,
}

impl Database {
    /// A fresh database.
    #[must_use]
    pub fn new(tables: Arc<Tables>) -> Self {
        Self { base: tables, overlays: BTreeMap::new() }
    }

    /// A row.
    #[must_use]
    pub fn row(&self, table: &str, key: &str) -> Option<&Value> {
        let changed = self.overlays.get(table).and_then(|o| o.rows.get(key));
        changed.or_else(|| self.base.tables.get(table)?.get(key))
    }
    /// The row that a value from outside names, where `value in table` holds.
    pub(crate) fn find(&self, table: &str, by: &Value) -> Result<Option<&Value>> {
        Ok(key(by)?.and_then(|key| self.row(table, key)))
    }
    /// A row that upstream indexes without asking.
    pub(crate) fn get(&self, table: &str, by: &Value) -> Result<&Value> {
        self.find(table, by)?.ok_or_else(|| no_key(by))
    }
    /// A row to change in place.
    pub(crate) fn get_mut(&mut self, table: &str, key: &str) -> Result<&mut Value> {
        let row = self.row(table, key).ok_or_else(|| Raised(str_repr(key)))?;
        let copy = if self.changed(table, key) { None } else { Some(row.clone()) };
        let rows = &mut self.overlays.entry(table.to_owned()).or_default().rows;
        if let Some(row) = copy {
            rows.insert(key.to_owned(), row);
        }
        rows.get_mut(key).ok_or_else(|| Raised(str_repr(key)))
    }
    fn changed(&self, table: &str, key: &str) -> bool {
        self.overlays.get(table).is_some_and(|o| o.rows.contains_key(key))
    }
    pub(crate) fn insert(&mut self, table: &str, key: &str, row: Value) {
        let new = self.row(table, key).is_none();
        let overlay = self.overlays.entry(table.to_owned()).or_default();
        if new {
            overlay.added.push(key.to_owned());
        }
        overlay.rows.insert(key.to_owned(), row);
    }
    /// Rows in upstream's order: as in the file, then as added.
    pub(crate) fn rows<'a>(&'a self, table: &'a str) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let overlay = self.overlays.get(table);
        let file = self.base.tables.get(table).and_then(Value::as_object).into_iter().flatten();
        let file = file.map(move |(key, row)| (key.as_str(), overlay.and_then(|o| o.rows.get(key)).unwrap_or(row)));
        let added = overlay.into_iter().flat_map(|o| o.added.iter().filter_map(|k| Some((k.as_str(), o.rows.get(k)?))));
        file.chain(added)
    }

    /// Whether two episodes on the same tables ended in the same state: what upstream compares by hash.
    #[must_use]
    pub fn same_state(&self, other: &Self) -> bool {
        let covers = |a: &Self, b: &Self| {
            let rows = a.overlays.iter().flat_map(|(table, o)| o.rows.iter().map(move |(key, row)| (table, key, row)));
            rows.into_iter()
                .all(|(table, key, row)| b.row(table, key).is_some_and(|r| state(key, r) == state(key, row)))
        };
        covers(self, other) && covers(other, self)
    }

    /// Upstream's `get_data_hash`: SHA-256, in hexadecimal digits, of Python's text of the nested, sorted tuples.
    #[must_use]
    pub fn hash(&self) -> String {
        let mut digest = Sha256::new();
        let base = self.base.texts();
        digest.update("(");
        for (i, (table, rows)) in base.iter().enumerate() {
            let changed: BTreeMap<&str, String> = self.overlays.get(table).map_or_else(BTreeMap::new, |o| {
                o.rows.iter().map(|(key, row)| (key.as_str(), state(key, row))).collect()
            });
            digest.update(if i > 0 { ", (" } else { "(" });
            digest.update(str_repr(table));
            digest.update(", (");
            let mut added = changed.iter().filter(|(key, _)| !rows.contains_key(**key)).peekable();
            let mut count = 0;
            let mut put = |text: &str| {
                digest.update(if count > 0 { ", " } else { "" });
                digest.update(text);
                count += 1;
            };
            for (key, text) in rows {
                while let Some((_, text)) = added.next_if(|(new, _)| **new < key.as_str()) {
                    put(text);
                }
                put(changed.get(key.as_str()).unwrap_or(text));
            }
            added.for_each(|(_, text)| put(text));
            digest.update(if count == 1 { ",))" } else { "))" });
        }
        digest.update(if base.len() == 1 { ",)" } else { ")" });
        format!("{:x}", digest.finalize())
    }
}

/// A row with its key, as text: equal texts, equal rows.
fn state(key: &str, row: &Value) -> String {
    let mut text = format!("({}, ", str_repr(key));
    hashable_repr(row, &mut text);
    text.push(')');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn hashes_are_those_of_pythons_text() {
        let tables = json!({"b": {"y": {"n": 1.0, "l": [1, null]}, "x": "it's"}, "a": {"k": true}});
        let mut data = Database::new(Arc::new(Tables::new(tables.as_object().unwrap().clone())));
        let of = |text: &str| format!("{:x}", Sha256::digest(text));
        let before = "(('a', (('k', True),)), ('b', (('x', \"it's\"), ('y', (('l', (1, None)), ('n', 1.0))))))";
        assert_eq!(data.hash(), of(before));
        let fresh = data.clone();
        *data.get_mut("b", "y").unwrap() = json!({});
        data.insert("a", "c", json!([2]));
        assert_eq!(data.hash(), of("(('a', (('c', (2,)), ('k', True))), ('b', (('x', \"it's\"), ('y', ()))))"));
        assert!(!data.same_state(&fresh) && data.same_state(&data.clone()));
        assert_eq!(data.rows("a").map(|(k, _)| k).collect::<Vec<_>>(), ["k", "c"]);
        // Written, but as it was: upstream's hash does not see it.
        let mut same = fresh.clone();
        same.get_mut("b", "y").unwrap()["n"] = json!(1.0);
        assert!(same.same_state(&fresh));
        same.get_mut("b", "y").unwrap()["n"] = json!(1);
        assert!(!same.same_state(&fresh), "Python writes 1 and 1.0 differently");
    }
}
