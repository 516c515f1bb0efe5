//! The page: one HTML file with its style and script in it, made from `templates/`.
//!
//! Its policy lets nothing in but that style and that script, by their hashes, and what that script itself loads: the
//! episodes beside the page. `'self'` would not do, for a page opened as a file has no origin.

use crate::markup::written;
use crate::{HeatMap, Table};
use askama::Template;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

const STYLE: &str = include_str!("../templates/style.css");
const SCRIPT: &str = include_str!("../templates/app.js");

/// A piece of a section.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// A paragraph.
    Text(String),
    /// A table.
    Table(Table),
    /// Scores by model and benchmark.
    Heat(HeatMap),
    /// A caption, and an SVG of [`charts`](crate::charts).
    Chart(String, String),
    /// The paired view of the episodes beside the page, of two models at first.
    Episodes(String, String),
}

/// A titled part of the page.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Section {
    /// Its heading.
    pub title: String,
    /// What it holds.
    pub parts: Vec<Part>,
}

impl Section {
    /// A section of some parts.
    #[must_use]
    pub fn new(title: &str, parts: Vec<Part>) -> Self {
        Self { title: title.into(), parts }
    }
}

/// The page.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Page {
    /// Its title.
    pub title: String,
    /// The answer, if there is one.
    pub lead: String,
    /// A paragraph below.
    pub summary: String,
    /// The sections, in order.
    pub sections: Vec<Section>,
}

#[derive(Template)]
#[template(path = "page.html")]
struct PageTemplate<'p> {
    title: &'p str,
    lead: &'p str,
    summary: &'p str,
    sections: &'p [Section],
    policy: String,
    scripted: bool,
}

impl Page {
    /// The whole file.
    #[must_use]
    pub fn render(&self) -> String {
        let Self { title, lead, summary, sections } = self;
        let scripted = sections.iter().flat_map(|s| &s.parts).any(|part| matches!(part, Part::Episodes(..)));
        let hash = |text: &str| STANDARD.encode(Sha256::digest(text));
        let mut policy =
            format!("default-src 'none'; base-uri 'none'; form-action 'none'; style-src 'sha256-{}'", hash(STYLE));
        if scripted {
            policy += &format!("; script-src 'sha256-{}' 'strict-dynamic'", hash(SCRIPT));
        }
        written(&PageTemplate { title, lead, summary, sections, policy, scripted })
    }
}
