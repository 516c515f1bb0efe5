//! A miniature of the nano experiment, and the real binary to run it with.
#![allow(dead_code, reason = "not every test needs all of it")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

pub(crate) fn rolegraft(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rolegraft"));
    command.args(arguments).current_dir(root());
    command
}

pub(crate) fn text(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The nano experiment with few tasks, two candidates, the exact engine, and absolute paths.
pub(crate) fn miniature(dir: &Path, change: impl Fn(String) -> String) -> PathBuf {
    let benchmarks = root().join("benchmarks");
    let full = std::fs::read_to_string(benchmarks.join("experiments/nano.toml")).unwrap();
    let (head, rest) = full.split_once("[[candidate]]").unwrap();
    let tail = &rest[rest.find("[saliency]").unwrap()..];
    let small = format!(
        "{head}[[candidate]]\nname = \"average\"\noperator = \"average\"\n[[candidate]]\nname = \"ram\"\noperator = \"ram\"\n{tail}"
    );
    let small = small
        .replace("calibration = 40", "calibration = 4")
        .replace("dev = 40", "dev = 2")
        .replace("test = 60", "test = 3")
        .replace("engine = \"mistralrs\"", "engine = \"candle\"")
        .replace("\"..\"", &format!("\"{}\"", benchmarks.display()))
        .replace("\"../", &format!("\"{}/", benchmarks.display()));
    let path = dir.join("mini.toml");
    std::fs::write(&path, change(small)).unwrap();
    path
}

pub(crate) fn run(experiment: &Path, results: &Path) -> Output {
    rolegraft(&["run", experiment.to_str().unwrap(), "--results", results.to_str().unwrap()]).output().unwrap()
}

/// Starts a command and kills it as soon as a moment has come, or it has ended; whether it was killed.
pub(crate) fn killed_when(mut command: Command, mut moment: impl FnMut() -> bool) -> bool {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let ended = loop {
        match child.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if moment() => break None,
            None => std::thread::sleep(std::time::Duration::from_millis(1)),
        }
    };
    child.kill().unwrap();
    child.wait().unwrap();
    // What ended on its own ended well.
    ended.inspect(|status| assert!(status.success(), "{status}")).is_none()
}

/// What Ctrl-C sends.
pub(crate) fn interrupt(child: &Child) {
    let child = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(child, rustix::process::Signal::INT).unwrap();
}

/// A file system of few bytes, which goes when this is dropped, whatever becomes of the test.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// One of that size in a folder; none where mounting is not allowed, which is said.
    #[allow(clippy::print_stderr, reason = "a skipped test says so")]
    pub(crate) fn mounted(folder: &Path, size: &str) -> Option<Self> {
        let path = folder.join("small");
        std::fs::create_dir(&path).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&path).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(path));
        }
        eprintln!("skipped: the full disk (mounting needs root)");
        None
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let gone = Command::new("umount").arg(&self.0).status().is_ok_and(|status| status.success());
        assert!(gone || std::thread::panicking(), "{} stays mounted", self.0.display());
    }
}

/// How many files there are below a folder.
pub(crate) fn count(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { count(&entry.path()) } else { 1 }).sum()
}

#[allow(clippy::print_stderr, reason = "a skipped test says so")]
pub(crate) fn sandbox_missing() -> bool {
    let missing = rolegraft_suites::Sandbox::start().err();
    if let Some(why) = &missing {
        eprintln!("skipped: {why}");
    }
    missing.is_some()
}

/// Every file below a folder, by its path there.
pub(crate) fn contents(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in std::fs::read_dir(next).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                found.push((path.strip_prefix(dir).unwrap().display().to_string(), std::fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}
