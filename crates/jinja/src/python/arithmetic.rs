//! Python's operators on numbers, and those that texts and lists share with them.

use super::print::escape;
use super::{Answer, Kind, elements, fault, sequence, sequence_kind, type_name, undefined};
use crate::bounds::{pay_list, pay_text};
use minijinja::value::{Value, ValueKind};
use minijinja::{Error, State};

/// A number; true and false are 1 and 0.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Number {
    Integer(i128),
    Float(f64),
}

impl Number {
    pub(crate) fn as_float(self) -> f64 {
        match self {
            Self::Integer(n) => n as f64,
            Self::Float(x) => x,
        }
    }
}

/// A value as a number, if it is one.
pub(crate) fn number(value: &Value) -> Option<Number> {
    match value.kind() {
        ValueKind::Bool => Some(Number::Integer(value.is_true().into())),
        ValueKind::Number if value.is_integer() => i128::try_from(value.clone()).ok().map(Number::Integer),
        ValueKind::Number => f64::try_from(value.clone()).ok().map(Number::Float),
        _ => None,
    }
}

/// An integer as a value, small where it can be.
pub(crate) fn integer(n: i128) -> Value {
    i64::try_from(n).map_or_else(|_| Value::from(n), Value::from)
}

fn unsupported(sign: &str, a: &Value, b: &Value) -> Error {
    if a.is_undefined() || b.is_undefined() {
        return undefined();
    }
    let (a, b) = (type_name(a), type_name(b));
    fault(format!("unsupported operand type(s) for {sign}: '{a}' and '{b}'"))
}

fn arithmetic(
    sign: &str,
    a: &Value,
    b: &Value,
    whole: impl Fn(i128, i128) -> Option<i128>,
    real: impl Fn(f64, f64) -> f64,
) -> Answer {
    match (number(a), number(b)) {
        (Some(Number::Integer(m)), Some(Number::Integer(n))) => {
            whole(m, n).map(integer).ok_or_else(|| fault(format!("{m} {sign} {n} is too large")))
        }
        (Some(m), Some(n)) => Ok(Value::from(real(m.as_float(), n.as_float()))),
        _ => Err(unsupported(sign, a, b)),
    }
}

pub(crate) fn add(state: &State, a: &Value, b: &Value) -> Answer {
    if let (Some(left), Some(right)) = (a.as_str(), b.as_str()) {
        pay_text(state, left.len() + right.len())?;
        // Markup, which `safe` and `escape` give, escapes what is added to it.
        return Ok(match (a.is_safe(), b.is_safe()) {
            (false, false) => Value::from([left, right].concat()),
            (true, true) => Value::from_safe_string([left, right].concat()),
            (true, false) => Value::from_safe_string([left, &escape(right)].concat()),
            (false, true) => Value::from_safe_string([&escape(left), right].concat()),
        });
    }
    match (sequence_kind(a), sequence_kind(b)) {
        (Some(left), Some(right)) if left == right && left != Kind::Generator => {
            let mut items = elements(state, a)?;
            items.extend(elements(state, b)?);
            sequence(items, left)
        }
        _ => arithmetic("+", a, b, i128::checked_add, |x, y| x + y),
    }
}

pub(crate) fn subtract(a: &Value, b: &Value) -> Answer {
    arithmetic("-", a, b, i128::checked_sub, |x, y| x - y)
}

pub(crate) fn multiply(state: &State, a: &Value, b: &Value) -> Answer {
    for (many, count) in [(a, b), (b, a)] {
        let Some(Number::Integer(count)) = number(count) else { continue };
        let count = usize::try_from(count.max(0)).unwrap_or(usize::MAX);
        if let Some(text) = many.as_str() {
            pay_text(state, text.len().saturating_mul(count))?;
            return Ok(Value::from(text.repeat(if text.is_empty() { 0 } else { count })));
        }
        if let Some(kind) = sequence_kind(many) {
            let items = elements(state, many)?;
            pay_list(state, items.len().saturating_mul(count))?;
            let total = items.len() * if items.is_empty() { 0 } else { count };
            return sequence(items.iter().cycle().take(total).cloned().collect(), kind);
        }
    }
    arithmetic("*", a, b, i128::checked_mul, |x, y| x * y)
}

fn divisor(sign: &str, a: &Value, b: &Value) -> Result<(), Error> {
    match (number(a), number(b)) {
        (Some(_), Some(n)) if n.as_float() == 0.0 => Err(fault("division by zero")),
        (Some(_), Some(_)) => Ok(()),
        _ => Err(unsupported(sign, a, b)),
    }
}

pub(crate) fn divide(a: &Value, b: &Value) -> Answer {
    divisor("/", a, b)?;
    let quotient = number(a).zip(number(b)).map(|(a, b)| a.as_float() / b.as_float());
    quotient.map(Value::from).ok_or_else(|| unsupported("/", a, b))
}

pub(crate) fn floor_divide(a: &Value, b: &Value) -> Answer {
    divisor("//", a, b)?;
    let whole = |m: i128, n: i128| {
        let quotient = m.checked_div(n)?;
        Some(quotient - i128::from(m % n != 0 && (m < 0) != (n < 0)))
    };
    arithmetic("//", a, b, whole, |x, y| (x / y).floor())
}

/// Python's remainder has the divisor's sign.
pub(crate) fn remainder(a: &Value, b: &Value) -> Answer {
    divisor("%", a, b)?;
    let whole = |m: i128, n: i128| {
        let rest = m.checked_rem(n)?;
        Some(if rest != 0 && (rest < 0) != (n < 0) { rest + n } else { rest })
    };
    let real = |x: f64, y: f64| {
        let rest = x % y;
        if rest != 0.0 && (rest < 0.0) != (y < 0.0) { rest + y } else { rest }
    };
    arithmetic("%", a, b, whole, real)
}

pub(crate) fn power(a: &Value, b: &Value) -> Answer {
    match (number(a), number(b)) {
        (Some(base), Some(Number::Integer(exponent @ ..0))) => Ok(Value::from(base.as_float().powf(exponent as f64))),
        _ => {
            let whole = |m: i128, n: i128| u32::try_from(n).ok().and_then(|n| m.checked_pow(n));
            arithmetic("**", a, b, whole, f64::powf)
        }
    }
}

pub(crate) fn negate(value: &Value) -> Answer {
    match number(value) {
        Some(Number::Integer(n)) => Ok(integer(n.checked_neg().ok_or_else(|| fault("too large"))?)),
        Some(Number::Float(x)) => Ok(Value::from(-x)),
        None if value.is_undefined() => Err(undefined()),
        None => Err(fault(format!("bad operand type for unary -: '{}'", type_name(value)))),
    }
}
