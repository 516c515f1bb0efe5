//! Python's values: read from literals, shown as `str` and `repr` show them, `int()` and `float()` of texts.
//!
//! Benchmarks that were written in Python judge by what Python prints and parses (CPython 3.11). Texts are parsed, never
//! evaluated.

use num_bigint::BigInt;
use num_traits::ToPrimitive;
use regex::Regex;
use rolegraft_spans::python_json::float_repr;
use rustpython_parser::ast::{Constant, Expr, Operator, UnaryOp};
use rustpython_parser::{Mode, ast};
use std::sync::LazyLock;

/// Longest word that is parsed, in bytes; longer ones are texts.
const MAX_WORD: usize = 1 << 16;
/// Brackets that may nest in a word that is parsed.
const MAX_NESTING: usize = 100;

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

/// `repr` of a text.
#[must_use]
pub fn str_repr(s: &str) -> String {
    let quote = if s.contains('\'') && !s.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
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
    out.push(quote);
    out
}

/// A literal holds what no set or dictionary can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unhashable;

/// A word as python-fire 0.5.0 reads it: a literal in which bare names are texts, or the text itself.
///
/// # Errors
/// If reading raises what fire does not catch.
pub fn read(word: &str) -> Result<Object, Unhashable> {
    let text = || Ok(Object::Str(word.to_owned()));
    // CPython minds an indent that the parser here does not.
    if word.starts_with([' ', '\t', '\u{c}']) || word.len() > MAX_WORD || nesting(word) > MAX_NESTING {
        return text();
    }
    let Ok(ast::Mod::Expression(tree)) = rustpython_parser::parse(word, Mode::Expression, "") else {
        return text();
    };
    if matches!(*tree.body, Expr::BinOp(_)) {
        return text();
    }
    match literal(&tree.body, Beyond::Names) {
        Ok(object) => Ok(object),
        Err(NotLiteral::Malformed) => text(),
        Err(NotLiteral::Unhashable) => Err(Unhashable),
    }
}

/// A text that is a Python literal and nothing else, as `ast.literal_eval` reads one.
#[must_use]
pub fn exact(text: &str) -> Option<Object> {
    parsed(text, Beyond::Nothing)
}

/// A text that is a literal in which numbers may be added, subtracted, multiplied and divided: what `eval` makes of an answer that
/// does no more than compute.
#[must_use]
pub fn computed(text: &str) -> Option<Object> {
    parsed(text, Beyond::Sums)
}

fn parsed(text: &str, beyond: Beyond) -> Option<Object> {
    if text.len() > MAX_WORD || nesting(text) > MAX_NESTING {
        return None;
    }
    match rustpython_parser::parse(text, Mode::Expression, "") {
        Ok(ast::Mod::Expression(tree)) => literal(&tree.body, beyond).ok(),
        _ => None,
    }
}

/// What is read beside literals.
#[derive(Clone, Copy, PartialEq)]
enum Beyond {
    Nothing,
    /// Bare names, as texts.
    Names,
    /// Arithmetic on numbers.
    Sums,
}

fn nesting(word: &str) -> usize {
    let (mut open, mut most) = (0usize, 0);
    for byte in word.bytes() {
        match byte {
            b'(' | b'[' | b'{' => open += 1,
            b')' | b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        most = most.max(open);
    }
    most.max(word.bytes().filter(|b| matches!(b, b'-' | b'+' | b'~')).count() / 10)
}

enum NotLiteral {
    Malformed,
    Unhashable,
}

/// `ast.literal_eval`, and what is read beyond it.
fn literal(tree: &Expr, beyond: Beyond) -> Result<Object, NotLiteral> {
    let all = |items: &[Expr]| items.iter().map(|item| literal(item, beyond)).collect::<Result<Vec<_>, _>>();
    match tree {
        Expr::Constant(constant) => Ok(of_constant(&constant.value)),
        Expr::Name(name) if beyond == Beyond::Names => Ok(Object::Str(name.id.to_string())),
        Expr::Tuple(tuple) => Ok(Object::Tuple(all(&tuple.elts)?)),
        Expr::List(list) => Ok(Object::List(all(&list.elts)?)),
        Expr::Set(set) => {
            let mut items: Vec<Object> = Vec::new();
            for item in all(&set.elts)? {
                if !item.is_hashable() {
                    return Err(NotLiteral::Unhashable);
                }
                if !items.iter().any(|known| known.equals(&item)) {
                    items.push(item);
                }
            }
            Ok(Object::Set(items))
        }
        Expr::Dict(dict) => {
            let mut pairs: Vec<(Object, Object)> = Vec::new();
            let mut keys = Vec::new();
            for key in &dict.keys {
                keys.push(literal(key.as_ref().ok_or(NotLiteral::Malformed)?, beyond)?);
            }
            for (key, value) in keys.into_iter().zip(all(&dict.values)?) {
                if !key.is_hashable() {
                    return Err(NotLiteral::Unhashable);
                }
                match pairs.iter_mut().find(|(known, _)| known.equals(&key)) {
                    Some(pair) => pair.1 = value,
                    None => pairs.push((key, value)),
                }
            }
            Ok(Object::Dict(pairs))
        }
        Expr::BinOp(sum) if beyond == Beyond::Sums => {
            arithmetic(&literal(&sum.left, beyond)?, sum.op, &literal(&sum.right, beyond)?)
        }
        Expr::BinOp(sum) => {
            let (left, right) = (signed(&sum.left)?, number(&sum.right)?);
            let real = match &left {
                Object::Int(i) => i.to_f64(),
                Object::Float(f) => Some(*f),
                _ => None,
            };
            match (real, sum.op, right) {
                (Some(a), Operator::Add, Object::Complex(re, im)) => Ok(Object::Complex(a + re, im)),
                (Some(a), Operator::Sub, Object::Complex(re, im)) => Ok(Object::Complex(a - re, -im)),
                _ => Err(NotLiteral::Malformed),
            }
        }
        Expr::UnaryOp(_) => signed(tree),
        _ => Err(NotLiteral::Malformed),
    }
}

fn arithmetic(left: &Object, op: Operator, right: &Object) -> Result<Object, NotLiteral> {
    if let (Object::Int(a), Object::Int(b)) = (left, right) {
        match op {
            Operator::Add => return Ok(Object::Int(a + b)),
            Operator::Sub => return Ok(Object::Int(a - b)),
            Operator::Mult => return Ok(Object::Int(a * b)),
            _ => {}
        }
    }
    let real = |object: &Object| match object {
        Object::Int(i) => i.to_f64(),
        Object::Float(f) => Some(*f),
        _ => None,
    };
    match (real(left), op, real(right)) {
        (Some(a), Operator::Add, Some(b)) => Ok(Object::Float(a + b)),
        (Some(a), Operator::Sub, Some(b)) => Ok(Object::Float(a - b)),
        (Some(a), Operator::Mult, Some(b)) => Ok(Object::Float(a * b)),
        (Some(a), Operator::Div, Some(b)) if b != 0.0 => Ok(Object::Float(a / b)),
        _ => Err(NotLiteral::Malformed),
    }
}

fn signed(tree: &Expr) -> Result<Object, NotLiteral> {
    let Expr::UnaryOp(unary) = tree else { return number(tree) };
    let operand = number(&unary.operand)?;
    match unary.op {
        UnaryOp::UAdd => Ok(operand),
        UnaryOp::USub => Ok(match operand {
            Object::Int(i) => Object::Int(-i),
            Object::Float(f) => Object::Float(-f),
            Object::Complex(re, im) => Object::Complex(-re, -im),
            other => other,
        }),
        _ => Err(NotLiteral::Malformed),
    }
}

fn number(tree: &Expr) -> Result<Object, NotLiteral> {
    match tree {
        Expr::Constant(constant) => match of_constant(&constant.value) {
            object @ (Object::Int(_) | Object::Float(_) | Object::Complex(..)) => Ok(object),
            _ => Err(NotLiteral::Malformed),
        },
        _ => Err(NotLiteral::Malformed),
    }
}

/// A constant of a parsed expression.
#[must_use]
pub fn of_constant(constant: &Constant) -> Object {
    match constant {
        Constant::None => Object::None,
        Constant::Bool(b) => Object::Bool(*b),
        Constant::Str(s) => Object::Str(s.clone()),
        Constant::Bytes(bytes) => Object::Bytes(bytes.clone()),
        Constant::Int(i) => Object::Int(i.clone()),
        Constant::Tuple(items) => Object::Tuple(items.iter().map(of_constant).collect()),
        Constant::Float(f) => Object::Float(*f),
        Constant::Complex { real, imag } => Object::Complex(*real, *imag),
        Constant::Ellipsis => Object::Ellipsis,
    }
}

/// Digits of any script as ASCII's, blanks at the ends gone, underscores between digits taken out; `None` where Python
/// refuses them.
fn plain(text: &str) -> Option<String> {
    let trimmed = text.trim_matches(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c));
    let digits: Vec<char> = trimmed.chars().map(|c| digit(c).unwrap_or(c)).collect();
    let between = |i: usize| {
        let is_digit = |at: Option<usize>| at.and_then(|at| digits.get(at)).is_some_and(char::is_ascii_digit);
        is_digit(i.checked_sub(1)) && is_digit(Some(i + 1))
    };
    if digits.iter().enumerate().any(|(i, c)| *c == '_' && !between(i)) {
        return None;
    }
    Some(digits.into_iter().filter(|c| *c != '_').collect())
}

/// A decimal digit of another script as ASCII's.
fn digit(c: char) -> Option<char> {
    static DIGIT: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\A\p{Nd}\z").ok());
    let is_digit = |c: char| DIGIT.as_ref().is_some_and(|d| d.is_match(c.encode_utf8(&mut [0; 4])));
    if c.is_ascii() || !is_digit(c) {
        return None;
    }
    // Unicode keeps the ten digits of a script together, zero first; two sets may stand side by side.
    let run = (1..=50u32).take_while(|n| (c as u32).checked_sub(*n).and_then(char::from_u32).is_some_and(is_digit));
    char::from_digit(run.count() as u32 % 10, 10)
}

/// `int(text)`.
#[must_use]
pub fn int(text: &str) -> Option<BigInt> {
    let text = plain(text)?;
    let bare = text.strip_prefix(['+', '-']).unwrap_or(&text);
    (!bare.is_empty() && bare.len() <= 4300 && bare.bytes().all(|b| b.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

/// `float(text)`.
#[must_use]
pub fn float(text: &str) -> Option<f64> {
    let text = plain(text)?;
    let bare = text.strip_prefix(['+', '-']).unwrap_or(&text).to_ascii_lowercase();
    // What Rust takes and Python does not, and the other way round: nothing but these.
    let word = bare.starts_with(|c: char| c.is_ascii_alphabetic());
    if (word && !["nan", "inf", "infinity"].contains(&bare.as_str())) || bare.starts_with(['+', '-']) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_python_reads_them() {
        for (text, expected) in [
            (" 12 ", Some(12.0)),
            ("1_2", Some(12.0)),
            ("1__2", None),
            ("_1", None),
            ("1_", None),
            ("1_.5", None),
            ("inf", Some(f64::INFINITY)),
            ("-Infinity", Some(f64::NEG_INFINITY)),
            ("infinit", None),
            ("1e3", Some(1000.0)),
            ("1e", None),
            (".5", Some(0.5)),
            ("5.", Some(5.0)),
            (".", None),
            ("", None),
            ("+-1", None),
            ("1,000", None),
            ("\u{661}\u{662}", Some(12.0)),
            ("\u{1d7d8}\u{1d7ce}", Some(0.0)),
            ("0x10", None),
        ] {
            assert_eq!(float(text), expected, "{text}");
        }
        assert!(float("nan").is_some_and(f64::is_nan));
        for (text, expected) in [
            (" 5\n", Some(5)),
            ("+5", Some(5)),
            ("-1_0", Some(-10)),
            ("5.0", None),
            ("\u{665}", Some(5)),
            ("", None),
            ("- 1", None),
        ] {
            assert_eq!(int(text), expected.map(BigInt::from), "{text}");
        }
    }

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
