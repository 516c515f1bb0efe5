//! What stands in `{% … %}`.

use super::{DEPTH, OPEN, Parser, Read, Written};
use crate::lexer::Token;

impl<'l> Parser<'l> {
    /// A statement; `open` are those that it stands in.
    pub(super) fn statement(&mut self, open: &mut Vec<&'static str>) -> Read<String> {
        let name = self.name()?;
        if open.len() > OPEN {
            return self.broken("the statements nest too deep");
        }
        let within = open.last().copied();
        let mut begin = |kind| open.push(kind);
        Ok(match name {
            "if" => {
                begin("if");
                format!("if {}", self.tuple()?.0)
            }
            "elif" if matches!(within, Some("if" | "elif")) => {
                begin("elif");
                format!("elif {}", self.tuple()?.0)
            }
            "else" if matches!(within, Some("if" | "elif" | "for")) => "else".into(),
            "for" => {
                begin("for");
                let targets = self.targets()?;
                if !self.skip_word("in") {
                    return self.unexpected("`in`");
                }
                let over = self.iterated()?;
                let test = if self.skip_word("if") { format!(" if {}", self.expression()?.0) } else { String::new() };
                let recursive = if self.skip_word("recursive") { " recursive" } else { "" };
                format!("for {targets} in {over}{test}{recursive}")
            }
            "set" => {
                let targets = self.targets()?;
                if self.skip_sign("=") {
                    format!("set {targets} = {}", self.tuple()?.0)
                } else {
                    begin("set");
                    let filters = self.filters(Written(targets, false))?;
                    format!("set {}", filters.0)
                }
            }
            "macro" => {
                begin("macro");
                let name = self.name()?;
                format!("macro {name}{}", self.signature()?)
            }
            "call" => {
                begin("call");
                let signature = if self.sign("(") { self.signature()? } else { String::new() };
                format!("call{signature} {}", self.expression()?.0)
            }
            "filter" => {
                begin("filter");
                let name = self.name()?;
                let arguments = if self.skip_sign("(") { self.arguments()? } else { String::new() };
                let filter = Written(String::new(), false).filter(name, &arguments);
                let filters = self.filters(filter)?;
                format!("filter {}", filters.0.trim_start_matches('|'))
            }
            "with" => {
                begin("with");
                let mut pairs = Vec::new();
                while self.peek().is_some() {
                    let target = self.targets()?;
                    self.need("=")?;
                    pairs.push(format!("{target} = {}", self.expression()?.0));
                    if !self.skip_sign(",") {
                        break;
                    }
                }
                format!("with {}", pairs.join(", "))
            }
            // A chat template marks so what a model is trained on; the text and its scope are a `with` block's.
            "generation" => {
                begin("generation");
                "with".into()
            }
            "block" => {
                begin("block");
                let name = self.name()?;
                while matches!(self.peek(), Some(Token::Name(n)) if n == "scoped" || n == "required") {
                    self.at += 1;
                }
                format!("block {name}")
            }
            "break" | "continue" => name.to_owned(),
            // There is no loader.
            "include" | "import" | "from" | "extends" => {
                self.at = self.lexemes.len();
                format!("__fail(\"`{name}` needs other templates, and there are none\")")
            }
            "endif" if within == Some("elif") => {
                while open.pop() == Some("elif") {}
                "endif".into()
            }
            end if end.strip_prefix("end").is_some_and(|kind| Some(kind) == within) => {
                open.pop();
                if end == "endblock" && self.peek().is_some() {
                    self.name()?;
                }
                if end == "endgeneration" { "endwith".into() } else { end.to_owned() }
            }
            other => {
                return self.broken(match within {
                    Some(kind) => format!("unexpected tag `{other}` within `{kind}`"),
                    None => format!("unexpected tag `{other}`"),
                });
            }
        })
    }

    /// `a`, `a.b`, `a, b` or `(a, b)`.
    fn targets(&mut self) -> Read<String> {
        let mut names = Vec::new();
        let mut several = false;
        loop {
            if self.skip_sign("(") {
                self.depth += 1;
                if self.depth > DEPTH {
                    return self.broken("the targets nest too deep");
                }
                let inner = self.targets()?;
                self.depth -= 1;
                names.push(format!("({inner})"));
                self.need(")")?;
            } else {
                let name = self.name()?;
                if matches!(name, "true" | "false" | "none" | "True" | "False" | "None") {
                    return self.broken(format!("cannot assign to `{name}`"));
                }
                names.push(if self.skip_sign(".") { format!("{name}.{}", self.name()?) } else { name.to_owned() });
            }
            if !self.skip_sign(",") {
                break;
            }
            several = true;
            if !matches!(self.peek(), Some(Token::Name(n)) if n != "in") && !self.sign("(") {
                break;
            }
        }
        Ok(if several { format!("({},)", names.join(", ")) } else { names.join(", ") })
    }

    fn signature(&mut self) -> Read<String> {
        self.need("(")?;
        let mut parts = Vec::new();
        while !self.sign(")") {
            let name = self.name()?;
            parts.push(if self.skip_sign("=") { format!("{name}={}", self.expression()?.0) } else { name.to_owned() });
            if !self.skip_sign(",") {
                break;
            }
        }
        self.need(")")?;
        Ok(format!("({})", parts.join(", ")))
    }

    /// What a `for` runs over; jinja reads no `a if b else c` here, since `if` filters.
    fn iterated(&mut self) -> Read<String> {
        let first = self.or()?;
        if !self.sign(",") {
            return Ok(first.filter("__iter", "").0);
        }
        let mut items = vec![first.0];
        while self.skip_sign(",") && self.peek().is_some() && !self.word("if") && !self.word("recursive") {
            items.push(self.or()?.0);
        }
        Ok(format!("__tuple({})", items.join(", ")))
    }
}
