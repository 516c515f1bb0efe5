//! Requests to fakes.

use rolegraft_model::{Endpoint, EndpointConfig, KEY_VARIABLE, Request, Sampling};
use rolegraft_trajectory::{EpisodeKey, Key, Message, Seed};
use std::time::Duration;

pub const SAMPLING: Sampling = Sampling { temperature: 0.0, top_p: 1.0, max_tokens: 64 };

pub fn of_task(task: &str) -> Request {
    Request {
        episode: EpisodeKey { suite: "s".into(), task: task.into(), trial: 0 },
        turn: 0,
        messages: vec![Message::user("hi")].into(),
        recorded: Default::default(),
        reasoning: Default::default(),
        tools: None,
        sampling: SAMPLING,
        key: Key::new(Seed(1)),
    }
}

pub fn request() -> Request {
    of_task("t")
}

pub fn config(url: &str, tries: u32) -> EndpointConfig {
    let config = EndpointConfig::of(&format!("{url}#m"), 64, vec![KEY_VARIABLE]);
    EndpointConfig { tries, timeout: Duration::from_secs(2), ..config }
}

pub fn endpoint(url: &str, tries: u32) -> Endpoint {
    Endpoint::new(config(url, tries)).unwrap()
}
