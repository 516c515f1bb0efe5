//! Reply formats: text in, spans and violations out.
//!
//! A [`Format`] is data (`parsers/NAME.toml`, with a JSON Schema beside it) interpreted by a small engine. It says where
//! in a reply the spans lie whose success a benchmark hangs on, and what they mean. The same [`Reading`] decides what the
//! environment executes, which tokens are traced and what failure analysis counts, so the three can never disagree.
//!
//! Reading never fails and never panics: whatever a model says is a value with violations. The engine knows neither
//! where the text came from nor what becomes of it.
//!
//! ```
//! let format = rolegraft_spans::Format::builtin("hermes").unwrap();
//! let reading = format.read("<tool_call>\n{\"name\": \"think\", \"arguments\": {}}\n</tool_call>", None);
//! assert_eq!(reading.action().unwrap().name, "think");
//! assert!(reading.violations().next().is_none());
//! ```

mod format;
pub mod python_json;
mod reading;

pub use format::{Actions, Format, FormatError};
pub use reading::{Action, Reading, Role, Span, Violation, ViolationKind};
