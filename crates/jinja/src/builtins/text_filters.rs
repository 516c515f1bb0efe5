//! Filters that make texts.

use super::{Function, at};
use crate::arguments::Given;
use crate::bounds::{pay, pay_text};
use crate::json::tojson;
use crate::lexer::is_blank;
use crate::python::print::{escape, text};
use crate::python::{Answer, Kind, dict, fault, sequence};
use crate::{format, methods};
use minijinja::value::Value;
use minijinja::{Error, State};

pub(crate) const FILTERS: &[(&str, Function)] = &[
    ("tojson", tojson),
    ("capitalize", |s, v| Ok(Value::from(methods::capitalize(&paid(s, v)?)))),
    ("center", |s, v| {
        let mut given = Given::new("center", v);
        let (value, width) = (given.need(0, "value")?, given.integer(1, "width")?.unwrap_or(80));
        given.end()?;
        methods::call(s, &Value::from(text(s, &value)?.into_owned()), "center", &[Value::from(width)])
    }),
    ("e", |s, v| escaped(s, &at(v, 0))),
    ("escape", |s, v| escaped(s, &at(v, 0))),
    ("forceescape", |s, v| escaped(s, &Value::from(text(s, &at(v, 0))?.into_owned()))),
    ("format", |s, v| {
        let given = Given::new("format", v);
        let (format, rest) = given.rest().split_first().ok_or_else(|| fault("format() misses its value"))?;
        let values = match given.named() {
            Some(named) if rest.is_empty() => dict(named)?,
            Some(_) => return Err(fault("can't handle positional and keyword arguments at the same time")),
            None => sequence(rest.to_vec(), Kind::Tuple)?,
        };
        format::percent(s, &text(s, format)?, &values)
    }),
    ("indent", indent),
    ("lower", |s, v| Ok(Value::from(paid(s, v)?.to_lowercase()))),
    ("upper", |s, v| Ok(Value::from(paid(s, v)?.to_uppercase()))),
    // It looks for words behind blanks, dashes and opening brackets, unlike Python's.
    ("title", |s, v| {
        let within = |c: char| !is_blank(c) && !matches!(c, '-' | '(' | '{' | '[' | '<');
        Ok(Value::from(methods::titled(&paid(s, v)?, within)))
    }),
    ("replace", |s, v| {
        let mut given = Given::new("replace", v);
        let (value, old, new) = (given.need(0, "s")?, given.need(1, "old")?, given.need(2, "new")?);
        let count = given.integer(3, "count")?;
        given.end()?;
        let (value, old, new) = (text(s, &value)?, text(s, &old)?, text(s, &new)?);
        methods::replace(s, &value, &old, &new, count)
    }),
    ("safe", |s, v| Ok(Value::from_safe_string(text(s, &at(v, 0))?.into_owned()))),
    ("string", |s, v| match at(v, 0) {
        value if value.as_str().is_some() => Ok(value),
        value => Ok(Value::from(text(s, &value)?.into_owned())),
    }),
    ("trim", |s, v| {
        let mut given = Given::new("trim", v);
        let (value, chars) = (given.need(0, "value")?, given.optional_text(1, "chars")?);
        given.end()?;
        let whole = text(s, &value)?;
        pay(s, whole.len())?;
        let kept = methods::strip_both(&whole, chars.as_deref());
        Ok(if value.is_safe() { Value::from_safe_string(kept.to_owned()) } else { Value::from(kept) })
    }),
    ("truncate", truncate),
    ("wordcount", |s, v| {
        let words =
            |text: &str| text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|w| !w.is_empty()).count();
        Ok(Value::from(words(&paid(s, v)?)))
    }),
];

/// The one text that a filter takes.
fn paid(state: &State, values: &[Value]) -> Result<String, Error> {
    if values.len() > 1 {
        return Err(fault("the filter takes no arguments"));
    }
    let value = at(values, 0);
    let whole = text(state, &value)?;
    pay_text(state, whole.len())?;
    Ok(whole.into_owned())
}

fn escaped(state: &State, value: &Value) -> Answer {
    if value.is_safe() {
        return Ok(value.clone());
    }
    let whole = text(state, value)?;
    pay_text(state, whole.len().saturating_mul(5))?;
    Ok(Value::from_safe_string(escape(&whole)))
}

fn indent(state: &State, values: &[Value]) -> Answer {
    let mut given = Given::new("indent", values);
    let value = given.need(0, "s")?;
    let width = match given.get(1, "width") {
        Some(width) if width.as_str().is_some() => width.as_str().unwrap_or_default().to_owned(),
        _ => {
            let count = usize::try_from(given.integer(1, "width")?.unwrap_or(4)).unwrap_or(0);
            pay_text(state, count)?;
            " ".repeat(count)
        }
    };
    let (first, blank) = (given.flag(2, "first"), given.flag(3, "blank"));
    given.end()?;
    let whole = text(state, &value)?.into_owned() + "\n";
    let lines = methods::lines(&whole, false);
    pay_text(state, whole.len().saturating_add(lines.len().saturating_mul(width.len())))?;
    let mut out = String::new();
    for (index, line) in lines.iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        if if index == 0 { first } else { blank || !line.is_empty() } {
            out.push_str(&width);
        }
        out.push_str(line);
    }
    Ok(Value::from(out))
}

fn truncate(state: &State, values: &[Value]) -> Answer {
    let mut given = Given::new("truncate", values);
    let value = given.need(0, "s")?;
    let most = usize::try_from(given.integer(1, "length")?.unwrap_or(255)).unwrap_or(0);
    let cut_words = given.flag(2, "killwords");
    let end = given.optional_text(3, "end")?.unwrap_or_else(|| "...".into());
    let leeway = usize::try_from(given.integer(4, "leeway")?.unwrap_or(5)).unwrap_or(0);
    given.end()?;
    let whole = text(state, &value)?;
    pay_text(state, whole.len())?;
    if whole.chars().count() <= most.saturating_add(leeway) {
        return Ok(Value::from(whole.into_owned()));
    }
    let kept: String = whole.chars().take(most.saturating_sub(end.chars().count())).collect();
    let kept = if cut_words { kept.as_str() } else { kept.rsplit_once(' ').map_or(kept.as_str(), |(kept, _)| kept) };
    Ok(Value::from([kept, &end].concat()))
}
