//! Token ids as the model sees them, with the built-in pool's tokenizer and with templates of other kinds.
#![allow(missing_docs)]

use proptest::prelude::*;
use rolegraft_trajectory::{
    ChatArguments, ChatTokenizer, Context, Episode, EpisodeKey, Finish, Message, Part, Recorded, ReplyTokens, Role,
    Spent, Status, Turn,
};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

fn pool() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../benchmarks/nano-pool/base")
}

fn open(dir: &Path) -> ChatTokenizer {
    ChatTokenizer::open(dir, &ChatArguments::default()).unwrap()
}

static POOL: LazyLock<ChatTokenizer> = LazyLock::new(|| open(&pool()));

/// The pool's tokenizer with another template.
fn with_template(template: &str) -> (tempfile::TempDir, ChatTokenizer) {
    let dir = tempfile::tempdir().unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        std::fs::copy(pool().join(file), dir.path().join(file)).unwrap();
    }
    std::fs::write(dir.path().join("chat_template.jinja"), template).unwrap();
    let chat = open(dir.path());
    (dir, chat)
}

fn conversation() -> Vec<Message> {
    vec![
        Message::system("You are a retail agent."),
        Message::user("Cancel order #W1234."),
        Message::assistant("<tool_call>\n{\"name\": \"x\", \"arguments\": {}}\n</tool_call>"),
        Message::tool("{\"ok\": true}"),
        Message::assistant("Done – é."),
    ]
}

/// An episode in which `own` of the messages are the model's turns, said in ids of its own.
fn episode(chat: &ChatTokenizer, messages: Vec<Message>, own: &[usize]) -> Episode {
    let turn = |message: &usize| Turn {
        message: *message,
        shown: Context::All,
        ids: chat.vocabulary().encode(&messages[*message].content).unwrap(),
        finish: Finish::Stop,
        spans: Vec::new(),
        action: None,
        violations: Vec::new(),
        drafts: 0,
        succeeded: true,
        inexact: false,
        reasoning: String::new(),
    };
    Episode {
        key: EpisodeKey { suite: "os".into(), task: "t".into(), trial: 0 },
        status: Status::Completed,
        reward: 1.0,
        turns: own.iter().map(turn).collect(),
        messages,
        detail: serde_json::Value::Null,
        spent: Spent::default(),
        others_spent: Spent::default(),
        seconds: 0.0,
    }
}

fn ids_of(chat: &ChatTokenizer, messages: &[Message], own: &[usize]) -> Recorded {
    own.iter().map(|i| (*i, Arc::from(chat.vocabulary().encode(&messages[*i].content).unwrap()))).collect()
}

#[test]
fn prompts_grow_by_recorded_ids_and_tokens_cover_the_reply() {
    let chat = &*POOL;
    assert_eq!(chat.end_ids(), [2, 0]);
    let messages = conversation();
    let recorded = ids_of(chat, &messages, &[2, 4]);
    let first = chat.prompt_ids(&messages[..2], &Recorded::new()).unwrap();
    let second = chat.prompt_ids(&messages[..4], &recorded).unwrap();
    assert!(second.starts_with(&first) && second[first.len()..].starts_with(&recorded[&2]));
    assert_eq!(second, chat.vocabulary().encode(&chat.render(&messages[..4], true).unwrap()).unwrap());

    let contexts = chat.contexts(&episode(chat, messages.clone(), &[2, 4])).unwrap();
    assert_eq!((contexts.sequences.len(), contexts.other_ids.len(), contexts.unknown.len()), (1, 0, 0));
    for (reply, message) in contexts.sequences[0].replies.iter().zip([2, 4]) {
        let (ReplyTokens { tokens, .. }, text) = (reply, &messages[message].content);
        assert_eq!(tokens.first().unwrap().1.start, 0);
        assert_eq!(tokens.last().unwrap().1.end, text.len());
        assert!(tokens.windows(2).all(|pair| pair[1].1.start <= pair[0].1.end && pair[0].0 + 1 == pair[1].0));
    }
    // The recorded ids are kept even where encoding the text again gives others.
    let spelled: Vec<u32> = "Done".chars().flat_map(|c| chat.vocabulary().encode(&c.to_string()).unwrap()).collect();
    let mut spelling = episode(chat, vec![Message::user("x"), Message::assistant("Done")], &[1]);
    spelling.turns[0].ids = spelled.clone();
    assert!(chat.contexts(&spelling).unwrap().sequences[0].ids.ends_with(&spelled));
}

#[test]
fn replies_that_came_with_the_task_are_not_the_models() {
    let chat = &*POOL;
    let messages = vec![
        Message::user("Instructions"),
        Message::assistant("OK"),
        Message::user("Your task."),
        Message::assistant("go to shelf 1"),
        Message::user("empty"),
        Message::assistant("go to shelf 2"),
        Message::user("found"),
    ];
    let prompt = chat.prompt_ids(&messages, &ids_of(chat, &messages, &[3, 5])).unwrap();
    assert_eq!(chat.vocabulary().decode(&prompt), chat.render(&messages, true).unwrap());
    let contexts = chat.contexts(&episode(chat, messages.clone(), &[3, 5])).unwrap();
    let said: Vec<String> = contexts.sequences[0]
        .replies
        .iter()
        .map(|reply| {
            let ids: Vec<u32> = reply.tokens.iter().map(|(at, _)| contexts.sequences[0].ids[*at]).collect();
            chat.vocabulary().decode(&ids)
        })
        .collect();
    assert_eq!(said, ["go to shelf 1", "go to shelf 2"]);
}

#[test]
fn traces_read_what_was_shown() {
    let chat = &*POOL;
    let mut played = episode(chat, conversation(), &[2, 4]);
    let part = |message, bytes, then: &str| Part::Cut { message, bytes, then: then.into() };
    played.turns[1].shown =
        Context::Parts(vec![Part::Said(0..1), part(1, 6, " [1 message is omitted]"), Part::Said(2..4)]);
    let contexts = chat.contexts(&played).unwrap();
    assert_eq!(contexts.sequences.len(), 2);
    let text = chat.vocabulary().decode(&contexts.sequences[1].ids);
    assert!(text.contains("Cancel [1 message is omitted]") && !text.contains("#W1234"), "{text}");
    // The earlier reply stands in the cut context in the ids it was said in.
    assert!(contexts.sequences[1].ids.windows(played.turns[0].ids.len()).any(|w| w == played.turns[0].ids));
    played.turns[1].shown = Context::Unknown;
    let contexts = chat.contexts(&played).unwrap();
    assert_eq!((contexts.sequences.len(), contexts.unknown), (1, vec![1]));
}

#[test]
fn ids_of_another_text_or_vocabulary_are_not_used() {
    let chat = &*POOL;
    let encode = |text: &str| chat.vocabulary().encode(text).unwrap();
    for ids in [encode("Done – è."), encode("Done – "), vec![1_000_000], vec![u32::MAX, 5]] {
        let mut played = episode(chat, conversation(), &[2, 4]);
        played.turns[1].ids = ids;
        let contexts = chat.contexts(&played).unwrap();
        assert_eq!(contexts.other_ids, [1]);
        assert!(contexts.sequences[0].ids.ends_with(&encode("Done – é.")));
    }
    // A text with U+FFFD of its own takes no ids but its own.
    let text = "a \u{fffd} b";
    let mut played = episode(chat, vec![Message::user("x"), Message::assistant(text)], &[1]);
    assert_eq!(chat.contexts(&played).unwrap().other_ids, [0usize; 0]);
    played.turns[0].ids = encode("a ? b");
    assert_eq!(chat.contexts(&played).unwrap().other_ids, [0]);
}

#[test]
fn bytes_that_are_no_character_count_as_the_text_shows_them() {
    let vocabulary = POOL.vocabulary();
    // "é" in two bytes; its first alone is broken, twice over.
    let [first, second] = vocabulary.encode("é").unwrap()[..] else { panic!("é is one token") };
    let hash = vocabulary.encode("#").unwrap()[0];
    let ids = [first, first, second, hash, first, hash];
    let text = vocabulary.decode(&ids);
    assert_eq!(text, "\u{fffd}é#\u{fffd}#");
    assert_eq!(vocabulary.ranges(&ids, &text).unwrap(), [0..3, 3..5, 3..5, 5..6, 6..9, 9..10]);
    assert_eq!(vocabulary.ranges(&ids[..5], &text), None);
}

/// A small SentencePiece vocabulary with byte fallback, as Llama 2's.
fn sentence_piece(dir: &Path, template: &str) -> ChatTokenizer {
    let mut vocabulary = serde_json::Map::new();
    for token in ["<unk>", "<s>", "</s>"] {
        vocabulary.insert(token.into(), vocabulary.len().into());
    }
    for byte in 0..=u8::MAX {
        vocabulary.insert(format!("<0x{byte:02X}>"), vocabulary.len().into());
    }
    let merges = ["g o", "o k", "▁ go", "▁ ok", "[ I", "[I N", "[IN S", "[INS T", "[INST ]", "▁ [INST]"];
    let letters = "▁abcdefghijklmnopqrstuvwxyz[]/INST.";
    for token in letters.chars().map(String::from).chain(merges.iter().map(|m| m.replace(' ', ""))) {
        let id = vocabulary.len();
        vocabulary.entry(token).or_insert(id.into());
    }
    let special = |id: u32, content: &str| {
        serde_json::json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let tokenizer = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "post_processor": null, "pre_tokenizer": null,
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "vocab": vocabulary, "merges": merges},
    });
    std::fs::write(dir.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let config = serde_json::json!({"bos_token": "<s>", "eos_token": "</s>", "chat_template": template});
    std::fs::write(dir.join("tokenizer_config.json"), config.to_string()).unwrap();
    open(dir)
}

const LLAMA_2: &str = "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content + ' [/INST]' }}\
    {% else %}{{ ' ' + m.content + ' ' + eos_token }}{% endif %}{% endfor %}";

#[test]
fn sentence_piece_counts_bytes_of_the_stripped_text() {
    let dir = tempfile::tempdir().unwrap();
    let chat = sentence_piece(dir.path(), LLAMA_2);
    let vocabulary = chat.vocabulary();
    assert_eq!(chat.end_ids(), [2]);
    let text = "go é\nok";
    let (ids, ranges) = vocabulary.tokens(text).unwrap();
    // ▁go ▁ <0xC3> <0xA9> <0x0A> o k: the merge "▁ ok" needs a blank before it.
    assert_eq!(ranges.len(), ids.len());
    assert_eq!(ranges, [0..2, 2..3, 3..5, 3..5, 5..6, 6..8]);
    assert_eq!(vocabulary.decode(&ids), text);
    // Broken bytes: one U+FFFD each, in a run that is not UTF-8 as a whole.
    let byte = |b: u8| vocabulary.id(&format!("<0x{b:02X}>")).unwrap();
    let ids = [vocabulary.id("▁go").unwrap(), byte(0xc3), byte(0x0a), vocabulary.id("ok").unwrap()];
    let text = vocabulary.decode(&ids);
    assert_eq!(text, "go\u{fffd}\u{fffd}ok");
    assert_eq!(vocabulary.ranges(&ids, &text).unwrap(), [0..2, 2..5, 5..8, 8..10]);
}

#[test]
fn sentence_piece_prompts_are_those_of_the_whole_text() {
    for (template, own) in [
        (LLAMA_2, true),
        // Nothing stands between prompt and reply.
        (
            "{% for m in messages %}{{ m.role + '.' + m.content + eos_token }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant.' }}{% endif %}",
            false,
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let chat = sentence_piece(dir.path(), template);
        let vocabulary = chat.vocabulary();
        let messages = vec![
            Message::user("go"),
            Message::assistant("ok go"),
            Message::user("go ok"),
            Message::assistant("ok"),
            Message::user("a"),
        ];
        let whole = vocabulary.encode(&chat.render(&messages, true).unwrap()).unwrap();
        // Nobody knows the ids: text is encoded where it stands.
        let unknown: Recorded = [1, 3].map(|i| (i, Arc::from([]))).into();
        assert_eq!(chat.prompt_ids(&messages, &unknown).unwrap(), whole);
        assert_eq!(chat.prompt_ids(&messages, &Recorded::new()).unwrap(), whole);
        let mut played = episode(&chat, messages[..4].to_vec(), &[1, 3]);
        played.turns.iter_mut().for_each(|turn| turn.ids.clear());
        let contexts = chat.contexts(&played).unwrap();
        assert_eq!(contexts.sequences.len(), 1, "{:?}", contexts);
        assert!(whole.starts_with(&contexts.sequences[0].ids));
        assert_eq!(contexts.sequences[0].replies[0].tokens.last().unwrap().1.end, 5);
        // The ids that were said are kept: Llama 2 says "▁ok".
        let said: Recorded = ids_of(&chat, &messages, &[1, 3]);
        let prompt = chat.prompt_ids(&messages, &said).unwrap();
        assert!(prompt.windows(said[&3].len()).any(|w| w == &*said[&3]));
        assert_eq!(prompt == whole, own, "{template}");
    }
}

#[test]
fn other_tokenizers_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    sentence_piece(dir.path(), LLAMA_2);
    let path = dir.path().join("tokenizer.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (decoder, named) in [
        (serde_json::json!({"type": "CTC", "pad_token": "a", "word_delimiter_token": "b", "cleanup": true}), "CTC"),
        (serde_json::json!({"type": "BPEDecoder", "suffix": "</w>"}), "BPEDecoder"),
        (serde_json::Value::Null, "it has no decoder"),
    ] {
        json["decoder"] = decoder;
        std::fs::write(&path, json.to_string()).unwrap();
        let error = ChatTokenizer::open(dir.path(), &ChatArguments::default()).err().unwrap().to_string();
        assert!(error.contains("tokenizer.json") && error.contains(named), "{error}");
    }
    std::fs::write(&path, "{").unwrap();
    assert!(ChatTokenizer::open(dir.path(), &ChatArguments::default()).is_err());
}

#[test]
fn a_template_that_rewrites_earlier_turns_gives_a_context_a_turn() {
    let (_dir, chat) = with_template(
        "{%- for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and not loop.last %}{{ m.content.split('</think>')[-1] }}\
         {% else %}{{ m.content }}{% endif %}<|im_end|>\n{%- endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    );
    let messages = vec![
        Message::user("a"),
        Message::assistant("<think> x </think> b"),
        Message::user("c"),
        Message::assistant("d"),
    ];
    let contexts = chat.contexts(&episode(&chat, messages, &[1, 3])).unwrap();
    assert_eq!(contexts.sequences.len(), 2);
    assert_eq!(contexts.sequences[1].replies[0].turn, 1);
    assert!(!chat.vocabulary().decode(&contexts.sequences[1].ids).contains("<think>"));
}

fn said() -> impl Strategy<Value = String> {
    "(go|<think>|</think>|\n| |é|#|\u{fffd}|[a-z]{1,3}){0,8}"
}

proptest! {
    #[test]
    fn what_was_read_before_changes_nothing(
        texts in prop::collection::vec((0usize..4, said()), 1..9), opening in 0usize..3, cut in 0usize..4,
    ) {
        let mut messages: Vec<Message> = texts.iter().map(|(role, text)| {
            Message::new([Role::System, Role::User, Role::Assistant, Role::Tool][*role], text.clone())
        }).collect();
        let own: Vec<usize> =
            (opening..messages.len()).filter(|i| messages[*i].role == Role::Assistant).collect();
        let recorded = ids_of(&POOL, &messages, &own);
        // One that has read this conversation's beginnings, and one that has not.
        let (warm, cold) = (&*POOL, open(&pool()));
        for end in 1..=messages.len() {
            let prompt = warm.prompt_ids(&messages[..end], &recorded).unwrap();
            let theirs: Recorded = recorded.range(..end).map(|(i, ids)| (*i, ids.clone())).collect();
            prop_assert_eq!(&prompt, &cold.prompt_ids(&messages[..end], &theirs).unwrap());
            prop_assert_eq!(warm.vocabulary().decode(&prompt), warm.render(&messages[..end], true).unwrap());
        }
        messages.drain(..cut.min(messages.len()));
        let left: Recorded = recorded.iter().filter(|(i, _)| **i >= cut).map(|(i, ids)| (i - cut, ids.clone())).collect();
        let prompt = warm.prompt_ids(&messages, &left).unwrap();
        prop_assert_eq!(warm.vocabulary().decode(&prompt), warm.render(&messages, true).unwrap());
    }

    #[test]
    fn ranges_are_whole_characters_in_order(ids in prop::collection::vec(0u32..1024, 0..24)) {
        let vocabulary = POOL.vocabulary();
        let text = vocabulary.decode(&ids);
        let ranges = vocabulary.ranges(&ids, &text).unwrap();
        prop_assert_eq!(ranges.len(), ids.len());
        let mut covered = 0;
        for range in &ranges {
            prop_assert!(text.get(range.clone()).is_some() && range.start <= covered && range.end >= covered);
            covered = range.end;
        }
        prop_assert_eq!(covered, text.len());
    }
}
