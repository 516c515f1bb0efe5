//! The episode's files: a fresh directory, reached through a handle.

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Longest file read, in bytes.
const MAX_FILE: u64 = 32 << 20;

/// A task's `testbed/`. Removed when dropped.
pub(crate) struct Testbed {
    dir: Dir,
    /// How the model sees the directory: `./local_workdir/tasks/T/testbed`, or the empty text.
    shown: String,
    _root: tempfile::TempDir,
}

impl Testbed {
    pub(crate) fn new(shown: &str) -> io::Result<Self> {
        let root = tempfile::tempdir()?;
        let dir = Dir::open_ambient_dir(root.path(), ambient_authority())?;
        for folder in ["data", "emails", "calendar"] {
            dir.create_dir(folder)?;
        }
        Ok(Self { dir, shown: shown.trim_matches(['.', '/']).to_owned(), _root: root })
    }

    /// A path as the model wrote it, relative to the testbed. What leads elsewhere is `None`: absent, to a tool.
    pub(crate) fn resolve(&self, path: &str) -> Option<PathBuf> {
        let mut clean = PathBuf::new();
        for part in Path::new(path).components() {
            match part {
                Component::Normal(name) => clean.push(name),
                Component::CurDir => {}
                Component::ParentDir if clean.pop() => {}
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
            }
        }
        let inside = clean.strip_prefix(&self.shown).ok()?.to_owned();
        (!inside.as_os_str().is_empty() && !path.contains('\0')).then_some(inside)
    }

    pub(crate) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let meta = self.dir.metadata(path)?;
        if !meta.is_file() || meta.len() > MAX_FILE {
            return Err(io::Error::other("not a regular file of acceptable size"));
        }
        self.dir.read(path)
    }
    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.dir.write(path, bytes)
    }
    pub(crate) fn make_parent(&self, path: &Path) -> io::Result<()> {
        path.parent().map_or(Ok(()), |parent| self.dir.create_dir_all(parent))
    }
    pub(crate) fn exists(&self, path: &Path) -> bool {
        self.dir.exists(path)
    }
    /// Names in a folder, sorted.
    pub(crate) fn list(&self, path: &Path) -> Vec<String> {
        let names = self.dir.read_dir(path).into_iter().flatten().flatten();
        let mut names: Vec<String> = names.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leads_out() {
        let bed = Testbed::new("").unwrap();
        assert_eq!(bed.resolve("./data/../data/a.xlsx"), Some("data/a.xlsx".into()));
        for path in ["../x", "/etc/passwd", "data/../../x", "", ".", "a\0b"] {
            assert_eq!(bed.resolve(path), None, "{path}");
        }
        std::os::unix::fs::symlink("/etc", bed._root.path().join("data/out")).unwrap();
        assert!(bed.read(Path::new("data/out/passwd")).is_err());
        assert!(bed.write(Path::new("data/out/x"), b"").is_err());
        let shown = Testbed::new("./local_workdir/tasks/2-1/testbed").unwrap();
        assert_eq!(shown.resolve("./local_workdir/tasks/2-1/testbed/data/a"), Some("data/a".into()));
        assert_eq!(shown.resolve("data/a"), None);
    }
}
