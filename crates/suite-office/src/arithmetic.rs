//! Python's operators on the calculator's values, integers bounded.

use num_bigint::BigInt;
use num_traits::{FromPrimitive, Signed, ToPrimitive, Zero};
use rolegraft_python::Object;
use rustpython_parser::ast::{CmpOp, Operator};
use std::cmp::Ordering;

/// Longest integer, in bits.
const MAX_BITS: u64 = 1 << 16;
/// Longest list, tuple or text that is made by multiplying.
const MAX_ITEMS: usize = 1 << 16;

pub(crate) fn float(object: &Object) -> Result<f64, String> {
    match object {
        Object::Bool(b) => Ok(f64::from(u8::from(*b))),
        Object::Int(i) => {
            i.to_f64().filter(|f| f.is_finite()).ok_or_else(|| "int too large to convert to float".to_owned())
        }
        Object::Float(f) => Ok(*f),
        other => Err(format!("must be real number, not {}", other.kind())),
    }
}

pub(crate) fn integer(object: &Object) -> Option<BigInt> {
    match object {
        Object::Bool(b) => Some(u8::from(*b).into()),
        Object::Int(i) => Some(i.clone()),
        _ => None,
    }
}

/// What iterating over a value gives.
pub(crate) fn items(object: &Object) -> Result<Vec<Object>, String> {
    match object {
        Object::List(items) | Object::Tuple(items) | Object::Set(items) => Ok(items.clone()),
        Object::Dict(pairs) => Ok(pairs.iter().map(|(key, _)| key.clone()).collect()),
        Object::Str(text) => Ok(text.chars().map(|c| Object::Str(c.into())).collect()),
        other => Err(format!("'{}' object is not iterable", other.kind())),
    }
}

pub(crate) fn less(a: &Object, b: &Object) -> Result<bool, String> {
    ordered(a, CmpOp::Lt, b)
}

/// How two numbers stand to each other, integers exactly; nothing does so to NaN. The outer `None`: not both are numbers.
fn numbers(a: &Object, b: &Object) -> Option<Option<Ordering>> {
    let whole = |i: &BigInt, f: f64| -> Option<Ordering> {
        match BigInt::from_f64(f.trunc()) {
            Some(t) => Some(i.cmp(&t).then_with(|| 0.0_f64.total_cmp(&(f.fract() + 0.0)))),
            None => 0.0.partial_cmp(&f),
        }
    };
    match (integer(a), integer(b), a, b) {
        (Some(a), Some(b), ..) => Some(Some(a.cmp(&b))),
        (Some(a), None, _, Object::Float(b)) => Some(whole(&a, *b)),
        (None, Some(b), Object::Float(a), _) => Some(whole(&b, *a).map(Ordering::reverse)),
        (None, None, Object::Float(a), Object::Float(b)) => Some(a.partial_cmp(b)),
        _ => None,
    }
}

/// Python's `==`.
fn equal(a: &Object, b: &Object) -> bool {
    match (a, b) {
        (Object::List(a), Object::List(b)) | (Object::Tuple(a), Object::Tuple(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        _ => numbers(a, b).map_or_else(|| a.equals(b), |order| order == Some(Ordering::Equal)),
    }
}

/// How containers compare what they hold: the one NaN that has a name is itself.
fn same(a: &Object, b: &Object) -> bool {
    matches!((a, b), (Object::Float(a), Object::Float(b)) if a.is_nan() && b.is_nan()) || equal(a, b)
}

/// Python's `<`, `<=`, `>` and `>=`.
pub(crate) fn ordered(left: &Object, op: CmpOp, right: &Object) -> Result<bool, String> {
    let order = match (left, right) {
        (Object::Str(a), Object::Str(b)) => Some(a.cmp(b)),
        (Object::List(a), Object::List(b)) | (Object::Tuple(a), Object::Tuple(b)) => {
            match a.iter().zip(b).find(|(a, b)| !same(a, b)) {
                Some((a, b)) => return ordered(a, op, b),
                None => Some(a.len().cmp(&b.len())),
            }
        }
        _ => {
            let sign = match op {
                CmpOp::Lt => "<",
                CmpOp::LtE => "<=",
                CmpOp::Gt => ">",
                _ => ">=",
            };
            let message = || {
                let (left, right) = (left.kind(), right.kind());
                format!("'{sign}' not supported between instances of '{left}' and '{right}'")
            };
            numbers(left, right).ok_or_else(message)?
        }
    };
    Ok(order.is_some_and(|order| match op {
        CmpOp::Lt => order.is_lt(),
        CmpOp::LtE => order.is_le(),
        CmpOp::Gt => order.is_gt(),
        _ => order.is_ge(),
    }))
}

/// Python's `in`.
fn contains(holder: &Object, item: &Object) -> Result<bool, String> {
    match (holder, item) {
        (Object::Str(text), Object::Str(part)) => Ok(text.contains(part.as_str())),
        (Object::Str(_), other) => Err(format!("'in <string>' requires string as left operand, not {}", other.kind())),
        _ => {
            let items = items(holder).map_err(|_| format!("argument of type '{}' is not iterable", holder.kind()))?;
            Ok(items.iter().any(|held| same(held, item)))
        }
    }
}

pub(crate) fn bounded(i: BigInt) -> Result<Object, String> {
    if i.bits() > MAX_BITS { Err("the result is too large".into()) } else { Ok(Object::Int(i)) }
}

/// Python's `bool()`.
pub(crate) fn truth(object: &Object) -> bool {
    match object {
        Object::None => false,
        Object::Str(text) => !text.is_empty(),
        Object::List(items) | Object::Tuple(items) | Object::Set(items) => !items.is_empty(),
        Object::Dict(pairs) => !pairs.is_empty(),
        Object::Bytes(bytes) => !bytes.is_empty(),
        Object::Ellipsis => true,
        Object::Complex(re, im) => *re != 0.0 || *im != 0.0,
        other => integer(other).map_or_else(|| float(other).is_ok_and(|f| f != 0.0), |i| !i.is_zero()),
    }
}

pub(crate) fn compare(left: &Object, op: CmpOp, right: &Object) -> Result<bool, String> {
    match op {
        CmpOp::Eq => Ok(equal(left, right)),
        CmpOp::NotEq => Ok(!equal(left, right)),
        CmpOp::Lt | CmpOp::LtE | CmpOp::Gt | CmpOp::GtE => ordered(left, op, right),
        CmpOp::In => contains(right, left),
        CmpOp::NotIn => Ok(!contains(right, left)?),
        CmpOp::Is | CmpOp::IsNot => Err("an expression that the calculator does not know".into()),
    }
}

/// A list, tuple or text with another, or several times over; `None` if neither operand is one or `op` is not for them.
fn sequences(left: &Object, op: Operator, right: &Object) -> Option<Result<Object, String>> {
    let is_sequence = |o: &Object| matches!(o, Object::Str(_) | Object::List(_) | Object::Tuple(_));
    Some(match (left, op, right) {
        (Object::Str(a), Operator::Add, Object::Str(b)) => Ok(Object::Str(format!("{a}{b}"))),
        (Object::List(a), Operator::Add, Object::List(b)) => Ok(Object::List([&a[..], b].concat())),
        (Object::Tuple(a), Operator::Add, Object::Tuple(b)) => Ok(Object::Tuple([&a[..], b].concat())),
        (left, Operator::Add, right) if is_sequence(left) => {
            let kind = left.kind();
            Err(format!("can only concatenate {kind} (not \"{}\") to {kind}", right.kind()))
        }
        (left, Operator::Mult, right) if is_sequence(left) => repeated(left, right),
        (left, Operator::Mult, right) if is_sequence(right) => repeated(right, left),
        (Object::Str(text), Operator::Mod, given) => match given {
            _ if text.contains('%') => Err("an expression that the calculator does not know".into()),
            Object::Tuple(items) if !items.is_empty() => {
                Err("not all arguments converted during string formatting".into())
            }
            Object::Tuple(_) | Object::List(_) | Object::Dict(_) => Ok(left.clone()),
            _ => Err("not all arguments converted during string formatting".into()),
        },
        _ => return None,
    })
}

/// `sequence * times`.
fn repeated(sequence: &Object, times: &Object) -> Result<Object, String> {
    let not_whole = || format!("can't multiply sequence by non-int of type '{}'", times.kind());
    let times = integer(times).ok_or_else(not_whole)?;
    let again = |items: &[Object], length: usize| items.iter().cycle().take(length).cloned().collect();
    let times = if times.is_negative() { 0 } else { times.to_usize().unwrap_or(usize::MAX) };
    let fits = |length: usize| length.checked_mul(times).filter(|n| *n <= MAX_ITEMS).ok_or("the result is too large");
    Ok(match sequence {
        Object::List(items) => fits(items.len()).map(|length| Object::List(again(items, length)))?,
        Object::Tuple(items) => fits(items.len()).map(|length| Object::Tuple(again(items, length)))?,
        other => fits(other.text().len()).map(|_| Object::Str(other.text().repeat(times)))?,
    })
}

/// `a // b` and `a % b` of floats, as Python computes both.
fn divided(a: f64, b: f64) -> (f64, f64) {
    let mut rest = a % b;
    let mut quotient = (a - rest) / b;
    if rest == 0.0 {
        rest = 0.0_f64.copysign(b);
    } else if (b < 0.0) != (rest < 0.0) {
        rest += b;
        quotient -= 1.0;
    }
    let whole = quotient.floor();
    let whole = match quotient {
        0.0 => 0.0_f64.copysign(a / b),
        q if q - whole > 0.5 => whole + 1.0,
        _ => whole,
    };
    (whole, rest)
}

pub(crate) fn operate(left: &Object, op: Operator, right: &Object) -> Result<Object, String> {
    if let Some(done) = sequences(left, op, right) {
        return done;
    }
    let numeric = |o: &Object| matches!(o, Object::Bool(_) | Object::Int(_) | Object::Float(_));
    if !numeric(left) || !numeric(right) {
        return Err(format!(
            "unsupported operand type(s) for {}: '{}' and '{}'",
            symbol(op),
            left.kind(),
            right.kind()
        ));
    }
    if let (Some(a), Some(b)) = (integer(left), integer(right)) {
        let zero = b.is_zero();
        match op {
            Operator::Add => return bounded(a + b),
            Operator::Sub => return bounded(a - b),
            Operator::Mult => return bounded(a * b),
            Operator::FloorDiv if zero => return Err("integer division or modulo by zero".into()),
            Operator::Mod if zero => return Err("integer modulo by zero".into()),
            Operator::Div if zero => return Err("division by zero".into()),
            Operator::FloorDiv => return Ok(Object::Int(num_integer::Integer::div_floor(&a, &b))),
            Operator::Mod => return Ok(Object::Int(num_integer::Integer::mod_floor(&a, &b))),
            Operator::BitAnd => return Ok(Object::Int(a & b)),
            Operator::BitOr => return Ok(Object::Int(a | b)),
            Operator::BitXor => return Ok(Object::Int(a ^ b)),
            Operator::LShift | Operator::RShift if b.is_negative() => return Err("negative shift count".into()),
            Operator::LShift => {
                let places = u32::try_from(&b).ok().filter(|n| u64::from(*n) <= MAX_BITS);
                return places.map_or_else(|| Err("the result is too large".into()), |n| bounded(a << n));
            }
            Operator::RShift => return Ok(Object::Int(a >> u32::try_from(&b).unwrap_or(u32::MAX))),
            Operator::Pow if !b.is_negative() => {
                let exponent = u32::try_from(&b).ok().filter(|e| a.bits().saturating_mul(u64::from(*e)) <= MAX_BITS);
                return exponent.map(|e| Object::Int(a.pow(e))).ok_or_else(|| "the result is too large".into());
            }
            _ => {}
        }
    }
    let (a, b) = (float(left)?, float(right)?);
    Ok(Object::Float(match op {
        Operator::Add => a + b,
        Operator::Sub => a - b,
        Operator::Mult => a * b,
        Operator::Div if b == 0.0 => return Err("float division by zero".into()),
        Operator::Div => a / b,
        Operator::FloorDiv if b == 0.0 => return Err("float floor division by zero".into()),
        Operator::FloorDiv => divided(a, b).0,
        Operator::Mod if b == 0.0 => return Err("float modulo".into()),
        Operator::Mod => divided(a, b).1,
        Operator::Pow if a < 0.0 && a.is_finite() && b.is_finite() && b.fract() != 0.0 => {
            let (length, angle) = (a.abs().powf(b), std::f64::consts::PI * b);
            return Ok(Object::Complex(length * angle.cos(), length * angle.sin()));
        }
        Operator::Pow if a == 0.0 && b < 0.0 => return Err("0.0 cannot be raised to a negative power".into()),
        Operator::Pow => {
            let power = a.powf(b);
            if power.is_infinite() && a.is_finite() && b.is_finite() {
                return Err("(34, 'Numerical result out of range')".into());
            }
            power
        }
        other => {
            return Err(format!(
                "unsupported operand type(s) for {}: '{}' and '{}'",
                symbol(other),
                left.kind(),
                right.kind()
            ));
        }
    }))
}

fn symbol(op: Operator) -> &'static str {
    match op {
        Operator::Add => "+",
        Operator::Sub => "-",
        Operator::Mult => "*",
        Operator::Div => "/",
        Operator::FloorDiv => "//",
        Operator::Mod => "%",
        Operator::Pow => "** or pow()",
        Operator::MatMult => "@",
        Operator::LShift => "<<",
        Operator::RShift => ">>",
        Operator::BitOr => "|",
        Operator::BitXor => "^",
        Operator::BitAnd => "&",
    }
}
