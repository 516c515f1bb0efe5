//! The part of the function-call version's controller that workers need: somewhere to send their heartbeats.

use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Longest request read, in bytes.
const MAX_REQUEST: u64 = 1 << 20;
/// How long a worker may take over a request.
const LIMIT: Duration = Duration::from_secs(5);

/// A worker as its heartbeat describes it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Worker {
    /// Its task.
    pub name: String,
    /// Where it answers: `http://HOST:PORT/api`.
    pub address: String,
    /// Samples at once.
    #[serde(default)]
    pub concurrency: u64,
    /// Its samples.
    #[serde(default)]
    pub indices: Vec<Value>,
}

type Known = Arc<(Mutex<BTreeMap<String, Worker>>, Condvar)>;

/// Listens for workers.
pub struct Controller {
    address: SocketAddr,
    known: Known,
}

impl Controller {
    /// Listens at an address, for as long as the program runs.
    ///
    /// # Errors
    /// If the address cannot be listened at.
    pub fn listen(address: &str) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let known: Known = Arc::default();
        let seen = known.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = seen.clone();
                std::thread::spawn(move || answer(stream, &seen));
            }
        });
        Ok(Self { address, known })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for a worker of a task.
    #[must_use]
    pub fn worker(&self, task: &str, patience: Duration) -> Option<Worker> {
        let (workers, heard) = &*self.known;
        let workers = workers.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = heard.wait_timeout_while(workers, patience, |workers| !workers.contains_key(task));
        waited.unwrap_or_else(PoisonError::into_inner).0.get(task).cloned()
    }
}

/// Answers one request: heartbeats are noted, all else is acknowledged.
fn answer(stream: TcpStream, known: &Known) {
    let _ = stream.set_read_timeout(Some(LIMIT));
    let mut reader = BufReader::new((&stream).take(MAX_REQUEST));
    let (mut line, mut length, mut path) = (String::new(), 0usize, String::new());
    while reader.read_line(&mut line).is_ok_and(|n| n > 0) {
        if path.is_empty() {
            line.split(' ').nth(1).unwrap_or_default().clone_into(&mut path);
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
        if line.trim().is_empty() {
            break;
        }
        line.clear();
    }
    let mut body = vec![0; length.min(MAX_REQUEST as usize)];
    let worker = reader.read_exact(&mut body).ok().and_then(|()| serde_json::from_slice::<Worker>(&body).ok());
    if let Some(worker) = worker.filter(|_| path.ends_with("/receive_heartbeat")) {
        let (workers, heard) = &**known;
        workers.lock().unwrap_or_else(PoisonError::into_inner).insert(worker.name.clone(), worker);
        heard.notify_all();
    }
    let answer =
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
    let _ = (&stream).write_all(answer.as_bytes());
}
