//! Logs that grow: one writer each, whose every episode is durable.

use super::error::LogError;
use super::origin::{Origin, Served, header};
use super::read::{BEGINNING, Episodes};
use crate::{Episode, EpisodeKey};
use rolegraft_files::open_own;
use std::collections::HashSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// An open log.
pub struct EpisodeLog {
    path: PathBuf,
    origin: Origin,
    file: File,
    done: HashSet<EpisodeKey>,
    torn: bool,
    _lock: Lock,
}

/// Says beside a log who writes it; the log itself is locked.
struct Lock {
    note: Option<PathBuf>,
}

/// What a note begins with.
const WHO: &str = "process ";

impl Lock {
    fn take(file: &File, path: &Path) -> io::Result<Self> {
        let note = path.with_added_extension("lock");
        match file.try_lock() {
            Ok(()) => {
                // Only for people: what counts is the lock. A file of theirs stays.
                let written = write_note(&note).unwrap_or(false);
                Ok(Self { note: written.then_some(note) })
            }
            Err(TryLockError::WouldBlock) => {
                let who = std::fs::read_to_string(&note).unwrap_or_else(|_| "another process".into());
                let why = format!("{who} is writing it; wait until that ends, or choose another log");
                Err(io::Error::new(io::ErrorKind::ResourceBusy, why))
            }
            // Where files cannot be locked, it goes without.
            Err(TryLockError::Error(_)) => Ok(Self { note: None }),
        }
    }
}

/// Says who writes, where no file of another's is; whether it did.
fn write_note(path: &Path) -> io::Result<bool> {
    let mut file = open_own(path)?;
    let mut there = Vec::new();
    (&file).take(64).read_to_end(&mut there)?;
    if !there.is_empty() && !there.starts_with(WHO.as_bytes()) {
        return Ok(false);
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(format!("{WHO}{} on {}", std::process::id(), host.trim()).as_bytes())?;
    Ok(true)
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Some(note) = &self.note {
            let _ = std::fs::remove_file(note);
        }
    }
}

impl EpisodeLog {
    /// Opens `path` for appending, or starts it. A torn last line is cut off.
    ///
    /// # Errors
    /// If the log cannot be read or written, or belongs to other inputs.
    pub fn open(path: &Path, origin: Origin) -> Result<Self, LogError> {
        let at = |source| LogError::Io { path: path.to_owned(), source };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(at)?;
        }
        let refused = |why: &str| Err(at(io::Error::new(io::ErrorKind::InvalidInput, why)));
        if path.extension().is_some_and(|end| end == "zst") {
            return refused("a compressed log is closed; write it out again (`rolegraft log merge`) to go on with it");
        }
        if path.metadata().is_ok_and(|there| !there.is_file()) {
            return refused("it is no regular file, so that no episode would be safe there; name another log");
        }
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(at)?;
        let lock = Lock::take(&file, path).map_err(at)?;
        let mut start = Vec::new();
        (&file).take(BEGINNING.len() as u64).read_to_end(&mut start).map_err(at)?;
        if !BEGINNING.as_bytes().starts_with(&start) {
            return refused("it is no log, and nothing of it is overwritten; name another file");
        }
        let mut found = Episodes::opened(path, false)?;
        let done = keys(&mut found)?;
        let torn = found.whole < file.metadata().map_err(at)?.len();
        if torn {
            file.set_len(found.whole).map_err(at)?;
            file.seek(SeekFrom::End(0)).map_err(at)?;
        }
        if done.is_empty() {
            // Nothing is lost with the header of a log that holds no episode.
            file.set_len(0).map_err(at)?;
            write(&mut file, &origin).map_err(at)?;
        } else if found.origin.digest != origin.digest {
            let (path, found, expected) = (path.to_owned(), found.origin.digest, origin.digest);
            return Err(LogError::OtherInputs { path, found, expected });
        }
        Ok(Self { path: path.to_owned(), origin, file, done, torn, _lock: lock })
    }

    /// Says how the replies come from a server, if there are none yet.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn set_served(&mut self, served: &Served) -> Result<(), LogError> {
        if self.done.is_empty() {
            self.origin.served = Some(served.clone());
            let written = self.file.set_len(0).and_then(|()| write(&mut self.file, &self.origin));
            written.map_err(|source| LogError::Io { path: self.path.clone(), source })?;
        }
        Ok(())
    }

    /// Episodes already in the log.
    #[must_use]
    pub fn done(&self) -> &HashSet<EpisodeKey> {
        &self.done
    }
    /// Whether a torn last line was cut off at opening.
    #[must_use]
    pub fn was_torn(&self) -> bool {
        self.torn
    }

    /// Appends episodes, durably. Those that are already there are not written again.
    ///
    /// # Errors
    /// If the disk refuses; what was written of the lines is taken back.
    pub fn append(&mut self, episodes: &[Episode]) -> Result<(), LogError> {
        let at = |source| LogError::Io { path: self.path.clone(), source };
        let (mut lines, mut keys) = (Vec::new(), HashSet::new());
        for episode in episodes {
            if !self.done.contains(&episode.key) && keys.insert(episode.key.clone()) {
                serde_json::to_writer(&mut lines, episode).map_err(|e| at(e.into()))?;
                lines.push(b'\n');
            }
        }
        if keys.is_empty() {
            return Ok(());
        }
        let before = self.file.metadata().map_err(at)?.len();
        if let Err(error) = self.file.write_all(&lines).and_then(|()| self.file.sync_data()) {
            let _ = self.file.set_len(before);
            return Err(at(error));
        }
        self.done.extend(keys);
        Ok(())
    }

    /// The keys of a log's episodes.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn keys(path: &Path) -> Result<HashSet<EpisodeKey>, LogError> {
        keys(&mut Episodes::open(path)?)
    }

    /// Reads every episode of a log, with the digest in its header. A torn last line is ignored.
    ///
    /// # Errors
    /// If a line before the last cannot be read, or the version is newer.
    pub fn read(path: &Path) -> Result<(String, Vec<Episode>), LogError> {
        let mut episodes = Episodes::open(path)?;
        let all = episodes.by_ref().collect::<Result<_, _>>()?;
        Ok((episodes.origin.digest, all))
    }
}

fn write(file: &mut File, origin: &Origin) -> io::Result<()> {
    file.write_all(&header(origin)?)?;
    file.sync_data()
}

fn keys(log: &mut Episodes) -> Result<HashSet<EpisodeKey>, LogError> {
    let mut keys = HashSet::new();
    while let Some(key) = log.next_key()? {
        keys.insert(key);
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Status;

    fn episode(task: &str) -> Episode {
        Episode {
            key: EpisodeKey { suite: "os".into(), task: task.into(), trial: 0 },
            status: Status::Completed,
            reward: 1.0,
            messages: vec![crate::Message::user("a\u{2028}\nb")],
            turns: Vec::new(),
            detail: serde_json::Value::Null,
            spent: crate::Spent::default(),
            others_spent: crate::Spent::default(),
            seconds: 0.0,
        }
    }

    #[test]
    fn what_is_no_log_is_neither_opened_nor_waited_for_nor_made() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |path: &Path, why: &str| {
            let error = EpisodeLog::open(path, Origin::default()).err().unwrap();
            let LogError::Io { source, .. } = &error else { panic!("{error}") };
            assert!(source.to_string().contains(why), "{source}");
        };
        for notes in ["my only notes, one line without an end", "{\"a\": 1}", "two\nlines"] {
            let path = dir.path().join("notes.txt");
            std::fs::write(&path, notes).unwrap();
            refused(&path, "it is no log");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), notes);
        }
        let pipe = dir.path().join("pipe.jsonl");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        refused(&pipe, "no regular file");
        let packed = dir.path().join("new.jsonl.zst");
        refused(&packed, "a compressed log is closed");
        assert!(!packed.exists());
        // A header that a crash has cut is begun anew.
        let cut = dir.path().join("cut.jsonl");
        for whole in ["", "{\"rolegr", "{\"rolegraft_log\":4,\"origin"] {
            std::fs::write(&cut, whole).unwrap();
            assert!(EpisodeLog::open(&cut, Origin::default()).unwrap().done().is_empty());
        }
    }

    #[test]
    fn a_note_of_who_writes_is_put_over_no_file_of_anothers() {
        let dir = tempfile::tempdir().unwrap();
        let (path, note) = (dir.path().join("log.jsonl"), dir.path().join("log.jsonl.lock"));
        std::fs::write(&note, "process 1 on a machine that is gone").unwrap();
        drop(EpisodeLog::open(&path, Origin::default()).unwrap());
        assert!(!note.exists());
        std::fs::write(&note, "mine").unwrap();
        drop(EpisodeLog::open(&path, Origin::default()).unwrap());
        assert_eq!(std::fs::read_to_string(&note).unwrap(), "mine");
        let other = dir.path().join("other");
        std::fs::rename(&note, &other).unwrap();
        std::os::unix::fs::symlink(&other, &note).unwrap();
        drop(EpisodeLog::open(&path, Origin::default()).unwrap());
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "mine");
    }

    #[test]
    fn a_log_cut_anywhere_loses_only_the_last_episode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.jsonl");
        let mut log = EpisodeLog::open(&path, Origin::of("d")).unwrap();
        log.append(&[episode("a")]).unwrap();
        log.append(&["b", "c", "b"].map(episode)).unwrap();
        // It has one writer.
        assert!(EpisodeLog::open(&path, Origin::of("d")).is_err());
        drop(log);
        let bytes = std::fs::read(&path).unwrap();
        let ends: Vec<usize> = (0..bytes.len()).filter(|i| bytes[*i] == b'\n').map(|i| i + 1).collect();
        for cut in 0..=bytes.len() {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let whole = ends.iter().filter(|e| **e <= cut).count().saturating_sub(1);
            let mut log = EpisodeLog::open(&path, Origin::of("d")).unwrap();
            assert_eq!(log.done().len(), whole, "cut at {cut}");
            log.append(&[episode("z")]).unwrap();
            log.append(&[episode("z")]).unwrap();
            assert_eq!(EpisodeLog::read(&path).unwrap().1.len(), whole + 1);
        }
    }

    #[test]
    fn other_inputs_newer_formats_and_bad_lines_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.jsonl");
        EpisodeLog::open(&path, Origin::of("none")).unwrap();
        // A log without episodes is anybody's.
        EpisodeLog::open(&path, Origin::of("one")).unwrap().append(&[episode("a")]).unwrap();
        assert!(matches!(EpisodeLog::open(&path, Origin::of("two")), Err(LogError::OtherInputs { .. })));
        std::fs::write(&path, "{\"rolegraft_log\":9,\"digest\":\"\"}\n").unwrap();
        assert!(matches!(EpisodeLog::read(&path), Err(LogError::Newer { found: 9, .. })));
        std::fs::write(&path, "{\"rolegraft_log\":1,\"digest\":\"\"}\n{}\n{\"k").unwrap();
        assert!(matches!(EpisodeLog::read(&path), Err(LogError::Line { line: 2, .. })));
    }
}
