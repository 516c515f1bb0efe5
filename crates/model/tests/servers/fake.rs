//! A server that says what a test tells it to.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// A status and a body.
pub type Said = (u16, String);

/// A request: its route, and what it holds.
pub type Asked = (String, Value);

pub struct Fake {
    pub url: String,
    seen: Arc<Mutex<Vec<Asked>>>,
    stopped: Arc<AtomicBool>,
}

impl Fake {
    /// Answers on a port of its own, many at once.
    pub fn start(answer: impl Fn(&str, &Value) -> Said + Send + Sync + 'static) -> Self {
        Self::on("127.0.0.1:0", answer)
    }

    /// The same on a port.
    pub fn on(address: &str, answer: impl Fn(&str, &Value) -> Said + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let (seen, stopped) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::<AtomicBool>::default());
        let answer = Arc::new(answer);
        let fake = Self { url, seen: seen.clone(), stopped: stopped.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (answer, seen) = (answer.clone(), seen.clone());
                std::thread::spawn(move || one(stream.unwrap(), &*answer, &seen));
            }
        });
        fake
    }

    /// What was asked so far, on routes that end so.
    pub fn asked(&self, route: &str) -> Vec<Value> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|(path, _)| path.ends_with(route)).map(|(_, body)| body.clone()).collect()
    }

    /// Takes no more connections.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.url.trim_start_matches("http://").trim_end_matches("/v1"));
    }
}

/// What a connection asks: method, route and body; nothing if it was closed.
pub fn heard(stream: &TcpStream) -> Option<(String, String, Value)> {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut first, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return None;
        }
        if first.is_empty() {
            first.clone_from(&line);
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let mut words = first.split(' ').map(str::to_owned);
    Some((words.next()?, words.next()?, serde_json::from_slice(&body).unwrap_or_default()))
}

/// Says it, and closes.
pub fn tell(mut stream: TcpStream, status: u16, said: &str) {
    let head =
        format!("HTTP/1.1 {status} X\r\nretry-after: 0\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", said.len());
    let _ = stream.write_all((head + said).as_bytes());
}

fn one(stream: TcpStream, answer: &dyn Fn(&str, &Value) -> Said, seen: &Mutex<Vec<Asked>>) {
    let Some((_, path, body)) = heard(&stream) else { return };
    seen.lock().unwrap().push((path.clone(), body.clone()));
    let (status, said) = answer(&path, &body);
    tell(stream, status, &said);
}

/// A list of models.
pub fn list(names: &[&str]) -> Said {
    let models: Vec<Value> = names.iter().map(|name| json!({"id": name, "object": "model", "created": 1})).collect();
    (200, json!({"object": "list", "data": models}).to_string())
}

/// A chat reply.
pub fn reply(message: Value, finish: &str) -> Said {
    let usage = json!({"prompt_tokens": 3, "completion_tokens": 2});
    let choice = json!({"index": 0, "message": message, "finish_reason": finish});
    (200, json!({"model": "m", "choices": [choice], "usage": usage}).to_string())
}

/// A chat reply of text.
pub fn text(content: &str) -> Said {
    reply(json!({"role": "assistant", "content": content}), "stop")
}
