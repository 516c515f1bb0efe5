//! One server that we started: its process group, its log, its record.

use crate::error::ServerError;
use crate::record::{Record, TOKEN};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Lines of a log that an error shows.
const SHOWN: usize = 20;
/// Bytes of a log's end that are read for them.
const TAIL: u64 = 16 << 10;

/// How a server is started.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    pub(crate) words: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    /// Where records and logs lie.
    pub(crate) folder: PathBuf,
    pub(crate) log: PathBuf,
}

/// A server that runs. It ends, with all that it started, when this is dropped.
pub(crate) struct Process {
    child: Child,
    record: Record,
    path: PathBuf,
}

impl Process {
    pub(crate) fn start(start: &Start) -> Result<Self, ServerError> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let token = format!("{}-{}", std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed));
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| ServerError::Io { path, source }
        };
        std::fs::create_dir_all(&start.folder).map_err(io(&start.folder))?;
        let log = File::options().create(true).append(true).open(&start.log).map_err(io(&start.log))?;
        let same = log.try_clone().map_err(io(&start.log))?;
        let (program, arguments) = start.words.split_first().ok_or(ServerError::NoCommand)?;
        let spawned = Command::new(program)
            .args(arguments)
            .envs(&start.env)
            .env(TOKEN, &token)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(same)
            .process_group(0)
            .spawn();
        let mut child = spawned.map_err(|source| ServerError::NotFound { program: program.clone(), source })?;
        let record = Record::of(child.id(), &token);
        let written = record.and_then(|record| Some((record.write(&start.folder).ok()?, record)));
        let Some((path, record)) = written else {
            // It has ended already, or there is no room for a record, without which it could outlive us.
            let _ = child.kill();
            let status = child.wait().map_err(io(&start.log))?;
            return Err(ServerError::Exited { status: status.to_string(), log: tail(&start.log) });
        };
        Ok(Self { child, record, path })
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Self { child, record, path } = self;
        record.stop(|| drop(child.try_wait()));
        let _ = child.wait();
        let _ = std::fs::remove_file(path);
    }
}

/// The last lines of a log, for people.
pub(crate) fn tail(log: &Path) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let mut bytes = Vec::new();
    let read = File::open(log).and_then(|mut file| {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        file.read_to_end(&mut bytes)
    });
    if read.is_err() || bytes.is_empty() {
        return format!("it wrote nothing into {}", log.display());
    }
    let text = String::from_utf8_lossy(&bytes);
    let clean = |line: &str| line.chars().filter(|c| !c.is_control()).take(300).collect::<String>();
    let lines: Vec<String> = text.lines().rev().take(SHOWN).map(clean).collect();
    let lines: Vec<&str> = lines.iter().rev().map(String::as_str).collect();
    format!("the end of {}:\n  {}", log.display(), lines.join("\n  "))
}
