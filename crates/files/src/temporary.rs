//! What processes of ours have left behind among the machine's temporary folders.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::{LazyLock, Mutex, PoisonError};
use tempfile::TempDir;

/// Which processes a number means one of: those that see each other.
static NAMESPACE: LazyLock<String> = LazyLock::new(|| {
    let link = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    link.to_string_lossy().chars().filter(char::is_ascii_digit).collect()
});

/// This process, as what it leaves is to name it.
#[must_use]
pub fn owner() -> String {
    format!("{}.{}", *NAMESPACE, std::process::id())
}

/// Whether a name of ours, `PREFIX`, [`owner`], `-` and more, is of a process that has ended. Of processes that we do not see, those
/// of other containers, nobody knows.
#[must_use]
pub fn is_orphan(name: &str, prefix: &str) -> bool {
    let owner = name.strip_prefix(prefix).and_then(|rest| rest.split('-').next()?.split_once('.'));
    owner.is_some_and(|(namespace, pid)| {
        namespace == *NAMESPACE && pid.parse::<u32>().is_ok_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
    })
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
    tempfile::Builder::new().prefix(&format!("{prefix}{}-", owner())).tempdir()
}

/// What is said of temporary files that cannot be written.
#[must_use]
pub fn no_room(error: &io::Error) -> String {
    let place = std::env::temp_dir();
    format!(
        "temporary files in `{}` cannot be written: {error}; make room there, or name another place with TMPDIR",
        place.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_killed_left_is_removed_once() {
        let left = |namespace: &str| {
            let left = std::env::temp_dir().join(format!("rolegraft-orphan-test-{namespace}.4194305-x"));
            std::fs::create_dir_all(left.join("inside")).unwrap();
            left
        };
        let (ours, others) = (left(&NAMESPACE), left("1"));
        let folder = temporary_folder("rolegraft-orphan-test-").unwrap();
        assert!(!ours.exists() && folder.path().is_dir());
        let name = folder.path().file_name().unwrap().to_string_lossy().into_owned();
        assert!(!is_orphan(&name, "rolegraft-orphan-test-"));
        // Who lives in another container has another number there.
        assert!(others.exists());
        std::fs::remove_dir_all(others).unwrap();
    }
}
