//! Episode logs: append-only JSONL whose last line may be torn.
//!
//! The first line is a header with the format's version and the digest of everything the episodes depend on; each
//! further line is one [`Episode`]. Episodes that are appended together are written with one call and synced once; a kill
//! costs at most those in flight.

use crate::{Context, Episode, EpisodeKey};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// 2: turns say what the model was shown.
const VERSION: u32 = 2;
/// The first version whose turns say what the model was shown.
const WITH_CONTEXTS: u32 = 2;

#[derive(Serialize, Deserialize)]
struct Header {
    rolegraft_log: u32,
    digest: String,
    /// Absent where the replies come from no server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    served: Option<Served>,
}

/// How a log's replies came from a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// Who answers: what the server says of its model, and a fingerprint of what it says.
    pub identity: Value,
    /// How it was asked.
    pub road: Road,
    /// Whether a turn's text is what the model wrote; absent where that did not show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<bool>,
    /// Fields that were sent otherwise than OpenAI's API names them, as an experiment says it.
    pub fields: Value,
}

/// How a server is asked for a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Road {
    /// `/completions` with token ids.
    TokenIds,
    /// `/completions` with text.
    Text,
    /// SGLang's `/generate` with token ids.
    Generate,
    /// `/chat/completions`: the server renders, and may read the reply before it gives it.
    Chat,
}

impl Road {
    /// For people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TokenIds => "token ids through /completions",
            Self::Text => "text through /completions",
            Self::Generate => "token ids through /generate",
            Self::Chat => "messages through /chat/completions",
        }
    }
}

/// An episode of which only the key is asked for.
#[derive(Deserialize)]
struct Keyed {
    key: EpisodeKey,
}

/// Why a log cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum LogError {
    #[error("cannot use `{}`", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("`{}` line {line}: {reason}", path.display())]
    Line { path: PathBuf, line: usize, reason: String },
    #[error("`{}` was written by a newer version (format {found}, this program reads {VERSION})", path.display())]
    Newer { path: PathBuf, found: u32 },
    #[error("`{}` holds episodes of other inputs ({found} instead of {expected}); move it away or choose another run directory", path.display())]
    OtherInputs { path: PathBuf, found: String, expected: String },
}

/// An open log.
pub struct EpisodeLog {
    path: PathBuf,
    digest: String,
    file: File,
    done: HashSet<EpisodeKey>,
    torn: bool,
}

impl EpisodeLog {
    /// Opens `path` for appending, or starts it. A torn last line is cut off.
    ///
    /// # Errors
    /// If the log cannot be read or written, or belongs to other inputs.
    pub fn open(path: &Path, digest: &str) -> Result<Self, LogError> {
        let at = |source| LogError::Io { path: path.to_owned(), source };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(at)?;
        }
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(at)?;
        let mut found = Episodes::open(path)?;
        let done = keys(&mut found)?;
        let torn = found.whole < file.metadata().map_err(at)?.len();
        if torn {
            file.set_len(found.whole).map_err(at)?;
            file.seek(SeekFrom::End(0)).map_err(at)?;
        }
        if found.whole == 0 {
            let header = Header { rolegraft_log: VERSION, digest: digest.to_owned(), served: None };
            write(&mut file, &header).map_err(at)?;
        } else if found.digest != digest {
            let (path, found, expected) = (path.to_owned(), found.digest, digest.to_owned());
            return Err(LogError::OtherInputs { path, found, expected });
        }
        Ok(Self { path: path.to_owned(), digest: digest.to_owned(), file, done, torn })
    }

    /// Says how the replies come from a server, if there are none yet.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn set_served(&mut self, served: &Served) -> Result<(), LogError> {
        if self.done.is_empty() {
            let header = Header { rolegraft_log: VERSION, digest: self.digest.clone(), served: Some(served.clone()) };
            let written = self.file.set_len(0).and_then(|()| write(&mut self.file, &header));
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
        Ok((episodes.digest, all))
    }
}

fn write(file: &mut File, header: &Header) -> io::Result<()> {
    let mut line = serde_json::to_vec(header)?;
    line.push(b'\n');
    file.write_all(&line)?;
    file.sync_data()
}

fn keys(log: &mut Episodes) -> Result<HashSet<EpisodeKey>, LogError> {
    let mut keys = HashSet::new();
    while let Some(line) = log.next_line()? {
        let keyed: Keyed = serde_json::from_slice(&line).map_err(|e| log.bad(format!("not an episode: {e}")))?;
        keys.insert(keyed.key);
    }
    Ok(keys)
}

/// The episodes of a log, read one at a time. A torn last line is ignored; nothing comes after an error.
pub struct Episodes {
    path: PathBuf,
    reader: BufReader<File>,
    line: usize,
    version: u32,
    digest: String,
    served: Option<Served>,
    /// Bytes of the whole lines read so far.
    whole: u64,
    ended: bool,
}

impl Episodes {
    /// Opens a log and reads its header.
    ///
    /// # Errors
    /// If the log cannot be read, or its version is newer.
    pub fn open(path: &Path) -> Result<Self, LogError> {
        let file = File::open(path).map_err(|source| LogError::Io { path: path.to_owned(), source })?;
        let (path, reader, digest) = (path.to_owned(), BufReader::new(file), String::new());
        let mut log = Self { path, reader, line: 0, version: VERSION, digest, served: None, whole: 0, ended: false };
        if let Some(line) = log.next_line()? {
            let header: Header =
                serde_json::from_slice(&line).map_err(|e| log.bad(format!("not a log header: {e}")))?;
            if header.rolegraft_log > VERSION {
                return Err(LogError::Newer { path: log.path, found: header.rolegraft_log });
            }
            (log.digest, log.version, log.served) = (header.digest, header.rolegraft_log, header.served);
        }
        Ok(log)
    }

    /// How the replies came from a server; `None` where they come from none, or the log is older.
    #[must_use]
    pub fn served(&self) -> Option<&Served> {
        self.served.as_ref()
    }

    fn bad(&self, reason: String) -> LogError {
        LogError::Line { path: self.path.clone(), line: self.line, reason }
    }

    /// The next line that is not empty, without its end.
    fn next_line(&mut self) -> Result<Option<Vec<u8>>, LogError> {
        loop {
            let mut line = Vec::new();
            let read = self.reader.read_until(b'\n', &mut line);
            let read = read.map_err(|source| LogError::Io { path: self.path.clone(), source })?;
            if line.pop() != Some(b'\n') {
                return Ok(None);
            }
            self.line += 1;
            self.whole += read as u64;
            if !line.is_empty() {
                return Ok(Some(line));
            }
        }
    }

    fn next_episode(&mut self) -> Result<Option<Episode>, LogError> {
        let Some(line) = self.next_line()? else { return Ok(None) };
        let mut episode: Episode =
            serde_json::from_slice(&line).map_err(|e| self.bad(format!("not an episode: {e}")))?;
        if self.version < WITH_CONTEXTS {
            episode.turns.iter_mut().for_each(|turn| turn.shown = Context::Unknown);
        }
        Ok(Some(episode))
    }
}

impl Iterator for Episodes {
    type Item = Result<Episode, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.next_episode().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
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
    fn a_log_cut_anywhere_loses_only_the_last_episode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.jsonl");
        let mut log = EpisodeLog::open(&path, "d").unwrap();
        log.append(&[episode("a")]).unwrap();
        log.append(&["b", "c", "b"].map(episode)).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let ends: Vec<usize> = (0..bytes.len()).filter(|i| bytes[*i] == b'\n').map(|i| i + 1).collect();
        for cut in 0..=bytes.len() {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let whole = ends.iter().filter(|e| **e <= cut).count().saturating_sub(1);
            let mut log = EpisodeLog::open(&path, "d").unwrap();
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
        EpisodeLog::open(&path, "one").unwrap();
        assert!(matches!(EpisodeLog::open(&path, "two"), Err(LogError::OtherInputs { .. })));
        std::fs::write(&path, "{\"rolegraft_log\":9,\"digest\":\"\"}\n").unwrap();
        assert!(matches!(EpisodeLog::read(&path), Err(LogError::Newer { found: 9, .. })));
        std::fs::write(&path, "{\"rolegraft_log\":1,\"digest\":\"\"}\n{}\n{\"k").unwrap();
        assert!(matches!(EpisodeLog::read(&path), Err(LogError::Line { line: 2, .. })));
    }
}
