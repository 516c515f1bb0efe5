//! OpenAI-compatible servers.

use crate::{ChatModel, Completion, ModelError, Reply, Request};
use rolegraft_trajectory::calls::{self, NativeCall};
use rolegraft_trajectory::{Finish, Role, Spent};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

/// Environment variable that holds the key of the model that is evaluated; keys are read from nowhere else.
pub const KEY_VARIABLE: &str = "ROLEGRAFT_API_KEY";
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Longest answer read, in bytes.
const MAX_BODY: usize = 64 << 20;
/// What servers say when a conversation does not fit.
const OVERFLOW: [&str; 5] =
    ["context length", "context_length", "maximum context", "too many tokens", "prompt is too long"];

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
    /// Repeated tries of all requests together; when they are spent, each request has one try.
    pub retries: usize,
    /// How long one answer may take.
    pub timeout: Duration,
    /// Environment variables that may hold the key; the first that is set does.
    pub key_variables: Vec<&'static str>,
}

impl EndpointConfig {
    /// The usual settings for `URL[,URL…][#MODEL]`.
    #[must_use]
    pub fn of(address: &str, concurrency: usize, key_variables: Vec<&'static str>) -> Self {
        let (urls, model) = address.split_once('#').unwrap_or((address, "default"));
        Self {
            urls: urls.split(',').map(str::to_owned).collect(),
            model: model.to_owned(),
            concurrency,
            tries: 6,
            retries: 1000,
            timeout: Duration::from_secs(600),
            key_variables,
        }
    }
}

/// A client of `/chat/completions`. 408, 429, 5xx, broken connections and answers that are none are tried again with
/// growing, jittered waits; `Retry-After` is obeyed; a context overflow is an answer, not an error.
pub struct Endpoint {
    config: EndpointConfig,
    client: reqwest::Client,
    key: Option<String>,
    next: AtomicUsize,
    retried: AtomicUsize,
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
        let client = reqwest::Client::builder().timeout(config.timeout).build();
        let client = client.map_err(|e| ModelError::Fatal(format!("no HTTP client: {e}")))?;
        let set = |name: &&str| std::env::var(name).ok().filter(|k| !k.is_empty());
        let key = config.key_variables.iter().find_map(set);
        Ok(Self { config, client, key, next: AtomicUsize::new(0), retried: AtomicUsize::new(0) })
    }

    /// Takes the key out of whatever is shown.
    fn redact(&self, text: &str) -> String {
        match &self.key {
            Some(key) => text.replace(key.as_str(), "[redacted]"),
            None => text.to_owned(),
        }
    }

    fn body(&self, request: &Request) -> Value {
        let native = request.tools.is_some();
        let mut open_call = None;
        let messages: Vec<Value> = request
            .messages
            .iter()
            .map(|m| match m.role {
                Role::Assistant if native => {
                    let (content, made) = calls::read(&m.content);
                    // upstream (tau-bench): only the first call is executed, and only it is remembered.
                    let Some(call) = made.into_iter().next() else { return plain(m.role, &m.content) };
                    open_call = Some((call.id.clone(), call.name.clone()));
                    let content = if content.is_empty() { Value::Null } else { content.into() };
                    json!({"role": "assistant", "content": content, "tool_calls": [{"id": call.id, "type": "function",
                        "function": {"name": call.name, "arguments": call.arguments}}]})
                }
                Role::Tool => match &open_call {
                    Some((id, name)) => {
                        json!({"role": "tool", "tool_call_id": id, "name": name, "content": m.content})
                    }
                    // Servers want a call's id in a tool message; a plain user turn carries the same text.
                    None => plain(Role::User, &m.content),
                },
                role => plain(role, &m.content),
            })
            .collect();
        let mut body = json!({
            "model": self.config.model, "messages": messages, "max_tokens": request.sampling.max_tokens,
            "temperature": request.sampling.temperature, "top_p": request.sampling.top_p,
            "seed": request.key.bits(0) >> 33,
        });
        if let Some(tools) = &request.tools {
            body["tools"] = Value::Array(tools.to_vec());
        }
        body
    }

    async fn once(&self, url: &str, request: &Request) -> Result<Completion, Failure> {
        let mut post =
            self.client.post(format!("{}/chat/completions", url.trim_end_matches('/'))).json(&self.body(request));
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
        let overflow = || OVERFLOW.iter().any(|w| text.contains(w));
        if matches!(status.as_u16(), 400 | 413) && overflow() {
            return Ok(Completion::overflow());
        }
        if status.as_u16() == 408 || status.as_u16() == 429 || status.is_server_error() {
            return Err(Failure::Again { reason: format!("{url}: {status}: {shown}"), wait });
        }
        if !status.is_success() {
            let variable = self.config.key_variables.first().copied().unwrap_or(KEY_VARIABLE);
            let hint = if status.as_u16() == 401 { format!("; set the key in {variable}") } else { String::new() };
            return Err(Failure::Final(format!("{url}: {status}: {shown}{hint}")));
        }
        if text.trim_start().starts_with("data:") {
            return Err(Failure::Final(format!("{url}: answers with an event stream that was not asked for")));
        }
        let json: Value = serde_json::from_str(&text).map_err(|_| again(format!("{url}: not JSON: {shown}")))?;
        if !json["error"].is_null() && json["choices"][0].is_null() {
            return if overflow() { Ok(Completion::overflow()) } else { Err(again(format!("{url}: {shown}"))) };
        }
        completion(&json, request.tools.is_some()).ok_or_else(|| again(format!("{url}: no choices: {shown}")))
    }
}

fn plain(role: Role, content: &str) -> Value {
    json!({"role": role.as_str(), "content": content})
}

/// What a server's answer says, calls included; `None` if it has no choice.
fn completion(json: &Value, native: bool) -> Option<Completion> {
    let choice = &json["choices"][0];
    let message = choice.get("message")?;
    let content = message["content"].as_str().unwrap_or_default();
    let made: Vec<NativeCall> = message["tool_calls"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|_| native)
        .map(|call| NativeCall {
            id: call["id"].as_str().unwrap_or_default().to_owned(),
            name: call["function"]["name"].as_str().unwrap_or_default().to_owned(),
            arguments: match &call["function"]["arguments"] {
                Value::String(text) => text.clone(),
                // Some servers send what they parsed.
                other => other.to_string(),
            },
        })
        .collect();
    let count = |name: &str| json["usage"][name].as_u64().unwrap_or(0);
    Some(Completion {
        text: calls::write(content, &made),
        ids: Vec::new(),
        finish: if choice["finish_reason"] == "length" { Finish::Length } else { Finish::Stop },
        spent: Spent {
            calls: 1,
            failures: 0,
            prompt_tokens: count("prompt_tokens"),
            completion_tokens: count("completion_tokens"),
        },
    })
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
                    Ok(mut completion) => {
                        completion.spent.failures = u64::from(attempt);
                        return Ok(completion);
                    }
                    Err(Failure::Final(reason)) => return Err(ModelError::Fatal(self.redact(&reason))),
                    Err(Failure::Again { reason, wait }) => {
                        last = self.redact(&reason);
                        let retried = self.retried.fetch_add(1, Ordering::Relaxed);
                        if retried >= self.config.retries {
                            last = format!("{last}; the run's {} repeated tries are spent", self.config.retries);
                            return Err(ModelError::Unavailable { reason: last, tries: attempt + 1 });
                        }
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
    fn has_native_tools(&self) -> bool {
        true
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
            recorded: Default::default(),
            tools: None,
            sampling: Sampling { temperature: 0.0, top_p: 1.0, max_tokens: 5 },
            key: Key::new(Seed(1)),
        }
    }
    fn endpoint(url: String, tries: u32) -> Endpoint {
        let config = EndpointConfig::of(&format!("{url}#m"), 1, vec![KEY_VARIABLE]);
        Endpoint::new(EndpointConfig { tries, timeout: Duration::from_secs(2), ..config }).unwrap()
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

    /// A server that never says more than `start` on each connection.
    async fn stalled(start: &'static str) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(start.as_bytes()).await;
                open.push(stream);
            }
        });
        url
    }

    #[tokio::test]
    async fn every_transient_status_is_tried_again_and_counted() {
        let transient = ["408 Timeout", "429 Slow", "500 Oops", "502 Gateway", "503 Busy", "529 Overloaded"];
        let soon = "retry-after: 0\r\n";
        let mut answers: Vec<String> = transient.iter().map(|status| answer(status, soon, "x")).collect();
        let in_a_moment = httpdate::fmt_http_date(SystemTime::now());
        answers.push(answer("429 Slow", &format!("retry-after: {in_a_moment}\r\n"), ""));
        let usage =
            r#"{"choices":[{"message":{"content":"hello"}}],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#;
        answers.push(answer("200 OK", "", usage));
        let (url, _seen) = server(answers).await;
        let completion = endpoint(url, 9).complete(&request()).await.unwrap();
        let expected = Spent { calls: 1, failures: 7, prompt_tokens: 3, completion_tokens: 2 };
        assert_eq!((completion.text.as_str(), completion.spent), ("hello", expected));
    }

    #[tokio::test]
    async fn what_no_try_mends_stops_at_once() {
        let stream = "data: {\"choices\":[]}\n\ndata: {\"choices\":[]}\n\ndata: [DONE]\n\n";
        for (status, body, expected) in [
            ("404 Not Found", "no such model", "404"),
            ("403 Forbidden", "no", "403"),
            ("413 Too Large", "<html>", "413"),
            ("400 Bad", "temperature?", "400"),
            ("200 OK", stream, "event stream"),
        ] {
            let (url, seen) = server(vec![answer(status, "", body)]).await;
            let error = endpoint(url, 5).complete(&request()).await.unwrap_err();
            assert!(matches!(&error, ModelError::Fatal(m) if m.contains(expected)), "{error}");
            assert_eq!(seen.await.unwrap().len(), 1);
        }
        for (status, body) in [
            ("413 Too Large", "prompt is too long: 9 tokens"),
            ("200 OK", r#"{"error":{"code":"context_length_exceeded"}}"#),
        ] {
            let (url, _) = server(vec![answer(status, "", body)]).await;
            assert_eq!(endpoint(url, 5).complete(&request()).await.unwrap().finish, Finish::ContextLimit);
        }
    }

    #[tokio::test]
    async fn endpoints_that_hang_or_are_nowhere_end_in_time() {
        let slow = "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"choices\"";
        let plain = stalled("HTTP/1.1 400 Bad Request\r\n\r\n").await.replace("http:", "https:");
        for url in [stalled("").await, stalled(slow).await, plain, "http://no-such-host.invalid/v1".into()] {
            let error = endpoint(url.clone(), 1).complete(&request()).await.unwrap_err();
            assert!(matches!(&error, ModelError::Unavailable { tries: 1, reason } if reason.contains(&url)), "{error}");
        }
    }

    #[tokio::test]
    async fn repeated_tries_have_a_budget() {
        let busy = || answer("503 Busy", "retry-after: 0\r\n", "");
        let (url, seen) = server((0..4).map(|_| busy()).collect()).await;
        let mut endpoint = endpoint(url, 9);
        endpoint.config.retries = 2;
        for tries in [3, 1] {
            let error = endpoint.complete(&request()).await.unwrap_err();
            assert!(matches!(&error, ModelError::Unavailable { tries: t, .. } if *t == tries), "{error}");
        }
        assert_eq!(seen.await.unwrap().len(), 4);
    }

    #[tokio::test]
    async fn native_calls_keep_their_characters() {
        let call = |id: &str| json!({"id": id, "function": {"name": "think", "arguments": "{\"thought\":  1"}});
        let body = json!({"choices": [{"message": {"content": null, "tool_calls": [call("a"), call("b")]}}]});
        let (url, seen) = server(vec![answer("200 OK", "", &body.to_string()), answer("200 OK", "", GOOD)]).await;
        let endpoint = endpoint(url, 1);
        let mut request = Request { tools: Some(std::sync::Arc::new(vec![json!({"type": "function"})])), ..request() };
        let first = endpoint.complete(&request).await.unwrap().text;
        assert_eq!(calls::read(&first).1[1].arguments, "{\"thought\":  1");
        request.messages.extend([Message::assistant(first), Message::tool("seen")]);
        endpoint.complete(&request).await.unwrap();
        let sent = seen.await.unwrap().pop().unwrap();
        let sent: Value = serde_json::from_str(sent.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        let function = json!({"name": "think", "arguments": "{\"thought\":  1"});
        let calls = json!([{"id": "a", "type": "function", "function": function}]);
        assert_eq!(sent["messages"][1], json!({"role": "assistant", "content": null, "tool_calls": calls}));
        let answer = json!({"role": "tool", "tool_call_id": "a", "name": "think", "content": "seen"});
        assert_eq!((&sent["messages"][2], &sent["tools"]), (&answer, &json!([{"type": "function"}])));
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
