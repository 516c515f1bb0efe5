//! How values print: `str`, `repr`, and texts that are made of several.

use super::arithmetic::{Number, number};
use super::{Answer, Kind, sequence_kind};
use crate::bounds::{Bounded, NESTED};
use crate::lexer::is_blank;
use minijinja::value::{DynObject, Value, ValueKind};
use minijinja::{Error, State};
use std::borrow::Cow;
use std::fmt::{self, Write};

/// Python's `str` of a value.
pub(crate) fn text<'v>(state: &State, value: &'v Value) -> Result<Cow<'v, str>, Error> {
    if let Some(text) = value.as_str() {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = Bounded::default();
    let written = write_text(&mut out, value);
    out.finish(state, written).map(Cow::Owned)
}

/// Python's `str` of anything but a string.
fn write_text(out: &mut dyn Write, value: &Value) -> fmt::Result {
    match value.kind() {
        ValueKind::Undefined => Ok(()),
        _ => write_repr(out, value, NESTED),
    }
}

/// Python's `repr` of a value.
pub(crate) fn repr(state: &State, value: &Value) -> Result<String, Error> {
    let mut out = Bounded::default();
    let written = write_repr(&mut out, value, NESTED);
    out.finish(state, written)
}

fn write_repr(out: &mut dyn Write, value: &Value, left: usize) -> fmt::Result {
    if left == 0 {
        return Err(fmt::Error);
    }
    match value.kind() {
        ValueKind::Undefined => out.write_str("Undefined"),
        ValueKind::None => out.write_str("None"),
        ValueKind::Bool => out.write_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => match number(value) {
            Some(Number::Float(x)) => out.write_str(&float(x)),
            _ => write!(out, "{value}"),
        },
        ValueKind::String => write_quoted(out, value.as_str().unwrap_or_default()),
        ValueKind::Seq | ValueKind::Iterable => {
            let kind = sequence_kind(value);
            if kind == Some(Kind::Generator) {
                return out.write_str("<generator object>");
            }
            let (open, close) = if kind == Some(Kind::Tuple) { ('(', ')') } else { ('[', ']') };
            out.write_char(open)?;
            let mut count = 0;
            for item in value.try_iter().into_iter().flatten() {
                out.write_str(if count > 0 { ", " } else { "" })?;
                write_repr(out, &item, left - 1)?;
                count += 1;
            }
            if open == '(' && count == 1 {
                out.write_char(',')?;
            }
            out.write_char(close)
        }
        ValueKind::Map => {
            out.write_char('{')?;
            let pairs = value.as_object().and_then(DynObject::try_iter_pairs).into_iter().flatten();
            for (index, (key, value)) in pairs.enumerate() {
                out.write_str(if index > 0 { ", " } else { "" })?;
                write_repr(out, &key, left - 1)?;
                out.write_str(": ")?;
                write_repr(out, &value, left - 1)?;
            }
            out.write_char('}')
        }
        _ => write!(out, "{value}"),
    }
}

fn write_quoted(out: &mut dyn Write, text: &str) -> fmt::Result {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.write_char(quote)?;
    for c in text.chars() {
        match c {
            '\\' => out.write_str("\\\\")?,
            c if c == quote => write!(out, "\\{c}")?,
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            c if c != ' ' && (c.is_control() || is_blank(c) || unprintable(c)) => match c as u32 {
                code @ 0..=0xff => write!(out, "\\x{code:02x}")?,
                code @ 0..=0xffff => write!(out, "\\u{code:04x}")?,
                code => write!(out, "\\U{code:08x}")?,
            },
            c => out.write_char(c)?,
        }
    }
    out.write_char(quote)
}

/// The format characters and private ranges that Python escapes and that texts do hold.
fn unprintable(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        || ('\u{e000}'..='\u{f8ff}').contains(&c)
        || c as u32 >= 0xe_0000
}

/// Python's `repr` of a float: shortest digits, an exponent below 1e-4 and from 1e16.
pub(crate) fn float(x: f64) -> String {
    if x.is_nan() {
        return "nan".into();
    }
    if x.is_infinite() {
        return if x > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let shortest = format!("{x:e}");
    let (digits, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = x.to_string();
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// HTML escapes, where a template asks for them.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            c => out.push(c),
        }
    }
    out
}

/// The texts of values, with another between them.
pub(crate) fn joined(state: &State, items: &[Value], joiner: &str) -> Answer {
    let mut out = Bounded::default();
    let written = items.iter().enumerate().try_for_each(|(index, item)| {
        out.write_str(if index > 0 { joiner } else { "" })?;
        match item.as_str() {
            Some(text) => out.write_str(text),
            None => write_text(&mut out, item),
        }
    });
    out.finish(state, written).map(Value::from)
}
