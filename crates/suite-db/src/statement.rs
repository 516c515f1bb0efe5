//! Where one SQL statement ends and the next begins.

/// Whether a text holds more than one statement. Upstream's connector runs the first of several, loses track, and
/// commits nothing.
pub(crate) fn is_several(sql: &str) -> bool {
    let bytes = sql.as_bytes();
    let (mut at, mut ended) = (0, false);
    while let Some(byte) = bytes.get(at) {
        let rest = &bytes[at..];
        match byte {
            b'\'' | b'"' | b'`' => {
                if ended {
                    return true;
                }
                at += quoted(rest);
            }
            b'#' => at += line(rest),
            b'-' if is_dashes(rest) => at += line(rest),
            // What a version comment holds is executed.
            b'/' if rest.starts_with(b"/*") && !rest.starts_with(b"/*!") && !rest.starts_with(b"/*M!") => {
                at += rest.windows(2).skip(2).position(|w| w == b"*/").map_or(rest.len(), |end| end + 4);
            }
            b';' => {
                ended = true;
                at += 1;
            }
            byte if byte.is_ascii_whitespace() => at += 1,
            _ if ended => return true,
            _ => at += 1,
        }
    }
    false
}

/// Whether a text holds no statement at all.
pub(crate) fn is_empty(sql: &str) -> bool {
    let mut rest = sql.trim_start();
    loop {
        let bytes = rest.as_bytes();
        if bytes.is_empty() {
            return true;
        }
        let taken = if bytes[0] == b'#' || is_dashes(bytes) {
            line(bytes)
        } else if bytes.starts_with(b"/*") && !bytes.starts_with(b"/*!") && !bytes.starts_with(b"/*M!") {
            bytes.windows(2).skip(2).position(|w| w == b"*/").map_or(bytes.len(), |end| end + 4)
        } else {
            return false;
        };
        rest = rest.get(taken..).unwrap_or_default().trim_start();
    }
}

fn is_dashes(text: &[u8]) -> bool {
    text.starts_with(b"--") && text.get(2).is_none_or(|b| b.is_ascii_whitespace() || b.is_ascii_control())
}

fn line(text: &[u8]) -> usize {
    text.iter().position(|b| *b == b'\n').map_or(text.len(), |end| end + 1)
}

/// The length of what stands in quotes; `\` escapes in all but names.
fn quoted(text: &[u8]) -> usize {
    let quote = text[0];
    let mut at = 1;
    while let Some(byte) = text.get(at) {
        match *byte {
            b'\\' if quote != b'`' => at += 2,
            b if b == quote => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_told_apart_as_the_server_does() {
        for (sql, several) in [
            ("select 1", false),
            ("select 1;", false),
            ("select 1; -- that is all", false),
            ("select 1; /* x */ # y", false),
            ("select 1; select 2", true),
            ("select ';'; ", false),
            ("select \"a\\\";b\"", false),
            ("select `;`", false),
            ("select 'it''s;'", false),
            ("select 1 /*; */", false),
            ("select 1; /*! drop table t */", true),
            ("select 5--1; select 2", true),
            ("select 1 -- ; select 2", false),
            ("", false),
        ] {
            assert_eq!(is_several(sql), several, "{sql}");
        }
        for (sql, empty) in [
            ("", true),
            (" -- x", true),
            ("# a\n/* b */", true),
            ("select 1", false),
            ("/*!1*/", false),
            ("--x", false),
        ] {
            assert_eq!(is_empty(sql), empty, "{sql}");
        }
    }
}
