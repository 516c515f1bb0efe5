//! The safetensors header: eight bytes of length, JSON, then data. Validated whole before anything is believed.

use crate::Dtype;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};

/// Longest header accepted, as in huggingface/safetensors@24b0b28:`safetensors/src/tensor.rs`.
pub const MAX_HEADER: u64 = 100_000_000;

/// A tensor of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Bytes in the file, from its start.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

/// A validated header.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Header {
    /// Tensors in the order of their data.
    pub tensors: Vec<TensorInfo>,
    /// What `__metadata__` says.
    pub metadata: BTreeMap<String, String>,
}

/// Why a file is not a safetensors file that we read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum HeaderError {
    #[error("is {0} bytes long, too short for a safetensors header")]
    TooShort(u64),
    #[error("is a git-lfs pointer, not weights; run `git lfs pull` where it came from")]
    LfsPointer,
    #[error("is an HTML page, not weights; download it again")]
    Html,
    #[error("claims a header of {claimed} bytes, but {available} bytes follow (the limit is {MAX_HEADER})")]
    HeaderLength { claimed: u64, available: u64 },
    #[error("has a header that is not valid: {0}")]
    Json(String),
    #[error("names tensor `{0}` twice")]
    Duplicate(String),
    #[error("tensor `{tensor}` has dtype `{dtype}`, which is not supported{}", mend(dtype))]
    Dtype { tensor: String, dtype: String },
    #[error("tensor `{0}` has a shape whose size overflows")]
    Overflow(String),
    #[error("tensor `{tensor}` has shape {shape:?} of {dtype}, {expected} bytes, but its range holds {actual}")]
    Size { tensor: String, shape: Vec<usize>, dtype: &'static str, expected: u64, actual: u64 },
    #[error("tensor `{tensor}` starts at byte {start} of the data where byte {expected} was due (overlap or hole)")]
    Gap { tensor: String, start: u64, expected: u64 },
    #[error(
        "tensor `{tensor}` ends at byte {end}, but the file has {available} bytes of data: it is truncated; copy it again"
    )]
    Truncated { tensor: String, end: u64, available: u64 },
    #[error("has {0} bytes after its last tensor")]
    Trailing(u64),
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

/// Header entries in file order, duplicates kept so that they can be refused.
struct Entries(Vec<(String, Entry)>, BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Walk;
        impl<'de> Visitor<'de> for Walk {
            type Value = Entries;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let (mut entries, mut metadata) = (Vec::new(), BTreeMap::new());
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        metadata = map.next_value::<Option<_>>()?.unwrap_or_default();
                    } else {
                        entries.push((name, map.next_value()?));
                    }
                }
                Ok(Entries(entries, metadata))
            }
        }
        deserializer.deserialize_map(Walk)
    }
}

impl Header {
    /// Reads and validates the header of a file of `len` bytes, of which `bytes` are the first.
    ///
    /// # Errors
    /// Anything that the file could lie about; see [`HeaderError`].
    pub fn parse(bytes: &[u8], len: u64) -> Result<Self, HeaderError> {
        if bytes.starts_with(b"version https://git-lfs") {
            return Err(HeaderError::LfsPointer);
        }
        if bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'<') && bytes.len() >= 9 && bytes[8] != b'{' {
            return Err(HeaderError::Html);
        }
        let Some(prefix) = bytes.first_chunk::<8>() else { return Err(HeaderError::TooShort(len)) };
        let (claimed, available) = (u64::from_le_bytes(*prefix), len.saturating_sub(8));
        if claimed > MAX_HEADER || claimed > available {
            return Err(HeaderError::HeaderLength { claimed, available });
        }
        let data_start = 8 + claimed;
        let json = bytes.get(8..data_start as usize).ok_or(HeaderError::HeaderLength { claimed, available })?;
        let Entries(entries, metadata) = serde_json::from_slice(json).map_err(|e| HeaderError::Json(e.to_string()))?;
        let mut seen = HashSet::new();
        let mut tensors = Vec::with_capacity(entries.len());
        for (name, entry) in entries {
            if !seen.insert(name.clone()) {
                return Err(HeaderError::Duplicate(name));
            }
            let Some(dtype) = Dtype::parse(&entry.dtype) else {
                return Err(HeaderError::Dtype { tensor: name, dtype: entry.dtype });
            };
            let expected = entry
                .shape
                .iter()
                .try_fold(dtype.size() as u64, |n, d| n.checked_mul(*d as u64))
                .ok_or_else(|| HeaderError::Overflow(name.clone()))?;
            let (start, end) = entry.data_offsets;
            let actual = end.saturating_sub(start);
            if expected != actual || end < start {
                return Err(HeaderError::Size {
                    tensor: name,
                    shape: entry.shape,
                    dtype: dtype.as_str(),
                    expected,
                    actual,
                });
            }
            tensors.push(TensorInfo { name, dtype, shape: entry.shape, start, end });
        }
        tensors.sort_by_key(|t| (t.start, t.end));
        let data = len - data_start;
        let mut due = 0;
        for tensor in &mut tensors {
            if tensor.start != due {
                return Err(HeaderError::Gap { tensor: tensor.name.clone(), start: tensor.start, expected: due });
            }
            if tensor.end > data {
                return Err(HeaderError::Truncated { tensor: tensor.name.clone(), end: tensor.end, available: data });
            }
            due = tensor.end;
            tensor.start += data_start;
            tensor.end += data_start;
        }
        if due != data {
            return Err(HeaderError::Trailing(data - due));
        }
        Ok(Self { tensors, metadata })
    }

    /// The bytes of a header for tensors of the given names, dtypes and shapes, laid out in that order.
    #[must_use]
    pub fn encode(tensors: &[(String, Dtype, Vec<usize>)]) -> Vec<u8> {
        Self::encode_with(tensors, &BTreeMap::from([("format".to_owned(), "pt".to_owned())]))
    }

    /// As [`Self::encode`], with other metadata.
    #[must_use]
    pub fn encode_with(tensors: &[(String, Dtype, Vec<usize>)], metadata: &BTreeMap<String, String>) -> Vec<u8> {
        #[derive(Serialize)]
        struct Out<'a> {
            dtype: &'static str,
            shape: &'a [usize],
            data_offsets: (u64, u64),
        }
        let mut map = serde_json::Map::new();
        map.insert("__metadata__".into(), serde_json::json!(metadata));
        let mut at = 0;
        for (name, dtype, shape) in tensors {
            let size = shape.iter().product::<usize>() as u64 * dtype.size() as u64;
            let entry = Out { dtype: dtype.as_str(), shape, data_offsets: (at, at + size) };
            at += size;
            map.insert(name.clone(), serde_json::to_value(entry).unwrap_or_default());
        }
        let mut json = serde_json::Value::Object(map).to_string().into_bytes();
        json.resize(json.len().next_multiple_of(8), b' ');
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend(json);
        bytes
    }
}

/// What to do about a dtype.
fn mend(dtype: &str) -> &'static str {
    if ["F8", "F6", "F4"].iter().any(|small| dtype.starts_with(small)) {
        ": these are quantised weights; take those that they were made from, in BF16 or F32, or dequantise them first"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(json: &str, data: usize) -> Vec<u8> {
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend(json.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }
    fn parse(json: &str, data: usize) -> Result<Header, HeaderError> {
        let bytes = file(json, data);
        Header::parse(&bytes, bytes.len() as u64)
    }
    fn entry(name: &str, shape: &str, start: u64, end: u64) -> String {
        format!(r#""{name}":{{"dtype":"F32","shape":{shape},"data_offsets":[{start},{end}]}}"#)
    }

    #[test]
    fn round_trip() {
        let plan = vec![("a".to_string(), Dtype::F32, vec![2, 3]), ("b".to_string(), Dtype::BF16, vec![])];
        let mut bytes = Header::encode(&plan);
        bytes.resize(bytes.len() + 26, 0);
        let header = Header::parse(&bytes, bytes.len() as u64).unwrap();
        assert_eq!(header.tensors.len(), 2);
        assert_eq!(header.tensors[1].shape, Vec::<usize>::new());
    }

    #[test]
    fn lies_are_refused_by_name() {
        let ok = |e: &str| format!("{{{e}}}");
        assert!(parse(&ok(&entry("a", "[2]", 0, 8)), 8).is_ok());
        assert!(parse(&ok(&format!("\"__metadata__\":null,{}", entry("a", "[2]", 0, 8))), 8).is_ok());
        let cases: Vec<(Result<Header, HeaderError>, &str)> = vec![
            (Header::parse(&[1, 2], 2), "too short"),
            (Header::parse(&[255; 16], 16), "claims a header"),
            (Header::parse(b"version https://git-lfs.github.com/spec/v1", 42), "git-lfs"),
            (Header::parse(b"<!DOCTYPE html><html>", 21), "HTML"),
            (parse(&format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)), 0), "not valid"),
            (parse(&ok(&entry("a", "[2]", 0, 12)), 12), "its range holds 12"),
            (parse(&ok(&entry("a", "[2]", 8, 0)), 8), "its range holds 0"),
            (parse(&ok(&entry("a", "[18446744073709551615, 4]", 0, 8)), 8), "overflows"),
            (parse(&ok(&entry("a", "[8]", 0, 8).replace("F32", "F8_E4M3")), 8), "quantised weights; take those"),
            (parse(&ok(&format!("{},{}", entry("a", "[2]", 0, 8), entry("b", "[2]", 4, 12))), 12), "overlap"),
            (parse(&ok(&format!("{},{}", entry("a", "[2]", 0, 8), entry("b", "[2]", 12, 20))), 20), "hole"),
            (parse(&ok(&format!("{},{}", entry("a", "[2]", 0, 8), entry("a", "[2]", 8, 16))), 16), "twice"),
            (parse(&ok(&entry("a", "[2]", 0, 8)), 4), "truncated"),
            (parse(&ok(&entry("a", "[2]", 0, 8)), 9), "after its last tensor"),
            (parse(r#"{"a":{"dtype":"F3","shape":[],"data_offsets":[0,0]}}"#, 0), "dtype `F3`"),
        ];
        for (result, expected) in cases {
            let message = result.unwrap_err().to_string();
            assert!(message.contains(expected), "`{message}` should say `{expected}`");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>, len: u64) {
            let _ = Header::parse(&bytes, len);
        }
        #[test]
        fn never_panics_on_json(json in r#"\{("[ab]":\{"dtype":"(F32|U8|X)","shape":\[[0-9]{1,20}\],"data_offsets":\[[0-9]{1,3},[0-9]{1,3}\]\},?){0,3}\}"#, data in 0usize..64) {
            let bytes = file(&json, data);
            let _ = Header::parse(&bytes, bytes.len() as u64);
        }
    }
}
