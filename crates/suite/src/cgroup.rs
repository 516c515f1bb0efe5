//! Control groups: how much memory and how many processes a box may have, held by the kernel.

use rolegraft_files::{is_orphan, owner};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Where control groups are mounted.
const MOUNT: &str = "/sys/fs/cgroup";
/// Processes and threads of a box.
const PROCESSES: &str = "512";
/// Memory of a box in bytes, what it writes to its disk included.
const MEMORY: &str = "1610612736";
/// How our groups' names begin; our process follows, then a number.
const PREFIX: &str = "rolegraft-";

/// A group for one box. Dropping it removes it, once the box has ended.
#[derive(Debug)]
pub(crate) struct Cgroup {
    folders: Vec<PathBuf>,
}

impl Cgroup {
    /// A group that limits processes and memory, if the machine lets us make one.
    pub(crate) fn new() -> Option<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        if number == 0 {
            sweep();
        }
        let name = format!("{PREFIX}{}-{number}", owner());
        let mut group = Self { folders: Vec::new() };
        let unified = Path::new(MOUNT).join("cgroup.controllers").is_file();
        for (controller, limits) in [
            ("pids", &[("pids.max", PROCESSES)][..]),
            ("memory", if unified { &[("memory.max", MEMORY)][..] } else { &[("memory.limit_in_bytes", MEMORY)][..] }),
        ] {
            let parent = if unified { Path::new(MOUNT).to_owned() } else { Path::new(MOUNT).join(controller) };
            if unified {
                let _ = fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"));
            }
            let folder = parent.join(&name);
            if !folder.is_dir() {
                fs::create_dir(&folder).ok()?;
                group.folders.push(folder.clone());
            }
            for (file, limit) in limits {
                fs::write(folder.join(file), limit).ok()?;
            }
        }
        Some(group)
    }

    /// The files that a process's number is written to, to put it in.
    pub(crate) fn doors(&self) -> impl Iterator<Item = PathBuf> {
        self.folders.iter().map(|folder| folder.join("cgroup.procs"))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for folder in &self.folders {
            // The kernel lets go of the last process a moment after it ended.
            for _ in 0..50 {
                match fs::remove_dir(folder) {
                    Err(e) if e.kind() == std::io::ErrorKind::ResourceBusy => {
                        std::thread::sleep(Duration::from_millis(4))
                    }
                    _ => break,
                }
            }
        }
    }
}

/// Removes groups of processes that have ended without doing so.
fn sweep() {
    for parent in ["", "pids", "memory"].map(|controller| Path::new(MOUNT).join(controller)) {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            if is_orphan(&entry.file_name().to_string_lossy(), PREFIX) {
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}
