//! The index's file: [`MAGIC`], the header's length (u64), the header (JSON: sections with their places), then the sections.
//! Numbers are little-endian.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the file begins with; the number is the layout's version.
pub(crate) const MAGIC: &[u8; 8] = b"RGSHOP02";
/// Bytes of an id in the file.
pub(crate) const ASIN: usize = 10;
/// Numbers of a term in its table: where its name and its postings begin, in how many documents it is, the most that it gives.
pub(crate) const COLUMNS: usize = 4;

/// A file that the index was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// When it was changed, in nanoseconds since 1970.
    pub changed: u128,
}

/// What an index says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) sources: Vec<SourceFile>,
    pub(crate) documents: u32,
    /// Terms of all documents together.
    pub(crate) length: u64,
    pub(crate) categories: Vec<String>,
    pub(crate) queries: Vec<String>,
    pub(crate) sections: BTreeMap<String, (u64, u64)>,
}

/// An id as it is stored.
pub(crate) fn key(asin: &str) -> Option<[u8; ASIN]> {
    let mut key = [0; ASIN];
    key.get_mut(..asin.len())?.copy_from_slice(asin.as_bytes());
    Some(key)
}

/// A product's id in the section that holds all of them.
pub(crate) fn asin(asins: &[u8], document: u32) -> &[u8] {
    let at = document as usize * ASIN;
    asins.get(at..at + ASIN).unwrap_or_default()
}
