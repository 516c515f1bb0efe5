//! Reading logs, packed or not, of this version or an older one.

use super::error::LogError;
use super::origin::{Header, Origin, VERSION, WITH_CONTEXTS};
use crate::{Context, Episode, EpisodeKey};
use rayon::prelude::*;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

/// Bytes of lines that are read at once.
const BATCH: usize = 1 << 20;

/// What a file of zstd begins with.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// What every log begins with.
pub(super) const BEGINNING: &str = "{\"rolegraft_log\"";

/// Whether a file begins as a log does, packed or not.
#[must_use]
pub fn begins_log(bytes: &[u8]) -> bool {
    bytes.starts_with(&ZSTD) || bytes.starts_with(BEGINNING.as_bytes())
}

/// A log's file name without `.jsonl` or `.jsonl.zst`.
#[must_use]
pub fn log_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.trim_end_matches(".zst").trim_end_matches(".jsonl").to_owned()
}

/// An episode of which only the key is asked for.
#[derive(Deserialize)]
struct Keyed {
    key: EpisodeKey,
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
    pub(super) origin: Origin,
    /// Bytes of the whole lines read so far.
    pub(super) whole: u64,
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

    pub(super) fn opened(path: &Path, takes_last: bool) -> Result<Self, LogError> {
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
