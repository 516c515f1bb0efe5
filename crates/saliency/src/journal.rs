//! What was traced so far, kept from wave to wave.

use crate::Saliency;
use crate::plan::TraceError;
use rolegraft_checkpoint::{Dtype, Header, write_atomic};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A saliency that takes shape.
pub(crate) struct Sums {
    pub(crate) saliency: Saliency,
    /// By trajectory: one over its tokens, and its number among those that have any.
    pub(crate) weights: Vec<(f64, usize)>,
}

/// A file of sums, named with what they are of.
pub(crate) struct Journal {
    path: PathBuf,
    key: String,
}

/// Raised when sums come about in another order.
const FORM: &str = "rolegraft trace 1";

impl Journal {
    pub(crate) fn new(path: &Path, key: &str) -> Self {
        Self { path: path.to_owned(), key: format!("{FORM} {key}") }
    }

    /// Takes what was kept, and says how many runs it covers: none, if it is not of this trace or not whole.
    pub(crate) fn read(&self, sums: &mut [Sums]) -> usize {
        self.kept(sums).unwrap_or(0)
    }

    fn kept(&self, sums: &mut [Sums]) -> Option<usize> {
        let bytes = std::fs::read(&self.path).ok()?;
        let header = Header::parse(&bytes, bytes.len() as u64).ok()?;
        if header.metadata.get("of") != Some(&self.key) {
            return None;
        }
        let runs = header.metadata.get("runs")?.parse().ok()?;
        let values = |name: &str, dtype: Dtype, count: usize| {
            let found = header.tensors.iter().find(|t| t.name == name && t.dtype == dtype)?;
            let data = bytes.get(found.start as usize..found.end as usize)?;
            (data.len() == count * dtype.size()).then_some(data)
        };
        // Nothing is taken before everything is there.
        let mut taken = Vec::new();
        for (at, sums) in sums.iter().enumerate() {
            let count: usize = sums.saliency.sums.iter().map(Vec::len).sum();
            let whole = values(&format!("{at}.sums"), Dtype::F64, count)?;
            let tenths = values(&format!("{at}.tenths"), Dtype::F32, count * sums.saliency.tenths.len())?;
            taken.push((whole, tenths));
        }
        for (sums, (whole, tenths)) in sums.iter_mut().zip(taken) {
            let into = sums.saliency.sums.iter_mut().flatten().zip(whole.as_chunks::<8>().0);
            into.for_each(|(sum, bytes)| *sum = f64::from_le_bytes(*bytes));
            let parts = sums.saliency.tenths.iter_mut().flat_map(|tenth| tenth.sums.iter_mut().flatten());
            parts.zip(tenths.as_chunks::<4>().0).for_each(|(sum, bytes)| *sum = f32::from_le_bytes(*bytes));
        }
        Some(runs)
    }

    /// Keeps the sums of the first `runs` runs.
    pub(crate) fn write(&self, runs: usize, sums: &[Sums]) -> Result<(), TraceError> {
        let mut layout = Vec::new();
        for (at, sums) in sums.iter().enumerate() {
            let saliency = &sums.saliency;
            let count = saliency.sums.iter().map(Vec::len).sum();
            layout.push((format!("{at}.sums"), Dtype::F64, vec![count]));
            layout.push((format!("{at}.tenths"), Dtype::F32, vec![saliency.tenths.len(), count]));
        }
        let metadata = BTreeMap::from([("of".to_owned(), self.key.clone()), ("runs".to_owned(), runs.to_string())]);
        let mut bytes = Header::encode_with(&layout, &metadata);
        for sums in sums {
            bytes.extend(sums.saliency.sums.iter().flatten().flat_map(|x| x.to_le_bytes()));
            let tenths = sums.saliency.tenths.iter().flat_map(|tenth| tenth.sums.iter().flatten());
            bytes.extend(tenths.flat_map(|x| x.to_le_bytes()));
        }
        Ok(write_atomic(&self.path, &bytes)?)
    }
}
