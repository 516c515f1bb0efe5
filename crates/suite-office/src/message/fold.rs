//! Headers in lines: Python's way of folding a parsed header, words beyond ASCII encoded as RFC 2047 says.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Length of `=?utf-8?q??=`.
const CHROME: usize = 12;
const CHARSET: &str = "utf-8";

/// A piece of a parsed header.
#[derive(Debug, Clone)]
pub(super) enum Part {
    /// A word, a sign or blanks.
    Text { text: String, blank: bool },
    /// Blanks between two encoded words, which are not shown.
    Hidden,
    /// Pieces; `encodable` unless they must not become part of an encoded word.
    List { parts: Vec<Part>, encodable: bool },
    /// Ends a list within which nothing is encoded for want of space.
    End,
}

impl Part {
    pub(super) fn text(text: &str) -> Self {
        Self::Text { text: text.into(), blank: false }
    }
    pub(super) fn blank(text: &str) -> Self {
        Self::Text { text: text.into(), blank: true }
    }
    pub(super) fn list(parts: Vec<Self>) -> Self {
        Self::List { parts, encodable: true }
    }
    /// The list, not to be encoded as a whole.
    pub(super) fn kept(self) -> Self {
        match self {
            Self::List { parts, .. } => Self::List { parts, encodable: false },
            other => other,
        }
    }
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::List { parts, .. } if parts.is_empty())
    }
    fn shown(&self) -> String {
        match self {
            Self::Text { text, .. } => text.clone(),
            Self::List { parts, .. } => parts.iter().map(Self::shown).collect(),
            Self::Hidden | Self::End => String::new(),
        }
    }
    fn is_encodable(&self) -> bool {
        match self {
            Self::List { parts, encodable } => *encodable && parts.iter().all(Self::is_encodable),
            _ => true,
        }
    }
    fn begins_blank(&self) -> bool {
        match self {
            Self::Text { blank, .. } => *blank,
            Self::List { parts, .. } => parts.first().is_some_and(Self::begins_blank),
            Self::Hidden => true,
            Self::End => false,
        }
    }
}

fn is_blank(c: char) -> bool {
    c == ' ' || c == '\t'
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// Takes the blank that a line ends with.
fn stolen(lines: &mut [String]) -> String {
    let last = lines.last_mut().filter(|line| line.ends_with(is_blank));
    last.and_then(String::pop).map(String::from).unwrap_or_default()
}

/// The lines of a header.
pub(super) fn folded(parts: Vec<Part>, most: usize) -> Vec<String> {
    Folder { lines: vec![String::new()], most, last_word: None }.fold(parts)
}

struct Folder {
    lines: Vec<String>,
    most: usize,
    /// Where the last line's encoded word starts, if the next can become part of it.
    last_word: Option<usize>,
}

impl Folder {
    fn room(&self) -> usize {
        self.most.saturating_sub(self.lines.last().map_or(0, |line| length(line)))
    }

    fn add(&mut self, text: &str) {
        if let Some(line) = self.lines.last_mut() {
            line.push_str(text);
        }
    }

    fn fold(mut self, mut parts: Vec<Part>) -> Vec<String> {
        parts.reverse();
        let (mut blocked, mut forced) = (0, false);
        while let Some(part) = parts.pop() {
            if let Part::End = part {
                blocked -= 1;
                continue;
            }
            let text = part.shown();
            if (forced || !text.is_ascii()) && blocked == 0 {
                forced = false;
                if !part.is_encodable() {
                    self.last_word = None;
                    let Part::List { parts: inner, .. } = &part else { continue };
                    if let [line] = folded(inner.clone(), self.most).as_slice() {
                        if length(line) > self.room() {
                            let start = stolen(&mut self.lines);
                            self.lines.push(start);
                        }
                        self.add(line);
                        continue;
                    }
                }
                match part {
                    Part::List { parts: inner, .. } => parts.extend(inner.into_iter().rev()),
                    _ => self.encode(&text),
                }
                continue;
            }
            forced |= !text.is_ascii();
            if length(&text) <= self.room() {
                self.add(&text);
                continue;
            }
            if length(&text) < self.most {
                let start = stolen(&mut self.lines);
                if !start.is_empty() || part.begins_blank() {
                    self.lines.push(start + &text);
                    self.last_word = None;
                    continue;
                }
            }
            let encodable = part.is_encodable();
            match part {
                Part::List { parts: inner, .. } => {
                    if !encodable {
                        blocked += 1;
                        parts.push(Part::End);
                    }
                    parts.extend(inner.into_iter().rev());
                }
                part if blocked == 0 => {
                    parts.push(part);
                    forced = true;
                }
                part => {
                    let start = stolen(&mut self.lines);
                    if !start.is_empty() || part.begins_blank() {
                        self.lines.push(start + &text);
                    } else {
                        self.add(&text);
                    }
                }
            }
        }
        self.lines
    }

    /// Adds a text as encoded words, one with the word before it where that is still open.
    fn encode(&mut self, text: &str) {
        let mut text = text.to_owned();
        if let (Some(at), Some(line)) = (self.last_word, self.lines.last_mut()) {
            let before = if line.is_char_boundary(at) { line.split_off(at) } else { String::new() };
            text = unstructured(&(before + &text)).iter().map(Part::shown).collect();
        }
        let mut rest = text.as_str();
        if let Some(after) = rest.strip_prefix(is_blank) {
            if self.room() == 0 {
                let start = stolen(&mut self.lines);
                self.lines.push(start);
            }
            self.add(&rest[..1]);
            rest = after;
        }
        let shorter = rest.strip_suffix(is_blank).unwrap_or(rest);
        let trailing = &rest[shorter.len()..];
        rest = shorter;
        let end = |lines: &[String]| lines.last().map_or(0, String::len);
        let mut start = self.last_word.unwrap_or_else(|| end(&self.lines));
        while !rest.is_empty() {
            let room = self.room();
            if room <= CHROME {
                self.lines.push(" ".into());
                continue;
            }
            let mut taken: Vec<char> = rest.chars().take(room - CHROME).collect();
            let mut word = encoded(&taken.iter().collect::<String>());
            while word.len() > room {
                taken.pop();
                word = encoded(&taken.iter().collect::<String>());
            }
            self.add(&word);
            rest = &rest[taken.iter().map(|c| c.len_utf8()).sum()..];
            if !rest.is_empty() {
                self.lines.push(" ".into());
                start = end(&self.lines);
            }
        }
        self.add(trailing);
        self.last_word = Some(start);
    }
}

/// An encoded word, in the encoding that is the shorter.
fn encoded(text: &str) -> String {
    let code = |b: u8| match b {
        b' ' => "_".to_owned(),
        b'-' | b'!' | b'*' | b'+' | b'/' => char::from(b).to_string(),
        b if b.is_ascii_alphanumeric() => char::from(b).to_string(),
        b => format!("={b:02X}"),
    };
    let q: String = text.bytes().map(code).collect();
    let b = STANDARD.encode(text.as_bytes());
    match q.len() < b.len() + 5 {
        true => format!("=?{CHARSET}?q?{q}?="),
        false => format!("=?{CHARSET}?b?{b}?="),
    }
}

/// A text's words and blanks, encoded words among them decoded.
pub(super) fn unstructured(text: &str) -> Vec<Part> {
    let (mut parts, mut words, mut rest) = (Vec::<Part>::new(), Vec::<bool>::new(), text);
    while !rest.is_empty() {
        if rest.starts_with(is_blank) {
            // Python strips any white space here, once there is a blank.
            let after = rest.trim_start();
            parts.push(Part::blank(&rest[..rest.len() - after.len()]));
            words.push(false);
            rest = after;
            continue;
        }
        if let Some((word, after)) = decoded(rest) {
            if let [.., true, false] = words.as_slice()
                && let Some(between @ Part::Text { blank: true, .. }) = parts.last_mut()
            {
                *between = Part::Hidden;
            }
            parts.push(word);
            words.push(true);
            rest = after;
            continue;
        }
        let mut end = rest.find(is_blank).unwrap_or(rest.len());
        let inside =
            rest[..end].match_indices("=?").map(|(at, _)| at).filter(|at| *at > 0).find(|at| is_word(&rest[*at..end]));
        if inside.is_some() {
            end = rest.find("=?").filter(|at| *at > 0).unwrap_or(end);
        }
        parts.push(Part::text(&rest[..end]));
        words.push(false);
        rest = &rest[end..];
    }
    parts
}

/// Whether a text starts with the shape of an encoded word.
fn is_word(text: &str) -> bool {
    let mut fields = text.trim_start_matches("=?").splitn(3, '?');
    let (charset, code, rest) = (fields.next(), fields.next(), fields.next());
    charset.is_some_and(|c| !c.is_empty())
        && code.is_some_and(|c| matches!(c, "q" | "Q" | "b" | "B"))
        && rest.is_some_and(|r| r.contains("?="))
}

/// The encoded word that a text starts with, and what follows.
fn decoded(text: &str) -> Option<(Part, &str)> {
    let inner = text.strip_prefix("=?")?;
    let (charset, tail) = inner.split_once('?')?;
    let (code, tail) = tail.split_once('?')?;
    let (payload, after) = tail.split_once("?=")?;
    if payload.contains('?') {
        return None;
    }
    let bytes = match code {
        "q" | "Q" => unquoted(payload),
        "b" | "B" => unbase64(payload)?,
        _ => return None,
    };
    let word = match charset.split('*').next()?.to_ascii_lowercase().as_str() {
        "iso-8859-1" | "latin-1" => bytes.iter().map(|b| char::from(*b)).collect(),
        _ => String::from_utf8_lossy(&bytes).into_owned(),
    };
    let mut parts = Vec::new();
    let mut rest = word.as_str();
    while !rest.is_empty() {
        let blanks = rest.starts_with(is_blank);
        let end = rest.find(|c| is_blank(c) != blanks).unwrap_or(rest.len());
        parts.push(if blanks { Part::blank(&rest[..end]) } else { Part::text(&rest[..end]) });
        rest = &rest[end..];
    }
    Some((Part::list(parts), after))
}

fn unquoted(text: &str) -> Vec<u8> {
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::new(), 0);
    while let Some(byte) = bytes.get(at) {
        let code = bytes.get(at + 1..at + 3).and_then(|code| std::str::from_utf8(code).ok());
        match (byte, code.and_then(|code| u8::from_str_radix(code, 16).ok())) {
            (b'=', Some(code)) => {
                out.push(code);
                at += 2;
            }
            (b'_', _) => out.push(b' '),
            (other, _) => out.push(*other),
        }
        at += 1;
    }
    out
}

fn unbase64(text: &str) -> Option<Vec<u8>> {
    let (mut bits, mut held, mut out) = (0_u32, 0, Vec::new());
    for byte in text.trim_end_matches('=').bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xffff;
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held & 0xff) as u8);
        }
    }
    Some(out)
}
