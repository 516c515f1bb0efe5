//! Benchmarks plug in: nobody but the registry names one, and one more takes a crate and a line.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use rolegraft_pipeline::{Experiment, Progress, run};
use rolegraft_suite_echo::Echo;
use rolegraft_suites::Registry;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::miniature::{rolegraft, root, text};

/// Crates that may name benchmarks: the registry, the benchmarks' own, and the pool of toys that has tasks for each.
fn may_name(package: &str) -> bool {
    package == "suites" || package == "nano" || package.starts_with("suite-")
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

/// Texts and names of a file, without documentation and tests.
fn words(stream: TokenStream, found: &mut Vec<String>) {
    let mut tokens = stream.into_iter().peekable();
    let mut skipped = false;
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == '#' => {
                if let Some(TokenTree::Punct(_)) = tokens.peek() {
                    tokens.next();
                }
                let Some(TokenTree::Group(group)) = tokens.peek() else { continue };
                if group.delimiter() == Delimiter::Bracket {
                    let said = group.stream().to_string().replace(' ', "");
                    skipped |= said == "cfg(test)";
                    if said.starts_with("doc=") || said == "cfg(test)" {
                        tokens.next();
                    }
                }
            }
            TokenTree::Group(group) => {
                if !std::mem::take(&mut skipped) {
                    words(group.stream(), found);
                }
            }
            TokenTree::Ident(ident) => found.push(ident.to_string()),
            TokenTree::Literal(literal) => found.push(literal.to_string()),
            TokenTree::Punct(_) => {}
        }
    }
}

/// Whether a text has a name in it as a word of its own.
fn names(text: &str, name: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || "_-\\".contains(c);
    text.match_indices(name).any(|(at, _)| {
        !text[..at].chars().next_back().is_some_and(inside)
            && !text[at + name.len()..].chars().next().is_some_and(inside)
    })
}

#[test]
fn nobody_but_the_registry_names_a_benchmark() {
    let registry = Registry::default();
    let mut known: Vec<&str> = registry.iter().flat_map(|b| [&[b.name()], b.kinds(), b.official()].concat()).collect();
    known.sort_unstable();
    known.dedup();
    assert!(known.len() >= 10, "{known:?}");
    let mut named = Vec::new();
    for package in std::fs::read_dir(root().join("crates")).unwrap() {
        let package = package.unwrap().path();
        if may_name(&package.file_name().unwrap().to_string_lossy()) {
            continue;
        }
        let mut files = Vec::new();
        rust_files(&package.join("src"), &mut files);
        for file in files {
            let mut found = Vec::new();
            words(std::fs::read_to_string(&file).unwrap().parse().unwrap(), &mut found);
            for word in found {
                let text = word.contains('"') && known.iter().any(|name| names(&word, name));
                if text || word.starts_with("rolegraft_suite_") {
                    named.push(format!("{}: {word}", file.display()));
                }
            }
        }
    }
    assert!(named.is_empty(), "benchmarks are named outside their crates and the registry:\n{}", named.join("\n"));
}

struct Silent;

impl Progress for Silent {
    fn stage(&self, _: &str) {}
    fn update(&self, _: usize, _: usize, _: &str) {}
    fn note(&self, _: &str) {}
}

/// A suite folder of `suite-echo`, and an experiment that merges for it.
fn echo(dir: &Path) -> PathBuf {
    let suite = dir.join("suites/echo");
    std::fs::create_dir_all(&suite).unwrap();
    let limits = "[limits]\nturns = 1\ntokens = 20\ntemperature = 0.0\ntop_p = 1.0\n";
    let tasks = "[tasks]\ncalibration = \"c.jsonl\"\ndev = \"d.jsonl\"\ntest = \"t.jsonl\"\n";
    let file = format!("kind = \"echo\"\nformat = \"hermes\"\nprompt = \"\"\n{limits}{tasks}");
    std::fs::write(suite.join("suite.toml"), file).unwrap();
    for (split, words) in [("c", ["one", "two"]), ("d", ["three", "four"]), ("t", ["five", "six"])] {
        let task = |word: &str| {
            let call =
                format!("<tool_call>\n{{\"name\": \"say\", \"arguments\": {{\"word\": \"{word}\"}}}}\n</tool_call>");
            serde_json::json!({"id": word, "word": word, "oracle": [call]}).to_string() + "\n"
        };
        std::fs::write(suite.join(format!("{split}.jsonl")), words.map(task).concat()).unwrap();
    }
    let pool = root().join("benchmarks/nano-pool");
    let experiment = format!(
        "name = \"echo\"\nengine = \"candle\"\nsuites = \"suites\"\n\
         [pool]\nbase = \"{0}/base\"\n[pool.experts]\ntau = \"{0}/tau\"\noffice = \"{0}/office\"\n\
         [[benchmark]]\nid = \"echo\"\ntitle = \"Echo\"\nexpert = \"tau\"\nsuites = [\"echo\"]\n\
         [tasks]\ncalibration = 2\ndev = 2\ntest = 2\n\
         [[candidate]]\nname = \"average\"\noperator = \"average\"\n",
        pool.display()
    );
    let path = dir.join("echo.toml");
    std::fs::write(&path, experiment).unwrap();
    path
}

#[test]
fn a_benchmark_is_added_through_the_registry_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = echo(dir.path());
    let go = |registry: Registry| {
        let experiment = Experiment::read_with(&path, registry).unwrap();
        run(&experiment, &dir.path().join("results"), Arc::new(AtomicBool::new(false)), &Silent)
    };
    let unknown = go(Registry::default()).unwrap_err().to_string();
    assert!(unknown.contains("suite.toml") && unknown.contains("`kind` is none of"), "{unknown}");
    let summary = go(Registry::default().with(&Echo)).unwrap();
    assert!(summary.tables.contains("Echo"), "{}", summary.tables);
    assert!(summary.dir.join("episodes/test-echo-arm.jsonl").exists());
}

#[test]
fn settings_are_checked_by_the_benchmark_that_they_are_of() {
    for (arguments, expected) in [
        (vec!["--set", "os.roto=/box"], "roto"),
        (vec!["--set", "os.shell=fish"], "fish"),
        (vec!["--set", "oss.root=/box"], "there is no benchmark `oss`"),
        (vec!["--set", "os"], "is not how a setting is given"),
        (vec!["--set", "webshop.dev=[1]"], "[suite.webshop]"),
        (vec!["--set", "remote.x=1"], "there is nothing to set"),
        (vec!["--user", "llm"], "--user-model"),
        (vec!["--set", "tau.user=llm"], "needs a model"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log.jsonl");
        let fixed =
            ["eval", "--model", "benchmarks/nano-pool/base", "--suite", "tau-retail", "--engine", "candle", "-n", "1"];
        let mut all: Vec<&str> = fixed.into();
        all.extend(["--log", log.to_str().unwrap()]);
        all.extend(&arguments);
        let output = rolegraft(&all).output().unwrap();
        let shown = text(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {shown}");
        assert!(shown.contains(expected), "{arguments:?}: {shown}");
        assert!(!log.exists(), "{arguments:?}");
    }
}

#[test]
fn experiments_have_tables_of_benchmarks() {
    let dir = tempfile::tempdir().unwrap();
    let path = echo(dir.path());
    let plain = std::fs::read_to_string(&path).unwrap();
    let read = |more: &str| {
        std::fs::write(&path, plain.clone() + more).unwrap();
        Experiment::read(&path).map_err(|e| e.to_string())
    };
    let now = read("[suite.os]\nroot = \"/box\"\n[suite.dbbench]\nserver = \"mysql://u:secret@h\"\n").unwrap();
    // As they were before benchmarks had tables.
    let before = read("[agentbench]\nos_root = \"/box\"\ndb = \"mysql://u:secret@h\"\n").unwrap();
    assert_eq!(now.suite, before.suite);
    let recorded = now.registry.check(&now.suite).unwrap().to_string() + &serde_json::to_string(&now).unwrap();
    assert!(recorded.contains("/box") && !recorded.contains("secret"), "{recorded}");
    assert!(read("[suite.os]\nroto = \"/box\"\n").unwrap_err().contains("roto"));
    assert!(read("[suite.oss]\nroot = \"/box\"\n").unwrap_err().contains("`oss`"));
    assert!(read("[tau]\nuser = \"llm\"\nsuer = 1\n").unwrap_err().contains("tau"));
}
