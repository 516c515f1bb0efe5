//! Methods of Python's strings, lists and dicts.

use crate::arguments::Given;
use crate::bounds::{pay, pay_list, pay_text};
use crate::format;
use crate::lexer::is_blank;
use crate::python::{Answer, Kind, elements, fault, list, sequence, sequence_kind, type_name, undefined};
use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

/// Calls a method.
pub(crate) fn call(state: &State, value: &Value, method: &str, values: &[Value]) -> Answer {
    match value.kind() {
        ValueKind::Undefined => Err(undefined()),
        ValueKind::String => string(state, value.as_str().unwrap_or_default(), method, values),
        ValueKind::Map => dict(value, method, values),
        ValueKind::Seq | ValueKind::Iterable => sequence_method(state, value, method, values),
        _ => Err(unknown(value, method)),
    }
}

fn unknown(value: &Value, method: &str) -> Error {
    Error::new(ErrorKind::UnknownMethod, format!("'{}' object has no attribute '{method}'", type_name(value)))
}

/// Jinja's immutable sandbox refuses what changes a value.
fn frozen(method: &str) -> Error {
    fault(format!("access to attribute '{method}' is unsafe: templates may not change lists and dicts"))
}

fn dict(value: &Value, method: &str, values: &[Value]) -> Answer {
    let mut given = Given::new(method, values);
    let Some(object) = value.as_object() else { return Err(unknown(value, method)) };
    let pairs = || object.try_iter_pairs().into_iter().flatten();
    let found = match method {
        "get" => {
            let (key, default) = (given.need(0, "key")?, given.get(1, "default"));
            object.get_value(&key).unwrap_or_else(|| default.unwrap_or_else(|| Value::from(())))
        }
        "items" => {
            let pairs: Result<Vec<_>, _> = pairs().map(|(key, item)| sequence(vec![key, item], Kind::Tuple)).collect();
            list(pairs?)?
        }
        "keys" => list(pairs().map(|(key, _)| key).collect())?,
        "values" => list(pairs().map(|(_, item)| item).collect())?,
        "copy" => value.clone(),
        "clear" | "pop" | "popitem" | "setdefault" | "update" => return Err(frozen(method)),
        _ => return Err(unknown(value, method)),
    };
    given.end()?;
    Ok(found)
}

fn sequence_method(state: &State, value: &Value, method: &str, values: &[Value]) -> Answer {
    let mut given = Given::new(method, values);
    let items = elements(state, value)?;
    let found = match method {
        "count" => {
            let wanted = given.need(0, "value")?;
            Value::from(items.iter().filter(|item| **item == wanted).count())
        }
        "index" => {
            let wanted = given.need(0, "value")?;
            let at = items.iter().position(|item| *item == wanted);
            Value::from(at.ok_or_else(|| fault("value is not in list"))?)
        }
        "copy" => value.clone(),
        "append" | "clear" | "extend" | "insert" | "pop" | "remove" | "reverse" | "sort"
            if sequence_kind(value) == Some(Kind::List) =>
        {
            return Err(frozen(method));
        }
        _ => return Err(unknown(value, method)),
    };
    given.end()?;
    Ok(found)
}

/// Which end of a text is meant.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Left,
    Right,
    Both,
}

fn strip<'t>(whole: &'t str, chars: Option<&str>, side: Side) -> &'t str {
    let taken = |c: char| chars.map_or_else(|| is_blank(c), |chars| chars.contains(c));
    let kept = if side == Side::Right { whole } else { whole.trim_start_matches(taken) };
    if side == Side::Left { kept } else { kept.trim_end_matches(taken) }
}

/// `str.strip`, also for the filter `trim`.
pub(crate) fn strip_both<'t>(whole: &'t str, chars: Option<&str>) -> &'t str {
    strip(whole, chars, Side::Both)
}

/// `str.splitlines`.
pub(crate) fn lines(text: &str, keep: bool) -> Vec<&str> {
    let ends =
        |c: char| matches!(c, '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let (mut lines, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find(ends) {
        let width =
            if rest[at..].starts_with("\r\n") { 2 } else { rest[at..].chars().next().map_or(1, char::len_utf8) };
        lines.push(&rest[..if keep { at + width } else { at }]);
        rest = &rest[at + width..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

/// `str.capitalize`, also for the filter.
pub(crate) fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(chars.as_str().to_lowercase().chars()).collect())
}

/// Every word with a capital; `within_word` tells behind which characters a word goes on.
pub(crate) fn titled(text: &str, within_word: impl Fn(char) -> bool) -> String {
    let (mut out, mut within) = (String::with_capacity(text.len()), false);
    for c in text.chars() {
        if within {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        within = within_word(c);
    }
    out
}

fn cased(text: &str, wanted: fn(char) -> bool, other: fn(char) -> bool) -> bool {
    text.chars().any(wanted) && !text.chars().any(other)
}

/// `str.islower` and `str.isupper`, also for the tests.
pub(crate) fn is_lower(text: &str) -> bool {
    cased(text, char::is_lowercase, char::is_uppercase)
}
pub(crate) fn is_upper(text: &str) -> bool {
    cased(text, char::is_uppercase, char::is_lowercase)
}

fn all(text: &str, wanted: impl Fn(char) -> bool) -> Value {
    Value::from(!text.is_empty() && text.chars().all(wanted))
}

fn split(whole: &str, separator: Option<&str>, most: i64, from_right: bool) -> Result<Vec<Value>, Error> {
    let count = usize::try_from(most).map_or(usize::MAX, |most| most.saturating_add(1));
    if separator == Some("") {
        return Err(fault("empty separator"));
    }
    if let Some(separator) = separator {
        return Ok(if from_right {
            let mut parts: Vec<_> = whole.rsplitn(count, separator).map(Value::from).collect();
            parts.reverse();
            parts
        } else {
            whole.splitn(count, separator).map(Value::from).collect()
        });
    }
    let (mut parts, mut rest) = (Vec::new(), strip(whole, None, if from_right { Side::Right } else { Side::Left }));
    while !rest.is_empty() {
        let cut = if from_right { rest.rfind(is_blank) } else { rest.find(is_blank) };
        let Some(at) = cut.filter(|_| parts.len() + 1 < count) else {
            // What is left keeps its blanks on the far side, as Python leaves them.
            let side = if from_right { Side::Left } else { Side::Right };
            parts.push(if parts.len() + 1 < count { strip(rest, None, side) } else { rest });
            break;
        };
        if from_right {
            let width = rest[at..].chars().next().map_or(1, char::len_utf8);
            parts.push(&rest[at + width..]);
            rest = strip(&rest[..at], None, Side::Right);
        } else {
            parts.push(&rest[..at]);
            rest = strip(&rest[at..], None, Side::Left);
        }
    }
    if from_right {
        parts.reverse();
    }
    Ok(parts.into_iter().map(Value::from).collect())
}

/// `text[start:end]` as `find`, `count` and `startswith` take it, and the characters before it.
fn window<'t>(whole: &'t str, given: &mut Given) -> Result<Option<(&'t str, usize)>, Error> {
    let (start, end) = (given.integer(1, "start")?, given.integer(2, "end")?);
    if start.is_none() && end.is_none() {
        return Ok(Some((whole, 0)));
    }
    let length = whole.chars().count();
    let place = |n: i64| usize::try_from(if n < 0 { (n + length as i64).max(0) } else { n }).unwrap_or(usize::MAX);
    let (start, end) = (start.map_or(0, place), end.map_or(length, place).min(length));
    if start > end {
        return Ok(None);
    }
    let byte = |at: usize| whole.char_indices().nth(at).map_or(whole.len(), |(at, _)| at);
    Ok(Some((&whole[byte(start)..byte(end)], start)))
}

fn affixed(state: &State, whole: &str, given: &mut Given, fits: fn(&str, &str) -> bool) -> Answer {
    let affix = given.need(0, "prefix")?;
    let Some((window, _)) = window(whole, given)? else { return Ok(Value::from(false)) };
    if let Some(affix) = affix.as_str() {
        return Ok(Value::from(fits(window, affix)));
    }
    if sequence_kind(&affix) != Some(Kind::Tuple) {
        return Err(fault(format!("first arg must be str or a tuple of str, not {}", type_name(&affix))));
    }
    Ok(Value::from(elements(state, &affix)?.iter().filter_map(Value::as_str).any(|affix| fits(window, affix))))
}

fn parts(before: &str, middle: &str, after: &str) -> Answer {
    sequence([before, middle, after].map(Value::from).to_vec(), Kind::Tuple)
}

fn padded(state: &State, whole: &str, given: &mut Given, side: Side) -> Answer {
    let width = given.integer(0, "width")?.unwrap_or(0);
    let fill = given.optional_text(1, "fillchar")?.unwrap_or_else(|| " ".into());
    if fill.chars().count() != 1 {
        return Err(fault("The fill character must be exactly one character long"));
    }
    let length = whole.chars().count();
    let missing = usize::try_from(width).unwrap_or(0).saturating_sub(length);
    pay_text(state, whole.len().saturating_add(missing.saturating_mul(fill.len())))?;
    let left = match side {
        Side::Left => 0,
        Side::Right => missing,
        // CPython puts the odd blank to the left where the width is odd.
        Side::Both => missing / 2 + (missing & width as usize & 1),
    };
    Ok(Value::from([&fill.repeat(left), whole, &fill.repeat(missing - left)].concat()))
}

fn string(state: &State, whole: &str, method: &str, values: &[Value]) -> Answer {
    // All of these look through the text, and most copy it.
    pay(state, whole.len())?;
    let mut given = Given::new(method, values);
    let found = match method {
        "strip" | "lstrip" | "rstrip" => {
            let side = match method {
                "lstrip" => Side::Left,
                "rstrip" => Side::Right,
                _ => Side::Both,
            };
            Value::from(strip(whole, given.optional_text(0, "chars")?.as_deref(), side))
        }
        "split" | "rsplit" => {
            let separator = given.optional_text(0, "sep")?;
            let most = given.integer(1, "maxsplit")?.unwrap_or(-1);
            let parts = split(whole, separator.as_deref(), most, method == "rsplit")?;
            pay_list(state, parts.len())?;
            list(parts)?
        }
        "splitlines" => {
            let lines = lines(whole, given.flag(0, "keepends"));
            pay_list(state, lines.len())?;
            list(lines.into_iter().map(Value::from).collect())?
        }
        "partition" | "rpartition" => {
            let separator = given.text(0, "sep")?;
            if separator.is_empty() {
                return Err(fault("empty separator"));
            }
            let last = method == "rpartition";
            match if last { whole.rsplit_once(&separator) } else { whole.split_once(&separator) } {
                Some((before, after)) => parts(before, &separator, after)?,
                None if last => parts("", "", whole)?,
                None => parts(whole, "", "")?,
            }
        }
        "replace" => {
            let (old, new) = (given.text(0, "old")?, given.text(1, "new")?);
            replace(state, whole, &old, &new, given.integer(2, "count")?)?
        }
        "startswith" => affixed(state, whole, &mut given, |text, affix| text.starts_with(affix))?,
        "endswith" => affixed(state, whole, &mut given, |text, affix| text.ends_with(affix))?,
        "removeprefix" => {
            let prefix = given.text(0, "prefix")?;
            Value::from(whole.strip_prefix(&prefix).unwrap_or(whole))
        }
        "removesuffix" => {
            let suffix = given.text(0, "suffix")?;
            Value::from(whole.strip_suffix(&suffix).unwrap_or(whole))
        }
        "find" | "rfind" | "index" | "rindex" => {
            let wanted = given.text(0, "sub")?;
            let found = window(whole, &mut given)?.and_then(|(window, start)| {
                let at = if method.starts_with('r') { window.rfind(&wanted) } else { window.find(&wanted) };
                at.map(|at| start + window[..at].chars().count())
            });
            match found {
                Some(at) => Value::from(at),
                None if method.ends_with("index") => return Err(fault("substring not found")),
                None => Value::from(-1),
            }
        }
        "count" => {
            let wanted = given.text(0, "sub")?;
            let window = window(whole, &mut given)?;
            Value::from(window.map_or(0, |(window, _)| window.matches(&wanted).count()))
        }
        "join" => {
            let items = elements(state, &given.need(0, "iterable")?)?;
            let mut length = 0_usize;
            for (index, item) in items.iter().enumerate() {
                let Some(text) = item.as_str() else {
                    return Err(fault(format!(
                        "sequence item {index}: expected str instance, {} found",
                        type_name(item)
                    )));
                };
                length = length.saturating_add(text.len() + if index > 0 { whole.len() } else { 0 });
            }
            pay_text(state, length)?;
            Value::from(items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(whole))
        }
        "format" => return format::braces(state, whole, &given),
        "format_map" => return Err(unknown(&Value::from(whole), method)),
        "upper" => Value::from(whole.to_uppercase()),
        "lower" | "casefold" => Value::from(whole.to_lowercase()),
        "swapcase" => {
            let mut out = String::with_capacity(whole.len());
            for c in whole.chars() {
                if c.is_uppercase() {
                    out.extend(c.to_lowercase());
                } else {
                    out.extend(c.to_uppercase());
                }
            }
            Value::from(out)
        }
        "title" => Value::from(titled(whole, char::is_alphabetic)),
        "capitalize" => Value::from(capitalize(whole)),
        "center" => padded(state, whole, &mut given, Side::Both)?,
        "ljust" => padded(state, whole, &mut given, Side::Left)?,
        "rjust" => padded(state, whole, &mut given, Side::Right)?,
        "zfill" => {
            let width = usize::try_from(given.integer(0, "width")?.unwrap_or(0)).unwrap_or(0);
            let missing = width.saturating_sub(whole.chars().count());
            pay_text(state, whole.len().saturating_add(missing))?;
            let sign = usize::from(whole.starts_with(['+', '-']));
            Value::from([&whole[..sign], &"0".repeat(missing), &whole[sign..]].concat())
        }
        "expandtabs" => {
            let size = usize::try_from(given.integer(0, "tabsize")?.unwrap_or(8)).unwrap_or(0);
            pay_text(state, whole.len().saturating_add(whole.matches('\t').count().saturating_mul(size)))?;
            let (mut out, mut column) = (String::new(), 0);
            for c in whole.chars() {
                let width = if c == '\t' { size - column % size.max(1) } else { 1 };
                if c == '\t' {
                    out.extend(std::iter::repeat_n(' ', if size == 0 { 0 } else { width }));
                } else {
                    out.push(c);
                }
                column = if matches!(c, '\n' | '\r') { 0 } else { column + width };
            }
            Value::from(out)
        }
        "isdigit" | "isdecimal" | "isnumeric" => all(whole, char::is_numeric),
        "isalpha" => all(whole, char::is_alphabetic),
        "isalnum" => all(whole, char::is_alphanumeric),
        "isspace" => all(whole, is_blank),
        "isascii" => Value::from(whole.is_ascii()),
        "islower" => Value::from(is_lower(whole)),
        "isupper" => Value::from(is_upper(whole)),
        "istitle" => Value::from(whole.chars().any(char::is_alphabetic) && titled(whole, char::is_alphabetic) == whole),
        _ => return Err(unknown(&Value::from(whole), method)),
    };
    given.end()?;
    Ok(found)
}

/// `str.replace`, also for the filter; the result is paid for before it is made.
pub(crate) fn replace(state: &State, whole: &str, old: &str, new: &str, most: Option<i64>) -> Answer {
    let most = usize::try_from(most.unwrap_or(-1)).unwrap_or(usize::MAX);
    let count = whole.matches(old).take(most).count();
    pay_text(state, whole.len().saturating_add(count.saturating_mul(new.len())))?;
    Ok(Value::from(whole.replacen(old, new, count)))
}
