//! Token ids as the model sees them, with the built-in pool's tokenizer and with templates of other kinds.
#![allow(missing_docs)]

use rolegraft_trajectory::{ChatTokenizer, Message, ReplyTokens};
use std::path::{Path, PathBuf};

fn pool() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../benchmarks/nano-pool/base")
}

/// The pool's tokenizer with another template.
fn with_template(template: &str) -> (tempfile::TempDir, ChatTokenizer) {
    let dir = tempfile::tempdir().unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        std::fs::copy(pool().join(file), dir.path().join(file)).unwrap();
    }
    std::fs::write(dir.path().join("chat_template.jinja"), template).unwrap();
    let chat = ChatTokenizer::open(dir.path()).unwrap();
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

#[test]
fn prompts_grow_by_recorded_ids_and_tokens_cover_the_reply() {
    let chat = ChatTokenizer::open(&pool()).unwrap();
    assert_eq!(chat.end_ids(), [2, 0]);
    let messages = conversation();
    let recorded: Vec<Vec<u32>> = [2, 4].iter().map(|i| chat.encode(&messages[*i].content).unwrap()).collect();
    let first = chat.prompt_ids(&messages[..2], &[]).unwrap();
    let second = chat.prompt_ids(&messages[..4], &recorded[..1]).unwrap();
    assert!(second.starts_with(&first) && second[first.len()..].starts_with(&recorded[0]));
    assert_eq!(second, chat.encode(&chat.render(&messages[..4], true).unwrap()).unwrap());

    let sequences = chat.sequences(&messages, &recorded).unwrap();
    assert_eq!(sequences.len(), 1);
    for ReplyTokens { message, tokens } in &sequences[0].replies {
        let text = &messages[*message].content;
        assert_eq!(tokens.first().unwrap().1.start, 0);
        assert_eq!(tokens.last().unwrap().1.end, text.len());
        assert!(tokens.windows(2).all(|pair| pair[0].1.end == pair[1].1.start && pair[0].0 + 1 == pair[1].0));
    }
    // The recorded ids are kept even where encoding the text again gives others.
    let spelled: Vec<u32> = "Done".chars().flat_map(|c| chat.encode(&c.to_string()).unwrap()).collect();
    let kept =
        chat.sequences(&[Message::user("x"), Message::assistant("Done")], std::slice::from_ref(&spelled)).unwrap();
    assert!(kept[0].ids.ends_with(&spelled));
}

#[test]
fn a_template_that_rewrites_earlier_turns_gives_a_context_a_turn() {
    let (_dir, chat) = with_template(
        "{%- for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and not loop.last %}{{ m.content.split('</think>')[-1] }}\
         {% else %}{{ m.content }}{% endif %}<|im_end|>\n{%- endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    );
    let messages =
        [Message::user("a"), Message::assistant("<think> x </think> b"), Message::user("c"), Message::assistant("d")];
    let sequences = chat.sequences(&messages, &[]).unwrap();
    assert_eq!(sequences.len(), 2);
    assert_eq!(sequences[1].replies[0].message, 3);
    assert!(!chat.decode(&sequences[1].ids).contains("<think>"));
}

#[test]
fn hostile_templates_end() {
    let hostile = "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}";
    let (_dir, chat) = with_template(hostile);
    let error = chat.render(&conversation(), true).unwrap_err().to_string();
    assert!(error.contains("chat template"), "{error}");
    let (_dir, chat) = with_template("{{ raise_exception('roles must alternate') }}");
    assert!(chat.render(&conversation(), true).unwrap_err().to_string().contains("roles must alternate"));
}
