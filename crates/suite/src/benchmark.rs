//! A benchmark as the program meets it: one entry of the registry, whatever it brings.

use crate::library::Library;
use crate::open_error::OpenError;
use crate::recordings::{ReplayReply, Report, UnreadableError};
use crate::settings::{Flag, Settings, SettingsError};
use crate::suite_file::SuiteFile;
use crate::{Speaker, SpeakerError};
use rolegraft_spans::Format;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// Largest file that is read for its digest without being asked, in bytes.
const QUICK: u64 = 256 << 20;

/// What joins a benchmark to everything else. Whoever adds one implements this in a crate of its own and adds a line to
/// the registry.
pub trait Benchmark: Sync {
    /// Its name: of its settings (`[suite.NAME]` in experiments, `--set NAME.KEY=VALUE`) and of its recordings.
    fn name(&self) -> &'static str;
    /// What `kind` is in the `suite.toml` of its built-in suites.
    fn kinds(&self) -> &'static [&'static str];
    /// Whether a `suite.toml` is one of its own.
    fn reads(&self, file: &SuiteFile) -> bool {
        file.kind().is_some_and(|kind| self.kinds().contains(&kind))
    }
    /// Sets up a built-in suite.
    ///
    /// # Errors
    /// If the file or the settings are wrong.
    fn open(&self, file: &SuiteFile, opening: &Opening<'_>) -> Result<Library, OpenError>;
    /// Its suites on official data.
    fn official(&self) -> &'static [&'static str] {
        &[]
    }
    /// Whether it plays a suite of that name on official data.
    fn serves(&self, suite: &str) -> bool {
        self.official().contains(&suite)
    }
    /// Sets up one of the suites that it serves.
    ///
    /// # Errors
    /// If the data or the settings are wrong.
    fn open_official(&self, suite: &str, data: &Path, opening: &Opening<'_>) -> Result<Library, OpenError> {
        let _ = (data, opening);
        Err(OpenError::NoOfficial { suite: suite.to_owned(), known: Vec::new() })
    }
    /// The settings that have a flag of their own.
    fn flags(&self) -> Vec<Flag> {
        Vec::new()
    }
    /// Where experiments had settings before they had `[suite.NAME]`: a path there, and a path under `NAME` now.
    fn former(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }
    /// The settings as they are understood, without secrets.
    ///
    /// # Errors
    /// If a key or a value is unknown.
    fn checked(&self, settings: &Settings) -> Result<Value, SettingsError> {
        settings.none_of(self.name())
    }
    /// Which of its official data is in a folder. `whole`: read large files, too, for their digests.
    fn data(&self, data: &Path, whole: bool) -> Vec<OfficialData> {
        let _ = (data, whole);
        Vec::new()
    }
    /// What it needs of this machine.
    fn needs(&self, settings: &Settings, data: Option<&Path>) -> Vec<Need> {
        let _ = (settings, data);
        Vec::new()
    }
    /// The built-in format in which its replies are read, and how to compare with what its harness makes of them.
    fn replies(&self) -> Option<(&'static str, ReplayReply)> {
        None
    }
    /// What recordings of it are, if it can replay any: one line of `--help`.
    fn recordings(&self) -> Option<&'static str> {
        None
    }
    /// Replays recordings of the reference implementation.
    ///
    /// # Errors
    /// If the recordings or the data cannot be read.
    fn replay(&self, traces: &Path, data: &Path, settings: &Settings) -> Result<Report, UnreadableError> {
        let _ = (data, settings);
        Err(UnreadableError::Nothing { path: traces.to_owned(), expected: "this benchmark has none" })
    }
}

/// What a benchmark is set up with.
pub struct Opening<'a> {
    /// Folder of the suites' folders.
    pub suites: &'a Path,
    /// The benchmark's own settings.
    pub settings: &'a Settings,
    /// What may be asked of the program.
    pub host: &'a dyn Host,
}

impl Opening<'_> {
    /// The reply format of that name: `ROOT/../parsers/NAME.toml`, else the built-in one.
    ///
    /// # Errors
    /// If there is none, or it is wrong.
    pub fn format(&self, name: &str) -> Result<Format, OpenError> {
        let own = self.suites.join("../parsers").join(format!("{name}.toml"));
        Ok(if own.exists() { Format::load(&own)? } else { Format::builtin(name)? })
    }
}

/// What a benchmark may ask of the program that sets it up.
pub trait Host: Sync {
    /// A model, by address or folder, to speak for another party of an episode.
    ///
    /// # Errors
    /// If it cannot be had.
    fn speaker(&self, model: &str) -> Result<Arc<dyn Speaker>, Box<dyn std::error::Error + Send + Sync>> {
        Err(SpeakerError::Unavailable(format!("`{model}`: no model can be loaded here")).into())
    }
    /// The person at the terminal, if one may take part.
    fn person(&self) -> Option<Arc<dyn Speaker>> {
        None
    }
    /// Tells of work that takes long.
    fn note(&self, text: &str) {
        let _ = text;
    }
}

/// A host that has no models and nobody to tell: to look at suites, and to replay.
#[derive(Debug, Clone, Copy)]
pub struct Alone;

impl Host for Alone {}

/// A suite's official data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfficialData {
    /// The suite.
    pub suite: &'static str,
    /// Where to get it.
    pub from: &'static str,
    /// Its licence.
    pub licence: &'static str,
    /// What is there, with SHA-256 digests; or what is missing.
    pub found: Result<Vec<(String, String)>, String>,
}

impl OfficialData {
    /// A set of tasks that is there, with its digest.
    #[must_use]
    pub fn counted(set: &str, tasks: usize, digest: String) -> (String, String) {
        (format!("{tasks} {set} tasks"), digest)
    }
    /// A file that is there, and its digest: of large ones only if `whole`.
    ///
    /// # Errors
    /// What is missing, or cannot be read.
    pub fn file(path: &Path, whole: bool) -> Result<(String, String), String> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let wrong = |e: std::io::Error| format!("`{}`: {e}", path.display());
        let mut file = File::open(path).map_err(|_| format!("`{}` is missing", path.display()))?;
        let bytes = file.metadata().map_err(wrong)?.len();
        let what = format!("{name}, {bytes} bytes");
        if bytes > QUICK && !whole {
            return Ok((what, "not computed; --digest does it".into()));
        }
        let mut hasher = Sha256::new();
        std::io::copy(&mut file, &mut hasher).map_err(wrong)?;
        Ok((what, format!("{:x}", hasher.finalize())))
    }
}

/// Something that a benchmark needs of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// It is there, or it is not.
    Thing {
        /// What.
        what: String,
        /// Whether it is there; if not, what that means and how to get it.
        found: Result<(), String>,
        /// Whether the built-in suites, too, cannot do without.
        needed: bool,
    },
    /// Something to know.
    Note(&'static str),
}
