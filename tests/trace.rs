//! The real binary tracing: kill and resume, a full disk, shards that are cut, wrong inputs.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::miniature::{SmallDisk, killed_when, rolegraft, root, text};

const EXPERT: &str = "benchmarks/nano-pool/tau";

/// A calibration set of recorded solutions.
fn calibration(dir: &Path) -> String {
    let at = |name: &str| dir.join(name).display().to_string();
    let (log, set) = (at("tau.jsonl"), at("tau.calibration.jsonl"));
    let expert = root().join(EXPERT).display().to_string();
    for arguments in [
        &["calibrate", "--suite", "tau-retail", "-n", "40", "--out", &log][..],
        &["calibrate", &log, "--model", &expert, "--out", &set],
    ] {
        let output = rolegraft(arguments).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }
    set
}

/// `trace` of a model in as little memory as will do: many waves.
fn trace(model: &Path, set: &str, out: &Path) -> Command {
    let (model, out) = (model.display().to_string(), out.display().to_string());
    let with = |memory: &str| {
        rolegraft(&["trace", "--model", &model, "--calibration", set, "--memory", memory, "--out", &out])
    };
    let refused = with("1MB").output().unwrap();
    let said = text(&refused);
    assert_eq!(refused.status.code(), Some(3), "{said}");
    let least =
        said.split("at least ").nth(1).and_then(|rest| rest.split(" MB").next()).unwrap_or_else(|| panic!("{said}"));
    with(&format!("{least}MB"))
}

#[test]
fn killed_traces_go_on_and_give_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let set = calibration(dir.path());
    let (whole, killed) = (dir.path().join("whole.safetensors"), dir.path().join("killed.safetensors"));
    let output = trace(&root().join(EXPERT), &set, &whole).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let partial = PathBuf::from(format!("{}.partial", killed.display()));
    let (mut kills, mut kept) = (0, 0);
    let written = || std::fs::metadata(&partial).map(|file| file.ino()).ok();
    // At once, or after so many waves; each goes on where the one before was killed.
    for waves in [0, 1, 3, 1, 0, 2, 1] {
        let (mut last, mut passed) = (written(), 0);
        killed_when(trace(&root().join(EXPERT), &set, &killed), || {
            let now = written();
            passed += usize::from(now != last);
            last = now;
            passed >= waves
        });
        kills += usize::from(!killed.exists());
        kept += usize::from(partial.exists());
        if killed.exists() {
            assert!(std::fs::read(&killed).unwrap() == std::fs::read(&whole).unwrap());
            std::fs::remove_file(&killed).unwrap();
        }
    }
    assert!(kills >= 3 && kept >= 1, "{kills} kills, {kept} of them with something to go on from");
    let output = trace(&root().join(EXPERT), &set, &killed).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(std::fs::read(&killed).unwrap() == std::fs::read(&whole).unwrap());
    assert!(!partial.exists());
}

#[test]
fn a_full_disk_is_named_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let set = calibration(dir.path());
    let Some(disk) = SmallDisk::mounted(dir.path(), "8k") else { return };
    let small = disk.path();
    let output = trace(&root().join(EXPERT), &set, &small.join("out.safetensors")).output().unwrap();
    let left: Vec<_> = std::fs::read_dir(small).unwrap().map(|e| e.unwrap().file_name()).collect();
    drop(disk);
    let said = text(&output);
    assert!(!output.status.success() && said.contains("out.safetensors"), "{said}");
    assert!(said.contains("No space left") || said.contains("disk is full"), "{said}");
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_shard_that_is_cut_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let set = calibration(dir.path());
    let model = dir.path().join("model");
    std::fs::create_dir(&model).unwrap();
    for entry in std::fs::read_dir(root().join(EXPERT)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, model.join(path.file_name().unwrap())).unwrap();
    }
    let shard = model.join("model.safetensors");
    let whole = std::fs::metadata(&shard).unwrap().len();
    let cut = |len: u64| std::fs::OpenOptions::new().write(true).open(&shard).unwrap().set_len(len).unwrap();
    let out = dir.path().join("out.safetensors");
    let mut command = trace(&model, &set, &out);
    // While it is traced: a first wave has passed.
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while !dir.path().join("out.safetensors.partial").exists() {
        assert!(child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(1));
    }
    cut(whole / 2);
    let output = child.wait_with_output().unwrap();
    let said = text(&output);
    assert!(!output.status.success() && said.contains("model.safetensors"), "{said}");
    assert!(!out.exists());
    // Before.
    let output = command.output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("model.safetensors"), "{said}");
}
