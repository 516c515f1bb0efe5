//! `strftime` as glibc writes it in the C locale, for a day at midnight.

use chrono::{NaiveDate, NaiveTime};

/// Widest padding we write; glibc knows no limit, memory does.
const WIDEST: usize = 1 << 12;

/// Formats a day. What glibc does not know stays as it is written.
pub(crate) fn strftime(day: NaiveDate, format: &str) -> String {
    let mut out = String::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let directive = &rest[at..];
        let mut chars = directive.char_indices().skip(1).peekable();
        let (mut flags, mut width) = (Vec::new(), None::<usize>);
        while let Some((_, flag)) = chars.next_if(|(_, c)| matches!(c, '-' | '_' | '0' | '^' | '#')) {
            flags.push(flag);
        }
        while let Some((_, digit)) = chars.next_if(|(_, c)| c.is_ascii_digit()) {
            width = Some((width.unwrap_or(0) * 10 + digit as usize - '0' as usize).min(WIDEST));
        }
        chars.next_if(|(_, c)| matches!(c, 'E' | 'O'));
        let Some((last, code)) = chars.next() else {
            out.push_str(directive);
            return out;
        };
        let end = last + code.len_utf8();
        match field(day, code) {
            Some((text, pad, least)) => write_field(&mut out, &text, pad, least, &flags, width, code),
            None => out.push_str(&directive[..end]),
        }
        rest = &directive[end..];
    }
    out.push_str(rest);
    out
}

fn write_field(
    out: &mut String,
    text: &str,
    pad: char,
    least: usize,
    flags: &[char],
    width: Option<usize>,
    code: char,
) {
    let mut text = text.to_owned();
    let (mut pad, mut least) = (pad, width.unwrap_or(least));
    for flag in flags {
        match flag {
            '-' => (pad, least) = (' ', width.unwrap_or(0)),
            '_' => pad = ' ',
            '0' => pad = '0',
            // glibc turns am and pm to small letters with `#`, other names to capitals.
            '#' if code == 'p' => text = text.to_lowercase(),
            _ => text = text.to_uppercase(),
        }
    }
    out.extend(std::iter::repeat_n(pad, least.saturating_sub(text.chars().count())));
    out.push_str(&text);
}

/// A field's text, what pads it and to which width.
fn field(day: NaiveDate, code: char) -> Option<(String, char, usize)> {
    let (pad, least) = match code {
        // A day has no time zone, and Python writes none.
        'z' | 'Z' => return Some((String::new(), ' ', 0)),
        // Microseconds, which Python adds to what glibc knows.
        'f' => return Some(("000000".into(), ' ', 0)),
        'a' | 'A' | 'b' | 'B' | 'c' | 'D' | 'F' | 'h' | 'n' | 'p' | 'P' | 'r' | 'R' | 't' | 'T' | 'x' | 'X' | '%' => {
            (' ', 0)
        }
        'e' | 'k' | 'l' => (' ', 2),
        's' | 'u' | 'w' | 'Y' => ('0', 1),
        'C' | 'd' | 'g' | 'H' | 'I' | 'm' | 'M' | 'S' | 'U' | 'V' | 'W' | 'y' => ('0', 2),
        'j' => ('0', 3),
        'G' => ('0', 4),
        _ => return None,
    };
    let bare = if least > 0 { "-" } else { "" };
    Some((day.and_time(NaiveTime::MIN).format(&format!("%{bare}{code}")).to_string(), pad, least))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_a_day_as_glibc_does() {
        let day = NaiveDate::from_ymd_opt(2026, 1, 4).unwrap();
        let written = strftime(day, "%d %b %Y|%-d/%-m|%e|%A|%B|%F|%j|%U %W %V %G|%y|%c|%p|%%|%q|%^a|%_d|%-5d|%5Y|%:|%");
        let glibc = "04 Jan 2026|4/1| 4|Sunday|January|2026-01-04|004|01 00 01 2026|26|Sun Jan  4 00:00:00 2026|AM|%|%q|SUN| 4|    4|02026|%:|%";
        assert_eq!(written, glibc);
    }
}
