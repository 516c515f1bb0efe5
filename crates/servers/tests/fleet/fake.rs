//! A server that speaks the routes of vLLM and SGLang, and holds the word in `weights` of a checkpoint's folder.

use crate::http::{heard, tell};
use serde_json::{Value, json};
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// What is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// `/health` fails.
    NeverReady,
    /// It keeps the old version, and says that all went well.
    OldVersion,
    /// It keeps the old weights, and says that all went well.
    OldWeights,
    /// It takes other weights than those it was given.
    WrongWeights,
    /// Its prefix cache stays as it is.
    OldCache,
    /// It packs tensors away, so that their checksums are of nothing: vLLM on CPUs.
    Packed,
    /// It dies when weights come.
    Dies,
    /// It has no routes of its own.
    Plain,
}

pub struct Fake {
    pub url: String,
    held: Arc<Held>,
}

struct Held {
    fault: Fault,
    name: String,
    root: String,
    about: Value,
    dead: AtomicBool,
    now: Mutex<Now>,
}

struct Now {
    weights: String,
    version: String,
    paused: bool,
    asked: Vec<String>,
}

pub fn weights(dir: &str) -> Option<String> {
    Some(fs::read_to_string(Path::new(dir).join("weights")).ok()?.trim().to_owned())
}

impl Fake {
    /// Answers on a thread; `about` is what `/about` says.
    pub fn start(port: u16, dir: &str, name: &str, version: &str, about: Value, fault: Fault) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (weights, version) = (weights(dir).unwrap(), version.to_owned());
        let now = Mutex::new(Now { weights, version, paused: false, asked: Vec::new() });
        let (name, root) = (name.to_owned(), dir.to_owned());
        let held = Arc::new(Held { fault, name, root, about, dead: AtomicBool::new(false), now });
        let fake = Self { url, held: held.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if held.dead.load(Ordering::Relaxed) {
                    return;
                }
                let held = held.clone();
                std::thread::spawn(move || one(stream.unwrap(), &held));
            }
        });
        fake
    }

    /// The routes asked so far that change anything.
    pub fn asked(&self) -> Vec<String> {
        self.held.now.lock().unwrap().asked.clone()
    }
    pub fn weights(&self) -> String {
        self.held.now.lock().unwrap().weights.clone()
    }
}

fn one(stream: TcpStream, held: &Held) {
    let Some((method, path, body)) = heard(&stream) else { return };
    let (status, said) = held.answer(&method, &path, &body);
    if !held.dead.load(Ordering::Relaxed) {
        tell(stream, status, &said.to_string());
    }
}

impl Held {
    fn answer(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let mut now = self.now.lock().unwrap();
        match (method, path) {
            ("GET", "/health") => (if self.fault == Fault::NeverReady { 503 } else { 200 }, json!({})),
            ("GET", "/about") => (200, self.about.clone()),
            ("GET", "/v1/models") => (200, json!({"data": [{"id": self.name, "root": self.root}]})),
            ("POST", "/v1/completions") => (200, json!({"choices": [{"text": now.weights}]})),
            _ if self.fault == Fault::Plain => (404, json!({"detail": "Not Found"})),
            ("POST", "/generate") => (200, json!({"text": now.weights, "meta_info": {"weight_version": now.version}})),
            ("GET", "/weight_info") => (200, json!({"weight_version": now.version})),
            ("POST", "/weight_checker") => {
                let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
                let linear = if self.fault == Fault::Packed { nothing } else { &now.weights };
                (200, json!({"checksums": {"embed_tokens": now.weights, "qkv_proj": linear}}))
            }
            ("POST", change) => {
                now.asked.push(change.to_owned());
                self.change(&mut now, change, body)
            }
            _ => (404, json!({"detail": "Not Found"})),
        }
    }

    fn change(&self, now: &mut Now, path: &str, body: &Value) -> (u16, Value) {
        match path {
            "/update_weights_from_disk" => match self.load(now, body["model_path"].as_str().unwrap()) {
                true => {
                    self.call(now, body["weight_version"].as_str().unwrap());
                    assert_eq!(body["flush_cache"], true);
                    (200, json!({"success": true, "message": "Succeeded to update model weights."}))
                }
                false => (400, json!({"success": false, "message": "Failed to get weights iterator"})),
            },
            "/pause?mode=wait" => {
                now.paused = true;
                (200, json!({"status": "paused"}))
            }
            "/collective_rpc" => {
                assert_eq!(body["method"], "reload_weights");
                assert_eq!(body["kwargs"]["is_checkpoint_format"], true);
                match self.load(now, body["kwargs"]["weights_path"].as_str().unwrap()) {
                    true => (200, json!({"results": [null]})),
                    false => (500, json!({"error": {"message": "Call to collective_rpc method failed"}})),
                }
            }
            "/reset_prefix_cache" => (200, json!({"success": self.fault != Fault::OldCache})),
            "/update_weight_version" => {
                self.call(now, body["new_version"].as_str().unwrap());
                (200, json!({"success": true, "new_version": body["new_version"]}))
            }
            "/resume" => {
                now.paused = false;
                (200, json!({"status": "resumed"}))
            }
            _ => (404, json!({"detail": "Not Found"})),
        }
    }

    fn load(&self, now: &mut Now, dir: &str) -> bool {
        let Some(weights) = weights(dir) else { return false };
        match self.fault {
            Fault::Dies => self.dead.store(true, Ordering::Relaxed),
            Fault::OldWeights => {}
            Fault::WrongWeights => now.weights = format!("not {weights}"),
            _ => now.weights = weights,
        }
        true
    }

    fn call(&self, now: &mut Now, version: &str) {
        if self.fault != Fault::OldVersion {
            version.clone_into(&mut now.version);
        }
    }
}
