//! The fuzzers' corpora, and what was found with them, through every parser of foreign bytes, with any compiler.

use std::fs;

#[allow(dead_code, reason = "the fuzzers run one target at a time")]
#[path = "../fuzz/src/lib.rs"]
mod fuzz;

#[test]
fn every_target_reads_its_corpus() {
    for (target, run) in fuzz::TARGETS {
        let folder = crate::miniature::root().join("fuzz/corpus").join(target);
        let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!files.is_empty(), "{} holds no corpus", folder.display());
        for file in files {
            run(&fs::read(file).unwrap());
        }
    }
}
