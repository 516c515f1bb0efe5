//! The values that the calculator's alphabet can spell, and Python's operators on them.

use crate::python::round2;
use num_bigint::BigInt;
use num_traits::{Signed, ToPrimitive, Zero};
use rolegraft_spans::python_json::float_repr;

/// Integers longer than this are taken to overflow a float, whatever is done with them later.
const MAX_BITS: u64 = 1 << 14;
const TOO_LARGE: &str = "int too large to convert to float";

/// A value, or the message of what Python would raise.
pub(crate) type Evaluated<T> = std::result::Result<T, String>;

#[derive(Clone)]
pub(crate) enum Object {
    Int(BigInt),
    Float(f64),
    /// A root of a negative number. Upstream can do nothing with one but fail.
    Complex,
    /// The empty tuple: there is no comma to fill it with.
    Tuple,
    Ellipsis,
}

use Object::{Complex, Ellipsis, Float, Int, Tuple};

impl Object {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Int(_) => "int",
            Float(_) => "float",
            Complex => "complex",
            Tuple => "tuple",
            Ellipsis => "ellipsis",
        }
    }
    fn is_zero(&self) -> bool {
        match self {
            Int(i) => i.is_zero(),
            Float(f) => *f == 0.0,
            _ => false,
        }
    }
    pub(crate) fn rounded(&self) -> Evaluated<String> {
        match self {
            Int(i) => Ok(float_repr(float(i)?)),
            Float(f) if f.is_finite() => Ok(float_repr(round2(*f))),
            Float(f) => Ok(float_repr(*f)),
            other => Err(format!("float() argument must be a string or a real number, not '{}'", other.kind())),
        }
    }
}

fn float(i: &BigInt) -> Evaluated<f64> {
    i.to_f64().filter(|f| f.is_finite()).ok_or_else(|| TOO_LARGE.to_owned())
}

fn bounded(i: BigInt) -> Evaluated<Object> {
    if i.bits() > MAX_BITS { Err(TOO_LARGE.into()) } else { Ok(Int(i)) }
}

/// What an operator makes of two values.
pub(crate) fn binary(left: Object, operator: &str, right: Object) -> Evaluated<Object> {
    match (left, operator, right) {
        (Tuple, "+", Tuple) | (Tuple, "*", Int(_)) | (Int(_), "*", Tuple) => Ok(Tuple),
        (Tuple, "+", other) => Err(format!("can only concatenate tuple (not \"{}\") to tuple", other.kind())),
        (Tuple, "*", other) | (other, "*", Tuple) => {
            Err(format!("can't multiply sequence by non-int of type '{}'", other.kind()))
        }
        (left @ (Tuple | Ellipsis), _, right) | (left, _, right @ (Tuple | Ellipsis)) => {
            Err(unsupported(&left, operator, &right))
        }
        (left @ Complex, "//", right) | (left, "//", right @ Complex) => Err(unsupported(&left, operator, &right)),
        (Complex, "/", right) if right.is_zero() => Err("complex division by zero".into()),
        (Complex, ..) | (.., Complex) => Ok(Complex),
        (Int(a), _, Int(b)) => integers(a, operator, b),
        (Int(a), _, Float(b)) => floats(float(&a)?, operator, b),
        (Float(a), _, Int(b)) => floats(a, operator, float(&b)?),
        (Float(a), _, Float(b)) => floats(a, operator, b),
    }
}

fn unsupported(left: &Object, operator: &str, right: &Object) -> String {
    let operator = if operator == "**" { "** or pow()" } else { operator };
    format!("unsupported operand type(s) for {operator}: '{}' and '{}'", left.kind(), right.kind())
}

fn integers(a: BigInt, operator: &str, b: BigInt) -> Evaluated<Object> {
    match operator {
        "+" => bounded(a + b),
        "-" => bounded(a - b),
        "*" => bounded(a * b),
        "/" if b.is_zero() => Err("division by zero".into()),
        "/" => quotient(&a, &b).map(Float),
        "//" if b.is_zero() => Err("integer division or modulo by zero".into()),
        "//" => Ok(Int(num_integer::Integer::div_floor(&a, &b))),
        _ if b.is_negative() => floats(float(&a)?, operator, float(&b)?),
        _ if a.bits() <= 1 => Ok(Int(match (b.is_zero(), b.bit(0)) {
            (true, _) => BigInt::from(1),
            (_, true) => a,
            _ => a.abs(),
        })),
        _ => match u32::try_from(&b) {
            Ok(exponent) if a.bits().saturating_mul(u64::from(exponent)) <= MAX_BITS => Ok(Int(a.pow(exponent))),
            _ => Err(TOO_LARGE.into()),
        },
    }
}

/// `a / b`, correctly rounded.
fn quotient(a: &BigInt, b: &BigInt) -> Evaluated<f64> {
    let shift = (66 + b.bits() as i64 - a.bits() as i64).max(0);
    let (mut quotient, rest) = num_integer::Integer::div_rem(&(a.abs() << shift), &b.abs());
    if !rest.is_zero() {
        quotient.set_bit(0, true);
    }
    // Scaled in two steps: a power of two beyond the range of a float would be zero.
    let half = shift / 2;
    let size =
        quotient.to_f64().unwrap_or(f64::INFINITY) * 2f64.powi(-(half as i32)) * 2f64.powi(-((shift - half) as i32));
    if size.is_infinite() {
        return Err("integer division result too large for a float".into());
    }
    Ok(if a.is_negative() == b.is_negative() { size } else { -size })
}

fn floats(a: f64, operator: &str, b: f64) -> Evaluated<Object> {
    Ok(Float(match operator {
        "+" => a + b,
        "-" => a - b,
        "*" => a * b,
        "/" if b == 0.0 => return Err("float division by zero".into()),
        "/" => a / b,
        "//" if b == 0.0 => return Err("float floor division by zero".into()),
        "//" => floor_division(a, b),
        _ if a == 0.0 && b < 0.0 => return Err("0.0 cannot be raised to a negative power".into()),
        _ if a < 0.0 && a.is_finite() && b.is_finite() && b.fract() != 0.0 => return Ok(Complex),
        _ => {
            let power = a.powf(b);
            if power.is_infinite() && a.is_finite() && b.is_finite() {
                return Err("(34, 'Numerical result out of range')".into());
            }
            power
        }
    }))
}

/// CPython's `float_floor_div`.
fn floor_division(a: f64, b: f64) -> f64 {
    let rest = a % b;
    let mut quotient = (a - rest) / b;
    if rest != 0.0 && (b < 0.0) != (rest < 0.0) {
        quotient -= 1.0;
    }
    if quotient == 0.0 {
        return 0f64.copysign(a / b);
    }
    let floor = quotient.floor();
    if quotient - floor > 0.5 { floor + 1.0 } else { floor }
}
