//! One file, whole or absent.

use crate::WriteError;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A file that is being written beside its place, which it takes when it is whole. Dropped before, it leaves nothing.
#[derive(Debug)]
pub struct Partial {
    file: File,
    aside: PathBuf,
    path: PathBuf,
    placed: bool,
}

impl Partial {
    /// Begins the file that shall be at `path`, in a folder that is there. While another writes the same file, it waits.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn create(path: &Path) -> io::Result<Self> {
        let begun = |file, aside| Self { file, aside, path: path.to_owned(), placed: false };
        let aside = aside(path)?;
        loop {
            let file = open_own(&aside)?;
            match file.lock() {
                // Who held it has given it its name, or removed it: begin anew.
                Ok(()) if !is_at(&file.metadata()?, &aside) => {}
                Ok(()) => {
                    file.set_len(0)?;
                    return Ok(begun(file, aside));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    let (own, file) = unlocked(&aside)?;
                    return Ok(begun(file, own));
                }
            }
        }
    }

    /// The file, to be written to.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Makes it durable and puts it in its place, over what is there.
    ///
    /// # Errors
    /// If the disk refuses; the temporary file is removed.
    pub fn persist(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        std::fs::rename(&self.aside, &self.path)?;
        self.placed = true;
        sync_dir(folder(&self.path))
    }
}

impl Write for Partial {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.placed {
            let _ = std::fs::remove_file(&self.aside);
        }
    }
}

/// Writes a file whole or not at all, and makes the folders that lead to it.
///
/// # Errors
/// If the disk refuses; the temporary file is removed.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    let write = || -> io::Result<()> {
        std::fs::create_dir_all(folder(path))?;
        let mut partial = Partial::create(path)?;
        partial.write_all(bytes)?;
        partial.persist()
    };
    write().map_err(WriteError::at(path))
}

/// Makes a rename inside `dir` durable.
///
/// # Errors
/// If the disk refuses.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Opens a file under a name that is ours to write to, or makes it: never through a link, nor anything else that is no file.
///
/// # Errors
/// If something else has the name, or the disk refuses.
pub fn open_own(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // A pipe would keep us waiting.
    options.read(true).write(true).create(true).truncate(false).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(path).map_err(|error| in_the_way(path, error))?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(taken(path)) }
}

/// What is said where a name of ours is something else's.
pub(crate) fn taken(path: &Path) -> io::Error {
    let what = format!("`{}` is in the way, a name that rolegraft writes under; remove it", path.display());
    io::Error::new(io::ErrorKind::AlreadyExists, what)
}

pub(crate) fn in_the_way(path: &Path, error: io::Error) -> io::Error {
    let is_other = matches!(error.raw_os_error(), Some(libc::ELOOP | libc::EISDIR | libc::ENOTDIR));
    if is_other && path.symlink_metadata().is_ok() { taken(path) } else { error }
}

/// Where files cannot be locked, each writer takes a name of its own, and leaves none behind that it cannot hold.
fn unlocked(aside: &Path) -> io::Result<(PathBuf, File)> {
    static WRITERS: AtomicUsize = AtomicUsize::new(0);
    let mut own = aside.as_os_str().to_owned();
    own.push(format!("-{}-{}", std::process::id(), WRITERS.fetch_add(1, Ordering::Relaxed)));
    let own = PathBuf::from(own);
    let file = open_own(&own)?;
    file.set_len(0)?;
    let _ = std::fs::remove_file(aside);
    Ok((own, file))
}

/// The name under which what shall be at `path` is written.
pub(crate) fn aside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let mut aside = OsString::from(".");
    aside.push(name);
    aside.push(".partial");
    Ok(path.with_file_name(aside))
}

/// Whether what was opened is still what has the name.
pub(crate) fn is_at(opened: &std::fs::Metadata, path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|named| (named.dev(), named.ino()) == (opened.dev(), opened.ino()))
}

/// The folder that `path` is in.
pub fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            dir.read_dir().unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_a_killed_writer_left_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.json");
        std::fs::write(dir.path().join(".run.json.partial"), "longer than what is written").unwrap();
        write_atomic(&path, b"whole").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(names(dir.path()), ["run.json"]);
    }

    #[test]
    fn what_is_not_placed_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.jsonl");
        let mut partial = Partial::create(&path).unwrap();
        partial.write_all(b"half").unwrap();
        assert_eq!(names(dir.path()), [".log.jsonl.partial"]);
        drop(partial);
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn many_writers_of_one_file_leave_one_of_theirs_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shared");
        std::thread::scope(|scope| {
            for writer in 0..8_u8 {
                let path = &path;
                scope.spawn(move || (0..50).for_each(|_| write_atomic(path, &[writer; 4096]).unwrap()));
            }
        });
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes.len() == 4096 && bytes.iter().all(|b| *b == bytes[0]));
        assert_eq!(names(dir.path()), ["shared"]);
    }

    #[test]
    fn without_locks_writers_take_names_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let aside = dir.path().join(".x.partial");
        std::fs::write(&aside, "").unwrap();
        let [one, two] = [(); 2].map(|()| unlocked(&aside).unwrap().0);
        assert!(one != two && one.exists() && two.exists() && !aside.exists());
    }

    #[test]
    fn what_is_in_the_way_is_named_and_neither_followed_nor_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("card.md"), dir.path().join("other"));
        let aside = dir.path().join(".card.md.partial");
        let refused = || {
            let error = write_atomic(&path, b"new").unwrap_err();
            assert!(error.source.to_string().contains(".card.md.partial` is in the way"), "{}", error.source);
        };
        std::fs::write(&other, "kept").unwrap();
        std::os::unix::fs::symlink(&other, &aside).unwrap();
        refused();
        assert_eq!(std::fs::read(&other).unwrap(), b"kept");
        std::fs::remove_file(&aside).unwrap();
        std::fs::create_dir(&aside).unwrap();
        refused();
        std::fs::remove_dir(&aside).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&aside).status().unwrap().success());
        refused();
    }
}
