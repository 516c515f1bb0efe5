//! JSON as CPython 3.11's `json.loads` reads it, its error messages and positions included.
//!
//! Harnesses show these messages to models, so they are part of the protocol. Source: the published behaviour of
//! CPython's `Modules/_json.c` and `Lib/json/decoder.py`.

use serde_json::{Map, Number, Value};

/// Nesting at which CPython gives up.
const MAX_DEPTH: usize = 990;

/// A parse error with CPython's wording.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}: line {line} column {column} (char {position})")]
pub struct JsonError {
    /// CPython's message.
    pub message: &'static str,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// From 0, in characters.
    pub position: usize,
}

/// Parses `text`. Duplicate keys: the last wins. `NaN` and the infinities, which JSON values cannot hold, become null;
/// lone surrogates become U+FFFD.
///
/// # Errors
/// With the message and position CPython gives.
pub fn loads(text: &str) -> Result<Value, JsonError> {
    loads_with(text, |_| Value::Null)
}

/// As [`loads`], with `constant` in place of `NaN` and the infinities; it is given `nan`, `inf` or `-inf`.
///
/// # Errors
/// As [`loads`].
pub fn loads_with(text: &str, constant: fn(&str) -> Value) -> Result<Value, JsonError> {
    let chars: Vec<char> = text.chars().collect();
    let mut parser = Parser { chars: &chars, at: 0, depth: 0, constant };
    let result = if chars.first() == Some(&'\u{feff}') {
        Err((0, "Unexpected UTF-8 BOM (decode using utf-8-sig)"))
    } else {
        parser.document()
    };
    result.map_err(|(position, message)| {
        let before = &chars[..position.min(chars.len())];
        let line = before.iter().filter(|c| **c == '\n').count() + 1;
        let column = before.iter().rev().take_while(|c| **c != '\n').count() + 1 + position.saturating_sub(chars.len());
        JsonError { message, line, column, position }
    })
}

type Failure = (usize, &'static str);

struct Parser<'a> {
    chars: &'a [char],
    at: usize,
    depth: usize,
    constant: fn(&str) -> Value,
}

impl Parser<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }
    fn blank(&mut self) {
        while matches!(self.peek(), Some(' ' | '\t' | '\n' | '\r')) {
            self.at += 1;
        }
    }
    fn literal(&mut self, word: &str) -> bool {
        let found = self.chars[self.at..].iter().copied().take(word.len()).eq(word.chars());
        if found {
            self.at += word.len();
        }
        found
    }
    fn document(&mut self) -> Result<Value, Failure> {
        self.blank();
        let value = self.value()?;
        self.blank();
        if self.at < self.chars.len() { Err((self.at, "Extra data")) } else { Ok(value) }
    }
    fn value(&mut self) -> Result<Value, Failure> {
        let start = self.at;
        match self.peek() {
            Some('"') => self.string().map(Value::String),
            Some('{') => self.nested(
                "maximum recursion depth exceeded while decoding a JSON object from a unicode string",
                Self::object,
            ),
            Some('[') => self.nested(
                "maximum recursion depth exceeded while decoding a JSON array from a unicode string",
                Self::array,
            ),
            Some('n') if self.literal("null") => Ok(Value::Null),
            Some('t') if self.literal("true") => Ok(Value::Bool(true)),
            Some('f') if self.literal("false") => Ok(Value::Bool(false)),
            Some('N') if self.literal("NaN") => Ok((self.constant)("nan")),
            Some('I') if self.literal("Infinity") => Ok((self.constant)("inf")),
            Some('-') if self.literal("-Infinity") => Ok((self.constant)("-inf")),
            Some('-' | '0'..='9') => self.number().ok_or((start, "Expecting value")),
            _ => Err((start, "Expecting value")),
        }
    }
    fn nested(
        &mut self,
        too_deep: &'static str,
        parse: fn(&mut Self) -> Result<Value, Failure>,
    ) -> Result<Value, Failure> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err((self.at, too_deep));
        }
        self.at += 1;
        self.blank();
        let value = parse(self)?;
        self.at += 1;
        self.depth -= 1;
        Ok(value)
    }
    fn object(&mut self) -> Result<Value, Failure> {
        let mut map = Map::new();
        if self.peek() == Some('}') {
            return Ok(Value::Object(map));
        }
        loop {
            if self.peek() != Some('"') {
                return Err((self.at, "Expecting property name enclosed in double quotes"));
            }
            let key = self.string()?;
            self.blank();
            if self.peek() != Some(':') {
                return Err((self.at, "Expecting ':' delimiter"));
            }
            self.at += 1;
            self.blank();
            let value = self.value()?;
            map.insert(key, value);
            self.blank();
            match self.peek() {
                Some('}') => return Ok(Value::Object(map)),
                Some(',') => self.at += 1,
                _ => return Err((self.at, "Expecting ',' delimiter")),
            }
            self.blank();
        }
    }
    fn array(&mut self) -> Result<Value, Failure> {
        let mut items = Vec::new();
        if self.peek() == Some(']') {
            return Ok(Value::Array(items));
        }
        loop {
            items.push(self.value()?);
            self.blank();
            match self.peek() {
                Some(']') => return Ok(Value::Array(items)),
                Some(',') => self.at += 1,
                _ => return Err((self.at, "Expecting ',' delimiter")),
            }
            self.blank();
        }
    }
    fn number(&mut self) -> Option<Value> {
        let start = self.at;
        let digits = |at: usize| self.chars[at..].iter().take_while(|c| c.is_ascii_digit()).count();
        let mut end = start + usize::from(self.peek() == Some('-'));
        end += match self.chars.get(end) {
            Some('0') => 1,
            Some('1'..='9') => digits(end),
            _ => return None,
        };
        let mut integer = true;
        if self.chars.get(end) == Some(&'.') && digits(end + 1) > 0 {
            integer = false;
            end += 1 + digits(end + 1);
        }
        if matches!(self.chars.get(end), Some('e' | 'E')) {
            let sign = usize::from(matches!(self.chars.get(end + 1), Some('+' | '-')));
            if digits(end + 1 + sign) > 0 {
                integer = false;
                end += 1 + sign + digits(end + 1 + sign);
            }
        }
        self.at = end;
        let text: String = self.chars[start..end].iter().collect();
        if integer {
            if let Ok(n) = text.parse::<i64>() {
                return Some(n.into());
            }
            if let Ok(n) = text.parse::<u64>() {
                return Some(n.into());
            }
        }
        Some(text.parse().ok().and_then(Number::from_f64).map_or(Value::Null, Value::Number))
    }
    fn string(&mut self) -> Result<String, Failure> {
        let begin = self.at;
        let unterminated = (begin, "Unterminated string starting at");
        let mut out = String::new();
        self.at += 1;
        loop {
            match self.peek().ok_or(unterminated)? {
                '"' => {
                    self.at += 1;
                    return Ok(out);
                }
                '\\' => self.escape(&mut out, unterminated)?,
                c if c < ' ' => return Err((self.at, "Invalid control character at")),
                c => {
                    out.push(c);
                    self.at += 1;
                }
            }
        }
    }
    fn escape(&mut self, out: &mut String, unterminated: Failure) -> Result<(), Failure> {
        let backslash = self.at;
        let c = match *self.chars.get(backslash + 1).ok_or(unterminated)? {
            c @ ('"' | '\\' | '/') => c,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let first = self.hex(backslash + 2)?;
                self.at = backslash + 6;
                let low = (0xD800..0xDC00).contains(&first)
                    && self.chars.get(self.at) == Some(&'\\')
                    && self.chars.get(self.at + 1) == Some(&'u');
                if low && let Ok(second @ 0xDC00..=0xDFFF) = self.hex(self.at + 2) {
                    self.at += 6;
                    out.extend(char::from_u32(0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00)));
                } else {
                    out.push(char::from_u32(first).unwrap_or('\u{fffd}'));
                }
                return Ok(());
            }
            _ => return Err((backslash, "Invalid \\escape")),
        };
        out.push(c);
        self.at = backslash + 2;
        Ok(())
    }
    /// Four hexadecimal digits at `at`, which must not be the last characters of the text.
    fn hex(&self, at: usize) -> Result<u32, Failure> {
        if at + 4 >= self.chars.len() {
            return Err((at, "Invalid \\uXXXX escape"));
        }
        self.chars[at..at + 4]
            .iter()
            .try_fold(0, |n, c| c.to_digit(16).map(|d| n * 16 + d))
            .ok_or((at - 1, "Invalid \\uXXXX escape"))
    }
}

/// Python's `json.dumps` with default separators and `ensure_ascii`.
#[must_use]
pub fn dumps(value: &Value) -> String {
    let mut out = String::new();
    dump(value, &mut out);
    out
}

fn dump(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Number(n) => out.push_str(&number_repr(n)),
        Value::String(s) => dump_string(s, out),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                dump(item, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            out.push('{');
            for (i, (key, item)) in map.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                dump_string(key, out);
                out.push_str(": ");
                dump(item, out);
            }
            out.push('}');
        }
    }
}

fn dump_string(s: &str, out: &mut String) {
    use std::fmt::Write;
    out.push('"');
    // Most texts need no escape.
    if s.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'"' && b != b'\\') {
        out.push_str(s);
        out.push('"');
        return;
    }
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(c),
            _ => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.push('"');
}

/// A number as Python's `repr` shows it.
#[must_use]
pub fn number_repr(n: &Number) -> String {
    match n.as_f64() {
        Some(f) if n.is_f64() => float_repr(f),
        _ => n.to_string(),
    }
}

/// A float as Python's `repr` shows it: shortest digits, exponent below 1e-4 and from 1e16.
#[must_use]
pub fn float_repr(f: f64) -> String {
    if f.is_nan() {
        return "nan".into();
    }
    if f.is_infinite() {
        return if f > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let size = f.abs();
    if size != 0.0 && !(1e-4..1e16).contains(&size) {
        let text = format!("{f:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |d| ('-', d));
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    let text = format!("{f}");
    if text.contains('.') { text } else { text + ".0" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_cpythons() {
        for (text, expected) in [
            ("", "Expecting value: line 1 column 1 (char 0)"),
            ("{\"a\": }", "Expecting value: line 1 column 7 (char 6)"),
            ("{\"a\" 1}", "Expecting ':' delimiter: line 1 column 6 (char 5)"),
            ("{\"a\": 1 \"b\"", "Expecting ',' delimiter: line 1 column 9 (char 8)"),
            ("{\"a\": 1,}", "Expecting property name enclosed in double quotes: line 1 column 9 (char 8)"),
            ("{'a': 1}", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
            ("[1,", "Expecting value: line 1 column 4 (char 3)"),
            ("[1] x", "Extra data: line 1 column 5 (char 4)"),
            ("\"abc", "Unterminated string starting at: line 1 column 1 (char 0)"),
            ("\"a\nb\"", "Invalid control character at: line 1 column 3 (char 2)"),
            ("{\n\"a\": \"\\d\"}", "Invalid \\escape: line 2 column 7 (char 8)"),
            ("\"\\u12g4\" ", "Invalid \\uXXXX escape: line 1 column 3 (char 2)"),
            ("-", "Expecting value: line 1 column 1 (char 0)"),
        ] {
            assert_eq!(loads(text).unwrap_err().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn values_are_cpythons() {
        assert_eq!(
            loads(" {\"a\": [1, -2.50, 1e3, \"\\u00e9\\ud83d\\ude00\"], \"a\": NaN} ").unwrap().to_string(),
            "{\"a\":null}"
        );
        assert_eq!(dumps(&loads("[1.0, 1e16, 0.00001, \"é\\n\"]").unwrap()), "[1.0, 1e+16, 1e-05, \"\\u00e9\\n\"]");
        assert!(loads(&"[".repeat(100_000)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn agrees_with_serde_json_on_json(text in "[\\[\\]{}\",:0-9a-z\\\\ .e+-]{0,40}") {
            let ours = loads(&text);
            // Python reads `-0` as the integer 0, serde_json as a float.
            if !text.contains("-0") && let Ok(theirs) = serde_json::from_str::<Value>(&text) {
                proptest::prop_assert_eq!(ours.unwrap(), theirs);
            }
        }
        #[test]
        fn never_panics(text: String) {
            let _ = loads(&text);
        }
    }
}
