//! A newcomer's first commands, from an empty folder: what works without the repository, and what is said where it does not.

use std::path::Path;
use std::process::{Command, Output};

use crate::miniature::{root, text};

/// A command line as one types it, variables before it, in a folder.
fn typed(line: &str, folder: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rolegraft"));
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache");
    command.current_dir(folder).env("XDG_CACHE_HOME", cache).env_remove("ROLEGRAFT_DATA").env_remove("ROLEGRAFT_DB");
    let mut words = line.split_whitespace().skip_while(|word| match word.split_once('=') {
        Some((name, value)) if name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_') => {
            command.env(name, value);
            true
        }
        _ => false,
    });
    assert_eq!(words.next(), Some("rolegraft"), "{line}");
    let words: Vec<&str> = words.collect();
    command.args(words).output().unwrap()
}

#[test]
fn suites_and_pool_come_with_the_program() {
    let dir = tempfile::tempdir().unwrap();
    // Of its own: it is damaged below.
    let cache = tempfile::tempdir().unwrap();
    let done = |line: &str| {
        let output = typed(&format!("XDG_CACHE_HOME={} {line}", cache.path().display()), dir.path());
        assert!(output.status.success(), "{line}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let place = done("rolegraft nano where");
    assert!(Path::new(place.trim()).join("nano-pool/base/config.json").is_file(), "{place}");
    // What is cut is mended.
    std::fs::write(Path::new(place.trim()).join("webshop/suite.toml"), "k").unwrap();
    done("rolegraft calibrate --suite webshop -n 2 --out solved.jsonl");
    assert!(done("rolegraft score solved.jsonl").contains("2 passed, 0 failed"));
    assert!(done("rolegraft plan nano").contains("nothing is missing"));
    assert!(done("rolegraft completions bash").contains("_rolegraft"));
    done("rolegraft man --out man");
    assert!(std::fs::read_to_string(dir.path().join("man/rolegraft-log-merge.1")).unwrap().contains("skip"));
    // What is here wins, if it holds suites.
    std::fs::create_dir_all(dir.path().join("benchmarks/webshop")).unwrap();
    assert_eq!(done("rolegraft nano where"), place);
    std::fs::write(dir.path().join("benchmarks/webshop/suite.toml"), "").unwrap();
    assert_eq!(done("rolegraft nano where").trim(), "benchmarks");
}

/// Every row of the table in docs/faults.md.
#[test]
fn wrong_input_is_answered_as_the_docs_say() {
    let page = std::fs::read_to_string(root().join("docs/faults.md")).unwrap();
    let rows = page.lines().filter_map(|line| {
        let (command, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
        let (code, said) = rest.strip_suffix(" |")?.split_once(" | ")?;
        Some((command, code.parse::<i32>().ok()?, said))
    });
    let somewhere = tempfile::tempdir().unwrap();
    let built_in = text(&typed("rolegraft nano where", somewhere.path())).trim().to_owned();
    let digest = built_in.split('/').find(|part| part.starts_with("built-in-")).unwrap();
    let (mut count, mut wrong) = (0, Vec::new());
    for (command, code, expected) in rows {
        let dir = tempfile::tempdir().unwrap();
        let output = typed(command, dir.path());
        let said = String::from_utf8_lossy(&output.stderr);
        let error =
            said.lines().skip_while(|line| !line.starts_with("error: ")).map(str::trim).collect::<Vec<_>>().join(" · ");
        let error = error.strip_prefix("error: ").unwrap_or(&error);
        let error = error.replace(&built_in, "BUILT-IN").replace(digest, "built-in-DIGEST");
        if output.status.code() != Some(code) || error != expected {
            let code = output.status.code().unwrap_or(-1);
            wrong.push(format!("| `{command}` | {code} | {error} |"));
        }
        count += 1;
    }
    assert!(count > 10 && wrong.is_empty(), "{count} rows; otherwise:\n{}", wrong.join("\n"));
}

#[test]
fn low_limits_and_odd_places_are_borne() {
    for first in [
        "ulimit -n 64",
        "ulimit -v 4000000",
        "ulimit -u 4096",
        "unset HOME XDG_CACHE_HOME; export TMPDIR=$PWD",
        "export LC_ALL=de_DE.ISO-8859-1 TERM=dumb",
        "exec < /dev/null",
        "umask 077",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let program = env!("CARGO_BIN_EXE_rolegraft");
        let line = format!(
            "{first}; {program} calibrate --suite webshop -n 3 --out solved.jsonl && {program} score solved.jsonl"
        );
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache");
        let mut shell = Command::new("bash");
        let output = shell.args(["-c", &line]).current_dir(dir.path()).env("XDG_CACHE_HOME", cache).output().unwrap();
        assert!(output.status.success() && text(&output).contains("3 passed, 0 failed"), "{first}: {}", text(&output));
    }
}
