//! Python as far as upstream's tools use it: operators on JSON values, what they raise and in which words, and `repr`.

pub(crate) use rolegraft_python::str_repr;
use rolegraft_python::write_repr;
use rolegraft_spans::python_json::{float_repr, number_repr};
use serde_json::{Map, Number, Value};

/// An exception's message: upstream shows `Error: {e}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Raised(pub(crate) String);

/// What Python gives back, or raises.
pub(crate) type Result<T> = std::result::Result<T, Raised>;

/// A tool's signature, for the words of a call that does not fit it.
pub(crate) struct Signature<'s> {
    /// `retail` or `airline`.
    pub(crate) domain: &'s str,
    /// The tool.
    pub(crate) name: &'s str,
    /// Upstream's class of the tool.
    pub(crate) class: &'s str,
    /// Its parameters, all of them required.
    pub(crate) parameters: &'s [&'s str],
}

/// Arguments of a call, checked against a signature as Python checks them.
pub(crate) struct Arguments<'a> {
    map: &'a Map<String, Value>,
}

impl<'a> Arguments<'a> {
    pub(crate) fn bind(signature: &Signature<'_>, map: &'a Map<String, Value>) -> Result<Self> {
        let Signature { domain, name, class, parameters } = signature;
        // Upstream passes the database itself as `data`.
        if map.contains_key("data") {
            return Err(Raised(format!(
                "tau_bench.envs.{domain}.tools.{name}.{class}.invoke() got multiple values for keyword argument 'data'"
            )));
        }
        if let Some(unexpected) = map.keys().find(|k| !parameters.contains(&k.as_str())) {
            return Err(Raised(format!("{class}.invoke() got an unexpected keyword argument '{unexpected}'")));
        }
        let missing: Vec<String> =
            parameters.iter().filter(|n| !map.contains_key(**n)).map(|n| format!("'{n}'")).collect();
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

/// A value as a dictionary's key: its text, or `None` for what is hashable but equals no text.
pub(crate) fn key(value: &Value) -> Result<Option<&str>> {
    match value {
        Value::String(s) => Ok(Some(s)),
        Value::Array(_) | Value::Object(_) => Err(Raised(format!("unhashable type: '{}'", type_name(value)))),
        _ => Ok(None),
    }
}

/// What `dictionary[key]` raises where there is none.
pub(crate) fn no_key(key: &Value) -> Raised {
    Raised(repr(key))
}

/// `value[name]`.
pub(crate) fn item<'v>(value: &'v Value, name: &str) -> Result<&'v Value> {
    match value {
        Value::Object(map) => map.get(name).ok_or_else(|| Raised(str_repr(name))),
        other => Err(not_a_dictionary(other)),
    }
}

fn not_a_dictionary(value: &Value) -> Raised {
    match value {
        Value::Array(_) => Raised("list indices must be integers or slices, not str".into()),
        Value::String(_) => Raised("string indices must be integers, not 'str'".into()),
        other => Raised(format!("'{}' object is not subscriptable", type_name(other))),
    }
}

/// `value[name]`, to change it.
pub(crate) fn item_mut<'v>(value: &'v mut Value, name: &str) -> Result<&'v mut Value> {
    match value {
        Value::Object(map) => map.get_mut(name).ok_or_else(|| Raised(str_repr(name))),
        other => Err(not_a_dictionary(other)),
    }
}

/// `dictionary[key]` for a dictionary of the database and a key that came from outside.
pub(crate) fn lookup<'v>(dictionary: &'v Value, by: &Value) -> Result<&'v Value> {
    key(by)?.and_then(|name| dictionary.get(name)).ok_or_else(|| no_key(by))
}

/// `key in dictionary`, likewise.
pub(crate) fn contains(dictionary: &Value, by: &Value) -> Result<bool> {
    Ok(key(by)?.is_some_and(|name| dictionary.get(name).is_some()))
}

/// `for x in value`.
pub(crate) fn iterate(value: &Value) -> Result<Vec<Value>> {
    Ok(match value {
        Value::Array(items) => items.clone(),
        Value::String(s) => s.chars().map(|c| Value::String(c.into())).collect(),
        Value::Object(map) => map.keys().map(|k| Value::String(k.clone())).collect(),
        other => return Err(Raised(format!("'{}' object is not iterable", type_name(other)))),
    })
}

/// `len(value)`.
pub(crate) fn len(value: &Value) -> Result<usize> {
    Ok(match value {
        Value::Array(items) => items.len(),
        Value::String(s) => s.chars().count(),
        Value::Object(map) => map.len(),
        other => return Err(Raised(format!("object of type '{}' has no len()", type_name(other)))),
    })
}

/// `value.append(…)` or `value.extend(…)`.
pub(crate) fn extend(list: &mut Value, method: &str, more: impl IntoIterator<Item = Value>) -> Result<()> {
    let name = type_name(list);
    let items = list.as_array_mut().ok_or_else(|| Raised(format!("'{name}' object has no attribute '{method}'")))?;
    items.extend(more);
    Ok(())
}

/// `left.lower() == right.lower()`.
pub(crate) fn same_lowered(left: &Value, right: &Value) -> Result<bool> {
    let text = |value: &Value| Raised(format!("'{}' object has no attribute 'lower'", type_name(value)));
    let a = left.as_str().ok_or_else(|| text(left))?;
    let b = right.as_str().ok_or_else(|| text(right))?;
    Ok(if a.is_ascii() && b.is_ascii() { a.eq_ignore_ascii_case(b) } else { a.to_lowercase() == b.to_lowercase() })
}

/// A Python number: ints stay ints as long as 128 bits hold them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Num {
    Int(i128),
    Float(f64),
}

impl Num {
    pub(crate) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Number(n) => n.as_i128().map(Self::Int).or_else(|| n.as_f64().map(Self::Float)),
            Value::Bool(b) => Some(Self::Int(i128::from(*b))),
            _ => None,
        }
    }
    fn kind(self) -> &'static str {
        match self {
            Self::Int(_) => "int",
            Self::Float(_) => "float",
        }
    }
    pub(crate) fn float(self) -> f64 {
        match self {
            Self::Int(i) => i as f64,
            Self::Float(f) => f,
        }
    }
    fn both(self, other: Self, int: fn(i128, i128) -> Option<i128>, float: fn(f64, f64) -> f64) -> Self {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => int(a, b).map_or(Self::Float(float(a as f64, b as f64)), Self::Int),
            _ => Self::Float(float(self.float(), other.float())),
        }
    }
    pub(crate) fn add(self, other: Self) -> Self {
        self.both(other, i128::checked_add, |a, b| a + b)
    }
    pub(crate) fn sub(self, other: Self) -> Self {
        self.both(other, i128::checked_sub, |a, b| a - b)
    }
    pub(crate) fn times(self, count: usize) -> Self {
        self.both(Self::Int(count as i128), i128::checked_mul, |a, b| a * b)
    }
    /// `self OPERATOR= right`, where `right` need not be a number.
    pub(crate) fn and(self, operator: &str, right: &Value) -> Result<Self> {
        let other = Self::of(right).ok_or_else(|| unsupported(self.kind(), operator, type_name(right)))?;
        Ok(if operator.starts_with('-') { self.sub(other) } else { self.add(other) })
    }
    pub(crate) fn negative(self) -> Self {
        match self {
            Self::Int(i) => i.checked_neg().map_or(Self::Float(-(i as f64)), Self::Int),
            Self::Float(f) => Self::Float(-f),
        }
    }
    pub(crate) fn round2(self) -> Self {
        match self {
            Self::Float(f) => Self::Float(round2(f)),
            int => int,
        }
    }
    pub(crate) fn value(self) -> Value {
        match self {
            Self::Int(i) => {
                Number::from_i128(i).or_else(|| Number::from_f64(i as f64)).map_or(Value::Null, Value::Number)
            }
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

/// `round(x, 2)`: correctly rounded, ties to even on the exact binary value.
pub(crate) fn round2(f: f64) -> f64 {
    format!("{f:.2}").parse().unwrap_or(f)
}

fn unsupported(left: &str, operator: &str, right: &str) -> Raised {
    Raised(format!("unsupported operand type(s) for {operator}: '{left}' and '{right}'"))
}

/// `left - right`.
pub(crate) fn subtract(left: &Value, right: &Value) -> Result<Num> {
    match (Num::of(left), Num::of(right)) {
        (Some(a), Some(b)) => Ok(a.sub(b)),
        _ => Err(unsupported(type_name(left), "-", type_name(right))),
    }
}

/// `left *= count` where `left` is a price.
pub(crate) fn multiply(left: &Value, count: usize) -> Result<Num> {
    Num::of(left).map(|n| n.times(count)).ok_or_else(|| unsupported(type_name(left), "*", "int"))
}

/// `left < right`.
pub(crate) fn less(left: &Value, right: &Value) -> Result<bool> {
    match (Num::of(left), Num::of(right), left, right) {
        (Some(a), Some(b), ..) => Ok(a.float() < b.float()),
        (.., Value::String(a), Value::String(b)) => Ok(a < b),
        _ => {
            let (left, right) = (type_name(left), type_name(right));
            Err(Raised(format!("'<' not supported between instances of '{left}' and '{right}'")))
        }
    }
}

/// `left == right`: numbers compare by value, whatever their type.
pub(crate) fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|w| equal(v, w)))
        }
        _ => match (Num::of(left), Num::of(right)) {
            (Some(a), Some(b)) => a.float() == b.float(),
            _ => left == right,
        },
    }
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

/// Adds `str(to_hashable(value))`: dictionaries as sorted tuples of pairs, lists as tuples.
pub(crate) fn hashable_repr(value: &Value, out: &mut String) {
    let tuple = |out: &mut String, len: usize| out.push_str(if len == 1 { ",)" } else { ")" });
    match value {
        Value::Object(map) => {
            let mut pairs: Vec<_> = map.iter().collect();
            pairs.sort_by(|a, b| a.0.cmp(b.0));
            out.push('(');
            for (i, (name, value)) in pairs.iter().enumerate() {
                out.push_str(if i > 0 { ", (" } else { "(" });
                write_repr(name, out);
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
        Value::String(s) => write_repr(s, out),
        scalar => out.push_str(&repr(scalar)),
    }
}
