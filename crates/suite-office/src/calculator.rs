//! The calculator: Python's arithmetic and `math` over a whitelisted expression tree, bounded.

use crate::arithmetic::{compare, integer, items, operate, truth};
use crate::builtins;
use crate::math;
use num_traits::{Signed, ToPrimitive};
use rolegraft_python::{Object, of_constant};
use rustpython_parser::ast::{BoolOp, Comprehension, Expr, ExprCall, ExprSlice, Mod, UnaryOp};
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
        Ok(Mod::Expression(tree)) => match function_name(&tree.body) {
            Some(name) => Ok(Object::Str(format!("<built-in function {name}>"))),
            None => Calculator { fuel: FUEL, bound: Vec::new(), inner: 0 }.evaluate(&tree.body),
        },
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
    /// Comprehensions and lambdas whose bodies are being evaluated.
    inner: usize,
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
                // What a comprehension or lambda does not bind is looked up where upstream has nothing.
                free if self.inner > 0 => Err(format!("name '{free}' is not defined")),
                "pi" => Ok(Object::Float(std::f64::consts::PI)),
                "e" => Ok(Object::Float(std::f64::consts::E)),
                "tau" => Ok(Object::Float(std::f64::consts::TAU)),
                "inf" => Ok(Object::Float(f64::INFINITY)),
                "nan" => Ok(Object::Float(f64::NAN)),
                other => Err(format!("name '{other}' is not defined")),
            },
            Expr::List(list) => Ok(Object::List(self.all(&list.elts, "Value")?)),
            Expr::Tuple(tuple) => Ok(Object::Tuple(self.all(&tuple.elts, "Value")?)),
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
                    (op, _, operand) => {
                        let sign = match op {
                            UnaryOp::USub => '-',
                            UnaryOp::UAdd => '+',
                            _ => '~',
                        };
                        Err(format!("bad operand type for unary {sign}: '{}'", operand.kind()))
                    }
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
            Expr::Call(called) => self.call(called),
            Expr::ListComp(made) => self.comprehension(&made.elt, &made.generators).map(Object::List),
            Expr::GeneratorExp(made) => self.comprehension(&made.elt, &made.generators).map(Object::List),
            Expr::Attribute(of) => {
                let kind = self.evaluate(&of.value)?.kind();
                Err(format!("'{kind}' object has no attribute '{}'", of.attr))
            }
            Expr::Subscript(of) => {
                let from = self.evaluate(&of.value)?;
                if let Expr::Slice(slice) = &*of.slice {
                    return self.sliced(&from, slice);
                }
                let at = self.evaluate(&of.slice)?;
                let items = sequence(&from)?;
                let index = integer(&at).ok_or_else(|| match &from {
                    Object::Str(_) => format!("string indices must be integers, not '{}'", at.kind()),
                    from => format!("{} indices must be integers or slices, not {}", from.kind(), at.kind()),
                })?;
                let length = items.len() as i64;
                let index = index.to_i64().map(|i| if i < 0 { i + length } else { i });
                let found = index.and_then(|i| usize::try_from(i).ok()).and_then(|i| items.get(i).cloned());
                let kind = if let Object::Str(_) = from { "string" } else { from.kind() };
                found.ok_or_else(|| format!("{kind} index out of range"))
            }
            _ => Err("an expression that the calculator does not know".into()),
        }
    }

    /// Calls a function by its name.
    fn call(&mut self, called: &ExprCall) -> Result<Object, String> {
        let name = match &*called.func {
            Expr::Name(name) if self.inner == 0 && is_known(&name.id) => name.id.as_str(),
            other => return Err(format!("'{}' object is not callable", self.evaluate(other)?.kind())),
        };
        let arguments = self.all(&called.args, &format!("{name}() argument"))?;
        let (mut named, mut key) = (Vec::new(), None);
        for keyword in &called.keywords {
            match keyword.arg.as_ref().map(|arg| arg.as_str()) {
                None => return Err("an expression that the calculator does not know".into()),
                Some("key") => key = Some(&keyword.value).filter(|tree| !is_none(tree)),
                Some(arg) => named.push((arg.to_owned(), self.evaluate(&keyword.value)?)),
            }
        }
        if builtins::NAMES.contains(&name) {
            if let (Some(Expr::GeneratorExp(_)), "len") = (called.args.first(), name) {
                return Err("object of type 'generator' has no len()".into());
            }
            return match key {
                None => builtins::call(name, &arguments, &named, None),
                Some(key) => builtins::call(name, &arguments, &named, Some(&mut |value| self.apply(key, value))),
            };
        }
        if !named.is_empty() || key.is_some() {
            return Err("an expression that the calculator does not know".into());
        }
        math::function(name, &arguments)
    }

    /// Calls what a `key` names, or its lambda, with a value.
    fn apply(&mut self, function: &Expr, value: &Object) -> Result<Object, String> {
        self.fuel = self.fuel.checked_sub(1).ok_or("the expression is too long")?;
        let one = std::slice::from_ref(value);
        match function {
            Expr::Name(name) if self.inner == 0 && builtins::NAMES.contains(&name.id.as_str()) => {
                builtins::call(&name.id, one, &[], None)
            }
            Expr::Name(name) if self.inner == 0 && math::FUNCTIONS.contains(&name.id.as_str()) => {
                math::function(&name.id, one)
            }
            Expr::Lambda(lambda) => {
                let [argument] = lambda.args.args.as_slice() else {
                    return Err("an expression that the calculator does not know".into());
                };
                self.bound.push((argument.def.arg.to_string(), value.clone()));
                self.inner += 1;
                let result = self.evaluate(&lambda.body);
                self.inner -= 1;
                self.bound.pop();
                result
            }
            other => Err(format!("'{}' object is not callable", self.evaluate(other)?.kind())),
        }
    }

    /// `from[lower:upper:step]`.
    fn sliced(&mut self, from: &Object, slice: &ExprSlice) -> Result<Object, String> {
        let items = sequence(from)?;
        let mut bound = |tree: &Option<Box<Expr>>| -> Result<Option<i64>, String> {
            let Some(tree) = tree else { return Ok(None) };
            let value = self.evaluate(tree)?;
            let not_whole = "slice indices must be integers or None or have an __index__ method";
            match (integer(&value), value) {
                (None, Object::None) => Ok(None),
                (None, _) => Err(not_whole.into()),
                (Some(i), _) => {
                    Ok(Some(i.to_i64().unwrap_or(if i.is_negative() { i64::MIN / 2 } else { i64::MAX / 2 })))
                }
            }
        };
        let (lower, upper, step) = (bound(&slice.lower)?, bound(&slice.upper)?, bound(&slice.step)?.unwrap_or(1));
        if step == 0 {
            return Err("slice step cannot be zero".into());
        }
        let length = items.len() as i64;
        let (least, most) = if step > 0 { (0, length) } else { (-1, length - 1) };
        let clamp = |i: i64| (if i < 0 { i.saturating_add(length) } else { i }).clamp(least, most);
        let (first, last) = if step > 0 { (least, most) } else { (most, least) };
        let (mut at, end) = (lower.map_or(first, clamp), upper.map_or(last, clamp));
        let mut taken = Vec::new();
        while if step > 0 { at < end } else { at > end } {
            taken.extend(usize::try_from(at).ok().and_then(|at| items.get(at).cloned()));
            at = at.saturating_add(step);
        }
        Ok(match from {
            Object::Str(_) => Object::Str(taken.iter().map(Object::text).collect()),
            Object::Tuple(_) => Object::Tuple(taken),
            _ => Object::List(taken),
        })
    }

    /// The values of a comprehension over names.
    fn comprehension(&mut self, element: &Expr, clauses: &[Comprehension]) -> Result<Vec<Object>, String> {
        let Some((clause, rest)) = clauses.split_first() else { return Ok(vec![self.evaluate(element)?]) };
        let Expr::Name(name) = &clause.target else {
            return Err("a comprehension that the calculator does not know".into());
        };
        // What the first clause runs over belongs to the surroundings.
        let over = items(&self.evaluate(&clause.iter)?)?;
        self.inner += 1;
        let made = self.each(&over, &name.id, element, clause, rest);
        self.inner -= 1;
        made
    }

    fn each(
        &mut self,
        over: &[Object],
        name: &str,
        element: &Expr,
        clause: &Comprehension,
        rest: &[Comprehension],
    ) -> Result<Vec<Object>, String> {
        let mut made = Vec::new();
        for value in over {
            self.bound.push((name.to_owned(), value.clone()));
            let wanted = clause.ifs.iter().try_fold(true, |all, test| Ok(all && truth(&self.evaluate(test)?)));
            let of_this = wanted.and_then(|wanted| if wanted { self.comprehension(element, rest) } else { Ok(vec![]) });
            self.bound.pop();
            made.extend(of_this?);
        }
        Ok(made)
    }

    /// The values of expressions, `*those` of a list or tuple among them; `what` words the error of others.
    fn all(&mut self, trees: &[Expr], what: &str) -> Result<Vec<Object>, String> {
        let mut values = Vec::new();
        for tree in trees {
            match tree {
                Expr::Starred(starred) => {
                    let value = self.evaluate(&starred.value)?;
                    let not_iterable = |_| format!("{what} after * must be an iterable, not {}", value.kind());
                    values.extend(items(&value).map_err(not_iterable)?);
                }
                tree => values.push(self.evaluate(tree)?),
            }
        }
        Ok(values)
    }
}

/// The function that an expression is, and does not call.
fn function_name(tree: &Expr) -> Option<&str> {
    let Expr::Name(name) = tree else { return None };
    is_known(&name.id).then_some(name.id.as_str())
}

fn is_known(name: &str) -> bool {
    math::FUNCTIONS.contains(&name) || builtins::NAMES.contains(&name)
}

fn is_none(tree: &Expr) -> bool {
    matches!(tree, Expr::Constant(constant) if constant.value.is_none())
}

/// What can be indexed.
fn sequence(from: &Object) -> Result<Vec<Object>, String> {
    match from {
        Object::List(_) | Object::Tuple(_) | Object::Str(_) => items(from),
        other => Err(format!("'{}' object is not subscriptable", other.kind())),
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

    #[test]
    fn lists_and_tuples_are_pythons() {
        // Results of CPython 3.11.7.
        let cases = [
            ("min([])", "Error: [calculator] min() arg is an empty sequence"),
            ("max([], default=0)", "0"),
            ("min(3)", "Error: [calculator] 'int' object is not iterable"),
            ("max('a', 1)", "Error: [calculator] '>' not supported between instances of 'int' and 'str'"),
            ("min([1, 'a'])", "Error: [calculator] '<' not supported between instances of 'str' and 'int'"),
            ("sorted([3, 1, 2], reverse=True)", "[3, 2, 1]"),
            ("sorted([2, 'a'])", "Error: [calculator] '<' not supported between instances of 'str' and 'int'"),
            ("sorted(5)", "Error: [calculator] 'int' object is not iterable"),
            ("sorted([-3, 1, -2], key=abs)", "[1, -2, -3]"),
            ("sorted([1, 2, 3], key=lambda x: -x)", "[3, 2, 1]"),
            ("sum([1, 2.5])", "3.5"),
            ("sum([[1], [2]], [])", "[1, 2]"),
            ("sum(['a'])", "Error: [calculator] unsupported operand type(s) for +: 'int' and 'str'"),
            ("sum(5)", "Error: [calculator] 'int' object is not iterable"),
            ("sum([1, 2], 10)", "13"),
            ("len([1, (2, 3)])", "2"),
            ("len(5)", "Error: [calculator] object of type 'int' has no len()"),
            ("len()", "Error: [calculator] len() takes exactly one argument (0 given)"),
            ("abs([1])", "Error: [calculator] bad operand type for abs(): 'list'"),
            ("abs(-2, 1)", "Error: [calculator] abs() takes exactly one argument (2 given)"),
            ("abs(True)", "1"),
            ("min()", "Error: [calculator] min expected at least 1 argument, got 0"),
            ("[1, 2] + [3]", "[1, 2, 3]"),
            ("[1] + 2", "Error: [calculator] can only concatenate list (not \"int\") to list"),
            ("(1, 2) * 2", "(1, 2, 1, 2)"),
            ("[1] * 1.5", "Error: [calculator] can't multiply sequence by non-int of type 'float'"),
            ("2 * 'ab'", "abab"),
            ("[1, 2] - [1]", "Error: [calculator] unsupported operand type(s) for -: 'list' and 'list'"),
            ("-[1]", "Error: [calculator] bad operand type for unary -: 'list'"),
            ("[1, [2]] < [1, [3]]", "True"),
            ("[1] < 2", "Error: [calculator] '<' not supported between instances of 'list' and 'int'"),
            ("1 in 5", "Error: [calculator] argument of type 'int' is not iterable"),
            ("[1, 2, 3][::-1]", "[3, 2, 1]"),
            ("(1, 2)['a']", "Error: [calculator] tuple indices must be integers or slices, not str"),
            ("[1][5]", "Error: [calculator] list index out of range"),
            ("max(*[1, 2])", "2"),
            ("[abs(x) for x in [1]]", "Error: [calculator] name 'abs' is not defined"),
            ("1.0 // 0.1", "9.0"),
            ("sum", "<built-in function sum>"),
            ("max((1, 2), (1, 3))", "(1, 3)"),
            ("[1] == [1.0]", "True"),
            ("min([2, 1.0, 1])", "1.0"),
            ("sum([0.1] * 3)", "0.30000000000000004"),
        ];
        for (text, expected) in cases {
            assert_eq!(calculate(&Object::Str(text.into())), expected, "{text}");
        }
    }
}
