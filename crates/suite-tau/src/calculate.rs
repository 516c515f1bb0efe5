//! The `calculate` tool: Python's `eval` over digits, operators, brackets, dots and spaces, with bounds.
//!
//! Upstream lets through whatever consists of `0123456789+-*/(). ` and shows `str(round(float(value), 2))`, or the
//! exception's text. That alphabet spells more than arithmetic: empty tuples, `...`, calls, complex roots. All of these
//! are answered in CPython 3.11's words. Powers that would take minutes and gigabytes upstream are refused instead.

use crate::arithmetic::Object::{self, Complex, Ellipsis, Float, Int, Tuple};
use crate::arithmetic::{Evaluated, binary};
use crate::python::{Raised, Result, iterate, type_name};
use serde_json::Value;

/// Brackets that CPython's tokenizer nests.
const MAX_BRACKETS: usize = 200;
/// Values and operators of one expression: CPython's compiler gives up at about as many nested ones.
const MAX_PARTS: usize = 2900;
/// Digits that CPython turns into an integer.
const MAX_DIGITS: usize = 4300;

const INVALID: &str = "invalid syntax (<string>, line 1)";
const COMMA: &str = "invalid syntax. Perhaps you forgot a comma? (<string>, line 1)";
const TOO_NESTED: &str = "too many nested parentheses (<string>, line 1)";
const LEADING_ZEROS: &str = "leading zeros in decimal integer literals are not permitted; use an 0o prefix for octal integers (<string>, line 1)";
const UNCLOSED: &str = "'(' was never closed (<string>, line 1)";

/// The tool's observation.
pub(crate) fn calculate(expression: &Value) -> Result<String> {
    let Value::String(text) = expression else {
        for item in iterate(expression)? {
            let Some(text) = item.as_str() else {
                let kind = type_name(&item);
                return Err(Raised(format!("'in <string>' requires string as left operand, not {kind}")));
            };
            if !"0123456789+-*/(). ".contains(text) {
                return Ok("Error: invalid characters in expression".into());
            }
        }
        return Ok("Error: eval() arg 1 must be a string, bytes or code object".into());
    };
    if !text.chars().all(|c| "0123456789+-*/(). ".contains(c)) {
        return Ok("Error: invalid characters in expression".into());
    }
    let result = parse(text.trim_start_matches(' ')).and_then(|tree| tree.evaluate()?.rounded());
    Ok(result.unwrap_or_else(|message| format!("Error: {message}")))
}

enum Tree {
    Leaf(Object),
    Sign(char, Box<Tree>),
    Binary(Box<Tree>, &'static str, Box<Tree>),
    Call(Box<Tree>, Option<Box<Tree>>),
}

impl Tree {
    fn evaluate(&self) -> Evaluated<Object> {
        match self {
            Self::Leaf(object) => Ok(object.clone()),
            Self::Sign(sign, of) => match (sign, of.evaluate()?) {
                ('-', Int(i)) => Ok(Int(-i)),
                ('-', Float(f)) => Ok(Float(-f)),
                (_, value @ (Int(_) | Float(_) | Complex)) => Ok(value),
                (sign, other) => Err(format!("bad operand type for unary {sign}: '{}'", other.kind())),
            },
            Self::Binary(left, operator, right) => binary(left.evaluate()?, operator, right.evaluate()?),
            Self::Call(callee, argument) => {
                let callee = callee.evaluate()?;
                if let Some(argument) = argument {
                    argument.evaluate()?;
                }
                Err(format!("'{}' object is not callable", callee.kind()))
            }
        }
    }
}

#[derive(Clone, PartialEq)]
enum Token {
    Number(String),
    Dots,
    Operator(&'static str),
    Open,
    Close,
}

/// Tokens, and whether a bracket stays open.
fn tokens(text: &str) -> Evaluated<(Vec<Token>, bool)> {
    let bytes = text.as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let (mut found, mut at, mut open) = (Vec::new(), 0, 0usize);
    while let Some(byte) = bytes.get(at) {
        let rest = &text[at..];
        let (token, length) = match byte {
            b' ' => {
                at += 1;
                continue;
            }
            b'0'..=b'9' | b'.' => {
                let whole = digits(at);
                let point = bytes.get(at + whole) == Some(&b'.');
                let length = whole + if point { 1 + digits(at + whole + 1) } else { 0 };
                if rest.starts_with("...") {
                    (Token::Dots, 3)
                } else if length == 1 && point {
                    (Token::Operator("."), 1)
                } else {
                    if !point && whole > 1 && *byte == b'0' && rest.bytes().take(whole).any(|b| b != b'0') {
                        return Err(LEADING_ZEROS.into());
                    }
                    (Token::Number(rest[..length].to_owned()), length)
                }
            }
            b'(' => {
                open += 1;
                if open > MAX_BRACKETS - 1 {
                    return Err(TOO_NESTED.into());
                }
                (Token::Open, 1)
            }
            b')' => {
                if open == 0 {
                    return Err("unmatched ')' (<string>, line 1)".into());
                }
                open -= 1;
                (Token::Close, 1)
            }
            _ => {
                let operator =
                    ["**", "//", "*", "/", "+", "-"].into_iter().find(|o| rest.starts_with(o)).unwrap_or("-");
                (Token::Operator(operator), operator.len())
            }
        };
        found.push(token);
        at += length;
    }
    Ok((found, open > 0))
}

fn parse(text: &str) -> Evaluated<Tree> {
    let (tokens, open) = tokens(text)?;
    if tokens.is_empty() {
        return Err("invalid syntax (<string>, line 0)".into());
    }
    let mut parser = Parser { tokens: &tokens, at: 0, parts: 0 };
    let tree = parser.sum().and_then(|tree| match tokens.get(parser.at) {
        None => Ok(tree),
        Some(_) => {
            parser.adjacent();
            Err(INVALID.into())
        }
    });
    // CPython blames an open bracket only where it read to the end before it gave up.
    tree.map_err(|message| if open && parser.at == tokens.len() { UNCLOSED.into() } else { message })
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    parts: usize,
}

impl Parser<'_> {
    fn operator(&mut self, known: &[&'static str]) -> Option<&'static str> {
        match self.tokens.get(self.at) {
            Some(Token::Operator(found)) if known.contains(found) => {
                self.at += 1;
                Some(found)
            }
            _ => None,
        }
    }
    fn chain(&mut self, known: &[&'static str], of: fn(&mut Self) -> Evaluated<Tree>) -> Evaluated<Tree> {
        let mut tree = of(self)?;
        while let Some(operator) = self.operator(known) {
            tree = Tree::Binary(Box::new(tree), operator, Box::new(of(self)?));
            self.count()?;
        }
        Ok(tree)
    }
    /// Counts what may nest when the tree is evaluated.
    fn count(&mut self) -> Evaluated<()> {
        self.parts += 1;
        if self.parts > MAX_PARTS { Err("maximum recursion depth exceeded during compilation".into()) } else { Ok(()) }
    }
    fn sum(&mut self) -> Evaluated<Tree> {
        self.chain(&["+", "-"], Self::product)
    }
    fn product(&mut self) -> Evaluated<Tree> {
        self.chain(&["*", "/", "//"], Self::factor)
    }
    fn factor(&mut self) -> Evaluated<Tree> {
        self.count()?;
        if let Some(sign) = self.operator(&["+", "-"]) {
            return Ok(Tree::Sign(if sign == "-" { '-' } else { '+' }, Box::new(self.factor()?)));
        }
        let base = self.primary()?;
        if self.operator(&["**"]).is_some() {
            return Ok(Tree::Binary(Box::new(base), "**", Box::new(self.factor()?)));
        }
        Ok(base)
    }
    fn primary(&mut self) -> Evaluated<Tree> {
        let mut tree = self.atom()?;
        while self.tokens.get(self.at) == Some(&Token::Open) {
            self.count()?;
            let argument = self.bracketed(true)?;
            tree = Tree::Call(Box::new(tree), argument.map(Box::new));
        }
        Ok(tree)
    }
    /// Whether another value follows the one just read, which CPython reads too before it complains.
    fn adjacent(&mut self) -> bool {
        let found = matches!(self.tokens.get(self.at), Some(Token::Number(_) | Token::Dots));
        if found {
            let _ = self.sum();
        }
        found
    }
    /// `(…)`, standing at the bracket; `None` if there is nothing inside.
    fn bracketed(&mut self, call: bool) -> Evaluated<Option<Tree>> {
        self.at += 1;
        let starred = self.operator(&["*", "**"]);
        let empty = starred.is_none() && self.tokens.get(self.at) == Some(&Token::Close);
        let inside = if empty { None } else { Some(self.sum()?) };
        match (self.tokens.get(self.at), starred) {
            (Some(Token::Close), Some(star)) if !call => {
                let double = if star == "**" { "double " } else { "" };
                return Err(format!("cannot use {double}starred expression here (<string>, line 1)"));
            }
            (Some(Token::Close), _) => {}
            _ => return Err(if self.adjacent() { COMMA } else { INVALID }.into()),
        }
        self.at += 1;
        Ok(inside)
    }
    fn atom(&mut self) -> Evaluated<Tree> {
        let token = self.tokens.get(self.at).ok_or(INVALID)?;
        let object = match token {
            Token::Open => return Ok(self.bracketed(false)?.unwrap_or(Tree::Leaf(Tuple))),
            Token::Number(text) if text.contains('.') => Float(text.parse().map_err(|_| INVALID)?),
            Token::Number(text) if text.len() > MAX_DIGITS => {
                return Err(format!(
                    "Exceeds the limit ({MAX_DIGITS} digits) for integer string conversion: value has {} digits; use \
                     sys.set_int_max_str_digits() to increase the limit - Consider hexadecimal for huge integer literals to \
                     avoid decimal conversion limits. (<string>, line 1)",
                    text.len()
                ));
            }
            Token::Number(text) => Int(text.parse().map_err(|_| INVALID)?),
            Token::Dots => Ellipsis,
            _ => return Err(INVALID.into()),
        };
        self.at += 1;
        Ok(Tree::Leaf(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::python::round2;
    use rolegraft_spans::python_json::float_repr;
    use std::time::{Duration, Instant};

    fn of(expression: &str) -> String {
        calculate(&expression.into()).unwrap()
    }

    /// What CPython 3.11 gives for upstream's tool.
    #[test]
    fn expressions_are_evaluated_as_python_evaluates_them() {
        for (expression, expected) in [
            ("2*(3 + 4) - 1", "13.0"),
            ("100/3", "33.33"),
            ("7//-2", "-4.0"),
            ("-7.5//2", "-4.0"),
            ("-2**2", "-4.0"),
            ("2**-1", "0.5"),
            ("2**3**2", "512.0"),
            ("0.125", "0.12"),
            ("0.375", "0.38"),
            ("2.675", "2.67"),
            ("-0.001", "-0.0"),
            ("10**16+0.5", "1e+16"),
            ("10**400//10**399", "10.0"),
            ("9**99", "2.9512665430652752e+94"),
            (" 00 + 5.", "5.0"),
            ("1/0", "Error: division by zero"),
            ("1//0", "Error: integer division or modulo by zero"),
            ("1/0.", "Error: float division by zero"),
            ("1.0//0", "Error: float floor division by zero"),
            ("0**-1", "Error: 0.0 cannot be raised to a negative power"),
            ("10**400", "Error: int too large to convert to float"),
            ("10**400/3", "Error: integer division result too large for a float"),
            ("9.9**999", "Error: (34, 'Numerical result out of range')"),
            ("(-8)**0.5", "Error: float() argument must be a string or a real number, not 'complex'"),
            ("()", "Error: float() argument must be a string or a real number, not 'tuple'"),
            ("...", "Error: float() argument must be a string or a real number, not 'ellipsis'"),
            ("()+1", "Error: can only concatenate tuple (not \"int\") to tuple"),
            ("2(3)", "Error: 'int' object is not callable"),
            ("", "Error: invalid syntax (<string>, line 0)"),
            ("1+", "Error: invalid syntax (<string>, line 1)"),
            ("1..2", "Error: invalid syntax (<string>, line 1)"),
            ("(1", "Error: '(' was never closed (<string>, line 1)"),
            ("(/4", "Error: invalid syntax (<string>, line 1)"),
            ("1)", "Error: unmatched ')' (<string>, line 1)"),
            ("(1 2)", "Error: invalid syntax. Perhaps you forgot a comma? (<string>, line 1)"),
            ("1e3", "Error: invalid characters in expression"),
        ] {
            assert_eq!(of(expression), expected, "{expression}");
        }
        assert!(of("01").starts_with("Error: leading zeros in decimal integer literals"));
        assert!(of(&"9".repeat(4301)).starts_with("Error: Exceeds the limit (4300 digits)"));
        assert_eq!(calculate(&Value::Null), Err(Raised("'NoneType' object is not iterable".into())));
    }

    #[test]
    fn bombs_are_refused_quickly() {
        let bombs = [
            "9**9**9**9".to_owned(),
            "9**9**9*0".to_owned(),
            "(((9**99)**99)**99)**99".to_owned(),
            "2**16000*".repeat(100_000) + "1",
            "2**16383+".repeat(400) + "1",
            "9".repeat(4_000_000),
            "(".repeat(1_000_000),
            "-".repeat(1_000_000) + "1",
            "1+".repeat(1_000_000) + "1",
            "2**".repeat(100_000) + "2",
            "(1)".repeat(100_000),
        ];
        for bomb in bombs {
            let begun = Instant::now();
            let observed = of(&bomb);
            assert!(observed.starts_with("Error: ") || observed.len() < 400, "{observed}");
            assert!(begun.elapsed() < Duration::from_secs(5), "{}…", &bomb[..20.min(bomb.len())]);
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "[0-9+*/(). -]{0,40}") {
            of(&text);
        }
        #[test]
        fn sums_and_products_are_floats(a in 0i64..1_000_000, b in 1i64..1_000_000, c in 0.0f64..1e6) {
            let rounded = |f: f64| float_repr(round2(f));
            proptest::prop_assert_eq!(of(&format!("{a} + {b} * {a}")), rounded((a + b * a) as f64));
            proptest::prop_assert_eq!(of(&format!("({a} - {b}) / {b}")), rounded((a - b) as f64 / b as f64));
            proptest::prop_assert_eq!(of(&format!("{c:.4} * {b}")), rounded(format!("{c:.4}").parse::<f64>().unwrap() * b as f64));
        }
    }
}
