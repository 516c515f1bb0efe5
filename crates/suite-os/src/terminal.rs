//! What the agent sees of a shell: the terminal's bytes as text.

use regex::bytes::Regex;
use serde::{Deserialize, Serialize};
use std::sync::LazyLock;

/// Observations longer than this many characters…
const MOST: usize = 800;
/// …are cut to this many.
const CUT: usize = 780;

/// How a terminal's bytes become text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shell {
    /// The command's output, whole, control sequences taken out.
    #[default]
    Clean,
    /// What upstream's reader makes of it: lines end in `\r\n`, output without a final newline is lost, of several lines
    /// typed at once the later ones' output shows up a turn late.
    Upstream,
}

impl Shell {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Clean, Self::Upstream];

    /// The name used in files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Upstream => "upstream",
        }
    }
}

static PROMPT: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"(?-u)\x1b.+@.+[#|$] ").ok());
/// What is deleted, in this order, after the prompt.
static SEQUENCES: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    let patterns =
        [r"(?-u)\x1b\[[0-9;]*[a-zA-Z]", r"(?-u)\x1b\][0-9]*;[^\x07]*\x07", r"(?-u)\x1b\[\?2004[hl]", r"(?-u)\x07"];
    patterns.iter().filter_map(|p| Regex::new(p).ok()).collect()
});

/// Where what upstream reads ends: after the first prompt.
pub(crate) fn prompt_end(bytes: &[u8]) -> Option<usize> {
    Some(PROMPT.as_ref()?.find(bytes)?.end())
}

/// Frames as upstream reads them after a command was typed: the first is dropped as the typed line, the rest taken until one
/// shows a prompt. The bytes, cleaned, and how many frames were taken.
pub(crate) fn read_frames<'f>(frames: impl IntoIterator<Item = &'f [u8]>) -> (Vec<u8>, usize) {
    let (mut output, mut taken) = (Vec::new(), 0);
    for frame in frames {
        taken += 1;
        if taken == 1 {
            continue;
        }
        output.extend_from_slice(frame);
        if prompt_end(frame).is_some() {
            break;
        }
    }
    (upstream(&output), taken)
}

/// Upstream's cleaning, rule by rule.
pub(crate) fn upstream(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for pattern in PROMPT.iter().chain(SEQUENCES.iter()) {
        bytes = pattern.replace_all(&bytes, &b""[..]).into_owned();
    }
    bytes
}

/// The text that a terminal would show: control sequences and carriage returns removed, line ends trimmed from the end.
pub(crate) fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next() {
                Some('[') => while chars.next().is_some_and(|c| !c.is_ascii_alphabetic()) {},
                Some(']') => while chars.next().is_some_and(|c| c != '\u{7}') {},
                _ => {}
            },
            '\r' | '\u{7}' => {}
            c => out.push(c),
        }
    }
    out.truncate(out.trim_end_matches('\n').len());
    out
}

/// What the agent is told of a command's output.
pub(crate) fn observation(text: &str) -> String {
    if text.is_empty() {
        return "The output of the OS is empty.".into();
    }
    if text.chars().count() > MOST {
        let cut: String = text.chars().take(CUT).collect();
        return format!("The output of the OS:\n\n{cut}\n[truncated because the output is too long]");
    }
    format!("The output of the OS:\n\n{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observations_are_cut_as_upstream_cuts_them() {
        assert_eq!(observation(""), "The output of the OS is empty.");
        assert_eq!(observation("5"), "The output of the OS:\n\n5");
        let long = observation(&"é".repeat(801));
        assert!(long.ends_with("é\n[truncated because the output is too long]"));
        assert_eq!(long.chars().filter(|c| *c == 'é').count(), 780);
        assert!(!observation(&"é".repeat(800)).contains("truncated"));
    }

    #[test]
    fn control_sequences_vanish() {
        assert_eq!(clean(b"\x1b[31mred\x1b[0m\r\nx\x07\n\n"), "red\nx");
        assert_eq!(clean(b"\x1b[?2004l"), "");
    }

    #[test]
    fn upstream_loses_what_it_loses() {
        let frames: [&[u8]; 2] = [b"echo -n abc\r\n", b"\x1b[?2004l\rabc\x1b[?2004h\x1b]0;root@box: /\x07root@box:/# "];
        assert_eq!(read_frames(frames), (Vec::new(), 2));
    }
}
