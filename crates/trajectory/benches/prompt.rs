//! The prompts of a conversation of 100 turns and 60 kB, turn by turn, with Qwen3's tokenizer and template: what is new is
//! encoded, beside what version 0.1.0 did (render and encode every turn from the start; 67f75fe:crates/trajectory/src/chat.rs).
//! The limit is one rendering a turn, and one encoding of the whole.
//!
//! Needs the recordings of chat templates (`ROLEGRAFT_CONFORMANCE`, else `shared/data` beside the project).
#![allow(missing_docs, clippy::print_stdout, clippy::print_stderr)]

use flate2::read::GzDecoder;
use rolegraft_trajectory::{ChatArguments, ChatTokenizer, Message, Recorded, Role};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const TURNS: usize = 100;
const TEMPLATE: &str = "ik__Qwen-Qwen3-0.6B";

fn recordings() -> PathBuf {
    let root = std::env::var_os("ROLEGRAFT_CONFORMANCE");
    root.map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from)
        .join("chat-golden")
}

fn unpacked(path: &Path) -> Option<String> {
    let mut text = String::new();
    GzDecoder::new(std::fs::File::open(path).ok()?).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Qwen3's tokenizer and template in a directory.
fn qwen3(dir: &Path) -> Option<ChatTokenizer> {
    std::fs::write(dir.join("tokenizer.json"), unpacked(&recordings().join("qwen3-tokenizer.json.gz"))?).ok()?;
    let templates = unpacked(&recordings().join("templates.jsonl.gz"))?;
    let all = templates.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let template = all.into_iter().find(|t| t["template"] == TEMPLATE)?;
    std::fs::write(dir.join("chat_template.jinja"), template["source"].as_str()?).ok()?;
    ChatTokenizer::open(dir, &ChatArguments::default()).ok()
}

fn conversation() -> Vec<Message> {
    let mut messages = vec![
        Message::system("You are a retail agent. Be kind, look things up, and follow the policy.\n".repeat(30)),
        Message::user("Please find my order, cancel it, and tell me what I paid for it."),
    ];
    for turn in 0..TURNS {
        let call =
            format!("{{\"name\": \"get_order_details\", \"arguments\": {{\"order_id\": \"#W{:07}\"}}}}", turn * 7919);
        messages.push(Message::assistant(format!("I look at order number {turn}.\n<tool_call>\n{call}\n</tool_call>")));
        let item = format!(
            "{{\"name\": \"Mechanical Keyboard\", \"product_id\": \"{}\", \"price\": {turn}.99}}",
            turn * 104_729
        );
        let order = format!(
            "\"status\": \"delivered\", \"payment_history\": [\"gift_card_{turn}\"], \"address\": \"{turn} Elm Street\""
        );
        messages.push(Message::tool(format!(
            "{{\"order_id\": \"#W{turn:07}\", \"items\": [{item}, {item}, {item}, {item}], {order}}}"
        )));
    }
    messages
}

/// What 0.1.0 did: every reply's prompt is rendered and compared, every piece encoded with its offsets.
fn anew(chat: &ChatTokenizer, messages: &[Message], recorded: &Recorded) -> Vec<u32> {
    let (mut ids, mut seen) = (Vec::new(), String::new());
    let replies = messages.iter().enumerate().filter(|(_, m)| m.role == Role::Assistant).map(|(i, _)| Some(i));
    for stop in replies.chain([None]) {
        let prompt = chat.render(&messages[..stop.unwrap_or(messages.len())], true).unwrap();
        match prompt.strip_prefix(seen.as_str()) {
            Some(rest) if !seen.is_empty() => ids.extend(chat.vocabulary().tokens(rest).unwrap().0),
            _ => ids = chat.vocabulary().tokens(&prompt).unwrap().0,
        }
        let Some(index) = stop else { break };
        ids.extend_from_slice(&recorded[&index]);
        seen = prompt + &messages[index].content;
    }
    ids
}

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let Some(chat) = qwen3(dir.path()) else {
        eprintln!("not run: recordings `chat-golden` not found (set ROLEGRAFT_CONFORMANCE)");
        return;
    };
    let messages = conversation();
    let bytes: usize = messages.iter().map(|m| m.content.len()).sum();
    let replies = || (0..messages.len()).filter(|i| messages[*i].role == Role::Assistant);
    let ids = |i: usize| Arc::from(chat.vocabulary().encode(&messages[i].content).unwrap());
    let recorded: Recorded = replies().map(|i| (i, ids(i))).collect();
    println!("{} messages, {bytes} bytes", messages.len());
    let (mut old, mut new) = (Duration::ZERO, Duration::ZERO);
    for (turn, at) in replies().chain([messages.len()]).enumerate() {
        let begun = Instant::now();
        let now = chat.prompt_ids(&messages[..at], &recorded).unwrap();
        let taken = begun.elapsed();
        new += taken;
        let begun = Instant::now();
        let then = anew(&chat, &messages[..at], &recorded);
        old += begun.elapsed();
        assert_eq!(now, then, "turn {turn}");
        if turn % 25 == 0 {
            println!("turn {turn}: {taken:?} where from the start it took {:?}", begun.elapsed());
        }
    }
    println!(
        "all turns: {new:?} where from the start they took {old:?}: {:.1} times",
        old.as_secs_f64() / new.as_secs_f64()
    );
    let fresh = qwen3(dir.path()).map(|cold| {
        let begun = Instant::now();
        let now = cold.prompt_ids(&messages, &recorded).unwrap();
        let taken = begun.elapsed();
        let begun = Instant::now();
        assert_eq!(now, anew(&cold, &messages, &recorded));
        (taken, begun.elapsed())
    });
    println!("the last alone, nothing read before (now, then): {fresh:?}");
}
