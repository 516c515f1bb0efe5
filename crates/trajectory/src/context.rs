//! What a model was shown of a conversation before a reply: all of it, or what a harness left of it.

use crate::Message;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// The token ids in which a model's replies were said, by the index of the message; no ids where they are not known.
/// Assistant messages that are not here were not said by the model: they came with the task.
pub type Recorded = BTreeMap<usize, Arc<[u32]>>;

/// A message as a model is shown it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The message of the conversation that it is, or is made of; none where nobody said it.
    pub of: Option<usize>,
    /// The message, possibly cut or added to.
    pub message: Message,
}

/// What a model was shown before a reply, told by the conversation's messages: the form that logs keep.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Context {
    /// Every message before the reply, as it was said.
    #[default]
    All,
    /// The log does not say: it was written before contexts were.
    Unknown,
    /// These, in this order.
    Parts(Vec<Part>),
}

/// A stretch of a context.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Messages as they were said.
    Said(Range<usize>),
    /// A message of which the beginning was shown, and what was put behind it.
    Cut {
        /// Which message.
        message: usize,
        /// How much of it, in bytes.
        bytes: usize,
        /// What came behind.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        then: String,
    },
    /// A message that is none of the conversation's.
    Other(Message),
}

impl Context {
    /// Whether it is every message before the reply.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Self::All
    }

    /// Describes what is shown of `messages`.
    #[must_use]
    pub fn of(shown: &[Shown], messages: &[Message]) -> Self {
        let mut parts: Vec<Part> = Vec::new();
        for Shown { of, message } in shown {
            let said = of.and_then(|index| Some((index, messages.get(index)?)));
            match (said, parts.last_mut()) {
                (Some((index, said)), Some(Part::Said(range))) if said == message && range.end == index => {
                    range.end += 1
                }
                (Some((index, said)), _) if said == message => parts.push(Part::Said(index..index + 1)),
                (Some((index, said)), _) if said.role == message.role => {
                    let pairs = said.content.char_indices().zip(message.content.chars());
                    let shared = pairs.take_while(|((_, a), b)| a == b).last();
                    let bytes = shared.map_or(0, |((at, c), _)| at + c.len_utf8());
                    parts.push(Part::Cut { message: index, bytes, then: message.content[bytes..].to_owned() });
                }
                _ => parts.push(Part::Other(message.clone())),
            }
        }
        if parts == [Part::Said(0..messages.len())] { Self::All } else { Self::Parts(parts) }
    }

    /// The messages that were shown of those before the reply; nothing if that is not known, or the context speaks of
    /// messages that are not there.
    #[must_use]
    pub fn shown(&self, before: &[Message]) -> Option<Vec<Shown>> {
        let said = |range: Range<usize>| {
            let start = range.start;
            let one = move |(i, m): (usize, &Message)| Shown { of: Some(start + i), message: m.clone() };
            Some(before.get(range)?.iter().enumerate().map(one))
        };
        match self {
            Self::All => Some(said(0..before.len())?.collect()),
            Self::Unknown => None,
            Self::Parts(parts) => {
                let mut shown = Vec::new();
                for part in parts {
                    match part {
                        Part::Said(range) => shown.extend(said(range.clone())?),
                        Part::Cut { message, bytes, then } => {
                            let whole = before.get(*message)?;
                            let content = whole.content.get(..*bytes)?.to_owned() + then;
                            shown.push(Shown { of: Some(*message), message: Message::new(whole.role, content) });
                        }
                        Part::Other(message) => shown.push(Shown { of: None, message: message.clone() }),
                    }
                }
                Some(shown)
            }
        }
    }
}

impl Shown {
    /// All of a conversation.
    #[must_use]
    pub fn all(messages: &[Message]) -> Vec<Self> {
        messages.iter().enumerate().map(|(i, m)| Self { of: Some(i), message: m.clone() }).collect()
    }

    /// Finds in a conversation what another program shows of it: from the end, where nothing is cut, each message is the
    /// latest that is left and says the same.
    #[must_use]
    pub fn matched(shown: &[Message], messages: &[Message]) -> Vec<Self> {
        let mut left = messages.len();
        let mut found: Vec<Self> = shown
            .iter()
            .rev()
            .map(|message| {
                let of = messages[..left].iter().rposition(|m| m == message);
                left = of.unwrap_or(left);
                Self { of, message: message.clone() }
            })
            .collect();
        found.reverse();
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message() -> impl Strategy<Value = Message> {
        ("[aé]{0,4}", any::<bool>()).prop_map(|(t, user)| if user { Message::user(t) } else { Message::assistant(t) })
    }

    proptest! {
        #[test]
        fn what_is_described_comes_back(
            messages in prop::collection::vec(message(), 0..6),
            picks in prop::collection::vec((0usize..8, "[aé]{0,3}", any::<bool>()), 0..8),
        ) {
            let shown: Vec<Shown> = picks.into_iter().map(|(at, text, same)| match messages.get(at) {
                Some(m) if same => Shown { of: Some(at), message: m.clone() },
                Some(m) => Shown { of: Some(at), message: Message::new(m.role, text) },
                None => Shown { of: None, message: Message::user(text) },
            }).collect();
            let context = Context::of(&shown, &messages);
            prop_assert_eq!(context.shown(&messages).unwrap(), shown);
            let json = serde_json::to_string(&context).unwrap();
            prop_assert_eq!(serde_json::from_str::<Context>(&json).unwrap(), context);
        }
    }

    #[test]
    fn a_whole_conversation_needs_no_words_and_a_broken_context_is_none() {
        let messages = [Message::user("a"), Message::assistant("é")];
        assert!(Context::of(&Shown::all(&messages), &messages).is_all());
        assert_eq!(Context::Unknown.shown(&messages), None);
        for parts in [
            vec![Part::Said(1..3)],
            vec![Part::Said(Range { start: 2, end: 1 })],
            vec![Part::Cut { message: 1, bytes: 1, then: String::new() }],
            vec![Part::Cut { message: 9, bytes: 0, then: String::new() }],
        ] {
            assert_eq!(Context::Parts(parts).shown(&messages), None);
        }
    }

    #[test]
    fn a_servers_history_is_found_from_its_end() {
        let said = |t: &str| Message::assistant(t);
        let messages =
            [Message::user("task"), said("look"), Message::user("dark"), said("look"), Message::user("dark")];
        let cut = [Message::user("task [NOTICE]"), said("look"), Message::user("dark")];
        let of: Vec<_> = Shown::matched(&cut, &messages).into_iter().map(|s| s.of).collect();
        assert_eq!(of, [None, Some(3), Some(4)]);
    }
}
