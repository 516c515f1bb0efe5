//! Files of recordings: JSONL, gzip-compressed or not, single or in a folder.

use crate::ConformanceError;
use flate2::read::GzDecoder;
use std::io::Read;
use std::path::{Path, PathBuf};

const EXPECTED: &str = "a JSONL file of recordings, gzip-compressed or not, or a folder of such files";
/// Longest recording read, in bytes, after decompression.
const MAX_BYTES: u64 = 4 << 30;

/// The file itself, or the folder's files, by name.
pub(crate) fn jsonl_files(traces: &Path) -> Result<Vec<PathBuf>, ConformanceError> {
    let fail = |source| ConformanceError::Read { path: traces.to_owned(), source };
    if !std::fs::metadata(traces).map_err(fail)?.is_dir() {
        return Ok(vec![traces.to_owned()]);
    }
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(traces).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let name = path.to_string_lossy();
        if name.ends_with(".jsonl") || name.ends_with(".jsonl.gz") {
            paths.push(path);
        }
    }
    paths.sort();
    if paths.is_empty() {
        return Err(ConformanceError::Nothing { path: traces.to_owned(), expected: EXPECTED });
    }
    Ok(paths)
}

/// A recording's text.
pub(crate) fn read(path: &Path) -> Result<String, ConformanceError> {
    let fail = |source| ConformanceError::Read { path: path.to_owned(), source };
    let bytes = std::fs::read(path).map_err(fail)?;
    let mut text = String::new();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        GzDecoder::new(bytes.as_slice()).take(MAX_BYTES).read_to_string(&mut text).map_err(fail)?;
    } else {
        bytes.as_slice().read_to_string(&mut text).map_err(fail)?;
    }
    Ok(text)
}
