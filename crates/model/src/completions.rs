//! Text and token ids as the model itself writes them: prompts that we render, past the server's chat route.

use crate::client::{Answer, Client, EndpointConfig};
use crate::endpoint::{completion, sampled, usage};
use crate::request::{GENERATE, Post, Question};
use crate::{ChatModel, Completion, ModelError, Reply, Request, Sampling, home};
use rolegraft_trajectory::{ChatTokenizer, Finish, Key, Road, Seed};
use serde_json::{Map, Value};
use std::future::Future;
use std::pin::Pin;

const COMPLETIONS: &str = "/completions";

/// A client of `/completions` (vLLM, SGLang, `transformers serve`, llama.cpp), or of SGLang's `/generate`.
pub struct Completions {
    client: Client,
    road: Road,
    /// Fields beside those of every request.
    more: Map<String, Value>,
}

/// What a server went on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continued {
    /// As text.
    pub text: String,
    /// As token ids, where the server gives them.
    pub ids: Option<Vec<u32>>,
    /// Whether it ends for want of room.
    cut: bool,
    /// Tokens of the prompt, as the server counts them.
    pub(crate) read: Option<u64>,
    written: u64,
    /// Which weights wrote it, where the server says so.
    version: Option<String>,
}

impl Completions {
    /// A client that sends token ids and asks for them back; the key comes from the environment.
    ///
    /// # Errors
    /// If there is no URL, or no TLS on this machine.
    pub fn new(config: EndpointConfig) -> Result<Self, ModelError> {
        Ok(Self::of(Client::new(config)?, Road::TokenIds, asked_back()))
    }

    pub(crate) fn of(client: Client, road: Road, more: Map<String, Value>) -> Self {
        Self { client, road, more }
    }

    /// The likeliest `count` tokens after a prompt, past any end of turn.
    ///
    /// # Errors
    /// If the server does not answer, or the prompt does not fit.
    pub async fn greedy(&self, prompt: &[u32], count: usize) -> Result<Continued, ModelError> {
        let sampling = Sampling { temperature: 0.0, top_p: 1.0, max_tokens: count };
        let mut post = raw_post(self.road, &self.more, (prompt, ""), (sampling, Key::new(Seed(0))), 0);
        post.fields.shift_remove("seed");
        post.fields.insert("ignore_eos".into(), true.into());
        match self.client.post(post, continued).await?.0 {
            Answer::Given(continued) => Ok(continued),
            Answer::Refused(refused) => Err(refused.into()),
            _ => Err(ModelError::Fatal(format!("a prompt of {} tokens does not fit", prompt.len()))),
        }
    }
}

/// A request for what follows a prompt, given both ways.
pub(crate) fn raw_post<'p>(
    road: Road,
    more: &Map<String, Value>,
    (ids, text): (&'p [u32], &'p str),
    (sampling, key): (Sampling, Key),
    home: u64,
) -> Post<'p> {
    // What the request says of sampling wins.
    let mut fields = more.clone();
    fields.extend(sampled(sampling, key));
    let (path, question) = match road {
        Road::Generate => (GENERATE, Question::InputIds(ids)),
        Road::Text => (COMPLETIONS, Question::Text(text)),
        Road::TokenIds | Road::Chat => (COMPLETIONS, Question::Ids(ids)),
    };
    Post { path, question, fields, draws: key, home }
}

/// What asks a server for all that the model wrote.
pub(crate) fn asked_back() -> Map<String, Value> {
    [("skip_special_tokens", false), ("return_token_ids", true)]
        .map(|(k, v)| (k.to_owned(), v.into()))
        .into_iter()
        .collect()
}

pub(crate) fn continued(json: &Value) -> Option<Continued> {
    let read_ids = |ids: &Value| -> Option<Vec<u32>> {
        ids.as_array()?.iter().map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())).collect()
    };
    let about = &json["meta_info"];
    if about.is_object() {
        let finish = about["finish_reason"]["type"].as_str()?;
        let ids = read_ids(&json["output_ids"])?;
        return (finish != "abort").then(|| Continued {
            text: json["text"].as_str().unwrap_or_default().to_owned(),
            cut: finish == "length",
            read: about["prompt_tokens"].as_u64(),
            written: ids.len() as u64,
            ids: Some(ids),
            version: about["weight_version"].as_str().map(str::to_owned),
        });
    }
    let choice = &json["choices"][0];
    let spent = usage(json);
    Some(Continued {
        text: choice["text"].as_str()?.to_owned(),
        ids: read_ids(&choice["token_ids"]),
        cut: choice["finish_reason"] == "length",
        read: json["usage"]["prompt_tokens"].as_u64(),
        written: spent.completion_tokens,
        version: None,
    })
}

/// A model behind a server whose conversations we render ourselves.
pub struct RawEndpoint {
    completions: Completions,
    chat: ChatTokenizer,
    /// Tokens that the model takes: not every server says when there are too many.
    context: Option<usize>,
    /// What the answers' weights have to be called.
    version: Option<String>,
}

impl RawEndpoint {
    pub(crate) fn of(
        completions: Completions,
        chat: ChatTokenizer,
        context: Option<usize>,
        version: Option<String>,
    ) -> Self {
        Self { completions, chat, context, version }
    }

    async fn answer(&self, request: &Request) -> Result<Completion, ModelError> {
        let fatal = |e: rolegraft_trajectory::ChatError| ModelError::Fatal(e.to_string());
        let ids = self.chat.prompt_ids(&request.messages, &request.recorded).map_err(fatal)?;
        let Completions { client, road, more } = &self.completions;
        let text =
            if *road == Road::Text { self.chat.render(&request.messages, true).map_err(fatal)? } else { String::new() };
        let room = self.context.map_or(usize::MAX, |context| context.saturating_sub(ids.len() + 1));
        if room == 0 {
            return Ok(Completion::without_reply(Finish::ContextLimit));
        }
        let sampling = Sampling { max_tokens: request.sampling.max_tokens.min(room), ..request.sampling };
        let servers = client.config.urls.len() as u64;
        // Weights may be older on one of several servers.
        for server in 0..servers {
            let how = (sampling, request.key);
            let home = home(&request.episode).wrapping_add(server);
            let post = raw_post(*road, more, (&ids, &text), how, home);
            let (answer, failures) = client.post(post, continued).await?;
            if !matches!(&answer, Answer::Given(given) if self.is_stale(given)) {
                return completion(answer.map(|given| Ok(self.reply(given, ids.len() as u64))), failures);
            }
        }
        let wanted = self.version.as_deref().unwrap_or_default();
        Err(ModelError::Fatal(format!(
            "every server answers with other weights than `{wanted}`: they were changed under the run"
        )))
    }

    /// Whether other weights wrote it than those that are meant.
    fn is_stale(&self, given: &Continued) -> bool {
        self.version.is_some() && given.version.is_some() && given.version != self.version
    }

    /// Whether ids are those of a text, as servers write it: without special tokens or with them, and without what does not
    /// make a character yet.
    fn agree(&self, ids: &[u32], text: &str) -> bool {
        let same = |way: &str| {
            let [way, text] = [way, text].map(|t| t.trim_matches(|c: char| c.is_whitespace() || c == '\u{FFFD}'));
            way == text
        };
        let vocabulary = self.chat.vocabulary();
        same(&vocabulary.decode(ids)) || same(&vocabulary.decode_without_special(ids))
    }

    /// What the model said, without its end of turn. Ids that are not those of the text are not believed.
    fn reply(&self, given: Continued, prompt: u64) -> Completion {
        let end_ids = self.chat.end_ids();
        let of_text = |ids: &Vec<u32>| given.text.is_empty() || self.agree(ids, &given.text);
        let inexact = given.ids.as_ref().is_some_and(|ids| !of_text(ids));
        let ids = given.ids.filter(|_| !inexact).map(|mut ids| {
            let end = ids.iter().position(|id| end_ids.contains(id)).unwrap_or(ids.len());
            ids.truncate(end);
            ids
        });
        let vocabulary = self.chat.vocabulary();
        let text = match &ids {
            Some(ids) => vocabulary.decode(ids),
            None => {
                let ends: Vec<String> = end_ids.iter().map(|id| vocabulary.within(&[*id])).collect();
                let end =
                    ends.iter().filter(|end| !end.is_empty()).find_map(|end| given.text.strip_suffix(end.as_str()));
                end.unwrap_or(&given.text).to_owned()
            }
        };
        let finish = if given.cut { Finish::Length } else { Finish::Stop };
        let written = ids.as_ref().map_or(given.written, |ids| ids.len() as u64);
        let mut reply = Completion::of_tokens(text, ids.unwrap_or_default(), finish, 0);
        (reply.spent.prompt_tokens, reply.spent.completion_tokens) = (prompt, written);
        reply.inexact = inexact;
        reply
    }
}

impl ChatModel for RawEndpoint {
    fn complete<'a>(&'a self, request: &'a Request) -> Reply<'a> {
        Box::pin(self.answer(request))
    }
    fn concurrency(&self) -> usize {
        self.completions.client.concurrency()
    }
    fn grown<'a>(&'a self) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(self.completions.client.grown())
    }
}
