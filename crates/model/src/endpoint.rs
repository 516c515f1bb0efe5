//! OpenAI-compatible servers.

use crate::{ChatModel, Completion, ModelError, Reply, Request};
use rolegraft_trajectory::{Finish, Role};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

/// Environment variable that holds the key; keys are read from nowhere else.
const KEY_VARIABLE: &str = "ROLEGRAFT_API_KEY";
const TIMEOUT: Duration = Duration::from_secs(600);
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Longest answer read, in bytes.
const MAX_BODY: usize = 64 << 20;

/// Where the servers are and how hard to try.
#[derive(Debug, Clone)]
pub struct EndpointConfig {
    /// Base URLs ending in `/v1`; requests go round.
    pub urls: Vec<String>,
    /// The model's name there.
    pub model: String,
    /// Requests open at once.
    pub concurrency: usize,
    /// Tries of one request.
    pub tries: u32,
}

/// A client of `/chat/completions`. 429, 5xx and broken connections are tried again with growing, jittered waits;
/// `Retry-After` is obeyed; a context overflow is an answer, not an error.
pub struct Endpoint {
    config: EndpointConfig,
    client: reqwest::Client,
    key: Option<String>,
    next: AtomicUsize,
}

enum Failure {
    Again { reason: String, wait: Option<Duration> },
    Final(String),
}

impl Endpoint {
    /// A client; the key comes from the environment.
    ///
    /// # Errors
    /// If there is no URL, or no TLS on this machine.
    pub fn new(config: EndpointConfig) -> Result<Self, ModelError> {
        if config.urls.is_empty() {
            return Err(ModelError::Fatal("no endpoint given".into()));
        }
        let client = reqwest::Client::builder().timeout(TIMEOUT).build();
        let client = client.map_err(|e| ModelError::Fatal(format!("no HTTP client: {e}")))?;
        let key = std::env::var(KEY_VARIABLE).ok().filter(|k| !k.is_empty());
        Ok(Self { config, client, key, next: AtomicUsize::new(0) })
    }

    /// Takes the key out of whatever is shown.
    fn redact(&self, text: &str) -> String {
        match &self.key {
            Some(key) => text.replace(key.as_str(), "[redacted]"),
            None => text.to_owned(),
        }
    }

    async fn once(&self, url: &str, request: &Request) -> Result<Completion, Failure> {
        let messages: Vec<Value> = request
            .messages
            .iter()
            .map(|m| {
                // Servers want a call's id in a tool message; a plain user turn carries the same text.
                let role = if m.role == Role::Tool { Role::User } else { m.role };
                json!({"role": role.as_str(), "content": m.content})
            })
            .collect();
        let body = json!({
            "model": self.config.model, "messages": messages, "max_tokens": request.sampling.max_tokens,
            "temperature": request.sampling.temperature, "top_p": request.sampling.top_p,
            "seed": request.key.bits(0) >> 33,
        });
        let mut post = self.client.post(format!("{}/chat/completions", url.trim_end_matches('/'))).json(&body);
        if let Some(key) = &self.key {
            post = post.bearer_auth(key);
        }
        let again = |reason: String| Failure::Again { reason, wait: None };
        let mut response = post.send().await.map_err(|e| again(format!("{url}: {}", root_cause(&e))))?;
        let status = response.status();
        let wait = response.headers().get("retry-after").and_then(|v| v.to_str().ok()).and_then(retry_after);
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| again(format!("{url}: {}", root_cause(&e))))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_BODY {
                return Err(Failure::Final(format!("{url}: the answer is longer than {} MiB", MAX_BODY >> 20)));
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        let shown: String = text.chars().take(200).filter(|c| !c.is_control()).collect();
        let overflow = ["context length", "context_length", "maximum context", "too many tokens"];
        if matches!(status.as_u16(), 400 | 413) && overflow.iter().any(|w| text.contains(w)) {
            return Ok(Completion {
                text: String::new(),
                ids: Vec::new(),
                finish: Finish::ContextLimit,
                prompt_tokens: 0,
            });
        }
        if status.as_u16() == 408 || status.as_u16() == 429 || status.is_server_error() {
            return Err(Failure::Again { reason: format!("{url}: {status}: {shown}"), wait });
        }
        if !status.is_success() {
            let hint = if status.as_u16() == 401 { format!("; set the key in {KEY_VARIABLE}") } else { String::new() };
            return Err(Failure::Final(format!("{url}: {status}: {shown}{hint}")));
        }
        let json: Value = serde_json::from_str(&text).map_err(|_| again(format!("{url}: not JSON: {shown}")))?;
        let choice = &json["choices"][0];
        if choice.is_null() {
            return Err(again(format!("{url}: no choices: {shown}")));
        }
        let finish = if choice["finish_reason"] == "length" { Finish::Length } else { Finish::Stop };
        let prompt_tokens = json["usage"]["prompt_tokens"].as_u64().unwrap_or(0) as usize;
        let content = choice["message"]["content"].as_str().unwrap_or_default().to_owned();
        Ok(Completion { text: content, ids: Vec::new(), finish, prompt_tokens })
    }
}

fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Seconds, or an HTTP date.
fn retry_after(value: &str) -> Option<Duration> {
    match value.trim().parse::<u64>() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(SystemTime::now()).ok(),
    }
}

impl ChatModel for Endpoint {
    fn complete<'a>(&'a self, request: &'a Request) -> Reply<'a> {
        Box::pin(async move {
            let mut last = String::new();
            for attempt in 0..self.config.tries.max(1) {
                let url = &self.config.urls[self.next.fetch_add(1, Ordering::Relaxed) % self.config.urls.len()];
                match self.once(url, request).await {
                    Ok(completion) => return Ok(completion),
                    Err(Failure::Final(reason)) => return Err(ModelError::Fatal(self.redact(&reason))),
                    Err(Failure::Again { reason, wait }) => {
                        last = self.redact(&reason);
                        if attempt + 1 < self.config.tries {
                            let grown = FIRST_WAIT.saturating_mul(1 << attempt.min(10));
                            let jitter = 0.5 + request.key.uniform(u64::from(attempt) + 1);
                            let pause = wait.unwrap_or(grown.mul_f64(jitter));
                            tokio::time::sleep(pause.min(LONGEST_WAIT)).await;
                        }
                    }
                }
            }
            Err(ModelError::Unavailable { reason: last, tries: self.config.tries })
        })
    }
    fn concurrency(&self) -> usize {
        self.config.concurrency
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sampling;
    use rolegraft_trajectory::{EpisodeKey, Key, Message, Seed};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A server that gives one scripted answer a connection.
    async fn server(answers: Vec<String>) -> (String, tokio::task::JoinHandle<Vec<String>>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let task = tokio::spawn(async move {
            let mut seen = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = vec![0; 1 << 16];
                let n = stream.read(&mut buffer).await.unwrap();
                seen.push(String::from_utf8_lossy(&buffer[..n]).into_owned());
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            }
            seen
        });
        (url, task)
    }
    fn answer(status: &str, headers: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
    }
    fn request() -> Request {
        Request {
            episode: EpisodeKey { suite: "s".into(), task: "t".into(), trial: 0 },
            turn: 0,
            messages: vec![Message::user("hi")],
            recorded: vec![],
            sampling: Sampling { temperature: 0.0, top_p: 1.0, max_tokens: 5 },
            key: Key::new(Seed(1)),
        }
    }
    fn endpoint(url: String, tries: u32) -> Endpoint {
        Endpoint::new(EndpointConfig { urls: vec![url], model: "m".into(), concurrency: 1, tries }).unwrap()
    }
    const GOOD: &str = r#"{"choices":[{"message":{"content":"hello"},"finish_reason":"stop"}]}"#;

    #[tokio::test]
    async fn transient_failures_are_tried_again() {
        let (url, seen) = server(vec![
            answer("429 Too Many Requests", "retry-after: 0\r\n", "slow down"),
            answer("503 Unavailable", "retry-after: Thu, 01 Jan 1970 00:00:00 GMT\r\n", "<html>"),
            answer("200 OK", "", "<html>not json</html>"),
            answer("200 OK", "", r#"{"choices":[]}"#),
            "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"cut".into(),
            answer("200 OK", "", GOOD),
        ])
        .await;
        assert_eq!(endpoint(url, 9).complete(&request()).await.unwrap().text, "hello");
        assert_eq!(seen.await.unwrap().len(), 6);
    }

    #[tokio::test]
    async fn permanent_failures_stop_and_overflow_is_an_answer() {
        let (url, _seen) = server(vec![
            answer("401 Unauthorized", "", "no"),
            answer("400 Bad Request", "", "maximum context length is 8"),
            answer("200 OK", "", r#"{"choices":[{"message":{"content":null}}]}"#),
        ])
        .await;
        let endpoint = endpoint(url, 3);
        assert!(matches!(endpoint.complete(&request()).await, Err(ModelError::Fatal(m)) if m.contains(KEY_VARIABLE)));
        assert_eq!(endpoint.complete(&request()).await.unwrap().finish, Finish::ContextLimit);
        assert_eq!(endpoint.complete(&request()).await.unwrap().text, "");
    }

    #[tokio::test]
    async fn refused_connections_end_with_the_address() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = endpoint(format!("http://{address}/v1"), 2).complete(&request()).await.unwrap_err();
        assert!(
            matches!(&error, ModelError::Unavailable { tries: 2, reason } if reason.contains(&address.to_string())),
            "{error}"
        );
    }

    #[test]
    fn the_key_is_never_shown() {
        let mut endpoint = endpoint("http://localhost/v1".into(), 1);
        endpoint.key = Some("sk-canary".into());
        assert_eq!(endpoint.redact("bad key sk-canary!"), "bad key [redacted]!");
    }
}
