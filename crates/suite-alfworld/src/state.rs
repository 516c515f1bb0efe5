//! States of a problem: which facts hold, what may be done, and what comes of it.

use crate::problem::{Arguments, Bindings, Condition, Effect, Facts, NONE, Symbol, World, ground};
use crate::solver::Solver;
use std::collections::BTreeSet;

/// Which facts hold.
#[derive(Debug, Clone)]
pub(crate) struct State {
    facts: Facts,
    /// Facts that were deleted at some time and do not hold.
    gone: Facts,
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
    /// The state in which these facts hold.
    pub(crate) fn new(facts: Facts) -> Self {
        Self { gone: vec![BTreeSet::new(); facts.len()], facts }
    }

    fn solver<'s>(&'s self, world: &'s World) -> Solver<'s> {
        Solver::new(world, &self.facts)
    }

    /// Facts of a predicate, sorted; those that are gone instead, if asked.
    pub(crate) fn facts(&self, predicate: usize, gone: bool) -> &BTreeSet<Arguments> {
        if gone { &self.gone[predicate] } else { &self.facts[predicate] }
    }

    /// All symbols that its facts name.
    pub(crate) fn named(&self) -> BTreeSet<Symbol> {
        self.facts.iter().flatten().flatten().copied().filter(|symbol| *symbol != NONE).collect()
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
