//! A server of completions from token ids, as vLLM's: the protocol, with the tracer's decoder behind it.

#[allow(dead_code, reason = "not every test needs all of it")]
#[path = "../../../model/tests/servers/fake.rs"]
mod http;

use http::{heard, tell};
use rolegraft_checkpoint::Checkpoint;
use rolegraft_conformance::{Decoded, Loaded};
use rolegraft_decoder::{Decoder, Place};
use rolegraft_trajectory::Vocabulary;
use serde_json::json;
use std::net::{TcpListener, TcpStream};
use std::path::Path;

/// Starts it, and gives its address. The model `text` gives no ids; the model `wrong` gives wrong ones.
pub(crate) fn start(model: &Path) -> String {
    let decoder = Decoder::load(&Checkpoint::open(model).unwrap(), &Place::cpu()).unwrap();
    let vocabulary = Vocabulary::read(model).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            answer(stream.unwrap(), &decoder, &vocabulary);
        }
    });
    format!("http://{address}/v1")
}

fn answer(stream: TcpStream, decoder: &Decoder, vocabulary: &Vocabulary) {
    let (method, path, asked) = heard(&stream).unwrap();
    assert_eq!((method.as_str(), path.as_str()), ("POST", "/v1/completions"));
    let prompt: Vec<u32> = serde_json::from_value(asked["prompt"].clone()).unwrap();
    let count = asked["max_tokens"].as_u64().unwrap() as usize;
    let Decoded::Ids(mut ids) = decoder.greedy(&prompt, count).unwrap() else { panic!("no ids") };
    if asked["model"] == "wrong" {
        ids.iter_mut().for_each(|id| *id = id.wrapping_add(1));
    }
    let mut choice = json!({"index": 0, "text": vocabulary.decode(&ids), "finish_reason": "length"});
    if asked["return_token_ids"] == true && asked["model"] != "text" {
        choice["token_ids"] = json!(ids);
    }
    let body = json!({"object": "text_completion", "model": asked["model"], "choices": [choice]}).to_string();
    tell(stream, 200, &body);
}
