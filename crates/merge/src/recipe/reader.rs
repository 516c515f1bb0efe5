//! What every part of a recipe is read with: the models mentioned so far, and warnings.

use super::node::{Entry, Kind, Node};

/// Collects models as they are mentioned.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) models: Vec<String>,
    pub(super) warnings: Vec<String>,
}

impl Reader {
    /// A model reference: a path or hub name, perhaps with `@revision`, perhaps with `+ADAPTER`.
    pub(super) fn model(&mut self, node: &Node) -> Result<usize, String> {
        let name = match &node.kind {
            Kind::Text(t) => t.clone(),
            Kind::Number(n) => n.to_string(),
            Kind::Map(_) => {
                if node.get("override_architecture").is_some() {
                    return Err(format!("line {}: `override_architecture` is not supported", node.line));
                }
                let inner = node.get("model").unwrap_or(node);
                let name = match &inner.kind {
                    Kind::Text(t) => t.clone(),
                    _ => {
                        let path =
                            inner.get("path").ok_or_else(|| format!("line {}: a model needs `path`", node.line))?;
                        let mut name = self.text(path, "path")?;
                        if let Some(revision) = inner.get("revision") {
                            name = format!("{name}@{}", self.text(revision, "revision")?);
                        }
                        name
                    }
                };
                match node.get("lora") {
                    None => name,
                    Some(adapter) => {
                        let adapter = adapter.get("path").unwrap_or(adapter);
                        format!("{name}+{}", self.text(adapter, "lora")?)
                    }
                }
            }
            _ => return Err(format!("line {}: a model is named by a path, not by {}", node.line, node.what())),
        };
        Ok(self.models.iter().position(|m| *m == name).unwrap_or_else(|| {
            self.models.push(name);
            self.models.len() - 1
        }))
    }

    pub(super) fn text(&self, node: &Node, key: &str) -> Result<String, String> {
        match &node.kind {
            Kind::Text(t) => Ok(t.clone()),
            Kind::Number(n) => Ok(n.to_string()),
            _ => Err(format!("line {}: `{key}` must be a text, not {}", node.line, node.what())),
        }
    }

    /// Refuses keys without effect. One that holds an anchor which is used has some.
    pub(super) fn unknown_keys(&mut self, entries: &[Entry], known: &[&str], place: &str) -> Result<(), String> {
        let again = entries.iter().filter_map(|e| Some((&e.key, e.line, e.over?)));
        self.warnings
            .extend(again.map(|(key, line, over)| format!("line {line}: `{key}` counts, not that of line {over}")));
        match entries.iter().find(|e| !e.helps && !known.contains(&e.key.as_str())) {
            None => Ok(()),
            Some(Entry { key, line, .. }) => Err(format!(
                "line {line}: {place} has no key `{key}`, so it has no effect{}",
                crate::nearest(key, known)
            )),
        }
    }
}
