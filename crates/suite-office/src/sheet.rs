//! Reading the active sheet of a workbook as openpyxl 3.1.5 does: every `<c>` element counts, numbers keep the kind that
//! their stored text has, formulas stay formulas.

use crate::archive;
use crate::xml::Node;
use rolegraft_python::Object;
use std::collections::{BTreeMap, HashMap};

/// Columns of a sheet.
pub(crate) const MAX_COLUMN: u32 = 16_384;
/// Rows of a sheet.
pub(crate) const MAX_ROW: u32 = 1_048_576;

/// A cell's value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// A Python value: text, number or truth.
    Plain(Object),
    /// A date or time, as Python shows it.
    Moment(String),
    /// A formula, `=` included.
    Formula(String),
}

/// The active sheet.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Sheet {
    /// Cells by row and column, from 1; `None` where the element has no value.
    pub(crate) cells: BTreeMap<(u32, u32), Option<Value>>,
    /// The last row and column that have an element.
    pub(crate) extent: (u32, u32),
}

/// An archive's members: their names and contents.
pub(crate) type Members = [(String, Vec<u8>)];

pub(crate) fn part(members: &Members, name: &str) -> Option<Node> {
    bytes(members, name).and_then(|xml| Node::parse(xml).ok())
}

/// A member's content.
fn bytes<'m>(members: &'m Members, name: &str) -> Option<&'m [u8]> {
    let name = name.trim_start_matches('/');
    members.iter().find(|(n, _)| n == name).map(|(_, xml)| xml.as_slice())
}

/// The name of the active sheet's member.
pub(crate) fn active(members: &Members, book: &Node) -> Result<String, String> {
    let links = part(members, "xl/_rels/workbook.xml.rels").ok_or("the workbook has no relations")?;
    let view = first(book, "bookViews").and_then(|v| first(v, "workbookView"));
    let active = view.and_then(|v| v.attribute("activeTab")).and_then(|t| t.parse().ok()).unwrap_or(0);
    let sheets: Vec<&Node> = first(book, "sheets").into_iter().flat_map(|s| named(s, "sheet")).collect();
    let sheet = sheets.get(active).or(sheets.first()).ok_or("the workbook has no sheet")?;
    let id = sheet.attribute("r:id").ok_or("the sheet has no relation")?;
    let target = named(&links, "Relationship").find(|r| r.attribute("Id") == Some(id));
    let target = target.and_then(|r| r.attribute("Target")).ok_or("the sheet's relation leads nowhere")?;
    Ok(target.strip_prefix('/').map_or_else(|| format!("xl/{target}"), str::to_owned))
}

/// Children of a name, whatever its prefix.
fn named<'n>(of: &'n Node, name: &'n str) -> impl Iterator<Item = &'n Node> {
    of.children.iter().filter(move |c| c.local() == name)
}

pub(crate) fn first<'n>(of: &'n Node, name: &'n str) -> Option<&'n Node> {
    named(of, name).next()
}

/// Text of a rich or plain string item, phonetic hints left out.
fn string(item: &Node) -> String {
    let mut out = String::new();
    for child in &item.children {
        match child.local() {
            "t" => out.push_str(&child.text),
            "r" => named(child, "t").for_each(|t| out.push_str(&t.text)),
            _ => {}
        }
    }
    escaped(&out)
}

/// `_x000D_` and its kin stand for characters that XML cannot hold.
fn escaped(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find("_x") {
        let code = rest.get(at + 2..at + 6).filter(|_| rest.get(at + 6..at + 7) == Some("_"));
        let decoded = code.and_then(|c| u32::from_str_radix(c, 16).ok()).and_then(char::from_u32);
        out.push_str(&rest[..at]);
        match decoded {
            Some(c) => {
                out.push(c);
                rest = &rest[at + 7..];
            }
            None => {
                out.push_str("_x");
                rest = &rest[at + 2..];
            }
        }
    }
    out + rest
}

impl Sheet {
    /// Reads a workbook's active sheet.
    ///
    /// # Errors
    /// If the archive is not one, is more than can be unpacked, or lacks a part.
    pub(crate) fn read(book: &[u8]) -> Result<Self, String> {
        let members = archive::unpack(book)?;
        let book = part(&members, "xl/workbook.xml").ok_or("the file has no workbook")?;
        let path = active(&members, &book)?;
        let sheet = Node::parse(bytes(&members, &path).ok_or("the sheet is missing")?)?;
        let strings: Vec<String> =
            part(&members, "xl/sharedStrings.xml").map(|s| named(&s, "si").map(string).collect()).unwrap_or_default();
        let styles = part(&members, "xl/styles.xml").map(|s| Styles::of(&s)).unwrap_or_default();
        let epoch_1904 = first(&book, "workbookPr").and_then(|p| p.attribute("date1904"));
        let epoch_1904 = epoch_1904.is_some_and(|v| v == "1" || v == "true");
        let mut out = Self::default();
        let mut shared = Shared::new();
        let mut row_at = 0;
        for row in first(&sheet, "sheetData").into_iter().flat_map(|d| named(d, "row")) {
            row_at = row.attribute("r").and_then(|r| r.parse().ok()).unwrap_or(row_at + 1).min(MAX_ROW);
            let mut column_at = 0;
            for cell in named(row, "c") {
                let at = cell.attribute("r").and_then(coordinates);
                let (r, c) = at.unwrap_or((row_at, column_at + 1));
                if r == 0 || r > MAX_ROW || c == 0 || c > MAX_COLUMN {
                    return Err("a cell lies outside the sheet".into());
                }
                column_at = c;
                let value = match first(cell, "f") {
                    Some(formula) => Some(Value::Formula(of_formula(formula, &mut shared, r, c))),
                    None => plain(cell, &strings, &styles, epoch_1904)?,
                };
                out.extent = (out.extent.0.max(r), out.extent.1.max(c));
                out.cells.insert((r, c), value);
            }
        }
        Ok(out)
    }
}

/// `B12` as (12, 2).
pub(crate) fn coordinates(reference: &str) -> Option<(u32, u32)> {
    let split = reference.find(|c: char| c.is_ascii_digit())?;
    Some((reference[split..].parse().ok()?, column(&reference[..split])?))
}

fn column(letters: &str) -> Option<u32> {
    letters.chars().try_fold(0u32, |n, c| {
        let digit = c.to_ascii_uppercase().is_ascii_uppercase().then(|| u32::from(c.to_ascii_uppercase()) - 64)?;
        n.checked_mul(26)?.checked_add(digit)
    })
}

pub(crate) fn letters(mut column: u32) -> String {
    let mut out = Vec::new();
    while column > 0 {
        column -= 1;
        out.push(char::from(b'A' + (column % 26) as u8));
        column /= 26;
    }
    out.iter().rev().collect()
}

fn plain(cell: &Node, strings: &[String], styles: &Styles, epoch_1904: bool) -> Result<Option<Value>, String> {
    let kind = cell.attribute("t").unwrap_or("n");
    if kind == "inlineStr" {
        return Ok(first(cell, "is").map(|is| Value::Plain(Object::Str(string(is)))));
    }
    let Some(stored) = first(cell, "v").map(|v| v.text.as_str()).filter(|t| !t.is_empty()) else { return Ok(None) };
    let text = |s: &str| Some(Value::Plain(Object::Str(s.to_owned())));
    Ok(match kind {
        "s" => {
            let index: usize = stored.trim().parse().map_err(|_| format!("`{stored}` is no shared string"))?;
            text(strings.get(index).ok_or_else(|| format!("shared string {index} is missing"))?)
        }
        "b" => Some(Value::Plain(Object::Bool(stored.trim() == "1"))),
        "str" => text(&escaped(stored)),
        "e" => text(stored),
        "d" => Some(Value::Moment(stored.replace('T', " "))),
        _ => {
            let number: f64 = stored.trim().parse().map_err(|_| format!("`{stored}` is no number"))?;
            let style = cell.attribute("s").and_then(|s| s.parse::<usize>().ok()).unwrap_or(0);
            match styles.dates.get(style) {
                Some(Shows::Moment) => Some(Value::Moment(moment(number, epoch_1904))),
                Some(Shows::Elapsed) => Some(Value::Moment(elapsed(number))),
                _ if stored.contains(['.', 'e', 'E']) => Some(Value::Plain(Object::Float(number))),
                _ => Some(Value::Plain(stored.trim().parse().map_or(Object::Float(number), Object::Int))),
            }
        }
    })
}

/// Shared formulas by their index: the text, and the cell where it stands.
pub(crate) type Shared = HashMap<String, (String, u32, u32)>;

/// A formula; one that shares another's is moved from where that stands.
pub(crate) fn of_formula(formula: &Node, shared: &mut Shared, row: u32, column: u32) -> String {
    let text = format!("={}", formula.text);
    let Some(id) = formula.attribute("si").filter(|_| formula.attribute("t") == Some("shared")) else { return text };
    match shared.get(id) {
        Some((master, at_row, at_column)) => {
            moved(master, i64::from(row) - i64::from(*at_row), i64::from(column) - i64::from(*at_column))
        }
        None => {
            shared.insert(id.to_owned(), (text.clone(), row, column));
            text
        }
    }
}

/// A formula with its relative references moved.
fn moved(formula: &str, rows: i64, columns: i64) -> String {
    let chars: Vec<char> = formula.chars().collect();
    let (mut out, mut at) = (String::new(), 0);
    while at < chars.len() {
        let c = chars[at];
        if c == '"' || c == '\'' {
            let end = chars[at + 1..].iter().position(|d| *d == c).map_or(chars.len(), |i| at + i + 2);
            out.extend(&chars[at..end]);
            at = end;
            continue;
        }
        let starts = (c == '$' || c.is_ascii_alphabetic())
            && (at == 0 || !(chars[at - 1].is_alphanumeric() || matches!(chars[at - 1], '_' | '.' | '$')));
        match reference(&chars, at).filter(|_| starts) {
            Some((text, end)) => {
                out.push_str(&move_one(&text, rows, columns));
                at = end;
            }
            None if starts => {
                // A name or a function: taken whole.
                let end = chars[at..].iter().position(|d| !(d.is_alphanumeric() || matches!(d, '_' | '.' | '$')));
                let end = end.map_or(chars.len(), |i| at + i.max(1));
                out.extend(&chars[at..end]);
                at = end;
            }
            None => {
                out.push(c);
                at += 1;
            }
        }
    }
    out
}

/// A reference `[$]AB[$]12` that starts here, and where it ends.
fn reference(chars: &[char], start: usize) -> Option<(String, usize)> {
    let mut at = start;
    let mut take = |wanted: fn(char) -> bool, most: usize| {
        let begun = at;
        while at < chars.len() && at - begun < most && wanted(chars[at]) {
            at += 1;
        }
        at - begun
    };
    take(|c| c == '$', 1);
    let letters = take(|c| c.is_ascii_alphabetic(), 4);
    take(|c| c == '$', 1);
    let digits = take(|c| c.is_ascii_digit(), 8);
    let next = chars.get(at);
    let ends = next.is_none_or(|c| !(c.is_alphanumeric() || matches!(c, '_' | '.' | '(' | '!')));
    ((1..=3).contains(&letters) && (1..=7).contains(&digits) && ends).then(|| (chars[start..at].iter().collect(), at))
}

fn move_one(reference: &str, rows: i64, columns: i64) -> String {
    let (fixed_column, rest) = reference.strip_prefix('$').map_or((false, reference), |r| (true, r));
    let split = rest.find(|c: char| c == '$' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (name, rest) = rest.split_at(split);
    let (fixed_row, digits) = rest.strip_prefix('$').map_or((false, rest), |r| (true, r));
    let (Some(column), Ok(row)) = (column(name), digits.parse::<i64>()) else { return reference.to_owned() };
    let column = if fixed_column { i64::from(column) } else { i64::from(column) + columns };
    let row = if fixed_row { row } else { row + rows };
    if column < 1 || row < 1 {
        return "#REF!".into();
    }
    let dollar = |fixed: bool| if fixed { "$" } else { "" };
    format!("{}{}{}{row}", dollar(fixed_column), letters(column as u32), dollar(fixed_row))
}

/// What a number format shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shows {
    Number,
    Moment,
    /// Hours, minutes or seconds beyond a day: `[h]:mm`.
    Elapsed,
}

#[derive(Debug, Default)]
struct Styles {
    /// By cell style.
    dates: Vec<Shows>,
}

impl Styles {
    fn of(styles: &Node) -> Self {
        let formats: HashMap<u32, &str> = first(styles, "numFmts")
            .into_iter()
            .flat_map(|f| named(f, "numFmt"))
            .filter_map(|f| Some((f.attribute("numFmtId")?.parse().ok()?, f.attribute("formatCode")?)))
            .collect();
        let shows = |id: u32| match (formats.get(&id), id) {
            (Some(code), _) => shows(code),
            (None, 14..=22 | 45 | 47) => Shows::Moment,
            (None, 46) => Shows::Elapsed,
            _ => Shows::Number,
        };
        let styles = first(styles, "cellXfs").into_iter().flat_map(|x| named(x, "xf"));
        let ids = styles.map(|xf| xf.attribute("numFmtId").and_then(|i| i.parse().ok()).unwrap_or(0));
        Self { dates: ids.map(shows).collect() }
    }
}

/// openpyxl's `is_date_format` and `is_timedelta_format`.
fn shows(code: &str) -> Shows {
    let (mut rest, mut plain) = (code, String::new());
    let mut elapsed = false;
    while let Some(c) = rest.chars().next() {
        let skip = match c {
            '"' => rest[1..].find('"').map(|i| i + 2),
            '\\' => Some(1 + rest.chars().nth(1).map_or(0, char::len_utf8)),
            '[' => rest.find(']').map(|end| {
                let inside = rest[1..end].to_lowercase();
                elapsed |= ["h", "hh", "m", "mm", "s", "ss"].contains(&inside.as_str());
                end + 1
            }),
            _ => None,
        };
        let length = skip.unwrap_or_else(|| {
            plain.push(c);
            c.len_utf8()
        });
        rest = rest.get(length..).unwrap_or_default();
    }
    let section = plain.split(';').next().unwrap_or_default().to_lowercase();
    if elapsed {
        Shows::Elapsed
    } else if section.contains(['d', 'm', 'h', 'y', 's']) && !section.contains("general") {
        Shows::Moment
    } else {
        Shows::Number
    }
}

/// Days counted from 1899-12-30, as `YYYY-MM-DD`.
fn date(days: i64) -> String {
    // Days to civil dates in eras of 400 years, counted from 0000-03-01 (Howard Hinnant's algorithm).
    let z = days + 693_899;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

fn clock(milliseconds: i64) -> String {
    let (seconds, rest) = (milliseconds / 1000, milliseconds % 1000);
    let fraction = if rest == 0 { String::new() } else { format!(".{:06}", rest * 1000) };
    format!("{:02}:{:02}:{:02}{fraction}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// A number as the `datetime` or `time` that openpyxl makes of it, as Python shows that.
fn moment(value: f64, epoch_1904: bool) -> String {
    let day = value.floor();
    let milliseconds = ((value - day) * 86_400_000.0).round() as i64;
    let (day, milliseconds) = (day as i64 + milliseconds / 86_400_000, milliseconds % 86_400_000);
    if (0.0..1.0).contains(&value) && day == 0 {
        return clock(milliseconds);
    }
    // The calendar of spreadsheets has a 29th of February 1900; the other one starts in 1904.
    let leap = i64::from(!epoch_1904 && value > 0.0 && value < 60.0);
    format!("{} {}", date(day + leap + if epoch_1904 { 1462 } else { 0 }), clock(milliseconds))
}

/// A number of days as Python shows a `timedelta`.
fn elapsed(value: f64) -> String {
    let milliseconds = (value * 86_400_000.0).round() as i64;
    let (days, rest) = (milliseconds.div_euclid(86_400_000), milliseconds.rem_euclid(86_400_000));
    let (seconds, fraction) = (rest / 1000, rest % 1000);
    let fraction = if fraction == 0 { String::new() } else { format!(".{:06}", fraction * 1000) };
    let time = format!("{}:{:02}:{:02}{fraction}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    match days {
        0 => time,
        1 | -1 => format!("{days} day, {time}"),
        _ => format!("{days} days, {time}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_formulas_move_with_their_cells() {
        for (formula, rows, columns, expected) in [
            ("=C38+D37", 0, 1, "=D38+E37"),
            ("=SUM($A1:B$2)*LOG10(C3)&\"A1\"", 2, 3, "=SUM($A3:E$2)*LOG10(F5)&\"A1\""),
            ("='My A1'!B2+Name1x", 1, 0, "='My A1'!B3+Name1x"),
            ("=A1", -1, 0, "=#REF!"),
        ] {
            assert_eq!(moved(formula, rows, columns), expected);
        }
    }

    #[test]
    fn numbers_in_date_formats_are_moments() {
        assert_eq!(moment(45413.0, false), "2024-05-01 00:00:00");
        assert_eq!(moment(0.5625, false), "13:30:00");
        assert_eq!(moment(59.0, false), "1900-02-28 00:00:00");
        assert_eq!(moment(0.0, true), "00:00:00");
        assert_eq!(elapsed(1.5), "1 day, 12:00:00");
        for (code, expected) in [
            ("yyyy\\-mm\\-dd", Shows::Moment),
            ("[h]:mm", Shows::Elapsed),
            ("[Red]0.00", Shows::Number),
            ("\"days\" 0", Shows::Number),
            ("General", Shows::Number),
            ("#,##0;[Red]-#,##0", Shows::Number),
        ] {
            assert_eq!(shows(code), expected, "{code}");
        }
    }
}
