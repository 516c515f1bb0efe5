//! Python's operators on the calculator's values, integers bounded.

use num_bigint::BigInt;
use num_traits::{Signed, ToPrimitive, Zero};
use rolegraft_python::Object;
use rustpython_parser::ast::{CmpOp, Operator};

/// Longest integer, in bits.
const MAX_BITS: u64 = 1 << 16;

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

pub(crate) fn items(object: &Object) -> Result<Vec<Object>, String> {
    match object {
        Object::List(items) | Object::Tuple(items) | Object::Set(items) => Ok(items.clone()),
        other => Err(format!("'{}' object is not iterable", other.kind())),
    }
}

pub(crate) fn less(a: &Object, b: &Object) -> Result<bool, String> {
    if let (Object::Str(a), Object::Str(b)) = (a, b) {
        return Ok(a < b);
    }
    match (integer(a), integer(b)) {
        (Some(a), Some(b)) => Ok(a < b),
        _ => Ok(float(a)? < float(b)?),
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
        other => integer(other).map_or_else(|| float(other).is_ok_and(|f| f != 0.0), |i| !i.is_zero()),
    }
}

pub(crate) fn compare(left: &Object, op: CmpOp, right: &Object) -> Result<bool, String> {
    Ok(match op {
        CmpOp::Eq => left.equals(right),
        CmpOp::NotEq => !left.equals(right),
        CmpOp::Lt => less(left, right)?,
        CmpOp::Gt => less(right, left)?,
        CmpOp::LtE => !less(right, left)?,
        CmpOp::GtE => !less(left, right)?,
        CmpOp::In => items(right)?.iter().any(|item| item.equals(left)),
        CmpOp::NotIn => !items(right)?.iter().any(|item| item.equals(left)),
        CmpOp::Is | CmpOp::IsNot => return Err("an expression that the calculator does not know".into()),
    })
}

pub(crate) fn operate(left: &Object, op: Operator, right: &Object) -> Result<Object, String> {
    match (left, op, right) {
        (Object::Str(a), Operator::Add, Object::Str(b)) => return Ok(Object::Str(format!("{a}{b}"))),
        (Object::List(a), Operator::Add, Object::List(b)) => return Ok(Object::List([&a[..], b].concat())),
        (Object::Tuple(a), Operator::Add, Object::Tuple(b)) => return Ok(Object::Tuple([&a[..], b].concat())),
        _ => {}
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
        Operator::FloorDiv => (a / b).floor(),
        Operator::Mod if b == 0.0 => return Err("float modulo".into()),
        Operator::Mod => a - b * (a / b).floor(),
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
