//! Any bytes as a safetensors file: an error or tensors that lie within it.
#![no_main]
use rolegraft_checkpoint::Header;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(header) = Header::parse(bytes, bytes.len() as u64) {
        assert!(header.tensors.iter().all(|t| t.start <= t.end && t.end <= bytes.len() as u64));
    }
});
