//! What a harness shows of a long conversation: AgentBench's server cuts it (THUDM/AgentBench@41e6807:
//! `src/server/task.py` and `src/typings/general.py`).

use regex::Regex;
use rolegraft_trajectory::{Role, Shown};
use std::sync::LazyLock;

/// A history is cut to fewer segments than this.
const LIMIT: usize = 3500;
/// Letters that make a segment.
const LETTERS: usize = 7;

/// Python's `str.isalpha` of a character.
fn is_letter(c: char) -> bool {
    static LETTER: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\A\p{L}\z").ok());
    match c.is_ascii() {
        true => c.is_ascii_alphabetic(),
        false => LETTER.as_ref().is_some_and(|l| l.is_match(c.encode_utf8(&mut [0; 4]))),
    }
}

/// Upstream's measure of a text: words of at most seven letters, and every sign that is neither blank nor line end.
#[must_use]
pub fn segments(text: &str) -> usize {
    let (mut count, mut letters) = (0, 0);
    for c in text.chars() {
        if is_letter(c) {
            letters += 1;
            if letters == LETTERS {
                (count, letters) = (count + 1, 0);
            }
            continue;
        }
        count += usize::from(letters > 0) + usize::from(c != ' ' && c != '\n');
        letters = 0;
    }
    count + usize::from(letters > 0)
}

/// Which messages are shown, and what is appended to the first where some are not.
#[must_use]
pub fn kept(messages: &[Shown]) -> (Vec<usize>, String) {
    let Some(first) = messages.first() else { return (Vec::new(), String::new()) };
    let mut sum = segments(&first.message.content);
    let mut kept: Vec<usize> = Vec::new();
    for (i, message) in messages.iter().enumerate().skip(1).rev() {
        sum += segments(&message.message.content);
        if sum >= LIMIT {
            break;
        }
        kept.push(i);
    }
    kept.reverse();
    if kept.first().is_some_and(|i| messages[*i].message.role == Role::User) {
        kept.remove(0);
    }
    let omitted = messages.len() - 1 - kept.len();
    kept.insert(0, 0);
    let notice = if omitted > 0 { format!("\n\n[NOTICE] {omitted} messages are omitted.") } else { String::new() };
    (kept, notice)
}

/// The conversation as upstream's server shows it.
#[must_use]
pub fn shown(messages: &[Shown]) -> Vec<Shown> {
    let (kept, notice) = kept(messages);
    let mut shown: Vec<Shown> = kept.iter().map(|i| messages[*i].clone()).collect();
    if let Some(first) = shown.first_mut() {
        first.message.content += &notice;
    }
    shown
}
