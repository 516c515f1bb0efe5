//! Python as far as upstream's tools use it: what raises, with which words, and `repr`.

use rolegraft_spans::python_json::{float_repr, number_repr};
use serde_json::{Map, Number, Value};
use std::fmt::Write;

/// An exception's message: upstream shows `Error: {e}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Raised(pub(crate) String);

/// What a tool gives back: an observation or an exception.
pub(crate) type Result<T> = std::result::Result<T, Raised>;

/// Arguments of a call, checked against a signature as Python checks them.
pub(crate) struct Arguments<'a> {
    map: &'a Map<String, Value>,
}

impl<'a> Arguments<'a> {
    /// `class` is upstream's name of the tool; `names` its parameters.
    pub(crate) fn bind(class: &str, names: &[&str], map: &'a Map<String, Value>) -> Result<Self> {
        if let Some(unexpected) = map.keys().find(|k| !names.contains(&k.as_str())) {
            if unexpected == "data" {
                return Err(Raised(format!("{class}.invoke() got multiple values for keyword argument 'data'")));
            }
            return Err(Raised(format!("{class}.invoke() got an unexpected keyword argument '{unexpected}'")));
        }
        let missing: Vec<String> = names.iter().filter(|n| !map.contains_key(**n)).map(|n| format!("'{n}'")).collect();
        let list = match missing.as_slice() {
            [] => return Ok(Self { map }),
            [one] => one.clone(),
            [first, second] => format!("{first} and {second}"),
            [start @ .., last] => format!("{}, and {last}", start.join(", ")),
        };
        let s = if missing.len() == 1 { "" } else { "s" };
        let count = missing.len();
        Err(Raised(format!("{class}.invoke() missing {count} required positional argument{s}: {list}")))
    }
    pub(crate) fn get(&self, name: &str) -> &'a Value {
        self.map.get(name).unwrap_or(&Value::Null)
    }
    /// A value used as a dictionary's key: text, or what no key of ours can be.
    pub(crate) fn key(&self, name: &str) -> Result<&'a str> {
        key(self.get(name))
    }
}

/// A value as a dictionary key. Scalars other than text are hashable but match no key.
pub(crate) fn key(value: &Value) -> Result<&str> {
    match value {
        Value::String(s) => Ok(s),
        Value::Array(_) => Err(Raised("unhashable type: 'list'".into())),
        Value::Object(_) => Err(Raised("unhashable type: 'dict'".into())),
        _ => Ok("\u{0}not a key"),
    }
}

pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float",
        Value::Number(_) => "int",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Object(_) => "dict",
    }
}

/// `value[name]` on a dictionary.
pub(crate) fn item<'v>(value: &'v Value, name: &str) -> Result<&'v Value> {
    match value {
        Value::Object(map) => map.get(name).ok_or_else(|| Raised(str_repr(name))),
        Value::Array(_) => Err(Raised("list indices must be integers or slices, not str".into())),
        Value::String(_) => Err(Raised("string indices must be integers, not 'str'".into())),
        other => Err(Raised(format!("'{}' object is not subscriptable", type_name(other)))),
    }
}

pub(crate) fn item_mut<'v>(value: &'v mut Value, name: &str) -> Result<&'v mut Value> {
    item(value, name)?;
    value.get_mut(name).ok_or_else(|| Raised(str_repr(name)))
}

/// Iterating over a value.
pub(crate) fn iterate(value: &Value) -> Result<Vec<Value>> {
    Ok(match value {
        Value::Array(items) => items.clone(),
        Value::String(s) => s.chars().map(|c| Value::from(c.to_string())).collect(),
        Value::Object(map) => map.keys().map(|k| Value::from(k.as_str())).collect(),
        other => return Err(Raised(format!("'{}' object is not iterable", type_name(other)))),
    })
}

pub(crate) fn len(value: &Value) -> Result<usize> {
    Ok(match value {
        Value::Array(items) => items.len(),
        Value::String(s) => s.chars().count(),
        Value::Object(map) => map.len(),
        other => return Err(Raised(format!("object of type '{}' has no len()", type_name(other)))),
    })
}

/// A Python number: ints stay ints as long as they can.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Num {
    Int(i64),
    Float(f64),
}

impl Num {
    pub(crate) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Number(n) => n.as_i64().map(Self::Int).or_else(|| n.as_f64().map(Self::Float)),
            Value::Bool(b) => Some(Self::Int(i64::from(*b))),
            _ => None,
        }
    }
    /// The operand of `operator` on its right side, with Python's complaint if it is no number.
    pub(crate) fn operand(value: &Value, left: &str, operator: &str) -> Result<Self> {
        Self::of(value).ok_or_else(|| {
            Raised(format!("unsupported operand type(s) for {operator}: '{left}' and '{}'", type_name(value)))
        })
    }
    pub(crate) fn float(self) -> f64 {
        match self {
            Self::Int(i) => i as f64,
            Self::Float(f) => f,
        }
    }
    fn both(self, other: Self, int: fn(i64, i64) -> Option<i64>, float: fn(f64, f64) -> f64) -> Self {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => int(a, b).map_or(Self::Float(float(a as f64, b as f64)), Self::Int),
            _ => Self::Float(float(self.float(), other.float())),
        }
    }
    pub(crate) fn add(self, other: Self) -> Self {
        self.both(other, i64::checked_add, |a, b| a + b)
    }
    pub(crate) fn sub(self, other: Self) -> Self {
        self.both(other, i64::checked_sub, |a, b| a - b)
    }
    pub(crate) fn mul(self, other: Self) -> Self {
        self.both(other, i64::checked_mul, |a, b| a * b)
    }
    pub(crate) fn less(self, other: Self) -> bool {
        self.float() < other.float()
    }
    /// `round(x, 2)`: correctly rounded, ties to even on the exact binary value.
    pub(crate) fn round2(self) -> Self {
        match self {
            Self::Float(f) => Self::Float(format!("{f:.2}").parse().unwrap_or(f)),
            int => int,
        }
    }
    pub(crate) fn value(self) -> Value {
        match self {
            Self::Int(i) => i.into(),
            Self::Float(f) => Number::from_f64(f).map_or(Value::Null, Value::Number),
        }
    }
    pub(crate) fn text(self) -> String {
        match self {
            Self::Int(i) => i.to_string(),
            Self::Float(f) => float_repr(f),
        }
    }
}

/// Python's `==`: numbers compare by value, whatever their type.
pub(crate) fn equal(a: &Value, b: &Value) -> bool {
    match (Num::of(a), Num::of(b)) {
        (Some(a), Some(b)) => a.float() == b.float(),
        _ => a == b,
    }
}

/// `repr` of a text: single quotes unless it holds one and no double quote.
pub(crate) fn str_repr(s: &str) -> String {
    let quote = if s.contains('\'') && !s.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for c in s.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if c < ' ' || c == '\u{7f}' => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

/// `str` of a value, as an f-string shows it.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        other => repr(other),
    }
}

/// `repr` of a value.
pub(crate) fn repr(value: &Value) -> String {
    match value {
        Value::Null => "None".into(),
        Value::Bool(b) => if *b { "True" } else { "False" }.into(),
        Value::Number(n) => number_repr(n),
        Value::String(s) => str_repr(s),
        Value::Array(items) => format!("[{}]", items.iter().map(repr).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let fields: Vec<_> = map.iter().map(|(k, v)| format!("{}: {}", str_repr(k), repr(v))).collect();
            format!("{{{}}}", fields.join(", "))
        }
    }
}

/// `str(to_hashable(value))`: dictionaries as sorted tuples of pairs, lists as tuples.
pub(crate) fn hashable_repr(value: &Value, out: &mut String) {
    let tuple = |out: &mut String, len: usize| out.push_str(if len == 1 { ",)" } else { ")" });
    match value {
        Value::Object(map) => {
            let mut pairs: Vec<_> = map.iter().collect();
            pairs.sort_by(|a, b| a.0.cmp(b.0));
            out.push('(');
            for (i, (name, value)) in pairs.iter().enumerate() {
                out.push_str(if i > 0 { ", (" } else { "(" });
                out.push_str(&str_repr(name));
                out.push_str(", ");
                hashable_repr(value, out);
                out.push(')');
            }
            tuple(out, pairs.len());
        }
        Value::Array(items) => {
            out.push('(');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                hashable_repr(item, out);
            }
            tuple(out, items.len());
        }
        scalar => out.push_str(&repr(scalar)),
    }
}

/// Upstream's `calculate`: digits and operators only, evaluated with bounds, rounded to two places.
pub(crate) fn calculate(expression: &Value) -> Result<String> {
    let text = match expression {
        Value::String(s) => s.clone(),
        other => {
            let items = iterate(other)?;
            if let Some(bad) = items.iter().find(|i| !i.is_string()) {
                return Err(Raised(format!("'in <string>' requires string as left operand, not {}", type_name(bad))));
            }
            return Ok("Error: eval() arg 1 must be a string, bytes or code object".into());
        }
    };
    if !text.chars().all(|c| "0123456789+-*/(). ".contains(c)) {
        return Ok("Error: invalid characters in expression".into());
    }
    if text.trim_matches(' ').is_empty() {
        return Ok("Error: invalid syntax (<string>, line 0)".into());
    }
    let mut parser = Calculator { text: text.trim_start_matches(' ').as_bytes(), at: 0, depth: 0 };
    Ok(
        match parser.expression().and_then(|v| {
            if parser.skip() == parser.text.len() { Ok(v) } else { Err("invalid syntax (<string>, line 1)".into()) }
        }) {
            Ok(value) => float_repr(Num::Float(value.float()).round2().float()),
            Err(error) => format!("Error: {error}"),
        },
    )
}

struct Calculator<'a> {
    text: &'a [u8],
    at: usize,
    depth: usize,
}

type Evaluated = std::result::Result<Num, String>;

impl Calculator<'_> {
    fn skip(&mut self) -> usize {
        while self.text.get(self.at) == Some(&b' ') {
            self.at += 1;
        }
        self.at
    }
    fn take(&mut self, operator: &str) -> bool {
        self.skip();
        let found = self.text[self.at..].starts_with(operator.as_bytes());
        if found {
            self.at += operator.len();
        }
        found
    }
    fn expression(&mut self) -> Evaluated {
        let mut value = self.term()?;
        loop {
            if self.take("+") {
                value = value.add(self.term()?);
            } else if self.take("-") {
                value = value.sub(self.term()?);
            } else {
                return Ok(value);
            }
        }
    }
    fn term(&mut self) -> Evaluated {
        let mut value = self.unary()?;
        loop {
            self.skip();
            if self.text[self.at..].starts_with(b"**") {
                return Ok(value);
            }
            if self.take("//") {
                let by = self.unary()?;
                if by.float() == 0.0 {
                    let floats = matches!((value, by), (Num::Int(_), Num::Int(_)));
                    return Err(if floats {
                        "integer division or modulo by zero"
                    } else {
                        "float floor division by zero"
                    }
                    .into());
                }
                value = match (value, by) {
                    (Num::Int(a), Num::Int(b)) => Num::Int(a.div_euclid(b) - i64::from(b < 0 && a.rem_euclid(b) != 0)),
                    (a, b) => Num::Float((a.float() / b.float()).floor()),
                };
            } else if self.take("*") {
                value = value.mul(self.unary()?);
            } else if self.take("/") {
                let by = self.unary()?;
                if by.float() == 0.0 {
                    let ints = matches!((value, by), (Num::Int(_), Num::Int(_)));
                    return Err(if ints { "division by zero" } else { "float division by zero" }.into());
                }
                value = Num::Float(value.float() / by.float());
            } else {
                return Ok(value);
            }
        }
    }
    fn unary(&mut self) -> Evaluated {
        self.depth += 1;
        if self.depth > 200 {
            return Err("too many nested parentheses (<string>, line 1)".into());
        }
        let value = if self.take("-") {
            Num::Int(0).sub(self.unary()?)
        } else if self.take("+") {
            self.unary()?
        } else {
            let base = self.atom()?;
            if self.take("**") { power(base, self.unary()?)? } else { base }
        };
        self.depth -= 1;
        Ok(value)
    }
    fn atom(&mut self) -> Evaluated {
        let syntax = || "invalid syntax (<string>, line 1)".to_owned();
        if self.take("(") {
            let value = self.expression()?;
            return if self.take(")") { Ok(value) } else { Err("'(' was never closed (<string>, line 1)".into()) };
        }
        let start = self.skip();
        while self.text.get(self.at).is_some_and(|c| c.is_ascii_digit() || *c == b'.') {
            self.at += 1;
        }
        let digits = std::str::from_utf8(&self.text[start..self.at]).unwrap_or_default();
        if digits.contains('.') {
            return digits.parse().map(Num::Float).map_err(|_| syntax());
        }
        if digits.len() > 1 && digits.starts_with('0') && digits.bytes().any(|b| b != b'0') {
            return Err("leading zeros in decimal integer literals are not permitted; use an 0o prefix for octal integers (<string>, line 1)".into());
        }
        digits.parse().map(Num::Int).or_else(|_| digits.parse().map(Num::Float)).map_err(|_| syntax())
    }
}

/// `base ** exponent`, in doubles beyond 64 bits: upstream would compute big integers without bound.
fn power(base: Num, exponent: Num) -> Evaluated {
    if let (Num::Int(b), Num::Int(e @ 0..=63)) = (base, exponent)
        && let Some(value) = b.checked_pow(e as u32)
    {
        return Ok(Num::Int(value));
    }
    let value = base.float().powf(exponent.float());
    if value.is_finite() { Ok(Num::Float(value)) } else { Err("(34, 'Numerical result out of range')".into()) }
}
