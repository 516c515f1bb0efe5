//! Any reply under every format: reading must end and every range must lie in the reply.
#![no_main]
use rolegraft_spans::Format;

libfuzzer_sys::fuzz_target!(|reply: &str| {
    for name in ["hermes", "native", "react", "officebench", "agentbench-os"] {
        let reading = Format::builtin(name).unwrap().read(reply, None);
        for span in &reading.spans {
            assert!(reply.get(span.range.clone()).is_some());
        }
        for violation in reading.violations() {
            assert!(reply.get(violation.range.clone()).is_some());
        }
    }
});
