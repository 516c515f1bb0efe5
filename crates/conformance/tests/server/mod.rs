//! A server of completions from token ids, as vLLM's: the protocol, with the tracer's decoder behind it.

use rolegraft_checkpoint::Checkpoint;
use rolegraft_conformance::{Decoded, Loaded};
use rolegraft_saliency::Decoder;
use rolegraft_trajectory::Vocabulary;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

/// Starts it, and gives its address. The model `text` gives no ids; the model `wrong` gives wrong ones.
pub(crate) fn start(model: &Path) -> String {
    let decoder = Decoder::load(&Checkpoint::open(model).unwrap()).unwrap();
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

fn answer(mut stream: TcpStream, decoder: &Decoder, vocabulary: &Vocabulary) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.to_lowercase());
    }
    assert!(lines[0].starts_with("post /v1/completions "), "{lines:?}");
    let length = lines.iter().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.trim().parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    let asked: Value = serde_json::from_slice(&body).unwrap();
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
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).unwrap();
}
