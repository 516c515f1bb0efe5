//! States of a PDDL problem: which facts hold, what may be done, and what comes of it.
//!
//! Typed STRIPS with `and or not imply exists forall = when`, nested. Symbols are numbered in the order of their names, so that
//! sorted facts are sorted by name. A type that nothing has is no error: nothing is of it. Types are matched by equality.

use crate::expression::{Expression, typed};
use std::collections::{BTreeMap, BTreeSet};

/// Most arguments of a predicate.
const ARITY: usize = 4;
/// Most variables of an action, those of its quantifiers included.
const VARIABLES: usize = 24;

/// A symbol's number.
pub(crate) type Symbol = u16;
/// A fact's arguments; what is beyond its predicate's arity is [`NONE`].
pub(crate) type Arguments = [Symbol; ARITY];

/// A variable's number, or a symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Term {
    Variable(u8),
    Symbol(Symbol),
}

#[derive(Debug, Clone)]
struct Atom {
    predicate: usize,
    terms: Vec<Term>,
}

#[derive(Debug, Clone)]
enum Condition {
    Atom(Atom),
    Equal(Term, Term),
    And(Vec<Condition>),
    Or(Vec<Condition>),
    Not(Box<Condition>),
    Exists(Vec<Variable>, Box<Condition>),
    Forall(Vec<Variable>, Box<Condition>),
}

#[derive(Debug, Clone, Copy)]
struct Variable {
    slot: u8,
    /// None: nothing is of its type.
    kind: Option<u16>,
}

#[derive(Debug, Clone)]
enum Effect {
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
    variables: Vec<Variable>,
    precondition: Condition,
    effect: Effect,
}

/// What stays the same during a game.
#[derive(Debug)]
pub(crate) struct World {
    /// Names of symbols, sorted.
    pub(crate) symbols: Vec<String>,
    kinds: Vec<u16>,
    of_kind: Vec<Vec<Symbol>>,
    kind_names: BTreeMap<String, u16>,
    predicates: BTreeMap<String, usize>,
    pub(crate) actions: Vec<Schema>,
    goal: Condition,
}

/// Which facts hold.
#[derive(Debug, Clone)]
pub(crate) struct State {
    facts: Vec<BTreeSet<Arguments>>,
    /// Facts that were deleted at some time and do not hold.
    gone: Vec<BTreeSet<Arguments>>,
}

/// Values of variables by slot.
type Bindings = [Option<Symbol>; VARIABLES];

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
    /// The world of a problem in its domain, and its first state.
    pub(crate) fn read(domain: &str, problem: &str) -> Result<(Self, State), String> {
        let domain = Expression::read(domain).map_err(|e| format!("pddl_domain: {e}"))?;
        let problem = Expression::read(problem).map_err(|e| format!("pddl_problem: {e}"))?;
        Self::build(domain.list().unwrap_or_default(), problem.list().unwrap_or_default())
    }

    fn build(domain: &[Expression], problem: &[Expression]) -> Result<(Self, State), String> {
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
        let none = vec![BTreeSet::new(); world.predicates.len()];
        let mut state = State { facts: none.clone(), gone: none };
        let compiler = Compiler { world: &world, scope: Vec::new(), slots: 0 };
        for fact in section(problem, ":init").ok_or("the problem has no `:init`")? {
            let (head, rest) = fact.headed().ok_or("a fact is `(NAME …)`")?;
            if head == "=" {
                continue;
            }
            let atom = compiler.atom(head, rest).map_err(|e| format!("a first fact: {e}"))?;
            state.facts[atom.predicate].insert(ground(&atom, &[None; VARIABLES]).ok_or("a first fact has a variable")?);
        }
        Ok((world, state))
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

    /// All symbols that facts of a state name.
    pub(crate) fn named(&self, state: &State) -> BTreeSet<Symbol> {
        state.facts.iter().flatten().flatten().copied().filter(|symbol| *symbol != NONE).collect()
    }
}

/// Stands where a fact has no argument.
const NONE: Symbol = Symbol::MAX;

fn value(term: Term, bindings: &Bindings) -> Option<Symbol> {
    match term {
        Term::Variable(slot) => bindings[usize::from(slot)],
        Term::Symbol(symbol) => Some(symbol),
    }
}

fn ground(atom: &Atom, bindings: &Bindings) -> Option<Arguments> {
    let mut arguments = [NONE; ARITY];
    for (to, term) in arguments.iter_mut().zip(&atom.terms) {
        *to = value(*term, bindings)?;
    }
    Some(arguments)
}

/// Types of variables by slot, as far as they are in scope.
type Kinds = [Option<Option<u16>>; VARIABLES];

/// What is looked at while a condition is solved.
struct Solver<'s> {
    world: &'s World,
    state: &'s State,
    kinds: Kinds,
    bindings: Bindings,
}

impl Solver<'_> {
    /// Calls `then` for solutions of all conditions, until it says that it has enough. Whether it did.
    fn all(&mut self, waiting: &[&Condition], then: &mut dyn FnMut(&mut Self) -> bool) -> bool {
        let Some(next) = (0..waiting.len()).min_by_key(|at| self.cost(waiting[*at])) else { return then(self) };
        let mut rest = waiting.to_vec();
        let condition = rest.remove(next);
        self.one(condition, &mut |this| this.all(&rest, then))
    }

    /// How many solutions a condition has at most, roughly; what binds nothing comes as soon as it can be judged.
    fn cost(&self, condition: &Condition) -> usize {
        match condition {
            Condition::Atom(atom) => {
                let unbound = atom.terms.iter().filter(|t| value(**t, &self.bindings).is_none()).count();
                let facts = self.state.facts[atom.predicate].len();
                match unbound {
                    0 => 0,
                    _ => (facts * unbound) / atom.terms.len() + 1,
                }
            }
            Condition::And(_) => 1,
            Condition::Exists(..) => 1 << 20,
            other if self.is_bound(other) => 0,
            Condition::Or(_) => 1 << 21,
            _ => 1 << 22,
        }
    }

    /// Whether every variable of a condition has a value, but for its own.
    fn is_bound(&self, condition: &Condition) -> bool {
        match condition {
            Condition::Atom(atom) => atom.terms.iter().all(|t| self.has_value(*t)),
            Condition::Equal(a, b) => self.has_value(*a) && self.has_value(*b),
            Condition::And(all) | Condition::Or(all) => all.iter().all(|c| self.is_bound(c)),
            Condition::Not(one) | Condition::Exists(_, one) | Condition::Forall(_, one) => self.is_bound(one),
        }
    }

    /// Variables whose type is not known here belong to a quantifier further in.
    fn has_value(&self, term: Term) -> bool {
        match term {
            Term::Variable(slot) => {
                self.kinds[usize::from(slot)].is_none() || self.bindings[usize::from(slot)].is_some()
            }
            Term::Symbol(_) => true,
        }
    }

    fn one(&mut self, condition: &Condition, then: &mut dyn FnMut(&mut Self) -> bool) -> bool {
        match condition {
            Condition::Atom(atom) => self.facts(atom, then),
            Condition::And(all) => {
                let all: Vec<&Condition> = all.iter().collect();
                self.all(&all, then)
            }
            Condition::Or(any) if self.is_bound(condition) => any.iter().any(|c| self.holds(c)) && then(self),
            Condition::Or(any) => any.iter().any(|c| self.one(c, then)),
            Condition::Exists(variables, inner) => {
                self.declare(variables);
                let done = self.one(inner, &mut |this| this.each(variables, then));
                self.forget(variables);
                done
            }
            Condition::Equal(..) | Condition::Not(_) | Condition::Forall(..) => {
                let free = self.free(condition);
                self.each(&free, &mut |this| this.judged(condition) && then(this))
            }
        }
    }

    /// Whether a condition holds whose variables all have values.
    fn holds(&mut self, condition: &Condition) -> bool {
        self.one(condition, &mut |_| true)
    }

    fn judged(&mut self, condition: &Condition) -> bool {
        match condition {
            Condition::Equal(a, b) => value(*a, &self.bindings) == value(*b, &self.bindings),
            Condition::Not(inner) => !self.holds(inner),
            Condition::Forall(variables, inner) => {
                self.declare(variables);
                let refuted = self.each(variables, &mut |this| !this.holds(inner));
                self.forget(variables);
                !refuted
            }
            other => self.holds(other),
        }
    }

    fn declare(&mut self, variables: &[Variable]) {
        for variable in variables {
            self.kinds[usize::from(variable.slot)] = Some(variable.kind);
        }
    }

    fn forget(&mut self, variables: &[Variable]) {
        for variable in variables {
            self.kinds[usize::from(variable.slot)] = None;
            self.bindings[usize::from(variable.slot)] = None;
        }
    }

    /// Variables in scope that a condition names and that have no value.
    fn free(&self, condition: &Condition) -> Vec<Variable> {
        let mut slots = BTreeSet::new();
        slots_of(condition, &mut slots);
        let free = |slot: u8| {
            let kind = self.kinds[usize::from(slot)]?;
            self.bindings[usize::from(slot)].is_none().then_some(Variable { slot, kind })
        };
        slots.into_iter().filter_map(free).collect()
    }

    /// Gives variables without a value every object of their types in turn.
    fn each(&mut self, variables: &[Variable], then: &mut dyn FnMut(&mut Self) -> bool) -> bool {
        let Some((first, rest)) = variables.split_first() else { return then(self) };
        let slot = usize::from(first.slot);
        if self.bindings[slot].is_some() {
            return self.each(rest, then);
        }
        let world = self.world;
        let objects = first.kind.map_or(&[][..], |kind| &world.of_kind[usize::from(kind)]);
        for object in objects {
            self.bindings[slot] = Some(*object);
            let done = self.each(rest, then);
            self.bindings[slot] = None;
            if done {
                return true;
            }
        }
        false
    }

    /// Binds an atom's variables to every fact that fits.
    fn facts(&mut self, atom: &Atom, then: &mut dyn FnMut(&mut Self) -> bool) -> bool {
        let state = self.state;
        let facts = &state.facts[atom.predicate];
        if let Some(arguments) = ground(atom, &self.bindings) {
            return facts.contains(&arguments) && then(self);
        }
        // Facts are sorted: a known first argument narrows them.
        let (mut low, mut high) = ([0; ARITY], [NONE; ARITY]);
        if let Some(first) = value(atom.terms[0], &self.bindings) {
            (low[0], high[0]) = (first, first);
        }
        for fact in facts.range(low..=high) {
            let mut bound = [0_u8; ARITY];
            let mut count = 0;
            let mut fits = true;
            for (term, symbol) in atom.terms.iter().zip(fact) {
                match (*term, value(*term, &self.bindings)) {
                    (_, Some(known)) => fits = known == *symbol,
                    (Term::Variable(slot), None) => {
                        let kind = self.kinds[usize::from(slot)].flatten();
                        fits = self.world.is_of(*symbol, kind);
                        self.bindings[usize::from(slot)] = Some(*symbol);
                        bound[count] = slot;
                        count += 1;
                    }
                    (Term::Symbol(_), None) => fits = false,
                }
                if !fits {
                    break;
                }
            }
            let done = fits && then(self);
            for slot in &bound[..count] {
                self.bindings[usize::from(*slot)] = None;
            }
            if done {
                return true;
            }
        }
        false
    }
}

fn slots_of(condition: &Condition, into: &mut BTreeSet<u8>) {
    let mut term = |t: &Term| {
        if let Term::Variable(slot) = t {
            into.insert(*slot);
        }
    };
    match condition {
        Condition::Atom(atom) => atom.terms.iter().for_each(term),
        Condition::Equal(a, b) => [a, b].into_iter().for_each(&mut term),
        Condition::And(all) | Condition::Or(all) => all.iter().for_each(|c| slots_of(c, into)),
        Condition::Not(one) | Condition::Exists(_, one) | Condition::Forall(_, one) => slots_of(one, into),
    }
}

/// An action with its arguments, which may be done in a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Instance {
    /// The action's number.
    pub(crate) action: usize,
    /// Its parameters' values.
    pub(crate) arguments: Vec<Symbol>,
}

/// What an effect adds and deletes, evaluated in one state.
#[derive(Default)]
struct Change {
    add: Vec<(usize, Arguments)>,
    delete: Vec<(usize, Arguments)>,
    conditional: bool,
}

impl State {
    fn solver<'s>(&'s self, world: &'s World) -> Solver<'s> {
        Solver { world, state: self, kinds: [None; VARIABLES], bindings: [None; VARIABLES] }
    }

    /// Facts of a predicate, sorted; those that are gone instead, if asked.
    pub(crate) fn facts(&self, predicate: usize, gone: bool) -> &BTreeSet<Arguments> {
        if gone { &self.gone[predicate] } else { &self.facts[predicate] }
    }

    /// Whether the problem's goal is reached.
    pub(crate) fn is_won(&self, world: &World) -> bool {
        self.solver(world).holds(&world.goal)
    }

    /// What may be done, in the order of actions and arguments.
    pub(crate) fn applicable(&self, world: &World) -> Vec<Instance> {
        let mut out = Vec::new();
        for (number, schema) in world.actions.iter().enumerate() {
            let mut found: Vec<Vec<Symbol>> = Vec::new();
            let mut solver = self.solver(world);
            solver.declare(&schema.variables);
            solver.one(&schema.precondition, &mut |this| {
                this.each(&schema.variables, &mut |this| {
                    let values = schema.variables.iter().filter_map(|v| this.bindings[usize::from(v.slot)]);
                    found.push(values.collect());
                    false
                })
            });
            found.sort_unstable();
            found.dedup();
            let instances = found.into_iter().map(|arguments| Instance { action: number, arguments });
            out.extend(instances.filter(|instance| self.changes_anything(world, instance)));
        }
        out
    }

    fn bound<'s>(&'s self, world: &'s World, instance: &Instance) -> Solver<'s> {
        let schema = &world.actions[instance.action];
        let mut solver = self.solver(world);
        solver.declare(&schema.variables);
        for (variable, value) in schema.variables.iter().zip(&instance.arguments) {
            solver.bindings[usize::from(variable.slot)] = Some(*value);
        }
        solver
    }

    /// Whether an instance's effects are more than its own precondition demands already: TextWorld's planner drops the others.
    fn changes_anything(&self, world: &World, instance: &Instance) -> bool {
        let schema = &world.actions[instance.action];
        let mut solver = self.bound(world, instance);
        let mut change = Change::default();
        collect(&schema.effect, &mut solver, &mut change);
        let mut demanded = Vec::new();
        demands(&schema.precondition, &solver.bindings, &mut demanded);
        change.conditional
            || change.add.iter().any(|fact| !demanded.contains(fact))
            || change.delete.iter().any(|fact| !change.add.contains(fact))
    }

    /// The state after an instance.
    pub(crate) fn apply(&mut self, world: &World, instance: &Instance) {
        let mut change = Change::default();
        let mut solver = self.bound(world, instance);
        collect(&world.actions[instance.action].effect, &mut solver, &mut change);
        for (predicate, fact) in change.delete {
            if self.facts[predicate].remove(&fact) {
                self.gone[predicate].insert(fact);
            }
        }
        for (predicate, fact) in change.add {
            self.facts[predicate].insert(fact);
            self.gone[predicate].remove(&fact);
        }
    }
}

/// Facts that a precondition names one by one.
fn demands(condition: &Condition, bindings: &Bindings, into: &mut Vec<(usize, Arguments)>) {
    match condition {
        Condition::Atom(atom) => into.extend(ground(atom, bindings).map(|fact| (atom.predicate, fact))),
        Condition::And(all) => all.iter().for_each(|c| demands(c, bindings, into)),
        _ => {}
    }
}

fn collect(effect: &Effect, solver: &mut Solver<'_>, change: &mut Change) {
    match effect {
        Effect::Add(atom) => change.add.extend(ground(atom, &solver.bindings).map(|f| (atom.predicate, f))),
        Effect::Delete(atom) => change.delete.extend(ground(atom, &solver.bindings).map(|f| (atom.predicate, f))),
        Effect::And(all) => all.iter().for_each(|e| collect(e, solver, change)),
        Effect::When(condition, inner) => {
            change.conditional = true;
            if solver.judged(condition) {
                collect(inner, solver, change);
            }
        }
        Effect::Forall(variables, inner) => {
            solver.declare(variables);
            solver.each(variables, &mut |this| {
                collect(inner, this, change);
                false
            });
            solver.forget(variables);
        }
    }
}
