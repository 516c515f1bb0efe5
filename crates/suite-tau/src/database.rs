//! An episode's database: a shared base and what the episode changed.

use crate::python::{Raised, Result, hashable_repr, str_repr};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Tables by name, rows by key. Cloning shares the base.
#[derive(Debug, Clone)]
pub struct Database {
    base: Arc<Map<String, Value>>,
    changed: BTreeMap<(String, String), Value>,
    added: Vec<(String, String)>,
}

impl Database {
    /// A database over `tables`, an object of objects.
    #[must_use]
    pub fn new(tables: Arc<Map<String, Value>>) -> Self {
        Self { base: tables, changed: BTreeMap::new(), added: Vec::new() }
    }

    fn base_row(&self, table: &str, key: &str) -> Option<&Value> {
        self.base.get(table)?.get(key)
    }
    /// A row.
    #[must_use]
    pub fn row(&self, table: &str, key: &str) -> Option<&Value> {
        self.changed.get(&(table.to_owned(), key.to_owned())).or_else(|| self.base_row(table, key))
    }
    pub(crate) fn has(&self, table: &str, key: &str) -> bool {
        self.row(table, key).is_some()
    }
    /// A row that upstream indexes without asking.
    pub(crate) fn get(&self, table: &str, key: &str) -> Result<&Value> {
        self.row(table, key).ok_or_else(|| Raised(str_repr(key)))
    }
    /// A row to change in place.
    pub(crate) fn get_mut(&mut self, table: &str, key: &str) -> Result<&mut Value> {
        let row = self.get(table, key)?.clone();
        Ok(self.changed.entry((table.to_owned(), key.to_owned())).or_insert(row))
    }
    pub(crate) fn insert(&mut self, table: &str, key: &str, row: Value) {
        let at = (table.to_owned(), key.to_owned());
        if !self.has(table, key) {
            self.added.push(at.clone());
        }
        self.changed.insert(at, row);
    }
    /// Rows in upstream's order: as in the file, then as added.
    pub(crate) fn rows<'a>(&'a self, table: &'a str) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let file = self.base.get(table).and_then(Value::as_object).into_iter().flat_map(|m| m.keys());
        let added = self.added.iter().filter(move |(t, _)| t == table).map(|(_, k)| k);
        file.chain(added).filter_map(move |k| Some((k.as_str(), self.row(table, k)?)))
    }

    /// Whether two episodes on the same base ended in the same state: what upstream compares by hash.
    #[must_use]
    pub fn same_state(&self, other: &Self) -> bool {
        let covers = |a: &Self, b: &Self| {
            a.changed.iter().all(|((table, key), row)| b.row(table, key).is_some_and(|r| state(r) == state(row)))
        };
        covers(self, other) && covers(other, self)
    }

    /// Upstream's `get_data_hash`: SHA-256 of Python's text of the nested, sorted tuples.
    #[must_use]
    pub fn hash(&self) -> String {
        let mut tables: Vec<&String> = self.base.keys().collect();
        tables.sort();
        let mut text = String::from("(");
        for (i, table) in tables.iter().enumerate() {
            let mut rows: Vec<_> = self.rows(table).collect();
            rows.sort_by(|a, b| a.0.cmp(b.0));
            text.push_str(if i > 0 { ", (" } else { "(" });
            text.push_str(&str_repr(table));
            text.push_str(", (");
            for (j, (key, row)) in rows.iter().enumerate() {
                text.push_str(if j > 0 { ", (" } else { "(" });
                text.push_str(&str_repr(key));
                text.push_str(", ");
                hashable_repr(row, &mut text);
                text.push(')');
            }
            text.push_str(if rows.len() == 1 { ",))" } else { "))" });
        }
        text.push(')');
        Sha256::digest(text.as_bytes()).iter().map(|b| format!("{b:02x}")).collect()
    }
}

fn state(row: &Value) -> String {
    let mut text = String::new();
    hashable_repr(row, &mut text);
    text
}
