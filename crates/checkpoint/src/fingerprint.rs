//! Fingerprints of weights: XXH3-128 over names, dtypes, shapes and the XXH3-64 of every block of 32,768 elements.
//!
//! They name the inputs of a merge in its model card. Blocks may be hashed in any order and while somebody else reads
//! them anyway, so that naming the inputs costs no second pass. Not a cryptographic digest.

use crate::{OpenError, Tensors};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use twox_hash::{XxHash3_64, XxHash3_128};

/// Elements that are hashed together.
pub const FINGERPRINT_BLOCK: usize = 1 << 15;

/// Hashes of a checkpoint's blocks, as far as they have been read.
pub struct Fingerprints {
    /// Per tensor: one slot a block; 0 until it was read.
    slots: BTreeMap<String, Vec<AtomicU64>>,
}

impl Fingerprints {
    /// Nothing read yet.
    #[must_use]
    pub fn new(tensors: &Tensors) -> Self {
        let slots = tensors
            .tensors()
            .map(|(name, tensor)| {
                let blocks = tensor.shape.iter().product::<usize>().div_ceil(FINGERPRINT_BLOCK);
                (name.to_owned(), (0..blocks).map(|_| AtomicU64::new(0)).collect())
            })
            .collect();
        Self { slots }
    }

    /// Notes the bytes of one whole block; `true` if it is seen for the first time.
    pub fn note(&self, tensor: &str, block: usize, bytes: &[u8]) -> bool {
        let Some(slot) = self.slots.get(tensor).and_then(|s| s.get(block)) else { return false };
        if slot.load(Ordering::Relaxed) != 0 {
            return false;
        }
        slot.swap(XxHash3_64::oneshot(bytes) | 1, Ordering::Relaxed) == 0
    }

    /// The fingerprint, 32 hexadecimal digits; reads what nobody has read.
    ///
    /// # Errors
    /// If a tensor cannot be read.
    pub fn finish(&self, tensors: &Tensors) -> Result<String, OpenError> {
        let mut hasher = XxHash3_128::new();
        let mut buffer = Vec::new();
        for (name, tensor) in tensors.tensors() {
            let head = format!("{name}\0{}\0{:?}\0", tensor.dtype.as_str(), tensor.shape);
            hasher.write(head.as_bytes());
            let size = tensor.dtype.size();
            let len = tensor.shape.iter().product::<usize>() * size;
            for (block, slot) in self.slots.get(name).into_iter().flatten().enumerate() {
                if slot.load(Ordering::Relaxed) == 0 {
                    let at = block * FINGERPRINT_BLOCK * size;
                    buffer.resize((FINGERPRINT_BLOCK * size).min(len - at), 0);
                    tensors.read(name, at as u64, &mut buffer)?;
                    self.note(name, block, &buffer);
                }
                hasher.write(&slot.load(Ordering::Relaxed).to_le_bytes());
            }
        }
        Ok(format!("{:032x}", hasher.finish_128()))
    }
}
