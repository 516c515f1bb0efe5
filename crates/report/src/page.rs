//! The report page: one HTML file, no scripts, nothing loaded from elsewhere.

use crate::table::html;
use std::fmt::Write;

/// A titled part of the page; the body is HTML.
pub struct Section {
    /// Its heading.
    pub title: String,
    /// Trusted HTML.
    pub body: String,
}

/// The page.
pub struct Page {
    /// The run's name.
    pub title: String,
    /// One paragraph under the title.
    pub summary: String,
    /// The sections, in order.
    pub sections: Vec<Section>,
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:76rem;padding:0 1rem;color:#1c2330}\
h1{margin-bottom:0}nav a{margin-right:1rem}table{border-collapse:collapse;font-variant-numeric:tabular-nums}\
figure{margin:1rem 0;overflow-x:auto}figcaption{font-weight:600;margin-bottom:.3rem}th,td{padding:.2rem .7rem;text-align:right;border-bottom:1px solid #dde2ea}\
th:first-child,td:first-child{text-align:left}.note{color:#5a6478;margin:.3rem 0}details{border:1px solid #dde2ea;border-radius:6px;margin:.4rem 0;padding:.3rem .7rem}\
summary{cursor:pointer}.pair{display:grid;grid-template-columns:1fr 1fr;gap:1rem}.turn{margin:.3rem 0}.turn span{color:#5a6478;font-size:12px}\
.turn pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:0;padding:.4rem;background:#f5f7fa;border-radius:4px;font-size:12.5px}\
.assistant pre{background:#eaf2ff}.first pre{outline:2px solid #d9822b}mark{background:#ffd2cc}svg text{font:12px system-ui,sans-serif}\
@media(prefers-color-scheme:dark){body{background:#14181f;color:#dde2ea}.turn pre{background:#1f2530}.assistant pre{background:#1b2b44}th,td,details{border-color:#333c4a}mark{background:#7a2c22;color:#fff}svg text{fill:#dde2ea}}";

impl Page {
    /// The whole file.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
             <title>{0}</title><style>{STYLE}</style></head><body>\n<h1>{0}</h1>\n<p>{1}</p>\n<nav>",
            html(&self.title),
            html(&self.summary)
        );
        for (i, section) in self.sections.iter().enumerate() {
            let _ = write!(out, "<a href=\"#s{i}\">{}</a>", html(&section.title));
        }
        out.push_str("</nav>\n");
        for (i, section) in self.sections.iter().enumerate() {
            let _ = write!(out, "<section id=\"s{i}\"><h2>{}</h2>\n{}</section>\n", html(&section.title), section.body);
        }
        out + "</body></html>\n"
    }
}

const COLOURS: [&str; 6] = ["#3b6fb6", "#d9822b", "#4c9f70", "#a05195", "#c0504d", "#7f8fa6"];

/// Grouped bars: one group a row, one bar a series, 0 to 100.
#[must_use]
pub fn bar_chart(series: &[String], groups: &[(String, Vec<f64>)]) -> String {
    let (bar, left, height) = (10.0, 150.0, 16.0);
    let block = bar * series.len() as f64 + height;
    let total = block * groups.len() as f64 + 30.0;
    let mut out = format!("<svg class=\"bars\" viewBox=\"0 0 760 {total}\" role=\"img\" width=\"760\">");
    for (i, name) in series.iter().enumerate() {
        let x = left + 110.0 * i as f64;
        let _ = write!(
            out,
            "<rect x=\"{x}\" y=\"4\" width=\"10\" height=\"10\" fill=\"{}\"/><text x=\"{}\" y=\"13\">{}</text>",
            COLOURS[i % 6],
            x + 14.0,
            html(name)
        );
    }
    for (g, (name, values)) in groups.iter().enumerate() {
        let top = 26.0 + block * g as f64;
        let _ = write!(out, "<text x=\"0\" y=\"{}\">{}</text>", top + block / 2.0, html(name));
        for (i, value) in values.iter().enumerate() {
            let (y, width) = (top + bar * i as f64, 5.6 * value.clamp(0.0, 100.0));
            let _ = write!(
                out,
                "<rect x=\"{left}\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" fill=\"{}\"><title>{}: {value:.1}</title></rect>",
                bar - 2.0,
                COLOURS[i % 6],
                html(&series[i])
            );
        }
    }
    out + "</svg>\n"
}

/// Labelled points.
#[must_use]
pub fn scatter_chart(axes: (&str, &str), points: &[(String, f64, f64)]) -> String {
    let range = |values: Vec<f64>| {
        let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
        (low, (high - low).max(1e-9))
    };
    let (x0, dx) = range(points.iter().map(|p| p.1).collect());
    let (y0, dy) = range(points.iter().map(|p| p.2).collect());
    let mut out = format!(
        "<svg class=\"scatter\" viewBox=\"0 0 640 340\" role=\"img\" width=\"640\"><line x1=\"50\" y1=\"300\" x2=\"620\" y2=\"300\" stroke=\"#7f8fa6\"/>\
         <line x1=\"50\" y1=\"20\" x2=\"50\" y2=\"300\" stroke=\"#7f8fa6\"/><text x=\"300\" y=\"330\">{}</text><text x=\"4\" y=\"14\">{}</text>",
        html(axes.0),
        html(axes.1)
    );
    for (i, (name, x, y)) in points.iter().enumerate() {
        let (px, py) = (70.0 + 460.0 * (x - x0) / dx, 290.0 - 250.0 * (y - y0) / dy);
        let _ = write!(
            out,
            "<circle cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"5\" fill=\"{}\"><title>{}: {x:.3}, {y:.1}</title></circle><text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            COLOURS[i % 6],
            html(name),
            px + 8.0,
            py + 4.0,
            html(name)
        );
    }
    out + "</svg>\n"
}
