//! Office files are zip archives from outside: bounded before any reader sees them.

use std::io::{Cursor, Read, Write};
use zip::write::SimpleFileOptions;

const MAX_MEMBERS: usize = 2_000;
const MAX_EXPANDED: u64 = 64 << 20;

/// How the reason begins where a document could be read, but for its size or what it declares.
const REFUSED: &str = "refused: ";

/// The reason why a document that may be sound is not read.
pub(crate) fn refused(reason: &str) -> String {
    format!("{REFUSED}{reason}")
}

/// Whether a document was refused, rather than damaged: upstream would have read it, or died of it.
pub(crate) fn is_refusal(reason: &str) -> bool {
    reason.starts_with(REFUSED)
}

/// Checks an archive: member count, expanded size as really unpacked, names, no document type definitions.
pub(crate) fn check(bytes: &[u8]) -> Result<(), String> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|e| format!("not a readable archive: {e}"))?;
    if archive.len() > MAX_MEMBERS {
        return Err(refused(&format!("the archive has {} members, more than {MAX_MEMBERS}", archive.len())));
    }
    let mut expanded = 0;
    for i in 0..archive.len() {
        let member = archive.by_index(i).map_err(|e| format!("not a readable archive: {e}"))?;
        let name = member.name().to_owned();
        if member.enclosed_name().is_none() {
            return Err(refused(&format!("the archive's member `{name}` leaves it")));
        }
        let mut content = Vec::new();
        member
            .take(MAX_EXPANDED - expanded + 1)
            .read_to_end(&mut content)
            .map_err(|e| format!("the archive's member `{name}` is damaged: {e}"))?;
        expanded += content.len() as u64;
        if expanded > MAX_EXPANDED {
            return Err(refused(&format!("the archive unpacks to more than {} MiB", MAX_EXPANDED >> 20)));
        }
        let is_xml = [".xml", ".rels", ".vml"].iter().any(|end| name.ends_with(end));
        if is_xml && content.windows(9).any(|w| w.eq_ignore_ascii_case(b"<!DOCTYPE")) {
            return Err(refused(&format!("the archive's member `{name}` declares a document type")));
        }
    }
    Ok(())
}

/// An archive of named members.
pub(crate) fn pack(members: &[(String, Vec<u8>)]) -> Result<Vec<u8>, String> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in members {
        writer.start_file(name.as_str(), SimpleFileOptions::default()).map_err(|e| e.to_string())?;
        writer.write_all(content).map_err(|e| e.to_string())?;
    }
    Ok(writer.finish().map_err(|e| e.to_string())?.into_inner())
}

/// Its members, checked first.
pub(crate) fn unpack(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, String> {
    check(bytes)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(name: &str, content: &[u8]) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        writer.start_file(name, SimpleFileOptions::default()).unwrap();
        writer.write_all(content).unwrap();
        writer.finish().unwrap().into_inner()
    }

    #[test]
    fn bombs_are_refused() {
        assert!(check(&archive("a.xml", b"<a/>")).is_ok());
        assert!(check(&archive("a.xml", &vec![0; 65 << 20])).unwrap_err().contains("64 MiB"));
        assert!(
            check(&archive("a.xml", b"<!DOCTYPE x [<!ENTITY a \"b\">]><x/>")).unwrap_err().contains("document type")
        );
        assert!(check(&archive("../a.xml", b"")).unwrap_err().contains("leaves it"));
        assert!(check(b"").is_err());
    }
}
