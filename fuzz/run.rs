//! The fuzzer of the target by whose name it is built.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rolegraft_fuzz::run(env!("CARGO_BIN_NAME"), data));
