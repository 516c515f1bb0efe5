//! What processes of ours have left behind.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use tempfile::TempDir;

/// Whether a name of ours, `PREFIX`, process id, `-` and more, is of a process that has ended.
pub(crate) fn is_orphan(name: &str, prefix: &str) -> bool {
    let owner = name.strip_prefix(prefix).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
    owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

/// A temporary folder, which goes when it is dropped; if we are killed before, the next process that wants one of that prefix
/// removes it.
///
/// # Errors
/// If it cannot be made.
pub fn temporary_folder(prefix: &'static str) -> io::Result<TempDir> {
    static SWEPT: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);
    let mut swept = SWEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if swept.get_or_insert_default().insert(prefix) {
        for entry in std::env::temp_dir().read_dir().into_iter().flatten().flatten() {
            if is_orphan(&entry.file_name().to_string_lossy(), prefix) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }
    drop(swept);
    tempfile::Builder::new().prefix(&format!("{prefix}{}-", std::process::id())).tempdir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_killed_left_is_removed_once() {
        let left = std::env::temp_dir().join("rolegraft-orphan-test-4194305-x");
        std::fs::create_dir_all(left.join("inside")).unwrap();
        let folder = temporary_folder("rolegraft-orphan-test-").unwrap();
        assert!(!left.exists() && folder.path().is_dir());
        let name = folder.path().file_name().unwrap().to_string_lossy().into_owned();
        assert!(!is_orphan(&name, "rolegraft-orphan-test-"));
    }
}
