//! Python's `math`.

use crate::arithmetic::{bounded, float, integer, items, operate};
use num_bigint::BigInt;
use num_traits::{Signed, ToPrimitive, Zero};
use rolegraft_python::Object;
use rustpython_parser::ast::Operator;

/// Names that can be called.
pub(crate) const FUNCTIONS: &[&str] = &[
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "cbrt",
    "ceil",
    "comb",
    "copysign",
    "cos",
    "cosh",
    "degrees",
    "dist",
    "erf",
    "erfc",
    "exp",
    "exp2",
    "expm1",
    "fabs",
    "factorial",
    "floor",
    "fmod",
    "frexp",
    "fsum",
    "gamma",
    "gcd",
    "hypot",
    "isclose",
    "isfinite",
    "isinf",
    "isnan",
    "isqrt",
    "lcm",
    "ldexp",
    "lgamma",
    "log",
    "log10",
    "log1p",
    "log2",
    "modf",
    "nextafter",
    "perm",
    "pow",
    "prod",
    "radians",
    "remainder",
    "sin",
    "sinh",
    "sqrt",
    "tan",
    "tanh",
    "trunc",
    "ulp",
];

/// Calls one.
pub(crate) fn function(name: &str, arguments: &[Object]) -> Result<Object, String> {
    match (name, arguments) {
        ("prod", [of]) => items(of)?.iter().try_fold(Object::Int(1.into()), |p, x| operate(&p, Operator::Mult, x)),
        ("fsum", [of]) => exact_sum(&items(of)?).map(Object::Float),
        ("floor" | "ceil" | "trunc", [x]) => {
            if let Some(i) = integer(x) {
                return Ok(Object::Int(i));
            }
            let f = float(x)?;
            let whole = match name {
                "floor" => f.floor(),
                "ceil" => f.ceil(),
                _ => f.trunc(),
            };
            let whole = num_traits::FromPrimitive::from_f64(whole);
            whole.map(Object::Int).ok_or_else(|| "cannot convert float infinity to integer".into())
        }
        ("factorial", [x]) => {
            let n = integer(x).ok_or_else(|| format!("'{}' object cannot be interpreted as an integer", x.kind()))?;
            if n.is_negative() {
                return Err("factorial() not defined for negative values".into());
            }
            let n = n.to_u64().filter(|n| *n <= 3000).ok_or("the result is too large")?;
            Ok(Object::Int((1..=n).fold(BigInt::from(1), |p, i| p * i)))
        }
        ("gcd", all) => {
            let all: Option<Vec<BigInt>> = all.iter().map(integer).collect();
            let all = all.ok_or("'float' object cannot be interpreted as an integer")?;
            Ok(Object::Int(all.iter().fold(BigInt::zero(), |g, i| num_integer::Integer::gcd(&g, i))))
        }
        ("lcm", all) => {
            let all: Option<Vec<BigInt>> = all.iter().map(integer).collect();
            let all = all.ok_or("'float' object cannot be interpreted as an integer")?;
            all.iter().try_fold(Object::Int(1.into()), |l, i| {
                bounded(num_integer::Integer::lcm(&integer(&l).unwrap_or_default(), i))
            })
        }
        ("comb", [n, k]) => chosen(n, k, true),
        ("perm", [n, k]) => chosen(n, k, false),
        ("perm", [n]) => function("factorial", std::slice::from_ref(n)),
        ("isnan", [x]) => Ok(Object::Bool(float(x)?.is_nan())),
        ("isinf", [x]) => Ok(Object::Bool(float(x)?.is_infinite())),
        ("isfinite", [x]) => Ok(Object::Bool(float(x)?.is_finite())),
        ("isclose", [a, b]) => {
            let (a, b) = (float(a)?, float(b)?);
            let near = (a - b).abs() <= 1e-9 * a.abs().max(b.abs());
            Ok(Object::Bool(a == b || (near && a.is_finite() && b.is_finite())))
        }
        ("copysign", [x, y]) => Ok(Object::Float(float(x)?.copysign(float(y)?))),
        ("remainder", [x, y]) => Ok(Object::Float(libm::remainder(float(x)?, float(y)?))),
        ("nextafter", [x, y]) => Ok(Object::Float(libm::nextafter(float(x)?, float(y)?))),
        ("ldexp", [x, i]) => {
            let i = integer(i).ok_or("Expected an int as second argument to ldexp.")?;
            Ok(Object::Float(libm::ldexp(
                float(x)?,
                i.to_i32().unwrap_or(if i.is_negative() { i32::MIN } else { i32::MAX }),
            )))
        }
        ("frexp", [x]) => {
            let (mantissa, exponent) = libm::frexp(float(x)?);
            Ok(Object::Tuple(vec![Object::Float(mantissa), Object::Int(exponent.into())]))
        }
        ("modf", [x]) => {
            let (fraction, whole) = libm::modf(float(x)?);
            Ok(Object::Tuple(vec![Object::Float(fraction), Object::Float(whole)]))
        }
        ("ulp", [x]) => {
            let x = float(x)?.abs();
            Ok(Object::Float(if x.is_finite() { libm::nextafter(x, f64::INFINITY) - x } else { x }))
        }
        ("dist", [p, q]) => {
            let (p, q) = (items(p)?, items(q)?);
            if p.len() != q.len() {
                return Err("both points must have the same number of dimensions".into());
            }
            let squares =
                p.iter().zip(&q).try_fold(0.0, |sum, (a, b)| Ok::<_, String>(sum + (float(a)? - float(b)?).powi(2)));
            Ok(Object::Float(squares?.sqrt()))
        }
        ("isqrt", [x]) => match integer(x).filter(|i| !i.is_negative()) {
            Some(i) => Ok(Object::Int(i.sqrt())),
            None => Err("isqrt() argument must be nonnegative".into()),
        },
        ("log", [x, base]) => Ok(Object::Float(logarithm(x)? / logarithm(base)?)),
        ("log", [x]) => logarithm(x).map(Object::Float),
        ("pow", [x, y]) => {
            let power = float(x)?.powf(float(y)?);
            if power.is_nan() { Err("math domain error".into()) } else { Ok(Object::Float(power)) }
        }
        ("hypot", all) => {
            let squares = all.iter().try_fold(0.0, |sum, x| Ok::<_, String>(sum + float(x)?.powi(2)))?;
            Ok(Object::Float(squares.sqrt()))
        }
        ("atan2", [y, x]) => Ok(Object::Float(float(y)?.atan2(float(x)?))),
        ("fmod", [x, y]) => Ok(Object::Float(float(x)? % float(y)?)),
        (_, [x]) => real(name, x),
        _ => Err(format!("{name}() does not take {} arguments here", arguments.len())),
    }
}

/// How many ways there are to take `k` of `n` things, in any order or in each.
fn chosen(n: &Object, k: &Object, any_order: bool) -> Result<Object, String> {
    let whole =
        |x: &Object| integer(x).ok_or_else(|| format!("'{}' object cannot be interpreted as an integer", x.kind()));
    let (n, k) = (whole(n)?, whole(k)?);
    for (x, name) in [(&n, "n"), (&k, "k")] {
        if x.is_negative() {
            return Err(format!("{name} must be a non-negative integer"));
        }
    }
    if k > n {
        return Ok(Object::Int(BigInt::zero()));
    }
    let least = if any_order { k.clone().min(&n - &k) } else { k };
    let steps = least.to_u64().filter(|steps| *steps <= 3000).ok_or("the result is too large")?;
    (0..steps)
        .try_fold(BigInt::from(1), |product, i| {
            let next = product * (&n - i);
            let next = if any_order { next / (i + 1) } else { next };
            match bounded(next)? {
                Object::Int(i) => Ok(i),
                _ => Err(String::new()),
            }
        })
        .map(Object::Int)
}

/// The sum of numbers, rounded once (Shewchuk's partial sums).
fn exact_sum(numbers: &[Object]) -> Result<f64, String> {
    let mut partials: Vec<f64> = Vec::new();
    for number in numbers {
        let mut x = float(number)?;
        let mut kept = Vec::with_capacity(partials.len() + 1);
        for mut y in partials {
            if x.abs() < y.abs() {
                std::mem::swap(&mut x, &mut y);
            }
            let sum = x + y;
            let lost = y - (sum - x);
            if lost != 0.0 {
                kept.push(lost);
            }
            x = sum;
        }
        kept.push(x);
        partials = kept;
    }
    Ok(partials.iter().sum())
}

fn logarithm(x: &Object) -> Result<f64, String> {
    let f = float(x)?;
    if f > 0.0 { Ok(f.ln()) } else { Err("math domain error".into()) }
}

/// A function of one real number.
fn real(name: &str, x: &Object) -> Result<Object, String> {
    let of: fn(f64) -> f64 = match name {
        "sqrt" => f64::sqrt,
        "exp" => f64::exp,
        "sin" => f64::sin,
        "cos" => f64::cos,
        "tan" => f64::tan,
        "asin" => f64::asin,
        "acos" => f64::acos,
        "atan" => f64::atan,
        "sinh" => f64::sinh,
        "cosh" => f64::cosh,
        "tanh" => f64::tanh,
        "log10" => f64::log10,
        "log2" => f64::log2,
        "log1p" => f64::ln_1p,
        "expm1" => f64::exp_m1,
        "exp2" => f64::exp2,
        "acosh" => f64::acosh,
        "asinh" => f64::asinh,
        "atanh" => f64::atanh,
        "erf" => libm::erf,
        "erfc" => libm::erfc,
        "gamma" => libm::tgamma,
        "lgamma" => libm::lgamma,
        "cbrt" => f64::cbrt,
        "fabs" => f64::abs,
        "degrees" => f64::to_degrees,
        "radians" => f64::to_radians,
        _ => return Err(format!("name '{name}' is not defined")),
    };
    let argument = float(x)?;
    let result = of(argument);
    if (result.is_nan() && !argument.is_nan()) || (name.starts_with("log") && argument <= 0.0 && name != "log1p") {
        return Err("math domain error".into());
    }
    Ok(Object::Float(result))
}
