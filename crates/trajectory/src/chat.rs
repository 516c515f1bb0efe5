//! Conversations as token ids, exactly as the model reads them.
//!
//! A prompt is encoded in the pieces in which it came about: what stood there when the model began to speak, its reply
//! in the ids that it was said in, what came next. Where the template rewrites what was said before, the rewritten text
//! is encoded anew, as the model then reads it.

use crate::context::{Recorded, Shown};
use crate::episode::recorded;
use crate::error::ChatError;
use crate::template::{ChatArguments, ChatTemplate};
use crate::vocabulary::Vocabulary;
use crate::{Episode, Message};
use serde_json::Value;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Version of how conversations become ids: part of every digest that hangs on them.
pub const CHAT_RULES: u32 = 2;

/// Conversations whose beginnings are kept encoded.
const KEPT: usize = 128;

/// A checkpoint's chat template and tokenizer.
pub struct ChatTokenizer {
    template: ChatTemplate,
    arguments: ChatArguments,
    vocabulary: Vocabulary,
    end_ids: Vec<u32>,
    context: Option<usize>,
    begun: Mutex<Vec<Begun>>,
}

/// Token ids of a stretch of an episode that the model saw as one context, with its replies' tokens.
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
    /// Which of the episode's turns.
    pub turn: usize,
    /// Position of each token in [`Sequence::ids`], and the bytes of the message it covers.
    pub tokens: Vec<(usize, Range<usize>)>,
}

/// An episode as the contexts that the model saw.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contexts {
    /// Its contexts: one, where each continues the one before.
    pub sequences: Vec<Sequence>,
    /// Turns whose recorded ids do not decode to what was said, so that the text was encoded instead.
    pub other_ids: Vec<usize>,
    /// Turns of which is not known what the model was shown; all that was said before is taken for it.
    pub unknown: Vec<usize>,
}

/// A conversation up to the end of a reply, as ids.
#[derive(Default)]
struct Begun {
    messages: Vec<Message>,
    recorded: Recorded,
    read: Reading,
}

/// What was read so far.
#[derive(Clone, Default)]
struct Reading {
    ids: Vec<u32>,
    /// The last prompt, as text.
    prompt: String,
    /// The reply to it, as it may stand in the next prompt.
    reply: Vec<String>,
}

impl Reading {
    /// What is new in a prompt, if it goes on from this.
    fn rest<'p>(&self, prompt: &'p str) -> Option<&'p str> {
        let after = prompt.strip_prefix(self.prompt.as_str())?;
        self.reply.iter().find_map(|reply| after.strip_prefix(reply.as_str()))
    }
}

impl ChatTokenizer {
    /// Reads tokenizer, template and end-of-turn ids from a checkpoint directory.
    ///
    /// # Errors
    /// If one of them is missing or broken.
    pub fn open(dir: &Path, arguments: &ChatArguments) -> Result<Self, ChatError> {
        let template = ChatTemplate::read(dir)?;
        let vocabulary = Vocabulary::read(dir)?;
        let json = |name: &str| -> Value {
            let text = std::fs::read_to_string(dir.join(name));
            text.ok().and_then(|t| serde_json::from_str(&t).ok()).unwrap_or_default()
        };
        let mut end_ids: Vec<u32> = Vec::new();
        let own = template.special_tokens().get("eos_token").and_then(|token| vocabulary.id(token));
        let named = ["generation_config.json", "config.json"].map(|name| json(name)["eos_token_id"].clone());
        let listed = named.iter().flat_map(|value| match value {
            Value::Array(ids) => ids.clone(),
            one => vec![one.clone()],
        });
        let listed = listed.filter_map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())).collect::<Vec<_>>();
        let first = own.filter(|id| !listed.contains(id));
        for id in first.into_iter().chain(listed) {
            if !end_ids.contains(&id) {
                end_ids.push(id);
            }
        }
        let config = json("config.json");
        let context =
            config["max_position_embeddings"].as_u64().or(config["text_config"]["max_position_embeddings"].as_u64());
        let (arguments, context) = (arguments.clone(), context.and_then(|tokens| usize::try_from(tokens).ok()));
        Ok(Self { template, arguments, vocabulary, end_ids, context, begun: Mutex::default() })
    }

    /// Ids that end a turn; the tokenizer's own end token first.
    #[must_use]
    pub fn end_ids(&self) -> &[u32] {
        &self.end_ids
    }
    /// Tokens that the model takes, as its configuration says.
    #[must_use]
    pub fn context(&self) -> Option<usize> {
        self.context
    }
    /// The tokenizer.
    #[must_use]
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// The conversation as text.
    ///
    /// # Errors
    /// If the template refuses it, fails, runs out of fuel, or writes too much.
    pub fn render(&self, messages: &[Message], generate: bool) -> Result<String, ChatError> {
        Ok(self.template.render(messages, generate, &self.arguments)?)
    }

    /// Token ids of the prompt for the next reply. `recorded` says which messages are earlier replies, and in which ids
    /// they were said; their text is not encoded again, since that need not give the same tokens, unless the ids are of
    /// another text or the template rewrites it.
    ///
    /// # Errors
    /// As [`Self::render`].
    pub fn prompt_ids(&self, messages: &[Message], recorded: &Recorded) -> Result<Vec<u32>, ChatError> {
        let mut begun = self.begun(messages, recorded);
        let from = begun.messages.len();
        let replies: Vec<(usize, Arc<[u32]>)> =
            recorded.range(from..messages.len()).map(|(i, ids)| (*i, ids.clone())).collect();
        for (index, ids) in replies {
            let prompt = self.render(&messages[..index], true)?;
            self.go_on(&mut begun.read, prompt)?;
            let reply = self.reply(&messages[..=index], &ids)?;
            begun.read.ids.extend(reply.ids);
            begun.read.reply = reply.stands;
            begun.recorded.insert(index, ids);
            begun.messages.extend_from_slice(&messages[begun.messages.len()..=index]);
        }
        let mut last = begun.read.clone();
        self.go_on(&mut last, self.render(messages, true)?)?;
        if !begun.messages.is_empty() {
            let mut kept = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() >= KEPT {
                kept.remove(0);
            }
            kept.push(begun);
        }
        Ok(last.ids)
    }

    /// The longest beginning of a conversation that is read already.
    fn begun(&self, messages: &[Message], recorded: &Recorded) -> Begun {
        let mut kept = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let begins = |b: &Begun| {
            let until = b.messages.len();
            messages.starts_with(&b.messages) && recorded.range(..until).eq(b.recorded.iter())
        };
        let longest = (0..kept.len()).filter(|i| begins(&kept[*i])).max_by_key(|i| kept[*i].messages.len());
        match longest {
            Some(at) => kept.remove(at),
            None => Begun::default(),
        }
    }

    /// Reads a prompt: what is new of it, or all of it where it does not go on from what was read.
    fn go_on(&self, read: &mut Reading, prompt: String) -> Result<(), ChatError> {
        match read.rest(&prompt) {
            Some(rest) => read.ids.extend(self.vocabulary.encode_further(rest)?),
            None => read.ids = self.vocabulary.encode(&prompt)?,
        }
        read.prompt = prompt;
        Ok(())
    }

    /// The ids of the last of some messages, a reply: those it was said in, where they decode to its text.
    fn reply(&self, messages: &[Message], recorded: &[u32]) -> Result<Reply, ChatError> {
        let Some((last, before)) = messages.split_last() else { return Ok(Reply::default()) };
        let text = &last.content;
        if let Some(ranges) = self.vocabulary.ranges(recorded, text) {
            let mut stands = vec![text.clone()];
            if self.vocabulary.prefixes() {
                stands.insert(0, self.vocabulary.within(recorded));
            }
            return Ok(Reply { ids: recorded.to_vec(), ranges, stands });
        }
        if !self.vocabulary.prefixes() {
            let (ids, ranges) = self.vocabulary.tokens(text)?;
            return Ok(Reply { ids, ranges, stands: vec![text.clone()] });
        }
        // Decoding strips a reply's first space, so the text does not tell whether there is one: the template does.
        let (prompt, whole) = (self.render(before, true)?, self.render(messages, false).unwrap_or_default());
        let after = whole.strip_prefix(prompt.as_str()).unwrap_or_default();
        let spaced = format!(" {text}");
        let stands = if after.starts_with(&spaced) && !after.starts_with(text) { spaced } else { text.clone() };
        let ids = self.vocabulary.encode_further(&stands)?;
        let lead = stands.len() - text.len();
        let within = |r: Range<usize>| r.start.saturating_sub(lead)..r.end.saturating_sub(lead);
        let (ids, ranges) = match self.vocabulary.ranges_within(&ids, &stands) {
            Some(ranges) => (ids, ranges.into_iter().map(within).collect()),
            None => self.vocabulary.tokens(text)?,
        };
        Ok(Reply { ids, ranges, stands: vec![stands] })
    }

    /// An episode as the contexts that the model saw: for every reply what it was shown, in the ids that it read.
    ///
    /// # Errors
    /// As [`Self::render`].
    pub fn contexts(&self, episode: &Episode) -> Result<Contexts, ChatError> {
        let mut contexts = Contexts::default();
        for (turn, played) in episode.turns.iter().enumerate() {
            let (Some(before), Some(message)) =
                (episode.messages.get(..played.message), episode.messages.get(played.message))
            else {
                continue;
            };
            let shown = played.shown.shown(before).unwrap_or_else(|| {
                contexts.unknown.push(turn);
                Shown::all(before)
            });
            let recorded = recorded(Some(&shown), &episode.turns[..turn]);
            let mut messages: Vec<Message> = shown.into_iter().map(|s| s.message).collect();
            let prompt = self.prompt_ids(&messages, &recorded)?;
            messages.push(message.clone());
            let reply = self.reply(&messages, &played.ids)?;
            if !played.ids.is_empty() && reply.ids != played.ids {
                contexts.other_ids.push(turn);
            }
            let goes_on = contexts.sequences.last_mut().filter(|last| prompt.starts_with(&last.ids));
            let sequence = match goes_on {
                Some(last) => {
                    last.ids = prompt;
                    last
                }
                None => {
                    contexts.sequences.push(Sequence { ids: prompt, replies: Vec::new() });
                    let Some(last) = contexts.sequences.last_mut() else { continue };
                    last
                }
            };
            let start = sequence.ids.len();
            let tokens = reply.ranges.into_iter().enumerate().map(|(i, r)| (start + i, r)).collect();
            sequence.replies.push(ReplyTokens { turn, tokens });
            sequence.ids.extend(reply.ids);
        }
        Ok(contexts)
    }
}

/// A reply as ids.
#[derive(Default)]
struct Reply {
    ids: Vec<u32>,
    /// The bytes of the text that each covers.
    ranges: Vec<Range<usize>>,
    /// How it may stand in later prompts.
    stands: Vec<String>,
}

/// Token ids of plain texts by a checkpoint's tokenizer, special tokens added as it does by itself.
///
/// # Errors
/// If the directory has no tokenizer, or it refuses a text.
pub fn text_ids(dir: &Path, texts: &[&str]) -> Result<Vec<Vec<u32>>, ChatError> {
    let vocabulary = Vocabulary::read(dir)?;
    texts.iter().map(|text| vocabulary.encode_with_special(text)).collect()
}
