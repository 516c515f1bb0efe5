//! What gives a value: jinja's grammar of expressions, lowest precedence first.

use super::{DEPTH, Parser, Read, Written, quote};
use crate::lexer::Token;
use std::fmt::Write;

impl Parser<'_> {
    /// An expression, or several with commas: a tuple.
    pub(super) fn tuple(&mut self) -> Read<Written> {
        let first = self.expression()?;
        if !self.sign(",") {
            return Ok(first);
        }
        let mut items = vec![first.0];
        while self.skip_sign(",") && self.peek().is_some() && !self.sign(")") {
            items.push(self.expression()?.0);
        }
        Ok(Written(format!("__tuple({})", items.join(", ")), true))
    }

    pub(super) fn expression(&mut self) -> Read<Written> {
        self.depth += 1;
        if self.depth > DEPTH {
            return self.broken("the expression nests too deep");
        }
        let mut value = self.or()?;
        while self.skip_word("if") {
            self.link()?;
            let test = self.or()?.0;
            let other = if self.skip_word("else") { self.expression()?.0 } else { "__undefined".into() };
            value = Written(format!("({} if {test} else {other})", value.0), true);
        }
        self.depth -= 1;
        Ok(value)
    }

    pub(super) fn or(&mut self) -> Read<Written> {
        self.joined("or", Self::and)
    }
    fn and(&mut self) -> Read<Written> {
        self.joined("and", Self::not)
    }
    fn joined(&mut self, word: &str, part: fn(&mut Self) -> Read<Written>) -> Read<Written> {
        let first = part(self)?;
        if !self.word(word) {
            return Ok(first);
        }
        let mut text = first.0;
        while self.skip_word(word) {
            self.link()?;
            let _ = write!(text, " {word} {}", part(self)?.0);
        }
        Ok(Written(format!("({text})"), true))
    }
    fn not(&mut self) -> Read<Written> {
        let mut count = 0;
        while self.skip_word("not") {
            count += 1;
        }
        let value = self.comparison()?;
        Ok(match count {
            0 => value,
            n if n % 2 == 1 => Written(format!("(not {})", value.0), true),
            _ => Written(format!("(not (not {}))", value.0), true),
        })
    }

    fn comparison(&mut self) -> Read<Written> {
        let mut left = self.sum()?;
        let mut parts = Vec::new();
        loop {
            let (name, negated) = match self.peek() {
                Some(Token::Sign("==")) => ("__eq", false),
                Some(Token::Sign("!=")) => ("__ne", false),
                Some(Token::Sign("<")) => ("__lt", false),
                Some(Token::Sign("<=")) => ("__le", false),
                Some(Token::Sign(">")) => ("__gt", false),
                Some(Token::Sign(">=")) => ("__ge", false),
                Some(Token::Name(n)) if n == "in" => ("__in", false),
                Some(Token::Name(n)) if n == "not" => {
                    let next = self.lexemes.get(self.at + 1).map(|l| &l.token);
                    if !matches!(next, Some(Token::Name(n)) if n == "in") {
                        break;
                    }
                    self.at += 1;
                    ("__in", true)
                }
                _ => break,
            };
            self.at += 1;
            self.link()?;
            let right = self.sum()?;
            let part = left.filter(name, &right.0);
            parts.push(if negated { Written(format!("(not {})", part.0), true) } else { part });
            left = right;
        }
        Ok(match parts.len() {
            0 => left,
            1 => parts.swap_remove(0),
            _ => {
                let parts: Vec<_> = parts.into_iter().map(|part| part.0).collect();
                Written(format!("({})", parts.join(" and ")), true)
            }
        })
    }

    fn operations(&mut self, table: &[(&str, &str)], part: fn(&mut Self) -> Read<Written>) -> Read<Written> {
        let mut left = part(self)?;
        while let Some((_, name)) = table.iter().find(|(sign, _)| self.sign(sign)) {
            self.at += 1;
            self.link()?;
            let right = part(self)?;
            left = left.filter(name, &right.0);
        }
        Ok(left)
    }
    fn sum(&mut self) -> Read<Written> {
        self.operations(&[("+", "__add"), ("-", "__sub")], Self::concatenation)
    }
    /// All of `a ~ b ~ c` at once, or a long chain would copy its start again and again.
    fn concatenation(&mut self) -> Read<Written> {
        let first = self.product()?;
        if !self.sign("~") {
            return Ok(first);
        }
        let mut rest = Vec::new();
        while self.skip_sign("~") {
            self.link()?;
            rest.push(self.product()?.0);
        }
        Ok(first.filter("__concat", &rest.join(", ")))
    }
    fn product(&mut self) -> Read<Written> {
        self.operations(&[("*", "__mul"), ("/", "__div"), ("//", "__floordiv"), ("%", "__mod")], Self::power)
    }
    fn power(&mut self) -> Read<Written> {
        self.operations(&[("**", "__pow")], |parser| parser.unary(true))
    }
    fn unary(&mut self, filtered: bool) -> Read<Written> {
        let mut signs = Vec::new();
        while let Some(Token::Sign(sign @ ("-" | "+"))) = self.peek() {
            self.at += 1;
            self.link()?;
            signs.push(if *sign == "-" { "__neg" } else { "__pos" });
        }
        let value = self.primary()?;
        let mut value = self.postfix(value)?;
        while let Some(sign) = signs.pop() {
            value = value.filter(sign, "");
        }
        if filtered { self.filters(value) } else { Ok(value) }
    }

    fn primary(&mut self) -> Read<Written> {
        let Some(token) = self.peek() else { return self.unexpected("an expression") };
        self.at += 1;
        let text = match token {
            Token::Name(name) => match name.as_str() {
                "true" | "True" => "true".into(),
                "false" | "False" => "false".into(),
                "none" | "None" => "none".into(),
                "and" | "or" | "not" | "if" | "else" | "in" | "is" => {
                    self.at -= 1;
                    return self.unexpected("an expression");
                }
                name => name.to_owned(),
            },
            Token::Text(text) => {
                let mut all = text.clone();
                while let Some(Token::Text(next)) = self.peek() {
                    all.push_str(next);
                    self.at += 1;
                }
                let mut quoted = String::with_capacity(all.len() + 2);
                quote(&all, &mut quoted);
                quoted
            }
            Token::Integer(n) => n.to_string(),
            Token::Float(x) if x.is_finite() => format!("__float(\"{x:?}\")"),
            Token::Float(_) => "__float(\"inf\")".into(),
            Token::Sign("(") => {
                if self.skip_sign(")") {
                    "__tuple()".into()
                } else {
                    let inner = self.nested(|parser| parser.tuple())?;
                    self.need(")")?;
                    return Ok(Written(inner.bare(), true));
                }
            }
            Token::Sign("[") => {
                let items = self.nested(|parser| parser.items("]"))?;
                format!("__list({items})")
            }
            Token::Sign("{") => {
                let pairs = self.nested(Self::pairs)?;
                return Ok(Written(format!("{{{pairs}}}"), true).filter("__dict", ""));
            }
            Token::Sign(_) => {
                self.at -= 1;
                return self.unexpected("an expression");
            }
        };
        Ok(Written(text, true))
    }

    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<T> {
        self.depth += 1;
        if self.depth > DEPTH {
            return self.broken("the expression nests too deep");
        }
        let value = read(self);
        self.depth -= 1;
        value
    }

    fn items(&mut self, close: &str) -> Read<String> {
        let mut items = Vec::new();
        while !self.sign(close) {
            items.push(self.expression()?.0);
            if !self.skip_sign(",") {
                break;
            }
        }
        self.need(close)?;
        Ok(items.join(", "))
    }

    fn pairs(&mut self) -> Read<String> {
        let mut pairs = Vec::new();
        while !self.sign("}") {
            let key = self.expression()?.0;
            self.need(":")?;
            pairs.push(format!("{key}: {}", self.expression()?.0));
            if !self.skip_sign(",") {
                break;
            }
        }
        self.need("}")?;
        Ok(pairs.join(", "))
    }

    fn postfix(&mut self, mut value: Written) -> Read<Written> {
        loop {
            if self.skip_sign(".") {
                self.link()?;
                value = match self.peek() {
                    Some(Token::Integer(n)) => {
                        self.at += 1;
                        value.filter("__item", &n.to_string())
                    }
                    _ => Written(format!("{}.{}", value.bare(), self.name()?), true),
                };
            } else if self.skip_sign("[") {
                self.link()?;
                value = self.subscript(value)?;
            } else if self.skip_sign("(") {
                value = self.called(value)?;
            } else {
                return Ok(value);
            }
        }
    }

    fn called(&mut self, value: Written) -> Read<Written> {
        self.link()?;
        let arguments = self.arguments()?;
        Ok(Written(format!("{}({arguments})", value.bare()), true))
    }

    fn subscript(&mut self, value: Written) -> Read<Written> {
        self.nested(|parser| {
            let mut parts: Vec<Option<String>> = vec![None];
            while !parser.sign("]") {
                if parser.skip_sign(":") {
                    parts.push(None);
                } else if let Some(part @ None) = parts.last_mut() {
                    *part = Some(parser.tuple()?.0);
                } else {
                    break;
                }
            }
            parser.need("]")?;
            match parts.as_slice() {
                [Some(key)] => Ok(value.filter("__item", key)),
                [_, _] | [_, _, _] => {
                    let parts: Vec<_> = parts.into_iter().map(|p| p.unwrap_or_else(|| "none".into())).collect();
                    Ok(value.filter("__slice", &parts.join(", ")))
                }
                _ => parser.unexpected("an index"),
            }
        })
    }

    /// Arguments of a call, up to and with the closing parenthesis.
    pub(super) fn arguments(&mut self) -> Read<String> {
        self.nested(|parser| {
            let mut parts = Vec::new();
            while !parser.sign(")") {
                let named = matches!(parser.lexemes.get(parser.at + 1).map(|l| &l.token), Some(Token::Sign("=")));
                parts.push(if parser.skip_sign("**") {
                    format!("**{}", parser.expression()?.0)
                } else if parser.skip_sign("*") {
                    format!("*{}", parser.expression()?.filter("__iter", "").0)
                } else if named {
                    let name = parser.name()?;
                    parser.at += 1;
                    format!("{name}={}", parser.expression()?.0)
                } else {
                    parser.expression()?.0
                });
                if !parser.skip_sign(",") {
                    break;
                }
            }
            parser.need(")")?;
            Ok(parts.join(", "))
        })
    }

    /// `|filter`, `is test` and calls of what they give.
    pub(super) fn filters(&mut self, mut value: Written) -> Read<Written> {
        loop {
            if self.skip_sign("|") {
                self.link()?;
                let mut name = self.name()?.to_owned();
                while self.skip_sign(".") {
                    name = format!("{name}.{}", self.name()?);
                }
                let arguments = if self.skip_sign("(") { self.arguments()? } else { String::new() };
                value = value.filter(&name, &arguments);
            } else if self.skip_word("is") {
                self.link()?;
                value = self.test(value)?;
            } else if self.skip_sign("(") {
                value = self.called(value)?;
            } else {
                return Ok(value);
            }
        }
    }

    fn test(&mut self, value: Written) -> Read<Written> {
        let negated = self.skip_word("not");
        let name = self.name()?;
        let argument = match self.peek() {
            Some(Token::Sign("(")) => {
                self.at += 1;
                self.arguments()?
            }
            Some(Token::Name(word)) if matches!(word.as_str(), "else" | "or" | "and") => String::new(),
            Some(Token::Name(word)) if word == "is" => return self.broken("tests cannot be chained with `is`"),
            Some(Token::Name(_) | Token::Text(_) | Token::Integer(_) | Token::Float(_) | Token::Sign("[" | "{")) => {
                let argument = self.primary()?;
                self.postfix(argument)?.0
            }
            _ => String::new(),
        };
        let text = if name == "in" {
            value.filter("__in", &argument).0
        } else if argument.is_empty() {
            format!("{} is {name}", value.0)
        } else {
            format!("{} is {name}({argument})", value.0)
        };
        Ok(Written(if negated { format!("(not {text})") } else { format!("({text})") }, true))
    }
}
