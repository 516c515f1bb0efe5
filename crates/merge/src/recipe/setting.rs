//! Parameter settings: scalars, gradients over layers, filters by tensor name, and their scopes.

use super::node::{Kind, Node};
use crate::method::{Fallback, Parameter, Value};

/// What a recipe says of one parameter in one place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Setting {
    pub(crate) name: String,
    pub(crate) line: usize,
    rules: Vec<(Option<String>, Ramp)>,
}

/// A value, or several along the layers.
#[derive(Debug, Clone, PartialEq)]
struct Ramp(Vec<Value>);

/// The parameters of one scope.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Settings(pub(crate) Vec<Setting>);

impl Settings {
    pub(crate) fn read(node: Option<&Node>) -> Result<Self, String> {
        let Some(node) = node else { return Ok(Self::default()) };
        let Kind::Map(entries) = &node.kind else {
            return Err(format!("line {}: `parameters` must be a table, not {}", node.line, node.what()));
        };
        let mut settings = Vec::new();
        for entry in entries {
            let rules = rules(&entry.value).map_err(|why| format!("line {}: `{}` {why}", entry.line, entry.key))?;
            settings.push(Setting { name: entry.key.clone(), line: entry.line, rules });
        }
        Ok(Self(settings))
    }

    fn find(&self, name: &str) -> Option<&Setting> {
        self.0.iter().find(|s| s.name == name)
    }
}

fn rules(node: &Node) -> Result<Vec<(Option<String>, Ramp)>, String> {
    match &node.kind {
        Kind::Map(_) => Ok(vec![condition(node)?]),
        Kind::List(items) if items.iter().any(|i| matches!(i.kind, Kind::Map(_))) => {
            items.iter().map(condition).collect()
        }
        _ => Ok(vec![(None, ramp(node)?)]),
    }
}

fn condition(node: &Node) -> Result<(Option<String>, Ramp), String> {
    let value = node.get("value").ok_or("needs `value` (and perhaps `filter`) in each of its entries")?;
    let filter = match node.get("filter").map(|f| &f.kind) {
        None => None,
        Some(Kind::Text(t)) if t == "*" => None,
        Some(Kind::Text(t)) => Some(t.clone()),
        Some(_) => return Err("has a `filter` that is not a text".into()),
    };
    Ok((filter, ramp(value)?))
}

fn ramp(node: &Node) -> Result<Ramp, String> {
    let scalar = |node: &Node| match &node.kind {
        Kind::Bool(b) => Ok(Value::Bool(*b)),
        Kind::Number(n) => Ok(Value::Number(*n)),
        Kind::Text(t) => Ok(Value::Text(t.clone())),
        _ => Err(format!("must be a number, a word, true or false, or a list of these, not {}", node.what())),
    };
    match &node.kind {
        Kind::List(items) => Ok(Ramp(items.iter().map(scalar).collect::<Result<_, _>>()?)),
        _ => Ok(Ramp(vec![scalar(node)?])),
    }
}

impl Setting {
    /// The value for a tensor at `t` in [0, 1] along its slice; none if no filter matches.
    fn evaluate(&self, parameter: &Parameter, tensor: &str, t: f64) -> Result<Option<Value>, String> {
        let matching =
            self.rules.iter().find(|(filter, _)| filter.as_ref().is_none_or(|f| tensor.contains(f.as_str())));
        let Some((_, Ramp(values))) = matching else { return Ok(None) };
        let values: Vec<Value> = values.iter().map(|v| self.typed(parameter, v)).collect::<Result<_, _>>()?;
        let last = match values.len() {
            0 => return Ok(None),
            n => n - 1,
        };
        let x = t * last as f64;
        let at = (x.floor() as usize).min(last);
        Ok(Some(match (&values[at], &values[(at + 1).min(last)]) {
            (Value::Number(a), Value::Number(b)) => {
                let share = x - at as f64;
                Value::Number((1.0 - share) * a + share * b)
            }
            (value, _) => value.clone(),
        }))
    }

    /// Numbers may be written as texts, and switches in YAML 1.1's words.
    fn typed(&self, parameter: &Parameter, value: &Value) -> Result<Value, String> {
        let number = |v: &Value| match v {
            Value::Number(n) => Some(*n),
            Value::Bool(b) => Some(f64::from(u8::from(*b))),
            Value::Text(t) => t.trim().parse().ok(),
        };
        let wrong = |what: &str| {
            let shown = match value {
                Value::Text(t) => format!("`{t}`"),
                Value::Number(n) => n.to_string(),
                Value::Bool(b) => b.to_string(),
            };
            Err(format!("line {}: `{}` must be {what}, not {shown}", self.line, self.name))
        };
        match parameter.default {
            Fallback::Bool(_) => match value {
                Value::Bool(_) => Ok(value.clone()),
                Value::Number(n) if *n == 0.0 || *n == 1.0 => Ok(Value::Bool(*n == 1.0)),
                Value::Text(t) => match t.to_ascii_lowercase().as_str() {
                    "true" | "yes" | "on" => Ok(Value::Bool(true)),
                    "false" | "no" | "off" => Ok(Value::Bool(false)),
                    // Our own extension; the method says which words it knows.
                    _ if self.name == "rescale" => Ok(value.clone()),
                    _ => wrong("true or false"),
                },
                Value::Number(_) => wrong("true or false"),
            },
            _ => match number(value) {
                Some(n) if n.is_finite() => Ok(Value::Number(n)),
                _ => wrong("a finite number"),
            },
        }
    }
}

/// Looks a parameter up through scopes, nearest first, then its default.
pub(crate) fn resolve<'s>(
    parameter: &Parameter,
    scopes: impl IntoIterator<Item = &'s Settings>,
    tensor: &str,
    t: f64,
    preset: Option<f64>,
) -> Result<Option<Value>, String> {
    for scope in scopes {
        if let Some(setting) = scope.find(parameter.name)
            && let Some(value) = setting.evaluate(parameter, tensor, t)?
        {
            return Ok(Some(value));
        }
    }
    Ok(match (preset, parameter.default) {
        (Some(n), _) | (None, Fallback::Number(n)) => Some(Value::Number(n)),
        (None, Fallback::Bool(b)) => Some(Value::Bool(b)),
        (None, Fallback::Required | Fallback::Absent) => None,
    })
}
