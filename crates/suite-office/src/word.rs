//! The word app: paragraphs of a docx file.

use crate::files::Testbed;
use crate::guard;
use quick_xml::Reader;
use quick_xml::escape::escape;
use quick_xml::events::Event;
use std::io::{Cursor, Read, Write};
use std::path::Path;
use zip::write::SimpleFileOptions;

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

fn pack(members: &[(String, Vec<u8>)]) -> Result<Vec<u8>, String> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in members {
        writer.start_file(name.as_str(), SimpleFileOptions::default()).map_err(|e| e.to_string())?;
        writer.write_all(content).map_err(|e| e.to_string())?;
    }
    Ok(writer.finish().map_err(|e| e.to_string())?.into_inner())
}

fn unpack(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, String> {
    guard::check(bytes)?;
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|e| e.to_string())?;
    (0..archive.len())
        .map(|i| {
            let mut member = archive.by_index(i).map_err(|e| e.to_string())?;
            let mut content = Vec::new();
            member.read_to_end(&mut content).map_err(|e| e.to_string())?;
            Ok((member.name().to_owned(), content))
        })
        .collect()
}

/// Body paragraphs and table rows in order, joined by newlines.
pub(crate) fn text(bed: &Testbed, path: &Path) -> Result<String, String> {
    let members = unpack(&bed.read(path).map_err(|e| e.to_string())?)?;
    let (_, xml) = members.into_iter().find(|(n, _)| n == DOCUMENT).ok_or("the file has no document")?;
    let mut reader = Reader::from_reader(xml.as_slice());
    let (mut lines, mut line, mut in_text) = (Vec::new(), String::new(), false);
    // Open table rows, innermost last, each with its finished cells' paragraphs.
    let mut rows: Vec<Vec<String>> = Vec::new();
    loop {
        match reader.read_event().map_err(|e| e.to_string())? {
            Event::Eof => break,
            Event::Start(e) => match e.name().as_ref() {
                b"w:t" => in_text = true,
                b"w:tr" => rows.push(Vec::new()),
                b"w:p" => line.clear(),
                _ => {}
            },
            Event::Empty(e) => match e.name().as_ref() {
                b"w:tab" => line.push('\t'),
                b"w:br" => line.push('\n'),
                b"w:p" => lines.push(String::new()),
                _ => {}
            },
            Event::Text(t) if in_text => line.push_str(&t.unescape().map_err(|e| e.to_string())?),
            Event::End(e) => match e.name().as_ref() {
                b"w:t" => in_text = false,
                b"w:p" => match rows.last_mut() {
                    Some(row) => row.push(format!("|{line}|")),
                    None => lines.push(std::mem::take(&mut line)),
                },
                b"w:tr" => {
                    let row = format!("|{}|", rows.pop().unwrap_or_default().join("|"));
                    match rows.last_mut() {
                        Some(outer) => outer.push(row),
                        None => lines.push(row),
                    }
                }
                _ => {}
            },
            _ => {}
        }
    }
    Ok(lines.join("\n"))
}

pub(crate) fn read(bed: &Testbed, shown: &str) -> Result<String, String> {
    match bed.resolve(shown).filter(|p| bed.exists(p)) {
        None => Ok(format!("The file {shown} does not exist. Failed to read the file.")),
        Some(path) => text(bed, &path),
    }
}

pub(crate) fn create(bed: &Testbed, shown: &str) -> String {
    let make = || -> Option<()> {
        let path = bed.resolve(shown)?;
        path.parent().filter(|p| !p.as_os_str().is_empty())?;
        let members: Vec<_> = SKELETON.iter().map(|(n, c)| ((*n).to_owned(), c.as_bytes().to_vec())).collect();
        bed.make_parent(&path).ok()?;
        bed.write(&path, &pack(&members).ok()?).ok()
    };
    match make() {
        Some(()) => format!("Successfully create new file {shown}"),
        None => format!("Failed to create new file {shown}"),
    }
}

/// Appends one paragraph before the section properties.
pub(crate) fn write(bed: &Testbed, shown: &str, contents: &str) -> String {
    let Some(path) = bed.resolve(shown).filter(|p| bed.exists(p)) else {
        return format!("The file {shown} does not exist. Failed to write to the file.");
    };
    let append = || -> Option<()> {
        let mut members = unpack(&bed.read(&path).ok()?).ok()?;
        let (_, xml) = members.iter_mut().find(|(n, _)| n == DOCUMENT)?;
        let document = String::from_utf8(std::mem::take(xml)).ok()?;
        let at = document.rfind("<w:sectPr").or_else(|| document.rfind("</w:body>"))?;
        let text = escape(contents).replace('\n', "</w:t><w:br/><w:t xml:space=\"preserve\">");
        let text = text.replace('\t', "</w:t><w:tab/><w:t xml:space=\"preserve\">");
        let paragraph = format!("<w:p><w:r><w:t xml:space=\"preserve\">{text}</w:t></w:r></w:p>");
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
        write(&bed, "data/a.docx", "a <b> & c\nnext\tcell");
        write(&bed, "data/a.docx", "second");
        assert_eq!(read(&bed, "data/a.docx").unwrap(), "a <b> & c\nnext\tcell\nsecond");
    }
}
