//! Where transformers finds chat templates, and what is said of those that refuse.
#![allow(missing_docs)]

use rolegraft_trajectory::{ChatArguments, ChatTemplate, Message, TemplateError};
use std::collections::BTreeMap;
use std::path::Path;

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
