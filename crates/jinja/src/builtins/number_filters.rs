//! Filters that make numbers.

use super::{Function, at};
use crate::arguments::Given;
use crate::bounds::pay;
use crate::methods;
use crate::python::arithmetic::{Number, integer, number};
use crate::python::{Answer, fault, type_name, undefined};
use minijinja::value::Value;
use minijinja::{Error, State};

pub(crate) const FILTERS: &[(&str, Function)] = &[
    ("abs", |_, v| match number(&at(v, 0)) {
        Some(Number::Integer(n)) => Ok(integer(n.saturating_abs())),
        Some(Number::Float(x)) => Ok(Value::from(x.abs())),
        None => Err(fault(format!("bad operand type for abs(): '{}'", type_name(&at(v, 0))))),
    }),
    ("float", |s, v| {
        let mut given = Given::new("float", v);
        let value = given.need(0, "value")?;
        let default = given.get(1, "default").unwrap_or_else(|| Value::from(0.0));
        given.end()?;
        Ok(real(s, &value)?.map_or(default, Value::from))
    }),
    ("int", whole),
    ("round", round),
];

fn real(state: &State, value: &Value) -> Result<Option<f64>, Error> {
    if value.is_undefined() {
        return Err(undefined());
    }
    if let Some(number) = number(value) {
        return Ok(Some(number.as_float()));
    }
    let Some(text) = value.as_str() else { return Ok(None) };
    pay(state, text.len())?;
    Ok(methods::strip_both(text, None).replace('_', "").parse().ok())
}

fn whole(state: &State, values: &[Value]) -> Answer {
    let mut given = Given::new("int", values);
    let value = given.need(0, "value")?;
    let default = given.get(1, "default").unwrap_or_else(|| Value::from(0));
    let base = given.integer(2, "base")?.unwrap_or(10);
    given.end()?;
    if let Some(text) = value.as_str() {
        pay(state, text.len())?;
        let digits = methods::strip_both(text, None).replace('_', "").to_lowercase();
        let prefix = match base {
            16 => "0x",
            8 => "0o",
            2 => "0b",
            _ => "",
        };
        let radix = u32::try_from(base).ok().filter(|base| (2..=36).contains(base));
        let digits = digits.strip_prefix(prefix).unwrap_or(&digits);
        if let Some(n) = radix.and_then(|radix| i128::from_str_radix(digits, radix).ok()) {
            return Ok(integer(n));
        }
    } else if let Some(Number::Integer(n)) = number(&value) {
        return Ok(integer(n));
    }
    Ok(real(state, &value)?.filter(|x| x.is_finite()).map_or(default, |x| integer(x.trunc() as i128)))
}

fn round(_: &State, values: &[Value]) -> Answer {
    let mut given = Given::new("round", values);
    let value = given.need(0, "value")?;
    let precision = given.integer(1, "precision")?.unwrap_or(0).clamp(-300, 300);
    let method = given.optional_text(2, "method")?.unwrap_or_else(|| "common".into());
    given.end()?;
    let x = match number(&value) {
        Some(Number::Integer(n)) if method == "common" && precision >= 0 => return Ok(integer(n)),
        Some(number) => number.as_float(),
        None if value.is_undefined() => return Err(undefined()),
        None => return Err(fault(format!("type {} doesn't define __round__ method", type_name(&value)))),
    };
    let scale = 10_f64.powi(precision as i32);
    Ok(Value::from(match method.as_str() {
        "ceil" => (x * scale).ceil() / scale,
        "floor" => (x * scale).floor() / scale,
        // Both languages round the exact decimal value, ties to even.
        "common" if precision >= 0 => format!("{x:.*}", precision as usize).parse().unwrap_or(x),
        "common" => (x * scale).round_ties_even() / scale,
        _ => return Err(fault("method must be common, ceil or floor")),
    }))
}
