//! What every template can name: jinja's filters, tests and functions
//! (pallets/jinja@3.1.6:src/jinja2/{filters,tests,utils}.py), and the operators that [`crate::desugar`] writes as
//! filters. Left out, so refused by name: those that make links, HTML or random choices.

mod functions;
mod number_filters;
mod operators;
mod predicates;
mod sequence_filters;
mod text_filters;

pub(crate) use functions::{DAY, Day};

use crate::python::Answer;
use minijinja::value::{Rest, Value};
use minijinja::{Environment, Error, State};

/// A filter or a function.
type Function = fn(&State, &[Value]) -> Answer;
/// What follows `is`.
type Test = fn(&State, &[Value]) -> Result<bool, Error>;

const FILTERS: [&[(&str, Function)]; 3] = [sequence_filters::FILTERS, text_filters::FILTERS, number_filters::FILTERS];

/// Puts all of them into an environment.
pub(crate) fn install(environment: &mut Environment<'static>) {
    for (name, filter) in operators::OPERATORS.iter().chain(FILTERS.into_iter().flatten()) {
        let filter: Function = *filter;
        environment.add_filter(*name, move |state: &State, values: Rest<Value>| filter(state, &values));
    }
    for (names, test) in predicates::TESTS {
        for name in names.split(' ') {
            let test: Test = *test;
            environment.add_test(name, move |state: &State, values: Rest<Value>| test(state, &values));
        }
    }
    for (name, function) in functions::FUNCTIONS {
        let function: Function = *function;
        environment.add_function(*name, move |state: &State, values: Rest<Value>| function(state, &values));
    }
    environment.add_global("dict", Value::from_object(functions::Dict));
}

/// An operand; desugaring always gives it.
fn at(values: &[Value], place: usize) -> Value {
    values.get(place).cloned().unwrap_or_default()
}
