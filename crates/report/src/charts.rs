//! Charts as SVG: [`lines`], [`scatter`], [`bars`].
//!
//! Each is a whole `<svg>` without a background, to stand in a page or in a file of its own. Text and axes are drawn
//! in [`INK`] and [`RULE`]; a page in the dark gives these two another colour by its stylesheet. What is not a finite
//! number is left out.

use crate::plain;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::ops::Range;

/// The colour of text and axes.
pub const INK: RGBColor = RGBColor(0x1c, 0x23, 0x30);
/// The colour of grid lines.
pub const RULE: RGBColor = RGBColor(0xb4, 0xbc, 0xca);
/// Readable on light and on dark.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0x3b, 0x82, 0xd0),
    RGBColor(0xd9, 0x82, 0x2b),
    RGBColor(0x3c, 0x9d, 0x6a),
    RGBColor(0xb0, 0x62, 0xb0),
    RGBColor(0xcb, 0x53, 0x4b),
    RGBColor(0x2f, 0xa3, 0xa8),
    RGBColor(0x9c, 0x8a, 0x2e),
    RGBColor(0x84, 0x90, 0xa6),
];
const FONT: &str = "system-ui,sans-serif";
/// The backend draws letters at 0.8 of this.
const TEXT: i32 = 15;
/// Room for a character: no font is at hand to measure with.
const CHARACTER: i32 = 7;
/// Height of a line of the legend.
const LINE: i32 = 20;
const WIDTH: u32 = 760;
const HEIGHT: u32 = 400;

type Drawn = Result<(), Box<dyn std::error::Error + Send + Sync>>;
type Area<'s> = DrawingArea<SVGBackend<'s>, Shift>;
type Chart<'a, 's> = ChartContext<'a, SVGBackend<'s>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// A line of [`lines`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Points as (x, y, low, high), in the order of x; where low and high are y, no interval is drawn.
    pub points: Vec<(f64, f64, f64, f64)>,
}

/// A point of [`scatter`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Point {
    /// Its label.
    pub name: String,
    /// Where it is.
    pub at: (f64, f64),
    /// The interval of x, or (x, x).
    pub x_range: (f64, f64),
    /// The interval of y, or (y, y).
    pub y_range: (f64, f64),
}

/// Lines with points, each with the band of its intervals, and a legend where there are several.
#[must_use]
pub fn lines(title: Option<&str>, x_label: &str, y_label: &str, series: &[Series]) -> String {
    let finite = |p: &&(f64, f64, f64, f64)| [p.0, p.1, p.2, p.3].iter().all(|v| v.is_finite());
    let whole = |s: &Series| Series { name: s.name.clone(), points: s.points.iter().filter(finite).copied().collect() };
    let series: Vec<Series> = series.iter().map(whole).collect();
    let all = || series.iter().flat_map(|s| &s.points);
    let x = around(all().map(|p| p.0));
    let y = around(all().flat_map(|p| [p.1, p.2, p.3]));
    svg(HEIGHT, title, |area| {
        let names: Vec<&str> = series.iter().map(|s| s.name.as_str()).collect();
        let area = if names.len() > 1 { legend(area, &names)? } else { area };
        let mut chart = plot(&area, (x_label, x.clone()), (y_label, y.clone()))?;
        for (i, Series { points, .. }) in series.iter().enumerate() {
            let colour = COLOURS[i % COLOURS.len()];
            if points.iter().any(|p| p.2 < p.3) {
                let there = points.iter().map(|p| (p.0, p.3));
                let band: Vec<_> = there.chain(points.iter().rev().map(|p| (p.0, p.2))).collect();
                chart.draw_series(std::iter::once(Polygon::new(band, colour.mix(0.18))))?;
            }
            chart.draw_series(LineSeries::new(points.iter().map(|p| (p.0, p.1)), colour.stroke_width(2)))?;
            chart.draw_series(points.iter().map(|p| Circle::new((p.0, p.1), 4, colour.filled())))?;
        }
        Ok(())
    })
}

/// Labelled points with their intervals.
#[must_use]
pub fn scatter(title: Option<&str>, x_label: &str, y_label: &str, points: &[Point]) -> String {
    let finite =
        |p: &&Point| [p.at.0, p.at.1, p.x_range.0, p.x_range.1, p.y_range.0, p.y_range.1].iter().all(|v| v.is_finite());
    let points: Vec<&Point> = points.iter().filter(finite).collect();
    let x = around(points.iter().flat_map(|p| [p.at.0, p.x_range.0, p.x_range.1]));
    let y = around(points.iter().flat_map(|p| [p.at.1, p.y_range.0, p.y_range.1]));
    svg(HEIGHT, title, |area| {
        let mut chart = plot(&area, (x_label, x.clone()), (y_label, y.clone()))?;
        let mut taken = Vec::new();
        for (i, point) in points.iter().enumerate() {
            let (colour, (px, py)) = (COLOURS[i % COLOURS.len()], point.at);
            let across = vec![(point.x_range.0, py), (point.x_range.1, py)];
            let along = vec![(px, point.y_range.0), (px, point.y_range.1)];
            chart.draw_series([across, along].map(|bar| PathElement::new(bar, colour.mix(0.55).stroke_width(2))))?;
            chart.draw_series(std::iter::once(Circle::new(point.at, 5, colour.filled())))?;
            let name = plain(&point.name);
            // A label that would leave the plot on the right stands on the left of its point.
            let on_left = px > x.start + 0.8 * (x.end - x.start);
            let side = place(&mut taken, chart.plotting_area().map_coordinate(&point.at), &name, on_left);
            let horizontal = if side.left { HPos::Right } else { HPos::Left };
            let vertical = if side.below { VPos::Top } else { VPos::Bottom };
            let shift = (if side.left { -9 } else { 9 }, if side.below { 3 } else { -3 });
            let label = Text::new(name, shift, text(Pos::new(horizontal, vertical)));
            chart.draw_series(std::iter::once(EmptyElement::at(point.at) + label))?;
        }
        Ok(())
    })
}

/// Where a label stands, seen from its point.
#[derive(Clone, Copy)]
struct Side {
    left: bool,
    below: bool,
}

/// The first side of a point at which a label covers no earlier one; if all do, the first.
fn place(taken: &mut Vec<(Range<i32>, Range<i32>)>, (x, y): (i32, i32), name: &str, left: bool) -> Side {
    let width = CHARACTER * name.chars().count() as i32;
    let covered = |side: &Side| {
        let across = if side.left { x - 9 - width..x - 9 } else { x + 9..x + 9 + width };
        let along = if side.below { y + 3..y + 3 + TEXT } else { y - 3 - TEXT..y - 3 };
        (across, along)
    };
    let sides = [(left, false), (left, true), (!left, true), (!left, false)].map(|(left, below)| Side { left, below });
    let apart = |a: &Range<i32>, b: &Range<i32>| a.end <= b.start || b.end <= a.start;
    let free = |side: &&Side| {
        let (across, along) = covered(side);
        taken.iter().all(|(x, y)| apart(x, &across) || apart(y, &along))
    };
    let side = sides.iter().find(free).copied().unwrap_or(sides[0]);
    taken.push(covered(&side));
    side
}

/// Lying bars from 0: a group a row, a bar a series in it, in the order given; a group is (name, a value a series).
#[must_use]
pub fn bars(title: Option<&str>, x_label: &str, series: &[String], groups: &[(String, Vec<f64>)]) -> String {
    let bar = 11;
    let longest = groups.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let left = (CHARACTER * longest.min(36) as i32 + 12).max(40);
    let rows = groups.len().max(1);
    let height = 90 + rows as i32 * (bar * series.len().max(1) as i32 + 10);
    let top = groups.iter().flat_map(|(_, values)| values).copied().filter(|v| v.is_finite()).fold(0.0, f64::max);
    let names: Vec<&str> = series.iter().map(String::as_str).collect();
    svg(height as u32, title, |area| {
        let area = if names.len() > 1 { legend(area, &names)? } else { area };
        let mut chart = ChartBuilder::on(&area)
            .margin(10)
            .x_label_area_size(44)
            .y_label_area_size(left)
            .build_cartesian_2d(0.0..if top > 0.0 { 1.04 * top } else { 1.0 }, Rows(rows))?;
        let name = |row: &f64| groups.get(row.floor() as usize).map_or_else(String::new, |(name, _)| plain(name));
        chart
            .configure_mesh()
            .disable_y_mesh()
            .x_desc(x_label)
            .axis_style(INK)
            .light_line_style(TRANSPARENT)
            .bold_line_style(RULE.mix(0.4))
            .label_style(text(Pos::default()))
            .y_label_formatter(&name)
            .y_labels(rows)
            .draw()?;
        let thick = 0.8 / series.len().max(1) as f64;
        for (row, (_, values)) in groups.iter().enumerate() {
            for (i, value) in values.iter().enumerate().filter(|(_, v)| v.is_finite()) {
                let from = row as f64 + 0.1 + thick * i as f64;
                let corners = [(0.0, from), (value.max(0.0), from + 0.9 * thick)];
                chart.draw_series(std::iter::once(Rectangle::new(corners, COLOURS[i % COLOURS.len()].filled())))?;
            }
        }
        Ok(())
    })
}

/// Rows from the top down, each named in its middle.
struct Rows(usize);

impl Ranged for Rows {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        // The lower limit is the lower edge.
        limit.1 + ((limit.0 - limit.1) as f64 * value / self.0 as f64).round() as i32
    }
    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        (0..self.0).map(|row| row as f64 + 0.5).collect()
    }
    fn range(&self) -> Range<f64> {
        0.0..self.0 as f64
    }
}

/// The range of values with some air; something even where there is none.
fn around(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (low, high) = values.fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v), h.max(v)));
    if low > high {
        return 0.0..1.0;
    }
    let air = if high > low { 0.06 * (high - low) } else { (0.1 * high.abs()).max(1e-3) };
    low - air..high + air
}

fn text(pos: Pos) -> TextStyle<'static> {
    (FONT, TEXT).into_font().color(&INK).pos(pos)
}

/// A plot with its axes, each with a label and a range.
fn plot<'a, 's>(
    area: &'a Area<'s>,
    (x_label, x): (&str, Range<f64>),
    (y_label, y): (&str, Range<f64>),
) -> Result<Chart<'a, 's>, Box<dyn std::error::Error + Send + Sync>> {
    let mut chart =
        ChartBuilder::on(area).margin(10).x_label_area_size(44).y_label_area_size(58).build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .x_desc(x_label)
        .y_desc(y_label)
        .axis_style(INK)
        .light_line_style(TRANSPARENT)
        .bold_line_style(RULE.mix(0.4))
        .label_style(text(Pos::default()))
        .x_labels(8)
        .y_labels(6)
        .draw()?;
    Ok(chart)
}

/// Names with their colours in as many lines as they need; gives what is left below.
fn legend<'s>(area: Area<'s>, names: &[&str]) -> Result<Area<'s>, Box<dyn std::error::Error + Send + Sync>> {
    let (mut x, mut y, width) = (12, 4, area.dim_in_pixel().0 as i32);
    let mut placed = Vec::new();
    for name in names {
        let needed = 22 + CHARACTER * name.chars().count() as i32 + 14;
        if x > 12 && x + needed > width {
            (x, y) = (12, y + LINE);
        }
        placed.push((x, y));
        x += needed;
    }
    let (above, below) = area.split_vertically(y + LINE);
    for (i, (name, (x, y))) in names.iter().zip(placed).enumerate() {
        above.draw(&Rectangle::new([(x, y + 3), (x + 12, y + 15)], COLOURS[i % COLOURS.len()].filled()))?;
        above.draw(&Text::new(plain(name), (x + 18, y + 3), text(Pos::new(HPos::Left, VPos::Top))))?;
    }
    Ok(below)
}

fn svg(height: u32, title: Option<&str>, draw: impl FnOnce(Area<'_>) -> Drawn) -> String {
    let mut out = String::new();
    {
        let area = SVGBackend::with_string(&mut out, (WIDTH, height)).into_drawing_area();
        let titled = || -> Drawn {
            let area = match title {
                Some(title) => area.titled(&plain(title), (FONT, 16).into_font().color(&INK))?,
                None => area,
            };
            draw(area)
        };
        // Drawing into a string cannot fail.
        let drawn = titled();
        debug_assert!(drawn.is_ok(), "{drawn:?}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_values_and_names_make_whole_charts() {
        let point = |y: f64| (1.0, y, y - 1.0, y + 1.0);
        let series = [
            Series { name: "a <b>\u{202e}".into(), points: vec![point(1.0), point(f64::NAN)] },
            Series { name: "c".into(), points: vec![] },
        ];
        let charts = [
            lines(Some("t & t"), "x", "y", &series),
            lines(None, "x", "y", &[]),
            scatter(None, "AOS", "AVG", &[Point { name: "</svg>".into(), ..Point::default() }]),
            scatter(None, "AOS", "AVG", &[]),
            bars(None, "%", &["one".into(), "two".into()], &[("m".into(), vec![f64::INFINITY, 0.5])]),
            bars(None, "%", &[], &[]),
        ];
        for chart in &charts {
            assert!(chart.starts_with("<svg") && chart.trim_end().ends_with("</svg>"), "{chart}");
            assert_eq!(chart.matches("</svg>").count(), 1, "{chart}");
            assert!(!chart.contains("<b>") && !chart.contains("style=") && !chart.contains("NaN"), "{chart}");
        }
        assert!(charts[0].contains("a &lt;b&gt;\\u{202e}") && charts[0].contains("<polygon"));
    }

    #[test]
    fn labels_of_near_points_do_not_cover_each_other() {
        let mut taken = Vec::new();
        let sides = [(); 4].map(|()| place(&mut taken, (100, 100), "average", true));
        assert_eq!(sides.map(|s| (s.left, s.below)), [(true, false), (true, true), (false, true), (false, false)]);
    }

    #[test]
    fn groups_stand_in_the_order_given() {
        let chart = bars(None, "%", &["one".into()], &[("first".into(), vec![1.0]), ("second".into(), vec![2.0])]);
        let at = |name: &str| -> i32 {
            let before = &chart[..chart.find(name).unwrap()];
            let y = &before[before.rfind(" y=\"").unwrap() + 4..];
            y[..y.find('"').unwrap()].parse().unwrap()
        };
        assert!(at("first") < at("second"), "{chart}");
    }
}
