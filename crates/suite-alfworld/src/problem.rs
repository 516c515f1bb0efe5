//! Problems of PDDL: objects, predicates, actions, the goal and the first facts, read and numbered.
//!
//! Typed STRIPS with `and or not imply exists forall = when`, nested. Symbols are numbered in the order of their names, so that
//! sorted facts are sorted by name. A type that nothing has is no error: nothing is of it. Types are matched by equality.

use crate::expression::{Expression, typed};
use std::collections::{BTreeMap, BTreeSet};

/// Most arguments of a predicate.
pub(crate) const ARITY: usize = 4;
/// Most variables of an action, those of its quantifiers included.
pub(crate) const VARIABLES: usize = 24;

/// A symbol's number.
pub(crate) type Symbol = u16;
/// A fact's arguments; what is beyond its predicate's arity is [`NONE`].
pub(crate) type Arguments = [Symbol; ARITY];

/// Facts that hold, by predicate.
pub(crate) type Facts = Vec<BTreeSet<Arguments>>;

/// A variable's number, or a symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Term {
    Variable(u8),
    Symbol(Symbol),
}

#[derive(Debug, Clone)]
pub(crate) struct Atom {
    pub(crate) predicate: usize,
    pub(crate) terms: Vec<Term>,
}

#[derive(Debug, Clone)]
pub(crate) enum Condition {
    Atom(Atom),
    Equal(Term, Term),
    And(Vec<Condition>),
    Or(Vec<Condition>),
    Not(Box<Condition>),
    Exists(Vec<Variable>, Box<Condition>),
    Forall(Vec<Variable>, Box<Condition>),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Variable {
    pub(crate) slot: u8,
    /// None: nothing is of its type.
    pub(crate) kind: Option<u16>,
}

#[derive(Debug, Clone)]
pub(crate) enum Effect {
    Add(Atom),
    Delete(Atom),
    And(Vec<Effect>),
    When(Condition, Box<Effect>),
    Forall(Vec<Variable>, Box<Effect>),
}

/// An action of the domain.
#[derive(Debug, Clone)]
pub(crate) struct Schema {
    /// Its name, lower-cased.
    pub(crate) name: String,
    /// Its parameters' names, without `?`.
    pub(crate) parameters: Vec<String>,
    pub(crate) variables: Vec<Variable>,
    pub(crate) precondition: Condition,
    pub(crate) effect: Effect,
}

/// What stays the same during a game.
#[derive(Debug)]
pub(crate) struct World {
    /// Names of symbols, sorted.
    pub(crate) symbols: Vec<String>,
    kinds: Vec<u16>,
    pub(crate) of_kind: Vec<Vec<Symbol>>,
    kind_names: BTreeMap<String, u16>,
    predicates: BTreeMap<String, usize>,
    pub(crate) actions: Vec<Schema>,
    pub(crate) goal: Condition,
}

/// Values of variables by slot.
pub(crate) type Bindings = [Option<Symbol>; VARIABLES];

/// Reads conditions and effects of one action.
struct Compiler<'w> {
    world: &'w World,
    /// Names in scope, innermost last.
    scope: Vec<(String, u8)>,
    slots: usize,
}

impl Compiler<'_> {
    fn declare(&mut self, items: &[Expression]) -> Result<Vec<Variable>, String> {
        let mut out = Vec::new();
        for (name, kind) in typed(items)? {
            if self.slots == VARIABLES {
                return Err(format!("more than {VARIABLES} variables"));
            }
            let slot = self.slots as u8;
            self.slots += 1;
            self.scope.push((name, slot));
            out.push(Variable { slot, kind: self.world.kind_names.get(&kind).copied() });
        }
        Ok(out)
    }

    fn term(&self, item: &Expression) -> Result<Term, String> {
        let name = item.atom().ok_or("a list where a term was expected")?;
        if name.starts_with('?') {
            let found = self.scope.iter().rev().find(|(known, _)| known == name);
            return found.map(|(_, slot)| Term::Variable(*slot)).ok_or_else(|| format!("`{name}` is not declared"));
        }
        let found = self.world.symbol(name).ok_or_else(|| format!("there is no object `{name}`"))?;
        Ok(Term::Symbol(found))
    }

    fn atom(&self, head: &str, rest: &[Expression]) -> Result<Atom, String> {
        let predicate = *self.world.predicates.get(head).ok_or_else(|| format!("there is no predicate `{head}`"))?;
        if rest.len() > ARITY {
            return Err(format!("`{head}` has more than {ARITY} arguments"));
        }
        Ok(Atom { predicate, terms: rest.iter().map(|t| self.term(t)).collect::<Result<_, _>>()? })
    }

    fn condition(&mut self, item: &Expression) -> Result<Condition, String> {
        if item.list().is_some_and(<[_]>::is_empty) {
            return Ok(Condition::And(Vec::new()));
        }
        let (head, rest) = item.headed().ok_or("a condition is `(NAME …)`")?;
        let all = |this: &mut Self, items: &[Expression]| -> Result<Vec<Condition>, String> {
            items.iter().map(|i| this.condition(i)).collect()
        };
        Ok(match (head, rest) {
            ("and", items) => Condition::And(all(self, items)?),
            ("or", items) => Condition::Or(all(self, items)?),
            ("not", [one]) => Condition::Not(Box::new(self.condition(one)?)),
            ("imply", [when, then]) => {
                Condition::Or(vec![Condition::Not(Box::new(self.condition(when)?)), self.condition(then)?])
            }
            ("=", [a, b]) => Condition::Equal(self.term(a)?, self.term(b)?),
            ("exists" | "forall", [variables, inner]) => {
                let known = self.scope.len();
                let variables = self.declare(variables.list().ok_or("a quantifier needs a list of variables")?)?;
                let inner = Box::new(self.condition(inner)?);
                self.scope.truncate(known);
                match head {
                    "exists" => Condition::Exists(variables, inner),
                    _ => Condition::Forall(variables, inner),
                }
            }
            (name, items) => Condition::Atom(self.atom(name, items)?),
        })
    }

    fn effect(&mut self, item: &Expression) -> Result<Effect, String> {
        if item.list().is_some_and(<[_]>::is_empty) {
            return Ok(Effect::And(Vec::new()));
        }
        let (head, rest) = item.headed().ok_or("an effect is `(NAME …)`")?;
        Ok(match (head, rest) {
            ("and", items) => Effect::And(items.iter().map(|i| self.effect(i)).collect::<Result<_, _>>()?),
            ("increase" | "decrease" | "assign", _) => Effect::And(Vec::new()),
            ("not", [one]) => {
                let (head, rest) = one.headed().ok_or("`not` in an effect needs an atom")?;
                Effect::Delete(self.atom(head, rest)?)
            }
            ("when", [condition, inner]) => Effect::When(self.condition(condition)?, Box::new(self.effect(inner)?)),
            ("forall", [variables, inner]) => {
                let known = self.scope.len();
                let variables = self.declare(variables.list().ok_or("a quantifier needs a list of variables")?)?;
                let inner = Box::new(self.effect(inner)?);
                self.scope.truncate(known);
                Effect::Forall(variables, inner)
            }
            (name, items) => Effect::Add(self.atom(name, items)?),
        })
    }
}

fn section<'e>(items: &'e [Expression], name: &str) -> Option<&'e [Expression]> {
    items.iter().filter_map(Expression::headed).find(|(head, _)| *head == name).map(|(_, rest)| rest)
}

impl World {
    /// The world of a problem in its domain, and its first facts.
    pub(crate) fn read(domain: &str, problem: &str) -> Result<(Self, Facts), String> {
        let domain = Expression::read(domain).map_err(|e| format!("pddl_domain: {e}"))?;
        let problem = Expression::read(problem).map_err(|e| format!("pddl_problem: {e}"))?;
        Self::build(domain.list().unwrap_or_default(), problem.list().unwrap_or_default())
    }

    fn build(domain: &[Expression], problem: &[Expression]) -> Result<(Self, Facts), String> {
        let mut objects = typed(section(domain, ":constants").unwrap_or_default())?;
        objects.extend(typed(section(problem, ":objects").ok_or("the problem has no `:objects`")?)?);
        objects.sort();
        objects.dedup_by(|a, b| a.0 == b.0);
        if objects.len() >= usize::from(Symbol::MAX) {
            return Err("the problem has too many objects".into());
        }
        let mut world = Self {
            symbols: Vec::new(),
            kinds: Vec::new(),
            of_kind: Vec::new(),
            kind_names: BTreeMap::new(),
            predicates: BTreeMap::new(),
            actions: Vec::new(),
            goal: Condition::And(Vec::new()),
        };
        for (symbol, (name, kind)) in objects.into_iter().enumerate() {
            let next = world.kind_names.len() as u16;
            let kind = *world.kind_names.entry(kind).or_insert(next);
            if usize::from(kind) == world.of_kind.len() {
                world.of_kind.push(Vec::new());
            }
            world.of_kind[usize::from(kind)].push(symbol as Symbol);
            world.symbols.push(name);
            world.kinds.push(kind);
        }
        for predicate in section(domain, ":predicates").ok_or("the domain has no `:predicates`")? {
            let (name, _) = predicate.headed().ok_or("a predicate is `(NAME …)`")?;
            let next = world.predicates.len();
            world.predicates.entry(name.to_owned()).or_insert(next);
        }
        let mut actions = Vec::new();
        for (head, action) in domain.iter().filter_map(Expression::headed) {
            if head == ":action" {
                actions.push(world.action(action)?);
            }
        }
        world.actions = actions;
        let goal = section(problem, ":goal").and_then(<[_]>::first).ok_or("the problem has no `:goal`")?;
        let mut compiler = Compiler { world: &world, scope: Vec::new(), slots: 0 };
        world.goal = compiler.condition(goal).map_err(|e| format!("the goal: {e}"))?;
        let mut facts = vec![BTreeSet::new(); world.predicates.len()];
        let compiler = Compiler { world: &world, scope: Vec::new(), slots: 0 };
        for fact in section(problem, ":init").ok_or("the problem has no `:init`")? {
            let (head, rest) = fact.headed().ok_or("a fact is `(NAME …)`")?;
            if head == "=" {
                continue;
            }
            let atom = compiler.atom(head, rest).map_err(|e| format!("a first fact: {e}"))?;
            facts[atom.predicate].insert(ground(&atom, &[None; VARIABLES]).ok_or("a first fact has a variable")?);
        }
        Ok((world, facts))
    }

    fn action(&self, items: &[Expression]) -> Result<Schema, String> {
        let name = items.first().and_then(Expression::atom).ok_or("an action has no name")?.to_owned();
        let part = |key: &str| {
            let at = items.iter().position(|i| i.atom() == Some(key))?;
            items.get(at + 1)
        };
        let wrong = |reason: String| format!("action `{name}`: {reason}");
        let mut compiler = Compiler { world: self, scope: Vec::new(), slots: 0 };
        let parameters = part(":parameters").and_then(Expression::list).unwrap_or_default();
        let variables = compiler.declare(parameters).map_err(wrong)?;
        let names = compiler.scope.iter().map(|(name, _)| name.trim_start_matches('?').to_owned()).collect();
        let empty = Expression::List(Vec::new());
        let precondition = compiler.condition(part(":precondition").unwrap_or(&empty)).map_err(wrong)?;
        let effect = compiler.effect(part(":effect").unwrap_or(&empty)).map_err(wrong)?;
        Ok(Schema { name, parameters: names, variables, precondition, effect })
    }

    pub(crate) fn symbol(&self, name: &str) -> Option<Symbol> {
        self.symbols.binary_search_by(|known| known.as_str().cmp(name)).ok().map(|at| at as Symbol)
    }

    pub(crate) fn predicate(&self, name: &str) -> Option<usize> {
        self.predicates.get(name).copied()
    }

    /// A type's number; none if nothing is of it.
    pub(crate) fn kind(&self, name: &str) -> Option<u16> {
        self.kind_names.get(name).copied()
    }

    pub(crate) fn is_of(&self, symbol: Symbol, kind: Option<u16>) -> bool {
        kind == self.kinds.get(usize::from(symbol)).copied()
    }
}

/// Stands where a fact has no argument.
pub(crate) const NONE: Symbol = Symbol::MAX;

pub(crate) fn value(term: Term, bindings: &Bindings) -> Option<Symbol> {
    match term {
        Term::Variable(slot) => bindings[usize::from(slot)],
        Term::Symbol(symbol) => Some(symbol),
    }
}

pub(crate) fn ground(atom: &Atom, bindings: &Bindings) -> Option<Arguments> {
    let mut arguments = [NONE; ARITY];
    for (to, term) in arguments.iter_mut().zip(&atom.terms) {
        *to = value(*term, bindings)?;
    }
    Some(arguments)
}
