//! Chat templates as transformers rendered them, and where it finds them.
#![allow(missing_docs, clippy::print_stderr)]

use rolegraft_trajectory::{ChatArguments, ChatTemplate, Message, TemplateError};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::{Path, PathBuf};

fn recordings(folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("ROLEGRAFT_CONFORMANCE")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    let path = root.join(folder);
    if !path.exists() {
        eprintln!("skipped: recordings `{folder}` not found (set ROLEGRAFT_CONFORMANCE)");
        return None;
    }
    Some(path)
}

/// Replays a file of recordings; gives how many cases are equal, refused by both, and a line for each that differs.
fn replay(conversations: &Path, file: &Path) -> (usize, usize, Vec<String>) {
    let conversations: BTreeMap<String, Vec<Message>> =
        serde_json::from_slice(&std::fs::read(conversations).unwrap()).unwrap();
    let lines = std::io::BufReader::new(flate2::read::MultiGzDecoder::new(std::fs::File::open(file).unwrap())).lines();
    let (mut equal, mut refused, mut different) = (0, 0, Vec::new());
    for line in lines {
        let row: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let name = row["template"].as_str().unwrap();
        let special = row["special"].as_object().unwrap().iter();
        let special = special.filter_map(|(name, token)| Some((name.clone(), token.as_str()?.to_owned()))).collect();
        let template = ChatTemplate::new(Path::new(name), row["source"].as_str().unwrap(), special);
        for case in row["cases"].as_array().unwrap() {
            let mut arguments = ChatArguments::default();
            arguments.set("date", "2026-11-28").unwrap();
            for (key, value) in case["arguments"].as_object().into_iter().flatten() {
                arguments.set(key, value.clone()).unwrap();
            }
            let conversation = case["conversation"].as_str().unwrap();
            let generate = case["generate"].as_bool().unwrap();
            let rendered = match &template {
                Ok(template) => {
                    template.render(&conversations[conversation], generate, &arguments).map_err(|e| e.to_string())
                }
                Err(error) => Err(error.to_string()),
            };
            let what = format!("{name} {conversation} {generate} {}", case["arguments"]);
            match (case["text"].as_str(), rendered) {
                (Some(text), Ok(rendered)) if rendered == text => equal += 1,
                (Some(text), Ok(rendered)) => {
                    let same = text.chars().zip(rendered.chars()).take_while(|(a, b)| a == b).count();
                    let near = |s: &str| s.chars().skip(same.saturating_sub(20)).take(60).collect::<String>();
                    different.push(format!("{what}: wrote {:?}, not {:?}", near(&rendered), near(text)));
                }
                (Some(_), Err(error)) => different.push(format!("{what}: {error}")),
                (None, Err(_)) => refused += 1,
                (None, Ok(_)) => different.push(format!("{what}: should fail: {}", case["why"])),
            }
        }
    }
    (equal, refused, different)
}

#[test]
fn renders_as_transformers_does() {
    let Some(dir) = recordings("chat-golden") else { return };
    let (equal, refused, different) = replay(&dir.join("conversations.json"), &dir.join("templates.jsonl.gz"));
    assert!(different.is_empty(), "{} of {}:\n{}", different.len(), equal + refused, different.join("\n"));
    assert_eq!((equal, refused), (7222, 1274));
}

/// For recordings of one's own, made as `chat-golden` is, with `arguments` where a case has any.
#[test]
#[ignore = "set ROLEGRAFT_CONVERSATIONS and ROLEGRAFT_TEMPLATES to files"]
fn renders_other_recordings() {
    let path = |name: &str| PathBuf::from(std::env::var_os(name).unwrap_or_else(|| panic!("set {name}")));
    let (equal, refused, different) = replay(&path("ROLEGRAFT_CONVERSATIONS"), &path("ROLEGRAFT_TEMPLATES"));
    eprintln!("{equal} equal, {refused} refused by both, {} different", different.len());
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn reads_a_template_where_transformers_does() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let arguments = |text: &str| ChatArguments::parse(text).unwrap();
    assert!(matches!(ChatTemplate::read(dir.path()), Err(TemplateError::None(_))));
    write("chat_template.json", r#"{"chat_template": "json"}"#);
    assert_eq!(ChatTemplate::read(dir.path()).unwrap().sources().next(), Some("json"));
    let named = "{{ bos_token }}{{ eos_token }}{{ image_token }}{{ x }}";
    let config = serde_json::json!({
        "bos_token": {"content": "<b>"}, "eos_token": null, "add_bos_token": true,
        "extra_special_tokens": {"image_token": "<i>"},
        "chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": named}],
    });
    write("tokenizer_config.json", &config.to_string());
    let template = ChatTemplate::read(dir.path()).unwrap();
    assert_eq!(template.render(&[], true, &arguments("x=[1,\"a\"]")).unwrap(), "<b><i>[1, 'a']");
    write("chat_template.jinja", "{{ strftime_now('%d %b %Y') }}\r\n");
    let template = ChatTemplate::read(dir.path()).unwrap();
    assert!(template.writes_date());
    assert_eq!(template.render(&[], true, &arguments("date=2024-07-26")).unwrap(), "26 Jul 2024");
    write("tokenizer_config.json", "{");
    assert!(ChatTemplate::read(dir.path()).unwrap_err().to_string().contains("tokenizer_config.json"));
}

#[test]
fn a_conversation_with_tools_takes_tool_use() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let read = || ChatTemplate::read(dir.path());
    let wrote = |arguments: &str| {
        read().and_then(|template| template.render(&[], true, &ChatArguments::parse(arguments).unwrap()))
    };
    let (tools, none) = ("tools=[]", "tools=null");
    let listed = r#"{"chat_template": [{"name": "rag", "template": "{% x"}, {"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]}"#;
    for config in [listed, r#"{"chat_template": {"default": "d", "tool_use": "t", "rag": "{% x"}}"#] {
        write("tokenizer_config.json", config);
        assert_eq!(read().unwrap().sources().next(), Some("d"));
        assert_eq!(
            (wrote(tools).unwrap(), wrote(none).unwrap(), wrote("x=1").unwrap()),
            ("t".into(), "d".into(), "d".into())
        );
    }
    write("tokenizer_config.json", r#"{"chat_template": {"default": "d"}}"#);
    assert_eq!(wrote(tools).unwrap(), "d");
    write("tokenizer_config.json", r#"{"chat_template": [{"name": "default"}]}"#);
    assert!(matches!(read(), Err(TemplateError::Json { .. })));
    // Files hide what the configuration says, even where they leave no default.
    write("tokenizer_config.json", listed);
    std::fs::create_dir(dir.path().join("additional_chat_templates")).unwrap();
    write("additional_chat_templates/rag.jinja", "r");
    assert!(matches!(read(), Err(TemplateError::None(_))));
    write("additional_chat_templates/tool_use.jinja", "more t");
    assert_eq!(wrote(tools).unwrap(), "more t");
    assert!(matches!(wrote(none), Err(TemplateError::NoDefault(_))));
    write("chat_template.jinja", "file d");
    assert_eq!((wrote(tools).unwrap(), wrote(none).unwrap()), ("more t".into(), "file d".into()));
}

#[test]
fn a_refusal_keeps_its_sentence_and_names_the_file() {
    let render = |source: &str| {
        let template = ChatTemplate::new(Path::new("checkpoint"), source, BTreeMap::new())?;
        template.render(&[Message::user("Hello")], true, &ChatArguments::default())
    };
    let refusal = render("{{ raise_exception('Only two roles') }}").unwrap_err();
    assert!(matches!(&refusal, TemplateError::Refused { sentence, .. } if sentence == "Only two roles"), "{refusal}");
    assert!(matches!(render("{{ 'x' * 10**9 }}"), Err(TemplateError::TooLong { .. })));
    for source in ["{{ 1 // 0 }}", "{% if %}"] {
        let error = render(source).unwrap_err().to_string();
        assert!(error.contains("`checkpoint`") && error.contains("line 1: "), "{error}");
    }
}

#[test]
fn arguments_that_are_none_say_so() {
    for text in ["x", "date=2024", "date=2024-02-31", "messages=1", "1a=2"] {
        let error = ChatArguments::parse(text).unwrap_err().to_string();
        assert!(error.contains(&format!("`{}`", text.split('=').next().unwrap())), "{error}");
    }
}
