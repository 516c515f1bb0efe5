//! Jinja templates as Python's jinja2 renders them, byte for byte, and bounded.
//!
//! A prompt that is nearly right is one that a model has never seen, so a template means here what it means in Python
//! (jinja2 3.1.6 in its immutable sandbox, with `trim_blocks`, `lstrip_blocks` and loop controls). Scopes, loops and
//! macros are minijinja's; operators, filters, methods and printing are Python's, and ours. To jinja's own functions
//! come `raise_exception(sentence)` and `strftime_now(format)`, and `{% generation %}` blocks, which write what they hold.
//!
//! A template is also foreign code: what it may execute, write, copy and nest is bounded, and it can read nothing but
//! its variables. Every way for it to end otherwise than with a text is a [`SyntaxError`] or a [`RenderError`]. Where
//! templates come from and what their variables are is for others to know.
//!
//! ```
//! use rolegraft_jinja::{Template, Value};
//! use std::collections::BTreeMap;
//!
//! let template = Template::new("{% for name in names[::-1] %}{{ loop.index }} {{ name | tojson }}\n{% endfor %}")?;
//! let names = Value::from(vec!["Ada", "Zoë"]);
//! let text = template.render(BTreeMap::from([("names", names)]), chrono::NaiveDate::default())?;
//! assert_eq!(text, "1 \"Zoë\"\n2 \"Ada\"\n");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod arguments;
mod bounds;
mod builtins;
mod desugar;
mod format;
mod json;
mod lexer;
mod methods;
mod python;
mod strftime;

pub use bounds::LONGEST;
pub use minijinja::value::{Enumerator, Object, Value};

use bounds::{FUEL, Rendering, pay_text};
use builtins::{DAY, Day};
use chrono::NaiveDate;
use minijinja::{AutoEscape, Environment, Error, ErrorKind};
use std::collections::BTreeMap;

/// The template's name within its environment.
const NAME: &str = "template";

/// Why a text is not a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct SyntaxError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub reason: String,
}

impl SyntaxError {
    fn at(line: usize, reason: impl Into<String>) -> Self {
        Self { line, reason: reason.into() }
    }
}

/// Why a template gives no text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// It called `raise_exception` with this sentence.
    #[error("the template refuses: {0}")]
    Refused(String),
    /// It executes or copies too much.
    #[error("the template does not end")]
    Endless,
    /// It makes a text of so many bytes, or more.
    #[error("the template writes a text of {0} bytes or more; {LONGEST} are allowed")]
    TooLong(usize),
    /// It does what Python cannot do either.
    #[error("the template fails: {0}")]
    Failed(String),
}

/// A template, ready to be rendered.
#[derive(Debug)]
pub struct Template {
    environment: Environment<'static>,
}

impl Template {
    /// A template from its text.
    ///
    /// # Errors
    /// If it is not a template.
    pub fn new(source: &str) -> Result<Self, SyntaxError> {
        let desugared = desugar::desugar(source)?;
        let mut environment = Environment::empty();
        environment.set_fuel(Some(FUEL));
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_unknown_method_callback(methods::call);
        environment.set_formatter(|out, state, value| {
            let text = python::print::text(state, value)?;
            pay_text(state, text.len())?;
            out.write_str(&text).map_err(Error::from)
        });
        builtins::install(&mut environment);
        environment
            .add_template_owned(NAME, desugared)
            .map_err(|error| SyntaxError::at(error.line().unwrap_or(1), sentence(&error)))?;
        Ok(Self { environment })
    }

    /// What the template writes; `day` is the one that `strftime_now` tells.
    ///
    /// # Errors
    /// If it refuses, fails, does not end, or writes too much.
    pub fn render(&self, mut variables: BTreeMap<&str, Value>, day: NaiveDate) -> Result<String, RenderError> {
        variables.insert(DAY, Value::from_object(Day(day)));
        let mut out = Rendering::default();
        self.environment
            .get_template(NAME)
            .and_then(|template| template.render_captured_to(Value::from_iter(variables), &mut out).map(drop))
            .map_err(|error| failure(&error))?;
        String::from_utf8(out.0).map_err(|error| RenderError::Failed(error.to_string()))
    }
}

/// What made minijinja stop: an error of ours somewhere below, no more fuel, or a fault of the template.
fn failure(error: &Error) -> RenderError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = source {
        let written = cause.downcast_ref::<std::io::Error>().and_then(|error| error.get_ref()?.downcast_ref());
        if let Some(stop) = cause.downcast_ref::<RenderError>().or(written) {
            return stop.clone();
        }
        if cause.downcast_ref::<Error>().is_some_and(|error| error.kind() == ErrorKind::OutOfFuel) {
            return RenderError::Endless;
        }
        source = cause.source();
    }
    let sentence = sentence(error);
    RenderError::Failed(error.line().map_or_else(|| sentence.clone(), |line| format!("line {line}: {sentence}")))
}

/// Minijinja's error without the name that we gave the template.
fn sentence(error: &Error) -> String {
    match (error.detail(), error.kind()) {
        (None, kind) => kind.to_string(),
        (Some(detail), ErrorKind::InvalidOperation | ErrorKind::SyntaxError) => detail.to_owned(),
        (Some(detail), kind) => format!("{kind}: {detail}"),
    }
}
