//! YAML as PyYAML 6.0's safe loader reads it, which is YAML 1.1, where mergekit's recipes come from: repeated keys (the last counts),
//! anchors, merge keys, several documents, and the words and numbers of plain scalars.
//!
//! Three things differ: `1e-5`, a text there, is the number that everybody means; dates stay texts; and an anchor's name may be
//! given again, as YAML itself has it, where PyYAML stops.

use super::node::{Entry, Kind, Node};
use regex::Regex;
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::LazyLock;

/// Largest recipe read, in bytes.
const MOST_BYTES: usize = 4 << 20;
/// How deep a recipe may nest.
const DEPTH: usize = 64;
/// Values that a recipe may have, those that aliases repeat counted again.
const MOST: usize = 100_000;

/// A document with its part of the text.
pub(crate) struct Document<'t> {
    pub(crate) node: Node,
    pub(crate) text: &'t str,
}

/// Refuses what is too long for a recipe.
pub(crate) fn bounded(text: &str) -> Result<(), String> {
    match text.len() {
        0..=MOST_BYTES => Ok(()),
        length => Err(format!("the recipe is {length} bytes long, the limit is {MOST_BYTES}")),
    }
}

/// Reads all documents of a text.
pub(crate) fn documents(text: &str) -> Result<Vec<Document<'_>>, String> {
    bounded(text)?;
    let events: Vec<(Event<'_>, Span)> =
        Parser::new_from_str(text).collect::<Result<_, _>>().map_err(|e| scanned(&e))?;
    refuse_tabs(text, &events)?;
    let used = events.iter().filter_map(|(event, _)| if let Event::Alias(id) = event { Some(*id) } else { None });
    let used: HashSet<usize> = used.collect();
    let mut loader = Loader { events: events.into_iter(), used, anchors: HashMap::new(), made: 0 };
    let (mut nodes, mut starts) = (Vec::new(), Vec::new());
    while let Some((event, span)) = loader.events.next() {
        if let Event::DocumentStart(explicit) = event {
            starts.push(if explicit { span.start.line() } else { 1 });
            loader.anchors.clear();
            let (event, span) = loader.next()?;
            nodes.push(loader.node((event, span), 0)?.0);
        }
    }
    let line = |line: usize| text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum::<usize>();
    let ends = starts.iter().skip(1).map(|start| line(*start)).chain([text.len()]);
    let parts: Vec<Range<usize>> = starts
        .iter()
        .zip(ends)
        .enumerate()
        .map(|(at, (start, end))| if at == 0 { 0..end } else { line(*start)..end })
        .collect();
    Ok(nodes.into_iter().zip(parts).map(|(node, part)| Document { node, text: &text[part] }).collect())
}

fn scanned(error: &ScanError) -> String {
    format!("line {}: {}", error.marker().line(), error.info())
}

/// A tab is no space to PyYAML, wherever it does not stand in quotes, in a block of text, or in a comment.
fn refuse_tabs(text: &str, events: &[(Event<'_>, Span)]) -> Result<(), String> {
    if !text.contains('\t') {
        return Ok(());
    }
    let quoted = |(event, span): &(Event<'_>, Span)| match event {
        Event::Scalar(_, style, ..) if *style != ScalarStyle::Plain => Some(span.start.index()..span.end.index()),
        _ => None,
    };
    let quoted: Vec<Range<usize>> = events.iter().filter_map(quoted).collect();
    let inside = |at: usize| quoted.iter().any(|range| range.contains(&at));
    let (mut line, mut comment, mut before) = (1, false, '\n');
    for (at, letter) in text.chars().enumerate() {
        match letter {
            '\n' => (line, comment) = (line + 1, false),
            '#' if before.is_whitespace() && !inside(at) => comment = true,
            '\t' if !comment && !inside(at) => {
                return Err(format!("line {line}: a tab stands where YAML wants spaces"));
            }
            _ => {}
        }
        before = letter;
    }
    Ok(())
}

struct Loader<'t> {
    events: std::vec::IntoIter<(Event<'t>, Span)>,
    /// Anchors that aliases refer to.
    used: HashSet<usize>,
    /// Values by their anchors, with the number of their parts.
    anchors: HashMap<usize, (Node, usize)>,
    made: usize,
}

impl<'t> Loader<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Span), String> {
        self.events.next().ok_or_else(|| "the recipe ends in the middle".to_owned())
    }

    /// A value, and whether an anchor in it is used somewhere.
    fn node(&mut self, (event, span): (Event<'t>, Span), depth: usize) -> Result<(Node, bool), String> {
        let (line, before) = (span.start.line(), self.made);
        self.made += 1;
        if depth > DEPTH {
            return Err(format!("line {line}: the recipe nests deeper than {DEPTH} levels"));
        }
        let (kind, anchor, mut helps) = match event {
            Event::Alias(id) => {
                let known = self.anchors.get(&id).cloned();
                let (node, parts) =
                    known.ok_or_else(|| format!("line {line}: an alias stands within what its anchor names"))?;
                self.made += parts;
                self.bounded(line)?;
                return Ok((node, false));
            }
            Event::Scalar(text, style, anchor, tag) => (scalar(&text, style, tag.as_deref(), line)?, anchor, false),
            Event::SequenceStart(anchor, _) => {
                let (mut items, mut helps) = (Vec::new(), false);
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        event => {
                            let (item, helping) = self.node(event, depth + 1)?;
                            items.push(item);
                            helps |= helping;
                        }
                    }
                }
                (Kind::List(items), anchor, helps)
            }
            Event::MappingStart(anchor, _) => {
                let (entries, helps) = self.entries(depth)?;
                (Kind::Map(entries), anchor, helps)
            }
            _ => return Err(format!("line {line}: the value cannot be read")),
        };
        self.bounded(line)?;
        let node = Node { line, kind };
        if anchor > 0 {
            helps |= self.used.contains(&anchor);
            self.anchors.insert(anchor, (node.clone(), self.made - before));
        }
        Ok((node, helps))
    }

    fn bounded(&self, line: usize) -> Result<(), String> {
        if self.made > MOST {
            return Err(format!("line {line}: with its aliases the recipe has more than {MOST} values"));
        }
        Ok(())
    }

    /// A table's entries: those of merge keys first, then its own; of one key the last.
    fn entries(&mut self, depth: usize) -> Result<(Vec<Entry>, bool), String> {
        let (mut merged, mut own, mut helps): (Vec<Entry>, Vec<Entry>, bool) = (Vec::new(), Vec::new(), false);
        loop {
            let (event, span) = match self.next()? {
                (Event::MappingEnd, _) => break,
                event => event,
            };
            let line = span.start.line();
            let merges = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<");
            let key = self.node((event, span), depth + 1)?.0;
            let event = self.next()?;
            let (value, helping) = self.node(event, depth + 1)?;
            helps |= helping;
            if merges {
                // An earlier table of a list counts before a later one.
                let tables = match value.kind {
                    Kind::List(items) => items.into_iter().rev().collect(),
                    kind => vec![Node { line: value.line, kind }],
                };
                for table in tables {
                    let (line, what) = (table.line, table.what());
                    let Kind::Map(entries) = table.kind else {
                        return Err(format!("line {line}: `<<` takes a table or a list of tables, not {what}"));
                    };
                    merged.extend(entries);
                }
                continue;
            }
            let key = match key.kind {
                Kind::Text(text) => text,
                Kind::Number(number) => number.to_string(),
                Kind::Bool(word) => word.to_string(),
                Kind::Null => "null".into(),
                Kind::List(_) | Kind::Map(_) => return Err(format!("line {line}: a key must be a text")),
            };
            own.push(Entry { key, line, value, helps: helping, over: None });
        }
        let mut entries: Vec<(usize, Entry)> = Vec::new();
        let of_merged = merged.len();
        for (at, mut entry) in merged.into_iter().chain(own).enumerate() {
            match entries.iter_mut().find(|(_, known)| known.key == entry.key) {
                Some((before, known)) => {
                    // To stand in place of what was merged in is what merge keys are for.
                    entry.over = (*before >= of_merged && !known.helps).then_some(known.line);
                    (*before, *known) = (at, entry);
                }
                None => entries.push((at, entry)),
            }
        }
        Ok((entries.into_iter().map(|(_, entry)| entry).collect(), helps))
    }
}

/// What a scalar is.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>, line: usize) -> Result<Kind, String> {
    let Some(tag) = tag else {
        return Ok(if style == ScalarStyle::Plain { plain(text) } else { Kind::Text(text.to_string()) });
    };
    let name = format!("{}{}", tag.handle, tag.suffix);
    let wrong = || format!("line {line}: `{text}` is no value of the tag `{name}`");
    match tag.suffix.as_str() {
        _ if tag.handle != "tag:yaml.org,2002:" && !(tag.handle.is_empty() && tag.suffix == "!") => {
            Err(format!("line {line}: the tag `{name}` means nothing in a recipe"))
        }
        "str" | "!" => Ok(Kind::Text(text.to_string())),
        "null" => Ok(Kind::Null),
        "int" | "float" => match plain(text) {
            Kind::Number(number) => Ok(Kind::Number(number)),
            _ => Err(wrong()),
        },
        "bool" => match plain(text) {
            Kind::Bool(word) => Ok(Kind::Bool(word)),
            _ => Err(wrong()),
        },
        _ => Err(format!("line {line}: the tag `{name}` means nothing in a recipe")),
    }
}

static WHOLE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"^(?:[-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+)$").ok()
});
static FLOAT: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r"^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
    )
    .ok()
});
/// Numbers to everybody but YAML 1.1.
static EXPONENT: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$").ok());

/// What a plain scalar means.
fn plain(text: &str) -> Kind {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Kind::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return Kind::Bool(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => return Kind::Bool(false),
        _ => {}
    }
    let is = |regex: &LazyLock<Option<Regex>>| regex.as_ref().is_some_and(|regex| regex.is_match(text));
    let number = if is(&WHOLE) {
        whole(text)
    } else if is(&FLOAT) {
        float(text)
    } else if is(&EXPONENT) {
        text.parse().ok()
    } else {
        None
    };
    number.map_or_else(|| Kind::Text(text.to_owned()), Kind::Number)
}

/// The sign, and what follows without underscores.
fn signed(text: &str) -> (f64, String) {
    let (sign, rest) = match text.as_bytes().first() {
        Some(b'-') => (-1.0, &text[1..]),
        Some(b'+') => (1.0, &text[1..]),
        _ => (1.0, text),
    };
    (sign, rest.replace('_', ""))
}

fn whole(text: &str) -> Option<f64> {
    let (sign, digits) = signed(text);
    let radix = |digits: &str, radix: u32| i128::from_str_radix(digits, radix).ok().map(|n| n as f64);
    let value = match digits.as_str() {
        "0" => Some(0.0),
        d if d.starts_with("0b") => radix(&d[2..], 2),
        d if d.starts_with("0x") => radix(&d[2..], 16),
        d if d.contains(':') => sexagesimal(d),
        d if d.starts_with('0') => radix(d, 8),
        d => d.parse().ok(),
    };
    value.map(|value| sign * value)
}

fn float(text: &str) -> Option<f64> {
    let (sign, digits) = signed(text);
    let value = match digits.to_ascii_lowercase().as_str() {
        ".inf" => Some(f64::INFINITY),
        ".nan" => Some(f64::NAN),
        d if d.contains(':') => sexagesimal(d),
        d => d.parse().ok(),
    };
    value.map(|value| sign * value)
}

/// Digits of base 60.
fn sexagesimal(digits: &str) -> Option<f64> {
    digits.split(':').try_fold(0.0, |sum, part| Some(sum * 60.0 + part.parse::<f64>().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn value(node: &Node) -> Value {
        match &node.kind {
            Kind::Null => Value::Null,
            Kind::Bool(word) => json!(word),
            Kind::Number(number) if number.is_nan() => json!({"special": "nan"}),
            Kind::Number(number) if number.is_infinite() => json!({"special": number.to_string()}),
            Kind::Number(number) => json!(number),
            Kind::Text(text) => json!(text),
            Kind::List(items) => items.iter().map(value).collect(),
            Kind::Map(entries) => entries.iter().map(|entry| (entry.key.clone(), value(&entry.value))).collect(),
        }
    }

    /// What tests/peers/pyyaml.py recorded.
    #[test]
    fn recipes_are_read_as_pyyaml_reads_them() {
        let cases: Vec<Value> = serde_json::from_str(include_str!("pyyaml.json")).unwrap();
        let mut wrong = Vec::new();
        for case in &cases {
            let text = case["yaml"].as_str().unwrap();
            let ours = documents(text).and_then(|documents| match &documents[..] {
                [document] => Ok(value(&document.node)),
                other => Err(format!("{} documents", other.len())),
            });
            let theirs = case.get("value");
            if ours.as_ref().ok() != theirs {
                wrong.push(format!("{text:?}: {ours:?}, not {:?}", theirs.or(case.get("error"))));
            }
        }
        assert!(cases.len() > 100 && wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
