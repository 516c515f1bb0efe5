//! How fast a checkpoint reads and writes on one thread: `cargo bench -p rolegraft-decoder -- benchmarks/nano-pool/base`, from the
//! root. Prints microseconds a token for prompts, and for replies of one and of eight conversations together.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "it is run by hand")]

use rolegraft_checkpoint::Checkpoint;
use rolegraft_decoder::{Cache, Decoder, Next, Place};
use std::time::Instant;

/// Tokens of a prompt, and of a reply.
const TOKENS: [usize; 2] = [600, 200];

fn main() {
    let dir = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let dir = dir.unwrap_or_else(|| "benchmarks/nano-pool/base".into());
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(dir);
    let decoder = Decoder::load(&Checkpoint::open(&root).unwrap(), &Place::cpu()).unwrap();
    let id = |i: usize| (i * 7919 % decoder.architecture().vocab_size) as u32;
    let prompt: Vec<u32> = (0..TOKENS[0]).map(id).collect();
    for together in [1, 8] {
        let mut caches: Vec<Cache> = (0..together).map(|_| decoder.cache()).collect();
        let begun = Instant::now();
        let mut read: Vec<Next<'_>> = caches.iter_mut().map(|cache| Next { ids: &prompt, cache }).collect();
        decoder.forward_each(&mut read).unwrap();
        let reading = begun.elapsed().as_secs_f64() * 1e6 / (together * TOKENS[0]) as f64;
        let begun = Instant::now();
        for at in 0..TOKENS[1] {
            let ids = [id(at + 3)];
            let mut next: Vec<Next<'_>> = caches.iter_mut().map(|cache| Next { ids: &ids, cache }).collect();
            decoder.forward_each(&mut next).unwrap();
        }
        let writing = begun.elapsed().as_secs_f64() * 1e6 / (together * TOKENS[1]) as f64;
        println!("{together} together: {reading:.1} µs a token read, {writing:.1} µs a token written");
    }
}
