//! Token ids and the text they stand for, exactly.
//!
//! Three kinds of tokenizers are known, by their decoder: byte-level (GPT-2, Llama 3, Qwen), SentencePiece with or without
//! byte fallback (Llama 2, Gemma, Mistral) and WordPiece (BERT). Ids are only ever matched with a text that they decode
//! to, character for character; where broken bytes became U+FFFD, or a tokenizer's normaliser changed the text, ranges
//! still count the text's own bytes.

use crate::error::ChatError;
use serde_json::Value;
use std::ops::Range;
use std::path::{Path, PathBuf};
use tokenizers::Tokenizer;

/// Texts to put before a piece that goes on from others, so that its tokenizer does not take it for a beginning.
const ANCHORS: [&str; 4] = ["\n", ".", "a", "0"];

/// A checkpoint's tokenizer.
pub struct Vocabulary {
    path: PathBuf,
    tokenizer: Tokenizer,
    kind: Kind,
    /// Whether a text encoded alone gains a space in front, so that it must be encoded as what it goes on from.
    prefixes: bool,
    /// Characters of a byte-level vocabulary, and the bytes they stand for.
    bytes: std::collections::HashMap<char, u8>,
}

enum Kind {
    ByteLevel,
    /// What stands for what in a piece (`▁` for a space), and whether `<0x0A>` is a byte.
    SentencePiece {
        spelled: Vec<(String, String)>,
        bytes: bool,
    },
    WordPiece,
}

/// Token ids and, for each, the bytes of the text that it covers: whole characters, so that the tokens of one character
/// overlap.
pub type Tokens = (Vec<u32>, Vec<Range<usize>>);

impl Vocabulary {
    /// Reads `tokenizer.json` of a checkpoint directory.
    ///
    /// # Errors
    /// If it is missing or broken, or neither byte-level, SentencePiece nor WordPiece.
    pub fn read(dir: &Path) -> Result<Self, ChatError> {
        let path = dir.join("tokenizer.json");
        let text = std::fs::read_to_string(&path).map_err(|source| ChatError::Read { path: path.clone(), source })?;
        Self::parse(&path, &text)
    }

    /// A tokenizer from the text of its `tokenizer.json`; `path` names it in errors.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ChatError> {
        let broken = |reason: String| ChatError::Tokenizer { path: path.to_owned(), reason };
        let mut tokenizer: Tokenizer = text.parse().map_err(|e: tokenizers::Error| broken(e.to_string()))?;
        // A checkpoint's file may carry its trainer's limits; a conversation is never cut or padded.
        tokenizer.with_truncation(None).map_err(|e| broken(e.to_string()))?;
        tokenizer.with_padding(None);
        let decoder = serde_json::to_value(tokenizer.get_decoder()).unwrap_or_default();
        let kind = kind(&decoder).map_err(broken)?;
        let bytes = byte_characters();
        let mut vocabulary = Self { path: path.to_owned(), tokenizer, kind, prefixes: false, bytes };
        let alone = vocabulary.encode("a")?;
        vocabulary.prefixes = vocabulary.within(&alone) != "a";
        Ok(vocabulary)
    }

    fn refused(&self, error: &tokenizers::Error) -> ChatError {
        ChatError::Tokenizer { path: self.path.clone(), reason: error.to_string() }
    }

    /// Ids that have a token; logits beyond are padding.
    #[must_use]
    pub fn size(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// The id of a token, by its spelling in the vocabulary.
    #[must_use]
    pub fn id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// Whether a text encoded alone gains a space in front.
    #[must_use]
    pub fn prefixes(&self) -> bool {
        self.prefixes
    }

    /// Ids of a whole text, special tokens in it recognised, none added.
    ///
    /// # Errors
    /// If the tokenizer refuses.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ChatError> {
        Ok(self.tokenizer.encode_fast(text, false).map_err(|e| self.refused(&e))?.get_ids().to_vec())
    }

    /// Ids of a whole text, special tokens added as the tokenizer does by itself.
    ///
    /// # Errors
    /// If the tokenizer refuses.
    pub fn encode_with_special(&self, text: &str) -> Result<Vec<u32>, ChatError> {
        Ok(self.tokenizer.encode_fast(text, true).map_err(|e| self.refused(&e))?.get_ids().to_vec())
    }

    /// Ids of a text that goes on from another: a tokenizer that puts a space before every beginning puts none here.
    ///
    /// # Errors
    /// If the tokenizer refuses.
    pub fn encode_further(&self, text: &str) -> Result<Vec<u32>, ChatError> {
        if self.prefixes && !text.is_empty() {
            for anchor in ANCHORS {
                let before = self.encode(anchor)?;
                let both = self.encode(&format!("{anchor}{text}"))?;
                if let Some(ids) = both.strip_prefix(before.as_slice()) {
                    return Ok(ids.to_vec());
                }
            }
        }
        self.encode(text)
    }

    /// Ids of a whole text with what each covers of it.
    ///
    /// # Errors
    /// If the tokenizer refuses.
    pub fn tokens(&self, text: &str) -> Result<Tokens, ChatError> {
        let encoding = self.tokenizer.encode(text, false).map_err(|e| self.refused(&e))?;
        let ids = encoding.get_ids().to_vec();
        let ranges = self.ranges(&ids, text).unwrap_or_else(|| {
            // A normaliser changed the text: the encoding knows where each token came from.
            encoding.get_offsets().iter().map(|(a, b)| (*a).min(text.len())..(*b).min(text.len())).collect()
        });
        Ok((ids, ranges))
    }

    /// The text of some ids, markup included, as transformers decodes them: bytes that are not UTF-8 show as U+FFFD.
    #[must_use]
    pub fn decode(&self, ids: &[u32]) -> String {
        self.tokenizer.decode(ids, false).unwrap_or_default()
    }

    /// The text of some ids as servers give it that leave out special tokens.
    #[must_use]
    pub fn decode_without_special(&self, ids: &[u32]) -> String {
        self.tokenizer.decode(ids, true).unwrap_or_default()
    }

    /// The text of some ids as it stands where other text comes before: no space is stripped from its start.
    #[must_use]
    pub fn within(&self, ids: &[u32]) -> String {
        for anchor in ["a", "."] {
            let Some(before) = self.tokenizer.token_to_id(anchor).map(|id| vec![id]) else { continue };
            let both: Vec<u32> = before.iter().chain(ids).copied().collect();
            if let Some(text) = self.decode(&both).strip_prefix(self.decode(&before).as_str()) {
                return text.to_owned();
            }
        }
        self.decode(ids)
    }

    /// What each of some ids covers of `text`; nothing if one is beyond the vocabulary or they decode to another text.
    #[must_use]
    pub fn ranges(&self, ids: &[u32], text: &str) -> Option<Vec<Range<usize>>> {
        let spelled = self.spelled(ids)?;
        if self.decode(ids) != text {
            return None;
        }
        // The first space of a reply is stripped.
        let cut = spelled.text.len().checked_sub(text.len());
        let stripped = |cut: &usize| spelled.text.ends_with(text) && spelled.text[..*cut].bytes().all(|b| b == b' ');
        match cut.filter(stripped) {
            Some(cut) => Some(spelled.ranges(cut).collect()),
            None => Some(self.by_decoding(ids, text)),
        }
    }

    /// As [`Self::ranges`], for ids that stand behind others: nothing is stripped.
    #[must_use]
    pub fn ranges_within(&self, ids: &[u32], text: &str) -> Option<Vec<Range<usize>>> {
        let spelled = self.spelled(ids)?;
        (spelled.text == text).then(|| spelled.ranges(0).collect())
    }

    fn spelled(&self, ids: &[u32]) -> Option<Spelled> {
        let pieces: Vec<String> = ids.iter().map(|id| self.tokenizer.id_to_token(*id)).collect::<Option<_>>()?;
        Some(match &self.kind {
            Kind::ByteLevel => Spelled::byte_level(pieces.iter().map(|piece| self.byte_level(piece))),
            Kind::SentencePiece { spelled, bytes } => {
                Spelled::sentence_piece(pieces.iter().map(|piece| sentence_piece(piece, spelled, *bytes)))
            }
            // Spaces stand between words, and clean-up takes some of them: only decoding tells.
            Kind::WordPiece => Spelled::default(),
        })
    }

    /// Bytes of a byte-level token: its characters', or its own text's where it is an added token that has others.
    fn byte_level(&self, piece: &str) -> Vec<u8> {
        piece
            .chars()
            .map(|c| self.bytes.get(&c).copied())
            .collect::<Option<_>>()
            .unwrap_or_else(|| piece.as_bytes().to_vec())
    }

    /// Ranges found by decoding one id more at a time: slow, and right for every decoder that works from left to right.
    fn by_decoding(&self, ids: &[u32], text: &str) -> Vec<Range<usize>> {
        let shared = |a: &str| a.char_indices().zip(text.chars()).take_while(|((_, x), y)| x == y).last();
        let mut start = 0;
        (1..=ids.len())
            .map(|count| {
                let so_far = self.decode(&ids[..count]);
                let end = shared(&so_far).map_or(0, |((at, c), _)| at + c.len_utf8()).max(start);
                std::mem::replace(&mut start, end)..end
            })
            .collect()
    }
}

/// The characters that stand for bytes in byte-level vocabularies: printable ones for themselves, the others from
/// U+0100 on, in order (openai/gpt-2@9b63575:src/encoder.py, `bytes_to_unicode`).
fn byte_characters() -> std::collections::HashMap<char, u8> {
    let mut others = (0x100..).filter_map(char::from_u32);
    let stands = |byte: u8| match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => Some(char::from(byte)),
        _ => others.next(),
    };
    (0..=u8::MAX).map(stands).zip(0..=u8::MAX).filter_map(|(c, byte)| Some((c?, byte))).collect()
}

/// What kind of tokenizer a decoder belongs to.
fn kind(decoder: &Value) -> Result<Kind, String> {
    let steps: Vec<&Value> = match decoder["type"].as_str() {
        Some("Sequence") => decoder["decoders"].as_array().into_iter().flatten().collect(),
        Some(_) => vec![decoder],
        None => Vec::new(),
    };
    let types: Vec<&str> = steps.iter().map(|step| step["type"].as_str().unwrap_or("?")).collect();
    let only = |known: &[&str]| !types.is_empty() && types.iter().all(|t| known.contains(t));
    if types.contains(&"ByteLevel") && only(&["ByteLevel", "Fuse"]) {
        return Ok(Kind::ByteLevel);
    }
    if only(&["WordPiece"]) {
        return Ok(Kind::WordPiece);
    }
    if only(&["Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"]) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let spelled = steps.iter().filter_map(|step| match step["type"].as_str() {
            Some("Replace") => Some((text(&step["pattern"]["String"]), text(&step["content"]))),
            Some("Metaspace") => Some((text(&step["replacement"]), " ".to_owned())),
            _ => None,
        });
        let spelled = spelled.filter(|(from, _)| !from.is_empty()).collect();
        return Ok(Kind::SentencePiece { spelled, bytes: types.contains(&"ByteFallback") });
    }
    let named =
        if types.is_empty() { "it has no decoder".to_owned() } else { format!("its decoder is {}", types.join(" + ")) };
    Err(format!(
        "{named}, so its tokens cannot be matched with text: byte-level, SentencePiece and WordPiece tokenizers can"
    ))
}

/// What a token adds to a text.
enum Piece {
    /// Text.
    Text(String),
    /// One byte, which is part of a character with its neighbours or broken.
    Byte(u8),
}

fn sentence_piece(piece: &str, spelled: &[(String, String)], bytes: bool) -> Piece {
    let byte = piece.strip_prefix("<0x").and_then(|hex| hex.strip_suffix('>')).filter(|hex| bytes && hex.len() == 2);
    if let Some(byte) = byte.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
        return Piece::Byte(byte);
    }
    Piece::Text(spelled.iter().fold(piece.to_owned(), |text, (from, to)| text.replace(from.as_str(), to)))
}

/// A text, the raw bytes it was decoded from, and where each character of one lies in the other.
#[derive(Default)]
struct Spelled {
    text: String,
    /// Where each token's raw bytes end.
    ends: Vec<usize>,
    /// Starts of characters, and of broken sequences: in the raw bytes, and in the text.
    starts: Vec<(usize, usize)>,
    raw: usize,
}

impl Spelled {
    /// Every maximal broken sequence is one U+FFFD, wherever tokens begin.
    fn byte_level(pieces: impl Iterator<Item = Vec<u8>>) -> Self {
        let mut spelled = Self::default();
        let mut raw = Vec::new();
        for piece in pieces {
            raw.extend(piece);
            spelled.ends.push(raw.len());
        }
        for chunk in raw.utf8_chunks() {
            spelled.characters(chunk.valid());
            if !chunk.invalid().is_empty() {
                spelled.broken(chunk.invalid().len());
            }
        }
        spelled
    }

    /// A run of byte tokens is text if it is UTF-8 as a whole; otherwise every byte of it is a U+FFFD.
    fn sentence_piece(pieces: impl Iterator<Item = Piece>) -> Self {
        let mut spelled = Self::default();
        let (mut run, mut end) = (Vec::new(), 0);
        for piece in pieces {
            match piece {
                Piece::Byte(byte) => {
                    run.push(byte);
                    end += 1;
                }
                Piece::Text(text) => {
                    spelled.run(&std::mem::take(&mut run));
                    spelled.characters(&text);
                    end += text.len();
                }
            }
            spelled.ends.push(end);
        }
        spelled.run(&run);
        spelled
    }

    fn run(&mut self, bytes: &[u8]) {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.characters(text),
            Err(_) => bytes.iter().for_each(|_| self.broken(1)),
        }
    }

    fn characters(&mut self, text: &str) {
        let (raw, at) = (self.raw, self.text.len());
        self.starts.extend(text.char_indices().map(|(i, _)| (raw + i, at + i)));
        self.text.push_str(text);
        self.raw += text.len();
    }

    fn broken(&mut self, bytes: usize) {
        self.starts.push((self.raw, self.text.len()));
        self.text.push(char::REPLACEMENT_CHARACTER);
        self.raw += bytes;
    }

    /// Where in the text the character begins that raw byte `at` belongs to.
    fn begin(&self, at: usize) -> usize {
        let after = self.starts.partition_point(|(raw, _)| *raw <= at);
        if at >= self.raw { self.text.len() } else { self.starts[..after].last().map_or(0, |(_, text)| *text) }
    }

    /// Each token's range of the text after its first `cut` bytes, widened to whole characters. A token of which nothing is
    /// left belongs to the first character, as tokenizers have it with the spaces that they add.
    fn ranges(&self, cut: usize) -> impl Iterator<Item = Range<usize>> + '_ {
        let first = self.text.get(cut..).and_then(|text| text.chars().next()).map_or(0, char::len_utf8);
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(self.ends.iter().copied()).map(move |(start, end)| {
            let begin = self.begin(start);
            let next = self.starts.partition_point(|(raw, _)| *raw < end);
            let finish = self.starts.get(next).map_or(self.text.len(), |(_, text)| *text);
            let finish = if end > start { finish } else { begin };
            match finish.saturating_sub(cut) {
                0 if end > start => 0..first,
                finish => begin.saturating_sub(cut)..finish,
            }
        })
    }
}
