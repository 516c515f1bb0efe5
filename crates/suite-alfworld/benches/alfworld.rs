//! Speed of games: `cargo bench --workspace --bench alfworld -- DATA`; `tests/bench/alfworld.py` times TextWorld on the same walks.
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

use rolegraft_suite_alfworld::{Game, Official, Profile, Session};
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

fn main() {
    let Some(data) = std::env::args().skip(1).find(|a| !a.starts_with("--")) else {
        eprintln!("skipped: give the folder of the official data");
        return;
    };
    let official = Official::open(Path::new(&data)).expect("the data");
    let (tasks, _) = official.tasks("standard").expect("the tasks");
    let texts: Vec<String> = tasks
        .iter()
        .map(|t| {
            std::fs::read_to_string(official.root().join(t.fields["game"].as_str().expect("a path"))).expect("a game")
        })
        .collect();
    let begun = Instant::now();
    let games: Vec<Arc<Game>> =
        texts.iter().map(|text| Arc::new(Game::read(text, Profile::Classic).expect("a game"))).collect();
    println!(
        "{:.2} ms to load a game (mean of {})",
        begun.elapsed().as_secs_f64() * 1e3 / games.len() as f64,
        games.len()
    );
    let begun = Instant::now();
    let (mut steps, mut won) = (0, 0);
    for _ in 0..20 {
        for game in &games {
            let mut session = Session::new(game.clone());
            for command in game.walkthrough() {
                black_box(session.step(command));
                steps += 1;
            }
            won += usize::from(session.won());
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{:.0} steps/s on one core ({steps} steps, {} games won)", steps as f64 / seconds, won / 20);
}
