//! Records of servers that run, so that those of a killed owner are found and stopped.

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The environment variable by which a server and all that it starts are known.
pub(crate) const TOKEN: &str = "ROLEGRAFT_SERVER";
const END: &str = ".server.json";
/// How long a server may take to stop by itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server, and who started it. Process ids come again; start times tell whose they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    owner: Identity,
    /// Also the id of its process group.
    server: Identity,
    token: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    pid: i32,
    /// In clock ticks since the machine started.
    started: u64,
}

/// Process group and start time of a process (fields 5 and 22 of `/proc/PID/stat`); `None` if it has ended.
fn stat(pid: i32) -> Option<(i32, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program comes before, in brackets that it may hold as well.
    let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_whitespace().collect();
    if *fields.first()? == "Z" {
        return None;
    }
    Some((fields.get(2)?.parse().ok()?, fields.get(19)?.parse().ok()?))
}

impl Identity {
    fn of(pid: i32) -> Option<Self> {
        Some(Self { pid, started: stat(pid)?.1 })
    }
    fn lives(self) -> bool {
        self.pid > 1 && Self::of(self.pid) == Some(self)
    }
}

impl Record {
    /// Of a server that this process has just started.
    pub(crate) fn of(server: u32, token: &str) -> Option<Self> {
        let (owner, server) = (i32::try_from(std::process::id()).ok()?, i32::try_from(server).ok()?);
        Some(Self { owner: Identity::of(owner)?, server: Identity::of(server)?, token: token.to_owned() })
    }

    /// Writes it into a folder.
    pub(crate) fn write(&self, folder: &Path) -> std::io::Result<PathBuf> {
        let path = folder.join(format!("{}{END}", self.token));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.as_file().sync_all()?;
        file.persist(&path).map_err(|e| e.error)?;
        Ok(path)
    }

    /// Whatever of the server still runs: its group, and all that were born with its token.
    fn members(&self) -> Vec<i32> {
        // A process group's id is not given again while the group has members, so a group without its first process is the
        // same group; with another first process it is another.
        let same = stat(self.server.pid).is_none() || self.server.lives();
        let mark = format!("{TOKEN}={}", self.token);
        let holds = |pid: i32| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
        };
        let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()).filter(|pid| *pid > 1);
        pids.filter(|pid| stat(*pid).is_some_and(|(group, _)| (same && group == self.server.pid) || holds(*pid)))
            .collect()
    }

    fn signal(&self, signal: Signal) {
        let members = self.members();
        if members.iter().any(|pid| stat(*pid).is_some_and(|(group, _)| group == self.server.pid))
            && let Some(group) = Pid::from_raw(self.server.pid)
        {
            let _ = kill_process_group(group, signal);
        }
        for pid in members.into_iter().filter_map(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Stops the server and all that it started: asked first, then killed. `reap` is called while it is waited for.
    pub(crate) fn stop(&self, mut reap: impl FnMut()) {
        let begun = Instant::now();
        self.signal(Signal::TERM);
        loop {
            reap();
            if self.members().is_empty() {
                return;
            }
            if begun.elapsed() > PATIENCE {
                self.signal(Signal::KILL);
            }
            if begun.elapsed() > 2 * PATIENCE {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Stops the servers in a folder of records whose owners have ended. A record that cannot be read is removed.
pub(crate) fn sweep(folder: &Path) -> usize {
    let mut stopped = 0;
    for path in std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if !path.to_string_lossy().ends_with(END) {
            continue;
        }
        let record = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok());
        let Some(record) = record.filter(|record| record.server.pid > 1 && !record.token.is_empty()) else {
            let _ = std::fs::remove_file(&path);
            continue;
        };
        if record.owner.lives() {
            continue;
        }
        if !record.members().is_empty() {
            record.stop(|| {});
            stopped += 1;
        }
        let _ = std::fs::remove_file(&path);
    }
    stopped
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    #[test]
    fn a_process_whose_id_came_again_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut other = Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        let mut record = Record::of(other.id(), "nobodys").unwrap();
        record.owner.started += 1;
        record.server.started += 1;
        record.write(dir.path()).unwrap();
        std::fs::write(dir.path().join(format!("broken{END}")), "{").unwrap();
        std::fs::write(dir.path().join("server.log"), "kept").unwrap();
        assert_eq!(sweep(dir.path()), 0);
        assert!(other.try_wait().unwrap().is_none());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        // The same, of the same start, is stopped.
        record.server.started -= 1;
        record.write(dir.path()).unwrap();
        let waiter = std::thread::spawn(move || other.wait().unwrap());
        assert_eq!(sweep(dir.path()), 1);
        assert!(!waiter.join().unwrap().success());
    }
}
