//! What an operator says of itself, and what it does.

use crate::source::{Kernel, Source};
use crate::{Compute, MergeError};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;

/// How a method treats a base model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// It must be among the inputs.
    Required,
    /// It changes the formula if it is there.
    Optional,
    /// It is an input like any other.
    Ignored,
}

/// Whether a parameter has one value, or one per input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One value.
    Shared,
    /// One per input, the base included.
    Input,
    /// One per input other than the base.
    Expert,
}

/// A parameter's value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A number.
    Number(f64),
    /// A switch.
    Bool(bool),
    /// A word.
    Text(String),
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(n) => serializer.serialize_f64(*n),
            Self::Bool(b) => serializer.serialize_bool(*b),
            Self::Text(t) => serializer.serialize_str(t),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, a word, true or false")
            }
            fn visit_f64<E>(self, n: f64) -> Result<Value, E> {
                Ok(Value::Number(n))
            }
            fn visit_i64<E>(self, n: i64) -> Result<Value, E> {
                Ok(Value::Number(n as f64))
            }
            fn visit_u64<E>(self, n: u64) -> Result<Value, E> {
                Ok(Value::Number(n as f64))
            }
            fn visit_bool<E>(self, b: bool) -> Result<Value, E> {
                Ok(Value::Bool(b))
            }
            fn visit_str<E>(self, t: &str) -> Result<Value, E> {
                Ok(Value::Text(t.to_owned()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// What a parameter is when a recipe does not say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fallback {
    /// The recipe must say.
    Required,
    /// A number.
    Number(f64),
    /// A switch.
    Bool(bool),
    /// Nothing: the step is left out.
    Absent,
}

/// A parameter of a method.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parameter {
    /// Its name in recipes.
    pub name: &'static str,
    /// Whose it is.
    pub scope: Scope,
    /// Its value if the recipe is silent.
    pub default: Fallback,
}

impl Parameter {
    /// A parameter with one value.
    #[must_use]
    pub const fn shared(name: &'static str, default: Fallback) -> Self {
        Self { name, scope: Scope::Shared, default }
    }
    /// A parameter with one value per expert.
    #[must_use]
    pub const fn expert(name: &'static str, default: Fallback) -> Self {
        Self { name, scope: Scope::Expert, default }
    }
}

/// What a method needs and takes.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// Its name in recipes: mergekit's where mergekit has it.
    pub name: &'static str,
    /// What it does, in a line.
    pub summary: &'static str,
    /// Its treatment of a base.
    pub base: Base,
    /// Fewest and most inputs besides the base (besides none, where the base is ignored).
    pub experts: (usize, usize),
    /// Its parameters.
    pub parameters: &'static [Parameter],
}

/// A tensor's parameters, every one with a value.
#[derive(Debug, Clone, Default)]
pub struct Resolved {
    /// Shared ones.
    pub shared: BTreeMap<&'static str, Value>,
    /// Those of every input, in order.
    pub inputs: Vec<BTreeMap<&'static str, Value>>,
}

impl Resolved {
    /// A shared number; 0 if it is absent, which a spec's default rules out.
    #[must_use]
    pub fn number(&self, name: &str) -> f64 {
        number(self.shared.get(name)).unwrap_or(0.0)
    }
    /// A shared switch.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.shared.get(name), Some(Value::Bool(true)))
    }
    /// An input's number, if it has one.
    #[must_use]
    pub fn of(&self, input: usize, name: &str) -> Option<f64> {
        number(self.inputs.get(input)?.get(name))
    }
}

fn number(value: Option<&Value>) -> Option<f64> {
    match value {
        Some(Value::Number(n)) => Some(*n),
        _ => None,
    }
}

/// A merge method.
pub(crate) trait Method: Sync {
    fn spec(&self) -> &Spec;
    /// Gathers a tensor's statistics.
    fn prepare(&self, parameters: &Resolved, source: &Source<'_>) -> Result<Box<dyn Kernel>, MergeError>;
    /// Counts over one tensor that are wanted summed over the whole model before the first tensor is prepared.
    fn survey(&self, _parameters: &Resolved, _source: &Source<'_>) -> Result<Vec<u64>, MergeError> {
        Ok(Vec::new())
    }
    /// Whether [`Self::survey`] counts anything.
    fn surveys(&self) -> bool {
        false
    }
    /// Whether tensors are held whole at a precision, so that few may be worked on at a time.
    fn holds_tensors(&self, _: Compute) -> bool {
        false
    }
}
