//! Templates as text.

use askama::Template;

/// A template's text. It cannot fail: the templates ask for nothing that could, and a string takes all.
pub(crate) fn written(template: &impl Template) -> String {
    template.render().unwrap_or_default()
}
