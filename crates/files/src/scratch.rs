//! A folder for what is made in passing.

use crate::partial::{aside, folder, in_the_way, is_at, sync_dir};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// An empty folder beside the place of what is made in it, on the same disk. It goes when it is dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    place: PathBuf,
    /// Locked while the folder is in use.
    held: File,
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
            let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_DIRECTORY).open(&path);
            let held = match opened.map_err(|error| in_the_way(&path, error)) {
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
            return Ok(Self { path, place: place.to_owned(), held });
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes what is in it durable and gives it its place, where nothing is yet or an empty folder.
    ///
    /// # Errors
    /// If the disk refuses, or something is there; the folder is removed.
    pub fn persist(self) -> io::Result<()> {
        for entry in self.path.read_dir()? {
            File::open(entry?.path())?.sync_all()?;
        }
        self.held.sync_all()?;
        std::fs::rename(&self.path, &self.place)?;
        sync_dir(folder(&self.place))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Once it has its place, the name may be another's.
        if self.held.metadata().is_ok_and(|held| is_at(&held, &self.path)) {
            let _ = std::fs::remove_dir_all(&self.path);
        }
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

    #[test]
    fn one_of_many_makers_takes_the_place_with_all_of_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("adapter");
        let made = |maker: u8| -> io::Result<()> {
            let scratch = Scratch::create(&place)?;
            for name in ["weights", "config"] {
                std::fs::write(scratch.path().join(name), [maker])?;
            }
            scratch.persist()
        };
        let won: Vec<bool> = std::thread::scope(|scope| {
            let makers: Vec<_> = (0..8).map(|maker| scope.spawn(move || made(maker).is_ok())).collect();
            makers.into_iter().map(|maker| maker.join().unwrap()).collect()
        });
        let [weights, config] = ["weights", "config"].map(|name| std::fs::read(place.join(name)).unwrap());
        assert_eq!(weights, config);
        assert_eq!(won.iter().filter(|won| **won).count(), 1);
        assert!(won[usize::from(weights[0])]);
        assert_eq!(dir.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn a_link_in_the_way_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("elsewhere", dir.path().join(".export.partial")).unwrap();
        let error = Scratch::create(&dir.path().join("export")).unwrap_err().to_string();
        assert!(error.contains(".export.partial` is in the way"), "{error}");
    }
}
