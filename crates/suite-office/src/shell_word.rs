//! A word of a shell's command line, and the words that it becomes.

/// Finds the names that a pattern fits; a pattern that fits none stays as it is.
pub(crate) type Glob<'g> = &'g dyn Fn(&str) -> Vec<String>;

/// Which of the two shells reads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shell {
    Dash,
    Bash,
}

/// A word: its text, and for each character whether it stood in quotes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Word {
    pub(crate) chars: Vec<(char, bool)>,
    /// Whether quotes stood in it: such a word stays even if it is empty.
    pub(crate) quoted: bool,
    /// Whether it is nothing but expansions without quotes: such a word vanishes if it is empty.
    pub(crate) expanded: bool,
}

impl Word {
    pub(crate) fn text(&self) -> String {
        self.chars.iter().map(|(c, _)| c).collect()
    }
    pub(crate) fn push(&mut self, text: &str, quoted: bool) {
        self.chars.extend(text.chars().map(|c| (c, quoted)));
    }
    fn has(&self, wanted: &[char]) -> bool {
        self.chars.iter().any(|(c, quoted)| !quoted && wanted.contains(c))
    }
}

/// What a word becomes: braces (in bash) and file patterns spread it, an empty expansion drops it.
pub(crate) fn fields(word: &Word, shell: Shell, glob: Glob<'_>) -> Vec<String> {
    if word.chars.is_empty() && word.expanded && !word.quoted {
        return Vec::new();
    }
    // A blank that no quotes hold came out of an expansion: it parts words.
    let parts = word.chars.split(|(c, quoted)| !quoted && matches!(c, ' ' | '\t' | '\n'));
    let parts = parts.filter(|p| !p.is_empty() || word.quoted);
    let parts = parts.map(|chars| Word { chars: chars.to_vec(), quoted: word.quoted, expanded: false });
    let spread = parts.flat_map(|part| if shell == Shell::Bash { braces(&part) } else { vec![part] });
    let mut out = Vec::new();
    for word in spread {
        let text = word.text();
        let found = if word.has(&['*', '?', '[']) { glob(&text) } else { Vec::new() };
        if found.is_empty() { out.push(text) } else { out.extend(found) }
    }
    out
}

/// Bash's `a{b,c}d`, the first such braces of a word, then those of what they give.
fn braces(word: &Word) -> Vec<Word> {
    let plain = |i: usize, c: char| word.chars.get(i) == Some(&(c, false));
    for open in (0..word.chars.len()).filter(|i| plain(*i, '{')) {
        let (mut depth, mut commas, mut close) = (0usize, Vec::new(), None);
        for i in open..word.chars.len() {
            if plain(i, '{') {
                depth += 1;
            } else if plain(i, '}') {
                depth -= 1;
                if depth == 0 {
                    close = Some(i);
                    break;
                }
            } else if plain(i, ',') && depth == 1 {
                commas.push(i);
            }
        }
        let Some(close) = close.filter(|_| !commas.is_empty() && (open == 0 || !plain(open - 1, '$'))) else {
            continue;
        };
        let mut starts = vec![open + 1];
        starts.extend(commas.iter().map(|c| c + 1));
        let mut ends = commas;
        ends.push(close);
        return starts
            .into_iter()
            .zip(ends)
            .flat_map(|(start, end)| {
                let parts = [&word.chars[..open], &word.chars[start..end], &word.chars[close + 1..]];
                braces(&Word { chars: parts.concat(), quoted: word.quoted, expanded: false })
            })
            .take(1000)
            .collect();
    }
    vec![word.clone()]
}
