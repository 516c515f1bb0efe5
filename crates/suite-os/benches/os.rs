//! AgentBench OS: episodes of three commands a second, boxes side by side, in each kind of box.
//!
//! Upstream's Python needs Docker for the same, whose containers alone take longer to start. The limit is the kernel's: mounts,
//! namespaces, a login shell.
//!
//! ```sh
//! cargo bench --workspace --bench os -- ROOT_FOLDER
//! ```
#![allow(missing_docs, clippy::print_stdout, clippy::print_stderr)]

use rolegraft_spans::Format;
use rolegraft_suite::sandbox::{BoxUser, Image};
use rolegraft_suite::{AgentBenchProtocol, Limits, Suite, Task};
use rolegraft_suite_os::{FORMAT, OsSuite, Prompt, Setup};
use std::time::Instant;

const EPISODES: usize = 60;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let image = |user| arguments.first().map(|path| Image::Root { path: path.into(), user });
    let boxes = [
        ("the host's programs", Some(Image::Host)),
        ("an image, namespace", image(BoxUser::Namespace)),
        ("an image, root", image(BoxUser::Root)),
        ("Docker", std::env::var("ROLEGRAFT_OS_DOCKER").ok().map(Image::Docker)),
    ];
    let at_once = std::thread::available_parallelism().map_or(1, usize::from) * 2;
    for (name, image) in boxes {
        let Some(image) = image else {
            eprintln!("skipped: {name}: give a root folder, for Docker an image in ROLEGRAFT_OS_DOCKER");
            continue;
        };
        let limits = Limits { turns: 8, tokens: 0, temperature: 0.0, top_p: 1.0 };
        let setup = Setup { image, prompt: Prompt::upstream(AgentBenchProtocol::Text), ..Setup::default() };
        let suite = OsSuite::new(Format::builtin(FORMAT).expect("a format"), limits, setup);
        let fields = serde_json::json!({"description": "?", "init": [{"code": "echo 5 > /tmp/n"}], "match": "5"});
        let task = Task { id: "bench".into(), fields };
        let play = || {
            let mut episode = suite.start(&task).expect("a box");
            for command in ["ls /", "cd /tmp; cat n", "pwd; cat n | wc -l"] {
                episode.step(&format!("Act: bash\n\n```bash\n{command}\n```")).expect("a step");
            }
            episode.step("Act: answer(5)").expect("a step");
            assert_eq!(episode.outcome().reward, 1.0);
        };
        play();
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..at_once {
                scope.spawn(|| (0..EPISODES / at_once).for_each(|_| play()));
            }
        });
        let done = EPISODES / at_once * at_once;
        println!("{name}: {:.1} episodes/s ({at_once} at once)", done as f64 / begun.elapsed().as_secs_f64());
    }
}
