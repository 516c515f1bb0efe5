//! Turns a template into one for minijinja in which every operation that Python does otherwise is a filter of ours.
//!
//! Minijinja's operators cannot be replaced, and they are neither Python's (`%`, slices, `~` of a list) nor bounded:
//! forty doublings of a string would take all memory there is. So the template's expressions are parsed by jinja's own
//! grammar (pallets/jinja@3.1.6:src/jinja2/parser.py) and written again: `a + b` becomes `a|__add(b)`. Text becomes a
//! printed string, so that all that is written passes one place that counts. Statements, scopes, macros and
//! loops stay minijinja's. Lines are kept, since its errors name them.

mod expressions;
mod statements;

use crate::SyntaxError;
use crate::lexer::{Lexeme, Piece, Token, pieces};

/// How deep an expression may nest, and how many operations it may chain: minijinja's parser and compiler recurse.
const DEPTH: usize = 40;
const CHAIN: usize = 400;
/// How many statements may be open at once. Each `elif` counts: minijinja reads it as an `if` within the `else`, and
/// unlike other nesting it does not limit that.
const OPEN: usize = 120;

/// Rewrites a template.
pub(crate) fn desugar(source: &str) -> Result<String, SyntaxError> {
    let mut out = Writer { text: String::with_capacity(source.len() * 2), line: 1 };
    let mut open: Vec<&'static str> = Vec::new();
    for piece in pieces(source)? {
        match piece {
            Piece::Text(text, line) => {
                out.start("{{", line);
                quote(&text, &mut out.text);
                out.text.push_str("}}");
            }
            Piece::Print(lexemes, line) => {
                let mut parser = Parser::new(&lexemes, line);
                let text = parser.tuple()?.0;
                parser.end()?;
                out.start("{{", line);
                out.text.push_str(&text);
                out.text.push_str("}}");
            }
            Piece::Statement(lexemes, line) => {
                let mut parser = Parser::new(&lexemes, line);
                let text = parser.statement(&mut open)?;
                parser.end()?;
                out.start(if text.starts_with("__fail(") { "{{" } else { "{%" }, line);
                out.text.push_str(&text);
                out.text.push_str(if text.starts_with("__fail(") { "}}" } else { "%}" });
            }
        }
    }
    match open.pop() {
        Some(name) => Err(SyntaxError::at(out.line, format!("`{name}` is never closed"))),
        None => Ok(out.text),
    }
}

struct Writer {
    text: String,
    line: usize,
}

impl Writer {
    fn start(&mut self, tag: &str, line: usize) {
        self.text.push_str(tag);
        self.text.push(' ');
        for _ in self.line..line {
            self.text.push('\n');
        }
        self.line = self.line.max(line);
    }
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// An expression as minijinja reads it, and whether `.name` and `(…)` may follow it.
struct Written(String, bool);

impl Written {
    fn bare(self) -> String {
        if self.1 { self.0 } else { format!("({})", self.0) }
    }
    fn filter(self, name: &str, arguments: &str) -> Self {
        let mut text = self.0;
        text.push('|');
        text.push_str(name);
        if !arguments.is_empty() {
            text.push('(');
            text.push_str(arguments);
            text.push(')');
        }
        Self(text, false)
    }
}

struct Parser<'l> {
    lexemes: &'l [Lexeme],
    at: usize,
    line: usize,
    depth: usize,
    chain: usize,
}

type Read<T> = Result<T, SyntaxError>;

impl<'l> Parser<'l> {
    fn new(lexemes: &'l [Lexeme], line: usize) -> Self {
        Self { lexemes, at: 0, line, depth: 0, chain: 0 }
    }
    fn peek(&self) -> Option<&'l Token> {
        self.lexemes.get(self.at).map(|l| &l.token)
    }
    fn sign(&self, sign: &str) -> bool {
        matches!(self.peek(), Some(Token::Sign(s)) if *s == sign)
    }
    fn word(&self, name: &str) -> bool {
        matches!(self.peek(), Some(Token::Name(n)) if n == name)
    }
    fn skip_sign(&mut self, sign: &str) -> bool {
        let found = self.sign(sign);
        self.at += usize::from(found);
        found
    }
    fn skip_word(&mut self, name: &str) -> bool {
        let found = self.word(name);
        self.at += usize::from(found);
        found
    }
    fn broken<T>(&self, reason: impl Into<String>) -> Read<T> {
        let line = self.lexemes.get(self.at).or(self.lexemes.last()).map_or(self.line, |l| l.line);
        Err(SyntaxError::at(line, reason))
    }
    fn unexpected<T>(&self, wanted: &str) -> Read<T> {
        let found = match self.peek() {
            None => "the end of the tag".into(),
            Some(Token::Name(name)) => format!("`{name}`"),
            Some(Token::Text(text)) => format!("the string {text:?}"),
            Some(Token::Integer(n)) => format!("`{n}`"),
            Some(Token::Float(x)) => format!("`{x}`"),
            Some(Token::Sign(sign)) => format!("`{sign}`"),
        };
        self.broken(format!("expected {wanted}, found {found}"))
    }
    fn need(&mut self, sign: &str) -> Read<()> {
        if self.skip_sign(sign) { Ok(()) } else { self.unexpected(&format!("`{sign}`")) }
    }
    fn name(&mut self) -> Read<&'l str> {
        match self.peek() {
            Some(Token::Name(name)) => {
                self.at += 1;
                Ok(name)
            }
            _ => self.unexpected("a name"),
        }
    }
    fn end(&self) -> Read<()> {
        if self.at == self.lexemes.len() { Ok(()) } else { self.unexpected("the end of the tag") }
    }
    fn link(&mut self) -> Read<()> {
        self.chain += 1;
        if self.chain > CHAIN { self.broken("the expression is too long") } else { Ok(()) }
    }
}
