//! A mail as Python 3.11's `email.message.EmailMessage` writes it: `From`, `To`, `Subject`, then the body's own headers, lines
//! of at most 78 characters ending in `\n`, no date and no identity.

mod fold;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fold::{Part, folded, unstructured};

/// Longest line, without its end.
const MAX_LINE: usize = 78;
/// What ends a word of an address, blanks aside.
const SPECIALS: &str = "()<>@,:;.\\\"[]";

/// The whole message.
pub(crate) fn message(from: &str, to: &str, subject: &str, content: &str) -> String {
    let (encoding, body) = body(content);
    format!(
        "{}{}{}Content-Type: text/plain; charset=\"utf-8\"\nContent-Transfer-Encoding: {encoding}\nMIME-Version: 1.0\n\n{body}",
        header("From", address(from)),
        header("To", address(to)),
        header("Subject", Part::list(unstructured(subject))),
    )
}

fn header(name: &str, value: Part) -> String {
    let label = Part::list(vec![Part::text(name), Part::text(":")]).kept();
    let blank = Part::list(if value.is_empty() { vec![] } else { vec![Part::blank(" ")] });
    let mut text = folded(vec![label, blank, value], MAX_LINE).join("\n");
    text.push('\n');
    text
}

/// A bare address, `NAME@DOMAIN`: what Python's parser makes of a name without special characters but the dot.
fn address(address: &str) -> Part {
    let (name, domain) = address.rsplit_once('@').unwrap_or((address, ""));
    let local = if name.contains(|c| c != '.' && SPECIALS.contains(c)) {
        Part::list(vec![Part::text(name)])
    } else {
        dotted(name).unwrap_or_else(|| words(name))
    };
    let (mut parts, at) = (Vec::new(), Part::text("@"));
    for (i, label) in domain.split('.').enumerate() {
        parts.extend((i > 0).then(|| Part::text(".")));
        parts.push(Part::text(label));
    }
    let domain = Part::list(vec![Part::list(vec![Part::list(parts)])]).kept();
    let spec = Part::list(vec![Part::list(vec![local]).kept(), at, domain]).kept();
    // Mailbox, address, list of addresses.
    (0..3).fold(spec, |inner, _| Part::list(vec![inner]))
}

/// `a.b.c`, with blanks around it only.
fn dotted(name: &str) -> Option<Part> {
    let is_blank = |c: char| c == ' ' || c == '\t';
    let inner = name.trim_matches(is_blank);
    let labels: Vec<&str> = inner.split('.').collect();
    if labels.iter().any(|label| label.is_empty() || label.contains(is_blank)) {
        return None;
    }
    let start = name.len() - name.trim_start_matches(is_blank).len();
    let mut atoms = Vec::new();
    for (i, label) in labels.into_iter().enumerate() {
        atoms.extend((i > 0).then(|| Part::text(".")));
        atoms.push(Part::text(label));
    }
    let mut parts = vec![Part::list(atoms)];
    if start > 0 {
        parts.insert(0, Part::list(vec![Part::blank(&name[..start])]));
    }
    if start + inner.len() < name.len() {
        parts.push(Part::list(vec![Part::blank(&name[start + inner.len()..])]));
    }
    Some(Part::list(parts))
}

/// Words and dots in any order: each word takes the blanks around it.
fn words(name: &str) -> Part {
    let is_blank = |c: char| c == ' ' || c == '\t';
    let (mut parts, mut rest) = (Vec::new(), name);
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            parts.push(Part::text("."));
            rest = after;
            continue;
        }
        let mut take = |wanted: &dyn Fn(char) -> bool| {
            let (taken, after) = rest.split_at(rest.find(|c| !wanted(c)).unwrap_or(rest.len()));
            rest = after;
            taken
        };
        let before = take(&is_blank);
        let word = take(&|c| !is_blank(c) && c != '.');
        let after = if word.is_empty() { "" } else { take(&is_blank) };
        let blank = |text: &str| (!text.is_empty()).then(|| Part::list(vec![Part::blank(text)]));
        match word {
            "" => parts.extend(blank(before)),
            word => {
                let inner = blank(before).into_iter().chain([Part::text(word)]).chain(blank(after));
                parts.push(Part::list(inner.collect()));
            }
        }
    }
    Part::list(parts).kept()
}

/// A body's transfer encoding and its text in it.
fn body(content: &str) -> (&'static str, String) {
    let lines = lines(content.as_bytes());
    let joined = |lines: &[&[u8]]| [lines.join(&b'\n'), b"\n".to_vec()].concat();
    let whole = joined(&lines);
    let short = lines.iter().all(|line| line.len() <= MAX_LINE);
    if short && whole.is_ascii() {
        return ("7bit", whole.iter().map(|b| char::from(*b)).collect());
    }
    let start = joined(&lines[..lines.len().min(10)]);
    // Short lines go into base64 whatever they hold. Of others the first are compared, with base64's line end.
    if short || quoted(&start).len() > start.len().div_ceil(3) * 4 + 1 {
        let encoded: String = whole.chunks(MAX_LINE / 4 * 3).map(|chunk| STANDARD.encode(chunk) + "\n").collect();
        return ("base64", encoded);
    }
    ("quoted-printable", quoted(&whole))
}

/// Lines without their ends: `\n`, `\r` or both.
fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    let (mut lines, mut start, mut at) = (Vec::new(), 0, 0);
    while at < bytes.len() {
        if matches!(bytes[at], b'\n' | b'\r') {
            lines.push(&bytes[start..at]);
            at += usize::from(bytes[at..].starts_with(b"\r\n"));
            start = at + 1;
        }
        at += 1;
    }
    if start < bytes.len() {
        lines.push(&bytes[start..]);
    }
    lines
}

/// Quoted-printable, long lines broken where Python breaks them.
fn quoted(body: &[u8]) -> String {
    let escape = |b: u8| match b {
        b'\t' | b' '..=b'<' | b'>'..=b'~' => char::from(b).to_string(),
        b => format!("={b:02X}"),
    };
    let mut out = String::new();
    for raw in lines(body) {
        let line: String = raw.iter().map(|b| escape(*b)).collect();
        let (bytes, mut start) = (line.as_bytes(), 0);
        let last = line.len() as isize - 1 - MAX_LINE as isize;
        while start as isize <= last {
            let stop = start + MAX_LINE - 1;
            // No break within an escape.
            let end = match (bytes[stop - 2], bytes[stop - 1]) {
                (b'=', _) => stop - 2,
                (_, b'=') => stop - 1,
                _ => stop,
            };
            out.push_str(&line[start..end]);
            out.push('=');
            out.push('\n');
            start = end;
        }
        match line.chars().last().filter(|c| matches!(c, ' ' | '\t')) {
            None => out.push_str(&line[start..]),
            Some(blank) => {
                out.push_str(&line[start..line.len() - 1]);
                let code = format!("={:02X}", blank as u32);
                match start as isize - last {
                    3.. => out.push_str(&code),
                    2 => out.extend([blank, '=', '\n']),
                    _ => out.push_str(&format!("=\n{code}")),
                }
            }
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mails_are_pythons_byte_for_byte() {
        // Written by CPython 3.11.7; without the two lines that all have.
        let cases = [
            (
                "Bob@example.com",
                "Alice@example.com",
                "Budget",
                "Hello",
                "From: Bob@example.com\nTo: Alice@example.com\nSubject: Budget\nContent-Transfer-Encoding: 7bit\n\nHello\n",
            ),
            (
                "Bob Smith@example.com",
                "Zoë@example.com",
                " lead ",
                "a\r\nb\n\n",
                "From: Bob Smith@example.com\nTo: =?utf-8?q?Zo=C3=AB?=@example.com\nSubject:  lead \nContent-Transfer-Encoding: 7bit\n\na\nb\n\n",
            ),
            (
                "漢字@example.com",
                ".a..b@example.com",
                "",
                "é",
                "From: =?utf-8?b?5ryi5a2X?=@example.com\nTo: .a..b@example.com\nSubject:\nContent-Transfer-Encoding: base64\n\nw6kK\n",
            ),
            (
                "Bob@example.com",
                "Dr. Zoë É. Lang@example.com",
                "Résumé of the meeting in Zürich with all of the people from the Łódź office and others",
                "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
                "From: Bob@example.com\nTo: Dr. =?utf-8?q?Zo=C3=AB_=C3=89?=. Lang@example.com\nSubject: =?utf-8?q?R=C3=A9sum=C3=A9_of_the_meeting_in_Z=C3=BCrich?= with all\n of the people from the =?utf-8?b?xYHDs2TFug==?= office and others\nContent-Transfer-Encoding: quoted-printable\n\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx=\nxxxxxxxxxxxxxxxxxxxxxxx\n",
            ),
            (
                "Bob@example.com",
                "Alice@example.com",
                "A subject that is long enough to be folded because it has far too many words",
                "naïve naïve naïve naïve naïve naïve naïve naïve naïve naïve naïve naïve naïve naïve naïve naïve naïve naïve naïve naïve ",
                "From: Bob@example.com\nTo: Alice@example.com\nSubject:\n A subject that is long enough to be folded because it has far too many words\nContent-Transfer-Encoding: base64\n\nbmHDr3ZlIG5hw692ZSBuYcOvdmUgbmHDr3ZlIG5hw692ZSBuYcOvdmUgbmHDr3ZlIG5hw692ZSBu\nYcOvdmUgbmHDr3ZlIG5hw692ZSBuYcOvdmUgbmHDr3ZlIG5hw692ZSBuYcOvdmUgbmHDr3ZlIG5h\nw692ZSBuYcOvdmUgbmHDr3ZlIG5hw692ZSAK\n",
            ),
            (
                "Bob@example.com",
                "Alice@example.com",
                "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
                "漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字\nend",
                "From: Bob@example.com\nTo: Alice@example.com\nSubject: =?utf-8?q?xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx?=\n =?utf-8?q?xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx?=\nContent-Transfer-Encoding: base64\n\n5ryi5a2X5ryi5a2X5ryi5a2X5ryi5a2X5ryi5a2X5ryi5a2X5ryi5a2X5ryi5a2X5ryi5a2X5ryi\n5a2X5ryi5a2X5ryi5a2X5ryi5a2X5ryi5a2X5ryi5a2X5ryi5a2X5ryi5a2X5ryi5a2X5ryi5a2X\n5ryi5a2X5ryi5a2X5ryi5a2X5ryi5a2X5ryi5a2X5ryi5a2X5ryi5a2X5ryi5a2X5ryi5a2X5ryi\n5a2X5ryi5a2X5ryi5a2X5ryi5a2X5ryi5a2X5ryi5a2X5ryi5a2X5ryi5a2X5ryi5a2X5ryi5a2X\n5ryi5a2X5ryi5a2X5ryi5a2X5ryi5a2X5ryi5a2X5ryi5a2X5ryi5a2X5ryi5a2X5ryi5a2X5ryi\n5a2X5ryi5a2X5ryi5a2X5ryi5a2X5ryi5a2X5ryi5a2X5ryi5a2X5ryi5a2X5ryi5a2X5ryi5a2X\n5ryi5a2X5ryi5a2X5ryi5a2XCmVuZAo=\n",
            ),
            (
                "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb@example.com",
                "éééééééééééééééééééééééééééééé@example.com",
                "naïve plan naïve 漢字 =?utf-8?q?x?= z",
                "a=b yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy \n\tq",
                "From:\n bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb@example.com\nTo: =?utf-8?b?w6nDqcOpw6nDqcOpw6nDqcOpw6nDqcOpw6nDqcOpw6nDqcOpw6nDqcOpw6k=?=\n =?utf-8?b?w6nDqcOpw6nDqcOpw6nDqQ==?=@example.com\nSubject: =?utf-8?b?bmHDr3ZlIHBsYW4gbmHDr3ZlIOa8ouWtlw==?= x z\nContent-Transfer-Encoding: quoted-printable\n\na=3Db yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy=\nyyyyyyyyyyyyyyyyyyy=20\n\tq\n",
            ),
        ];
        for (from, to, subject, content, expected) in cases {
            let written = message(from, to, subject, content);
            let bare = written.replacen("\nContent-Type: text/plain; charset=\"utf-8\"\n", "\n", 1);
            let bare = bare.replacen("\nMIME-Version: 1.0\n", "\n", 1);
            assert_eq!(bare, expected);
            assert_eq!(written.len() - bare.len(), 60, "{subject}");
        }
    }
}
