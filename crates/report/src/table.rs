//! Tables, and how each format wants its cells.

use crate::markup::written;
use askama::Template;
use std::fmt::Write;

/// Output formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Aligned pipes.
    Markdown,
    /// RFC 4180, guarded against formulas.
    Csv,
    /// `tabular` with booktabs rules.
    Latex,
    /// A `<table>`.
    Html,
}

/// A titled table of texts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table {
    /// Shown above it.
    pub title: String,
    /// Column heads.
    pub head: Vec<String>,
    /// Rows, each as long as the head.
    pub rows: Vec<Vec<String>>,
    /// Shown below it.
    pub note: String,
}

#[derive(Template)]
#[template(path = "table.html")]
struct TableTemplate<'t> {
    table: &'t Table,
}

/// A text with control characters, direction overrides and escapes made visible: safe for a terminal.
#[must_use]
pub fn plain(text: &str) -> String {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if hidden(c) && c != '\n' && c != '\t' {
            let _ = write!(out, "\\u{{{:x}}}", c as u32);
        } else {
            out.push(c);
        }
    }
    out
}

fn latex(text: &str) -> String {
    let mut out = String::new();
    for c in plain(text).chars() {
        match c {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => {
                out.push('\\');
                out.push(c);
            }
            '\\' => out.push_str("\\textbackslash{}"),
            '~' => out.push_str("\\textasciitilde{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            'τ' => out.push_str("$\\tau$"),
            'σ' => out.push_str("$\\sigma$"),
            'ω' => out.push_str("$\\omega$"),
            '±' => out.push_str("$\\pm$"),
            '≈' => out.push_str("$\\approx$"),
            '≤' => out.push_str("$\\le$"),
            '≥' => out.push_str("$\\ge$"),
            '→' => out.push_str("$\\to$"),
            '−' => out.push('-'),
            '–' | '—' | '‘' | '’' | '“' | '”' | '…' | '\u{a1}'..='\u{ff}' | ' '..='\u{7e}' => out.push(c),
            // pdfLaTeX stops at what its fonts lack.
            c => out.push_str(&format!("\\texttt{{U+{:04X}}}", u32::from(c))),
        }
    }
    out
}

fn csv(text: &str) -> String {
    let number = text.parse::<f64>().is_ok();
    let text = plain(text);
    // A spreadsheet runs cells that begin like this.
    let guarded = if !number && text.starts_with(['=', '+', '-', '@', '\t']) { format!("'{text}") } else { text };
    if guarded.contains([',', '"', '\n']) { format!("\"{}\"", guarded.replace('"', "\"\"")) } else { guarded }
}

impl Table {
    /// An empty table.
    #[must_use]
    pub fn new(title: &str, head: &[&str]) -> Self {
        Self { title: title.into(), head: head.iter().map(|h| (*h).to_owned()).collect(), ..Self::default() }
    }

    /// The table in a format; CSV has no title.
    #[must_use]
    pub fn render(&self, format: Format) -> String {
        match format {
            Format::Markdown => self.markdown(),
            Format::Csv => self.lines(csv, ",", ""),
            Format::Latex => {
                let columns = format!("l{}", "r".repeat(self.head.len().saturating_sub(1)));
                let body = self.lines(latex, " & ", " \\\\");
                let (head, rows) = body.split_once('\n').unwrap_or((&body, ""));
                let caption = latex(&self.title);
                format!(
                    "% {caption}\n\\begin{{tabular}}{{{columns}}}\n\\toprule\n{head}\n\\midrule\n{rows}\\bottomrule\n\\end{{tabular}}\n"
                )
            }
            Format::Html => written(&TableTemplate { table: self }),
        }
    }

    fn lines(&self, cell: fn(&str) -> String, between: &str, end: &str) -> String {
        let line = |cells: &Vec<String>| cells.iter().map(|c| cell(c)).collect::<Vec<_>>().join(between) + end + "\n";
        std::iter::once(&self.head).chain(&self.rows).map(line).collect()
    }

    fn markdown(&self) -> String {
        let cell = |c: &String| plain(c).replace('|', "\\|").replace('\n', " ");
        let all: Vec<Vec<String>> =
            std::iter::once(&self.head).chain(&self.rows).map(|r| r.iter().map(cell).collect()).collect();
        let widths: Vec<usize> = (0..self.head.len())
            .map(|i| all.iter().filter_map(|r| r.get(i)).map(|c| c.chars().count()).max().unwrap_or(0).max(3))
            .collect();
        let line = |cells: &[String]| {
            let padded: Vec<String> = cells
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(i, (c, w))| {
                    let pad = " ".repeat(w.saturating_sub(c.chars().count()));
                    if i == 0 { format!("{c}{pad}") } else { format!("{pad}{c}") }
                })
                .collect();
            format!("| {} |\n", padded.join(" | "))
        };
        let mut out = format!("**{}**\n\n", plain(&self.title));
        for (i, row) in all.iter().enumerate() {
            out += &line(row);
            if i == 0 {
                let rule = |(i, w): (usize, &usize)| if i == 0 { "-".repeat(*w) } else { "-".repeat(w - 1) + ":" };
                out += &format!("| {} |\n", widths.iter().enumerate().map(rule).collect::<Vec<_>>().join(" | "));
            }
        }
        if !self.note.is_empty() {
            out += &format!("\n{}\n", plain(&self.note));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_cells_are_harmless_in_every_format() {
        let mut table = Table::new("t", &["model", "x"]);
        table.rows.push(vec!["=cmd()|'".into(), "</script>\u{1b}[31m\u{202e}".into()]);
        let csv = table.render(Format::Csv);
        assert!(csv.contains("'=cmd()") && csv.contains("\\u{1b}"), "{csv}");
        assert!(table.render(Format::Html).contains("&#60;/script&#62;\\u{1b}[31m\\u{202e}"));
        assert!(table.render(Format::Markdown).contains("=cmd()\\|'"));
        assert_eq!(super::csv("-1.5"), "-1.5");
        assert!(table.render(Format::Latex).contains("\\textbackslash{}u\\{1b\\}"));
    }
}
