//! What `--help` says.

use std::process::Command;

#[test]
fn help_reads_as_it_should() {
    let mut all = String::new();
    for command in [
        &[][..],
        &["run"],
        &["ablate"],
        &["merge"],
        &["diff"],
        &["inspect"],
        &["conformance"],
        &["calibrate"],
        &["trace"],
        &["select"],
        &["diagnose"],
        &["transplant"],
        &["eval"],
        &["score"],
        &["report"],
        &["view"],
        &["parse"],
        &["nano"],
        &["nano", "build"],
        &["nano", "tasks"],
        &["doctor"],
    ] {
        let mut arguments = command.to_vec();
        arguments.push("--help");
        let output =
            Command::new(env!("CARGO_BIN_EXE_rolegraft")).args(&arguments).env("COLUMNS", "100").output().unwrap();
        assert!(output.status.success());
        all += &format!("$ rolegraft {}\n{}\n", arguments.join(" "), String::from_utf8_lossy(&output.stdout));
    }
    insta::assert_snapshot!("help", all);
}
