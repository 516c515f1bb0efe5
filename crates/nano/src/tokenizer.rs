//! The pool's tokenizer: byte-level BPE with single digits, trained on the pool's own dialogues.

use crate::dialogues::{Member, dialogue};
use rolegraft_trajectory::{Message, Role, Seed};
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper};
use tokenizers::{Tokenizer, TokenizerBuilder, TokenizerImpl};

/// Entries of the vocabulary.
pub const VOCAB: usize = 1024;
/// `<|endoftext|>`, the padding.
pub const PAD: u32 = 0;
/// `<|im_end|>`, which ends a turn.
pub const END: u32 = 2;

/// ChatML; a tool result is a user turn in `<tool_response>`.
pub const CHAT_TEMPLATE: &str = "{%- for m in messages %}{%- if m.role == 'tool' %}{{- '<|im_start|>user\\n<tool_response>\\n' + m.content + '\\n</tool_response><|im_end|>\\n' }}{%- else %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}";

const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
const MARKUP: [&str; 6] = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"];
/// Dialogues the merges are learnt from.
const SAMPLES: u64 = 6000;

/// Trains the tokenizer. Deterministic by seed.
///
/// # Errors
/// If the trainer refuses its input.
pub fn train(seed: Seed) -> tokenizers::Result<Tokenizer> {
    let special: Vec<AddedToken> = SPECIAL.iter().map(|t| AddedToken::from(*t, true).normalized(false)).collect();
    let markup: Vec<AddedToken> = MARKUP.iter().map(|t| AddedToken::from(*t, false).normalized(false)).collect();
    let split: PreTokenizerWrapper =
        Sequence::new(vec![Digits::new(true).into(), ByteLevel::new(false, true, true).into()]).into();
    let mut tokenizer: TokenizerImpl<
        BPE,
        NormalizerWrapper,
        PreTokenizerWrapper,
        PostProcessorWrapper,
        DecoderWrapper,
    > = TokenizerBuilder::new()
        .with_model(BPE::default())
        .with_normalizer(None)
        .with_pre_tokenizer(Some(split))
        .with_post_processor(None)
        .with_decoder(Some(ByteLevel::new(false, true, true).into()))
        .build()?;
    tokenizer.add_special_tokens(&special);
    tokenizer.add_tokens(&markup);
    let mut trainer = BpeTrainerBuilder::new()
        .show_progress(false)
        .vocab_size(VOCAB)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .max_token_length(Some(16))
        .special_tokens([special, markup].concat())
        .build();
    let text = (0..SAMPLES).flat_map(|i| dialogue(Member::Base, Seed(seed.0 ^ 0xB9E), i)).map(|m| m.content);
    tokenizer.train(&mut trainer, text)?;
    let tokenizer: Tokenizer = tokenizer.into();
    // The trainer writes markup as special; a decoder that skips special tokens must keep it.
    let mut json: serde_json::Value = serde_json::from_str(&tokenizer.to_string(false)?)?;
    if let Some(added) = json["added_tokens"].as_array_mut() {
        for token in added {
            if token["content"].as_str().is_some_and(|t| MARKUP.contains(&t)) {
                token["special"] = false.into();
            }
        }
    }
    json.to_string().parse()
}

/// Token ids of a dialogue and, for each, whether the model is to produce it.
///
/// Pieces are encoded apart exactly where inference encodes them apart: a reply, and everything between replies.
///
/// # Errors
/// If the tokenizer refuses a text.
pub fn encode(tokenizer: &Tokenizer, messages: &[Message]) -> tokenizers::Result<Vec<(u32, bool)>> {
    let mut tokens = Vec::new();
    let mut between = String::new();
    let flush = |between: &mut String, tokens: &mut Vec<(u32, bool)>| -> tokenizers::Result<()> {
        tokens.extend(tokenizer.encode(between.as_str(), false)?.get_ids().iter().map(|id| (*id, false)));
        between.clear();
        Ok(())
    };
    for message in messages {
        match message.role {
            Role::Assistant => {
                between.push_str("<|im_start|>assistant\n");
                flush(&mut between, &mut tokens)?;
                tokens
                    .extend(tokenizer.encode(message.content.as_str(), false)?.get_ids().iter().map(|id| (*id, true)));
                tokens.push((END, true));
                between.push('\n');
            }
            Role::Tool => {
                between.push_str("<|im_start|>user\n<tool_response>\n");
                between.push_str(&message.content);
                between.push_str("\n</tool_response><|im_end|>\n");
            }
            Role::System | Role::User => {
                between.push_str(&format!("<|im_start|>{}\n{}<|im_end|>\n", message.role.as_str(), message.content));
            }
        }
    }
    flush(&mut between, &mut tokens)?;
    Ok(tokens)
}
