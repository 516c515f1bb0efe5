//! Has the formats embedded anew when a file is added.

#[allow(clippy::print_stdout, reason = "how build scripts speak")]
fn main() {
    println!("cargo::rerun-if-changed=../../parsers");
}
