//! What two shells make of a command line, worked out on strings: nothing is ever run.
//!
//! Upstream turns an action into a command line that dash hands to bash (`/bin/sh -c '/bin/bash -c """ LINE """'`).
//! Quotes, `$`, backslashes and operators in what a model wrote change the words that reach the tool, and scores depend
//! on it. Here the words are computed: quoting and expansion as POSIX says, variables and commands' outputs as in an
//! empty environment, file patterns by the caller. A command that would be substituted counts as one that is not found.

use crate::shell_word::{Glob, Shell, Word, fields};

/// What became of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reached {
    /// The first command's words.
    pub(crate) words: Vec<String>,
    /// Whether its standard output is seen: no pipe and no redirection took it.
    pub(crate) shown: bool,
}

/// The words of the line's first command as it is run, or `None` if a shell refuses the line.
pub(crate) fn reach(line: &str, glob: Glob<'_>) -> Option<Reached> {
    let outer = first_command(&format!("/bin/bash -c \"\"\" {line} \"\"\""), Shell::Dash, glob)?;
    let script = outer.words.get(2)?;
    let inner = first_command(script, Shell::Bash, glob)?;
    Some(Reached { words: inner.words, shown: outer.shown && inner.shown })
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(Word),
    Operator(&'static str),
    Newline,
}

const OPERATORS: [&str; 21] = [
    "<<<", "&>>", "<<-", "&&", "||", ";;", "<<", ">>", "<&", ">&", "<>", ">|", "&>", "|&", "|", "&", ";", "<", ">",
    "(", ")",
];

/// Operators that only bash has; dash reads their first character by itself.
const BASH_ONLY: [&str; 4] = ["<<<", "&>>", "&>", "|&"];

fn first_command(script: &str, shell: Shell, glob: Glob<'_>) -> Option<Reached> {
    let tokens = tokens(script, shell)?;
    let lines: Vec<&[Token]> = tokens.split(|t| *t == Token::Newline).filter(|line| !line.is_empty()).collect();
    // A shell reads a whole line before it runs any of it; later lines are too late to stop the first.
    let line = lines.first()?;
    if !is_wellformed(line, lines.len() > 1) {
        return None;
    }
    let (mut words, mut shown) = (Vec::new(), true);
    let mut rest = line.iter().peekable();
    while let Some(token) = rest.next() {
        match token {
            Token::Word(word) => {
                // Digits right before a redirection name a descriptor; the tokenizer has joined them to it already.
                words.extend(fields(word, shell, glob));
            }
            Token::Operator(
                operator @ ("<" | ">" | ">>" | ">|" | "<>" | "<&" | ">&" | "&>" | "&>>" | "<<" | "<<-" | "<<<"),
            ) => {
                let target = rest.next();
                match *operator {
                    // A file that is not there: the command is not run.
                    "<" if matches!(target, Some(Token::Word(_))) => return None,
                    // A folder that is not there: neither.
                    _ if matches!(target, Some(Token::Word(w)) if w.text().contains('/') && w.text() != "/dev/null") => {
                        return None;
                    }
                    "<" | "<<" | "<<-" | "<<<" | "<&" | "<>" => {}
                    _ => shown = false,
                }
            }
            Token::Operator("|" | "|&") => {
                shown = false;
                break;
            }
            _ => break,
        }
    }
    Some(Reached { words, shown })
}

/// Whether a line's operators stand where they may.
fn is_wellformed(line: &[Token], more: bool) -> bool {
    let (mut command, mut open) = (false, 0usize);
    let mut tokens = line.iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            Token::Word(_) => command = true,
            Token::Newline => {}
            Token::Operator("(") => {
                // After a word: a function's head, which needs `)` at once and a body, or an error.
                if command {
                    return false;
                }
                open += 1;
            }
            Token::Operator(")") => {
                if open == 0 || !command {
                    return false;
                }
                open -= 1;
            }
            Token::Operator(operator @ (";" | "&")) => {
                let _ = operator;
                if !command {
                    return false;
                }
                command = false;
                if tokens.peek().is_none() && open == 0 {
                    return true;
                }
            }
            Token::Operator("&&" | "||" | "|" | "|&") => {
                if !command || (tokens.peek().is_none() && !more) {
                    return false;
                }
                command = false;
            }
            Token::Operator(";;") => return false,
            Token::Operator(_) => {
                if !matches!(tokens.next(), Some(Token::Word(_))) {
                    return false;
                }
                command = true;
            }
        }
    }
    open == 0
}

fn tokens(script: &str, shell: Shell) -> Option<Vec<Token>> {
    let chars: Vec<char> = script.chars().collect();
    let mut lexer = Lexer { chars: &chars, at: 0, shell };
    let mut tokens = Vec::new();
    let mut word: Option<Word> = None;
    while let Some(c) = lexer.peek(0) {
        let end_word = |word: &mut Option<Word>, tokens: &mut Vec<Token>| tokens.extend(word.take().map(Token::Word));
        match c {
            ' ' | '\t' => {
                end_word(&mut word, &mut tokens);
                lexer.at += 1;
            }
            '\n' => {
                end_word(&mut word, &mut tokens);
                tokens.push(Token::Newline);
                lexer.at += 1;
            }
            '#' if word.is_none() => {
                while lexer.peek(0).is_some_and(|c| c != '\n') {
                    lexer.at += 1;
                }
            }
            '|' | '&' | ';' | '<' | '>' | '(' | ')' => {
                let rest: String = chars[lexer.at..].iter().take(3).collect();
                let fits = |o: &&&str| rest.starts_with(**o) && (shell == Shell::Bash || !BASH_ONLY.contains(*o));
                let operator = OPERATORS.iter().find(fits)?;
                // Digits right before it are the descriptor it is about.
                let descriptor = word.as_ref().is_some_and(|w| {
                    matches!(c, '<' | '>') && !w.quoted && w.chars.iter().all(|(c, _)| c.is_ascii_digit())
                });
                let errors_only = descriptor && word.as_ref().is_some_and(|w| w.text() != "1") && c == '>';
                if descriptor {
                    word = None;
                }
                end_word(&mut word, &mut tokens);
                lexer.at += operator.chars().count();
                // `2>` takes nothing of what is shown.
                tokens.push(Token::Operator(if errors_only { "<>" } else { operator }));
            }
            _ => lexer.part(word.get_or_insert_with(|| Word { expanded: true, ..Word::default() }))?,
        }
    }
    tokens.extend(word.map(Token::Word));
    Some(tokens)
}

struct Lexer<'a> {
    chars: &'a [char],
    at: usize,
    shell: Shell,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    /// One piece of a word outside quotes: a character, a quoted stretch, an expansion. `None` if it does not end.
    fn part(&mut self, word: &mut Word) -> Option<()> {
        match self.peek(0)? {
            '\\' => {
                match self.peek(1) {
                    Some('\n') => {}
                    Some(c) => {
                        word.push(&c.to_string(), true);
                        word.quoted = true;
                    }
                    None => word.push("\\", true),
                }
                self.at += 2;
                word.expanded = false;
            }
            '\'' => {
                let rest = &self.chars[self.at + 1..];
                let length = rest.iter().position(|c| *c == '\'')?;
                word.push(&rest[..length].iter().collect::<String>(), true);
                self.at += length + 2;
                word.quoted = true;
            }
            '"' => {
                self.at += 1;
                self.double_quoted(word)?;
            }
            '$' if self.shell == Shell::Bash && self.peek(1) == Some('\'') => {
                self.at += 2;
                self.ansi_quoted(word)?;
            }
            '$' if self.shell == Shell::Bash && self.peek(1) == Some('"') => {
                self.at += 2;
                self.double_quoted(word)?;
            }
            '$' | '`' => {
                let text = self.expansion()?;
                if !text.is_empty() {
                    word.push(&text, false);
                }
            }
            c => {
                word.push(&c.to_string(), false);
                word.expanded = false;
                self.at += 1;
            }
        }
        Some(())
    }

    fn double_quoted(&mut self, word: &mut Word) -> Option<()> {
        word.quoted = true;
        loop {
            match self.peek(0)? {
                '"' => {
                    self.at += 1;
                    return Some(());
                }
                '\\' => {
                    match self.peek(1)? {
                        c @ ('$' | '`' | '"' | '\\') => word.push(&c.to_string(), true),
                        '\n' => {}
                        c => {
                            word.push("\\", true);
                            word.push(&c.to_string(), true);
                        }
                    }
                    self.at += 2;
                }
                '$' | '`' => {
                    let text = self.expansion()?;
                    word.push(&text, true);
                }
                c => {
                    word.push(&c.to_string(), true);
                    self.at += 1;
                }
            }
        }
    }

    /// Bash's `$'…'`, the common escapes.
    fn ansi_quoted(&mut self, word: &mut Word) -> Option<()> {
        word.quoted = true;
        loop {
            let c = self.peek(0)?;
            self.at += 1;
            match c {
                '\'' => return Some(()),
                '\\' => {
                    let escaped = self.peek(0)?;
                    self.at += 1;
                    match escaped {
                        'n' => word.push("\n", true),
                        't' => word.push("\t", true),
                        'r' => word.push("\r", true),
                        '\\' | '\'' | '"' | '?' => word.push(&escaped.to_string(), true),
                        other => word.push(&format!("\\{other}"), true),
                    }
                }
                c => word.push(&c.to_string(), true),
            }
        }
    }

    /// An expansion, standing at its `$` or backquote. `None` if it does not end, or cannot be.
    fn expansion(&mut self) -> Option<String> {
        if self.peek(0) == Some('`') {
            self.at += 1;
            let mut inside = String::new();
            loop {
                match self.peek(0)? {
                    '`' => break,
                    '\\' => {
                        let escaped = self.peek(1)?;
                        if !matches!(escaped, '`' | '$' | '\\') {
                            inside.push('\\');
                        }
                        inside.push(escaped);
                        self.at += 2;
                    }
                    c => {
                        inside.push(c);
                        self.at += 1;
                    }
                }
            }
            self.at += 1;
            return Some(output(&inside, self.shell));
        }
        let next = self.peek(1);
        match next {
            Some('(') => {
                self.at += 2;
                let (start, mut open) = (self.at, 1usize);
                while open > 0 {
                    match self.peek(0)? {
                        '(' => open += 1,
                        ')' => open -= 1,
                        '\\' => self.at += 1,
                        _ => {}
                    }
                    self.at += 1;
                }
                let inside: String = self.chars.get(start..self.at - 1)?.iter().collect();
                Some(output(&inside, self.shell))
            }
            Some('{') => {
                let length = self.chars[self.at..].iter().position(|c| *c == '}')?;
                let inside: String = self.chars[self.at + 2..self.at + length].iter().collect();
                self.at += length + 1;
                parameter(&inside)
            }
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                self.at += 1;
                while self.peek(0).is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
                    self.at += 1;
                }
                Some(String::new())
            }
            Some(c) if c.is_ascii_digit() || "?#$!-@*".contains(c) => {
                self.at += 2;
                Some(match (c, self.shell) {
                    ('0', Shell::Dash) => "/bin/sh".into(),
                    ('0', Shell::Bash) => "/bin/bash".into(),
                    ('?' | '#', _) => "0".into(),
                    ('$', _) => "1".into(),
                    ('-', Shell::Bash) => "hBc".into(),
                    _ => String::new(),
                })
            }
            _ => {
                self.at += 1;
                Some("$".into())
            }
        }
    }
}

/// What a substituted command writes: only `echo` is known here, any other is not found.
fn output(command: &str, shell: Shell) -> String {
    // Substitutions in substitutions are not followed.
    if command.contains(['`', '$']) {
        return String::new();
    }
    match first_command(command, shell, &|_| Vec::new()) {
        Some(Reached { words, shown: true }) if words.first().is_some_and(|w| w == "echo") => words[1..].join(" "),
        _ => String::new(),
    }
}

/// `${…}` where nothing is set. `None`: a bad substitution.
fn parameter(inside: &str) -> Option<String> {
    if let Some(name) = inside.strip_prefix('#').filter(|n| is_name(n)) {
        let _ = name;
        return Some("0".into());
    }
    let end = inside.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(inside.len());
    let (name, operation) = inside.split_at(end);
    let numbered = !name.is_empty() && name.chars().all(|c| c.is_ascii_digit());
    if !is_name(name) && !numbered {
        return None;
    }
    let operation = operation.strip_prefix(':').unwrap_or(operation);
    match operation.chars().next() {
        None | Some('+' | '%' | '#') => Some(String::new()),
        Some('-' | '=') => Some(operation[1..].to_owned()),
        _ => None,
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_that_dash_and_bash_hand_on() {
        let of = |line: &str| reach(line, &|_| Vec::new()).map(|r| (r.words.join("|"), r.shown));
        for (line, expected) in [
            ("p --a 'x y'", Some(("p|--a|x y", true))),
            ("p --a '''$1,200'''", Some(("p|--a|,200", true))),
            ("p --a '''it's'''", None),
            ("p --a '''\"a\" \"b\"'''", Some(("p|--a|a b", true))),
            ("p --a \"Hello World\" --b c", Some(("p|--a|Hello", true))),
            ("p --a 'C:\\dir\\file'", Some(("p|--a|C:\\dir\\file", true))),
            ("p --a 'a`b'", None),
            ("p --a 'a `date` b'", Some(("p|--a|a  b", true))),
            ("p --a '$(echo hi)' $(echo b c)", Some(("p|--a|hi|b|c", true))),
            ("p --a x > a/b", None),
            ("p --a 3 > 2 --b c", Some(("p|--a|3|--b|c", false))),
            ("p --a x | y", Some(("p|--a|x", false))),
            ("p --a x; y", Some(("p|--a|x", true))),
            ("p --a f(x)", None),
            ("p --a x && ", None),
            ("p --a {b,c}d", Some(("p|--a|bd|cd", true))),
            ("p --a # n", Some(("p|--a", true))),
            ("p --a 'two\nlines'", Some(("p|--a|two\nlines", true))),
            ("p --a one\ntwo", Some(("p|--a|one", true))),
            ("p --a '${x}y' ''", Some(("p|--a|y|", true))),
            ("p --a '${}'", None),
            ("p --a $", Some(("p|--a|$", true))),
        ] {
            let expected = expected.map(|(words, shown): (&str, bool)| (words.to_owned(), shown));
            assert_eq!(of(line), expected, "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(line: String) {
            let _ = reach(&line, &|_| Vec::new());
        }
        #[test]
        fn plain_words_pass(line in "[a-z0-9/._-]{1,9}( [a-z0-9/._-]{1,9}){0,4}") {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            proptest::prop_assert_eq!(reach(&line, &|_| Vec::new()), Some(Reached { words, shown: true }));
        }
    }
}
