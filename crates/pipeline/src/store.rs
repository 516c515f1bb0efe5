//! The cache: outputs named by the digest of their inputs.

use rolegraft_checkpoint::{Digest, WriteError, open_own, write_atomic};
use serde::Serialize;
use std::fs::{File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Raised when a cached output's form changes.
const LAYOUT: u32 = 1;

/// Why the cache cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum StoreError {
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("cannot use `{}`", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("another run ({holder}) is using `{}`; wait for it, or choose another directory with --results", path.display())]
    Busy { path: PathBuf, holder: String },
    #[error("the file system of `{}` has no locks, which keep two runs apart; choose another directory with --results", path.display())]
    Unlocked { path: PathBuf, source: std::io::Error },
}

/// The results directory: `cache/KIND-DIGEST` and `runs/NAME`.
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// A store under `root`.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Where a run's results land.
    #[must_use]
    pub fn run(&self, name: &str) -> PathBuf {
        self.root.join("runs").join(name)
    }

    /// Where records and logs of servers lie.
    #[must_use]
    pub fn servers(&self) -> PathBuf {
        self.root.join("servers")
    }

    /// The place of an output of `kind` made from `inputs`.
    #[must_use]
    pub fn place<T: Serialize>(&self, kind: &str, inputs: &T) -> PathBuf {
        let json = serde_json::to_vec(&(LAYOUT, env!("CARGO_PKG_VERSION"), kind, inputs)).unwrap_or_default();
        self.root.join("cache").join(format!("{kind}-{}", Digest::of(&json).short()))
    }

    /// What the file at `path` says, or what `make` gives, kept there. A file that cannot be read is made anew.
    ///
    /// # Errors
    /// What `make` or the disk says.
    pub fn file<T, R, E: From<StoreError>>(
        &self,
        path: &Path,
        read: impl FnOnce(&Path) -> Result<T, R>,
        make: impl FnOnce() -> Result<T, E>,
        encode: impl FnOnce(&T) -> Vec<u8>,
    ) -> Result<T, E> {
        if let Ok(value) = read(path) {
            return Ok(value);
        }
        let value = make()?;
        write_atomic(path, &encode(&value)).map_err(StoreError::from)?;
        Ok(value)
    }

    /// Takes a run's directory for this process. The kernel frees it when the process ends, however it ends.
    ///
    /// # Errors
    /// If another process holds it; its pid and host are named.
    pub fn lock(&self, name: &str) -> Result<Lock, StoreError> {
        let path = self.run(name).join(".lock");
        let io = |source| StoreError::Io { path: path.clone(), source };
        std::fs::create_dir_all(self.run(name)).map_err(io)?;
        let mut file = open_own(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = std::fs::read_to_string(&path).unwrap_or_default();
                return Err(StoreError::Busy { path: self.run(name), holder });
            }
            Err(TryLockError::Error(source)) => return Err(StoreError::Unlocked { path: self.run(name), source }),
        }
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        file.set_len(0).map_err(io)?;
        file.write_all(format!("pid {} on {}", std::process::id(), host.trim()).as_bytes()).map_err(io)?;
        Ok(Lock { _file: file })
    }
}

/// Holds a run's directory until dropped.
pub struct Lock {
    _file: File,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_runs_cannot_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        let held = store.lock("x").unwrap();
        let error = store.lock("x").err().unwrap().to_string();
        assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
        drop(held);
        store.lock("x").unwrap();
    }

    #[test]
    fn one_byte_of_input_changes_the_place() {
        let store = Store::new(Path::new("r"));
        assert_eq!(store.place("log", &("a", 1)), store.place("log", &("a", 1)));
        assert_ne!(store.place("log", &("a", 1)), store.place("log", &("b", 1)));
        assert_ne!(store.place("log", &("a", 1)), store.place("trace", &("a", 1)));
    }
}
