//! Digests of what files hold.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::Path;

/// A SHA-256 digest; shown in hexadecimal.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Digest(String);

impl Digest {
    /// Of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::finish(Sha256::new_with_prefix(bytes))
    }
    /// Of named parts, each counted with its length, so that no two lists of parts agree by accident.
    #[must_use]
    pub fn of_parts<'a>(parts: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut hasher = Sha256::new();
        for (name, bytes) in parts {
            for piece in [name.as_bytes(), bytes] {
                hasher.update((piece.len() as u64).to_le_bytes());
                hasher.update(piece);
            }
        }
        Self::finish(hasher)
    }
    /// Of a file's bytes.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        let mut digest = Digesting::default();
        io::copy(&mut BufReader::with_capacity(1 << 20, File::open(path)?), &mut digest)?;
        Ok(digest.finish())
    }
    fn finish(hasher: Sha256) -> Self {
        Self(hasher.finalize().iter().map(|b| format!("{b:02x}")).collect())
    }
    /// All 64 hexadecimal digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// The first twelve digits: enough for a directory's name.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..12.min(self.0.len())]
    }
}

/// A digest of bytes that are written one after another.
#[derive(Default)]
pub struct Digesting(Sha256);

impl Digesting {
    /// Of what was written.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest::finish(self.0)
    }
}

impl Write for Digesting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
