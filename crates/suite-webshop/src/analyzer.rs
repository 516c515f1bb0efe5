//! Lucene's English analyzer as Anserini 0.14.3 sets it up: StandardTokenizer, possessives, lower case, stop words, Porter.

use regex::Regex;
use std::sync::LazyLock;
use unicode_segmentation::UnicodeSegmentation;

/// Longest token in characters; longer ones are cut into pieces.
const LONGEST: usize = 255;
const STOP: [&str; 33] = [
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it", "no", "not", "of",
    "on", "or", "such", "that", "the", "their", "then", "there", "these", "they", "this", "to", "was", "will", "with",
];

fn matches(pattern: &LazyLock<Option<Regex>>, text: &str) -> bool {
    pattern.as_ref().is_some_and(|p| p.is_match(text))
}

/// Whether a segment is a token: it has a letter, a digit, or an emoji.
fn is_token(segment: &str) -> bool {
    static WORD: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(
            r"[\p{Alphabetic}\p{Nd}]|\p{Emoji_Presentation}|\p{Extended_Pictographic}\x{FE0F}|[0-9#*]\x{FE0F}?\x{20E3}",
        )
        .ok()
    });
    segment.bytes().any(|b| b.is_ascii_alphanumeric()) || !segment.is_ascii() && matches(&WORD, segment)
}

/// Whether a letter stands at one end of a segment, so that a colon joins it to another.
fn joins(letter: Option<char>) -> bool {
    letter.is_some_and(|c| c.is_alphabetic() && !is_single(c))
}

/// Characters that are tokens of their own.
fn is_single(c: char) -> bool {
    matches!(c, '\u{3040}'..='\u{309f}' | '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

/// Segments as the tokenizer makes them, before filters. Colons join letters, which newer rules of Unicode no longer say.
fn segments(text: &str) -> Vec<String> {
    let parts: Vec<&str> = text.split_word_bounds().collect();
    let mut out: Vec<String> = Vec::new();
    let mut i = 0;
    while i < parts.len() {
        let mut word = parts[i].to_owned();
        while i + 2 < parts.len()
            && parts[i + 1] == ":"
            && joins(word.chars().next_back())
            && joins(parts[i + 2].chars().next())
        {
            word = format!("{word}:{}", parts[i + 2]);
            i += 2;
        }
        i += 1;
        if !is_token(&word) {
            continue;
        }
        if word.chars().count() <= LONGEST {
            out.push(word);
            continue;
        }
        let letters: Vec<char> = word.chars().collect();
        out.extend(letters.chunks(LONGEST).map(|piece| piece.iter().collect()));
    }
    out
}

/// The terms of a text, in order.
#[must_use]
pub fn terms(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    for segment in segments(text) {
        let mut word = segment.as_str();
        let mut ends = word.chars();
        if let (Some('s' | 'S'), Some('\'' | '\u{2019}' | '\u{ff07}')) = (ends.next_back(), ends.next_back()) {
            word = ends.as_str();
        }
        let word = word.to_lowercase();
        if !STOP.contains(&word.as_str()) {
            out.push(stem(&word));
        }
    }
    out
}

/// A word being stemmed: Porter's algorithm with his three departures, on characters.
struct Stemmer {
    word: Vec<char>,
    /// Where the stem ends when an ending was found.
    stem: usize,
}

impl Stemmer {
    fn is_consonant(&self, i: usize) -> bool {
        match self.word[i] {
            'a' | 'e' | 'i' | 'o' | 'u' => false,
            'y' => i == 0 || !self.is_consonant(i - 1),
            _ => true,
        }
    }

    /// How often vowels are followed by consonants in the stem.
    fn measure(&self) -> usize {
        let kinds: Vec<bool> = (0..self.stem).map(|i| self.is_consonant(i)).collect();
        kinds.windows(2).filter(|pair| !pair[0] && pair[1]).count()
    }

    fn has_vowel(&self) -> bool {
        (0..self.stem).any(|i| !self.is_consonant(i))
    }

    /// Whether a double consonant ends before `end`.
    fn is_double(&self, end: usize) -> bool {
        end >= 2 && self.word[end - 1] == self.word[end - 2] && self.is_consonant(end - 1)
    }

    /// Whether consonant, vowel, consonant end before `end`, the last not w, x or y.
    fn is_short(&self, end: usize) -> bool {
        end >= 3
            && self.is_consonant(end - 1)
            && !self.is_consonant(end - 2)
            && self.is_consonant(end - 3)
            && !['w', 'x', 'y'].contains(&self.word[end - 1])
    }

    fn ends(&mut self, ending: &str) -> bool {
        let length = ending.len();
        if self.word.len() < length || !self.word[self.word.len() - length..].iter().copied().eq(ending.chars()) {
            return false;
        }
        self.stem = self.word.len() - length;
        true
    }

    fn set(&mut self, ending: &str) {
        self.word.truncate(self.stem);
        self.word.extend(ending.chars());
    }

    /// Replaces the first ending that fits, if the stem measures at least 1.
    fn replace(&mut self, pairs: &[(&str, &str)]) {
        if let Some((_, with)) = pairs.iter().find(|(ending, _)| self.ends(ending))
            && self.measure() > 0
        {
            self.set(with);
        }
    }

    fn plurals_and_past(&mut self) {
        if self.word.last() == Some(&'s') {
            if self.ends("sses") {
                self.set("ss");
            } else if self.ends("ies") {
                self.set("i");
            } else if self.word[self.word.len() - 2] != 's' {
                self.word.pop();
            }
        }
        if self.ends("eed") {
            if self.measure() > 0 {
                self.word.pop();
            }
        } else if (self.ends("ed") || self.ends("ing")) && self.has_vowel() {
            self.word.truncate(self.stem);
            let end = self.word.len();
            if self.ends("at") || self.ends("bl") || self.ends("iz") {
                self.word.push('e');
            } else if self.is_double(end) {
                if !['l', 's', 'z'].contains(&self.word[end - 1]) {
                    self.word.pop();
                }
            } else {
                self.stem = end;
                if self.measure() == 1 && self.is_short(end) {
                    self.word.push('e');
                }
            }
        }
        if self.ends("y") && self.has_vowel() {
            self.set("i");
        }
    }

    fn suffixes(&mut self) {
        // Departures: `bli` for `abli`, and `logi`.
        self.replace(&[
            ("ational", "ate"),
            ("tional", "tion"),
            ("enci", "ence"),
            ("anci", "ance"),
            ("izer", "ize"),
            ("bli", "ble"),
            ("alli", "al"),
            ("entli", "ent"),
            ("eli", "e"),
            ("ousli", "ous"),
            ("ization", "ize"),
            ("ation", "ate"),
            ("ator", "ate"),
            ("alism", "al"),
            ("iveness", "ive"),
            ("fulness", "ful"),
            ("ousness", "ous"),
            ("aliti", "al"),
            ("iviti", "ive"),
            ("biliti", "ble"),
            ("logi", "log"),
        ]);
        self.replace(&[
            ("icate", "ic"),
            ("ative", ""),
            ("alize", "al"),
            ("iciti", "ic"),
            ("ical", "ic"),
            ("ful", ""),
            ("ness", ""),
        ]);
        let endings = [
            "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou", "ism", "ate",
            "iti", "ous", "ive", "ize",
        ];
        let found = endings.iter().find(|ending| {
            self.ends(ending) && (**ending != "ion" || self.stem > 0 && ['s', 't'].contains(&self.word[self.stem - 1]))
        });
        if found.is_some() && self.measure() > 1 {
            self.word.truncate(self.stem);
        }
    }

    fn last_letters(&mut self) {
        self.stem = self.word.len();
        if self.word.last() == Some(&'e') {
            let measure = self.measure();
            if measure > 1 || measure == 1 && !self.is_short(self.word.len() - 1) {
                self.word.pop();
            }
        }
        self.stem = self.word.len();
        if self.word.last() == Some(&'l') && self.is_double(self.word.len()) && self.measure() > 1 {
            self.word.pop();
        }
    }
}

/// A lower-cased word's stem.
fn stem(word: &str) -> String {
    let letters: Vec<char> = word.chars().collect();
    if letters.len() <= 2 {
        return word.to_owned();
    }
    let mut stemmer = Stemmer { word: letters, stem: 0 };
    stemmer.plurals_and_past();
    stemmer.suffixes();
    stemmer.last_letters();
    stemmer.word.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stems_are_porters() {
        for (word, expected) in [
            ("caresses", "caress"),
            ("ponies", "poni"),
            ("agreed", "agre"),
            ("hopping", "hop"),
            ("filing", "file"),
            ("happy", "happi"),
            ("possibly", "possibl"),
            ("archaeology", "archaeolog"),
            ("adoption", "adopt"),
            ("controlling", "control"),
            ("rate", "rate"),
            ("is", "is"),
        ] {
            assert_eq!(stem(word), expected, "{word}");
        }
    }
}
