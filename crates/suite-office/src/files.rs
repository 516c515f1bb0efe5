//! The episode's files: a fresh directory, reached through a handle.

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use rolegraft_files::{disk_refuses, no_room, temporary_folder};
use std::cell::RefCell;
use std::io;
use std::path::{Component, Path, PathBuf};

/// How names of temporary folders begin.
pub(crate) const TEMPORARY: &str = "rolegraft-office-";
/// Longest file read, in bytes.
const MAX_FILE: u64 = 32 << 20;

/// A task's `testbed/`. Removed when dropped.
pub(crate) struct Testbed {
    dir: Dir,
    /// How the model sees the directory: `./local_workdir/tasks/T/testbed`, or the empty text.
    shown: String,
    _root: Option<tempfile::TempDir>,
    /// The disk's own failure, if one was met: what a tool said then says nothing of the model.
    fault: RefCell<Option<String>>,
}

/// Folders that upstream's container makes beforehand.
const FOLDERS: [&str; 3] = ["data", "emails", "calendar"];

impl Testbed {
    pub(crate) fn new(shown: &str) -> io::Result<Self> {
        Self::empty(shown, true)
    }

    /// An empty folder, or one with the folders that upstream's container makes.
    pub(crate) fn empty(shown: &str, prepared: bool) -> io::Result<Self> {
        let root = temporary_folder(TEMPORARY)?;
        let dir = Dir::open_ambient_dir(root.path(), ambient_authority())?;
        for folder in FOLDERS.into_iter().filter(|_| prepared) {
            dir.create_dir(folder)?;
        }
        Ok(Self {
            dir,
            shown: shown.trim_start_matches("./").trim_end_matches('/').to_owned(),
            _root: Some(root),
            fault: RefCell::default(),
        })
    }

    /// A copy of a task's `testbed`, empty where version control dropped it.
    pub(crate) fn of_task(task: &Path, shown: &str, prepared: bool) -> io::Result<Self> {
        let (testbed, shown) = (task.join("testbed"), format!("{shown}/testbed"));
        if testbed.is_dir() { Self::copy_of(&testbed, &shown, prepared) } else { Self::empty(&shown, prepared) }
    }

    /// A copy of a folder; `prepared` makes the folders that version control dropped.
    pub(crate) fn copy_of(source: &Path, shown: &str, prepared: bool) -> io::Result<Self> {
        let root = temporary_folder(TEMPORARY)?;
        copy(source, root.path())?;
        let dir = Dir::open_ambient_dir(root.path(), ambient_authority())?;
        for folder in FOLDERS.into_iter().filter(|_| prepared) {
            dir.create_dir_all(folder)?;
        }
        Ok(Self {
            dir,
            shown: shown.trim_start_matches("./").trim_end_matches('/').to_owned(),
            _root: Some(root),
            fault: RefCell::default(),
        })
    }

    /// Where the folder lies on the host, for a sandbox to mount.
    pub(crate) fn host_path(&self) -> Option<&Path> {
        self._root.as_ref().map(tempfile::TempDir::path)
    }

    /// A folder as it lies there, for looking at only.
    pub(crate) fn at(folder: &Path) -> io::Result<Self> {
        let dir = Dir::open_ambient_dir(folder, ambient_authority())?;
        Ok(Self { dir, shown: String::new(), _root: None, fault: RefCell::default() })
    }

    /// A path as the model wrote it, relative to the testbed. What leads elsewhere is `None`: absent, to a tool.
    pub(crate) fn resolve(&self, path: &str) -> Option<PathBuf> {
        let mut clean = PathBuf::new();
        // Where the testbed lies at the root, so does the working directory.
        let root = if self.shown.starts_with('/') { path.trim_start_matches('/') } else { path };
        for part in Path::new(root).components() {
            match part {
                Component::Normal(name) => clean.push(name),
                Component::CurDir => {}
                Component::ParentDir if clean.pop() => {}
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
            }
        }
        let inside = clean.strip_prefix(self.shown.trim_start_matches('/')).ok()?;
        let inside = if inside.as_os_str().is_empty() { Path::new(".") } else { inside };
        (!path.is_empty() && !path.contains('\0')).then(|| inside.to_owned())
    }
    /// Whether a path as the model wrote it leads to something: the folders above the testbed are there too.
    pub(crate) fn holds(&self, path: &str) -> bool {
        let above = Path::new(&self.shown).ancestors().skip(1).any(|folder| {
            let plain: PathBuf = Path::new(path).components().filter(|c| *c != Component::CurDir).collect();
            !path.is_empty() && plain == folder
        });
        above
            || self
                .resolve(path)
                .is_some_and(|inside| self.exists(&inside) && !(path.ends_with('/') && self.is_file(&inside)))
    }

    pub(crate) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let meta = self.dir.metadata(path)?;
        if !meta.is_file() || meta.len() > MAX_FILE {
            return Err(io::Error::other("not a regular file of acceptable size"));
        }
        self.dir.read(path)
    }
    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.noticed(self.dir.write(path, bytes))
    }
    pub(crate) fn make_parent(&self, path: &Path) -> io::Result<()> {
        self.noticed(path.parent().map_or(Ok(()), |parent| self.dir.create_dir_all(parent)))
    }
    /// Remembers a failure of the disk, and passes on what there is.
    pub(crate) fn noticed<T>(&self, done: io::Result<T>) -> io::Result<T> {
        if let Some(error) = done.as_ref().err().filter(|error| is_the_disks(error)) {
            self.fault.replace(Some(no_room(error)));
        }
        done
    }
    /// The disk's failure, if one was met.
    pub(crate) fn fault(&self) -> Option<String> {
        self.fault.borrow().clone()
    }
    pub(crate) fn exists(&self, path: &Path) -> bool {
        self.dir.exists(path)
    }
    pub(crate) fn is_dir(&self, path: &Path) -> bool {
        self.dir.is_dir(path)
    }
    pub(crate) fn is_file(&self, path: &Path) -> bool {
        self.dir.is_file(path)
    }
    /// Paths that a shell's pattern fits, as the model would write them; `*` and `?` in the last part only.
    pub(crate) fn glob(&self, pattern: &str) -> Vec<String> {
        let (folder, last) = pattern.rsplit_once('/').unwrap_or(("", pattern));
        let Some(inside) = self.resolve(folder).filter(|_| !folder.contains(['*', '?', '['])) else {
            return Vec::new();
        };
        let last: Vec<char> = last.chars().collect();
        let names = self.list(&inside).into_iter().filter(|n| !n.starts_with('.') || last.first() == Some(&'.'));
        names.filter(|n| fits(&last, &n.chars().collect::<Vec<_>>())).map(|n| format!("{folder}/{n}")).collect()
    }
    /// Names in a folder, sorted.
    pub(crate) fn list(&self, path: &Path) -> Vec<String> {
        let names = self.dir.read_dir(path).into_iter().flatten().flatten();
        let mut names: Vec<String> = names.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

/// Whether the disk failed, and not what a model may have made of its files.
pub(crate) fn is_the_disks(error: &io::Error) -> bool {
    disk_refuses(error).is_some_and(|error| error.kind() != io::ErrorKind::PermissionDenied)
}

/// Whether a name fits a pattern of `*` and `?`.
fn fits(pattern: &[char], name: &[char]) -> bool {
    // The last star and where its text began: on a mismatch it takes one more character.
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((at, taken)) = star else { return false };
                star = Some((at, taken + 1));
                p = at + 1;
                n = taken + 1;
            }
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Copies a folder's files and folders; links are left out.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            std::fs::create_dir(&target)?;
            copy(&entry.path(), &target)?;
        } else if kind.is_file() {
            let bytes = std::fs::read(entry.path())?;
            std::fs::write(&target, bytes)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leads_out() {
        let bed = Testbed::new("").unwrap();
        assert_eq!(bed.resolve("./data/../data/a.xlsx"), Some("data/a.xlsx".into()));
        for path in ["../x", "/etc/passwd", "data/../../x", "", "a\0b"] {
            assert_eq!(bed.resolve(path), None, "{path}");
        }
        std::os::unix::fs::symlink("/etc", bed._root.as_ref().unwrap().path().join("data/out")).unwrap();
        assert!(bed.read(Path::new("data/out/passwd")).is_err());
        assert!(bed.write(Path::new("data/out/x"), b"").is_err());
        let shown = Testbed::new("./local_workdir/tasks/2-1/testbed").unwrap();
        assert_eq!(shown.resolve("./local_workdir/tasks/2-1/testbed/data/a"), Some("data/a".into()));
        assert_eq!(shown.resolve("data/a"), None);
        for path in [".", "./local_workdir/", "local_workdir/tasks/2-1/testbed/data/.."] {
            assert!(shown.holds(path) && shown.read(&shown.resolve(path).unwrap_or(".".into())).is_err(), "{path}");
        }
        assert!(!shown.holds("") && !shown.holds("local_workdir/tasks/2-2") && !shown.holds("/"));
    }
}
