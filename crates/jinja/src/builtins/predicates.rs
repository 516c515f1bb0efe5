//! Jinja's tests, `value is name`.

use super::operators::ordered;
use super::{FILTERS, Test, at};
use crate::methods;
use crate::python::arithmetic::{number, remainder};
use crate::python::order::{contains, equal};
use crate::python::print::text;
use crate::python::{Kind, sequence_kind};
use minijinja::Error;
use minijinja::value::{Value, ValueKind};
use std::cmp::Ordering;

pub(super) const TESTS: &[(&str, Test)] = &[
    ("defined", |_, v| Ok(!at(v, 0).is_undefined())),
    ("undefined", |_, v| Ok(at(v, 0).is_undefined())),
    ("none", |_, v| Ok(at(v, 0).is_none())),
    ("boolean", |_, v| Ok(at(v, 0).kind() == ValueKind::Bool)),
    ("callable", |_, v| Ok(at(v, 0).kind() == ValueKind::Plain)),
    ("divisibleby", |_, v| Ok(rest(&at(v, 0), &at(v, 1))? == Some(0.0))),
    ("even", |_, v| Ok(rest(&at(v, 0), &Value::from(2))? == Some(0.0))),
    ("odd", |_, v| Ok(rest(&at(v, 0), &Value::from(2))? == Some(1.0))),
    ("== eq equalto", |s, v| equal(s, &at(v, 0), &at(v, 1))),
    ("!= ne", |s, v| equal(s, &at(v, 0), &at(v, 1)).map(|same| !same)),
    ("< lt lessthan", |s, v| ordered(s, "<", v, Ordering::is_lt)),
    ("<= le", |s, v| ordered(s, "<=", v, Ordering::is_le)),
    ("> gt greaterthan", |s, v| ordered(s, ">", v, Ordering::is_gt)),
    (">= ge", |s, v| ordered(s, ">=", v, Ordering::is_ge)),
    ("in", |s, v| contains(s, &at(v, 0), &at(v, 1))),
    ("escaped", |_, v| Ok(at(v, 0).is_safe())),
    ("true", |_, v| Ok(at(v, 0).kind() == ValueKind::Bool && at(v, 0).is_true())),
    ("false", |_, v| Ok(at(v, 0).kind() == ValueKind::Bool && !at(v, 0).is_true())),
    ("filter", |_, v| {
        Ok(at(v, 0).as_str().is_some_and(|name| FILTERS.into_iter().flatten().any(|(known, _)| *known == name)))
    }),
    ("test", |_, v| {
        let known = |name: &str| TESTS.iter().any(|(names, _)| names.split(' ').any(|known| known == name));
        Ok(at(v, 0).as_str().is_some_and(known))
    }),
    ("float", |_, v| Ok(at(v, 0).kind() == ValueKind::Number && !at(v, 0).is_integer())),
    ("integer", |_, v| Ok(at(v, 0).kind() == ValueKind::Number && at(v, 0).is_integer())),
    ("number", |_, v| Ok(matches!(at(v, 0).kind(), ValueKind::Number | ValueKind::Bool))),
    ("string", |_, v| Ok(at(v, 0).kind() == ValueKind::String)),
    ("mapping", |_, v| Ok(at(v, 0).kind() == ValueKind::Map)),
    // Python asks for `__iter__`, and for a length and `__getitem__`: texts, dicts and undefined values have them too.
    ("iterable", |_, v| Ok(is_container(&at(v, 0)))),
    ("sequence", |_, v| Ok(is_container(&at(v, 0)) && sequence_kind(&at(v, 0)) != Some(Kind::Generator))),
    ("lower", |s, v| Ok(methods::is_lower(&text(s, &at(v, 0))?))),
    ("upper", |s, v| Ok(methods::is_upper(&text(s, &at(v, 0))?))),
    ("sameas", |s, v| {
        let (a, b) = (at(v, 0), at(v, 1));
        Ok(a.kind() == b.kind() && a.is_integer() == b.is_integer() && equal(s, &a, &b)?)
    }),
];

/// What is left of a division.
fn rest(value: &Value, by: &Value) -> Result<Option<f64>, Error> {
    Ok(number(&remainder(value, by)?).map(|rest| rest.as_float()))
}

fn is_container(value: &Value) -> bool {
    use ValueKind::{Iterable, Map, Seq, String, Undefined};
    matches!(value.kind(), Seq | Iterable | Map | String | Undefined)
}
