//! The `calculate` tool: Python's `eval` over digits, operators, brackets, dots and spaces, with bounds.
//!
//! Upstream lets through whatever consists of `0123456789+-*/(). ` and shows `str(round(float(value), 2))`, or the
//! exception's text. That alphabet spells more than arithmetic: empty tuples, `...`, calls, complex roots. All of these
//! are answered in CPython 3.11's words. Powers that would take minutes and gigabytes upstream are refused instead.

use crate::python::{Raised, Result, iterate, round2, type_name};
use num_bigint::BigInt;
use num_traits::{Signed, ToPrimitive, Zero};
use rolegraft_spans::python_json::float_repr;
use serde_json::Value;

/// Integers longer than this are taken to overflow a float, whatever is done with them later.
const MAX_BITS: u64 = 1 << 17;
/// Brackets that CPython's tokenizer nests.
const MAX_BRACKETS: usize = 200;
/// Signs and operators that may nest.
const MAX_DEPTH: usize = 1000;
/// Digits that CPython turns into an integer.
const MAX_DIGITS: usize = 4300;

const TOO_LARGE: &str = "int too large to convert to float";
const INVALID: &str = "invalid syntax (<string>, line 1)";
const COMMA: &str = "invalid syntax. Perhaps you forgot a comma? (<string>, line 1)";
const UNCLOSED: &str = "'(' was never closed (<string>, line 1)";

/// The tool's observation.
pub(crate) fn calculate(expression: &Value) -> Result<String> {
    let Value::String(text) = expression else {
        for item in iterate(expression)? {
            let Some(text) = item.as_str() else {
                let kind = type_name(&item);
                return Err(Raised(format!("'in <string>' requires string as left operand, not {kind}")));
            };
            if !"0123456789+-*/(). ".contains(text) {
                return Ok("Error: invalid characters in expression".into());
            }
        }
        return Ok("Error: eval() arg 1 must be a string, bytes or code object".into());
    };
    if !text.chars().all(|c| "0123456789+-*/(). ".contains(c)) {
        return Ok("Error: invalid characters in expression".into());
    }
    let result = parse(text.trim_start_matches(' ')).and_then(|tree| tree.evaluate()?.rounded());
    Ok(result.unwrap_or_else(|message| format!("Error: {message}")))
}

/// A value, or the message of what Python would raise.
type Evaluated<T> = std::result::Result<T, String>;

#[derive(Clone)]
enum Object {
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
    fn kind(&self) -> &'static str {
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
    fn rounded(&self) -> Evaluated<String> {
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

enum Tree {
    Leaf(Object),
    Sign(char, Box<Tree>),
    Binary(Box<Tree>, &'static str, Box<Tree>),
    Call(Box<Tree>, Option<Box<Tree>>),
}

impl Tree {
    fn evaluate(&self) -> Evaluated<Object> {
        match self {
            Self::Leaf(object) => Ok(object.clone()),
            Self::Sign(sign, of) => match (sign, of.evaluate()?) {
                ('-', Int(i)) => Ok(Int(-i)),
                ('-', Float(f)) => Ok(Float(-f)),
                (_, value @ (Int(_) | Float(_) | Complex)) => Ok(value),
                (sign, other) => Err(format!("bad operand type for unary {sign}: '{}'", other.kind())),
            },
            Self::Binary(left, operator, right) => binary(left.evaluate()?, operator, right.evaluate()?),
            Self::Call(callee, argument) => {
                let callee = callee.evaluate()?;
                if let Some(argument) = argument {
                    argument.evaluate()?;
                }
                Err(format!("'{}' object is not callable", callee.kind()))
            }
        }
    }
}

fn binary(left: Object, operator: &str, right: Object) -> Evaluated<Object> {
    match (left, operator, right) {
        (Tuple, "+", Tuple) | (Tuple, "*", Int(_)) | (Int(_), "*", Tuple) => Ok(Tuple),
        (Tuple, "+", other) => Err(format!("can only concatenate tuple (not \"{}\") to tuple", other.kind())),
        (Tuple, "*", other) | (other, "*", Tuple) => {
            Err(format!("can't multiply sequence by non-int of type '{}'", other.kind()))
        }
        (left @ (Tuple | Ellipsis), _, right) | (left, _, right @ (Tuple | Ellipsis)) => Err(unsupported(&left, operator, &right)),
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
    let size = quotient.to_f64().unwrap_or(f64::INFINITY) * 2f64.powi(-(half as i32)) * 2f64.powi(-((shift - half) as i32));
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

#[derive(Clone, PartialEq)]
enum Token {
    Number(String),
    Dots,
    Operator(&'static str),
    Open,
    Close,
}

/// Tokens, and the message of what the tokenizer refuses, if anything, after those it read.
fn tokens(text: &str) -> (Vec<Token>, Option<&'static str>) {
    let bytes = text.as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let (mut found, mut at, mut open) = (Vec::new(), 0, 0usize);
    while let Some(byte) = bytes.get(at) {
        let rest = &text[at..];
        let (token, length) = match byte {
            b' ' => {
                at += 1;
                continue;
            }
            b'0'..=b'9' | b'.' => {
                let whole = digits(at);
                let point = bytes.get(at + whole) == Some(&b'.');
                let length = whole + if point { 1 + digits(at + whole + 1) } else { 0 };
                if rest.starts_with("...") {
                    (Token::Dots, 3)
                } else if length == 1 && point {
                    (Token::Operator("."), 1)
                } else {
                    if !point && whole > 1 && *byte == b'0' && rest.bytes().take(whole).any(|b| b != b'0') {
                        return (found, Some("leading zeros in decimal integer literals are not permitted; use an 0o prefix for octal integers (<string>, line 1)"));
                    }
                    (Token::Number(rest[..length].to_owned()), length)
                }
            }
            b'(' => {
                open += 1;
                if open > MAX_BRACKETS - 1 {
                    return (found, Some("too many nested parentheses (<string>, line 1)"));
                }
                (Token::Open, 1)
            }
            b')' => {
                if open == 0 {
                    return (found, Some("unmatched ')' (<string>, line 1)"));
                }
                open -= 1;
                (Token::Close, 1)
            }
            _ => {
                let operator = ["**", "//", "*", "/", "+", "-"].into_iter().find(|o| rest.starts_with(o)).unwrap_or("-");
                (Token::Operator(operator), operator.len())
            }
        };
        found.push(token);
        at += length;
    }
    (found, (open > 0).then_some(UNCLOSED))
}

fn parse(text: &str) -> Evaluated<Tree> {
    let (tokens, refused) = tokens(text);
    if let Some(message) = refused {
        return Err(message.into());
    }
    if tokens.is_empty() {
        return Err("invalid syntax (<string>, line 0)".into());
    }
    let mut parser = Parser { tokens: &tokens, at: 0, depth: 0, brackets: 0 };
    let tree = parser.sum()?;
    if parser.at < tokens.len() { Err(INVALID.into()) } else { Ok(tree) }
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    depth: usize,
    brackets: usize,
}

impl Parser<'_> {
    fn operator(&mut self, known: &[&'static str]) -> Option<&'static str> {
        match self.tokens.get(self.at) {
            Some(Token::Operator(found)) if known.contains(found) => {
                self.at += 1;
                Some(found)
            }
            _ => None,
        }
    }
    fn chain(&mut self, known: &[&'static str], of: fn(&mut Self) -> Evaluated<Tree>) -> Evaluated<Tree> {
        let mut tree = of(self)?;
        while let Some(operator) = self.operator(known) {
            tree = Tree::Binary(Box::new(tree), operator, Box::new(of(self)?));
            self.deeper()?;
        }
        Ok(tree)
    }
    /// Counts what will nest when the tree is evaluated.
    fn deeper(&mut self) -> Evaluated<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err("too many nested parentheses (<string>, line 1)".into()) } else { Ok(()) }
    }
    fn sum(&mut self) -> Evaluated<Tree> {
        self.chain(&["+", "-"], Self::product)
    }
    fn product(&mut self) -> Evaluated<Tree> {
        self.chain(&["*", "/", "//"], Self::factor)
    }
    fn factor(&mut self) -> Evaluated<Tree> {
        self.deeper()?;
        if let Some(sign) = self.operator(&["+", "-"]) {
            return Ok(Tree::Sign(if sign == "-" { '-' } else { '+' }, Box::new(self.factor()?)));
        }
        let base = self.primary()?;
        if self.operator(&["**"]).is_some() {
            return Ok(Tree::Binary(Box::new(base), "**", Box::new(self.factor()?)));
        }
        Ok(base)
    }
    fn primary(&mut self) -> Evaluated<Tree> {
        let mut tree = self.atom()?;
        while self.tokens.get(self.at) == Some(&Token::Open) {
            self.deeper()?;
            let argument = self.bracketed()?;
            tree = Tree::Call(Box::new(tree), argument.map(Box::new));
        }
        Ok(tree)
    }
    /// `(…)`, standing at the bracket; `None` if there is nothing inside.
    fn bracketed(&mut self) -> Evaluated<Option<Tree>> {
        self.at += 1;
        self.brackets += 1;
        let inside = if self.tokens.get(self.at) == Some(&Token::Close) { None } else { Some(self.sum()?) };
        match self.tokens.get(self.at) {
            Some(Token::Close) => {}
            Some(Token::Number(_) | Token::Dots) => return Err(COMMA.into()),
            _ => return Err(INVALID.into()),
        }
        self.at += 1;
        self.brackets -= 1;
        Ok(inside)
    }
    fn atom(&mut self) -> Evaluated<Tree> {
        let token = self.tokens.get(self.at).ok_or(INVALID)?;
        let object = match token {
            Token::Open => return Ok(self.bracketed()?.unwrap_or(Tree::Leaf(Tuple))),
            Token::Number(text) if text.contains('.') => Float(text.parse().map_err(|_| INVALID)?),
            Token::Number(text) if text.len() > MAX_DIGITS => {
                return Err(format!(
                    "Exceeds the limit ({MAX_DIGITS} digits) for integer string conversion: value has {} digits; use \
                     sys.set_int_max_str_digits() to increase the limit - Consider hexadecimal for huge integer literals to \
                     avoid decimal conversion limits. (<string>, line 1)",
                    text.len()
                ));
            }
            Token::Number(text) => Int(text.parse().map_err(|_| INVALID)?),
            Token::Dots => Ellipsis,
            _ => return Err(INVALID.into()),
        };
        self.at += 1;
        Ok(Tree::Leaf(object))
    }
}
