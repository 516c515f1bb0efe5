//! Literals, parsed and never evaluated.

use crate::Object;
use num_traits::ToPrimitive;
use rustpython_parser::ast::{Constant, Expr, Operator, UnaryOp};
use rustpython_parser::{Mode, ast};

/// Longest word that is parsed, in bytes; longer ones are texts.
const MAX_WORD: usize = 1 << 16;
/// Brackets that may nest in a word that is parsed.
const MAX_NESTING: usize = 100;

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
