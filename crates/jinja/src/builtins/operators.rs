//! Python's operators, as filters with names that no template may use by accident.

use super::{Function, at};
use crate::bounds::pay_list;
use crate::format;
use crate::python::order::{contains, equal, order};
use crate::python::print::joined;
use crate::python::{Answer, arithmetic, dict, elements, item, list, slice};
use minijinja::value::{Value, ValueKind};
use minijinja::{Error, State};
use std::cmp::Ordering;

/// Whether two operands are in the wanted order; false where they have none, as NaN.
pub(super) fn ordered(
    state: &State,
    sign: &str,
    values: &[Value],
    wanted: fn(Ordering) -> bool,
) -> Result<bool, Error> {
    Ok(order(state, sign, &at(values, 0), &at(values, 1))?.is_some_and(wanted))
}

pub(super) const OPERATORS: &[(&str, Function)] = &[
    ("__add", |s, v| arithmetic::add(s, &at(v, 0), &at(v, 1))),
    ("__sub", |_, v| arithmetic::subtract(&at(v, 0), &at(v, 1))),
    ("__mul", |s, v| arithmetic::multiply(s, &at(v, 0), &at(v, 1))),
    ("__div", |_, v| arithmetic::divide(&at(v, 0), &at(v, 1))),
    ("__floordiv", |_, v| arithmetic::floor_divide(&at(v, 0), &at(v, 1))),
    ("__mod", |s, v| match (at(v, 0), at(v, 1)) {
        (left, right) if left.as_str().is_some() => format::percent(s, left.as_str().unwrap_or_default(), &right),
        (left, right) => arithmetic::remainder(&left, &right),
    }),
    ("__pow", |_, v| arithmetic::power(&at(v, 0), &at(v, 1))),
    ("__neg", |_, v| arithmetic::negate(&at(v, 0))),
    ("__pos", |_, v| arithmetic::subtract(&at(v, 0), &Value::from(0))),
    ("__eq", |s, v| equal(s, &at(v, 0), &at(v, 1)).map(Value::from)),
    ("__ne", |s, v| equal(s, &at(v, 0), &at(v, 1)).map(|same| Value::from(!same))),
    ("__lt", |s, v| ordered(s, "<", v, Ordering::is_lt).map(Value::from)),
    ("__le", |s, v| ordered(s, "<=", v, Ordering::is_le).map(Value::from)),
    ("__gt", |s, v| ordered(s, ">", v, Ordering::is_gt).map(Value::from)),
    ("__ge", |s, v| ordered(s, ">=", v, Ordering::is_ge).map(Value::from)),
    ("__in", |s, v| contains(s, &at(v, 0), &at(v, 1)).map(Value::from)),
    ("__item", |s, v| item(s, &at(v, 0), &at(v, 1))),
    ("__slice", |s, v| slice(s, &at(v, 0), v.get(1..).unwrap_or_default())),
    ("__dict", |_, v| dict(&at(v, 0))),
    ("__iter", iterate),
    ("__concat", |s, v| joined(s, v, "")),
];

/// What minijinja can run over, the same order of elements as in Python.
fn iterate(state: &State, values: &[Value]) -> Answer {
    let value = at(values, 0);
    match value.kind() {
        ValueKind::Seq | ValueKind::Map => {
            pay_list(state, value.len().unwrap_or(0))?;
            Ok(value)
        }
        _ => list(elements(state, &value)?),
    }
}
