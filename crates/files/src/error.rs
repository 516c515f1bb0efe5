//! Why a file could not be written, and what mends it.

use std::io;
use std::path::{Path, PathBuf};

/// Why a file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write `{}`{}", path.display(), hint(source))]
pub struct WriteError {
    /// The file.
    pub path: PathBuf,
    /// The cause.
    pub source: io::Error,
}

impl WriteError {
    /// For `map_err`: names the file.
    pub fn at(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self { path: path.to_owned(), source }
    }
}

/// What a refusal of the disk means and what mends it, to be said behind the file's name; empty where that is not known.
#[must_use]
pub fn hint(error: &io::Error) -> String {
    const RESUME: &str = "free some space and run the same command to resume";
    match error.kind() {
        // Our own, which says how much is missing.
        io::ErrorKind::StorageFull if error.raw_os_error().is_none() => {
            format!(": the disk is full, {error}; {RESUME}")
        }
        io::ErrorKind::StorageFull => format!(": the disk is full; {RESUME}"),
        io::ErrorKind::QuotaExceeded => format!(": the quota is used up; {RESUME}"),
        io::ErrorKind::ReadOnlyFilesystem => ": the file system is read-only".to_owned(),
        io::ErrorKind::PermissionDenied => ": permission denied".to_owned(),
        _ => String::new(),
    }
}

/// The refusal of a file system to take more, or to work, that lies somewhere below an error.
#[must_use]
pub fn disk_refuses<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e io::Error> {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let refusal = |error: &&io::Error| {
        matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem | PermissionDenied)
            || error.raw_os_error() == Some(libc::EIO)
    };
    std::iter::successors(Some(error), |e| e.source()).find_map(|e| e.downcast_ref::<io::Error>().filter(refusal))
}
