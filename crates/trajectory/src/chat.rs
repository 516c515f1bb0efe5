//! Chat templates and token ids: a conversation exactly as the model reads it.

use crate::{Message, Role};
use minijinja::{Environment, ErrorKind, context};
use serde_json::Value;
use std::ops::Range;
use std::path::{Path, PathBuf};
use tokenizers::Tokenizer;

/// Instructions a template may execute; an honest one needs a few thousand a message.
const FUEL: u64 = 5_000_000;
/// Longest rendering accepted, in bytes.
const MAX_RENDERED: usize = 16 << 20;

/// Why a conversation cannot be rendered.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum ChatError {
    #[error("cannot read `{}`", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("`{}` holds no chat template; add `chat_template` to tokenizer_config.json or a chat_template.jinja", .0.display())]
    NoTemplate(PathBuf),
    #[error("`{}` is not a tokenizer: {reason}", path.display())]
    Tokenizer { path: PathBuf, reason: String },
    #[error("the chat template of `{}` fails: {reason}", path.display())]
    Template { path: PathBuf, reason: String },
}

/// A checkpoint's chat template and tokenizer.
pub struct ChatTokenizer {
    dir: PathBuf,
    environment: Environment<'static>,
    tokenizer: Tokenizer,
    end_ids: Vec<u32>,
    end_texts: (Value, Value),
}

/// Token ids of a stretch of a trajectory that the model saw as one context, with its replies' tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// Token ids from the start of the context.
    pub ids: Vec<u32>,
    /// The replies in it.
    pub replies: Vec<ReplyTokens>,
}

/// Where a reply's tokens are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyTokens {
    /// Which message of the conversation.
    pub message: usize,
    /// Position of each token in [`Sequence::ids`], and the bytes of the message it covers.
    pub tokens: Vec<(usize, Range<usize>)>,
}

fn read_tokenizer(dir: &Path) -> Result<Tokenizer, ChatError> {
    let path = dir.join("tokenizer.json");
    let text = std::fs::read_to_string(&path).map_err(|source| ChatError::Read { path: path.clone(), source })?;
    text.parse().map_err(|e: tokenizers::Error| ChatError::Tokenizer { path, reason: e.to_string() })
}

/// Token ids of plain texts by a checkpoint's tokenizer, special tokens added as it does by itself.
///
/// # Errors
/// If the directory has no tokenizer, or it refuses a text.
pub fn text_ids(dir: &Path, texts: &[&str]) -> Result<Vec<Vec<u32>>, ChatError> {
    let tokenizer = read_tokenizer(dir)?;
    let ids = |text: &&str| {
        let refused = |e: tokenizers::Error| ChatError::Tokenizer { path: dir.to_owned(), reason: e.to_string() };
        Ok(tokenizer.encode(*text, true).map_err(refused)?.get_ids().to_vec())
    };
    texts.iter().map(ids).collect()
}

impl ChatTokenizer {
    /// Reads tokenizer, template and end-of-turn ids from a checkpoint directory.
    ///
    /// # Errors
    /// If one of them is missing or broken.
    pub fn open(dir: &Path) -> Result<Self, ChatError> {
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read_to_string(&path).map_err(|source| ChatError::Read { path, source })
        };
        let config: Value = serde_json::from_str(&read("tokenizer_config.json")?).unwrap_or_default();
        let template = match read("chat_template.jinja") {
            Ok(text) => text,
            Err(_) => config["chat_template"]
                .as_str()
                .map(str::to_owned)
                .ok_or_else(|| ChatError::NoTemplate(dir.to_owned()))?,
        };
        let tokenizer = read_tokenizer(dir)?;
        let mut end_ids = Vec::new();
        for name in ["generation_config.json", "config.json"] {
            let json: Value = read(name).ok().and_then(|t| serde_json::from_str(&t).ok()).unwrap_or_default();
            match &json["eos_token_id"] {
                Value::Array(ids) => end_ids.extend(ids.iter().filter_map(Value::as_u64).map(|id| id as u32)),
                Value::Number(id) => end_ids.extend(id.as_u64().map(|id| id as u32)),
                _ => {}
            }
        }
        let mut seen = std::collections::HashSet::new();
        end_ids.retain(|id| seen.insert(*id));
        let token = |name: &str| match &config[name] {
            Value::Object(map) => map.get("content").cloned().unwrap_or_default(),
            other => other.clone(),
        };
        let end_texts = (token("bos_token"), token("eos_token"));
        if let Some(id) = end_texts.1.as_str().and_then(|t| tokenizer.token_to_id(t))
            && !end_ids.contains(&id)
        {
            end_ids.insert(0, id);
        }
        let mut environment = Environment::new();
        environment.set_fuel(Some(FUEL));
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        environment
            .add_template_owned("chat", template)
            .map_err(|e| ChatError::Template { path: dir.to_owned(), reason: e.to_string() })?;
        Ok(Self { dir: dir.to_owned(), environment, tokenizer, end_ids, end_texts })
    }

    /// Ids that end a turn; the tokenizer's own end token first.
    #[must_use]
    pub fn end_ids(&self) -> &[u32] {
        &self.end_ids
    }
    /// Ids that have a token; logits beyond are padding.
    #[must_use]
    pub fn vocabulary(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// The conversation as text.
    ///
    /// # Errors
    /// If the template fails, runs out of fuel, or writes too much.
    pub fn render(&self, messages: &[Message], generate: bool) -> Result<String, ChatError> {
        let fail = |reason: String| ChatError::Template { path: self.dir.clone(), reason };
        let (bos, eos) = &self.end_texts;
        let text = self
            .environment
            .get_template("chat")
            .and_then(|t| {
                t.render(context! {
                    messages => messages, add_generation_prompt => generate, bos_token => bos, eos_token => eos,
                })
            })
            .map_err(|e| fail(e.to_string()))?;
        if text.len() > MAX_RENDERED { Err(fail(format!("it wrote {} bytes", text.len()))) } else { Ok(text) }
    }

    /// Token ids of a text, special tokens in it recognised, none added.
    ///
    /// # Errors
    /// If the tokenizer refuses.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ChatError> {
        Ok(self.encoding(text)?.get_ids().to_vec())
    }
    fn encoding(&self, text: &str) -> Result<tokenizers::Encoding, ChatError> {
        self.tokenizer
            .encode(text, false)
            .map_err(|e| ChatError::Tokenizer { path: self.dir.clone(), reason: e.to_string() })
    }

    /// The text of some ids, markup included; bytes that are not UTF-8 show as U+FFFD.
    #[must_use]
    pub fn decode(&self, ids: &[u32]) -> String {
        self.tokenizer.decode(ids, false).unwrap_or_default()
    }

    /// Token ids of the prompt for the next reply. `recorded` holds the ids of earlier replies, in order; their text is
    /// not encoded again, since that need not give the same tokens, unless the template rewrites them.
    ///
    /// # Errors
    /// As [`Self::render`].
    pub fn prompt_ids(&self, messages: &[Message], recorded: &[Vec<u32>]) -> Result<Vec<u32>, ChatError> {
        let sequences = self.walk(messages, recorded, true)?;
        Ok(sequences.into_iter().next_back().map(|s| s.ids).unwrap_or_default())
    }

    /// The whole conversation as the contexts the model saw: one, where each prompt continues the one before; several,
    /// where the template rewrites earlier turns.
    ///
    /// # Errors
    /// As [`Self::render`].
    pub fn sequences(&self, messages: &[Message], recorded: &[Vec<u32>]) -> Result<Vec<Sequence>, ChatError> {
        let mut sequences = self.walk(messages, recorded, false)?;
        sequences.retain(|s| !s.replies.is_empty());
        Ok(sequences)
    }

    fn walk(&self, messages: &[Message], recorded: &[Vec<u32>], ask: bool) -> Result<Vec<Sequence>, ChatError> {
        let mut sequences: Vec<Sequence> = Vec::new();
        let mut seen = String::new();
        let replies = messages.iter().enumerate().filter(|(_, m)| m.role == Role::Assistant).map(|(i, _)| i);
        let stops = replies.map(Some).chain(ask.then_some(None));
        for (turn, stop) in stops.enumerate() {
            let prompt = self.render(&messages[..stop.unwrap_or(messages.len())], true)?;
            match (sequences.last_mut(), prompt.strip_prefix(seen.as_str())) {
                (Some(last), Some(rest)) if !seen.is_empty() => last.ids.extend(self.encode(rest)?),
                _ => sequences.push(Sequence { ids: self.encode(&prompt)?, replies: Vec::new() }),
            }
            let (Some(index), Some(last)) = (stop, sequences.last_mut()) else { break };
            let text = &messages[index].content;
            let (ids, ranges) = self.reply_tokens(text, recorded.get(turn))?;
            let start = last.ids.len();
            let tokens = ranges.into_iter().enumerate().map(|(i, r)| (start + i, r)).collect();
            last.replies.push(ReplyTokens { message: index, tokens });
            last.ids.extend(ids);
            seen = prompt + text;
        }
        Ok(sequences)
    }

    /// Ids of a reply and the bytes each covers: the recorded ids where their bytes add up to the text.
    fn reply_tokens(
        &self,
        text: &str,
        recorded: Option<&Vec<u32>>,
    ) -> Result<(Vec<u32>, Vec<Range<usize>>), ChatError> {
        if let Some(ids) = recorded.filter(|ids| !ids.is_empty()) {
            let mut at = 0;
            let ranges: Vec<_> = ids
                .iter()
                .map(|id| {
                    let start = at;
                    at += self.token_bytes(*id);
                    start..at.min(text.len())
                })
                .collect();
            if at == text.len() || text.contains('\u{fffd}') {
                return Ok((ids.clone(), ranges));
            }
        }
        let encoding = self.encoding(text)?;
        let ranges = encoding.get_offsets().iter().map(|(a, b)| *a..*b).collect();
        Ok((encoding.get_ids().to_vec(), ranges))
    }

    /// Bytes a token stands for: its characters in a byte-level vocabulary, its text for an added token.
    fn token_bytes(&self, id: u32) -> usize {
        let Some(token) = self.tokenizer.id_to_token(id) else { return 0 };
        match self.tokenizer.get_added_tokens_decoder().get(&id) {
            Some(added) => added.content.len(),
            None => token.chars().count(),
        }
    }
}
