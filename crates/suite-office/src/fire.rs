//! python-fire 0.5.0: a command line's words to a function's parameters (`fire/core.py`, `_ParseKeywordArgs` and
//! `_ParseArgs`).

use rolegraft_python::{Object, read};

/// A parameter, and its default where it has one.
pub(crate) type Parameter = (String, Option<Object>);

/// What fire makes of the words.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Call {
    /// The arguments in the parameters' order; `None` if the function is not called.
    pub(crate) arguments: Option<Vec<Object>>,
    /// Words are left over (or something is missing), so fire fails, after the call where there is one: what the tool
    /// returns is not shown.
    pub(crate) rejected: bool,
}

fn is_flag(word: &str) -> bool {
    word.starts_with("--") || word.strip_prefix('-').is_some_and(|w| w.starts_with(|c: char| c.is_ascii_alphabetic()))
}

/// Calls a function of `parameters` with the words of a command line.
pub(crate) fn call(parameters: &[Parameter], words: &[String]) -> Call {
    // What stands after the last `--` is fire's own; what stands after the first `-` is for the call's result.
    let own = words.iter().rposition(|w| w == "--").unwrap_or(words.len());
    let words = &words[..own];
    let used = words.iter().position(|w| w == "-").unwrap_or(words.len());
    let saved = words.len() > used + 1;
    let not_called = Call { arguments: None, rejected: true };
    let Some((mut named, mut positional, left)) = keywords(parameters, &words[..used]) else { return not_called };
    positional.reverse();
    let mut arguments = Vec::new();
    for (name, default) in parameters {
        let word = match named.iter().position(|(n, _)| n == name) {
            Some(at) => Some(named.swap_remove(at).1),
            None => positional.pop(),
        };
        match (word, default) {
            (Some(word), _) => match read(&word) {
                Ok(object) => arguments.push(object),
                Err(_) => return not_called,
            },
            (None, Some(default)) => arguments.push(default.clone()),
            (None, None) => return not_called,
        }
    }
    Call { arguments: Some(arguments), rejected: left || !positional.is_empty() || saved }
}

type Parsed<'p> = (Vec<(&'p str, String)>, Vec<String>, bool);

/// Named arguments, positional words, and whether flags are left that nothing takes. `None` if fire fails.
fn keywords<'p>(parameters: &'p [Parameter], words: &[String]) -> Option<Parsed<'p>> {
    let known = |key: &str| parameters.iter().map(|(name, _)| name.as_str()).find(|name| *name == key);
    let (mut named, mut positional, mut left): Parsed<'p> = (Vec::new(), Vec::new(), false);
    let mut at = 0;
    while let Some(word) = words.get(at) {
        at += 1;
        if !is_flag(word) {
            positional.push(word.clone());
            continue;
        }
        let stripped = word.trim_start_matches('-');
        let (key, inline) = match stripped.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (stripped, None),
        };
        let key = key.replace('-', "_");
        let alone = inline.is_none() && words.get(at).is_none_or(|next| is_flag(next));
        let negated = key.strip_prefix("no").filter(|_| alone).and_then(known);
        let mut keyword = known(&key);
        if keyword.is_none() && negated.is_none() && key.chars().count() == 1 {
            let mut short = parameters.iter().map(|(name, _)| name.as_str()).filter(|name| name.starts_with(&key));
            keyword = short.next();
            if short.next().is_some() {
                return None;
            }
        }
        let next = if inline.is_none() && !alone {
            at += 1;
            words.get(at - 1).cloned()
        } else {
            None
        };
        let (keyword, value) = match (keyword, negated) {
            (Some(keyword), _) => (keyword, inline.or(next).unwrap_or_else(|| "True".into())),
            (None, Some(keyword)) => (keyword, "False".into()),
            (None, None) => {
                left = true;
                continue;
            }
        };
        named.retain(|(name, _)| *name != keyword);
        named.push((keyword, value));
    }
    Some((named, positional, left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_arguments_as_fire_reads_them() {
        let mail = [("sender", None), ("recipient", None), ("workdir", Some(Object::None))];
        let mail = mail.map(|(name, default)| (name.to_owned(), default));
        let of = |words: &str| {
            let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
            let called = call(&mail, &words);
            let shown = called.arguments.map(|a| a.iter().map(Object::repr).collect::<Vec<_>>().join(" "));
            (shown.unwrap_or_default(), called.rejected)
        };
        for (words, expected, rejected) in [
            ("--sender Bob --recipient 42", "'Bob' 42 None", false),
            ("--recipient=a,b --sender -5", "-5 ('a', 'b') None", false),
            ("--sender New Person --recipient Bob", "'New' 'Bob' 'Person'", false),
            ("--sender a b c --recipient Bob", "'a' 'Bob' 'b'", true),
            ("--sender -x --recipient Bob", "True 'Bob' None", true),
            ("--sender Bob --recipient - --workdir w", "'Bob' True None", true),
            ("--sender Bob --recipient -- x", "'Bob' True None", false),
            ("--sender Bob", "", true),
            ("-s 1e3 -r 007", "1000.0 '007' None", false),
            ("--sender {[1]:2} --recipient b", "", true),
        ] {
            assert_eq!(of(words), (expected.to_owned(), rejected), "{words}");
        }
    }
}
