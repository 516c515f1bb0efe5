//! `thefuzz.fuzz.token_set_ratio` (0.19) over Python's `difflib`, which is not Levenshtein's.

use regex::Regex;
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;

/// From this length on, characters that are frequent in the second text begin no match.
const LONG: usize = 200;

/// How many characters two texts share in blocks: `SequenceMatcher(None, a, b)`.
fn matched(a: &[char], b: &[char]) -> usize {
    let mut places: HashMap<char, Vec<usize>> = HashMap::new();
    for (j, c) in b.iter().enumerate() {
        places.entry(*c).or_default().push(j);
    }
    if b.len() >= LONG {
        let most = b.len() / 100 + 1;
        places.retain(|_, at| at.len() <= most);
    }
    let mut total = 0;
    let mut waiting = vec![(0, a.len(), 0, b.len())];
    while let Some((a_low, a_high, b_low, b_high)) = waiting.pop() {
        let (i, j, size) = longest(a, b, &places, (a_low, a_high, b_low, b_high));
        if size == 0 {
            continue;
        }
        total += size;
        waiting.push((a_low, i, b_low, j));
        waiting.push((i + size, a_high, j + size, b_high));
    }
    total
}

/// The longest block in a window, the earliest of several.
fn longest(
    a: &[char],
    b: &[char],
    places: &HashMap<char, Vec<usize>>,
    (a_low, a_high, b_low, b_high): (usize, usize, usize, usize),
) -> (usize, usize, usize) {
    let (mut best_i, mut best_j, mut best) = (a_low, b_low, 0);
    let mut lengths: HashMap<usize, usize> = HashMap::new();
    for (i, c) in a.iter().enumerate().take(a_high).skip(a_low) {
        let mut next = HashMap::new();
        for j in places.get(c).into_iter().flatten().copied().filter(|j| (b_low..b_high).contains(j)) {
            let length = 1 + j.checked_sub(1).and_then(|before| lengths.get(&before)).copied().unwrap_or(0);
            next.insert(j, length);
            if length > best {
                (best_i, best_j, best) = (i + 1 - length, j + 1 - length, length);
            }
        }
        lengths = next;
    }
    while best_i > a_low && best_j > b_low && a[best_i - 1] == b[best_j - 1] {
        (best_i, best_j, best) = (best_i - 1, best_j - 1, best + 1);
    }
    while best_i + best < a_high && best_j + best < b_high && a[best_i + best] == b[best_j + best] {
        best += 1;
    }
    (best_i, best_j, best)
}

/// `fuzz.ratio` in percent.
fn ratio(a: &str, b: &str) -> u32 {
    if a == b {
        return 100;
    }
    if a.is_empty() || b.is_empty() {
        return 0;
    }
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    (100.0 * (2.0 * matched(&a, &b) as f64 / (a.len() + b.len()) as f64)).round_ties_even() as u32
}

fn cleaned(text: &str) -> String {
    static OTHER: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"[^\p{L}\p{N}_]").ok());
    let ascii: String = text.chars().filter(|c| !('\u{80}'..='\u{ff}').contains(c)).collect();
    let words = OTHER.as_ref().map_or(Cow::Borrowed(ascii.as_str()), |other| other.replace_all(&ascii, " "));
    words.to_lowercase().trim().to_owned()
}

/// How alike two texts are as sets of words, in percent.
#[must_use]
pub fn token_set_ratio(a: &str, b: &str) -> u32 {
    let (a, b) = (cleaned(a), cleaned(b));
    if a.is_empty() || b.is_empty() {
        return 0;
    }
    let (a, b): (BTreeSet<&str>, BTreeSet<&str>) = (a.split_whitespace().collect(), b.split_whitespace().collect());
    let joined = |words: Vec<&str>| words.join(" ");
    let shared = joined(a.intersection(&b).copied().collect());
    let with = |rest: String| format!("{shared} {rest}").trim().to_owned();
    let x = with(joined(a.difference(&b).copied().collect()));
    let y = with(joined(b.difference(&a).copied().collect()));
    ratio(&shared, &x).max(ratio(&shared, &y)).max(ratio(&x, &y))
}
