//! Upstream's apps: what they say about themselves, and the command lines that their actions become.
//!
//! `data/apps.json` and `data/prompts.json` hold the texts of microsoft/Simia-Agent-Training@ea77d9d:OfficeBench (MIT),
//! in its order.

use crate::fire::Parameter;
use rolegraft_python::Object;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::sync::OnceLock;

/// An app.
#[derive(Debug, Deserialize)]
pub(crate) struct App {
    /// Its name.
    pub(crate) app: String,
    /// Its line in the system prompt.
    pub(crate) intro: String,
    /// What it can do.
    pub(crate) actions: Vec<Action>,
}

/// An action of an app.
#[derive(Debug, Deserialize)]
pub(crate) struct Action {
    /// Its name.
    pub(crate) action: String,
    /// How it is shown to the model.
    pub(crate) demo: String,
    /// The command line, with `{argument}` for each argument.
    command: String,
    /// The tool's parameters: a name, and a default where it has one.
    params: Vec<Vec<Value>>,
}

/// Every app, in upstream's order.
pub(crate) fn apps() -> &'static [App] {
    static APPS: OnceLock<Vec<App>> = OnceLock::new();
    APPS.get_or_init(|| serde_json::from_str(include_str!("../data/apps.json")).unwrap_or_default())
}

/// An app by name.
pub(crate) fn app(name: &str) -> Option<&'static App> {
    apps().iter().find(|a| a.app == name)
}

/// A text of upstream's prompts, `{name}` filled in and doubled braces made single.
pub(crate) fn prompt(name: &str, values: &[(&str, &str)]) -> String {
    static PROMPTS: OnceLock<Map<String, Value>> = OnceLock::new();
    let prompts =
        PROMPTS.get_or_init(|| serde_json::from_str(include_str!("../data/prompts.json")).unwrap_or_default());
    format(prompts.get(name).and_then(Value::as_str).unwrap_or_default(), values)
}

/// Python's `str.format` with names only.
fn format(template: &str, values: &[(&str, &str)]) -> String {
    let (mut out, mut rest) = (String::new(), template);
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        let tail = &rest[at..];
        if tail.starts_with("{{") || tail.starts_with("}}") {
            out.push_str(&tail[..1]);
            rest = &tail[2..];
            continue;
        }
        let field = tail.strip_prefix('{').and_then(|t| t.split_once('}'));
        let Some((name, after)) = field else {
            out.push_str(&tail[..1]);
            rest = &tail[1..];
            continue;
        };
        out.push_str(values.iter().find(|(n, _)| *n == name).map_or("", |(_, v)| v));
        rest = after;
    }
    out + rest
}

impl Action {
    /// The tool's parameters.
    pub(crate) fn parameters(&self) -> Vec<Parameter> {
        self.params
            .iter()
            .map(|p| (p.first().and_then(Value::as_str).unwrap_or_default().to_owned(), p.get(1).map(Object::from)))
            .collect()
    }

    /// Names of the arguments, in the command line's order.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &str> {
        self.command.split('{').skip(1).filter_map(|t| t.split('}').next()).map(|t| t.split(':').next().unwrap_or(t))
    }

    /// The command line for some arguments, or the message of what Python raises: a missing argument's name in quotes, or
    /// what is no text where upstream wants one.
    pub(crate) fn command_line(&self, given: &Map<String, Value>) -> Result<String, String> {
        // Programs lie in the working directory, not at the root.
        self.filled(given).map(|line| line.replace("/apps/", "apps/"))
    }

    /// The original's command line.
    pub(crate) fn filled(&self, given: &Map<String, Value>) -> Result<String, String> {
        let texts: Vec<(String, String)> =
            self.prepared(given)?.iter().map(|(name, value)| (name.clone(), Object::from(value).text())).collect();
        let values: Vec<(&str, &str)> = texts.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        Ok(format(&self.command, &values))
    }

    /// The arguments as upstream makes them ready: quotes deleted from texts, lists of users refused.
    pub(crate) fn prepared(&self, given: &Map<String, Value>) -> Result<Map<String, Value>, String> {
        let mut given = given.clone();
        // What upstream looks at before it fills in the rest.
        let first = match self.action.as_str() {
            "set_cell" => Some("text"),
            "send_email" => Some("recipient"),
            "write_to_file" => Some("contents"),
            _ => None,
        };
        let has_first = first.into_iter().chain(self.fields()).find(|field| !given.contains_key(*field));
        let lists = match self.action.as_str() {
            "create_event" => Some(("user", "Multiple users")),
            "list_events" => Some(("username", "Multiple users")),
            "send_email" => Some(("recipient", "Multiple recipients")),
            _ => None,
        };
        if let Some((field, instead)) = lists
            && let Some(value) = given.get_mut(field).filter(|v| v.is_array())
        {
            *value = instead.into();
        }
        if self.action == "write_to_file"
            && let Some(value @ Value::Array(_)) = given.get_mut("contents")
        {
            *value = joined(value.as_array().map_or(&[], Vec::as_slice), "\n")?.into();
        }
        let unquoted: &[&str] = match self.action.as_str() {
            "write_to_file" => &["contents"],
            "send_email" => &["subject", "content"],
            _ => &[],
        };
        for field in unquoted {
            // Arguments are looked at in turn: one that is missing before this one is what is raised.
            if has_first == Some(field) {
                break;
            }
            let Some(value) = given.get_mut(*field) else { continue };
            let Value::String(text) = value else {
                let missing_before =
                    has_first.filter(|m| self.fields().position(|f| f == *m) < self.fields().position(|f| f == *field));
                return Err(missing_before.map_or_else(
                    || format!("'{}' object has no attribute 'replace'", Object::from(&*value).kind()),
                    |m| format!("'{m}'"),
                ));
            };
            *value = text.replace(['\'', '"'], "").into();
        }
        if let Some(missing) = has_first {
            return Err(format!("'{missing}'"));
        }
        Ok(given)
    }
}

/// Python's `separator.join(items)`.
pub(crate) fn joined(items: &[Value], separator: &str) -> Result<String, String> {
    let mut texts = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let kind = || Object::from(item).kind();
        texts.push(item.as_str().ok_or_else(|| format!("sequence item {i}: expected str instance, {} found", kind()))?);
    }
    Ok(texts.join(separator))
}
