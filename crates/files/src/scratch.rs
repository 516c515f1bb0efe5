//! A folder for what is made in passing.

use crate::partial::{aside, is_at};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// An empty folder beside the place of what is made in it, on the same disk. It goes when it is dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    /// Locked while the folder is in use.
    _held: File,
}

impl Scratch {
    /// The folder for what shall be at `place`, in a folder that is there. While another uses it, it waits.
    ///
    /// # Errors
    /// If the disk refuses, or has no locks.
    pub fn create(place: &Path) -> io::Result<Self> {
        let path = aside(place)?;
        loop {
            match std::fs::create_dir(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            let held = match File::open(&path) {
                // Who used it has just removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened?,
            };
            match held.lock() {
                Ok(()) if !is_at(&held.metadata()?, &path) => continue,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                locked => locked?,
            }
            for entry in path.read_dir()? {
                let entry = entry?;
                match entry.file_type()?.is_dir() {
                    true => std::fs::remove_dir_all(entry.path())?,
                    false => std::fs::remove_file(entry.path())?,
                }
            }
            return Ok(Self { path, _held: held });
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_empty_has_one_user_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let left = dir.path().join(".export.partial/0");
        std::fs::create_dir_all(&left).unwrap();
        std::fs::write(left.join("half"), "x").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let scratch = Scratch::create(&dir.path().join("export")).unwrap();
                        assert_eq!(scratch.path().read_dir().unwrap().count(), 0);
                        std::fs::write(scratch.path().join("mine"), "x").unwrap();
                    }
                });
            }
        });
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    }
}
