//! TextWorld's grammars (`.twl2`): how a state is told. Templates are compiled once a game, names resolved to numbers.

use crate::problem::{Symbol, World};
use crate::state::State;
use serde_json::Value;
use std::cell::Cell;
use std::collections::BTreeMap;

/// Deepest expansion of symbols.
const DEPTH: usize = 32;
/// Longest text of one expansion, in bytes.
const LONGEST: usize = 1 << 20;
/// Most symbols of one expansion.
const SYMBOLS: u32 = 1 << 16;
/// Most placeholders of a grammar.
const PLACEHOLDERS: usize = 64;

/// Values of placeholders.
pub(crate) type Values = [Option<Symbol>; PLACEHOLDERS];

/// One fact that a query asks for.
#[derive(Debug)]
struct Asked {
    /// None: there is no such predicate, so there are no such facts.
    predicate: Option<usize>,
    gone: bool,
    /// Placeholders, and the types their values must have.
    arguments: Vec<(u8, Option<u16>)>,
}

type Query = Vec<Asked>;

#[derive(Debug)]
enum Expression {
    Name(u8),
    Indefinite,
    Literal(String),
    Symbol(String),
    Joined(Vec<Expression>),
    FirstOf(Vec<Expression>),
}

#[derive(Debug)]
enum Piece {
    Text(String),
    Symbol(String),
    Value(Expression, Option<Query>),
    List(Expression, Option<Query>),
}

#[derive(Debug)]
struct Rule {
    condition: Option<Query>,
    template: Vec<Piece>,
}

/// An action's texts.
#[derive(Debug)]
pub(crate) struct Words {
    command: Vec<Piece>,
    feedback: Vec<Piece>,
    /// Placeholders of the action's parameters.
    slots: Vec<u8>,
}

/// A compiled grammar.
#[derive(Debug)]
pub(crate) struct Grammar {
    rules: BTreeMap<String, Vec<Rule>>,
    /// By the action's number in the world.
    words: Vec<Option<Words>>,
}

/// Names of placeholders, numbered.
struct Compiler<'w> {
    world: &'w World,
    placeholders: Vec<String>,
}

/// The parts of a grammar file.
#[derive(Debug, Default)]
struct File {
    grammars: Vec<String>,
    actions: BTreeMap<String, (String, String)>,
}

/// Takes a quoted text from the start: `"…"` or `"""…"""`.
fn quoted(text: &str) -> Option<(&str, &str)> {
    for mark in ["\"\"\"", "\""] {
        if let Some(rest) = text.strip_prefix(mark) {
            return rest.split_once(mark);
        }
    }
    None
}

impl File {
    fn read(text: &str) -> Result<Self, String> {
        let mut file = Self::default();
        let mut rest = text;
        let mut inside: Option<String> = None;
        loop {
            rest = rest.trim_start();
            let line = text[..text.len() - rest.len()].lines().count();
            let wrong = |what: &str| format!("grammar, line {}: {what}", line.max(1));
            if rest.is_empty() {
                return inside.map_or(Ok(file), |name| Err(format!("grammar: action `{name}` has no end")));
            }
            if let Some(comment) = rest.strip_prefix('#') {
                rest = comment.split_once('\n').map_or("", |(_, rest)| rest);
                continue;
            }
            if let Some(after) = rest.strip_prefix('}') {
                inside.take().ok_or_else(|| wrong("`}` without `{`"))?;
                rest = after;
                continue;
            }
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            let after = after.trim_start();
            if word == "action" && inside.is_none() {
                let (name, after) = after.split_once('{').ok_or_else(|| wrong("`{` is missing"))?;
                let name = name.trim().to_lowercase();
                file.actions.insert(name.clone(), Default::default());
                inside = Some(name);
                rest = after;
                continue;
            }
            let value = after.strip_prefix("::").and_then(|v| quoted(v.trim_start()));
            let (value, after) = value.ok_or_else(|| wrong("expected `NAME :: \"…\";`"))?;
            rest = after.trim_start().strip_prefix(';').ok_or_else(|| wrong("`;` is missing"))?;
            match (word, inside.as_ref().and_then(|name| file.actions.get_mut(name))) {
                ("grammar", None) => file.grammars.push(value.to_owned()),
                ("grammar", Some(_)) => {
                    let lines = value.lines().filter(|line| !line.starts_with('#'));
                    file.grammars.push(lines.collect::<Vec<_>>().join("\n"));
                }
                ("template", Some(action)) => action.0 = value.to_owned(),
                ("feedback", Some(action)) => action.1 = value.to_owned(),
                _ => return Err(wrong(&format!("`{word}` is not expected here"))),
            }
        }
    }
}

impl Compiler<'_> {
    fn slot(&mut self, name: &str) -> Result<u8, String> {
        let known = self.placeholders.iter().position(|known| known == name);
        let slot = known.unwrap_or(self.placeholders.len());
        if slot == PLACEHOLDERS {
            return Err(format!("more than {PLACEHOLDERS} placeholders"));
        }
        if known.is_none() {
            self.placeholders.push(name.to_owned());
        }
        Ok(slot as u8)
    }

    fn query(&mut self, text: &str) -> Result<Query, String> {
        let one = |atom: &str| -> Result<Asked, String> {
            let wrong = || format!("`{atom}` is not `PREDICATE(NAME:TYPE, …)`");
            let (name, rest) = atom.trim().split_once('(').ok_or_else(wrong)?;
            let inner = rest.strip_suffix(')').ok_or_else(wrong)?;
            let (name, gone) = match name.strip_prefix("not_") {
                Some(name) => (name, true),
                None => (name, false),
            };
            let argument = |argument: &str| -> Result<(u8, Option<u16>), String> {
                let (name, kind) = argument.split_once(':').ok_or_else(wrong)?;
                Ok((self.slot(name.trim())?, self.world.kind(kind.trim())))
            };
            let arguments = inner.split(',').map(argument).collect::<Result<_, _>>()?;
            Ok(Asked { predicate: self.world.predicate(name.trim()), gone, arguments })
        };
        text.split('&').map(one).collect()
    }

    fn expression(&mut self, text: &str) -> Result<Expression, String> {
        let text = text.trim();
        if text.contains(" or ") {
            return Ok(Expression::FirstOf(text.split(" or ").map(|t| self.expression(t)).collect::<Result<_, _>>()?));
        }
        let parts = split_outside_quotes(text);
        if parts.len() > 1 {
            return Ok(Expression::Joined(parts.into_iter().map(|t| self.expression(t)).collect::<Result<_, _>>()?));
        }
        if let Some(symbol) = text.strip_prefix('#').and_then(|t| t.strip_suffix('#')) {
            return Ok(Expression::Symbol(symbol.to_owned()));
        }
        if let Some(literal) = text.strip_prefix('\'').and_then(|t| t.strip_suffix('\'')) {
            return Ok(Expression::Literal(literal.to_owned()));
        }
        let (name, of) = text.split_once('.').unwrap_or((text, "name"));
        match of {
            "indefinite" => Ok(Expression::Indefinite),
            "name" | "id" => Ok(Expression::Name(self.slot(name)?)),
            other => Err(format!("`{text}`: there is no `.{other}`")),
        }
    }

    /// `EXPRESSION` or `EXPRESSION | QUERY`.
    fn valued(&mut self, text: &str) -> Result<(Expression, Option<Query>), String> {
        match text.split_once('|') {
            Some((expression, query)) => Ok((self.expression(expression)?, Some(self.query(query)?))),
            None => Ok((self.expression(text)?, None)),
        }
    }

    fn template(&mut self, text: &str) -> Result<Vec<Piece>, String> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text.trim_start();
        while let Some(first) = rest.chars().next() {
            let (piece, after) = if let Some((inner, after)) = rest.strip_prefix("[{").and_then(|t| t.split_once("}]"))
            {
                let (expression, query) = self.valued(inner)?;
                (Piece::List(expression, query), after)
            } else if let Some((inner, after)) = rest.strip_prefix('{').and_then(|t| t.split_once('}')) {
                let (expression, query) = self.valued(inner)?;
                (Piece::Value(expression, query), after)
            } else if let Some((symbol, after)) = rest.strip_prefix('#').and_then(|t| t.split_once('#')) {
                (Piece::Symbol(symbol.to_owned()), after)
            } else {
                plain.push(first);
                rest = &rest[first.len_utf8()..];
                continue;
            };
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(piece);
            rest = after;
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(pieces)
    }
}

/// The parts of a sum.
fn split_outside_quotes(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut quoted) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            '\'' => quoted = !quoted,
            '+' if !quoted => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

impl Grammar {
    /// Compiles a grammar for a world.
    pub(crate) fn read(text: &str, world: &World) -> Result<Self, String> {
        let file = File::read(text)?;
        let mut compiler = Compiler { world, placeholders: Vec::new() };
        let mut rules: BTreeMap<String, Vec<Rule>> = BTreeMap::new();
        for grammar in &file.grammars {
            let json: Value = serde_json::from_str(grammar).map_err(|e| format!("grammar: {e}"))?;
            for (symbol, list) in json.as_object().ok_or("grammar: not an object")? {
                let mut compiled = Vec::new();
                for rule in list.as_array().ok_or_else(|| format!("grammar, `{symbol}`: not a list"))? {
                    let wrong = |reason: String| format!("grammar, `{symbol}`: {reason}");
                    let condition = match rule.get("condition").and_then(Value::as_str).filter(|c| !c.is_empty()) {
                        Some(text) => Some(compiler.query(text).map_err(wrong)?),
                        None => None,
                    };
                    let text = rule.get("rhs").and_then(Value::as_str).ok_or_else(|| wrong("no `rhs`".into()))?;
                    compiled.push(Rule { condition, template: compiler.template(text).map_err(wrong)? });
                }
                rules.insert(symbol.clone(), compiled);
            }
        }
        let mut words = Vec::new();
        for action in &world.actions {
            let Some((command, feedback)) = file.actions.get(&action.name) else {
                words.push(None);
                continue;
            };
            let wrong = |reason: String| format!("grammar, action `{}`: {reason}", action.name);
            let slots = action.parameters.iter().map(|name| compiler.slot(name)).collect::<Result<_, _>>();
            words.push(Some(Words {
                command: compiler.template(command).map_err(wrong)?,
                feedback: compiler.template(feedback).map_err(wrong)?,
                slots: slots.map_err(wrong)?,
            }));
        }
        Ok(Self { rules, words })
    }
}

/// What is told of a state.
pub(crate) struct Teller<'t> {
    pub(crate) world: &'t World,
    pub(crate) grammar: &'t Grammar,
    pub(crate) state: &'t State,
    /// Names of symbols.
    pub(crate) names: &'t [String],
    /// Symbols that were expanded.
    pub(crate) expanded: Cell<u32>,
}

impl Teller<'_> {
    /// A symbol of the grammar, without placeholders.
    pub(crate) fn symbol(&self, name: &str) -> String {
        let mut out = String::new();
        self.expand_symbol(name, &[None; PLACEHOLDERS], &mut out, 0);
        out
    }

    /// The command of an action with its arguments; none if the grammar has no words for it.
    pub(crate) fn command(&self, action: usize, arguments: &[Symbol]) -> Option<String> {
        self.told(action, arguments, |words| &words.command)
    }

    /// What is said after an action.
    pub(crate) fn feedback(&self, action: usize, arguments: &[Symbol]) -> Option<String> {
        self.told(action, arguments, |words| &words.feedback)
    }

    fn told(&self, action: usize, arguments: &[Symbol], which: fn(&Words) -> &Vec<Piece>) -> Option<String> {
        let words = self.grammar.words.get(action)?.as_ref()?;
        self.expanded.set(0);
        let mut values = [None; PLACEHOLDERS];
        for (slot, argument) in words.slots.iter().zip(arguments) {
            values[usize::from(*slot)] = Some(*argument);
        }
        let mut out = String::new();
        self.expand(which(words), &values, &mut out, 0);
        Some(out)
    }

    fn expand_symbol(&self, name: &str, values: &Values, out: &mut String, depth: usize) {
        self.expanded.set(self.expanded.get() + 1);
        if self.expanded.get() > SYMBOLS {
            return;
        }
        let rules = self.grammar.rules.get(name).map_or(&[][..], Vec::as_slice);
        let fits = |rule: &&Rule| rule.condition.as_ref().is_none_or(|query| self.solve(query, values, &mut |_| true));
        if let Some(rule) = rules.iter().find(fits) {
            self.expand(&rule.template, values, out, depth + 1);
        }
    }

    fn expand(&self, template: &[Piece], values: &Values, out: &mut String, depth: usize) {
        for piece in template {
            if depth > DEPTH || out.len() > LONGEST {
                return;
            }
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Symbol(name) => self.expand_symbol(name, values, out, depth),
                Piece::Value(expression, None) => self.value(expression, values, out, depth),
                Piece::Value(expression, Some(query)) => {
                    self.solve(query, values, &mut |solution| {
                        self.value(expression, solution, out, depth);
                        false
                    });
                }
                Piece::List(expression, query) => self.list(expression, query.as_ref(), values, out, depth),
            }
        }
    }

    fn list(&self, expression: &Expression, query: Option<&Query>, values: &Values, out: &mut String, depth: usize) {
        let mut items: Vec<String> = Vec::new();
        let mut tell = |solution: &Values| {
            let mut item = String::new();
            self.value(expression, solution, &mut item, depth);
            items.push(item);
            false
        };
        match query {
            Some(query) => drop(self.solve(query, values, &mut tell)),
            None => drop(tell(values)),
        }
        if items.is_empty() {
            return self.expand_symbol("list_empty", values, out, depth);
        }
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                let separator = if i + 1 == items.len() { "list_last_separator" } else { "list_separator" };
                self.separator(separator, out);
            }
            out.push_str(item);
        }
    }

    /// Separators keep their blanks.
    fn separator(&self, name: &str, out: &mut String) {
        for piece in self.grammar.rules.get(name).and_then(|rules| rules.first()).map_or(&[][..], |r| &r.template) {
            if let Piece::Text(text) = piece {
                out.push_str(text);
            }
        }
    }

    fn value(&self, expression: &Expression, values: &Values, out: &mut String, depth: usize) {
        match expression {
            Expression::Name(slot) => {
                if let Some(symbol) = values[usize::from(*slot)] {
                    out.push_str(&self.names[usize::from(symbol)]);
                }
            }
            Expression::Indefinite => out.push('a'),
            Expression::Literal(text) => out.push_str(text),
            Expression::Symbol(name) => self.expand_symbol(name, values, out, depth),
            Expression::Joined(parts) => parts.iter().for_each(|part| self.value(part, values, out, depth)),
            Expression::FirstOf(parts) => {
                let before = out.len();
                for part in parts {
                    self.value(part, values, out, depth);
                    if out.len() > before {
                        return;
                    }
                }
            }
        }
    }

    /// Calls `then` with every solution in the order of the facts, until it has enough. Whether it had.
    fn solve(&self, query: &[Asked], values: &Values, then: &mut dyn FnMut(&Values) -> bool) -> bool {
        let Some((asked, rest)) = query.split_first() else { return then(values) };
        let Some(predicate) = asked.predicate else { return false };
        'facts: for fact in self.state.facts(predicate, asked.gone) {
            let mut next = *values;
            for ((slot, kind), symbol) in asked.arguments.iter().zip(fact) {
                let slot = usize::from(*slot);
                let fits = match next[slot] {
                    Some(known) => known == *symbol,
                    // A new placeholder is a new thing.
                    None => !next.contains(&Some(*symbol)),
                };
                if !fits || !self.world.is_of(*symbol, *kind) {
                    continue 'facts;
                }
                next[slot] = Some(*symbol);
            }
            if self.solve(rest, &next, then) {
                return true;
            }
        }
        false
    }
}
