//! Values of variables that make a condition hold.

use crate::problem::{
    ARITY, Arguments, Atom, Bindings, Condition, NONE, Term, VARIABLES, Variable, World, ground, value,
};
use std::collections::BTreeSet;

/// Types of variables by slot, as far as they are in scope.
type Kinds = [Option<Option<u16>>; VARIABLES];

/// What is looked at while a condition is solved.
pub(crate) struct Solver<'s> {
    world: &'s World,
    facts: &'s [BTreeSet<Arguments>],
    kinds: Kinds,
    pub(crate) bindings: Bindings,
}

impl<'s> Solver<'s> {
    /// Nothing has a value yet.
    pub(crate) fn new(world: &'s World, facts: &'s [BTreeSet<Arguments>]) -> Self {
        Self { world, facts, kinds: [None; VARIABLES], bindings: [None; VARIABLES] }
    }

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
                let facts = self.facts[atom.predicate].len();
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

    pub(crate) fn one(&mut self, condition: &Condition, then: &mut dyn FnMut(&mut Self) -> bool) -> bool {
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
    pub(crate) fn holds(&mut self, condition: &Condition) -> bool {
        self.one(condition, &mut |_| true)
    }

    pub(crate) fn judged(&mut self, condition: &Condition) -> bool {
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

    pub(crate) fn declare(&mut self, variables: &[Variable]) {
        for variable in variables {
            self.kinds[usize::from(variable.slot)] = Some(variable.kind);
        }
    }

    pub(crate) fn forget(&mut self, variables: &[Variable]) {
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
    pub(crate) fn each(&mut self, variables: &[Variable], then: &mut dyn FnMut(&mut Self) -> bool) -> bool {
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
        let all = self.facts;
        let facts = &all[atom.predicate];
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
