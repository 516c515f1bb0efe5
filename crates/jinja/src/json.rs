//! `json.dumps` as the filter `tojson` of chat templates calls it: `ensure_ascii=False`, no HTML escapes, keys in the order they were set.

use crate::RenderError;
use crate::arguments::Given;
use crate::bounds::{Bounded, LONGEST};
use crate::python::arithmetic::{Number, number};
use crate::python::order::sort;
use crate::python::print::float;
use crate::python::{Answer, Kind, elements, fault, sequence_kind, type_name};
use minijinja::value::{DynObject, Value, ValueKind};
use minijinja::{Error, State};
use std::fmt::Write;

/// How deep a value may nest; Python gives up at about a thousand.
const DEEPEST: usize = 200;

struct Style {
    ascii: bool,
    indent: Option<String>,
    between: String,
    after_key: String,
    sort: bool,
}

/// The `tojson` filter: `ensure_ascii`, `indent`, `separators`, `sort_keys`.
pub(crate) fn tojson(state: &State, values: &[Value]) -> Answer {
    let mut given = Given::new("tojson", values);
    let value = given.need(0, "x")?;
    let ascii = given.flag(1, "ensure_ascii");
    let indent = match given.get(2, "indent") {
        Some(indent) if indent.as_str().is_some() => indent.as_str().map(str::to_owned),
        _ => given.integer(2, "indent")?.map(|n| " ".repeat(usize::try_from(n).unwrap_or(0).min(1 << 12))),
    };
    let mut between = if indent.is_some() { ",".to_owned() } else { ", ".to_owned() };
    let mut after_key = ": ".to_owned();
    if let Some(separators) = given.get(3, "separators").filter(|value| !value.is_none()) {
        let [first, second] =
            elements(state, &separators)?.try_into().map_err(|_| fault("tojson() expects two separators"))?;
        let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(|| fault("a separator is a string"));
        (between, after_key) = (text(&first)?, text(&second)?);
    }
    let sort = given.flag(4, "sort_keys");
    given.end()?;
    let style = Style { ascii, indent, between, after_key, sort };
    let mut out = Bounded::default();
    write(state, &mut out, &value, &style, 0)?;
    out.finish(state, Ok(())).map(Value::from)
}

fn write(state: &State, out: &mut Bounded, value: &Value, style: &Style, depth: usize) -> Result<(), Error> {
    if depth > DEEPEST {
        return Err(fault("tojson() meets values that nest too deep"));
    }
    match value.kind() {
        ValueKind::None => put(out, "null"),
        ValueKind::Bool | ValueKind::Number => put(out, &scalar(value)),
        ValueKind::String => string(out, value.as_str().unwrap_or_default(), style.ascii),
        ValueKind::Seq if sequence_kind(value) != Some(Kind::Generator) => {
            put(out, "[")?;
            let mut empty = true;
            for item in value.try_iter()? {
                separate(out, style, depth, std::mem::take(&mut empty))?;
                write(state, out, &item, style, depth + 1)?;
            }
            close(out, style, depth, empty)?;
            put(out, "]")
        }
        ValueKind::Map => {
            put(out, "{")?;
            let mut pairs: Vec<_> =
                value.as_object().and_then(DynObject::try_iter_pairs).into_iter().flatten().collect();
            if style.sort {
                sort(state, &mut pairs, false)?;
            }
            let empty = pairs.is_empty();
            for (index, (key, value)) in pairs.iter().enumerate() {
                separate(out, style, depth, index == 0)?;
                match key.kind() {
                    ValueKind::String => string(out, key.as_str().unwrap_or_default(), style.ascii)?,
                    ValueKind::None => put(out, "\"null\"")?,
                    ValueKind::Bool | ValueKind::Number => put(out, &format!("\"{}\"", scalar(key)))?,
                    _ => return Err(fault("keys must be str, int, float, bool or None")),
                }
                put(out, &style.after_key)?;
                write(state, out, value, style, depth + 1)?;
            }
            close(out, style, depth, empty)?;
            put(out, "}")
        }
        _ => Err(fault(format!("Object of type {} is not JSON serializable", type_name(value)))),
    }
}

fn put(out: &mut Bounded, text: &str) -> Result<(), Error> {
    out.write_str(text).map_err(|_| RenderError::TooLong(LONGEST + 1).into())
}

fn separate(out: &mut Bounded, style: &Style, depth: usize, first: bool) -> Result<(), Error> {
    if !first {
        put(out, &style.between)?;
    }
    line(out, style, depth + 1)
}

fn close(out: &mut Bounded, style: &Style, depth: usize, empty: bool) -> Result<(), Error> {
    if empty { Ok(()) } else { line(out, style, depth) }
}

fn line(out: &mut Bounded, style: &Style, depth: usize) -> Result<(), Error> {
    let Some(indent) = &style.indent else { return Ok(()) };
    put(out, "\n")?;
    (0..depth).try_for_each(|_| put(out, indent))
}

fn scalar(value: &Value) -> String {
    match number(value) {
        _ if value.kind() == ValueKind::Bool => value.is_true().to_string(),
        Some(Number::Float(x)) if x.is_nan() => "NaN".into(),
        Some(Number::Float(x)) if x.is_infinite() => if x > 0.0 { "Infinity" } else { "-Infinity" }.into(),
        Some(Number::Float(x)) => float(x),
        _ => value.to_string(),
    }
}

fn string(out: &mut Bounded, text: &str, ascii: bool) -> Result<(), Error> {
    let mut done = 0;
    put(out, "\"")?;
    for (at, c) in text.char_indices() {
        let short = match c {
            '"' => "\\\"",
            '\\' => "\\\\",
            '\n' => "\\n",
            '\r' => "\\r",
            '\t' => "\\t",
            '\x08' => "\\b",
            '\x0c' => "\\f",
            c if c < ' ' || (ascii && !(' '..='~').contains(&c)) => "",
            _ => continue,
        };
        put(out, &text[done..at])?;
        done = at + c.len_utf8();
        if short.is_empty() {
            for unit in c.encode_utf16(&mut [0; 2]) {
                put(out, &format!("\\u{unit:04x}"))?;
            }
        } else {
            put(out, short)?;
        }
    }
    put(out, &text[done..])?;
    put(out, "\"")
}
