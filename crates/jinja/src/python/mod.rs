//! Python's values as templates meet them: what they are, and how they are taken apart.

pub(crate) mod arithmetic;
pub(crate) mod order;
pub(crate) mod print;

use crate::bounds::{NESTED, pay, pay_list, pay_text};
use arithmetic::{Number, number};
use minijinja::value::{DynObject, Enumerator, Object, ObjectRepr, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};
use std::borrow::Cow;
use std::sync::Arc;

pub(crate) type Answer = Result<Value, Error>;

/// An error with a sentence of Python's kind.
pub(crate) fn fault(reason: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

/// Jinja's error for an undefined value that is used; the caller's line is added by minijinja.
pub(crate) fn undefined() -> Error {
    Error::from(ErrorKind::UndefinedError)
}

/// A list or tuple that a template made, and how deep it nests.
#[derive(Debug)]
pub(crate) struct Sequence {
    items: Vec<Value>,
    depth: usize,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    List,
    Tuple,
    /// What jinja's `map` and `select` give: always true, without length.
    Generator,
}

impl Object for Sequence {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.items.get(key.as_usize()?).cloned()
    }
    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.items.len())
    }
    fn is_true(self: &Arc<Self>) -> bool {
        self.kind == Kind::Generator || !self.items.is_empty()
    }
}

/// A dict that a template wrote.
#[derive(Debug)]
struct Dict {
    pairs: DynObject,
    depth: usize,
}

impl Object for Dict {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.pairs.get_value(key)
    }
    fn enumerate(self: &Arc<Self>) -> Enumerator {
        match self.pairs.try_iter_pairs() {
            Some(pairs) => Enumerator::KeyValueIter(pairs),
            None => Enumerator::Empty,
        }
    }
    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        self.pairs.enumerator_len()
    }
}

fn depth(value: &Value, limit: usize) -> usize {
    if let Some(sequence) = value.downcast_object_ref::<Sequence>() {
        return sequence.depth;
    }
    if let Some(dict) = value.downcast_object_ref::<Dict>() {
        return dict.depth;
    }
    match value.as_object() {
        Some(object) if limit > 0 => {
            let pairs = object.try_iter_pairs().into_iter().flatten();
            1 + pairs.map(|(_, value)| depth(&value, limit - 1)).max().unwrap_or(0)
        }
        Some(_) => NESTED + 1,
        None => 0,
    }
}

fn deeper(items: impl Iterator<Item = Value>) -> Result<usize, Error> {
    let depth = 1 + items.map(|item| depth(&item, NESTED)).max().unwrap_or(0);
    if depth > NESTED { Err(fault("the values nest too deep")) } else { Ok(depth) }
}

/// A list, tuple or generator.
pub(crate) fn sequence(items: Vec<Value>, kind: Kind) -> Answer {
    let depth = deeper(items.iter().cloned())?;
    Ok(Value::from_object(Sequence { items, depth, kind }))
}

/// A list.
pub(crate) fn list(items: Vec<Value>) -> Answer {
    sequence(items, Kind::List)
}

/// A dict from minijinja's.
pub(crate) fn dict(pairs: &Value) -> Answer {
    let Some(object) = pairs.as_object() else { return Err(fault("not a dict")) };
    let depth = deeper(object.try_iter_pairs().into_iter().flatten().map(|(_, value)| value))?;
    Ok(Value::from_object(Dict { pairs: object.clone(), depth }))
}

/// A namespace whose values do not nest too deep.
pub(crate) fn namespace(pairs: Value) -> Answer {
    deeper(pairs.as_object().and_then(DynObject::try_iter_pairs).into_iter().flatten().map(|(_, value)| value))?;
    minijinja::functions::namespace(Some(pairs))
}

/// Which sequence a value is.
pub(crate) fn sequence_kind(value: &Value) -> Option<Kind> {
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            Some(value.downcast_object_ref::<Sequence>().map_or(Kind::List, |sequence| sequence.kind))
        }
        _ => None,
    }
}

/// What a `for` runs over: elements, keys or characters.
pub(crate) fn elements(state: &State, value: &Value) -> Result<Vec<Value>, Error> {
    if let Some(text) = value.as_str() {
        pay_list(state, text.len())?;
        return Ok(text.chars().map(Value::from).collect());
    }
    match value.kind() {
        ValueKind::Undefined => Ok(Vec::new()),
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {
            pay_list(state, value.len().unwrap_or(0))?;
            Ok(value.try_iter()?.collect())
        }
        _ => Err(fault(format!("'{}' object is not iterable", type_name(value)))),
    }
}

/// Python's name of a value's type.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value.kind() {
        ValueKind::Undefined => "Undefined",
        ValueKind::None => "NoneType",
        ValueKind::Bool => "bool",
        ValueKind::Number if value.is_integer() => "int",
        ValueKind::Number => "float",
        ValueKind::String => "str",
        ValueKind::Seq | ValueKind::Iterable => match sequence_kind(value) {
            Some(Kind::Tuple) => "tuple",
            Some(Kind::Generator) => "generator",
            _ => "list",
        },
        ValueKind::Map => "dict",
        _ => "object",
    }
}

/// The place an index names, counted from the end where it is negative.
fn place(index: i128, length: usize) -> Option<usize> {
    usize::try_from(if index < 0 { index + length as i128 } else { index }).ok().filter(|at| *at < length)
}

/// `value[key]`; what is not there is undefined, and an undefined value has no parts.
pub(crate) fn item(state: &State, value: &Value, key: &Value) -> Answer {
    match value.kind() {
        ValueKind::Undefined => Err(undefined()),
        ValueKind::String => {
            let (Some(text), Some(Number::Integer(index))) = (value.as_str(), number(key)) else {
                return Ok(Value::UNDEFINED);
            };
            pay(state, text.len())?;
            let length = if text.is_ascii() { text.len() } else { text.chars().count() };
            let found = place(index, length).and_then(|at| text.chars().nth(at));
            Ok(found.map_or(Value::UNDEFINED, Value::from))
        }
        ValueKind::Seq | ValueKind::Iterable => {
            if sequence_kind(value) == Some(Kind::Generator) {
                return Ok(Value::UNDEFINED);
            }
            let Some(Number::Integer(index)) = number(key) else { return Ok(Value::UNDEFINED) };
            let Some(at) = place(index, value.len().unwrap_or(0)) else { return Ok(Value::UNDEFINED) };
            Ok(value.get_item_by_index(at).unwrap_or(Value::UNDEFINED))
        }
        _ => Ok(value.as_object().and_then(|object| object.get_value(key)).unwrap_or(Value::UNDEFINED)),
    }
}

/// `value[start:stop:step]`.
pub(crate) fn slice(state: &State, value: &Value, bounds: &[Value]) -> Answer {
    let bound = |index: usize| match bounds.get(index) {
        None => Ok(None),
        Some(value) if value.is_none() => Ok(None),
        Some(value) => match number(value) {
            Some(Number::Integer(n)) => Ok(Some(n)),
            _ => Err(fault("slice indices must be integers or None or have an __index__ method")),
        },
    };
    let (start, stop, step) = (bound(0)?, bound(1)?, bound(2)?.unwrap_or(1));
    if step == 0 {
        return Err(fault("slice step cannot be zero"));
    }
    let places = |length: usize| {
        let length = length as i128;
        let (low, high) = if step < 0 { (-1, length - 1) } else { (0, length) };
        let clip = |n: Option<i128>, default| match n {
            None => default,
            Some(n) if n < 0 => (n + length).max(low),
            Some(n) => n.min(high),
        };
        let (start, stop) =
            if step < 0 { (clip(start, high), clip(stop, low)) } else { (clip(start, low), clip(stop, high)) };
        let mut at = start;
        std::iter::from_fn(move || {
            let inside = if step < 0 { at > stop } else { at < stop };
            let place = inside.then_some(at as usize);
            at = at.saturating_add(step);
            place
        })
    };
    if let Some(text) = value.as_str() {
        pay_text(state, text.len())?;
        if step == 1 {
            let length = if text.is_ascii() { text.len() } else { text.chars().count() };
            let mut inside = places(length);
            let Some(first) = inside.next() else { return Ok(Value::from("")) };
            let count = 1 + inside.count();
            if length == text.len() {
                return Ok(Value::from(&text[first..first + count]));
            }
            return Ok(Value::from(text.chars().skip(first).take(count).collect::<String>()));
        }
        let chars: Vec<char> = text.chars().collect();
        return Ok(Value::from(places(chars.len()).map(|at| chars[at]).collect::<String>()));
    }
    match sequence_kind(value) {
        Some(kind) if kind != Kind::Generator => {
            let items = elements(state, value)?;
            sequence(places(items.len()).map(|at| items[at].clone()).collect(), kind)
        }
        _ if value.is_undefined() => Err(undefined()),
        _ => Err(fault(format!("'{}' object is not subscriptable", type_name(value)))),
    }
}

/// `len(value)`.
pub(crate) fn length(value: &Value) -> Result<usize, Error> {
    if let Some(text) = value.as_str() {
        return Ok(if text.is_ascii() { text.len() } else { text.chars().count() });
    }
    match value.kind() {
        ValueKind::Undefined => Ok(0),
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map if sequence_kind(value) != Some(Kind::Generator) => {
            value.len().ok_or_else(|| fault("object has no len()"))
        }
        _ => Err(fault(format!("object of type '{}' has no len()", type_name(value)))),
    }
}
