//! Recipes as a tree that remembers lines.

/// A value and the line it stands on (from 1).
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) line: usize,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) line: usize,
    pub(crate) value: Node,
    /// Whether it holds an anchor that is used elsewhere.
    pub(crate) helps: bool,
    /// The line of an entry of the same key that it stands in place of.
    pub(crate) over: Option<usize>,
}

impl Node {
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        match &self.kind {
            Kind::Map(entries) => {
                entries.iter().find(|e| e.key == key).map(|e| &e.value).filter(|v| v.kind != Kind::Null)
            }
            _ => None,
        }
    }

    pub(crate) fn what(&self) -> &'static str {
        match self.kind {
            Kind::Null => "nothing",
            Kind::Bool(_) => "true or false",
            Kind::Number(_) => "a number",
            Kind::Text(_) => "a text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a table",
        }
    }
}
