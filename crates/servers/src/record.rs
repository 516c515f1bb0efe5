//! Who is alive, and whose: processes as Linux shows them, and records of servers for the case that their owner dies.

use rolegraft_files::Partial;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The variable whose value all processes of a server inherit.
pub(crate) const TOKEN_VARIABLE: &str = "ROLEGRAFT_SERVER";
const FORMAT: u32 = 1;
/// Longest record read, in bytes.
const LONGEST: u64 = 4096;
const PREFIX: &str = "server-";
/// How long processes may take to end by themselves.
const GRACE: Duration = Duration::from_secs(10);
/// How long the kernel may take to end them.
const LAST: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);

/// A process: numbers are given again, numbers and start times are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Id {
    pid: i32,
    /// Clock ticks after the machine's start.
    start: u64,
}

struct Seen {
    id: Id,
    group: i32,
    dead: bool,
}

/// A process that is there, or waits to be reaped.
fn seen(pid: i32) -> Option<Seen> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let start = fields.get(19)?.parse().ok()?;
    let dead = matches!(*fields.first()?, "Z" | "X");
    Some(Seen { id: Id { pid, start }, group: fields.get(2)?.parse().ok()?, dead })
}

impl Id {
    /// The process with this number now.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        Some(seen(i32::try_from(pid).ok()?)?.id)
    }

    fn is_alive(self) -> bool {
        seen(self.pid).is_some_and(|now| now.id == self && !now.dead)
    }

    /// Signals the process, and no later one of the same number.
    fn signal(self, signal: Signal) {
        let Some(pid) = Pid::from_raw(self.pid).filter(|_| self.pid > 1) else { return };
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        if self.is_alive() {
            // A process that has ended meanwhile needs no signal.
            let _ = pidfd_send_signal(handle, signal);
        }
    }
}

/// The live processes of a server: its group, and whoever has its token, such as children with sessions of their own.
/// Neither finds all: vLLM's engine writes its title over its environment.
fn family(token: &str, server: Option<Id>) -> Vec<Id> {
    // Where the leader has gone, its number is not given again while members of its group live.
    let group = server.filter(|leader| seen(leader.pid).is_none_or(|now| now.id == *leader));
    let variable = format!("{TOKEN_VARIABLE}={token}");
    let ours = |process: &Seen| {
        let in_group = group.is_some_and(|leader| process.group == leader.pid && process.id.start >= leader.start);
        in_group || {
            let environment = fs::read(format!("/proc/{}/environ", process.id.pid)).unwrap_or_default();
            environment.split(|b| *b == 0).any(|one| one == variable.as_bytes())
        }
    };
    let own = std::process::id();
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let others = pids.filter(|pid| *pid > 1 && u32::try_from(*pid) != Ok(own)).filter_map(seen);
    others.filter(|process| !process.dead && ours(process)).map(|process| process.id).collect()
}

/// Ends all processes of a server: asks each of them, and ends those that stay. Gives whether all of them have gone.
pub(crate) fn end(token: &str, server: Option<Id>) -> bool {
    end_within(GRACE, token, server)
}

fn end_within(grace: Duration, token: &str, server: Option<Id>) -> bool {
    let began = Instant::now();
    let mut asked = Vec::new();
    loop {
        let left = family(token, server);
        let waited = began.elapsed();
        if left.is_empty() || waited > grace + LAST {
            return left.is_empty();
        }
        for process in left {
            if waited > grace {
                process.signal(Signal::KILL);
            } else if !asked.contains(&process) {
                process.signal(Signal::TERM);
                asked.push(process);
            }
        }
        std::thread::sleep(LOOK);
    }
}

/// A server as its owner wrote it down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    format: u32,
    /// The run of the machine on which the numbers mean something.
    machine: String,
    owner: Id,
    /// Absent while it is being started.
    server: Option<Id>,
    token: String,
}

/// This run of this machine, or of this container on it.
fn machine() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let numbers = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    format!("{} {}", boot.trim(), numbers.display())
}

/// Writes down a server, so that a later run finds it; gives the record's path.
pub(crate) fn write(folder: &Path, token: &str, server: Option<Id>) -> io::Result<PathBuf> {
    let owner = Id::of(std::process::id()).ok_or_else(|| io::Error::other("/proc does not show this process"))?;
    let record = Record { format: FORMAT, machine: machine(), owner, server, token: token.to_owned() };
    let path = folder.join(format!("{PREFIX}{token}.json"));
    let mut file = Partial::create(&path)?;
    file.write_all(&serde_json::to_vec(&record)?)?;
    file.persist()?;
    Ok(path)
}

/// A new token.
pub(crate) fn token() -> io::Result<String> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

/// What a record says; `None` if it was not written by us.
fn read(path: &Path) -> Option<Record> {
    let file = fs::File::open(path).ok()?;
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes).ok()?;
    let record: Record = serde_json::from_slice(&bytes).ok()?;
    let is_token = record.token.len() == 32 && record.token.bytes().all(|b| b.is_ascii_hexdigit());
    let named = path.file_stem().is_some_and(|name| name == format!("{PREFIX}{}", record.token).as_str());
    let pids = std::iter::once(record.owner).chain(record.server).all(|id| id.pid > 1);
    (record.format == FORMAT && is_token && named && pids).then_some(record)
}

/// Ends what a dead owner left: the servers that the folder's records name, and their children. Gives how many there were.
///
/// Servers of owners that live, and of other machines that share the folder, stay. Nothing is done to a process that only
/// has a recorded one's number.
///
/// # Errors
/// If the folder cannot be read; one that is not there holds nothing.
pub fn sweep(folder: &Path) -> io::Result<usize> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let (mut swept, machine) = (0, machine());
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let is_ours = name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(".json"));
        if !is_ours || !entry.file_type()?.is_file() {
            continue;
        }
        match read(&entry.path()) {
            Some(record) if record.machine != machine || record.owner.is_alive() => continue,
            Some(record) => {
                swept += usize::from(!family(&record.token, record.server).is_empty());
                if !end(&record.token, record.server) {
                    // The next sweep finds it again.
                    continue;
                }
            }
            None => {}
        }
        match fs::remove_file(entry.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(swept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command};

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn sleeper() -> Child {
        Command::new("sleep").arg("600").process_group(0).spawn().unwrap()
    }

    fn record(server: Option<Id>, dead_owner: bool) -> Record {
        let mut owner = Id::of(std::process::id()).unwrap();
        owner.start += u64::from(dead_owner);
        Record { format: FORMAT, machine: machine(), owner, server, token: TOKEN.into() }
    }

    fn kept(record: &Record) -> (bool, usize) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(format!("{PREFIX}{TOKEN}.json"));
        fs::write(&path, serde_json::to_vec(record).unwrap()).unwrap();
        let swept = sweep(folder.path()).unwrap();
        (path.exists(), swept)
    }

    #[test]
    fn a_process_with_only_the_number_of_a_recorded_one_is_not_touched() {
        let mut other = sleeper();
        let mut id = Id::of(other.id()).unwrap();
        id.start += 1;
        assert_eq!(kept(&record(Some(id), true)), (false, 0));
        assert!(other.try_wait().unwrap().is_none());
        id.start -= 1;
        assert_eq!(kept(&record(Some(id), true)), (false, 1));
        assert!(!other.wait().unwrap().success());
    }

    #[test]
    fn who_ignores_the_signal_to_end_is_killed() {
        use std::os::unix::process::ExitStatusExt;
        for (trap, signal) in [("trap '' TERM", Signal::KILL), (":", Signal::TERM)] {
            let script = format!("{trap}; echo set; while :; do sleep 1; done");
            let mut server = Command::new("sh");
            server.args(["-c", &script]).process_group(0).stdout(std::process::Stdio::piped());
            let mut server = server.spawn().unwrap();
            server.stdout.take().unwrap().read_exact(&mut [0; 4]).unwrap();
            assert!(end_within(Duration::from_millis(500), TOKEN, Id::of(server.id())));
            assert_eq!(server.wait().unwrap().signal(), Some(signal.as_raw()), "{trap}");
        }
    }

    #[test]
    fn servers_of_live_owners_and_other_machines_stay() {
        let mut server = sleeper();
        let id = Id::of(server.id());
        assert_eq!(kept(&record(id, false)), (true, 0));
        assert_eq!(kept(&Record { machine: "another".into(), ..record(id, true) }), (true, 0));
        assert!(server.try_wait().unwrap().is_none());
        server.kill().unwrap();
        server.wait().unwrap();
    }

    #[test]
    fn broken_records_are_removed_and_nobody_is_signalled() {
        for pid in [i32::MIN, -1, 0, 1] {
            assert_eq!(kept(&record(Some(Id { pid, start: 0 }), true)), (false, 0));
        }
        assert_eq!(kept(&Record { token: String::new(), ..record(None, true) }), (false, 0));
        assert_eq!(kept(&Record { format: 2, ..record(None, true) }), (false, 0));
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in [("server-a.json", "{"), ("server-b.json", ""), ("notes.json", "{"), ("server-c.log", "")]
        {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        sweep(folder.path()).unwrap();
        let mut left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["notes.json", "server-c.log"]);
        assert_eq!(sweep(&folder.path().join("none")).unwrap(), 0);
    }
}
