//! `int()` and `float()` of texts.

use num_bigint::BigInt;
use regex::Regex;
use std::sync::LazyLock;

/// Digits of any script as ASCII's, blanks at the ends gone, underscores between digits taken out; `None` where Python
/// refuses them.
fn plain(text: &str) -> Option<String> {
    let trimmed = text.trim_matches(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c));
    let digits: Vec<char> = trimmed.chars().map(|c| digit(c).unwrap_or(c)).collect();
    let between = |i: usize| {
        let is_digit = |at: Option<usize>| at.and_then(|at| digits.get(at)).is_some_and(char::is_ascii_digit);
        is_digit(i.checked_sub(1)) && is_digit(Some(i + 1))
    };
    if digits.iter().enumerate().any(|(i, c)| *c == '_' && !between(i)) {
        return None;
    }
    Some(digits.into_iter().filter(|c| *c != '_').collect())
}

/// A decimal digit of another script as ASCII's.
fn digit(c: char) -> Option<char> {
    static DIGIT: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\A\p{Nd}\z").ok());
    let is_digit = |c: char| DIGIT.as_ref().is_some_and(|d| d.is_match(c.encode_utf8(&mut [0; 4])));
    if c.is_ascii() || !is_digit(c) {
        return None;
    }
    // Unicode keeps the ten digits of a script together, zero first; two sets may stand side by side.
    let run = (1..=50u32).take_while(|n| (c as u32).checked_sub(*n).and_then(char::from_u32).is_some_and(is_digit));
    char::from_digit(run.count() as u32 % 10, 10)
}

/// `int(text)`.
#[must_use]
pub fn int(text: &str) -> Option<BigInt> {
    let text = plain(text)?;
    let bare = text.strip_prefix(['+', '-']).unwrap_or(&text);
    (!bare.is_empty() && bare.len() <= 4300 && bare.bytes().all(|b| b.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

/// `float(text)`.
#[must_use]
pub fn float(text: &str) -> Option<f64> {
    let text = plain(text)?;
    let bare = text.strip_prefix(['+', '-']).unwrap_or(&text).to_ascii_lowercase();
    // What Rust takes and Python does not, and the other way round: nothing but these.
    let word = bare.starts_with(|c: char| c.is_ascii_alphabetic());
    if (word && !["nan", "inf", "infinity"].contains(&bare.as_str())) || bare.starts_with(['+', '-']) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_python_reads_them() {
        for (text, expected) in [
            (" 12 ", Some(12.0)),
            ("1_2", Some(12.0)),
            ("1__2", None),
            ("_1", None),
            ("1_", None),
            ("1_.5", None),
            ("inf", Some(f64::INFINITY)),
            ("-Infinity", Some(f64::NEG_INFINITY)),
            ("infinit", None),
            ("1e3", Some(1000.0)),
            ("1e", None),
            (".5", Some(0.5)),
            ("5.", Some(5.0)),
            (".", None),
            ("", None),
            ("+-1", None),
            ("1,000", None),
            ("\u{661}\u{662}", Some(12.0)),
            ("\u{1d7d8}\u{1d7ce}", Some(0.0)),
            ("0x10", None),
        ] {
            assert_eq!(float(text), expected, "{text}");
        }
        assert!(float("nan").is_some_and(f64::is_nan));
        for (text, expected) in [
            (" 5\n", Some(5)),
            ("+5", Some(5)),
            ("-1_0", Some(-10)),
            ("5.0", None),
            ("\u{665}", Some(5)),
            ("", None),
            ("- 1", None),
        ] {
            assert_eq!(int(text), expected.map(BigInt::from), "{text}");
        }
    }
}
