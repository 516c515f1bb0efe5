//! Which value comes first, and which holds which.

use super::arithmetic::{Number, number};
use super::{elements, fault, sequence_kind, type_name, undefined};
use crate::bounds::{NESTED, pay, pay_list};
use minijinja::value::{Value, ValueKind};
use minijinja::{Error, State};
use std::cmp::Ordering;

/// Python's order: numbers, strings, and lists of such; the rest has none.
pub(crate) fn order(state: &State, sign: &str, a: &Value, b: &Value) -> Result<Option<Ordering>, Error> {
    if let (Some(a), Some(b)) = (a.as_str(), b.as_str()) {
        return Ok(Some(a.cmp(b)));
    }
    match (number(a), number(b)) {
        (Some(Number::Integer(m)), Some(Number::Integer(n))) => return Ok(Some(m.cmp(&n))),
        (Some(m), Some(n)) => return Ok(m.as_float().partial_cmp(&n.as_float())),
        _ => {}
    }
    if let (Some(left), Some(right)) = (sequence_kind(a), sequence_kind(b))
        && left == right
    {
        let (left, right) = (elements(state, a)?, elements(state, b)?);
        for (x, y) in left.iter().zip(&right) {
            if !equal(state, x, y)? {
                return order(state, sign, x, y);
            }
        }
        return Ok(Some(left.len().cmp(&right.len())));
    }
    if a.is_undefined() || b.is_undefined() {
        return Err(undefined());
    }
    let (a, b) = (type_name(a), type_name(b));
    Err(fault(format!("'{sign}' not supported between instances of '{a}' and '{b}'")))
}

/// Whether two values are equal. Comparing looks at every element as often as it is reached, and lists may hold one
/// another many times over, or themselves: both are looked through first, and paid for.
pub(crate) fn equal(state: &State, a: &Value, b: &Value) -> Result<bool, Error> {
    if a.as_object().is_some() && b.as_object().is_some() {
        weigh(state, a, NESTED)?;
        weigh(state, b, NESTED)?;
    }
    Ok(a == b)
}

fn weigh(state: &State, value: &Value, depth: usize) -> Result<(), Error> {
    let Some(object) = value.as_object() else { return Ok(()) };
    if depth == 0 {
        return Err(fault("the values nest too deep"));
    }
    pay_list(state, 1 + value.len().unwrap_or(0))?;
    match value.kind() {
        ValueKind::Map => {
            object.try_iter_pairs().into_iter().flatten().try_for_each(|(_, item)| weigh(state, &item, depth - 1))
        }
        ValueKind::Seq | ValueKind::Iterable => value.try_iter()?.try_for_each(|item| weigh(state, &item, depth - 1)),
        _ => Ok(()),
    }
}

/// `needle in haystack`.
pub(crate) fn contains(state: &State, needle: &Value, haystack: &Value) -> Result<bool, Error> {
    if let Some(text) = haystack.as_str() {
        pay(state, text.len())?;
        return match needle.as_str() {
            Some(part) => Ok(text.contains(part)),
            None if needle.is_undefined() => Err(undefined()),
            None => Err(fault(format!("'in <string>' requires string as left operand, not {}", type_name(needle)))),
        };
    }
    match haystack.kind() {
        ValueKind::Undefined => Ok(false),
        ValueKind::Map => Ok(haystack.as_object().is_some_and(|object| object.get_value(needle).is_some())),
        ValueKind::Seq | ValueKind::Iterable => {
            pay_list(state, haystack.len().unwrap_or(0))?;
            for item in haystack.try_iter()? {
                if equal(state, &item, needle)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        _ => Err(fault(format!("argument of type '{}' is not iterable", type_name(haystack)))),
    }
}

/// Sorts by the first of each pair; equal ones keep their order, reversed or not.
pub(crate) fn sort<T>(state: &State, pairs: &mut [(Value, T)], reverse: bool) -> Result<(), Error> {
    let steps = pairs.len().saturating_mul(pairs.len().max(2).ilog2() as usize);
    pay(state, steps.saturating_mul(16))?;
    let mut failure = None;
    pairs.sort_by(|(a, _), (b, _)| {
        let found = if failure.is_some() { Ok(None) } else { order(state, "<", a, b) };
        let order = found.unwrap_or_else(|error| {
            failure = Some(error);
            None
        });
        let order = order.unwrap_or(Ordering::Equal);
        if reverse { order.reverse() } else { order }
    });
    failure.map_or(Ok(()), Err)
}
