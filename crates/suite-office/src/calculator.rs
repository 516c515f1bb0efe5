//! The calculator: Python's arithmetic and `math` over a whitelisted expression tree, bounded.

use crate::arithmetic::{compare, integer, items, operate, truth};
use crate::math;
use num_traits::ToPrimitive;
use rolegraft_python::{Object, of_constant};
use rustpython_parser::ast::{BoolOp, Comprehension, Expr, Mod, UnaryOp};
use rustpython_parser::{Mode, parse};

/// Operations of one expression.
const FUEL: usize = 20_000;
/// Words that upstream refuses anywhere in the text.
const UNSAFE: [&str; 12] = [
    "import",
    "exec",
    "eval",
    "getattr",
    "setattr",
    "delattr",
    "compile",
    "open",
    "__",
    "globals",
    "locals",
    "subprocess",
];

/// The tool's observation.
pub(crate) fn calculate(expression: &Object) -> String {
    let Object::Str(text) = expression else {
        return format!("Error: [calculator] '{}' object has no attribute 'replace'", expression.kind());
    };
    evaluate(&text.replace('^', "**")).map_or_else(|message| format!("Error: [calculator] {message}"), |o| o.text())
}

fn evaluate(text: &str) -> Result<Object, String> {
    let parsed = match text.starts_with([' ', '\t']) {
        true => Err("unexpected indent"),
        false => parse(text, Mode::Expression, "").map_err(|_| "invalid syntax"),
    };
    let is_statement = || parse(text, Mode::Module, "").is_ok();
    let unsafe_word = UNSAFE.iter().any(|word| text.contains(word));
    match parsed {
        Err(message) if !is_statement() => {
            let message = unbalanced(text).unwrap_or_else(|| message.to_owned());
            Err(format!("Syntax error in expression: {message} (<unknown>, line 1)"))
        }
        _ if unsafe_word => Err("Potentially unsafe operations detected in expression".into()),
        Ok(Mod::Expression(tree)) => Calculator { fuel: FUEL, bound: Vec::new() }.evaluate(&tree.body),
        // Upstream's `eval` takes no statement.
        _ => {
            let nothing = text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
            Err(format!("invalid syntax (<string>, line {})", u8::from(!nothing)))
        }
    }
}

/// What Python says of brackets that do not match, if any do not.
fn unbalanced(text: &str) -> Option<String> {
    let mut open = Vec::new();
    for c in text.chars() {
        match c {
            '(' | '[' | '{' => open.push(c),
            ')' | ']' | '}' => match (open.pop(), c) {
                (Some('('), ')') | (Some('['), ']') | (Some('{'), '}') => {}
                (None, _) => return Some(format!("unmatched '{c}'")),
                (Some(begun), _) => {
                    return Some(format!("closing parenthesis '{c}' does not match opening parenthesis '{begun}'"));
                }
            },
            '"' | '\'' => return None,
            _ => {}
        }
    }
    open.pop().map(|begun| format!("'{begun}' was never closed"))
}

struct Calculator {
    fuel: usize,
    /// What comprehensions have bound.
    bound: Vec<(String, Object)>,
}

impl Calculator {
    fn evaluate(&mut self, tree: &Expr) -> Result<Object, String> {
        self.fuel = self.fuel.checked_sub(1).ok_or("the expression is too long")?;
        match tree {
            Expr::Constant(constant) => Ok(of_constant(&constant.value)),
            Expr::Name(name) => match name.id.as_str() {
                bound if self.bound.iter().any(|(name, _)| name == bound) => {
                    let value = self.bound.iter().rev().find(|(name, _)| name == bound);
                    Ok(value.map_or(Object::None, |(_, value)| value.clone()))
                }
                "pi" => Ok(Object::Float(std::f64::consts::PI)),
                "e" => Ok(Object::Float(std::f64::consts::E)),
                "tau" => Ok(Object::Float(std::f64::consts::TAU)),
                "inf" => Ok(Object::Float(f64::INFINITY)),
                "nan" => Ok(Object::Float(f64::NAN)),
                other => Err(format!("name '{other}' is not defined")),
            },
            Expr::List(list) => Ok(Object::List(self.all(&list.elts)?)),
            Expr::Tuple(tuple) => Ok(Object::Tuple(self.all(&tuple.elts)?)),
            Expr::UnaryOp(unary) => {
                let operand = self.evaluate(&unary.operand)?;
                if unary.op == UnaryOp::Not {
                    return Ok(Object::Bool(!truth(&operand)));
                }
                match (unary.op, integer(&operand), operand) {
                    (UnaryOp::USub, Some(i), _) => Ok(Object::Int(-i)),
                    (UnaryOp::UAdd, Some(i), _) => Ok(Object::Int(i)),
                    (UnaryOp::Invert, Some(i), _) => Ok(Object::Int(-i - 1)),
                    (UnaryOp::USub, None, Object::Float(f)) => Ok(Object::Float(-f)),
                    (UnaryOp::UAdd, None, Object::Float(f)) => Ok(Object::Float(f)),
                    (.., operand) => Err(format!("bad operand type for unary operator: '{}'", operand.kind())),
                }
            }
            Expr::BinOp(binary) => {
                let (left, right) = (self.evaluate(&binary.left)?, self.evaluate(&binary.right)?);
                operate(&left, binary.op, &right)
            }
            Expr::Compare(compared) => {
                let mut left = self.evaluate(&compared.left)?;
                for (op, right) in compared.ops.iter().zip(&compared.comparators) {
                    let right = self.evaluate(right)?;
                    if !compare(&left, *op, &right)? {
                        return Ok(Object::Bool(false));
                    }
                    left = right;
                }
                Ok(Object::Bool(true))
            }
            Expr::BoolOp(joined) => {
                let mut value = Object::None;
                for tree in &joined.values {
                    value = self.evaluate(tree)?;
                    if truth(&value) == (joined.op == BoolOp::Or) {
                        break;
                    }
                }
                Ok(value)
            }
            Expr::IfExp(chosen) => {
                let holds = truth(&self.evaluate(&chosen.test)?);
                self.evaluate(if holds { &chosen.body } else { &chosen.orelse })
            }
            Expr::Call(called) => {
                let name = match &*called.func {
                    Expr::Name(name) if math::FUNCTIONS.contains(&name.id.as_str()) => name.id.as_str(),
                    other => return Err(format!("'{}' object is not callable", self.evaluate(other)?.kind())),
                };
                let arguments = self.all(&called.args)?;
                math::function(name, &arguments)
            }
            Expr::ListComp(made) => self.comprehension(&made.elt, &made.generators).map(Object::List),
            Expr::GeneratorExp(made) => self.comprehension(&made.elt, &made.generators).map(Object::List),
            Expr::Attribute(of) => {
                let kind = self.evaluate(&of.value)?.kind();
                Err(format!("'{kind}' object has no attribute '{}'", of.attr))
            }
            Expr::Subscript(of) => {
                let (from, at) = (self.evaluate(&of.value)?, self.evaluate(&of.slice)?);
                let (Object::List(items) | Object::Tuple(items)) = &from else {
                    return Err(format!("'{}' object is not subscriptable", from.kind()));
                };
                let at = integer(&at).and_then(|i| i.to_i64()).ok_or("an index that the calculator does not know")?;
                let at = if at < 0 { at + items.len() as i64 } else { at };
                let found = usize::try_from(at).ok().and_then(|i| items.get(i).cloned());
                found.ok_or_else(|| format!("{} index out of range", from.kind()))
            }
            _ => Err("an expression that the calculator does not know".into()),
        }
    }

    /// The values of a comprehension over names.
    fn comprehension(&mut self, element: &Expr, clauses: &[Comprehension]) -> Result<Vec<Object>, String> {
        let Some((clause, rest)) = clauses.split_first() else { return Ok(vec![self.evaluate(element)?]) };
        let Expr::Name(name) = &clause.target else {
            return Err("a comprehension that the calculator does not know".into());
        };
        let mut made = Vec::new();
        for value in items(&self.evaluate(&clause.iter)?)? {
            self.bound.push((name.id.to_string(), value));
            let wanted = clause.ifs.iter().try_fold(true, |all, test| Ok(all && truth(&self.evaluate(test)?)));
            let of_this = wanted.and_then(|wanted| if wanted { self.comprehension(element, rest) } else { Ok(vec![]) });
            self.bound.pop();
            made.extend(of_this?);
        }
        Ok(made)
    }

    fn all(&mut self, trees: &[Expr]) -> Result<Vec<Object>, String> {
        trees.iter().map(|tree| self.evaluate(tree)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_pythons_and_bounded() {
        let of = |text: &str| calculate(&Object::Str(text.into()));
        for (text, expected) in [
            ("2^10 + 7//2", "1027"),
            ("7/2", "3.5"),
            ("sum([1, 2, 3.5]) / len([1, 2])", "3.25"),
            ("sqrt(2)", "1.4142135623730951"),
            ("max(1, 2, 3) % -2", "-1"),
            ("factorial(20)", "2432902008176640000"),
            ("round(2.5)", "Error: [calculator] name 'round' is not defined"),
            ("(1", "Error: [calculator] Syntax error in expression: '(' was never closed (<unknown>, line 1)"),
            ("a = 1", "Error: [calculator] invalid syntax (<string>, line 1)"),
            ("1 < 2 <= 2", "True"),
            ("(3 if 2 > 1 else 4) and 5", "5"),
            ("1/0", "Error: [calculator] division by zero"),
            ("sqrt(-1)", "Error: [calculator] math domain error"),
            ("__import__('os')", "Error: [calculator] Potentially unsafe operations detected in expression"),
            ("sum([x*2 for x in [1, 2, 3] if x > 1])", "10"),
            ("math.pi", "Error: [calculator] name 'math' is not defined"),
            ("fsum([.1, .1, .1, .1, .1, .1, .1, .1, .1, .1])", "1.0"),
            ("comb(5, 2) + perm(5, 2) + lcm(4, 6)", "42"),
            ("sorted([3, 1])[-1]", "3"),
            ("isnan(nan) and isclose(0.1 + 0.2, 0.3)", "True"),
            ("nothing(1/0)", "Error: [calculator] name 'nothing' is not defined"),
            ("9**9**9", "Error: [calculator] the result is too large"),
        ] {
            assert_eq!(of(text), expected, "{text}");
        }
        assert_eq!(calculate(&Object::Int(42.into())), "Error: [calculator] 'int' object has no attribute 'replace'");
    }
}
