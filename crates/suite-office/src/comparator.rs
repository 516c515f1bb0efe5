//! The Python lambdas that a check may hold: `lambda x: x in ['a', 'b']` and its kin, evaluated over a whitelist.

use num_traits::ToPrimitive;
use rolegraft_python::{Object, of_constant};
use rustpython_parser::ast::{BoolOp, CmpOp, Expr, Mod, Operator, UnaryOp};
use rustpython_parser::{Mode, parse};

/// Operations before a comparator is given up.
const FUEL: usize = 10_000;

/// Whether a comparator holds for a text.
///
/// # Errors
/// What Python would raise, or what is not on the whitelist.
pub(crate) fn holds(comparator: &str, value: &str) -> Result<bool, String> {
    let Mod::Expression(tree) = parse(comparator, Mode::Expression, "").map_err(|e| e.to_string())? else {
        return Err("not an expression".into());
    };
    let Expr::Lambda(lambda) = *tree.body else { return Err("not a lambda".into()) };
    let argument = lambda.args.args.first().filter(|_| lambda.args.args.len() == 1);
    let argument = argument.ok_or("the lambda does not take one argument")?.def.arg.to_string();
    let mut scope = Scope { argument, value: Object::Str(value.to_owned()), fuel: FUEL };
    Ok(truth(&scope.evaluate(&lambda.body)?))
}

struct Scope {
    argument: String,
    value: Object,
    fuel: usize,
}

fn truth(object: &Object) -> bool {
    match object {
        Object::None => false,
        Object::Bool(b) => *b,
        Object::Int(i) => i.to_f64() != Some(0.0),
        Object::Float(f) => *f != 0.0,
        Object::Complex(re, im) => *re != 0.0 || *im != 0.0,
        Object::Str(s) => !s.is_empty(),
        Object::Bytes(b) => !b.is_empty(),
        Object::Tuple(items) | Object::List(items) | Object::Set(items) => !items.is_empty(),
        Object::Dict(pairs) => !pairs.is_empty(),
        Object::Ellipsis => true,
    }
}

fn number(object: &Object) -> Option<f64> {
    match object {
        Object::Bool(b) => Some(f64::from(u8::from(*b))),
        Object::Int(i) => i.to_f64(),
        Object::Float(f) => Some(*f),
        _ => None,
    }
}

impl Scope {
    fn evaluate(&mut self, tree: &Expr) -> Result<Object, String> {
        self.fuel = self.fuel.checked_sub(1).ok_or("the comparator is too long")?;
        match tree {
            Expr::Constant(constant) => Ok(of_constant(&constant.value)),
            Expr::Name(name) if name.id.as_str() == self.argument => Ok(self.value.clone()),
            Expr::List(list) => Ok(Object::List(self.all(&list.elts)?)),
            Expr::Tuple(tuple) => Ok(Object::Tuple(self.all(&tuple.elts)?)),
            Expr::Set(set) => Ok(Object::Set(self.all(&set.elts)?)),
            Expr::BoolOp(both) => {
                let mut last = Object::Bool(both.op == BoolOp::And);
                for value in &both.values {
                    last = self.evaluate(value)?;
                    if truth(&last) == (both.op == BoolOp::Or) {
                        break;
                    }
                }
                Ok(last)
            }
            Expr::UnaryOp(unary) => {
                let operand = self.evaluate(&unary.operand)?;
                match (unary.op, operand) {
                    (UnaryOp::Not, operand) => Ok(Object::Bool(!truth(&operand))),
                    (UnaryOp::USub, Object::Int(i)) => Ok(Object::Int(-i)),
                    (UnaryOp::USub, Object::Float(f)) => Ok(Object::Float(-f)),
                    _ => Err("an operator that is not on the whitelist".into()),
                }
            }
            Expr::BinOp(binary) => {
                let (left, right) = (self.evaluate(&binary.left)?, self.evaluate(&binary.right)?);
                let (a, b) = (number(&left), number(&right));
                match (binary.op, a, b) {
                    (Operator::Add, Some(a), Some(b)) => Ok(Object::Float(a + b)),
                    (Operator::Sub, Some(a), Some(b)) => Ok(Object::Float(a - b)),
                    (Operator::Mult, Some(a), Some(b)) => Ok(Object::Float(a * b)),
                    (Operator::Div, Some(a), Some(b)) if b != 0.0 => Ok(Object::Float(a / b)),
                    _ => Err("an operator that is not on the whitelist".into()),
                }
            }
            Expr::Compare(compare) => {
                let mut left = self.evaluate(&compare.left)?;
                for (op, right) in compare.ops.iter().zip(&compare.comparators) {
                    let right = self.evaluate(right)?;
                    if !relation(*op, &left, &right)? {
                        return Ok(Object::Bool(false));
                    }
                    left = right;
                }
                Ok(Object::Bool(true))
            }
            Expr::Call(called) => {
                let arguments = self.all(&called.args)?;
                match &*called.func {
                    Expr::Name(name) => builtin(name.id.as_str(), &arguments),
                    Expr::Attribute(attribute) => {
                        method(&self.evaluate(&attribute.value)?, attribute.attr.as_str(), &arguments)
                    }
                    _ => Err("a call that is not on the whitelist".into()),
                }
            }
            _ => Err("an expression that is not on the whitelist".into()),
        }
    }

    fn all(&mut self, trees: &[Expr]) -> Result<Vec<Object>, String> {
        trees.iter().map(|tree| self.evaluate(tree)).collect()
    }
}

fn relation(op: CmpOp, left: &Object, right: &Object) -> Result<bool, String> {
    let contains = || match (left, right) {
        (Object::Str(part), Object::Str(whole)) => Ok(whole.contains(part.as_str())),
        (_, Object::List(items) | Object::Tuple(items) | Object::Set(items)) => {
            Ok(items.iter().any(|i| i.equals(left)))
        }
        _ => Err(format!("argument of type '{}' is not iterable", right.kind())),
    };
    let order = || match (number(left), number(right), left, right) {
        (Some(a), Some(b), ..) => a.partial_cmp(&b).ok_or_else(|| "numbers that have no order".to_owned()),
        (.., Object::Str(a), Object::Str(b)) => Ok(a.cmp(b)),
        _ => Err(format!("'<' not supported between instances of '{}' and '{}'", left.kind(), right.kind())),
    };
    match op {
        CmpOp::Eq => Ok(left.equals(right)),
        CmpOp::NotEq => Ok(!left.equals(right)),
        CmpOp::In => contains(),
        CmpOp::NotIn => contains().map(|c| !c),
        CmpOp::Lt => Ok(order()?.is_lt()),
        CmpOp::LtE => Ok(order()?.is_le()),
        CmpOp::Gt => Ok(order()?.is_gt()),
        CmpOp::GtE => Ok(order()?.is_ge()),
        _ => Err("a comparison that is not on the whitelist".into()),
    }
}

fn builtin(name: &str, arguments: &[Object]) -> Result<Object, String> {
    let [one] = arguments else { return Err(format!("`{name}` takes one argument here")) };
    match (name, one) {
        ("int", Object::Str(s)) => s
            .trim()
            .parse::<i64>()
            .map(|i| Object::Int(i.into()))
            .map_err(|_| format!("invalid literal for int() with base 10: {}", one.repr())),
        ("int", _) => {
            let number = number(one).ok_or("int() of no number")?;
            Ok(Object::Int((number as i64).into()))
        }
        ("float", Object::Str(s)) => s
            .trim()
            .parse()
            .map(Object::Float)
            .map_err(|_| format!("could not convert string to float: {}", one.repr())),
        ("float", _) => number(one).map(Object::Float).ok_or_else(|| "float() of no number".into()),
        ("str", _) => Ok(Object::Str(one.text())),
        ("abs", _) => number(one).map(|n| Object::Float(n.abs())).ok_or_else(|| "abs() of no number".into()),
        ("len", Object::Str(s)) => Ok(Object::Int(s.chars().count().into())),
        ("len", Object::List(items) | Object::Tuple(items)) => Ok(Object::Int(items.len().into())),
        _ => Err(format!("`{name}` is not on the whitelist")),
    }
}

fn method(of: &Object, name: &str, arguments: &[Object]) -> Result<Object, String> {
    let Object::Str(text) = of else { return Err(format!("'{}' object has no attribute '{name}'", of.kind())) };
    let texts: Vec<&str> =
        arguments.iter().filter_map(|a| if let Object::Str(s) = a { Some(s.as_str()) } else { None }).collect();
    if texts.len() != arguments.len() {
        return Err(format!("`{name}` takes texts here"));
    }
    Ok(match (name, texts.as_slice()) {
        ("isdigit", []) => Object::Bool(!text.is_empty() && text.chars().all(|c| c.is_ascii_digit())),
        ("isnumeric", []) => Object::Bool(!text.is_empty() && text.chars().all(char::is_numeric)),
        ("lower", []) => Object::Str(text.to_lowercase()),
        ("upper", []) => Object::Str(text.to_uppercase()),
        ("strip", []) => Object::Str(text.trim().to_owned()),
        ("strip", [set]) => Object::Str(text.trim_matches(|c| set.contains(c)).to_owned()),
        ("startswith", [start]) => Object::Bool(text.starts_with(start)),
        ("endswith", [end]) => Object::Bool(text.ends_with(end)),
        ("replace", [from, to]) => Object::Str(text.replace(from, to)),
        _ => return Err(format!("`{name}` is not on the whitelist")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lambdas_hold_as_python_says() {
        for (lambda, value, expected) in [
            ("lambda x: x in ['210,000', '110000']", "110000", Ok(true)),
            ("lambda x: x.isdigit() == True and int(x) == 100", "100", Ok(true)),
            ("lambda x: x.isdigit() and int(x) == 100", "abc", Ok(false)),
            ("lambda v: 1 < float(v.replace(',', '')) <= 1000.5", "1,000.5", Ok(true)),
            ("lambda x: not x.startswith('a')", "b", Ok(true)),
        ] {
            assert_eq!(holds(lambda, value), expected, "{lambda}");
        }
        for bad in ["lambda x: __import__('os')", "lambda x: int(x)", "x", "lambda: 1", "lambda x: [y for y in x]", "("]
        {
            assert!(holds(bad, "a").is_err(), "{bad}");
        }
    }
}
