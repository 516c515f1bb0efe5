//! Writing workbooks: a cell of the active sheet is changed in place, everything else stays as it was.
//!
//! What openpyxl 3.1.5 does to a workbook that it saves, and a reader notices, is done as well: numbers are stored in
//! 16 digits, shared formulas are told apart, results of formulas are dropped, cells with neither value nor style go.

use crate::archive;
use crate::sheet::{Shared, active, coordinates, letters, of_formula, part};
use crate::xml::{Node, span_of};
use num_traits::ToPrimitive;
use rolegraft_python::Object;

/// Longest text of a cell, in characters.
const MAX_TEXT: usize = 32_767;
/// Texts that are error values.
const ERRORS: [&str; 7] = ["#NULL!", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#N/A"];
const SKELETON: [(&str, &str); 6] = [
    (
        "[Content_Types].xml",
        r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" ContentType="application/xml"/><Override PartName="/xl/workbook.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/><Override PartName="/xl/styles.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.styles+xml"/><Override PartName="/xl/worksheets/sheet1.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/></Types>"#,
    ),
    (
        "_rels/.rels",
        r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="xl/workbook.xml"/></Relationships>"#,
    ),
    (
        "xl/workbook.xml",
        r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?><workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"><bookViews><workbookView/></bookViews><sheets><sheet name="Sheet" sheetId="1" r:id="rId1"/></sheets></workbook>"#,
    ),
    (
        "xl/_rels/workbook.xml.rels",
        r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet" Target="worksheets/sheet1.xml"/><Relationship Id="rId2" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/styles" Target="styles.xml"/></Relationships>"#,
    ),
    (
        "xl/styles.xml",
        r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?><styleSheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><fonts count="1"><font><sz val="11"/><name val="Calibri"/><family val="2"/></font></fonts><fills count="2"><fill><patternFill/></fill><fill><patternFill patternType="gray125"/></fill></fills><borders count="1"><border><left/><right/><top/><bottom/><diagonal/></border></borders><cellStyleXfs count="1"><xf numFmtId="0" fontId="0" fillId="0" borderId="0"/></cellStyleXfs><cellXfs count="1"><xf numFmtId="0" fontId="0" fillId="0" borderId="0" xfId="0"/></cellXfs><cellStyles count="1"><cellStyle name="Normal" xfId="0" builtinId="0"/></cellStyles></styleSheet>"#,
    ),
    (
        "xl/worksheets/sheet1.xml",
        r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?><worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData/></worksheet>"#,
    ),
];

/// A workbook of one sheet with the given rows.
///
/// # Errors
/// If a value cannot be a cell's.
pub(crate) fn of_rows(rows: &[Vec<Object>]) -> Result<Vec<u8>, String> {
    let mut data = Node { name: "sheetData".into(), ..Node::default() };
    for (r, row) in (1..).zip(rows) {
        for (c, value) in (1..).zip(row) {
            put(&mut data, r, c, value)?;
        }
    }
    let mut text = String::new();
    data.write(&mut text);
    archive::pack(
        &SKELETON.map(|(name, content)| (name.to_owned(), content.replace("<sheetData/>", &text).into_bytes())),
    )
}

/// The workbook with a cell of its active sheet set; `None` clears it.
///
/// # Errors
/// If the file is no workbook, or the value cannot be a cell's.
pub(crate) fn with_cell(bytes: &[u8], row: u32, column: u32, value: &Object) -> Result<Vec<u8>, String> {
    let mut members = archive::unpack(bytes)?;
    let book = part(&members, "xl/workbook.xml").ok_or("the file has no workbook")?;
    let path = active(&members, &book)?;
    if !members.iter().any(|(name, _)| *name == path) {
        return Err("the sheet is missing".into());
    }
    for (name, xml) in &mut members {
        let edited = *name == path;
        let other = || name.starts_with("xl/worksheets/") && name.ends_with(".xml") && has_formulas(xml);
        if !edited && !other() {
            continue;
        }
        let Some(span) = span_of(xml, "sheetData")? else { return Err(format!("`{name}` has no cells")) };
        let mut data = Node::parse(&xml[span.clone()])?;
        saved(&mut data);
        if edited {
            drop_empty(&mut data);
            put(&mut data, row, column, value)?;
            if *value == Object::None {
                drop_empty(&mut data);
            }
        }
        let mut text = String::new();
        data.write(&mut text);
        xml.splice(span, text.into_bytes());
        if let Some(span) = span_of(xml, "dimension")? {
            xml.drain(span);
        }
    }
    forget_order(&mut members)?;
    archive::pack(&members)
}

fn has_formulas(xml: &[u8]) -> bool {
    xml.windows(2).any(|w| w == b"<f" || w == b":f")
}

/// The order of calculation, which no longer fits.
fn forget_order(members: &mut Vec<(String, Vec<u8>)>) -> Result<(), String> {
    const ORDER: &str = "xl/calcChain.xml";
    if !members.iter().any(|(name, _)| name == ORDER) {
        return Ok(());
    }
    members.retain(|(name, _)| name != ORDER);
    for (member, attribute) in [("[Content_Types].xml", "PartName"), ("xl/_rels/workbook.xml.rels", "Target")] {
        let Some((_, xml)) = members.iter_mut().find(|(name, _)| name == member) else { continue };
        let mut tree = Node::parse(xml)?;
        tree.children.retain(|c| c.attribute(attribute).is_none_or(|value| !value.ends_with("calcChain.xml")));
        let mut text = "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>".to_owned();
        tree.write(&mut text);
        *xml = text.into_bytes();
    }
    Ok(())
}

/// Where a row or cell stands: what its `r` says, else after the one before.
fn position(of: &Node, before: u32, read: impl Fn(&str) -> Option<u32>) -> u32 {
    of.attribute("r").and_then(read).unwrap_or(before + 1)
}

/// What saving does to the cells that are there.
fn saved(data: &mut Node) {
    let mut shared = Shared::new();
    let mut row_at = 0;
    for row in &mut data.children {
        row_at = position(row, row_at, |r| r.parse().ok());
        let mut column_at = 0;
        for cell in &mut row.children {
            column_at = position(cell, column_at, |r| coordinates(r).map(|(_, c)| c));
            cell.set("r", Some(format!("{}{row_at}", letters(column_at))));
            if let Some(at) = cell.children.iter().position(|c| c.local() == "f") {
                let formula = of_formula(&cell.children[at], &mut shared, row_at, column_at);
                if cell.children[at].attribute("t") == Some("shared") {
                    let name = cell.children[at].name.clone();
                    cell.children[at] = Node { name, text: formula[1..].to_owned(), ..Node::default() };
                }
                cell.children.retain(|c| c.local() == "f");
                cell.set("t", None);
            } else if matches!(cell.attribute("t"), None | Some("n")) {
                for value in cell.children.iter_mut().filter(|c| c.local() == "v") {
                    if let Ok(number) = value.text.trim().parse::<f64>() {
                        value.text = general(number);
                    }
                }
            }
        }
    }
}

/// Drops cells that have neither value nor style, those among them that a text without letters was written to.
fn drop_empty(data: &mut Node) {
    for row in &mut data.children {
        let styled = |c: &Node| c.attribute("s").is_some_and(|s| s != "0");
        let valued = |c: &Node| c.children.iter().any(|v| v.local() != "v" || !v.text.is_empty());
        row.children.retain(|c| valued(c) || styled(c));
    }
}

/// Puts a value into a cell, which keeps its style.
fn put(data: &mut Node, row: u32, column: u32, value: &Object) -> Result<(), String> {
    let prefix = data.name.strip_suffix("sheetData").unwrap_or_default().to_owned();
    let element = |name: &str| Node { name: format!("{prefix}{name}"), ..Node::default() };
    let (mut at, mut before, mut found) = (data.children.len(), 0, false);
    for (i, row_node) in data.children.iter().enumerate() {
        before = position(row_node, before, |r| r.parse().ok());
        if before >= row {
            (at, found) = (i, before == row);
            break;
        }
    }
    if !found {
        let mut new = element("row");
        new.set("r", Some(row.to_string()));
        data.children.insert(at, new);
    }
    let row_node = &mut data.children[at];
    row_node.set("spans", None);
    let (mut at, mut before, mut found) = (row_node.children.len(), 0, false);
    for (i, cell) in row_node.children.iter().enumerate() {
        before = position(cell, before, |r| coordinates(r).map(|(_, c)| c));
        if before >= column {
            (at, found) = (i, before == column);
            break;
        }
    }
    if !found {
        let mut new = element("c");
        new.set("r", Some(format!("{}{row}", letters(column))));
        row_node.children.insert(at, new);
    }
    let cell = &mut row_node.children[at];
    let holding = |name: &str, text: String| Node { text, ..element(name) };
    let (kind, children) = match value {
        Object::None => (None, Vec::new()),
        Object::Bool(b) => (Some("b"), vec![holding("v", u8::from(*b).to_string())]),
        Object::Int(i) => (None, vec![holding("v", general(i.to_f64().unwrap_or(f64::NAN)))]),
        Object::Float(f) => (None, vec![holding("v", general(*f))]),
        Object::Str(s) if s.chars().any(|c| c < ' ' && !matches!(c, '\t' | '\n' | '\r')) => {
            return Err("the text has characters that a cell cannot hold".into());
        }
        Object::Str(s) if s.len() > 1 && s.starts_with('=') => (None, vec![holding("f", s[1..].to_owned())]),
        Object::Str(s) if ERRORS.contains(&s.as_str()) => (Some("e"), vec![holding("v", s.clone())]),
        Object::Str(s) => {
            let mut text = holding("t", s.chars().take(MAX_TEXT).collect());
            text.set("xml:space", Some("preserve".into()));
            // An empty text leaves a cell without a value, which counts all the same.
            let inside = if s.is_empty() { Vec::new() } else { vec![Node { children: vec![text], ..element("is") }] };
            (Some("inlineStr"), if inside.is_empty() { vec![element("v")] } else { inside })
        }
        other => return Err(format!("a cell cannot hold a {}", other.kind())),
    };
    cell.set("t", kind.map(str::to_owned));
    cell.children = children;
    Ok(())
}

/// C's `%.16g`; nothing for what is not finite.
fn general(number: f64) -> String {
    if !number.is_finite() {
        return String::new();
    }
    let scientific = format!("{number:.15e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trimmed = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if (-4..16).contains(&exponent) {
        let decimals = usize::try_from(15 - exponent).unwrap_or(0);
        return trimmed(&format!("{number:.decimals$}"));
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", trimmed(digits), exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_stored_in_16_digits() {
        for (number, expected) in [
            (0.1 + 0.2, "0.3"),
            (1e16, "1e+16"),
            (12_345_678_901_234_567_890.0, "1.234567890123457e+19"),
            (-2.5, "-2.5"),
            (1000.0, "1000"),
            (1e-5, "1e-05"),
            (1234.5678, "1234.5678"),
            (0.0, "0"),
            (9_999_999_999_999_998.0, "9999999999999998"),
            (1e300, "1e+300"),
            (f64::INFINITY, ""),
        ] {
            assert_eq!(general(number), expected);
        }
    }
}
