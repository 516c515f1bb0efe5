//! The word app: paragraphs of a docx file.

use crate::archive::{pack, unpack};
use crate::files::Testbed;
use crate::xml::Node;
use quick_xml::escape::escape;
use rolegraft_python::Object;
use std::path::Path;

const DOCUMENT: &str = "word/document.xml";
const SKELETON: [(&str, &str); 3] = [
    (
        "[Content_Types].xml",
        r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" ContentType="application/xml"/><Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>"#,
    ),
    (
        "_rels/.rels",
        r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/></Relationships>"#,
    ),
    (
        DOCUMENT,
        r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?><w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body></w:body></w:document>"#,
    ),
];

/// Body paragraphs and tables in order, joined by newlines.
pub(crate) fn text(bed: &Testbed, path: &Path) -> Result<String, String> {
    let members = unpack(&bed.read(path).map_err(|e| e.to_string())?)?;
    let (_, xml) = members.into_iter().find(|(n, _)| n == DOCUMENT).ok_or("the file has no document")?;
    let document = Node::parse(&xml)?;
    Ok(content(document.child("w:body").ok_or("the document has no body")?, "\n"))
}

/// Paragraphs and tables of a body or a cell.
fn content(of: &Node, separator: &str) -> String {
    let texts = of.children.iter().filter_map(|child| match child.name.as_str() {
        "w:p" => Some(paragraph(child)),
        "w:tbl" => Some(table(child)),
        _ => None,
    });
    texts.collect::<Vec<_>>().join(separator)
}

/// Text of a paragraph's runs and hyperlinks.
fn paragraph(of: &Node) -> String {
    let mut out = String::new();
    for child in &of.children {
        match child.name.as_str() {
            "w:r" => run(child, &mut out),
            "w:hyperlink" => child.children.iter().filter(|c| c.name == "w:r").for_each(|c| run(c, &mut out)),
            _ => {}
        }
    }
    out
}

fn run(of: &Node, out: &mut String) {
    for child in &of.children {
        match child.name.as_str() {
            "w:t" => out.push_str(&child.text),
            "w:tab" | "w:ptab" => out.push('\t'),
            "w:br" if child.attribute("w:type").is_none_or(|t| t == "textWrapping") => out.push('\n'),
            "w:cr" => out.push('\n'),
            "w:noBreakHyphen" => out.push('-'),
            _ => {}
        }
    }
}

/// A table row by row. Merged cells repeat, as python-docx counts them.
fn table(of: &Node) -> String {
    let columns = of.child("w:tblGrid").map_or(0, |g| g.children.iter().filter(|c| c.name == "w:gridCol").count());
    let mut cells: Vec<String> = Vec::new();
    let mut rows = 0;
    for row in of.children.iter().filter(|c| c.name == "w:tr") {
        rows += 1;
        for cell in row.children.iter().filter(|c| c.name == "w:tc") {
            let properties = cell.child("w:tcPr");
            let span = properties.and_then(|p| p.child("w:gridSpan")).and_then(|s| s.attribute("w:val"));
            let span = span.and_then(|s| s.parse::<usize>().ok()).unwrap_or(1).min(1000);
            let merged = properties.and_then(|p| p.child("w:vMerge"));
            let goes_on = merged.is_some_and(|m| m.attribute("w:val") != Some("restart"));
            for _ in 0..span {
                let above = cells.len().checked_sub(columns).and_then(|i| cells.get(i)).cloned();
                cells.push(match above {
                    Some(above) if goes_on => above,
                    _ => format!("|{}|", content(cell, "|")),
                });
            }
        }
    }
    let row = |i: usize| {
        let of_row = cells.get(i * columns..).unwrap_or_default();
        format!("|{}|", of_row[..columns.min(of_row.len())].join("|"))
    };
    (0..rows).map(row).collect::<Vec<_>>().join("\n")
}

pub(crate) fn read(bed: &Testbed, shown: &str) -> Result<String, String> {
    if !bed.holds(shown) {
        return Ok(format!("The file {shown} does not exist. Failed to read the file."));
    }
    text(bed, &bed.resolve(shown).ok_or("a folder")?)
}

/// A new file of paragraphs.
pub(crate) fn document<'t>(paragraphs: impl Iterator<Item = &'t str>) -> Result<Vec<u8>, String> {
    let body: String = paragraphs.map(paragraph_of).collect();
    let members = SKELETON
        .map(|(name, content)| (name.to_owned(), content.replace("<w:body>", &format!("<w:body>{body}")).into_bytes()));
    pack(&members)
}

/// A paragraph's XML.
fn paragraph_of(text: &str) -> String {
    let text = escape(text).replace(['\n', '\r'], "</w:t><w:br/><w:t xml:space=\"preserve\">");
    let text = text.replace('\t', "</w:t><w:tab/><w:t xml:space=\"preserve\">");
    format!("<w:p><w:r><w:t xml:space=\"preserve\">{text}</w:t></w:r></w:p>")
}

pub(crate) fn create(bed: &Testbed, shown: &str) -> String {
    let make = || -> Option<()> {
        // upstream: makes the path's folder first, and fails where it names none.
        let path = bed.resolve(shown).filter(|_| shown.contains('/'))?;
        bed.make_parent(&path).ok()?;
        bed.write(&path, &document(std::iter::empty()).ok()?).ok()
    };
    match make() {
        Some(()) => format!("Successfully create new file {shown}"),
        None => format!("Failed to create new file {shown}"),
    }
}

/// The text that python-docx adds for a value: it walks whatever can be walked.
fn added(contents: &Object) -> Option<String> {
    let texts = |items: &[Object]| -> Option<String> {
        items.iter().map(|i| if let Object::Str(s) = i { Some(s.as_str()) } else { None }).collect()
    };
    match contents {
        Object::None => Some(String::new()),
        Object::Str(s) => Some(s.clone()),
        Object::Tuple(items) | Object::List(items) | Object::Set(items) => texts(items),
        Object::Dict(pairs) => texts(&pairs.iter().map(|(k, _)| k.clone()).collect::<Vec<_>>()),
        _ => None,
    }
}

/// Appends one paragraph before the section properties.
pub(crate) fn write(bed: &Testbed, shown: &str, contents: &Object) -> String {
    if !bed.holds(shown) {
        return format!("The file {shown} does not exist. Failed to write to the file.");
    }
    let append = || -> Option<()> {
        let path = bed.resolve(shown)?;
        let paragraph = paragraph_of(&added(contents)?);
        let mut members = unpack(&bed.read(&path).ok()?).ok()?;
        let (_, xml) = members.iter_mut().find(|(n, _)| n == DOCUMENT)?;
        let document = String::from_utf8(std::mem::take(xml)).ok()?;
        // A section that ends with a paragraph has its properties in that paragraph.
        let last = document.rfind("<w:sectPr").filter(|at| !document[*at..].contains("</w:p>"));
        let at = last.or_else(|| document.rfind("</w:body>"))?;
        *xml = format!("{}{paragraph}{}", &document[..at], &document[at..]).into_bytes();
        bed.write(&path, &pack(&members).ok()?).ok()
    };
    match append() {
        Some(()) => format!("Successfully write contents to {shown}"),
        None => format!("Failed to write contents to {shown}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_survive_a_round_trip() {
        let bed = Testbed::new("").unwrap();
        assert_eq!(create(&bed, "data/a.docx"), "Successfully create new file data/a.docx");
        assert_eq!(create(&bed, "a.docx"), "Failed to create new file a.docx");
        write(&bed, "data/a.docx", &Object::Str("a <b> & c\nnext\tcell".into()));
        write(&bed, "data/a.docx", &Object::Str("second".into()));
        assert_eq!(read(&bed, "data/a.docx").unwrap(), "a <b> & c\nnext\tcell\nsecond");
    }
}
