//! Files of `torch.save` (`pytorch_model.bin`): a zip archive that stores each tensor's numbers as they are, and a pickle that says where
//! which lie (pytorch/pytorch@v2.13.0:torch/serialization.py). Only their places are read; see [`crate::pickle`].

use crate::open_error::OpenError;
use crate::pickle::{Stored, read_state_dict};
use crate::safetensors::{Header, TensorInfo};
use std::collections::{BTreeMap, HashSet};
use std::io::{Cursor, Read};
use std::path::Path;
use zip::{CompressionMethod, ZipArchive};

/// The most that a pickle may take: those of large models are some megabytes.
const PICKLE: u64 = 256 << 20;

/// Whether a file is one by its name.
pub(crate) fn is_torch(path: &Path) -> bool {
    path.extension().is_some_and(|end| ["bin", "pt", "pth"].iter().any(|known| end == *known))
}

/// Where a file's tensors lie in it.
pub(crate) fn read_places(path: &Path, bytes: &[u8]) -> Result<Header, OpenError> {
    let bad = |reason: String| OpenError::Torch { path: path.to_owned(), reason };
    if !bytes.starts_with(b"PK\x03\x04") {
        let old = "is no zip archive of `torch.save`; if torch wrote it before 1.6, load it there and save it anew";
        return Err(bad(if bytes.starts_with(b"version https://git-lfs") {
            "is a pointer of Git LFS, not the weights; run `git lfs pull`".into()
        } else {
            old.into()
        }));
    }
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|e| bad(format!("is a broken zip archive: {e}")))?;
    let mut pickle = None;
    let mut storages: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for at in 0..archive.len() {
        let mut entry = archive.by_index(at).map_err(|e| bad(format!("is a broken zip archive: {e}")))?;
        let name = entry.name().to_owned();
        let Some((_, within)) = name.split_once('/') else { continue };
        if within == "data.pkl" {
            let mut text = Vec::new();
            let read = entry.by_ref().take(PICKLE).read_to_end(&mut text);
            read.map_err(|e| bad(format!("has a broken data.pkl: {e}")))?;
            pickle = Some(text);
        } else if within == "byteorder" {
            let mut order = String::new();
            let _ = entry.by_ref().take(16).read_to_string(&mut order);
            if order != "little" {
                return Err(bad(format!("holds numbers in {order}-endian order; save it anew on a usual machine")));
            }
        } else if let Some(key) = within.strip_prefix("data/") {
            if entry.compression() != CompressionMethod::Stored || entry.encrypted() {
                return Err(bad(format!("has `{name}` compressed or encrypted; torch stores tensors as they are")));
            }
            let start = entry.data_start().ok_or_else(|| bad(format!("does not say where `{name}` begins")))?;
            let end = start.checked_add(entry.size()).filter(|end| *end <= bytes.len() as u64);
            let end = end.ok_or_else(|| bad(format!("is cut short: `{name}` leaves it")))?;
            storages.insert(key.to_owned(), (start, end));
        }
    }
    let pickle = pickle.ok_or_else(|| bad("has no data.pkl; `torch.save` writes one".into()))?;
    let (mut tensors, mut seen) = (Vec::new(), HashSet::new());
    for (name, stored) in read_state_dict(&pickle).map_err(|reason| bad(format!("is not read: its pickle {reason}")))? {
        let storage = storages.get(&stored.key);
        let (start, end) = place(&stored, storage).map_err(|why| bad(format!("holds tensor `{name}` {why}")))?;
        if !seen.insert(name.clone()) {
            return Err(bad(format!("holds tensor `{name}` twice")));
        }
        tensors.push(TensorInfo { name, dtype: stored.dtype, shape: stored.shape, start, end });
    }
    Ok(Header { tensors, metadata: BTreeMap::new() })
}

/// A tensor's first byte and the one past its last.
fn place(stored: &Stored, storage: Option<&(u64, u64)>) -> Result<(u64, u64), String> {
    let (first, last) = storage.ok_or_else(|| format!("over storage `{}`, which is not there", stored.key))?;
    let overflow = || "with sizes beyond all storages".to_owned();
    let elements = stored.shape.iter().try_fold(1_usize, |n, size| n.checked_mul(*size)).ok_or_else(overflow)?;
    let mut expected = 1;
    for (size, stride) in stored.shape.iter().zip(&stored.strides).rev() {
        if elements > 0 && *size > 1 && *stride != expected {
            return Err("as a view with gaps or turned axes; save it with `.contiguous()`, or as safetensors".into());
        }
        expected *= (*size).max(1);
    }
    let size = stored.dtype.size();
    let bytes = |count: usize| count.checked_mul(size).map(|bytes| bytes as u64);
    let start = bytes(stored.offset).and_then(|skip| first.checked_add(skip)).ok_or_else(overflow)?;
    let end = bytes(elements).and_then(|length| start.checked_add(length)).ok_or_else(overflow)?;
    if end > *last { Err(format!("of {elements} elements, which end beyond its storage")) } else { Ok((start, end)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dtype;
    use std::io::Write;
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    /// `{"w": four numbers of BF16}` as torch writes it.
    const PICKLE: &[u8] = b"\x80\x02}q\x00(X\x01\x00\x00\x00wq\x01ctorch._utils\n_rebuild_tensor_v2\nq\x02((X\x07\x00\x00\x00storageq\x03\
        ctorch\nBFloat16Storage\nq\x04X\x01\x00\x00\x000q\x05X\x03\x00\x00\x00cpuq\x06K\x04tq\x07QK\x00K\x02K\x02\x86q\x08K\x02K\x01\x86q\x09\x89\
        ccollections\nOrderedDict\nq\x0a)Rq\x0btq\x0cRq\x0du.";

    fn archive(method: CompressionMethod, order: &[u8], pickle: &[u8]) -> Vec<u8> {
        let mut out = ZipWriter::new(Cursor::new(Vec::new()));
        let files: [(&str, &[u8], CompressionMethod); 3] = [
            ("model/data.pkl", pickle, CompressionMethod::Deflated),
            ("model/byteorder", order, CompressionMethod::Stored),
            ("model/data/0", &[0, 0x3f, 0x80, 0x3f, 0, 0x40, 0x40, 0x40], method),
        ];
        for (name, bytes, method) in files {
            out.start_file(name, SimpleFileOptions::default().compression_method(method)).unwrap();
            out.write_all(bytes).unwrap();
        }
        out.finish().unwrap().into_inner()
    }

    #[test]
    fn tensors_lie_where_the_archive_says() {
        let path = Path::new("pytorch_model.bin");
        let good = archive(CompressionMethod::Stored, b"little", PICKLE);
        let header = read_places(path, &good).unwrap();
        let [tensor] = header.tensors.as_slice() else { panic!("{header:?}") };
        assert_eq!((tensor.name.as_str(), tensor.dtype, tensor.shape.as_slice()), ("w", Dtype::BF16, &[2, 2][..]));
        let values = Dtype::BF16.to_f32(&good[tensor.start as usize..tensor.end as usize]).unwrap();
        assert_eq!(values, [0.5, 1.0, 2.0, 3.0]);
        let refused = |bytes: &[u8]| read_places(path, bytes).unwrap_err().to_string();
        assert!(refused(&archive(CompressionMethod::Deflated, b"little", PICKLE)).contains("compressed"));
        assert!(refused(&archive(CompressionMethod::Stored, b"big", PICKLE)).contains("big-endian"));
        let elsewhere = PICKLE.iter().map(|byte| if *byte == b'0' { b'9' } else { *byte }).collect::<Vec<u8>>();
        assert!(refused(&archive(CompressionMethod::Stored, b"little", &elsewhere)).contains("storage `9`"));
        assert!(refused(b"\x80\x02}q\x00.").contains("before 1.6"));
        assert!(refused(b"version https://git-lfs.github.com/spec/v1\n").contains("git lfs pull"));
        for end in 0..good.len() {
            let _ = refused(&good[..end]);
        }
    }

    #[test]
    fn views_with_gaps_and_storages_too_short_are_refused() {
        let stored = |offset, shape: &[usize], strides: &[usize]| Stored {
            key: "0".into(),
            dtype: Dtype::F32,
            offset,
            shape: shape.to_vec(),
            strides: strides.to_vec(),
        };
        let at = |stored: &Stored| place(stored, Some(&(64, 64 + 24)));
        assert_eq!(at(&stored(2, &[2, 2], &[2, 1])), Ok((72, 88)));
        // A stride along an axis of one is never used.
        assert_eq!(at(&stored(0, &[1, 3], &[7, 1])), Ok((64, 76)));
        assert_eq!(at(&stored(6, &[0], &[1])), Ok((88, 88)));
        assert!(at(&stored(0, &[2, 3], &[1, 2])).unwrap_err().contains("view"));
        assert!(at(&stored(0, &[2], &[0])).unwrap_err().contains("view"));
        assert!(at(&stored(3, &[2, 2], &[2, 1])).unwrap_err().contains("beyond its storage"));
        assert!(at(&stored(0, &[usize::MAX, 2], &[2, 1])).unwrap_err().contains("beyond all"));
        assert!(at(&stored(usize::MAX, &[1], &[1])).unwrap_err().contains("beyond all"));
    }
}
