//! What a server is, and what it understands, asked before the first task.

use crate::client::{Answer, Client, EndpointConfig, Refused};
use crate::completions::{Completions, RawEndpoint, asked_back, continued, raw_post};
use crate::endpoint::{CHAT, Endpoint, said, sampled};
use crate::refusal::Refusal;
use crate::request::{Post, Question};
use crate::{ChatModel, ModelError, Sampling};
use rolegraft_trajectory::{ChatTokenizer, Key, Message, Recorded, Road, Role, Seed, Served};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;

/// How long a server may take to say which models it has.
const LIST: Duration = Duration::from_secs(15);
/// How often, and in what time, a server is asked that says that it is not ready.
const LOOKS: u32 = 10;
const LOOK: Duration = Duration::from_secs(1);
/// How long a first answer may take: some servers load the model for it.
const FIRST_ANSWER: Duration = Duration::from_secs(120);
/// Tokens of an answer that only shows whether there is one. Some models need a few to say anything.
const FEW: usize = 16;
/// Tokens in which most models come to an end.
const MANY: usize = 256;
/// Requests that are mended before a server is given up.
const MENDS: usize = 16;
/// Names listed in an error.
const LISTED: usize = 12;
const MARKUP: &str = "<tool_call>\n{\"name\": \"probe\", \"arguments\": {}}\n</tool_call>";
/// What a fingerprint is taken of.
const PROMPTS: [&str; 3] =
    ["The capital of France is", "{\"name\": \"get_order\", \"arguments\":", "def add(a, b):\n    return"];

/// What a server is wanted for.
pub struct Wanted {
    /// The model's tokenizer and chat template, where they are known: raw text is asked for.
    pub tokenizer: Option<ChatTokenizer>,
    /// Whether tools are announced through the server's own interface.
    pub tools: bool,
    /// Conversations that the model will be shown, by who speaks.
    pub conversations: Vec<Vec<Role>>,
    /// How tokens will be picked.
    pub sampling: Sampling,
    /// Whether the model's words are part of who it is.
    pub fingerprint: bool,
    /// What the weights have to be called in every answer, where the server says it.
    pub version: Option<String>,
    /// What keeps apart what vLLM's caches hold of several weights.
    pub cache_salt: Option<String>,
}

impl Wanted {
    /// A model that says text, whose words are part of who it is.
    #[must_use]
    pub fn text(tokenizer: Option<ChatTokenizer>, sampling: Sampling) -> Self {
        let (tools, conversations, fingerprint) = (false, Vec::new(), true);
        Self { tokenizer, tools, conversations, sampling, fingerprint, version: None, cache_salt: None }
    }
}

/// A server that was asked.
pub struct Probed {
    /// Who answers.
    pub model: Arc<dyn ChatModel>,
    /// The model's name there.
    pub name: String,
    /// What a log says of it.
    pub served: Served,
    /// What a person should know.
    pub notes: Vec<String>,
    /// Conversations that the server does not take, with its words.
    pub refused: Vec<(Vec<Role>, String)>,
}

/// Asks servers for their model, a road to it, and the fields that they understand.
///
/// # Errors
/// If there is no server, it has another model, or it cannot play what is wanted.
pub async fn probe(config: EndpointConfig, wanted: Wanted) -> Result<Probed, ModelError> {
    let quick = EndpointConfig { tries: 3, timeout: config.timeout.min(FIRST_ANSWER), ..config.clone() };
    let mut prober =
        Prober { client: Client::probing(quick)?, wanted, notes: Vec::new(), refused: Vec::new(), entry: Value::Null };
    prober.choose_model().await?;
    let found = match prober.raw_road().await? {
        Some(found) => found,
        None => prober.chat_road().await?,
    };
    let identity = prober.identity(&found).await?;
    let Prober { client, wanted, notes, refused, entry } = prober;
    let (name, fields) = (client.model().to_owned(), client.config.fields.clone());
    let settled = client.settled(EndpointConfig { model: Some(name.clone()), fields: fields.clone(), ..config })?;
    let Found { road, more, exact, tool_role } = found;
    let model: Arc<dyn ChatModel> = match (road, wanted.tokenizer) {
        (Road::Chat, _) | (_, None) => Arc::new(Endpoint::of(settled, more, tool_role)),
        (road, Some(chat)) => {
            let said = entry["max_model_len"].as_u64().and_then(|tokens| usize::try_from(tokens).ok());
            let (completions, context) = (Completions::of(settled, road, more), said.or(chat.context()));
            Arc::new(RawEndpoint::of(completions, chat, context, wanted.version))
        }
    };
    let fields = serde_json::to_value(fields).unwrap_or_default();
    Ok(Probed { model, name, served: Served { identity, road, exact, fields }, notes, refused })
}

struct Prober {
    client: Client,
    wanted: Wanted,
    notes: Vec<String>,
    refused: Vec<(Vec<Role>, String)>,
    /// What the first server's list says of the model.
    entry: Value,
}

/// A road that works.
struct Found {
    road: Road,
    /// Fields that the server understands, beside those of every request.
    more: Map<String, Value>,
    exact: Option<bool>,
    tool_role: bool,
}

fn greedy(max_tokens: usize) -> Sampling {
    Sampling { temperature: 0.0, top_p: 1.0, max_tokens }
}

fn fatal(text: String) -> ModelError {
    ModelError::Fatal(text)
}

impl Prober {
    /// The models that a server lists.
    async fn listed(&self, url: &str) -> Result<Vec<Value>, ModelError> {
        let models = |text: &str| -> Option<Vec<Value>> {
            let json: Value = serde_json::from_str(text).ok()?;
            json["data"].as_array().or(json.as_array()).cloned()
        };
        let (mut tries, mut status, mut text) = (0, 503, String::new());
        // A server that has just started may still be loading.
        while matches!(status, 429 | 500..) && tries < LOOKS {
            if tries > 0 {
                tokio::time::sleep(LOOK).await;
            }
            tries += 1;
            let got = self.client.get(url, "/models", LIST).await;
            (status, text) = got.map_err(|reason| ModelError::Unavailable {
                reason: format!("{reason}; is the server running, and is this its address?"),
                tries,
            })?;
        }
        match status {
            429 | 500.. => return Err(ModelError::Unavailable { reason: self.client.said(url, status, &text), tries }),
            200..300 if models(&text).is_some() => return Ok(models(&text).unwrap_or_default()),
            401 | 403 => return Err(self.client.forbidden(url, status, &text)),
            300..=399 => return Err(fatal(self.client.said(url, status, &text))),
            _ => {}
        }
        let below = self.client.get(url, "/v1/models", LIST).await;
        if below.is_ok_and(|(status, text)| status == 200 && models(&text).is_some()) {
            return Err(fatal(format!("{url} is not the API's address: give {url}/v1")));
        }
        let page = text.trim_start().starts_with('<');
        // Some servers have no list.
        if page { Err(fatal(self.client.said(url, status, &text))) } else { Ok(Vec::new()) }
    }

    /// Finds the model that is meant on every server.
    async fn choose_model(&mut self) -> Result<(), ModelError> {
        for (at, url) in self.client.config.urls.clone().into_iter().enumerate() {
            let models = self.listed(&url).await?;
            let mut names: Vec<&str> = models.iter().filter_map(|model| model["id"].as_str()).collect();
            names.sort_unstable();
            names.dedup();
            let all = || {
                let more = if names.len() > LISTED { ", …" } else { "" };
                format!("`{}`{more}", names[..names.len().min(LISTED)].join("`, `"))
            };
            match (self.client.config.model.clone(), names.as_slice()) {
                (None, [only]) => self.client.config.model = Some((*only).to_owned()),
                (None, []) => return Err(fatal(format!("{url} lists no model: name one as {url}#MODEL"))),
                (None, _) => {
                    return Err(fatal(format!("{url} has several models: name one as {url}#MODEL, of {}", all())));
                }
                (Some(name), names) if names.contains(&name.as_str()) => {}
                (Some(_), []) => {}
                (Some(name), _) => match self.unlisted(at).await? {
                    None => self.notes.push(format!("{url} answers as `{name}`, which it does not list")),
                    Some(said) => return Err(fatal(format!("{url} has no model `{name}`, but {}{said}", all()))),
                },
            }
            if at == 0 {
                let name = self.client.config.model.as_deref();
                self.entry = models.iter().find(|model| model["id"].as_str() == name).cloned().unwrap_or_default();
            }
        }
        Ok(())
    }

    /// Whether a model that is not listed answers all the same; if not, what is said instead.
    async fn unlisted(&mut self, server: usize) -> Result<Option<String>, ModelError> {
        let read = |json: &Value| said(json, false).map(|_| json["model"].as_str().unwrap_or_default().to_owned());
        let asked = self.say(Said::to(vec![user("Hi")], server), &mut Map::new(), read).await?;
        Ok(match asked {
            Ok(name) if name == self.client.model() => None,
            Ok(name) => Some(format!("; asked for it, `{name}` answers")),
            Err(refused) => Some(format!("; asked for it: {}", refused.said)),
        })
    }

    /// Asks, and mends the request until it is understood: what a server does not know is renamed or left out.
    async fn ask<T>(
        &mut self,
        post: &mut Post<'_>,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Result<T, Refused>, ModelError> {
        let mut mends = 0;
        loop {
            let refused = match self.client.post(post.clone(), &read).await?.0 {
                Answer::Given(given) => {
                    self.client.answers(post.clone())?;
                    return Ok(Ok(given));
                }
                Answer::Refused(refused) => refused,
                Answer::Overflow => Refused::words("the question does not fit the model"),
                Answer::Filtered => Refused::words("a content filter stopped the question"),
                Answer::Unreadable => {
                    let said = "the server fails at the question (500)".to_owned();
                    return Ok(Err(Refused { why: Refusal::Broken, said }));
                }
            };
            let Refusal::Field(field) = &refused.why else { return Ok(Err(refused)) };
            mends += 1;
            let ours = sampled(greedy(1), Key::new(Seed(0))).contains_key(field) || field == "top_p";
            if !ours && post.fields.shift_remove(field).is_some() {
                continue;
            }
            match self.client.config.fields.mend(field).filter(|_| mends < MENDS) {
                Some(mend) => self.notes.push(format!("{mend}: {}", refused.said)),
                None => return Ok(Err(refused)),
            }
        }
    }

    /// Asks a chat route, and keeps of `more` what is understood. A server that reads what the model writes may fail at a call
    /// that the limit cuts, so that others are tried.
    async fn say<T>(
        &mut self,
        asked: Said,
        more: &mut Map<String, Value>,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Result<T, Refused>, ModelError> {
        let tool = json!([{"type": "function", "function": {"name": "probe", "description": "Does nothing.",
            "parameters": {"type": "object", "properties": {}}}}]);
        let tools = tool.as_array().filter(|_| asked.tools).map(Vec::as_slice);
        let mut outcome = Ok(Err(Refused::words("not asked")));
        for max_tokens in [asked.sampling.max_tokens, 1, MANY] {
            let (sampling, draws) = (Sampling { max_tokens, ..asked.sampling }, Key::new(Seed(0)));
            let mut fields = more.clone();
            fields.extend(sampled(sampling, draws));
            let question = Question::Chat { messages: asked.messages.clone(), tools };
            let mut post = Post { path: CHAT, question, fields, draws, home: asked.server as u64 };
            outcome = self.ask(&mut post, &read).await;
            if !matches!(&outcome, Ok(Err(Refused { why: Refusal::Broken, .. }))) {
                more.retain(|field, _| post.fields.contains_key(field));
                break;
            }
        }
        outcome
    }

    /// Fields that keep a checkpoint's own defaults out of how tokens are picked, where a server fills what a request does not
    /// say from `generation_config.json`: a repetition penalty changes greedy replies.
    fn neutral(&self) -> Map<String, Value> {
        if !matches!(self.entry["owned_by"].as_str(), Some("vllm" | "sglang")) {
            return Map::new();
        }
        let fields = json!({"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0});
        fields.as_object().cloned().unwrap_or_default()
    }

    /// A road on which we render the conversations, if there is one.
    async fn raw_road(&mut self) -> Result<Option<Found>, ModelError> {
        let Some(chat) = self.wanted.tokenizer.as_ref().filter(|_| !self.wanted.tools) else { return Ok(None) };
        let said = |e: rolegraft_trajectory::ChatError| fatal(e.to_string());
        let messages = [Message::user("Hi")];
        let ids = chat.prompt_ids(&messages, &Recorded::new()).map_err(said)?;
        let text = chat.render(&messages, true).map_err(said)?;
        let ends: Value = chat.end_ids().into();
        let markup = chat.vocabulary().encode(MARKUP).map_err(said)?;
        let keeps_markup = chat.vocabulary().decode_without_special(&markup) == MARKUP;
        let roads: &[Road] = match self.entry["owned_by"].as_str() {
            Some("sglang") => &[Road::Generate, Road::TokenIds, Road::Text],
            _ => &[Road::TokenIds, Road::Text],
        };
        let mut refusals = Vec::new();
        for road in roads {
            let mut more = self.neutral();
            match road {
                Road::Generate => more.extend([("skip_special_tokens", false), ("no_stop_trim", true)].map(named)),
                Road::Text => more.extend(asked_back().into_iter().chain([named(("add_special_tokens", false))])),
                _ => more.extend(asked_back()),
            }
            more.insert("stop_token_ids".into(), ends.clone());
            if let Some(salt) = &self.wanted.cache_salt {
                more.insert("cache_salt".into(), salt.clone().into());
            }
            let how = (Sampling { max_tokens: FEW, ..self.wanted.sampling }, Key::new(Seed(0)));
            let mut post = raw_post(*road, &more, (&ids, &text), how, 0);
            let given = match self.ask(&mut post, continued).await {
                Ok(Ok(given)) => given,
                Ok(Err(refused)) => {
                    refusals.push(refused.said);
                    continue;
                }
                Err(error) => return Err(error),
            };
            more.retain(|field, _| post.fields.contains_key(field));
            let mut exact = given.ids.is_some() || more.contains_key("skip_special_tokens") || keeps_markup;
            if let Some(read) = given.read.filter(|read| *read != ids.len() as u64) {
                exact = false;
                let ours = ids.len();
                self.notes.push(format!(
                    "the server reads as {read} tokens what the tokenizer given here writes as {ours}: are both the same?"
                ));
            }
            return Ok(Some(Found { road: *road, more, exact: Some(exact), tool_role: true }));
        }
        self.notes.push(format!("raw text cannot be asked for, so the server renders: {}", refusals.join("; ")));
        Ok(None)
    }

    /// The road on which the server renders the conversations.
    async fn chat_road(&mut self) -> Result<Found, ModelError> {
        let native = self.wanted.tools;
        let mut more = self.neutral();
        let hint =
            if native { "; does it take tools? (vLLM: --enable-auto-tool-choice --tool-call-parser NAME)" } else { "" };
        let first = Said {
            sampling: Sampling { max_tokens: FEW, ..self.wanted.sampling },
            tools: native,
            ..Said::to(vec![user("Hi")], 0)
        };
        match self.say(first, &mut more, |json| said(json, native)).await? {
            Err(Refused { why: Refusal::Broken, said }) if !native => {
                self.notes.push(format!("{said}: what the model writes to it may be more than the server can read"));
            }
            Err(refused) => return Err(fatal(format!("{}{hint}", refused.said))),
            Ok(_) => {}
        }
        let tool_role = self.kinds(&mut more).await?;
        let exact = if native { Some(true) } else { self.echo(&mut more).await? };
        Ok(Found { road: Road::Chat, more, exact, tool_role })
    }

    /// Shows the server's template every kind of conversation; gives whether it takes the tool role as it is.
    async fn kinds(&mut self, more: &mut Map<String, Value>) -> Result<bool, ModelError> {
        let (mut tool_role, native) = (true, self.wanted.tools);
        for roles in self.wanted.conversations.clone() {
            let answers = roles.contains(&Role::Tool);
            let ways: &[bool] = if answers && tool_role && !native { &[true, false] } else { &[tool_role] };
            let mut taken = Err(Refused::words("not asked"));
            for as_it_is in ways {
                let messages = messages_of(&roles, *as_it_is, native);
                let kind = Said { tools: native, ..Said::to(messages, 0) };
                taken = self.say(kind, more, |json| said(json, native)).await?;
                if taken.is_ok() {
                    tool_role = *as_it_is;
                    break;
                }
            }
            match taken {
                // The model may say to it what the server cannot read.
                Err(Refused { why: Refusal::Broken, .. }) => {
                    let speakers: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
                    self.notes.push(format!("the server fails (500) at a conversation of {}", speakers.join(", ")));
                }
                Err(refused) => self.refused.push((roles, refused.said)),
                Ok(_) => {}
            }
        }
        Ok(tool_role)
    }

    /// Whether markup that the model writes comes back; `None` if the model does not write it.
    async fn echo(&mut self, more: &mut Map<String, Value>) -> Result<Option<bool>, ModelError> {
        let question = format!("Repeat this, exactly as it stands, and write nothing else:\n{MARKUP}");
        let asked = Said { sampling: greedy(4 * FEW), ..Said::to(vec![user(&question)], 0) };
        let exact = match self.say(asked, more, |json| said(json, false)).await {
            Ok(Ok(Ok(reply))) if reply.inexact => Some(false),
            Ok(Ok(Ok(reply))) => reply.text.contains("<tool_call>").then_some(true),
            Ok(Ok(Err(eaten))) => return Err(fatal(eaten)),
            Ok(Err(_)) => Some(false),
            Err(error) => return Err(error),
        };
        if exact == Some(false) {
            self.notes.push(
                "the server takes tool calls out of replies: their text is written back as well as it can be, and turns are marked \
                 as not exact; `--tokenizer DIR` asks for raw text instead"
                    .into(),
            );
        }
        Ok(exact)
    }

    /// Who answers, the same on every server.
    async fn identity(&mut self, found: &Found) -> Result<Value, ModelError> {
        let mut identity = Map::new();
        identity.insert("model".into(), self.client.model().into());
        // When a model was made is left out: vLLM and llama.cpp give the time of the question.
        for part in ["root", "owned_by", "weight_version", "fingerprint"] {
            if let Some(text) = self.entry[part].as_str() {
                identity.insert(part.into(), text.into());
            }
        }
        if self.wanted.fingerprint {
            let Some(first) = self.fingerprint(found, 0).await? else {
                self.notes.push("the server fails at the questions of a fingerprint: none is kept".into());
                return Ok(Value::Object(identity));
            };
            for (at, url) in self.client.config.urls.clone().iter().enumerate() {
                let other = self.fingerprint(found, at).await?.unwrap_or_default();
                if at == 0 && other != first {
                    self.notes.push(
                        "the same question gets different answers at temperature 0: no fingerprint is kept".into(),
                    );
                    return Ok(Value::Object(identity));
                }
                if other != first {
                    return Err(fatal(format!(
                        "{url} says other things than {}: other weights?",
                        self.client.config.urls[0]
                    )));
                }
            }
            identity.insert("says".into(), first.into());
        }
        Ok(Value::Object(identity))
    }

    /// A digest of the likeliest tokens after fixed prompts.
    async fn fingerprint(&mut self, found: &Found, server: usize) -> Result<Option<String>, ModelError> {
        let mut said_so_far = Sha256::new();
        for prompt in PROMPTS {
            let words = match (&self.wanted.tokenizer, found.road) {
                (Some(chat), road) if road != Road::Chat => {
                    let ids = chat.vocabulary().encode(prompt).map_err(|e| fatal(e.to_string()))?;
                    let how = (greedy(FEW / 2), Key::new(Seed(0)));
                    let mut post = raw_post(road, &found.more, (&ids, prompt), how, server as u64);
                    post.fields.shift_remove("stop_token_ids");
                    self.ask(&mut post, |json| continued(json).map(|c| format!("{} {:?}", c.text, c.ids))).await?
                }
                // No template and no parser stands between, where a server has the route.
                _ => {
                    let how = (greedy(FEW / 2), Key::new(Seed(0)));
                    let mut post = raw_post(Road::Text, &Map::new(), (&[], prompt), how, server as u64);
                    post.fields.shift_remove("seed");
                    match self.ask(&mut post, |json| continued(json).map(|c| c.text)).await? {
                        Err(_) => {
                            let said =
                                |json: &Value| Some(said(json, false)?.map_or_else(|e| e, |c| c.reasoning + &c.text));
                            self.say(Said::to(vec![user(prompt)], server), &mut found.more.clone(), said).await?
                        }
                        words => words,
                    }
                }
            };
            match words {
                Err(Refused { why: Refusal::Broken, .. }) => return Ok(None),
                words => said_so_far.update(words.map_err(ModelError::from)?),
            }
        }
        Ok(Some(said_so_far.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()))
    }
}

fn named((field, value): (&str, bool)) -> (String, Value) {
    (field.to_owned(), value.into())
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

/// A conversation of these roles. Where calls are native, a tool's answer goes with a call.
fn messages_of(roles: &[Role], tool_role: bool, native: bool) -> Vec<Value> {
    let call = json!([{"id": "call_0", "type": "function", "function": {"name": "probe", "arguments": "{}"}}]);
    let message = |(at, role): (usize, &Role)| match role {
        Role::Assistant if native && roles.get(at + 1) == Some(&Role::Tool) => {
            json!({"role": "assistant", "content": Value::Null, "tool_calls": call})
        }
        Role::Tool if native => json!({"role": "tool", "tool_call_id": "call_0", "name": "probe", "content": "Hi"}),
        Role::Tool if !tool_role => user("Hi"),
        role => json!({"role": role.as_str(), "content": "Hi"}),
    };
    roles.iter().enumerate().map(message).collect()
}

/// A question to a chat route.
struct Said {
    messages: Vec<Value>,
    sampling: Sampling,
    /// Whether a tool is announced.
    tools: bool,
    server: usize,
}

impl Said {
    fn to(messages: Vec<Value>, server: usize) -> Self {
        Self { messages, sampling: greedy(FEW), tools: false, server }
    }
}
