//! Filters of lists and dicts, and of what is in them.

use super::functions::pairs;
use super::{Function, at};
use crate::arguments::Given;
use crate::bounds::{pay_list, pay_text};
use crate::methods;
use crate::python::arithmetic::add;
use crate::python::order::{order, sort};
use crate::python::print::{joined, text};
use crate::python::{Answer, Kind, elements, fault, item, length, list, sequence, sequence_kind, undefined};
use minijinja::value::{Value, ValueKind};
use minijinja::{Error, State};
use std::cmp::Ordering;

pub(crate) const FILTERS: &[(&str, Function)] = &[
    // Jinja's `attr` reads attributes of Python's objects, and dicts have none that a template may use.
    ("attr", |_, v| match at(v, 0) {
        value if value.is_undefined() => Err(undefined()),
        value if sequence_kind(&value).is_none() && value.kind() == ValueKind::Map => Ok(Value::UNDEFINED),
        value => value.get_item(&at(v, 1)),
    }),
    ("batch", batch),
    ("slice", sliced),
    ("count", |_, v| length(&at(v, 0)).map(Value::from)),
    ("length", |_, v| length(&at(v, 0)).map(Value::from)),
    ("d", default),
    ("default", default),
    ("dictsort", dictsort),
    ("first", |s, v| Ok(first(s, &at(v, 0))?.unwrap_or(Value::UNDEFINED))),
    ("last", |s, v| Ok(elements(s, &at(v, 0))?.pop().unwrap_or(Value::UNDEFINED))),
    ("groupby", groupby),
    ("items", |s, v| match at(v, 0) {
        value if value.is_undefined() => list(Vec::new()),
        value if value.kind() == ValueKind::Map => methods::call(s, &value, "items", &[]),
        _ => Err(fault("Can only get item pairs from a mapping.")),
    }),
    ("join", |s, v| {
        let mut given = Given::new("join", v);
        let (value, joiner) = (given.need(0, "value")?, given.get(1, "d").unwrap_or_else(|| Value::from("")));
        let attribute = given.get(2, "attribute");
        given.end()?;
        let items = attributes(s, elements(s, &value)?, attribute.as_ref(), None)?;
        joined(s, &items, &text(s, &joiner)?)
    }),
    ("list", |s, v| list(elements(s, &at(v, 0))?)),
    ("map", map),
    ("select", |s, v| select(s, v, false, true)),
    ("reject", |s, v| select(s, v, false, false)),
    ("selectattr", |s, v| select(s, v, true, true)),
    ("rejectattr", |s, v| select(s, v, true, false)),
    ("min", |s, v| extreme(s, v, Ordering::Less)),
    ("max", |s, v| extreme(s, v, Ordering::Greater)),
    ("reverse", |s, v| match at(v, 0).as_str() {
        Some(text) => {
            pay_text(s, text.len())?;
            Ok(Value::from(text.chars().rev().collect::<String>()))
        }
        None => {
            let mut items = elements(s, &at(v, 0))?;
            items.reverse();
            sequence(items, Kind::Generator)
        }
    }),
    ("sort", sorted),
    ("sum", |s, v| {
        let mut given = Given::new("sum", v);
        let (value, attribute) = (given.need(0, "iterable")?, given.get(1, "attribute"));
        let start = given.get(2, "start").unwrap_or_else(|| Value::from(0));
        given.end()?;
        let items = attributes(s, elements(s, &value)?, attribute.as_ref(), None)?;
        items.iter().try_fold(start, |sum, item| add(s, &sum, item))
    }),
    ("unique", unique),
];

fn first(state: &State, value: &Value) -> Result<Option<Value>, Error> {
    match value.as_str() {
        Some(text) => Ok(text.chars().next().map(Value::from)),
        None => Ok(elements(state, value)?.into_iter().next()),
    }
}

fn default(_: &State, values: &[Value]) -> Answer {
    let mut given = Given::new("default", values);
    let value = given.need(0, "value")?;
    let other = given.get(1, "default_value").unwrap_or_else(|| Value::from(""));
    let boolean = given.flag(2, "boolean");
    given.end()?;
    Ok(if value.is_undefined() || (boolean && !value.is_true()) { other } else { value })
}

/// The value behind a path such as `function.name` or `0`; with a default where it is undefined.
fn attribute(state: &State, value: &Value, path: &Value, default: Option<&Value>) -> Answer {
    let mut found = value.clone();
    let parts: Vec<Value> = match path.as_str() {
        Some(path) => {
            path.split('.').map(|part| part.parse::<i64>().map_or_else(|_| part.into(), Value::from)).collect()
        }
        None => vec![path.clone()],
    };
    for part in parts {
        found = item(state, &found, &part)?;
        if let (true, Some(default)) = (found.is_undefined(), default) {
            found = default.clone();
        }
    }
    Ok(found)
}

fn attributes(
    state: &State,
    items: Vec<Value>,
    path: Option<&Value>,
    default: Option<&Value>,
) -> Result<Vec<Value>, Error> {
    match path.filter(|path| !path.is_none()) {
        None => Ok(items),
        Some(path) => items.iter().map(|item| attribute(state, item, path, default)).collect(),
    }
}

/// Elements for jinja's `map` and `select`, which look only into what is true: none holds no element there.
fn any(state: &State, value: &Value) -> Result<Vec<Value>, Error> {
    if value.is_true() { elements(state, value) } else { Ok(Vec::new()) }
}

fn map(state: &State, values: &[Value]) -> Answer {
    let mut given = Given::new("map", values);
    let items = any(state, &given.need(0, "value")?)?;
    let named = given.named().and_then(|named| named.as_object());
    let option = |name: &str| named.and_then(|named| named.get_value(&Value::from(name)));
    let mapped = match (given.rest().get(1), option("attribute")) {
        (None, Some(path)) => attributes(state, items, Some(&path), option("default").as_ref())?,
        (Some(name), _) => {
            let name = name.as_str().ok_or_else(|| fault("map requires a filter's name"))?;
            let rest = given.rest().get(2..).unwrap_or_default();
            let call = |item: Value| {
                let arguments: Vec<_> =
                    std::iter::once(item).chain(rest.iter().cloned()).chain(given.named().cloned()).collect();
                state.apply_filter(name, &arguments).map_err(|error| match error.kind() {
                    minijinja::ErrorKind::UnknownFilter => fault(format!("no filter is named '{name}'")),
                    _ => error,
                })
            };
            items.into_iter().map(call).collect::<Result<_, _>>()?
        }
        (None, None) => return Err(fault("map requires a filter argument")),
    };
    sequence(mapped, Kind::Generator)
}

fn select(state: &State, values: &[Value], by_attribute: bool, wanted: bool) -> Answer {
    let mut given = Given::new("select", values);
    let items = any(state, &given.need(0, "value")?)?;
    let rest = given.rest().get(1..).unwrap_or_default();
    let (path, rest) = match (by_attribute, rest.split_first()) {
        (false, _) => (None, rest),
        (true, Some((path, rest))) => (Some(path), rest),
        (true, None) => return Err(fault("Missing parameter for attribute name")),
    };
    let mut kept = Vec::new();
    for item in items {
        let subject = path.map_or_else(|| Ok(item.clone()), |path| attribute(state, &item, path, None))?;
        let passes = match rest.split_first() {
            None => subject.is_true(),
            Some((name, rest)) => {
                let name = name.as_str().ok_or_else(|| fault("a test is named by a string"))?;
                let arguments: Vec<_> = std::iter::once(subject).chain(rest.iter().cloned()).collect();
                state.perform_test(name, &arguments).map_err(|error| match error.kind() {
                    minijinja::ErrorKind::UnknownTest => fault(format!("no test is named '{name}'")),
                    _ => error,
                })?
            }
        };
        if passes == wanted {
            kept.push(item);
        }
    }
    sequence(kept, Kind::Generator)
}

/// What is compared: without `case_sensitive`, texts in small letters.
fn folded(value: &Value, case_sensitive: bool) -> Value {
    match value.as_str() {
        Some(text) if !case_sensitive => Value::from(text.to_lowercase()),
        _ => value.clone(),
    }
}

fn sorted(state: &State, values: &[Value]) -> Answer {
    let mut given = Given::new("sort", values);
    let items = elements(state, &given.need(0, "value")?)?;
    let (reverse, case_sensitive) = (given.flag(1, "reverse"), given.flag(2, "case_sensitive"));
    let path = given.get(3, "attribute");
    given.end()?;
    let paths: Vec<Value> = match path.as_ref().and_then(Value::as_str) {
        Some(paths) => paths.split(',').map(Value::from).collect(),
        None => path.into_iter().filter(|path| !path.is_none()).collect(),
    };
    let key = |item: &Value| match paths.as_slice() {
        [] => Ok(folded(item, case_sensitive)),
        paths => {
            let parts: Result<Vec<_>, _> = paths
                .iter()
                .map(|path| Ok::<_, Error>(folded(&attribute(state, item, path, None)?, case_sensitive)))
                .collect();
            list(parts?)
        }
    };
    let keyed: Result<Vec<_>, _> = items.into_iter().map(|item| Ok::<_, Error>((key(&item)?, item))).collect();
    let mut keyed = keyed?;
    sort(state, &mut keyed, reverse)?;
    list(keyed.into_iter().map(|(_, item)| item).collect())
}

fn dictsort(state: &State, values: &[Value]) -> Answer {
    let mut given = Given::new("dictsort", values);
    let value = given.need(0, "value")?;
    let case_sensitive = given.flag(1, "case_sensitive");
    let by = given.optional_text(2, "by")?.unwrap_or_else(|| "key".into());
    let reverse = given.flag(3, "reverse");
    given.end()?;
    if value.kind() != ValueKind::Map {
        return Err(if value.is_undefined() { undefined() } else { fault("dictsort sorts a dict") });
    }
    let place = match by.as_str() {
        "key" => 0,
        "value" => 1,
        _ => return Err(fault("You can only sort by either \"key\" or \"value\"")),
    };
    let mut keyed = Vec::new();
    for (key, value) in pairs(state, &value)? {
        let by = folded(if place == 0 { &key } else { &value }, case_sensitive);
        keyed.push((by, sequence(vec![key, value], Kind::Tuple)?));
    }
    sort(state, &mut keyed, reverse)?;
    list(keyed.into_iter().map(|(_, item)| item).collect())
}

fn unique(state: &State, values: &[Value]) -> Answer {
    let mut given = Given::new("unique", values);
    let items = elements(state, &given.need(0, "value")?)?;
    let (case_sensitive, path) = (given.flag(1, "case_sensitive"), given.get(2, "attribute"));
    given.end()?;
    let (mut seen, mut kept) = (std::collections::BTreeSet::new(), Vec::new());
    for item in items {
        let key = attributes(state, vec![item.clone()], path.as_ref(), None)?.pop().unwrap_or_default();
        if seen.insert(folded(&key, case_sensitive)) {
            kept.push(item);
        }
    }
    sequence(kept, Kind::Generator)
}

fn extreme(state: &State, values: &[Value], wanted: Ordering) -> Answer {
    let mut given = Given::new("min", values);
    let items = elements(state, &given.need(0, "value")?)?;
    let (case_sensitive, path) = (given.flag(1, "case_sensitive"), given.get(2, "attribute"));
    given.end()?;
    let mut best: Option<(Value, Value)> = None;
    for item in items {
        let key = attributes(state, vec![item.clone()], path.as_ref(), None)?.pop().unwrap_or_default();
        let key = folded(&key, case_sensitive);
        let better = match &best {
            Some((other, _)) => order(state, "<", &key, other)? == Some(wanted),
            None => true,
        };
        if better {
            best = Some((key, item));
        }
    }
    Ok(best.map_or(Value::UNDEFINED, |(_, item)| item))
}

fn groupby(state: &State, values: &[Value]) -> Answer {
    let mut given = Given::new("groupby", values);
    let items = elements(state, &given.need(0, "value")?)?;
    let (path, default) = (given.need(1, "attribute")?, given.get(2, "default"));
    let case_sensitive = given.flag(3, "case_sensitive");
    given.end()?;
    let mut keyed = Vec::new();
    for item in items {
        let key = attribute(state, &item, &path, default.as_ref())?;
        keyed.push((folded(&key, case_sensitive), (key, item)));
    }
    sort(state, &mut keyed, false)?;
    let mut groups: Vec<(Value, Value, Vec<Value>)> = Vec::new();
    for (by, (key, item)) in keyed {
        match groups.last_mut() {
            Some((last, _, members)) if *last == by => members.push(item),
            _ => groups.push((by, key, vec![item])),
        }
    }
    let group = |(_, key, members)| sequence(vec![key, list(members)?], Kind::Tuple);
    list(groups.into_iter().map(group).collect::<Result<_, _>>()?)
}

fn batch(state: &State, values: &[Value]) -> Answer {
    let mut given = Given::new("batch", values);
    let items = elements(state, &given.need(0, "value")?)?;
    let count = given.integer(1, "linecount")?.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    let count = count.ok_or_else(|| fault("batch() expects a positive linecount"))?;
    let fill = given.get(2, "fill_with").filter(|value| !value.is_none());
    given.end()?;
    let mut rows: Vec<Vec<Value>> = items.chunks(count).map(<[Value]>::to_vec).collect();
    if let (Some(fill), Some(last)) = (fill, rows.last_mut()) {
        pay_list(state, count)?;
        last.resize(count, fill);
    }
    sequence(rows.into_iter().map(list).collect::<Result<_, _>>()?, Kind::Generator)
}

fn sliced(state: &State, values: &[Value]) -> Answer {
    let mut given = Given::new("slice", values);
    let items = elements(state, &given.need(0, "value")?)?;
    let count = given.integer(1, "slices")?.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    let count = count.ok_or_else(|| fault("slice() expects a positive number of slices"))?;
    let fill = given.get(2, "fill_with").filter(|value| !value.is_none());
    given.end()?;
    pay_list(state, count)?;
    let (each, longer) = (items.len() / count, items.len() % count);
    let (mut slices, mut from) = (Vec::new(), 0);
    for index in 0..count {
        let to = from + each + usize::from(index < longer);
        let mut row = items.get(from..to).unwrap_or_default().to_vec();
        row.extend(fill.clone().filter(|_| longer > 0 && index >= longer));
        slices.push(list(row)?);
        from = to;
    }
    sequence(slices, Kind::Generator)
}
