//! Python's values: read from literals, shown as `str` and `repr` show them, `int()` and `float()` of texts.
//!
//! Benchmarks that were written in Python judge by what Python prints and parses (CPython 3.11). Texts are parsed, never
//! evaluated.

mod literal;
mod number;

pub use literal::{Unhashable, computed, exact, of_constant, read};
pub use number::{float, int};

use num_bigint::BigInt;
use num_traits::ToPrimitive;
use regex::Regex;
use rolegraft_spans::python_json::float_repr;
use std::sync::LazyLock;

/// Starts a text that stands for a number that JSON cannot hold: a character that Unicode leaves without meaning.
const CONSTANT: char = '\u{10ffff}';

/// What stands for `nan`, `inf` or `-inf` in a JSON value that becomes an [`Object`].
#[must_use]
pub fn constant(name: &str) -> serde_json::Value {
    format!("{CONSTANT}{name}").into()
}

/// A Python object as far as literals can spell one.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the types of Python")]
pub enum Object {
    None,
    Bool(bool),
    Int(BigInt),
    Float(f64),
    Complex(f64, f64),
    Str(String),
    Bytes(Vec<u8>),
    Tuple(Vec<Object>),
    List(Vec<Object>),
    Set(Vec<Object>),
    Dict(Vec<(Object, Object)>),
    Ellipsis,
}

impl Object {
    /// `type(x).__name__`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::None => "NoneType",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Complex(..) => "complex",
            Self::Str(_) => "str",
            Self::Bytes(_) => "bytes",
            Self::Tuple(_) => "tuple",
            Self::List(_) => "list",
            Self::Set(_) => "set",
            Self::Dict(_) => "dict",
            Self::Ellipsis => "ellipsis",
        }
    }

    /// `str(x)`.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Str(s) => s.clone(),
            other => other.repr(),
        }
    }

    /// `repr(x)`.
    #[must_use]
    pub fn repr(&self) -> String {
        let list = |items: &[Self]| items.iter().map(Self::repr).collect::<Vec<_>>().join(", ");
        match self {
            Self::None => "None".into(),
            Self::Bool(b) => if *b { "True" } else { "False" }.into(),
            Self::Int(i) => i.to_string(),
            Self::Float(f) => float_repr(*f),
            Self::Complex(re, im) => complex_repr(*re, *im),
            Self::Str(s) => str_repr(s),
            Self::Bytes(bytes) => bytes_repr(bytes),
            Self::Tuple(items) if items.len() == 1 => format!("({},)", list(items)),
            Self::Tuple(items) => format!("({})", list(items)),
            Self::List(items) => format!("[{}]", list(items)),
            Self::Set(items) if items.is_empty() => "set()".into(),
            Self::Set(items) => format!("{{{}}}", list(items)),
            Self::Dict(pairs) => {
                let pairs: Vec<_> = pairs.iter().map(|(k, v)| format!("{}: {}", k.repr(), v.repr())).collect();
                format!("{{{}}}", pairs.join(", "))
            }
            Self::Ellipsis => "Ellipsis".into(),
        }
    }

    /// Whether a set can hold it.
    #[must_use]
    pub fn is_hashable(&self) -> bool {
        match self {
            Self::List(_) | Self::Set(_) | Self::Dict(_) => false,
            Self::Tuple(items) => items.iter().all(Self::is_hashable),
            _ => true,
        }
    }

    /// `a == b`, numbers by value.
    #[must_use]
    pub fn equals(&self, other: &Self) -> bool {
        let number = |x: &Self| match x {
            Self::Bool(b) => Some(f64::from(u8::from(*b))),
            Self::Int(i) => i.to_f64(),
            Self::Float(f) => Some(*f),
            _ => None,
        };
        match (number(self), number(other)) {
            (Some(a), Some(b)) => a == b,
            _ => self == other,
        }
    }
}

impl From<&serde_json::Value> for Object {
    fn from(value: &serde_json::Value) -> Self {
        use serde_json::Value;
        match value {
            Value::Null => Self::None,
            Value::Bool(b) => Self::Bool(*b),
            Value::Number(n) => match (n.as_i128(), n.as_f64()) {
                (Some(i), _) => Self::Int(i.into()),
                (None, f) => Self::Float(f.unwrap_or_default()),
            },
            Value::String(s) => {
                match s.strip_prefix(CONSTANT).and_then(|name| name.parse().ok()).filter(|n: &f64| !n.is_finite()) {
                    Some(number) => Self::Float(number),
                    None => Self::Str(s.clone()),
                }
            }
            Value::Array(items) => Self::List(items.iter().map(Self::from).collect()),
            Value::Object(map) => Self::Dict(map.iter().map(|(k, v)| (Self::Str(k.clone()), Self::from(v))).collect()),
        }
    }
}

fn complex_repr(re: f64, im: f64) -> String {
    let short = |f: f64| {
        let text = float_repr(f);
        text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
    };
    if re == 0.0 && re.is_sign_positive() {
        return format!("{}j", short(im));
    }
    let sign = if im.is_sign_negative() { "" } else { "+" };
    format!("({}{sign}{}j)", short(re), short(im))
}

fn bytes_repr(bytes: &[u8]) -> String {
    let quote = if bytes.contains(&b'\'') && !bytes.contains(&b'"') { '"' } else { '\'' };
    let mut out = format!("b{quote}");
    for byte in bytes {
        match byte {
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            b if *b as char == quote => out.extend(['\\', quote]),
            b' '..=b'~' => out.push(*byte as char),
            b => out.push_str(&format!("\\x{b:02x}")),
        }
    }
    out.push(quote);
    out
}

impl Object {
    /// The JSON value that is nearest.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        use serde_json::Value;
        match self {
            Self::None => Value::Null,
            Self::Bool(b) => Value::Bool(*b),
            Self::Str(s) => Value::String(s.clone()),
            Self::Tuple(items) | Self::List(items) => items.iter().map(Self::json).collect(),
            Self::Dict(pairs) => Value::Object(pairs.iter().map(|(k, v)| (k.text(), v.json())).collect()),
            Self::Int(i) => i.to_i64().map_or_else(|| Value::String(i.to_string()), Value::from),
            Self::Float(f) => Value::from(*f),
            other => Value::String(other.repr()),
        }
    }
}

/// `str.isprintable` of a character.
fn is_printable(c: char) -> bool {
    static OTHERS: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\A[\p{C}\p{Z}]\z").ok());
    if c.is_ascii() {
        return (' '..='~').contains(&c);
    }
    !OTHERS.as_ref().is_some_and(|others| others.is_match(c.encode_utf8(&mut [0; 4])))
}

/// `str.strip` of a text.
#[must_use]
pub fn strip(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c))
}

/// `repr` of a text.
#[must_use]
pub fn str_repr(s: &str) -> String {
    let mut out = String::with_capacity(s.len() + 2);
    write_repr(s, &mut out);
    out
}

/// Appends the `repr` of a text.
pub fn write_repr(s: &str, out: &mut String) {
    let quote = if s.contains('\'') && !s.contains('"') { '"' } else { '\'' };
    out.push(quote);
    if s.bytes().all(|b| (b' '..0x7f).contains(&b) && b != b'\\' && b != quote as u8) {
        out.push_str(s);
    } else {
        for c in s.chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                c if c == quote => out.extend(['\\', c]),
                c if is_printable(c) => out.push(c),
                c if c <= '\u{ff}' => out.push_str(&format!("\\x{:02x}", c as u32)),
                c if c <= '\u{ffff}' => out.push_str(&format!("\\u{:04x}", c as u32)),
                c => out.push_str(&format!("\\U{:08x}", c as u32)),
            }
        }
    }
    out.push(quote);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_shown_as_python_shows_them() {
        for (text, expected) in [
            ("it's", "\"it's\""),
            ("it's \"x\"", "'it\\'s \"x\"'"),
            ("a\u{a0}b", "'a\\xa0b'"),
            ("\u{200b}\u{3000}", "'\\u200b\\u3000'"),
            ("\u{e0001}", "'\\U000e0001'"),
            ("é漢\u{1f600}", "'é漢\u{1f600}'"),
            ("\u{7f}\n", "'\\x7f\\n'"),
        ] {
            assert_eq!(str_repr(text), expected);
        }
    }
}
