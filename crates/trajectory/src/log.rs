//! Episode logs: append-only JSONL whose last line may be torn.
//!
//! The first line is a header with the format's version and the digest of everything the episodes depend on; each
//! further line is one [`Episode`]. Episodes that are appended together are written with one call and synced once; a kill
//! costs at most those in flight.

use crate::{Context, Episode, EpisodeKey};
use rayon::prelude::*;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// 2: turns say what the model was shown.
const VERSION: u32 = 2;
/// The first version whose turns say what the model was shown.
const WITH_CONTEXTS: u32 = 2;

#[derive(Serialize, Deserialize)]
struct Header {
    rolegraft_log: u32,
    #[serde(flatten)]
    origin: Origin,
}

/// Where a log's episodes come from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Origin {
    /// Digest of everything that the episodes depend on: tasks, model, seed and rules.
    pub digest: String,
    /// Digests of the rules alone, by suite: prompts, limits, formats and scorers. Absent from logs that are older.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rules: BTreeMap<String, String>,
    /// Absent where the replies come from no server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served: Option<Served>,
}

impl Origin {
    /// Of which only the digest is known.
    #[must_use]
    pub fn of(digest: impl Into<String>) -> Self {
        Self { digest: digest.into(), ..Self::default() }
    }
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

/// What mends a refusal of the disk, where one knows.
fn mend(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => ": the disk is full; free some space and run the same command to go on",
        io::ErrorKind::QuotaExceeded => ": the quota is used up; free some space and run the same command to go on",
        _ => "",
    }
}

/// Why a log cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum LogError {
    #[error("cannot use `{}`{}", path.display(), mend(source))]
    Io { path: PathBuf, source: io::Error },
    #[error("`{}` line {line}: {reason}", path.display())]
    Line { path: PathBuf, line: usize, reason: String },
    #[error(
        "`{}` line {line}: task `{}` of {}, trial {}, is counted already{}; give each log once, or let the later one count (--last)",
        path.display(), key.task, key.suite, key.trial,
        first.as_ref().map_or(String::new(), |first| format!(", by `{}`", first.display()))
    )]
    Twice { path: PathBuf, line: usize, key: EpisodeKey, first: Option<PathBuf> },
    #[error("`{}` was written by a newer version (format {found}, this program reads {VERSION})", path.display())]
    Newer { path: PathBuf, found: u32 },
    #[error("`{}` holds episodes of other inputs ({found} instead of {expected}); move it away or choose another run directory", path.display())]
    OtherInputs { path: PathBuf, found: String, expected: String },
}

impl LogError {
    /// That the episode of a line is counted already, perhaps by another log.
    #[must_use]
    pub fn twice(path: &Path, line: usize, key: &EpisodeKey, first: Option<&Path>) -> Self {
        let first = first.filter(|first| *first != path).map(Path::to_owned);
        Self::Twice { path: path.to_owned(), line, key: key.clone(), first }
    }
}

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
    note: PathBuf,
}

impl Lock {
    fn take(file: &File, path: &Path) -> io::Result<Self> {
        let note = path.with_added_extension("lock");
        match file.try_lock() {
            Ok(()) => {
                let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
                // Only for people: what counts is the lock.
                let _ = std::fs::write(&note, format!("process {} on {}", std::process::id(), host.trim()));
                Ok(Self { note })
            }
            Err(TryLockError::WouldBlock) => {
                let who = std::fs::read_to_string(&note).unwrap_or_else(|_| "another process".into());
                let why = format!("{who} is writing it; wait until that ends, or choose another log");
                Err(io::Error::new(io::ErrorKind::ResourceBusy, why))
            }
            // Where files cannot be locked, it goes without.
            Err(TryLockError::Error(_)) => Ok(Self { note }),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.note);
    }
}

/// Writes episodes of closed logs, compressed where the name ends in `.zst`.
pub struct LogWriter {
    path: PathBuf,
    aside: PathBuf,
    file: Option<Compressed>,
}

enum Compressed {
    Not(io::BufWriter<File>),
    Zstd(zstd::Encoder<'static, io::BufWriter<File>>),
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
    /// Starts a log that is not there yet. It gets its name when it is [finished](Self::finish).
    ///
    /// # Errors
    /// If it is there, or the disk refuses.
    pub fn create(path: &Path, origin: &Origin) -> Result<Self, LogError> {
        let at = |source| LogError::Io { path: path.to_owned(), source };
        if path.exists() {
            return Err(at(io::Error::new(io::ErrorKind::AlreadyExists, "it is there already; choose another name")));
        }
        let aside = path.with_added_extension("new");
        let file = io::BufWriter::new(File::create(&aside).map_err(at)?);
        let mut file = match path.extension().is_some_and(|end| end == "zst") {
            true => Compressed::Zstd(zstd::Encoder::new(file, 3).map_err(at)?),
            false => Compressed::Not(file),
        };
        let line = header(origin).map_err(at)?;
        file.write_all(&line).map_err(at)?;
        Ok(Self { path: path.to_owned(), aside, file: Some(file) })
    }

    /// Adds an episode.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn add(&mut self, episode: &Episode) -> Result<(), LogError> {
        let at = |source| LogError::Io { path: self.path.clone(), source };
        let Some(file) = &mut self.file else { return Ok(()) };
        serde_json::to_writer(&mut *file, episode).map_err(|e| at(e.into()))?;
        file.write_all(b"\n").map_err(at)
    }

    /// Closes it and gives it its name.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn finish(mut self) -> Result<(), LogError> {
        let at = |source| LogError::Io { path: self.path.clone(), source };
        let buffered = match self.file.take() {
            Some(Compressed::Not(file)) => file,
            Some(Compressed::Zstd(file)) => file.finish().map_err(at)?,
            None => return Ok(()),
        };
        buffered.into_inner().map_err(|e| at(e.into_error()))?.sync_all().map_err(at)?;
        std::fs::rename(&self.aside, &self.path).map_err(at)
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        // What is not finished leaves nothing.
        if self.file.is_some() {
            let _ = std::fs::remove_file(&self.aside);
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
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(at)?;
        let lock = Lock::take(&file, path).map_err(at)?;
        if path.extension().is_some_and(|end| end == "zst") {
            let why = "a compressed log is closed; write it out again (`rolegraft log merge`) to go on with it";
            return Err(at(io::Error::new(io::ErrorKind::InvalidInput, why)));
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

/// A log's first line.
fn header(origin: &Origin) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(&Header { rolegraft_log: VERSION, origin: origin.clone() })?;
    line.push(b'\n');
    Ok(line)
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

/// Bytes of lines that are read at once.
const BATCH: usize = 1 << 20;

/// What a file of zstd begins with.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Whether a file begins as a log does, packed or not.
#[must_use]
pub fn begins_log(bytes: &[u8]) -> bool {
    bytes.starts_with(&ZSTD) || bytes.starts_with(b"{\"rolegraft_log\"")
}

/// A log's file name without `.jsonl` or `.jsonl.zst`.
#[must_use]
pub fn log_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.trim_end_matches(".zst").trim_end_matches(".jsonl").to_owned()
}

/// A log's text, compressed or not.
fn reader(path: &Path) -> io::Result<Box<dyn BufRead + Send>> {
    let mut file = BufReader::with_capacity(1 << 18, File::open(path)?);
    Ok(match file.fill_buf()?.starts_with(&ZSTD) {
        true => Box::new(BufReader::with_capacity(1 << 18, zstd::Decoder::with_buffer(file)?)),
        false => Box::new(file),
    })
}

/// The episodes of a log, read one at a time, compressed by zstd (`.jsonl.zst`) or not. A torn last line is ignored; nothing comes after an
/// error.
pub struct Episodes {
    path: PathBuf,
    reader: Box<dyn BufRead + Send>,
    line: usize,
    version: u32,
    origin: Origin,
    /// Bytes of the whole lines read so far.
    whole: u64,
    ended: bool,
    /// Whether the file itself ended too early.
    cut: bool,
    /// Whether a last line without an end counts if it is whole: to a reader, not to who would write behind it.
    takes_last: bool,
    /// Whether a last line was left out that is not whole.
    torn: bool,
}

impl Episodes {
    /// Opens a log and reads its header.
    ///
    /// # Errors
    /// If the log cannot be read, or its version is newer.
    pub fn open(path: &Path) -> Result<Self, LogError> {
        Self::opened(path, true)
    }

    fn opened(path: &Path, takes_last: bool) -> Result<Self, LogError> {
        let reader = reader(path).map_err(|source| LogError::Io { path: path.to_owned(), source })?;
        let mut log = Self {
            path: path.to_owned(),
            reader,
            line: 0,
            version: VERSION,
            origin: Origin::default(),
            whole: 0,
            ended: false,
            cut: false,
            takes_last,
            torn: false,
        };
        if let Some(line) = log.next_line()? {
            let header: Header =
                serde_json::from_slice(&line).map_err(|e| log.bad(format!("not a log header: {e}")))?;
            if header.rolegraft_log > VERSION {
                return Err(LogError::Newer { path: log.path, found: header.rolegraft_log });
            }
            (log.origin, log.version) = (header.origin, header.rolegraft_log);
        }
        Ok(log)
    }

    /// What the log says of where its episodes come from.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The format's version that the log is in.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Whether what was read ends in a line that is cut, and does not count.
    #[must_use]
    pub fn is_torn(&self) -> bool {
        self.torn
    }

    /// The next episode, after lines that are none: each of these is given to `skipped`.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn next_good(&mut self, skipped: &mut dyn FnMut(LogError)) -> Result<Option<Episode>, LogError> {
        loop {
            match self.next_episode() {
                Err(bad @ LogError::Line { .. }) if !self.cut => skipped(bad),
                other => return other,
            }
        }
    }

    /// The number of the last line that was read.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line
    }

    fn bad(&self, reason: String) -> LogError {
        LogError::Line { path: self.path.clone(), line: self.line, reason }
    }

    /// The next line that is not empty, without its end.
    fn next_line(&mut self) -> Result<Option<Vec<u8>>, LogError> {
        loop {
            let mut line = Vec::new();
            let read = self.reader.read_until(b'\n', &mut line);
            let read = read.map_err(|source| match source.kind() {
                io::ErrorKind::UnexpectedEof => {
                    self.cut = true;
                    let reason =
                        "the compressed log ends here, in the middle: it was cut; make it anew from the log itself";
                    LogError::Line { path: self.path.clone(), line: self.line + 1, reason: reason.into() }
                }
                _ => LogError::Io { path: self.path.clone(), source },
            })?;
            if line.last() != Some(&b'\n') {
                let whole = self.takes_last && serde_json::from_slice::<IgnoredAny>(&line).is_ok();
                self.torn |= !line.is_empty() && !whole;
                self.line += usize::from(whole);
                return Ok(whole.then_some(line));
            }
            line.pop();
            self.line += 1;
            self.whole += read as u64;
            if !line.is_empty() {
                return Ok(Some(line));
            }
        }
    }

    /// The key of the next episode, of which nothing else is read.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn next_key(&mut self) -> Result<Option<EpisodeKey>, LogError> {
        let Some(line) = self.next_line()? else { return Ok(None) };
        let keyed: Keyed = serde_json::from_slice(&line).map_err(|e| self.bad(format!("not an episode: {e}")))?;
        Ok(Some(keyed.key))
    }

    fn next_episode(&mut self) -> Result<Option<Episode>, LogError> {
        let Some(line) = self.next_line()? else { return Ok(None) };
        Lines { path: &self.path, version: self.version }.parse(self.line, &line).map(Some)
    }

    /// The next episodes with their lines, some megabytes of text at a time, read on all cores; none at the end.
    ///
    /// # Errors
    /// If the log cannot be read: the first line that is none.
    pub fn next_batch(&mut self) -> Result<Vec<(usize, Episode)>, LogError> {
        let (mut lines, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH {
            let Some(line) = self.next_line()? else { break };
            bytes += line.len();
            lines.push((self.line, line));
        }
        let of = Lines { path: &self.path, version: self.version };
        lines.into_par_iter().map(|(number, line)| Ok((number, of.parse(number, &line)?))).collect()
    }
}

/// What lines of a log are read by.
#[derive(Clone, Copy)]
struct Lines<'l> {
    path: &'l Path,
    version: u32,
}

impl Lines<'_> {
    fn parse(self, number: usize, line: &[u8]) -> Result<Episode, LogError> {
        let bad = |reason: String| LogError::Line { path: self.path.to_owned(), line: number, reason };
        let mut episode: Episode = serde_json::from_slice(line)
            .map_err(|e| bad(format!("not an episode: {}", e.to_string().replace(" at line 1 column ", ", byte "))))?;
        if !(0.0..=1.0).contains(&episode.reward) {
            return Err(bad(format!("its reward is {}, not between 0 and 1", episode.reward)));
        }
        if let Some(reason) = episode.contradiction() {
            return Err(bad(reason));
        }
        if self.version < WITH_CONTEXTS {
            episode.turns.iter_mut().for_each(|turn| turn.shown = Context::Unknown);
        }
        Ok(episode)
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
