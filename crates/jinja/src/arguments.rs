//! What a filter, function or method was given: Python's positional and named arguments.

use crate::python::{fault, type_name};
use minijinja::Error;
use minijinja::value::{Value, ValueKind};

/// The arguments of one call.
pub(crate) struct Given<'v> {
    call: &'v str,
    positional: &'v [Value],
    named: Option<&'v Value>,
    /// Names that were asked for.
    known: Vec<&'static str>,
}

impl<'v> Given<'v> {
    /// Minijinja puts named arguments last, as one value.
    pub(crate) fn new(call: &'v str, values: &'v [Value]) -> Self {
        match values.split_last() {
            Some((last, rest)) if last.is_kwargs() => {
                Self { call, positional: rest, named: Some(last), known: Vec::new() }
            }
            _ => Self { call, positional: values, named: None, known: Vec::new() },
        }
    }
    /// Positional arguments.
    pub(crate) fn rest(&self) -> &'v [Value] {
        self.positional
    }
    /// Named arguments, as a dict.
    pub(crate) fn named(&self) -> Option<&'v Value> {
        self.named
    }
    /// The argument at a place or of a name; none and undefined count as given.
    pub(crate) fn get(&mut self, place: usize, name: &'static str) -> Option<Value> {
        self.known.push(name);
        let named = || self.named?.as_object()?.get_value(&Value::from(name));
        self.positional.get(place).cloned().or_else(named)
    }
    /// An argument that must be there.
    pub(crate) fn need(&mut self, place: usize, name: &'static str) -> Result<Value, Error> {
        self.get(place, name).ok_or_else(|| fault(format!("{}() misses its argument '{name}'", self.call)))
    }
    /// A text that must be there.
    pub(crate) fn text(&mut self, place: usize, name: &'static str) -> Result<String, Error> {
        let value = self.need(place, name)?;
        self.as_text(&value)
    }
    /// A text, unless it is none.
    pub(crate) fn optional_text(&mut self, place: usize, name: &'static str) -> Result<Option<String>, Error> {
        match self.get(place, name) {
            Some(value) if !value.is_none() => self.as_text(&value).map(Some),
            _ => Ok(None),
        }
    }
    fn as_text(&self, value: &Value) -> Result<String, Error> {
        value.as_str().map(str::to_owned).ok_or_else(|| self.unfit(value, "a string"))
    }
    /// A whole number, unless it is none.
    pub(crate) fn integer(&mut self, place: usize, name: &'static str) -> Result<Option<i64>, Error> {
        match self.get(place, name) {
            None => Ok(None),
            Some(value) if value.is_none() => Ok(None),
            Some(value) if value.kind() == ValueKind::Bool => Ok(Some(value.is_true().into())),
            Some(value) => match value.as_i64().filter(|_| value.is_integer()) {
                Some(n) => Ok(Some(n)),
                None => Err(self.unfit(&value, "an integer")),
            },
        }
    }
    /// Whether an argument is true.
    pub(crate) fn flag(&mut self, place: usize, name: &'static str) -> bool {
        self.get(place, name).is_some_and(|value| value.is_true())
    }
    /// Fails on arguments that were not asked for.
    pub(crate) fn end(self) -> Result<(), Error> {
        if self.positional.len() > self.known.len() {
            let (taken, given) = (self.known.len(), self.positional.len());
            return Err(fault(format!("{}() takes {taken} arguments but {given} were given", self.call)));
        }
        for key in self.named.and_then(|named| named.try_iter().ok()).into_iter().flatten() {
            if !self.known.iter().any(|known| key.as_str() == Some(known)) {
                return Err(fault(format!("{}() got an unexpected keyword argument '{key}'", self.call)));
            }
        }
        Ok(())
    }
    fn unfit(&self, value: &Value, wanted: &str) -> Error {
        fault(format!("{}() expects {wanted}, got {}", self.call, type_name(value)))
    }
}
