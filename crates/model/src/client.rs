//! Requests to servers: keys, tries, waits, and what answers are.

use crate::ModelError;
use crate::fields::Fields;
use crate::load::Load;
use crate::refusal::{Refusal, refusal};
use crate::request::{GENERATE, Post, Written, with};
use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use serde_json::Value;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Environment variable that holds the key of the model that is evaluated; keys are read from nowhere else.
pub const KEY_VARIABLE: &str = "ROLEGRAFT_API_KEY";
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Between two looks whether a server that has gone is back.
const LOOK: Duration = Duration::from_secs(1);
/// Longest answer read, in bytes.
const MAX_BODY: usize = 64 << 20;
/// Failures of a server at one request, while it answers others, that are laid to what the model said.
const BROKEN: u32 = 3;

/// Where the servers are and how hard to try.
#[derive(Debug, Clone)]
pub struct EndpointConfig {
    /// Base URLs ending in `/v1`; all requests of an episode go to one of them.
    pub urls: Vec<String>,
    /// The model's name there; absent: the only one there is.
    pub model: Option<String>,
    /// Most requests open at once; how many there are is found out.
    pub concurrency: usize,
    /// Tries of one request.
    pub tries: u32,
    /// Repeated tries of all requests together; when they are spent, each request has one try.
    pub retries: usize,
    /// How long one answer may take.
    pub timeout: Duration,
    /// How long a server that has gone is waited for.
    pub patience: Duration,
    /// Environment variables that may hold the key; the first that is set does.
    pub key_variables: Vec<&'static str>,
    /// What is done to requests.
    pub fields: Fields,
    /// The name under which earlier reasoning is sent back.
    pub reasoning: Option<String>,
}

impl EndpointConfig {
    /// The usual settings for `URL[,URL…][#MODEL]`.
    #[must_use]
    pub fn of(address: &str, concurrency: usize, key_variables: Vec<&'static str>) -> Self {
        let (urls, model) = address.split_once('#').map_or((address, None), |(urls, model)| (urls, Some(model)));
        Self {
            urls: urls.split(',').map(|url| url.trim_end_matches('/').to_owned()).collect(),
            model: model.map(str::to_owned),
            concurrency,
            tries: 6,
            retries: 1000,
            timeout: Duration::from_secs(600),
            patience: Duration::from_secs(120),
            key_variables,
            fields: Fields::default(),
            reasoning: None,
        }
    }
}

/// What a server says.
pub(crate) enum Answer<T> {
    /// What was asked for.
    Given(T),
    /// The prompt does not fit.
    Overflow,
    /// A content filter.
    Filtered,
    /// The server fails at this request alone: it cannot read what the model says.
    Unreadable,
    /// Another request may be taken.
    Refused(Refused),
}

impl<T> Answer<T> {
    /// The same, of what `of` makes of what was given.
    pub(crate) fn map<U>(self, of: impl FnOnce(T) -> U) -> Answer<U> {
        match self {
            Self::Given(given) => Answer::Given(of(given)),
            Self::Overflow => Answer::Overflow,
            Self::Filtered => Answer::Filtered,
            Self::Unreadable => Answer::Unreadable,
            Self::Refused(refused) => Answer::Refused(refused),
        }
    }
}

/// A request that was refused for what it is.
#[derive(Debug, Clone)]
pub(crate) struct Refused {
    pub(crate) why: Refusal,
    /// The address, the status and the server's words.
    pub(crate) said: String,
}

impl Refused {
    /// A refusal that no other request would mend.
    pub(crate) fn words(said: &str) -> Self {
        Self { why: Refusal::Final, said: said.to_owned() }
    }
}

impl From<Refused> for ModelError {
    fn from(refused: Refused) -> Self {
        Self::Fatal(match refused.why {
            Refusal::Field(name) if name == "max_tokens" => {
                format!("{}; rename the field with `--api-field max_tokens=max_completion_tokens`", refused.said)
            }
            Refusal::Field(name) => format!("{}; leave the field out with `--api-field {name}=`", refused.said),
            Refusal::WantsReasoning => {
                format!("{}; say `reasoning = \"reasoning_content\"` under [endpoint]", refused.said)
            }
            _ => refused.said,
        })
    }
}

/// Posts JSON. 408, 429, 5xx, broken connections and answers that are none are tried again with growing, jittered waits;
/// `Retry-After` is obeyed; a server that was there is waited for.
pub(crate) struct Client {
    pub(crate) config: EndpointConfig,
    http: reqwest::Client,
    key: Option<String>,
    load: Load,
    retried: AtomicUsize,
    /// Requests answered so far.
    answered: AtomicU64,
    gone: AtomicBool,
    /// Whether a failure at a question is an answer to it.
    probing: bool,
    /// A request that the server has answered, and where: whether it answers at all.
    ping: OnceLock<(&'static str, Bytes)>,
}

/// An answer before it is understood.
struct Got {
    status: u16,
    wait: Option<Duration>,
    text: String,
}

impl Client {
    /// A client that takes a failure at a question for the answer to it.
    pub(crate) fn probing(config: EndpointConfig) -> Result<Self, ModelError> {
        Ok(Self { probing: true, ..Self::new(config)? })
    }

    /// A client of the same servers, which have answered already.
    pub(crate) fn settled(self, config: EndpointConfig) -> Result<Self, ModelError> {
        Ok(Self { answered: AtomicU64::new(1), ping: self.ping, ..Self::new(config)? })
    }

    /// A client; the key comes from the environment.
    ///
    /// # Errors
    /// If there is no URL, or no TLS on this machine.
    pub(crate) fn new(config: EndpointConfig) -> Result<Self, ModelError> {
        if config.urls.iter().all(String::is_empty) {
            return Err(ModelError::Fatal("no endpoint given".into()));
        }
        // A redirection would make a question of an answer, and send the key elsewhere.
        let http =
            reqwest::Client::builder().timeout(config.timeout).redirect(reqwest::redirect::Policy::none()).build();
        let http = http.map_err(|e| ModelError::Fatal(format!("no HTTP client: {e}")))?;
        let set = |name: &&str| std::env::var(name).ok().filter(|k| !k.is_empty());
        let key = config.key_variables.iter().find_map(set);
        Ok(Self {
            load: Load::new(config.concurrency),
            config,
            http,
            key,
            retried: AtomicUsize::new(0),
            answered: AtomicU64::new(0),
            gone: AtomicBool::new(false),
            probing: false,
            ping: OnceLock::new(),
        })
    }

    /// Requests that may be open at once, now.
    pub(crate) fn concurrency(&self) -> usize {
        self.load.limit()
    }
    /// Waits until more may be open.
    pub(crate) async fn grown(&self) {
        self.load.grown().await;
    }

    /// The model's name as it is sent.
    pub(crate) fn model(&self) -> &str {
        self.config.model.as_deref().unwrap_or("default")
    }

    /// Takes the key out of whatever is shown.
    fn redact(&self, text: &str) -> String {
        match &self.key {
            Some(key) => text.replace(key.as_str(), "[redacted]"),
            None => text.to_owned(),
        }
    }

    /// The first words of a body, as people may see them.
    fn shown(&self, text: &str) -> String {
        self.redact(text).chars().filter(|c| !c.is_control()).take(200).collect()
    }

    /// Remembers a request as one that the server answers.
    pub(crate) fn answers(&self, post: Post<'_>) -> Result<(), ModelError> {
        let Written { path, body, .. } = Written::of(post, self.model(), &self.config.fields)?;
        let _ = self.ping.set((path, body));
        Ok(())
    }

    /// Posts until there is an answer that `read` understands, and gives it with the number of failed tries.
    pub(crate) async fn post<T>(
        &self,
        post: Post<'_>,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<(Answer<T>, u32), ModelError> {
        let Written { mut body, mut asked, fields, path, is_chat, draws, home } =
            Written::of(post, self.model(), &self.config.fields)?;
        // Servers are tried in turn from the request's own.
        let mut server = usize::try_from(home % self.config.urls.len() as u64).unwrap_or(0);
        let (mut failures, mut broken, mut gone) = (0, 0, None::<(Instant, usize)>);
        let mut before = 0;
        loop {
            if self.gone.load(Ordering::Relaxed) {
                return Err(self.gone_from(server));
            }
            let url = &self.config.urls[server];
            let place = self.load.enter().await;
            let got = self.once(url, path, body.clone()).await;
            drop(place);
            let (reason, wait) = match got {
                Ok(got) => {
                    gone = None;
                    let why = match self.understood(&got, &read) {
                        Ok(given) => {
                            self.answered.fetch_add(1, Ordering::Relaxed);
                            self.load.answered();
                            return Ok((Answer::Given(given), failures));
                        }
                        Err(None) => refusal(got.status, &got.text, &fields, asked.unwrap_or(0)),
                        Err(Some(why)) => why,
                    };
                    let said = self.said(url, got.status, &got.text);
                    match why {
                        Refusal::Overflow => return Ok((Answer::Overflow, failures)),
                        Refusal::Filtered => return Ok((Answer::Filtered, failures)),
                        // One request alone is forbidden for what it says.
                        Refusal::Forbidden if got.status == 403 && self.others_pass(self.answered(), url).await => {
                            return Ok((Answer::Filtered, failures));
                        }
                        Refusal::TooManyAsked(room) => {
                            let name = self.config.fields.name_of("max_tokens");
                            let fewer = asked.map(|asked| room.unwrap_or(asked / 2).min(asked.saturating_sub(1)));
                            match (name, fewer) {
                                (Some(name), Some(fewer)) if fewer > 0 => {
                                    (asked, body) = (Some(fewer), with(&body, name, fewer.into())?);
                                }
                                _ => return Ok((Answer::Overflow, failures)),
                            }
                            continue;
                        }
                        // A question may be one that the route does not know.
                        Refusal::Passing if self.probing && got.status < 300 => {
                            return Ok((Answer::Refused(Refused { why: Refusal::Final, said }), failures));
                        }
                        Refusal::Field(_) | Refusal::WantsReasoning | Refusal::Final => {
                            return Ok((Answer::Refused(Refused { why, said }), failures));
                        }
                        Refusal::Forbidden if self.probing && got.status == 403 => {
                            return Ok((Answer::Refused(Refused { why, said }), failures));
                        }
                        Refusal::Forbidden => return Err(self.forbidden(url, got.status, &got.text)),
                        Refusal::Slow => self.load.cut(),
                        Refusal::Broken | Refusal::Passing => self.load.pause(),
                    }
                    if why == Refusal::Broken {
                        if broken == 0 {
                            before = self.answered();
                        }
                        broken += 1;
                        if self.probing {
                            return Ok((Answer::Unreadable, failures));
                        }
                        if broken >= BROKEN && is_chat && self.others_pass(before, url).await {
                            return Ok((Answer::Unreadable, failures));
                        }
                    }
                    (said, got.wait)
                }
                Err(error) => {
                    let was_there = self.answered() > 0;
                    let reason = format!("{url}: {}", self.redact(&root_cause(&error)));
                    server = (server + 1) % self.config.urls.len();
                    if error.is_timeout() && self.probing {
                        let reason =
                            format!("{url}: no answer to a short question within {} s", self.config.timeout.as_secs());
                        return Err(ModelError::Unavailable { reason, tries: 1 });
                    }
                    if error.is_connect() && was_there {
                        let (since, looks) = gone.get_or_insert((Instant::now(), 0));
                        if since.elapsed() >= self.config.patience {
                            self.gone.store(true, Ordering::Relaxed);
                            continue;
                        }
                        *looks += 1;
                        if *looks % self.config.urls.len() == 0 {
                            tokio::time::sleep(LOOK.min(self.config.patience)).await;
                        }
                        continue;
                    }
                    (reason, None)
                }
            };
            failures += 1;
            let retried = self.retried.fetch_add(1, Ordering::Relaxed);
            if retried >= self.config.retries {
                let reason = format!("{reason}; the run's {} repeated tries are spent", self.config.retries);
                return Err(ModelError::Unavailable { reason, tries: failures });
            }
            if failures >= self.config.tries {
                return Err(ModelError::Unavailable { reason, tries: failures });
            }
            let grown = FIRST_WAIT.saturating_mul(1 << (failures - 1).min(10));
            let jitter = 0.5 + draws.uniform(u64::from(failures));
            tokio::time::sleep(wait.unwrap_or(grown.mul_f64(jitter)).min(LONGEST_WAIT)).await;
        }
    }

    fn gone_from(&self, server: usize) -> ModelError {
        ModelError::Gone { url: self.config.urls[server].clone(), seconds: self.config.patience.as_secs() }
    }

    fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Whether the server answers other requests than one that it fails at: more than those `before`, or one that it answered
    /// once.
    async fn others_pass(&self, before: u64, url: &str) -> bool {
        if self.answered() > before {
            return true;
        }
        let Some((path, body)) = self.ping.get() else { return false };
        let got = self.once(url, path, body.clone()).await;
        got.is_ok_and(|got| (200..300).contains(&got.status))
    }

    async fn once(&self, url: &str, path: &str, body: Bytes) -> Result<Got, reqwest::Error> {
        let post = self.http.post(address(url, path)).header(CONTENT_TYPE, "application/json").body(body);
        self.answer_to(post).await
    }

    /// Gets a page, in a time of its own.
    pub(crate) async fn get(&self, url: &str, path: &str, timeout: Duration) -> Result<(u16, String), String> {
        let got = self.answer_to(self.http.get(address(url, path)).timeout(timeout)).await;
        let got = got.map_err(|error| format!("{url}: {}", self.redact(&root_cause(&error))))?;
        Ok((got.status, got.text))
    }

    async fn answer_to(&self, mut request: reqwest::RequestBuilder) -> Result<Got, reqwest::Error> {
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        let mut response = request.send().await?;
        let status = response.status().as_u16();
        let wait = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(retry_after);
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_BODY {
                break;
            }
        }
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(other) => String::from_utf8_lossy(other.as_bytes()).into_owned(),
        };
        // Nor does a reply carry the key into a log, if the server says it.
        let text =
            if self.key.as_ref().is_some_and(|key| text.contains(key.as_str())) { self.redact(&text) } else { text };
        Ok(Got { status, wait, text })
    }

    /// What `read` finds, or why there is nothing; `None` if the status and the words of the body have to tell.
    fn understood<T>(&self, got: &Got, read: impl Fn(&Value) -> Option<T>) -> Result<T, Option<Refusal>> {
        if !(200..300).contains(&got.status) {
            return Err(None);
        }
        if got.text.len() > MAX_BODY || got.text.trim_start().starts_with("data:") {
            return Err(Some(Refusal::Final));
        }
        let Ok(json) = serde_json::from_str::<Value>(&got.text) else {
            let page = got.text.trim_start().starts_with('<') && self.answered() == 0;
            return Err(Some(if page { Refusal::Final } else { Refusal::Passing }));
        };
        let choice = &json["choices"][0];
        if choice["finish_reason"] == "content_filter" {
            return Err(Some(Refusal::Filtered));
        }
        if choice["finish_reason"] == "error" || !choice["error"].is_null() {
            return Err(Some(Refusal::Passing));
        }
        read(&json).ok_or_else(|| if json["error"].is_null() { Some(Refusal::Passing) } else { None })
    }

    /// That the key does not open this.
    pub(crate) fn forbidden(&self, url: &str, status: u16, text: &str) -> ModelError {
        let variable = self.config.key_variables.first().copied().unwrap_or(KEY_VARIABLE);
        let mend = if self.key.is_some() { "is the key right in" } else { "set the key in" };
        ModelError::Fatal(format!("{}; {mend} {variable}", self.said(url, status, text)))
    }

    /// What a server said, for people.
    pub(crate) fn said(&self, url: &str, status: u16, text: &str) -> String {
        let start = text.trim_start();
        let words = match status {
            200..300 if text.len() > MAX_BODY => format!("the answer is longer than {} MiB", MAX_BODY >> 20),
            200..300 if start.starts_with("data:") => "answers with an event stream that was not asked for".into(),
            300..400 => format!("answers with a redirection ({status}); give the address that it leads to"),
            _ if start.starts_with('<') => {
                format!("answers with a web page ({status}), not JSON; is it the API's address, ending in /v1?")
            }
            200..300 if serde_json::from_str::<serde::de::IgnoredAny>(text).is_err() => {
                format!("not JSON: {}", self.shown(text))
            }
            200..300 => format!("no reply: {}", self.shown(text)),
            status => {
                let status = reqwest::StatusCode::from_u16(status).map_or(status.to_string(), |s| s.to_string());
                format!("{status}: {}", self.shown(text))
            }
        };
        format!("{url}: {words}")
    }
}

/// A route under a base address; SGLang's own routes lie beside `/v1`.
fn address(url: &str, path: &str) -> String {
    let base = if path == GENERATE { url.strip_suffix("/v1").unwrap_or(url) } else { url };
    format!("{base}{path}")
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
