//! Whether an answer is right: THUDM/AgentBench@41e6807:`src/server/tasks/dbbench/__init__.py` for the text protocol,
//! @578c5e9:`src/server/tasks/dbbench/result_processor.py` for function calls.

use rolegraft_python::{self as python, Object};
use serde_json::Value;

/// Numbers that differ by no more than this are the same, for function calls.
const TOLERANCE: f64 = 1e-2;

/// The text protocol's rule for what is not a change of the table: `answer` is the rest of the line, blanks included.
#[must_use]
pub fn text(answer: &str, label: &[Value]) -> bool {
    let whole = || vec![Object::Str(answer.to_owned())];
    let given = python::computed(answer.trim_start_matches([' ', '\t'])).and_then(listed).unwrap_or_else(whole);
    let expected: Vec<Object> = label.iter().map(Object::from).collect();
    if let ([given], [expected]) = (given.as_slice(), expected.as_slice()) {
        return match (number(given), number(expected)) {
            (Some(a), Some(b)) => a == b,
            _ => given.equals(expected),
        };
    }
    if given.iter().chain(&expected).any(|item| !item.is_hashable()) {
        return false;
    }
    contains_all(&given, &expected) && contains_all(&expected, &given)
}

/// `list(x)`; nothing where Python raises.
fn listed(object: Object) -> Option<Vec<Object>> {
    match object {
        Object::List(items) | Object::Tuple(items) | Object::Set(items) => Some(items),
        Object::Dict(pairs) => Some(pairs.into_iter().map(|(key, _)| key).collect()),
        Object::Str(text) => Some(text.chars().map(|c| Object::Str(c.to_string())).collect()),
        Object::Bytes(bytes) => Some(bytes.into_iter().map(|b| Object::Int(b.into())).collect()),
        _ => None,
    }
}

/// `float(x)`; nothing where Python raises.
fn number(object: &Object) -> Option<f64> {
    match object {
        Object::Bool(b) => Some(f64::from(u8::from(*b))),
        Object::Int(i) => i.to_string().parse().ok(),
        Object::Float(f) => Some(*f),
        Object::Str(text) => python::float(text),
        _ => None,
    }
}

fn contains_all(all: &[Object], some: &[Object]) -> bool {
    some.iter().all(|item| all.iter().any(|known| known.equals(item)))
}

/// The function calls' rule for what is not a change of the table. `answer` is the value that was committed.
#[must_use]
pub fn call(answer: &Value, label: &Value) -> bool {
    match (listing(answer), listing(label)) {
        (Some(given), Some(expected)) => same(&given, &expected),
        _ => false,
    }
}

/// The function calls' rule for a changed table: the lists have to be the same.
#[must_use]
pub fn call_changed(hash: &str, expected: &Value) -> bool {
    listing(&hash.into()).is_some_and(|given| Some(given) == listing(expected))
}

fn same(given: &[String], expected: &[String]) -> bool {
    let close = |a: f64, b: f64| (a - b).abs() <= TOLERANCE;
    if let ([a], [b]) = (given, expected) {
        return match (python::float(a), python::float(b)) {
            (Some(a), Some(b)) => close(a, b),
            _ => a == b,
        };
    }
    let floats = |texts: &[String]| texts.iter().map(|t| python::float(t)).collect::<Option<Vec<f64>>>();
    if let (Some(given), Some(mut left)) = (floats(given), floats(expected)) {
        return given.len() == left.len()
            && given.iter().all(|a| match left.iter().position(|b| close(*a, *b)) {
                Some(at) => {
                    left.remove(at);
                    true
                }
                None => false,
            });
    }
    given.iter().all(|t| expected.contains(t)) && expected.iter().all(|t| given.contains(t))
}

/// Upstream's `_clean_answer`; `None` where it raises.
fn listing(value: &Value) -> Option<Vec<String>> {
    Some(cleaned(value)?.iter().map(|text| normal(text)).collect())
}

/// Upstream's `_normalize_special_values`.
fn normal(text: &str) -> String {
    let text = text.trim();
    if let Some(number) = text.strip_suffix('%') {
        return number.trim().to_owned();
    }
    let bracketed = text.starts_with('[') || text.ends_with(']');
    let text = if bracketed { text.to_owned() } else { text.replace(',', "") };
    let nothing = ["none", "null", "undefined", "nan", "inf", "infinity", "-inf", "-infinity", ""];
    if nothing.contains(&text.to_lowercase().as_str()) { "0".into() } else { text }
}

/// A value's text without blanks and quotes around it.
fn bare(text: &str) -> String {
    text.trim().trim_matches(['\'', '"']).to_owned()
}

/// An item of a list: one-tuples are what they hold.
fn of_item(item: &Object) -> String {
    match item {
        Object::Tuple(items) if items.len() == 1 => bare(&items[0].text()),
        other => bare(&other.text()),
    }
}

/// Upstream's `_clean_answer`, before it normalises: a value as a list of texts. `None` where it raises.
fn cleaned(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Null => Some(vec!["0".into()]),
        Value::String(text) => of_text(text),
        Value::Array(items) => Some(items.iter().map(|item| of_item(&Object::from(item))).collect()),
        other => Some(vec![bare(&Object::from(other).text())]),
    }
}

fn of_text(text: &str) -> Option<Vec<String>> {
    if let Some(result) = of_result(text) {
        return Some(result);
    }
    let trimmed = text.trim();
    if !(trimmed.starts_with('[') && trimmed.ends_with(']')) {
        return Some(vec![bare(trimmed)]);
    }
    match python::computed(trimmed) {
        Some(Object::List(items)) => Some(items.iter().map(of_item).collect()),
        Some(_) => None,
        None => Some(split(trimmed.get(1..trimmed.len() - 1).unwrap_or_default())),
    }
}

/// What a query printed, `[(1,), (2,)]`: the values of its rows of one.
fn of_result(text: &str) -> Option<Vec<String>> {
    if !(text.starts_with('[') && text.ends_with(']')) {
        return None;
    }
    if let Some(Object::List(items)) = python::computed(text)
        && items.iter().all(|item| matches!(item, Object::Tuple(_)))
    {
        let ones = items.iter().filter(|item| matches!(item, Object::Tuple(row) if row.len() == 1));
        return Some(ones.map(of_item).collect());
    }
    let inside = text.trim_matches(['[', ']']);
    let one = inside.strip_prefix('(').and_then(|t| t.strip_suffix(",)")).filter(|t| !t.contains('('));
    one.map(|value| vec![bare(value)])
}

/// Parts between commas that stand outside quotes; the quotes go.
fn split(text: &str) -> Vec<String> {
    let (mut parts, mut part, mut quoted) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        match c {
            '"' | '\'' => quoted = !quoted,
            ',' if !quoted => {
                if !part.is_empty() {
                    parts.push(bare(&std::mem::take(&mut part)));
                }
            }
            c => part.push(c),
        }
    }
    if !part.is_empty() {
        parts.push(bare(&part));
    }
    parts
}
