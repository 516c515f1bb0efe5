//! Upstream's comparers of the answer and the example's output, natively: an agent may have replaced Python in its box.

use rolegraft_python::int;

/// The units of `size-match` in the order in which upstream tries them, with powers of 1024.
const UNITS: [(&str, u32); 12] = [
    ("B", 0),
    ("Byte", 0),
    ("K", 1),
    ("KB", 1),
    ("M", 2),
    ("MB", 2),
    ("G", 3),
    ("GB", 3),
    ("T", 4),
    ("TB", 4),
    ("P", 5),
    ("PB", 5),
];

/// Whether two texts agree; whatever raises upstream is `false`.
///
/// # Errors
/// If there is no comparer of that name.
pub(crate) fn compare(name: &str, parameters: &[&str]) -> Result<bool, String> {
    let [first, second, ..] = parameters else { return Ok(false) };
    let lines = |s: &str| s.replace("\r\n", "\n").replace('\r', "\n").trim().to_owned();
    Ok(match name {
        "integer-match" => int(first).is_some_and(|n| Some(n) == int(second)),
        "string-match" => lines(first) == lines(second),
        "containing" => lines(first).contains(&lines(second)),
        "in" => lines(second).contains(&lines(first)),
        "size-match" => size(first).is_some_and(|n| Some(n) == size(second)),
        other => return Err(format!("there is no comparer `{other}`")),
    })
}

fn size(text: &str) -> Option<num_bigint::BigInt> {
    let text = text.trim();
    match UNITS.iter().find_map(|(unit, power)| Some((text.strip_suffix(unit)?, *power))) {
        Some((number, power)) => Some(int(number)? * num_bigint::BigInt::from(1024).pow(power)),
        None => int(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparers() {
        for (name, a, b, expected) in [
            ("integer-match", " 5\n", "+5", true),
            ("integer-match", "5.0", "5", false),
            ("integer-match", "1_000", "1000", true),
            ("string-match", "a\r\nb ", "a\nb", true),
            ("size-match", "4K", "4096", true),
            ("size-match", "4KB", "4096", false),
            ("size-match", "4.0K", "4096", false),
            ("containing", "abc", "b", true),
            ("in", "b", "abc", true),
        ] {
            assert_eq!(compare(name, &[a, b]), Ok(expected), "{name} {a} {b}");
        }
        assert!(compare("nothing", &["a", "b"]).is_err());
    }
}
