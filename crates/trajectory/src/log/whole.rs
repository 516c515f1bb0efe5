//! Logs that are written at once, whole or not at all.

use super::error::LogError;
use super::origin::{Origin, header};
use crate::Episode;
use rolegraft_files::Partial;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Writes episodes of closed logs, compressed where the name ends in `.zst`. What is not [finished](Self::finish) leaves nothing.
pub struct LogWriter {
    path: PathBuf,
    file: Compressed,
}

enum Compressed {
    Not(BufWriter<Partial>),
    Zstd(zstd::Encoder<'static, BufWriter<Partial>>),
}

impl Write for Compressed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Not(file) => file.write(bytes),
            Self::Zstd(file) => file.write(bytes),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Not(file) => file.flush(),
            Self::Zstd(file) => file.flush(),
        }
    }
}

impl LogWriter {
    /// Starts a log that is not there yet, in a folder that is made where it is missing.
    ///
    /// # Errors
    /// If it is there, or the disk refuses.
    pub fn create(path: &Path, origin: &Origin) -> Result<Self, LogError> {
        let at = |source| LogError::Io { path: path.to_owned(), source };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(at)?;
        }
        let partial = Partial::create(path).map_err(at)?;
        // Now that nobody else is writing it.
        if path.exists() {
            return Err(at(io::Error::new(io::ErrorKind::AlreadyExists, "it is there already; choose another name")));
        }
        let file = BufWriter::new(partial);
        let mut file = match path.extension().is_some_and(|end| end == "zst") {
            true => Compressed::Zstd(zstd::Encoder::new(file, 3).map_err(at)?),
            false => Compressed::Not(file),
        };
        let line = header(origin).map_err(at)?;
        file.write_all(&line).map_err(at)?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Adds an episode.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn add(&mut self, episode: &Episode) -> Result<(), LogError> {
        let at = |source| LogError::Io { path: self.path.clone(), source };
        serde_json::to_writer(&mut self.file, episode).map_err(|e| at(e.into()))?;
        self.file.write_all(b"\n").map_err(at)
    }

    /// Closes it and gives it its name.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn finish(self) -> Result<(), LogError> {
        let at = |source| LogError::Io { path: self.path.clone(), source };
        let buffered = match self.file {
            Compressed::Not(file) => file,
            Compressed::Zstd(file) => file.finish().map_err(at)?,
        };
        let file = buffered.into_inner().map_err(|e| at(e.into_error()))?;
        file.persist().map_err(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_who_write_a_log_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.jsonl");
        let write = || LogWriter::create(&path, &Origin::default())?.finish();
        let done = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..8).map(|_| scope.spawn(write)).collect();
            writers.into_iter().map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(done.iter().filter(|done| done.is_ok()).count(), 1, "{done:?}");
        assert_eq!(dir.path().read_dir().unwrap().count(), 1);
    }
}
