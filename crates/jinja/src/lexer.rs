//! Jinja's lexer: what is text, what is a tag, and which blanks and newlines belong to neither.
//!
//! Follows pallets/jinja@3.1.6:src/jinja2/lexer.py under `trim_blocks` and `lstrip_blocks`, which chat templates are written for.
//! Minijinja has a lexer of its own, but it counts other characters as blanks and does not know how Python reads
//! the escapes of a string.

use crate::SyntaxError;

/// A piece of a template, with the line it starts on.
#[derive(Debug, PartialEq)]
pub(crate) enum Piece {
    /// Written as it stands.
    Text(String, usize),
    /// `{{ … }}`.
    Print(Vec<Lexeme>, usize),
    /// `{% … %}`.
    Statement(Vec<Lexeme>, usize),
}

/// A word of an expression, and its line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Lexeme {
    pub(crate) token: Token,
    pub(crate) line: usize,
}

/// What a word is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    Name(String),
    Text(String),
    Integer(i128),
    Float(f64),
    Sign(&'static str),
}

/// Longest first, so that `//` is not read as two `/`.
const SIGNS: [&str; 27] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".",
    ":", "|", ",", ";", "!",
];

/// What Python's `str.isspace` and `\s` take as a blank: Unicode's blanks and the four separators \x1c to \x1f.
pub(crate) fn is_blank(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// Cuts a template into pieces.
pub(crate) fn pieces(source: &str) -> Result<Vec<Piece>, SyntaxError> {
    let mut source = source.replace("\r\n", "\n").replace('\r', "\n");
    if source.ends_with('\n') {
        source.pop();
    }
    Lexer { rest: &source, line: 1, fresh: true, pieces: Vec::new() }.run()
}

struct Lexer<'s> {
    rest: &'s str,
    line: usize,
    /// Whether a line starts here, as far as jinja sees: it looks only at what it has just read.
    fresh: bool,
    pieces: Vec<Piece>,
}

impl<'s> Lexer<'s> {
    fn run(mut self) -> Result<Vec<Piece>, SyntaxError> {
        while let Some((at, kind)) = self.next_tag() {
            let text = &self.rest[..at];
            let line = self.line;
            self.take(at + 2);
            let kept = self.before_tag(text, kind != b'{');
            self.text(kept, line);
            match kind {
                b'#' => {
                    let Some(end) = self.rest.find("#}") else {
                        return Err(SyntaxError::at(self.line, "a comment is never closed"));
                    };
                    let mark = self.rest[..end].chars().next_back();
                    self.take(end + 2);
                    self.after_tag(mark, true);
                }
                b'%' if self.raw_tag("raw").is_some() => self.raw()?,
                _ => {
                    let (lexemes, mark) = self.lexemes(kind)?;
                    self.pieces.push(match kind {
                        b'{' => Piece::Print(lexemes, line + text.matches('\n').count()),
                        _ => Piece::Statement(lexemes, line + text.matches('\n').count()),
                    });
                    self.after_tag(mark, kind == b'%');
                }
            }
        }
        let (rest, line) = (self.rest, self.line);
        self.text(rest, line);
        Ok(self.pieces)
    }

    fn next_tag(&self) -> Option<(usize, u8)> {
        let bytes = self.rest.as_bytes();
        bytes.windows(2).position(|w| w[0] == b'{' && matches!(w[1], b'{' | b'%' | b'#')).map(|at| (at, bytes[at + 1]))
    }

    fn take(&mut self, count: usize) -> &'s str {
        let (taken, rest) = self.rest.split_at(count);
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }

    fn text(&mut self, text: &str, line: usize) {
        if !text.is_empty() {
            self.pieces.push(Piece::Text(text.to_owned(), line));
        }
    }

    /// The text before a tag without what `-` or `lstrip_blocks` takes from it; reads the tag's mark.
    fn before_tag(&mut self, text: &'s str, block: bool) -> &'s str {
        let fresh = std::mem::replace(&mut self.fresh, false);
        match self.rest.as_bytes().first() {
            Some(b'-') => {
                self.take(1);
                text.trim_end_matches(is_blank)
            }
            Some(b'+') => {
                self.take(1);
                text
            }
            _ if block => {
                let start = text.rfind('\n').map_or(0, |at| at + 1);
                let blank = text[start..].chars().all(is_blank);
                if blank && (start > 0 || fresh) { &text[..start] } else { text }
            }
            _ => text,
        }
    }

    /// Takes what `-` or `trim_blocks` takes after a tag.
    fn after_tag(&mut self, mark: Option<char>, trim: bool) {
        let count = match mark {
            Some('-') => self.rest.len() - self.rest.trim_start_matches(is_blank).len(),
            Some('+') => 0,
            _ => usize::from(trim && self.rest.starts_with('\n')),
        };
        self.fresh = self.take(count).ends_with('\n');
    }

    /// The length of `raw -%}` or `endraw %}` here, and its mark.
    fn raw_tag(&self, name: &str) -> Option<(usize, Option<char>)> {
        let rest = self.rest.trim_start_matches(is_blank).strip_prefix(name)?.trim_start_matches(is_blank);
        let mark = rest.chars().next().filter(|c| matches!(c, '-' | '+'));
        let rest = rest[mark.map_or(0, char::len_utf8)..].strip_prefix("%}")?;
        Some((self.rest.len() - rest.len(), mark))
    }

    fn raw(&mut self) -> Result<(), SyntaxError> {
        let start = self.line;
        if let Some((length, mark)) = self.raw_tag("raw") {
            self.take(length);
            // The start of a raw block does not take a newline, unlike other tags.
            self.after_tag(mark, false);
        }
        let mut from = 0;
        while let Some(at) = self.rest[from..].find("{%").map(|at| from + at) {
            let (text, line) = (&self.rest[..at], self.line);
            let marked = at + 2 + usize::from(matches!(self.rest.as_bytes().get(at + 2), Some(b'-' | b'+')));
            let tail = Lexer { rest: &self.rest[marked..], line, fresh: false, pieces: Vec::new() };
            let Some((length, mark)) = tail.raw_tag("endraw") else {
                from = at + 2;
                continue;
            };
            self.take(at + 2);
            let kept = self.before_tag(text, true);
            self.text(kept, line);
            self.take(length);
            self.after_tag(mark, true);
            return Ok(());
        }
        Err(SyntaxError::at(start, "a raw block is never closed"))
    }

    /// The words up to the end of the tag, and the mark before that end.
    fn lexemes(&mut self, kind: u8) -> Result<(Vec<Lexeme>, Option<char>), SyntaxError> {
        let start = self.line;
        let end = if kind == b'{' { "}}" } else { "%}" };
        let (mut lexemes, mut open) = (Vec::new(), Vec::new());
        loop {
            let blanks = self.rest.len() - self.rest.trim_start_matches(is_blank).len();
            self.take(blanks);
            if open.is_empty() {
                for mark in ["-", if kind == b'{' { "-" } else { "+" }, ""] {
                    if self.rest.strip_prefix(mark).is_some_and(|rest| rest.starts_with(end)) {
                        self.take(mark.len() + 2);
                        return Ok((lexemes, mark.chars().next()));
                    }
                }
            }
            let line = self.line;
            let Some(first) = self.rest.chars().next() else {
                return Err(SyntaxError::at(start, format!("a tag is never closed with `{end}`")));
            };
            let token = if first == '"' || first == '\'' {
                self.string(first)?
            } else if first.is_ascii_digit() {
                self.number()?
            } else if first.is_alphanumeric() || first == '_' {
                let length = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest.len());
                Token::Name(self.take(length).to_owned())
            } else {
                let Some(sign) = SIGNS.into_iter().find(|sign| self.rest.starts_with(sign)) else {
                    return Err(SyntaxError::at(line, format!("unexpected `{first}`")));
                };
                match sign {
                    "(" => open.push(")"),
                    "[" => open.push("]"),
                    "{" => open.push("}"),
                    ")" | "]" | "}" if open.pop() != Some(sign) => {
                        return Err(SyntaxError::at(line, format!("unexpected `{sign}`")));
                    }
                    _ => {}
                }
                self.take(sign.len());
                Token::Sign(sign)
            };
            lexemes.push(Lexeme { token, line });
        }
    }

    fn number(&mut self) -> Result<Token, SyntaxError> {
        let line = self.line;
        let bytes = self.rest.as_bytes();
        let digits =
            |from: usize| from + bytes[from..].iter().take_while(|b| b.is_ascii_digit() || **b == b'_').count();
        let broken = |text: &str| SyntaxError::at(line, format!("`{text}` is not a number"));
        let radix = match bytes.get(..2) {
            Some(b"0x" | b"0X") => 16,
            Some(b"0o" | b"0O") => 8,
            Some(b"0b" | b"0B") => 2,
            _ => 10,
        };
        if radix != 10 {
            let length = 2 + bytes[2..].iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count();
            let text = self.take(length);
            let value = i128::from_str_radix(&text[2..].replace('_', ""), radix).map_err(|_| broken(text))?;
            return Ok(Token::Integer(value));
        }
        let whole = digits(0);
        let mut end = whole;
        if bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
            end = digits(end + 1);
        }
        if matches!(bytes.get(end), Some(b'e' | b'E')) {
            let sign = end + 1 + usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            if bytes.get(sign).is_some_and(u8::is_ascii_digit) {
                end = digits(sign);
            }
        }
        let text = self.take(end);
        let plain = text.replace('_', "");
        if end == whole {
            plain.parse().map(Token::Integer).map_err(|_| broken(text))
        } else {
            plain.parse().map(Token::Float).map_err(|_| broken(text))
        }
    }

    /// A string, its escapes read as Python does: an unknown one stays as it is written.
    fn string(&mut self, quote: char) -> Result<Token, SyntaxError> {
        let line = self.line;
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1).peekable();
        while let Some((at, c)) = chars.next() {
            if c == quote {
                self.take(at + 1);
                return Ok(Token::Text(text));
            }
            if c != '\\' {
                text.push(c);
                continue;
            }
            let Some((from, escape)) = chars.next() else { break };
            let hex = |count: usize| {
                let digits = self.rest.get(from + 1..from + 1 + count)?;
                char::from_u32(u32::from_str_radix(digits, 16).ok()?)
            };
            let (read, skip) = match escape {
                '\n' => (None, 0),
                'n' => (Some('\n'), 0),
                't' => (Some('\t'), 0),
                'r' => (Some('\r'), 0),
                'a' => (Some('\x07'), 0),
                'b' => (Some('\x08'), 0),
                'f' => (Some('\x0c'), 0),
                'v' => (Some('\x0b'), 0),
                '\\' | '\'' | '"' => (Some(escape), 0),
                '0'..='7' => {
                    let rest = &self.rest[from..];
                    let count = rest.bytes().take(3).take_while(|b| (b'0'..=b'7').contains(b)).count();
                    (u32::from_str_radix(&rest[..count], 8).ok().and_then(char::from_u32), count - 1)
                }
                'x' | 'u' | 'U' => {
                    let count = match escape {
                        'x' => 2,
                        'u' => 4,
                        _ => 8,
                    };
                    let Some(read) = hex(count) else {
                        return Err(SyntaxError::at(line, format!("a string holds a broken `\\{escape}`")));
                    };
                    (Some(read), count)
                }
                other => {
                    text.push('\\');
                    (Some(other), 0)
                }
            };
            text.extend(read);
            for _ in 0..skip {
                chars.next();
            }
        }
        Err(SyntaxError::at(line, "a string is never closed"))
    }
}
