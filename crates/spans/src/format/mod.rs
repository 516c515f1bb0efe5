//! The engine: a format file, compiled, and applied to replies.

use crate::python_json;
use crate::reading::{Action, Reading, Role, Span, Violation, ViolationKind};
use regex::Regex;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::Range;

mod compile;
mod error;
mod reasoning;

pub use error::FormatError;

/// Longest reply that is read; what lies beyond is cut before reading, so that reading stays quick.
const MAX_REPLY: usize = 4 << 20;
/// Longest complaint of a schema that is kept, in characters: it may quote the whole payload.
const MAX_DETAIL: usize = 300;

/// A compiled reply format.
pub struct Format {
    name: String,
    role: Role,
    optional: bool,
    alone: bool,
    action_field: Option<String>,
    arguments_field: Option<String>,
    schema: Option<jsonschema::Validator>,
    rules: Vec<Rule>,
    confusions: Vec<(Regex, ViolationKind)>,
    reasoning: Option<(String, String)>,
    digest_source: String,
}

/// The actions of a suite, with the schemas of their arguments.
#[derive(Default)]
pub struct Actions {
    by_name: BTreeMap<String, Option<jsonschema::Validator>>,
}

impl Actions {
    /// Actions by name alone.
    #[must_use]
    pub fn named<'n>(names: impl IntoIterator<Item = &'n str>) -> Self {
        Self { by_name: names.into_iter().map(|name| (name.to_owned(), None)).collect() }
    }

    /// Tools as chat APIs announce them: `{"function": {"name": …, "parameters": SCHEMA}}`.
    ///
    /// # Errors
    /// If one has no name, or its parameters are no JSON Schema.
    pub fn of_tools(tools: &[Value]) -> Result<Self, FormatError> {
        let one = |tool: &Value| {
            let wrong = |name: &str, reason: String| FormatError::Tool { name: name.to_owned(), reason };
            let name = tool["function"]["name"].as_str().ok_or_else(|| wrong("?", "has no `function.name`".into()))?;
            let schema = tool["function"].get("parameters").map(jsonschema::validator_for).transpose();
            let schema = schema.map_err(|e| wrong(name, format!("has `parameters` that are no JSON Schema: {e}")))?;
            Ok((name.to_owned(), schema))
        };
        Ok(Self { by_name: tools.iter().map(one).collect::<Result<_, _>>()? })
    }

    /// These, and one more that takes anything.
    #[must_use]
    pub fn and(mut self, name: &str) -> Self {
        self.by_name.entry(name.to_owned()).or_default();
        self
    }
}

struct Rule {
    pattern: Regex,
    select: Select,
    payload: PayloadKind,
    fence: Option<(String, String)>,
    alternatives: Vec<Alternative>,
}

struct Alternative {
    action: String,
    when: Regex,
    blocks: Option<Regex>,
    /// Only the first block counts, and there has to be one.
    single: bool,
    join: String,
    value: Option<String>,
}

#[derive(Deserialize, Default, Clone, Copy, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Select {
    /// The first match; further ones are violations.
    #[default]
    First,
    /// The last match of which an alternative can make something.
    Last,
}

#[derive(Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "lowercase")]
enum PayloadKind {
    Json,
    Text,
}

impl Format {
    /// The format's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
    /// The role of its spans.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }
    /// What a digest must cover: the format file and its schema.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.digest_source
    }

    /// Reads a reply. `actions` are those that exist, where the suite has a closed list.
    #[must_use]
    pub fn read(&self, reply: &str, actions: Option<&Actions>) -> Reading {
        let cut = (0..=MAX_REPLY.min(reply.len())).rev().find(|i| reply.is_char_boundary(*i)).unwrap_or(0);
        let whole = &reply[..cut];
        let (reasoning, shown) = self.set_apart(whole);
        let reply = shown.as_ref();
        let mut reading = self.rules.iter().find_map(|rule| self.apply(rule, reply, actions)).unwrap_or_default();
        if reading.spans.is_empty() {
            let confusion = self.confusions.iter().find_map(|(pattern, kind)| {
                let found = pattern.find(reply)?;
                Some(Violation { kind: *kind, range: found.range(), detail: found.as_str().chars().take(80).collect() })
            });
            if confusion.is_some() || !self.optional {
                let range = 0..reply.len();
                reading.violations.push(confusion.unwrap_or_else(|| Violation {
                    kind: ViolationKind::Missing,
                    range,
                    detail: format!("no {} found", self.role.as_str()),
                }));
            }
        }
        reading.drafts = reasoning.iter().map(|thought| self.drafts(&whole[thought.clone()])).sum();
        reading.reasoning = reasoning;
        reading
    }

    fn apply(&self, rule: &Rule, reply: &str, actions: Option<&Actions>) -> Option<Reading> {
        if rule.select == Select::Last {
            let acts: Vec<_> = rule.pattern.captures_iter(reply).collect();
            return acts.iter().rev().find_map(|act| {
                let whole = act.get(0)?;
                let head = act.name("payload").unwrap_or(whole);
                let span = self.alternative(rule, reply, whole.start(), head.range())?;
                Some(Reading::of(span))
            });
        }
        let mut matches = rule.pattern.captures_iter(reply);
        let first = matches.next()?;
        let whole = first.get(0)?;
        let payload = first.name("payload").unwrap_or(whole);
        if !rule.alternatives.is_empty() {
            let start = first.name("span").unwrap_or(whole).start();
            let span = self.alternative(rule, reply, start, payload.range())?;
            return Some(Reading::of(span));
        }
        let mut range = payload.range();
        if let Some((open, close)) = &rule.fence {
            let text = &reply[range.clone()];
            if text.starts_with(open.as_str())
                && text.ends_with(close.as_str())
                && text.len() >= open.len() + close.len()
            {
                range = range.start + open.len()..range.end - close.len();
            }
        }
        let span_range = first.name("span").map_or(range.clone(), |m| m.range());
        let mut span = match rule.payload {
            PayloadKind::Json => self.json_span(reply, range, span_range, actions),
            PayloadKind::Text => {
                let text = reply[range].to_owned();
                let action = Action { name: self.name.clone(), payload: Value::String(text.clone()) };
                Span { role: self.role, range: span_range, text, action: Some(action), violations: Vec::new() }
            }
        };
        let mut taken = vec![whole.range()];
        for more in matches {
            let range = more.get(0).map_or(0..0, |m| m.range());
            taken.push(range.clone());
            let detail = "only the first is executed".into();
            span.violations.push(Violation { kind: ViolationKind::Multiple, range, detail });
        }
        let beside = if self.alone { self.beside(reply, &taken) } else { None };
        span.violations.extend(beside.map(|range| Violation {
            kind: ViolationKind::Prose,
            range,
            detail: format!("text beside the {}", self.role.as_str()),
        }));
        Some(Reading::of(span))
    }

    /// The first text outside `taken` that is not blank.
    fn beside(&self, reply: &str, taken: &[Range<usize>]) -> Option<Range<usize>> {
        let mut taken = taken.to_vec();
        taken.sort_by_key(|r| r.start);
        let mut at = 0;
        for next in taken.into_iter().chain(std::iter::once(reply.len()..reply.len())) {
            if let Some(text) = reply.get(at..next.start).filter(|t| !t.trim().is_empty()) {
                let start = at + text.len() - text.trim_start().len();
                return Some(start..start + text.trim().len());
            }
            at = at.max(next.end);
        }
        None
    }

    fn alternative(&self, rule: &Rule, reply: &str, start: usize, head: Range<usize>) -> Option<Span> {
        rule.alternatives.iter().find_map(|alternative| {
            let found = alternative.when.captures(&reply[head.clone()])?;
            let mut end = head.end;
            let payload = if let Some(blocks) = &alternative.blocks {
                let mut texts = Vec::new();
                let most = if alternative.single { 1 } else { usize::MAX };
                for block in blocks.captures_iter(reply).take(most) {
                    end = end.max(block.get(0).map_or(end, |m| m.end()));
                    texts.push(block.get(1).map_or("", |m| m.as_str()));
                }
                if alternative.single && texts.is_empty() {
                    let detail = format!("no block for `{}`", alternative.action);
                    let missing = Violation { kind: ViolationKind::Missing, range: start..end, detail };
                    let (range, text) = (start..end, String::new());
                    return Some(Span { role: self.role, range, text, action: None, violations: vec![missing] });
                }
                Some(texts.join(&alternative.join))
            } else if let Some(value) = found.name("payload") {
                end = head.start + found.get(0).map_or(0, |m| m.end());
                Some(value.as_str().to_owned())
            } else {
                alternative.value.clone()
            };
            let text = payload.clone().unwrap_or_default();
            let payload = payload.map_or(Value::Null, Value::String);
            let action = Action { name: alternative.action.clone(), payload };
            Some(Span { role: self.role, range: start..end, text, action: Some(action), violations: Vec::new() })
        })
    }

    fn json_span(&self, reply: &str, payload: Range<usize>, range: Range<usize>, actions: Option<&Actions>) -> Span {
        let text = &reply[payload.clone()];
        let mut span = Span { role: self.role, range, text: text.to_owned(), action: None, violations: Vec::new() };
        let mut flag = |kind, detail: String| span.violations.push(Violation { kind, range: payload.clone(), detail });
        let value = match python_json::loads(text) {
            Ok(value) => value,
            Err(error) => {
                let escape = error.message == "Invalid \\escape" || error.message.starts_with("Invalid \\u");
                flag(if escape { ViolationKind::BadEscape } else { ViolationKind::InvalidJson }, error.to_string());
                return span;
            }
        };
        if let Some(error) = self.schema.as_ref().and_then(|s| s.iter_errors(&value).next()) {
            let nested = self.action_field.as_ref().and_then(|f| value.get(f)).is_some_and(|inner| {
                inner.is_object() || inner.as_str().is_some_and(|s| s.trim_start().starts_with('{'))
            });
            let kind = if nested { ViolationKind::NestedJson } else { ViolationKind::Schema };
            let said: String = error.to_string().chars().take(MAX_DETAIL).collect();
            flag(kind, format!("at `{}`: {said}", error.instance_path()));
        }
        let name = match &self.action_field {
            Some(field) => value.get(field).and_then(Value::as_str),
            None => Some(self.name.as_str()),
        };
        if let Some(name) = name {
            if actions.is_some_and(|known| !known.by_name.contains_key(name)) {
                flag(ViolationKind::UnknownAction, format!("there is no `{name}`"));
            }
            let arguments = match &self.arguments_field {
                Some(field) => value.get(field).cloned().unwrap_or(Value::Null),
                None => value.clone(),
            };
            if span.violations.iter().all(|v| v.kind == ViolationKind::UnknownAction) || self.arguments_field.is_none()
            {
                // Arguments that the tool does not take are the environment's to answer: the action stands.
                let schema = actions.and_then(|known| known.by_name.get(name)?.as_ref());
                if let Some(error) = schema.and_then(|s| s.iter_errors(&arguments).next()) {
                    let at =
                        format!("/{}{}", self.arguments_field.as_deref().unwrap_or_default(), error.instance_path());
                    let said: String = error.to_string().chars().take(MAX_DETAIL).collect();
                    let detail = format!("at `{at}`: {said}");
                    span.violations.push(Violation { kind: ViolationKind::Schema, range: payload.clone(), detail });
                }
                span.action = Some(Action { name: name.to_owned(), payload: arguments });
            }
        } else if self.arguments_field.is_none() {
            span.action = Some(Action { name: String::new(), payload: value });
        }
        span
    }
}
