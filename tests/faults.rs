//! Fail points: the real binary, of which the Nth write, sync, rename and so on fails, for every N there is. strace injects the errors, so that
//! nothing in the program knows of them; each loop ends with a run in which no error was left to inject.
#![allow(missing_docs, clippy::print_stderr)]

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

mod miniature;
use miniature::{contents, root, text};

/// What changes a disk.
const CHANGES: [&str; 10] =
    ["write", "pwrite64", "writev", "ftruncate", "fsync", "fdatasync", "rename", "renameat", "renameat2", "mkdir"];

fn strace_missing() -> bool {
    let missing =
        !Command::new("strace").args(["-f", "-qq", "-o", "/dev/null", "true"]).status().is_ok_and(|s| s.success());
    if missing {
        eprintln!("skipped: strace is not installed, or may not trace here (package: strace)");
    }
    missing
}

/// The program under strace.
fn traced(dir: &Path, options: &[&str], arguments: &[&str]) -> (Output, String) {
    let log = dir.join("strace");
    let mut command = Command::new("strace");
    command.args(["-f", "-y", "-qq", "--seccomp-bpf", "-o"]).arg(&log).args(options);
    command.arg(env!("CARGO_BIN_EXE_rolegraft")).args(arguments).current_dir(dir);
    let output = command.output().unwrap();
    (output, fs::read_to_string(&log).unwrap())
}

/// A command that makes `out`, in a folder where its inputs are.
struct Work<'w> {
    arguments: &'w [&'w str],
    prepare: &'w dyn Fn(&Path),
    /// Whether `out` is a log, of which what was finished may be there after a failure. Then errors are injected there alone: a runtime that cannot
    /// wake its own threads is another fault.
    grows: bool,
}

/// What a command made: of a log, the episodes without the time that they took, in an order of their own.
fn made(work: &Work<'_>, dir: &Path) -> Vec<(String, Vec<u8>)> {
    let out = dir.join("out");
    if !work.grows {
        return contents(&out);
    }
    let mut lines: Vec<String> = fs::read_to_string(&out)
        .unwrap()
        .lines()
        .map(|line| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            line["seconds"] = 0.into();
            line.to_string()
        })
        .collect();
    lines.sort_unstable();
    vec![("out".into(), lines.concat().into_bytes())]
}

/// Fails the command at every change of the disk, once with each error, and lets it then go on undisturbed; counts the failures.
fn fail_at_every(work: &Work<'_>) -> usize {
    let whole = tempfile::tempdir().unwrap();
    (work.prepare)(whole.path());
    let (output, _) = traced(whole.path(), &["-e", "trace=none"], work.arguments);
    assert!(output.status.success(), "{}", text(&output));
    let wanted = made(work, whole.path());
    let mut failures = 0;
    for (error, words) in [("ENOSPC", "the disk is full"), ("EIO", "Input/output error")] {
        for call in CHANGES {
            let ended = (1..500).any(|n| match fail_at(work, call, error, n, words, &wanted) {
                Some(failed) => {
                    failures += usize::from(failed);
                    false
                }
                None => true,
            });
            assert!(ended, "{call}: there was always one more");
        }
    }
    failures
}

/// Fails the Nth call, and lets the command go on: whether it failed by that; `None` if there was no such call.
fn fail_at(
    work: &Work<'_>,
    call: &str,
    error: &str,
    n: usize,
    words: &str,
    wanted: &[(String, Vec<u8>)],
) -> Option<bool> {
    let dir = tempfile::tempdir().unwrap();
    (work.prepare)(dir.path());
    let (trace, inject) = (format!("trace={call}"), format!("inject={call}:error={error}:when={n}"));
    let out = dir.path().join("out");
    let only = ["-P", out.to_str().unwrap()];
    let mut options = vec!["-e", &trace, "-e", &inject];
    options.extend(only.iter().filter(|_| work.grows));
    let (output, log) = traced(dir.path(), &options, work.arguments);
    let (shown, failed) = (text(&output), !output.status.success());
    let hit: Vec<&str> = log.lines().filter(|line| line.contains("(INJECTED)")).collect();
    if hit.is_empty() {
        assert!(!failed, "{shown}");
        return None;
    }
    assert!(!shown.contains("panicked"), "{hit:?}: {shown}");
    // Only what was refused of this folder is judged: terminals, pipes and caches fail otherwise.
    let judged = failed && hit.iter().all(|line| line.contains(dir.path().to_str().unwrap()));
    if judged {
        assert_eq!(output.status.code(), Some(3), "{hit:?}: {shown}");
        assert!(shown.contains(words), "{hit:?}: {shown}");
        assert!(shown.contains("`out") || shown.contains("`.out"), "{hit:?}: {shown}");
        // Where the last sync alone was refused, it has its name, and is whole.
        assert!(work.grows || !out.exists() || made(work, dir.path()) == wanted, "{hit:?}: it looks whole");
    }
    let left = contents(dir.path());
    let temporary = |(name, _): &(String, Vec<u8>)| name.split('/').any(|part| part.starts_with(".tmp"));
    assert!(!left.iter().any(temporary), "{hit:?}: a temporary file is left");
    // What could not be said at the end was done.
    let done = !work.grows && out.exists() && made(work, dir.path()) == wanted;
    if failed && !done {
        let (again, _) = traced(dir.path(), &["-e", "trace=none"], work.arguments);
        assert!(again.status.success(), "{hit:?}: {}", text(&again));
    }
    assert!(made(work, dir.path()) == wanted, "{hit:?}: other bytes after going on");
    Some(judged)
}

fn two_experts(dir: &Path) {
    let pool = root().join("benchmarks/nano-pool");
    let model = |name: &str| format!("- {{model: {}, parameters: {{weight: 0.5}}}}\n", pool.join(name).display());
    let recipe = format!("merge_method: linear\nmodels:\n{}{}", model("tau"), model("office"));
    fs::write(dir.join("merge.yml"), recipe).unwrap();
}

const MERGE: Work<'_> =
    Work { arguments: &["merge", "merge.yml", "--out", "out", "--threads", "1"], prepare: &two_experts, grows: false };
const PLAY: Work<'_> =
    Work { arguments: &["calibrate", "--suite", "webshop", "-n", "3", "--out", "out"], prepare: &|_| (), grows: true };

#[test]
fn a_merge_fails_at_every_change_of_the_disk_and_goes_on() {
    if !strace_missing() {
        let failures = fail_at_every(&MERGE);
        assert!(failures > 40, "{failures}");
    }
}

#[test]
fn a_log_fails_at_every_change_of_the_disk_and_goes_on() {
    if !strace_missing() {
        let failures = fail_at_every(&PLAY);
        assert!(failures > 4, "{failures}");
    }
}

/// What strace shows of a file by `-y`: `write(6</a/b>, …`.
fn path_of(line: &str) -> Option<&str> {
    line.split_once('<')?.1.split_once('>').map(|(path, _)| path)
}

/// Names are given after bytes are down, and are made durable themselves.
#[test]
fn bytes_reach_the_disk_before_their_names() {
    if strace_missing() {
        return;
    }
    for work in [&MERGE, &PLAY] {
        let dir = tempfile::tempdir().unwrap();
        (work.prepare)(dir.path());
        let (output, log) = traced(dir.path(), &["-e", &format!("trace={}", CHANGES.join(","))], work.arguments);
        assert!(output.status.success(), "{}", text(&output));
        let here = dir.path().canonicalize().unwrap();
        // Written and not yet synced; named and its folder not yet synced.
        let (mut unsynced, mut unnamed, mut renames) = (BTreeSet::new(), BTreeSet::new(), 0);
        for line in log.lines() {
            let line = line.split_once(' ').map_or(line, |(_, line)| line).trim_start();
            let call = line.split('(').next().unwrap_or_default();
            match call {
                "write" | "pwrite64" | "writev" | "ftruncate" => {
                    let kept = |path: &&str| Path::new(path).starts_with(&here) && !path.ends_with("lock");
                    unsynced.extend(path_of(line).filter(kept));
                }
                "fsync" | "fdatasync" => {
                    unsynced.retain(|path| Some(*path) != path_of(line));
                    unnamed.retain(|folder: &PathBuf| folder.to_str() != path_of(line));
                }
                "rename" | "renameat" | "renameat2" => {
                    let mut names = line.split('"').skip(1).step_by(2).map(|name| here.join(name));
                    let (from, to) = (names.next().unwrap(), names.next().unwrap());
                    if from.starts_with(&here) {
                        let open: Vec<_> = unsynced.iter().filter(|path| Path::new(path).starts_with(&from)).collect();
                        assert!(open.is_empty(), "{line}: {open:?} may not be on the disk");
                        unnamed.insert(to.parent().unwrap().to_owned());
                        renames += 1;
                    }
                }
                _ => {}
            }
        }
        assert!(unsynced.is_empty() && unnamed.is_empty(), "{unsynced:?} {unnamed:?}");
        assert!(renames > 0 || work.grows, "nothing was renamed");
    }
}

/// A log of what is said may lie on a disk that is full: the work is done all the same, and what was not said is an error.
#[test]
fn a_full_disk_under_what_is_said_ends_no_work() {
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let dir = tempfile::tempdir().unwrap();
    two_experts(dir.path());
    let rolegraft = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rolegraft"));
        command.args(arguments).current_dir(dir.path());
        command
    };
    assert!(rolegraft(&["merge", "merge.yml", "--out", "quiet"]).stderr(full()).status().unwrap().success());
    let output = rolegraft(&["inspect", "quiet"]).stdout(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(text(&output).contains("cannot write to stdout"), "{}", text(&output));
    assert!(rolegraft(&["inspect", "nothing"]).stderr(full()).status().unwrap().code() == Some(2));
}
