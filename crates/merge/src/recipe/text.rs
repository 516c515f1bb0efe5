//! From a recipe's text to its tree, from YAML or TOML alike.

use super::node::{Entry, Kind, Node};
use super::yaml::{bounded, documents};
use std::path::Path;

/// Reads TOML if `path` ends so, else YAML.
pub(crate) fn parse(text: &str, path: &Path) -> Result<Node, String> {
    if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("toml")) { toml(text) } else { yaml(text) }
}

fn yaml(text: &str) -> Result<Node, String> {
    let mut documents = documents(text)?;
    match (documents.pop(), documents.len()) {
        (Some(document), 0) if document.node.kind != Kind::Null => Ok(document.node),
        (Some(_), more) if more > 0 => Err(format!(
            "the recipe holds {} documents, where one is expected; `rolegraft merge` carries them out one after another with --intermediate-dir",
            more + 1
        )),
        _ => Err("the recipe is empty".into()),
    }
}

fn toml(text: &str) -> Result<Node, String> {
    bounded(text)?;
    let document = toml_edit::Document::parse(text).map_err(|e| e.to_string().trim_end().to_owned())?;
    let lines = Lines { text };
    Ok(lines.table(document.as_table(), 1))
}

struct Lines<'t> {
    text: &'t str,
}

impl Lines<'_> {
    fn at(&self, span: Option<std::ops::Range<usize>>, otherwise: usize) -> usize {
        span.map_or(otherwise, |s| 1 + self.text.bytes().take(s.start).filter(|b| *b == b'\n').count())
    }
    fn table(&self, table: &dyn toml_edit::TableLike, line: usize) -> Node {
        let entries = table.iter().map(|(key, item)| {
            let span = table.key(key).and_then(toml_edit::Key::span);
            let line = self.at(span, line);
            Entry { key: key.to_owned(), line, value: self.item(item, line), helps: false, over: None }
        });
        Node { line, kind: Kind::Map(entries.collect()) }
    }
    fn item(&self, item: &toml_edit::Item, line: usize) -> Node {
        let line = self.at(item.span(), line);
        match item {
            toml_edit::Item::None => Node { line, kind: Kind::Null },
            toml_edit::Item::Value(value) => self.value(value, line),
            toml_edit::Item::Table(table) => self.table(table, line),
            toml_edit::Item::ArrayOfTables(tables) => {
                let items = tables.iter().map(|t| self.table(t, self.at(t.span(), line)));
                Node { line, kind: Kind::List(items.collect()) }
            }
        }
    }
    fn value(&self, value: &toml_edit::Value, line: usize) -> Node {
        let line = self.at(value.span(), line);
        let kind = match value {
            toml_edit::Value::String(s) => Kind::Text(s.value().clone()),
            toml_edit::Value::Integer(i) => Kind::Number(*i.value() as f64),
            toml_edit::Value::Float(f) => Kind::Number(*f.value()),
            toml_edit::Value::Boolean(b) => Kind::Bool(*b.value()),
            toml_edit::Value::Datetime(d) => Kind::Text(d.value().to_string()),
            toml_edit::Value::Array(items) => Kind::List(items.iter().map(|v| self.value(v, line)).collect()),
            toml_edit::Value::InlineTable(table) => return self.table(table, line),
        };
        Node { line, kind }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_and_toml_say_the_same() {
        let yaml = "merge_method: ties\nmodels:\n- model: a\n  parameters: {weight: [0, 1.5], normalize: true}\n";
        let toml = "merge_method = \"ties\"\n[[models]]\nmodel = \"a\"\nparameters = { weight = [0, 1.5], normalize = true }\n";
        let strip = |node: Node| {
            format!("{node:?}")
                .split("line: ")
                .map(|p| p.trim_start_matches(|c: char| c.is_ascii_digit()).to_owned())
                .collect::<String>()
        };
        let (a, b) = (parse(yaml, Path::new("r.yaml")).unwrap(), parse(toml, Path::new("r.toml")).unwrap());
        assert_eq!(strip(a.clone()), strip(b.clone()));
        let line = |n: &Node| match &n.get("models").unwrap().kind {
            Kind::List(items) => items[0].get("parameters").unwrap().line,
            _ => 0,
        };
        assert_eq!((line(&a), line(&b)), (4, 4));
    }

    #[test]
    fn bombs_and_nonsense_are_errors() {
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for i in 1..12 {
            let refs = vec![format!("*a{}", i - 1); 10].join(",");
            bomb.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
        }
        assert!(parse(&bomb, Path::new("r.yml")).is_err());
        for bad in ["", "a: [", "{{{", "\t", "a: 1\n---\nb: 2", "a: *b", "a: &a [*a]", "? [1]\n: 2", "a: !x 1"] {
            assert!(parse(bad, Path::new("r.yml")).is_err(), "{bad:?}");
        }
        assert!(parse(&"[".repeat(100_000), Path::new("r.yml")).is_err());
        assert!(parse("a = ", Path::new("r.toml")).is_err());
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "(merge_method|models|- |: |[a-z0-9\\[\\]{}&*!|>'\"\\n ,.-]){0,60}") {
            let _ = parse(&text, Path::new("r.yml"));
            let _ = parse(&text, Path::new("r.toml"));
        }
    }
}
