//! The builtins that upstream's calculator knows: `min`, `max`, `sorted`, `sum`, `len` and `abs`.

use crate::arithmetic::{float, integer, items, less, operate, ordered};
use num_traits::Signed;
use rolegraft_python::Object;
use rustpython_parser::ast::{CmpOp, Operator};

/// Their names.
pub(crate) const NAMES: [&str; 6] = ["abs", "len", "max", "min", "sorted", "sum"];
/// What can stand in place of a value's own order.
pub(crate) type Key<'k> = &'k mut dyn FnMut(&Object) -> Result<Object, String>;

/// Calls one; `key` is what the keyword of that name asks for.
pub(crate) fn call(
    name: &str,
    arguments: &[Object],
    named: &[(String, Object)],
    key: Option<Key<'_>>,
) -> Result<Object, String> {
    let known: &[&str] = match name {
        "min" | "max" => &["default"],
        "sorted" => &["reverse"],
        "sum" => &["start"],
        _ => &[],
    };
    let keyed = matches!(name, "min" | "max" | "sorted");
    if known.is_empty() && (!named.is_empty() || key.is_some()) {
        return Err(format!("{name}() takes no keyword arguments"));
    }
    let owner = if name == "sorted" { "sort" } else { name };
    let unknown = named.iter().map(|(n, _)| n.as_str()).find(|n| !known.contains(n));
    if let Some(unknown) = unknown.or(key.is_some().then_some("key").filter(|_| !keyed)) {
        return Err(format!("'{unknown}' is an invalid keyword argument for {owner}()"));
    }
    let option = named.first().map(|(_, value)| value);
    match (name, arguments) {
        ("min" | "max", all) => extreme(name, all, option, key),
        ("sorted", [of]) => sorted(items(of)?, option, key).map(Object::List),
        ("sorted", all) => Err(format!("sorted expected 1 argument, got {}", all.len())),
        ("sum", [of]) => sum(of, option),
        ("sum", [of, start]) if option.is_none() => sum(of, Some(start)),
        ("sum", []) => Err("sum() takes at least 1 positional argument (0 given)".into()),
        ("sum", all) => Err(format!("sum() takes at most 2 arguments ({} given)", all.len() + named.len())),
        ("len", [of]) => length(of),
        ("abs", [x]) => magnitude(x),
        (_, all) => Err(format!("{name}() takes exactly one argument ({} given)", all.len())),
    }
}

fn extreme(name: &str, all: &[Object], default: Option<&Object>, key: Option<Key<'_>>) -> Result<Object, String> {
    let all = match all {
        [] => return Err(format!("{name} expected at least 1 argument, got 0")),
        [one] => items(one)?,
        _ if default.is_some() => {
            return Err(format!("Cannot specify a default for {name}() with multiple positional arguments"));
        }
        all => all.to_vec(),
    };
    let keys = keys_of(&all, key)?;
    let better = if name == "min" { CmpOp::Lt } else { CmpOp::Gt };
    let mut best = 0;
    for at in 1..all.len() {
        if ordered(&keys[at], better, &keys[best])? {
            best = at;
        }
    }
    let found = all.get(best).or(default).cloned();
    found.ok_or_else(|| format!("{name}() arg is an empty sequence"))
}

/// What values are ordered by.
fn keys_of(values: &[Object], key: Option<Key<'_>>) -> Result<Vec<Object>, String> {
    match key {
        Some(key) => values.iter().map(key).collect(),
        None => Ok(values.to_vec()),
    }
}

fn sorted(values: Vec<Object>, reverse: Option<&Object>, key: Option<Key<'_>>) -> Result<Vec<Object>, String> {
    let reverse = match reverse {
        None => false,
        Some(Object::None | Object::Str(_) | Object::Float(_) | Object::List(_) | Object::Tuple(_)) => {
            let kind = reverse.map_or("", Object::kind);
            return Err(format!("'{kind}' object cannot be interpreted as an integer"));
        }
        Some(given) => crate::arithmetic::truth(given),
    };
    let keys = keys_of(&values, key)?;
    let mut all: Vec<(Object, Object)> = keys.into_iter().zip(values).collect();
    // Python turns the list round before and after, so that equals keep their order.
    if reverse {
        all.reverse();
    }
    insert_in_order(&mut all)?;
    if reverse {
        all.reverse();
    }
    Ok(all.into_iter().map(|(_, value)| value).collect())
}

/// Python's binary insertion after the run that a list starts with: what cannot be compared is found in the same order.
fn insert_in_order(all: &mut [(Object, Object)]) -> Result<(), String> {
    let mut run = all.len().min(1);
    let falls = all.len() > 1 && less(&all[1].0, &all[0].0)?;
    if all.len() > 1 {
        run = 2;
        while run < all.len() && less(&all[run].0, &all[run - 1].0)? == falls {
            run += 1;
        }
        if falls {
            all[..run].reverse();
        }
    }
    for at in run..all.len() {
        let (mut low, mut high) = (0, at);
        while low < high {
            let middle = low + (high - low) / 2;
            if less(&all[at].0, &all[middle].0)? {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        all[low..=at].rotate_right(1);
    }
    Ok(())
}

fn sum(of: &Object, start: Option<&Object>) -> Result<Object, String> {
    let values = items(of)?;
    if let Some(Object::Str(_)) = start {
        return Err("sum() can't sum strings [use ''.join(seq) instead]".into());
    }
    let start = start.cloned().unwrap_or(Object::Int(0.into()));
    values.iter().try_fold(start, |sum, value| operate(&sum, Operator::Add, value))
}

fn length(of: &Object) -> Result<Object, String> {
    match of {
        Object::Bytes(bytes) => Ok(Object::Int(bytes.len().into())),
        of => match items(of) {
            Ok(items) => Ok(Object::Int(items.len().into())),
            Err(_) => Err(format!("object of type '{}' has no len()", of.kind())),
        },
    }
}

fn magnitude(x: &Object) -> Result<Object, String> {
    match x {
        Object::Complex(re, im) => Ok(Object::Float(re.hypot(*im))),
        Object::Float(f) => Ok(Object::Float(f.abs())),
        x => match integer(x) {
            Some(i) => Ok(Object::Int(i.abs())),
            None => float(x).map(Object::Float).map_err(|_| format!("bad operand type for abs(): '{}'", x.kind())),
        },
    }
}
