//! Logs of every version that was ever written, kept for ever: they must be read.
#![allow(missing_docs)]

use rolegraft_trajectory::{Context, Episode, Episodes};
use std::path::Path;

fn read(name: &str) -> (u32, Vec<Episode>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/logs").join(name);
    let mut log = Episodes::open(&path).unwrap();
    let episodes = log.by_ref().collect::<Result<_, _>>().unwrap();
    (log.version(), episodes)
}

#[test]
fn logs_of_every_version_are_read() {
    let (version, now) = read("v2.jsonl");
    assert_eq!((version, now.len()), (2, 2));
    assert!(now.iter().flat_map(|episode| &episode.turns).all(|turn| turn.shown != Context::Unknown));
    assert_eq!(read("v2.jsonl.zst"), (2, now.clone()));
    let (version, before) = read("v1.jsonl");
    assert_eq!(version, 1);
    for (old, new) in before.iter().zip(&now) {
        assert_eq!((&old.key, old.reward, &old.messages), (&new.key, new.reward, &new.messages));
        // What it was shown was not logged then.
        assert!(old.turns.iter().all(|turn| turn.shown == Context::Unknown));
        assert_eq!(old.turns[0].spans, new.turns[0].spans);
    }
}
