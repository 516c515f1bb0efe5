//! What processes of ours have left behind.

use std::path::Path;

/// Whether a name of ours, `PREFIX`, process id, `-` and more, is of a process that has ended.
#[must_use]
pub fn is_orphan(name: &str, prefix: &str) -> bool {
    let owner = name.strip_prefix(prefix).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
    owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}
