//! Conversations through a server's own chat route.

use crate::client::{Answer, Client, EndpointConfig, Refused};
use crate::refusal::Refusal;
use crate::request::{Post, Question};
use crate::{ChatModel, Completion, ModelError, Reply, Request, Sampling, home};
use rolegraft_trajectory::calls::{self, NativeCall};
use rolegraft_trajectory::{Finish, Key, Role, Spent};
use serde_json::{Map, Value, json};
use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) const CHAT: &str = "/chat/completions";
/// The name under which most servers give and take reasoning.
const REASONING: &str = "reasoning_content";

/// A client of `/chat/completions`.
pub struct Endpoint {
    client: Client,
    /// Fields beside those of every request.
    more: Map<String, Value>,
    /// Whether the server takes answers of tools that nothing called.
    tool_role: bool,
    /// Under which name earlier reasoning is sent back, if the server wants it.
    reasoning: OnceLock<String>,
    /// Whether the server refuses to see calls again whose arguments are not JSON: they are shown as text.
    calls_as_text: AtomicBool,
}

impl Endpoint {
    /// A client; the key comes from the environment. What the server is like is not asked: [`crate::probe`] does.
    ///
    /// # Errors
    /// If there is no URL, or no TLS on this machine.
    pub fn new(config: EndpointConfig) -> Result<Self, ModelError> {
        Client::new(config).map(|client| Self::of(client, Map::new(), false))
    }

    pub(crate) fn of(client: Client, more: Map<String, Value>, tool_role: bool) -> Self {
        let reasoning = client.config.reasoning.clone().map_or_else(OnceLock::new, OnceLock::from);
        Self { client, more, tool_role, reasoning, calls_as_text: AtomicBool::new(false) }
    }

    async fn answer(&self, request: &Request) -> Result<Completion, ModelError> {
        let native = request.tools.is_some();
        loop {
            let as_text = self.calls_as_text.load(Ordering::Relaxed);
            let (messages, unreadable) = self.messages(request, as_text);
            let tools = request.tools.as_ref().map(|tools| tools.as_slice());
            let mut fields = self.more.clone();
            fields.extend(sampled(request.sampling, request.key));
            let question = Question::Chat { messages, tools };
            let post = Post { path: CHAT, question, fields, draws: request.key, home: home(&request.episode) };
            match self.client.post(post, |json| said(json, native)).await? {
                (Answer::Refused(Refused { why: Refusal::WantsReasoning, .. }), _)
                    if self.reasoning.set(REASONING.to_owned()).is_ok() => {}
                (Answer::Refused(_), _) if native && unreadable && !as_text => {
                    self.calls_as_text.store(true, Ordering::Relaxed);
                }
                (answer, failures) => return completion(answer, failures),
            }
        }
    }

    /// The messages as they are sent, and whether a call among them has arguments that are not JSON.
    fn messages(&self, request: &Request, calls_as_text: bool) -> (Vec<Value>, bool) {
        let (mut open_call, mut unreadable) = (None, false);
        let native = request.tools.is_some();
        let mut messages = Vec::with_capacity(request.messages.len());
        for (at, message) in request.messages.iter().enumerate() {
            let mut sent = match message.role {
                Role::Assistant if native => {
                    let (content, made) = calls::read(&message.content);
                    // upstream (tau-bench): only the first call is executed, and only it is remembered.
                    let call = made.into_iter().next();
                    let readable =
                        |call: &NativeCall| serde_json::from_str::<Map<String, Value>>(&call.arguments).is_ok();
                    unreadable |= call.as_ref().is_some_and(|call| !readable(call));
                    let call = call.filter(|call| !calls_as_text || readable(call));
                    open_call = call.as_ref().map(|call| (call.id.clone(), call.name.clone()));
                    match call {
                        None => plain(message.role, &message.content),
                        Some(call) => {
                            let content = if content.is_empty() { Value::Null } else { content.into() };
                            json!({"role": "assistant", "content": content, "tool_calls": [{"id": call.id,
                                "type": "function", "function": {"name": call.name, "arguments": call.arguments}}]})
                        }
                    }
                }
                Role::Tool => match &open_call {
                    Some((id, name)) => {
                        json!({"role": "tool", "tool_call_id": id, "name": name, "content": message.content})
                    }
                    None if self.tool_role => plain(Role::Tool, &message.content),
                    // Many servers want a call's id in a tool message; a plain user turn carries the same text.
                    None => plain(Role::User, &message.content),
                },
                role => plain(role, &message.content),
            };
            if let (Some(name), Some(reasoning)) = (self.reasoning.get(), request.reasoning.get(&at)) {
                sent[name] = Value::String(reasoning.to_string());
            }
            messages.push(sent);
        }
        (messages, unreadable)
    }
}

fn plain(role: Role, content: &str) -> Value {
    json!({"role": role.as_str(), "content": content})
}

/// The fields that say how tokens are picked. A nucleus of everything is not said: some servers refuse it beside a
/// temperature.
pub(crate) fn sampled(sampling: Sampling, key: Key) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("max_tokens".into(), sampling.max_tokens.into());
    fields.insert("temperature".into(), sampling.temperature.into());
    if sampling.top_p < 1.0 {
        fields.insert("top_p".into(), sampling.top_p.into());
    }
    fields.insert("seed".into(), (key.bits(0) >> 33).into());
    fields
}

/// What became of a request, as a reply.
pub(crate) fn completion(answer: Answer<Result<Completion, String>>, failures: u32) -> Result<Completion, ModelError> {
    let mut completion = match answer {
        Answer::Given(given) => given.map_err(ModelError::Fatal)?,
        Answer::Overflow => Completion::without_reply(Finish::ContextLimit),
        Answer::Filtered => Completion::without_reply(Finish::Filtered),
        Answer::Unreadable => Completion::without_reply(Finish::Unreadable),
        Answer::Refused(refused) => return Err(refused.into()),
    };
    completion.spent.failures = u64::from(failures);
    Ok(completion)
}

/// Tokens as a server counts them.
pub(crate) fn usage(json: &Value) -> Spent {
    let count = |name: &str| json["usage"][name].as_u64().unwrap_or(0);
    let (prompt_tokens, completion_tokens) = (count("prompt_tokens"), count("completion_tokens"));
    Spent { calls: 1, failures: 0, prompt_tokens, completion_tokens }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Object(_) => "an object",
        Value::Number(_) => "a number",
        _ => "neither text nor a list",
    }
}

/// Text and reasoning of a message's content; the name of a part that is neither.
fn parts(content: &Value) -> Result<(String, String), String> {
    let (mut text, mut reasoning) = (String::new(), String::new());
    match content {
        Value::Array(parts) => {
            for part in parts {
                let kind = part["type"].as_str().unwrap_or("?");
                match kind {
                    "text" | "output_text" => text += part["text"].as_str().unwrap_or_default(),
                    "thinking" | "reasoning" => reasoning += &parts_of_thought(&part[kind]),
                    other => return Err(format!("the reply has a part of type `{other}`: only text can be scored")),
                }
            }
        }
        Value::String(content) => text += content,
        Value::Null => {}
        other => return Err(format!("the reply's content is {}: only text can be scored", kind_of(other))),
    }
    Ok((text, reasoning))
}

fn parts_of_thought(thought: &Value) -> String {
    match thought {
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        thought => thought.as_str().unwrap_or_default().to_owned(),
    }
}

/// What a server's answer says, calls included; `None` if it has no choice, an error if it cannot be scored.
pub(crate) fn said(json: &Value, native: bool) -> Option<Result<Completion, String>> {
    let choice = &json["choices"][0];
    let message = choice.get("message").filter(|message| message.is_object())?;
    let (content, thought) = match parts(&message["content"]) {
        Ok(parts) => parts,
        Err(part) => return Some(Err(part)),
    };
    let calls = message["tool_calls"].as_array().map(Vec::as_slice).unwrap_or_default();
    // A call of nothing is none that a model makes.
    if calls.iter().any(|call| call["function"]["name"].as_str().is_none_or(str::is_empty)) {
        return None;
    }
    let made: Vec<NativeCall> = calls
        .iter()
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
    let finish = choice["finish_reason"].as_str().unwrap_or("stop");
    if !native && made.is_empty() && content.is_empty() && matches!(finish, "tool_calls" | "function_call") {
        return Some(Err(EATEN.to_owned()));
    }
    let apart = [REASONING, "reasoning"].into_iter().filter_map(|name| message[name].as_str());
    let reasoning = apart.chain([thought.as_str()]).find(|text| !text.is_empty()).unwrap_or_default().to_owned();
    let inexact = !native && !made.is_empty();
    let text = if native { calls::write(&content, &made) } else { calls::written_back(&content, &made) };
    let finish = if finish == "length" { Finish::Length } else { Finish::Stop };
    Some(Ok(Completion { text, ids: Vec::new(), finish, spent: usage(json), inexact, reasoning }))
}

/// A server that keeps what the model said.
pub(crate) const EATEN: &str = "the server took a tool call out of the reply and did not give it back, so what the model said is not \
    known; name the model's tokenizer with `--tokenizer DIR`, so that raw text is asked for, or start the server without \
    its tool-call parser";

impl ChatModel for Endpoint {
    fn complete<'a>(&'a self, request: &'a Request) -> Reply<'a> {
        Box::pin(self.answer(request))
    }
    fn concurrency(&self) -> usize {
        self.client.concurrency()
    }
    fn grown<'a>(&'a self) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(self.client.grown())
    }
    fn has_native_tools(&self) -> bool {
        true
    }
}
