//! Requests to servers: keys, tries, waits, and what answers are.

use crate::ModelError;
use rolegraft_trajectory::Key;
use serde_json::Value;
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

/// Posts JSON. 408, 429, 5xx, broken connections and answers that are none are tried again with growing, jittered waits;
/// `Retry-After` is obeyed; a context overflow is an answer, not an error.
pub(crate) struct Client {
    pub(crate) config: EndpointConfig,
    client: reqwest::Client,
    key: Option<String>,
    next: AtomicUsize,
    retried: AtomicUsize,
}

/// What a server says.
pub(crate) enum Answer<T> {
    /// What was asked for.
    Given(T),
    /// The prompt does not fit.
    Overflow,
}

enum Failure {
    Again { reason: String, wait: Option<Duration> },
    Final(String),
}

impl Client {
    /// A client; the key comes from the environment.
    ///
    /// # Errors
    /// If there is no URL, or no TLS on this machine.
    pub(crate) fn new(config: EndpointConfig) -> Result<Self, ModelError> {
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

    /// Posts until there is an answer that `read` understands, and gives it with the number of failed tries. `draws` are the
    /// waits' jitter.
    pub(crate) async fn post<T>(
        &self,
        path: &str,
        body: &Value,
        draws: Key,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<(Answer<T>, u32), ModelError> {
        let mut last = String::new();
        for attempt in 0..self.config.tries.max(1) {
            let url = &self.config.urls[self.next.fetch_add(1, Ordering::Relaxed) % self.config.urls.len()];
            match self.once(url, path, body, &read).await {
                Ok(answer) => return Ok((answer, attempt)),
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
                        let jitter = 0.5 + draws.uniform(u64::from(attempt) + 1);
                        let pause = wait.unwrap_or(grown.mul_f64(jitter));
                        tokio::time::sleep(pause.min(LONGEST_WAIT)).await;
                    }
                }
            }
        }
        Err(ModelError::Unavailable { reason: last, tries: self.config.tries })
    }

    async fn once<T>(
        &self,
        url: &str,
        path: &str,
        body: &Value,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Answer<T>, Failure> {
        let mut post = self.client.post(format!("{}{path}", url.trim_end_matches('/'))).json(body);
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
            return Ok(Answer::Overflow);
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
            return if overflow() { Ok(Answer::Overflow) } else { Err(again(format!("{url}: {shown}"))) };
        }
        read(&json).map(Answer::Given).ok_or_else(|| again(format!("{url}: no choices: {shown}")))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_never_shown() {
        let mut client = Client::new(EndpointConfig::of("http://localhost/v1", 1, vec![KEY_VARIABLE])).unwrap();
        client.key = Some("sk-canary".into());
        assert_eq!(client.redact("bad key sk-canary!"), "bad key [redacted]!");
    }
}
