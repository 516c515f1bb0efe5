//! Functions that a template may call.

use super::{Function, at};
use crate::RenderError;
use crate::arguments::Given;
use crate::bounds::{pay_list, pay_text};
use crate::python::arithmetic::{Number, integer, number};
use crate::python::print::text;
use crate::python::{Answer, Kind, dict, elements, fault, list, namespace, sequence, type_name};
use crate::strftime::strftime;
use chrono::NaiveDate;
use minijinja::value::{DynObject, Object, ObjectRepr, Value, ValueKind};
use minijinja::{Error, State};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The variable that holds the day.
pub(crate) const DAY: &str = "__day";

/// The day that `strftime_now` writes.
#[derive(Debug)]
pub(crate) struct Day(pub(crate) NaiveDate);

impl Object for Day {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
}

pub(super) const FUNCTIONS: &[(&str, Function)] = &[
    ("__tuple", |s, v| {
        pay_list(s, v.len())?;
        sequence(v.to_vec(), Kind::Tuple)
    }),
    ("__list", |s, v| {
        pay_list(s, v.len())?;
        list(v.to_vec())
    }),
    ("__float", |_, v| {
        let parsed = at(v, 0).as_str().and_then(|text| text.parse::<f64>().ok());
        parsed.map(Value::from).ok_or_else(|| fault("not a number"))
    }),
    ("__fail", |s, v| Err(fault(text(s, &at(v, 0))?.into_owned()))),
    ("raise_exception", |s, v| {
        let mut given = Given::new("raise_exception", v);
        let message = given.need(0, "message")?;
        Err(RenderError::Refused(text(s, &message)?.into_owned()).into())
    }),
    ("strftime_now", |state, v| {
        let format = at(v, 0);
        let format = format.as_str().ok_or_else(|| fault("strftime_now() expects a format"))?;
        let day = state.lookup(DAY).and_then(|day| Some(day.downcast_object_ref::<Day>()?.0));
        let written = strftime(day.ok_or_else(|| fault("no day is known"))?, format);
        pay_text(state, written.len())?;
        Ok(Value::from(written))
    }),
    ("range", range),
    ("namespace", |_, v| {
        let given = Given::new("namespace", v);
        let pairs = given
            .named()
            .or(given.rest().first())
            .cloned()
            .unwrap_or_else(|| Value::from_iter(BTreeMap::<&str, Value>::new()));
        let mut names = pairs.try_iter()?;
        if let Some(name) = names.find(|name| name.as_str().is_some_and(|name| name.starts_with('_'))) {
            return Err(fault(format!("templates cannot store `{name}` on a namespace: it starts with `_`")));
        }
        namespace(pairs)
    }),
];

/// Jinja's sandbox gives no longer range.
const LONGEST_RANGE: i128 = 100_000;

fn range(state: &State, values: &[Value]) -> Answer {
    let mut numbers = Vec::new();
    for value in values {
        match number(value) {
            Some(Number::Integer(n)) => numbers.push(n),
            _ => return Err(fault(format!("'{}' object cannot be interpreted as an integer", type_name(value)))),
        }
    }
    let (start, stop, step) = match *numbers.as_slice() {
        [stop] => (0, stop, 1),
        [start, stop] => (start, stop, 1),
        [start, stop, step] if step != 0 => (start, stop, step),
        [_, _, _] => return Err(fault("range() arg 3 must not be zero")),
        _ => return Err(fault("range expected 1 to 3 arguments")),
    };
    let span = if step > 0 { stop.saturating_sub(start) } else { start.saturating_sub(stop) }.max(0);
    let count = span.div_euclid(step.abs()) + i128::from(span % step != 0);
    if count > LONGEST_RANGE {
        return Err(fault(format!("Range too big. The sandbox blocks ranges larger than {LONGEST_RANGE}.")));
    }
    pay_list(state, count as usize)?;
    list((0..count).map(|index| integer(start + index * step)).collect())
}

/// `dict(…)` and `dict.fromkeys(…)`.
#[derive(Debug)]
pub(super) struct Dict;

impl Object for Dict {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
    fn call(self: &Arc<Self>, state: &State, values: &[Value]) -> Answer {
        let given = Given::new("dict", values);
        let mut all = Vec::new();
        if let Some(first) = given.rest().first() {
            all.extend(pairs(state, first)?);
        }
        if let Some(named) = given.named() {
            all.extend(pairs(state, named)?);
        }
        dict(&Value::from_iter(all))
    }
    fn call_method(self: &Arc<Self>, state: &State, method: &str, values: &[Value]) -> Answer {
        if method != "fromkeys" {
            return Err(fault(format!("'TemplateDict' object has no attribute '{method}'")));
        }
        let mut given = Given::new(method, values);
        let (keys, value) = (given.need(0, "iterable")?, given.get(1, "value").unwrap_or_else(|| Value::from(())));
        given.end()?;
        dict(&Value::from_iter(elements(state, &keys)?.into_iter().map(|key| (key, value.clone()))))
    }
}

/// Keys and values of a dict, or of a list of pairs.
pub(super) fn pairs(state: &State, value: &Value) -> Result<Vec<(Value, Value)>, Error> {
    pay_list(state, value.len().unwrap_or(0).saturating_mul(2))?;
    if value.kind() == ValueKind::Map {
        return Ok(value.as_object().and_then(DynObject::try_iter_pairs).into_iter().flatten().collect());
    }
    let pair = |item: Value| match elements(state, &item)?.as_slice() {
        [key, value] => Ok((key.clone(), value.clone())),
        _ => Err(fault("dictionary update sequence element has not length 2")),
    };
    elements(state, value)?.into_iter().map(pair).collect()
}
