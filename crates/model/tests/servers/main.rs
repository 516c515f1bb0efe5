//! What servers do, each kind on a small fake of the server that does it.

mod asking;
mod fake;
mod transport;

use asking::{SAMPLING, config, endpoint, request};
use fake::{Fake, Said, list, reply, text};
use rolegraft_model::{ChatModel, Completion, EndpointConfig, ModelError, Probed, Request, Wanted, probe};
use rolegraft_trajectory::{ChatArguments, ChatTokenizer, Finish, Message, Road, Role, calls};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const CHECKPOINT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../benchmarks/nano-pool/base");

fn tokenizer() -> ChatTokenizer {
    ChatTokenizer::open(Path::new(CHECKPOINT), &ChatArguments::default()).unwrap()
}

fn wanted() -> Wanted {
    let conversations = vec![vec![Role::System, Role::User, Role::Assistant, Role::Tool]];
    Wanted {
        tokenizer: None,
        tools: false,
        conversations,
        sampling: SAMPLING,
        fingerprint: true,
        version: None,
        cache_salt: None,
    }
}

async fn probed(url: &str, wanted: Wanted) -> Result<Probed, ModelError> {
    probe(config(url, 3), wanted).await
}

/// A request whose last message says so.
fn saying(words: &str) -> Request {
    Request { messages: vec![Message::user(words)].into(), ..request() }
}

fn last(body: &Value) -> &str {
    body["messages"].as_array().and_then(|m| m.last()?["content"].as_str()).unwrap_or_default()
}

fn refused(message: &str) -> Said {
    (400, json!({"error": {"message": message}}).to_string())
}

fn native(request: Request) -> Request {
    Request { tools: Some(Arc::new(vec![json!({"type": "function"})])), ..request }
}

/// `transformers serve`: reads calls out of every reply, fails at those it cannot read, and refuses what it does not know.
fn transformers(path: &str, body: &Value) -> Said {
    const KNOWN: [&str; 6] = ["model", "messages", "prompt", "max_tokens", "temperature", "seed"];
    let unknown: Vec<&String> =
        body.as_object().into_iter().flatten().map(|(k, _)| k).filter(|k| !KNOWN.contains(&k.as_str())).collect();
    let call = json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}});
    match path {
        "/v1/models" => list(&["m"]),
        _ if !unknown.is_empty() => {
            let named: Vec<String> = unknown.iter().map(|k| format!("'{k}'")).collect();
            (422, json!({"detail": format!("Unexpected fields in the request: {{{}}}", named.join(", "))}).to_string())
        }
        "/v1/completions" if !body["prompt"].is_string() => {
            (400, json!({"detail": "prompt must be a string"}).to_string())
        }
        "/v1/completions" => {
            let usage = json!({"prompt_tokens": tokenizer().vocabulary().encode(body["prompt"].as_str().unwrap()).unwrap().len()});
            (200, json!({"choices": [{"text": "<tool_call>\n{\"a\": 1\n</tool_call>", "finish_reason": "stop"}], "usage": usage}).to_string())
        }
        _ if last(body).contains("break it") => (500, "Internal Server Error".into()),
        _ if last(body).contains("call") => reply(json!({"content": "", "tool_calls": [call]}), "tool_calls"),
        _ => text("hello"),
    }
}

#[tokio::test]
async fn calls_that_a_server_takes_out_are_written_back_and_marked() {
    let fake = Fake::start(transformers);
    let probed = probed(&fake.url, wanted()).await.unwrap();
    assert_eq!((probed.served.road, probed.served.exact), (Road::Chat, Some(false)));
    assert!(probed.notes.iter().any(|note| note.contains("--tokenizer")), "{:?}", probed.notes);
    let reply = probed.model.complete(&saying("make a call")).await.unwrap();
    let expected = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>";
    assert_eq!((reply.text.as_str(), reply.inexact), (expected, true));
}

#[tokio::test]
async fn what_a_server_keeps_for_itself_is_never_scored() {
    let fake = Fake::start(|path, body| match path {
        "/v1/models" => list(&["m"]),
        _ if last(body).contains("call") => reply(json!({"content": ""}), "tool_calls"),
        _ => text("hello"),
    });
    let error = probed(&fake.url, wanted()).await.err().unwrap();
    assert!(error.to_string().contains("--tokenizer DIR"), "{error}");
    let error = endpoint(&fake.url, 3).complete(&saying("make a call")).await.unwrap_err();
    assert!(matches!(error, ModelError::Fatal(_)), "{error}");
}

#[tokio::test]
async fn a_server_that_breaks_at_one_reply_alone_cannot_read_it() {
    let fake = Fake::start(transformers);
    let probed = probed(&fake.url, wanted()).await.unwrap();
    let model = Arc::clone(&probed.model);
    let reply = model.complete(&saying("break it")).await.unwrap();
    assert_eq!((reply.finish, reply.text.as_str()), (Finish::Unreadable, ""));
    // A server that breaks at everything is broken.
    let broken = Fake::start(|_, _| (500, "Internal Server Error".into()));
    let error = endpoint(&broken.url, 4).complete(&request()).await.unwrap_err();
    assert!(matches!(error, ModelError::Unavailable { tries: 4, .. }), "{error}");
}

#[tokio::test]
async fn what_befalls_every_request_is_not_laid_to_one() {
    let late = |status: u16| {
        let asked = AtomicUsize::new(0);
        Fake::start(move |path, _| match asked.fetch_add(1, Ordering::Relaxed) {
            _ if path == "/v1/models" => list(&["m"]),
            0..40 => text("hello"),
            _ => (status, "Forbidden".into()),
        })
    };
    for (status, expected) in [(500, "500"), (403, "ROLEGRAFT_API_KEY")] {
        let fake = late(status);
        let model = probed(&fake.url, wanted()).await.unwrap().model;
        while model.complete(&request()).await.is_ok_and(|reply| reply.text == "hello") {}
        let error = model.complete(&request()).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn replies_that_are_none_are_no_empty_turns() {
    let said = |choice: Value| Fake::start(move |_, _| (200, json!({"choices": [choice]}).to_string()));
    for content in [json!(42), json!({"text": "x"}), json!(true)] {
        let fake = said(json!({"message": {"content": content}}));
        let error = endpoint(&fake.url, 1).complete(&request()).await.unwrap_err();
        assert!(matches!(&error, ModelError::Fatal(m) if m.contains("only text can be scored")), "{error}");
    }
    let nameless = json!({"content": null, "tool_calls": [{"id": "c", "function": {"arguments": "{}"}}]});
    for message in [json!("hi"), nameless, json!({"content": null, "tool_calls": [null]})] {
        let fake = said(json!({"message": message}));
        let error = endpoint(&fake.url, 1).complete(&request()).await.unwrap_err();
        assert!(matches!(error, ModelError::Unavailable { .. }), "{error}");
    }
    // Ids of another text than the one beside them are not believed.
    let liar = Fake::start(|path, body| {
        let (status, said) = vllm(path, body);
        (status, said.replace("\"text\":\"hello\"", "\"text\":\"other\""))
    });
    let model = probed(&liar.url, Wanted { tokenizer: Some(tokenizer()), ..wanted() }).await.unwrap().model;
    let reply = model.complete(&request()).await.unwrap();
    assert_eq!((reply.text.as_str(), reply.ids.len(), reply.inexact), ("other", 0, true));
}

#[tokio::test]
async fn raw_text_is_asked_for_where_there_is_a_tokenizer() {
    let fake = Fake::start(transformers);
    let wanted = || Wanted { tokenizer: Some(tokenizer()), ..wanted() };
    let raw = probed(&fake.url, wanted()).await.unwrap();
    assert_eq!(raw.served.road, Road::Text);
    let reply = raw.model.complete(&request()).await.unwrap();
    assert_eq!((reply.text.as_str(), reply.inexact), ("<tool_call>\n{\"a\": 1\n</tool_call>", false));

    let vllm = Fake::start(vllm);
    let raw = probed(&vllm.url, wanted()).await.unwrap();
    assert_eq!((raw.served.road, raw.served.exact), (Road::TokenIds, Some(true)));
    let reply = raw.model.complete(&request()).await.unwrap();
    let ids = tokenizer().vocabulary().encode("hello").unwrap();
    assert_eq!((reply.text.as_str(), &reply.ids, reply.finish), ("hello", &ids, Finish::Stop));
    let sent = vllm.asked("/completions").pop().unwrap();
    assert_eq!(sent["prompt"], json!(tokenizer().prompt_ids(&request().messages, &Default::default()).unwrap()));
    let picked = ["top_p", "top_k", "repetition_penalty"].map(|field| sent[field].as_f64());
    assert_eq!(picked, [Some(1.0), Some(-1.0), Some(1.0)], "the checkpoint's own defaults stay out: {sent}");
    assert_eq!(sent["stop_token_ids"], json!(tokenizer().end_ids()));

    let sglang = Fake::start(sglang);
    let raw = probed(&sglang.url, wanted()).await.unwrap();
    assert_eq!((raw.served.road, raw.served.exact), (Road::Generate, Some(true)));
    assert_eq!(raw.model.complete(&request()).await.unwrap().text, "hello");
    let sent = sglang.asked("/generate").pop().unwrap();
    assert_eq!((&sent["sampling_params"]["max_new_tokens"], &sent["model"]), (&json!(64), &Value::Null));
}

fn ids_of_hello() -> Vec<u32> {
    let mut ids = tokenizer().vocabulary().encode("hello").unwrap();
    ids.push(tokenizer().end_ids()[0]);
    ids
}

/// vLLM: takes token ids and gives them back, the end of turn among them.
fn vllm(path: &str, body: &Value) -> Said {
    match path {
        "/v1/models" => (
            200,
            json!({"data": [{"id": "m", "root": "/models/m", "owned_by": "vllm", "created": body["x"]}]}).to_string(),
        ),
        "/v1/completions" => {
            let usage = json!({"prompt_tokens": body["prompt"].as_array().unwrap().len(), "completion_tokens": 9});
            let choice = json!({"text": "hello", "token_ids": ids_of_hello(), "finish_reason": "stop"});
            (200, json!({"choices": [choice], "usage": usage}).to_string())
        }
        _ => text("hello"),
    }
}

/// SGLang: its own route lies beside `/v1`.
fn sglang(path: &str, body: &Value) -> Said {
    match path {
        "/v1/models" => (200, json!({"data": [{"id": "m", "owned_by": "sglang"}]}).to_string()),
        "/generate" => {
            let about = json!({"finish_reason": {"type": "stop"}, "prompt_tokens": body["input_ids"].as_array().unwrap().len(),
                "weight_version": "v1"});
            (200, json!({"text": "hello", "output_ids": ids_of_hello(), "meta_info": about}).to_string())
        }
        _ => text("hello"),
    }
}

#[tokio::test]
async fn answers_of_other_weights_are_thrown_away() {
    let (old, new) = (
        Fake::start(sglang),
        Fake::start(|path, body| {
            let (status, said) = sglang(path, body);
            (status, said.replace("\"v1\"", "\"v2\""))
        }),
    );
    let wanted = |version: &str| Wanted { tokenizer: Some(tokenizer()), version: Some(version.into()), ..wanted() };
    let both = format!("{},{}", old.url, new.url);
    let probed = probed(&both, wanted("v2")).await.unwrap();
    for task in ["a", "b", "c", "d"] {
        assert_eq!(probed.model.complete(&asking::of_task(task)).await.unwrap().text, "hello");
    }
    assert!(new.asked("/generate").iter().filter(|b| b["sampling_params"]["max_new_tokens"] == 64).count() >= 4);
    let stale = probe(config(&both, 3), wanted("v3")).await.unwrap();
    let error = stale.model.complete(&request()).await.unwrap_err();
    assert!(error.to_string().contains("other weights than `v3`"), "{error}");
}

#[tokio::test]
async fn fields_that_a_server_refuses_are_mended_before_the_first_task() {
    let fake = Fake::start(|path, body| {
        match path {
        "/v1/models" => list(&["m"]),
        _ if body.get("max_tokens").is_some() => (400, json!({"error": {"param": "max_tokens", "code": "unsupported_parameter",
            "message": "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."}}).to_string()),
        _ if body.get("seed").is_some() => refused("Unrecognized request argument supplied: seed"),
        _ if body.get("temperature").is_some() && body.get("top_p").is_some() => refused("`temperature` and `top_p` cannot both be specified"),
        _ => text("hello"),
    }
    });
    let sampling = rolegraft_model::Sampling { top_p: 0.9, temperature: 1.0, ..SAMPLING };
    let probed = probed(&fake.url, Wanted { sampling, ..wanted() }).await.unwrap();
    let mended = json!({"max_tokens": "max_completion_tokens", "seed": "", "top_p": ""});
    assert_eq!((&probed.served.fields, probed.notes.len()), (&mended, 3));
    probed.model.complete(&Request { sampling, ..request() }).await.unwrap();
    let sent = fake.asked("/chat/completions").pop().unwrap();
    assert_eq!((&sent["max_completion_tokens"], sent.get("seed")), (&json!(64), None));
    // At 1, a nucleus is not said at all.
    endpoint(&fake.url, 1).complete(&request()).await.unwrap_err();
    assert!(fake.asked("/chat/completions").pop().unwrap().get("top_p").is_none());
}

#[tokio::test]
async fn a_limit_that_is_too_long_is_cut_and_a_prompt_that_is_too_long_overflows() {
    let fake = Fake::start(|_, body| match body["max_tokens"].as_u64().unwrap() {
        _ if last(body) == "long" => refused("the request exceeds the available context size, try increasing it"),
        _ if last(body) == "llama" => (500, "Context size has been exceeded.".into()),
        asked if asked > 24 => refused(&format!(
            "This model's maximum context length is 100 tokens. However, you requested {asked} \
            output tokens and your prompt contains at least 76 input tokens"
        )),
        asked => text(&format!("{asked}")),
    });
    let endpoint = endpoint(&fake.url, 3);
    let reply = endpoint.complete(&request()).await.unwrap();
    assert_eq!((reply.text.as_str(), reply.spent.failures), ("24", 0));
    for words in ["long", "llama"] {
        assert_eq!(endpoint.complete(&saying(words)).await.unwrap().finish, Finish::ContextLimit);
    }
}

#[tokio::test]
async fn a_filter_ends_one_reply_and_no_run() {
    let fake = Fake::start(|path, body| match last(body) {
        _ if path == "/v1/models" => list(&["m"]),
        "azure" => {
            (400, json!({"error": {"code": "content_filter", "message": "The response was filtered"}}).to_string())
        }
        "law" => (451, String::new()),
        "policy" => (403, "forbidden".into()),
        "cut" => reply(json!({"content": "I was going to"}), "content_filter"),
        _ => text("hello"),
    });
    let endpoint = probed(&fake.url, wanted()).await.unwrap().model;
    assert_eq!(endpoint.complete(&request()).await.unwrap().text, "hello");
    for words in ["azure", "law", "policy", "cut"] {
        let reply = endpoint.complete(&saying(words)).await.unwrap();
        assert_eq!((reply.finish, reply.text.as_str()), (Finish::Filtered, ""), "{words}");
    }
}

#[tokio::test]
async fn parts_and_reasoning_are_told_apart() {
    let said = |message: Value| Fake::start(move |_, _| reply(message.clone(), "stop"));
    let part = |kind: &str| json!({"type": kind, kind: "…"});
    let thought = json!({"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]});
    for (message, expected, reasoning) in [
        (json!({"content": [part("text"), {"type": "text", "text": "!"}]}), "…!", ""),
        (json!({"content": [thought, part("text")]}), "…", "hm"),
        (json!({"content": null, "reasoning_content": "hm"}), "", "hm"),
        (json!({"content": "yes", "reasoning": "hm"}), "yes", "hm"),
        (json!({"content": null}), "", ""),
    ] {
        let reply = endpoint(&said(message).url, 1).complete(&request()).await.unwrap();
        assert_eq!((reply.text.as_str(), reply.reasoning.as_str()), (expected, reasoning));
    }
    let error = endpoint(&said(json!({"content": [part("image_url")]})).url, 1).complete(&request()).await.unwrap_err();
    assert!(error.to_string().contains("`image_url`"), "{error}");
}

#[tokio::test]
async fn reasoning_is_sent_back_where_a_server_wants_it() {
    let fake = Fake::start(|_, body| {
        let kept = body["messages"]
            .as_array()
            .unwrap()
            .iter()
            .all(|m| m["role"] != "assistant" || m["reasoning_content"] == "hm");
        if kept {
            text("yes")
        } else {
            refused("The `reasoning_content` in the thinking mode must be passed back to the API.")
        }
    });
    let messages = vec![Message::user("a"), Message::assistant("b"), Message::user("c")].into();
    let asked = Request { messages, reasoning: [(1, Arc::from("hm"))].into(), ..request() };
    assert_eq!(endpoint(&fake.url, 1).complete(&asked).await.unwrap().text, "yes");
    let named = EndpointConfig { reasoning: Some("reasoning_content".into()), ..config(&fake.url, 1) };
    let before = fake.asked("").len();
    rolegraft_model::Endpoint::new(named).unwrap().complete(&asked).await.unwrap();
    assert_eq!(fake.asked("").len(), before + 1);
}

#[tokio::test]
async fn native_calls_keep_their_characters_and_are_shown_as_text_where_they_are_refused() {
    let call = |id: &str| json!({"id": id, "function": {"name": "think", "arguments": "{\"thought\":  1"}});
    let answers = json!({"content": null, "tool_calls": [call("a"), call("b")]});
    let strict = Arc::new(AtomicUsize::new(0));
    let is_strict = strict.clone();
    let fake = Fake::start(move |_, body| {
        let again = body["messages"].as_array().unwrap().iter().any(|m| m.get("tool_calls").is_some());
        match is_strict.load(Ordering::Relaxed) {
            1 if again => refused("messages[1].tool_calls[0].function.arguments is not valid JSON"),
            _ => reply(answers.clone(), "tool_calls"),
        }
    });
    let endpoint = endpoint(&fake.url, 1);
    let mut asked = native(request());
    let Completion { text: first, inexact, .. } = endpoint.complete(&asked).await.unwrap();
    assert_eq!((calls::read(&first).1[1].arguments.as_str(), inexact), ("{\"thought\":  1", false));
    Arc::make_mut(&mut asked.messages).extend([Message::assistant(first.clone()), Message::tool("seen")]);
    endpoint.complete(&asked).await.unwrap();
    let sent = fake.asked("").pop().unwrap();
    let function = json!({"name": "think", "arguments": "{\"thought\":  1"});
    let calls = json!([{"id": "a", "type": "function", "function": function}]);
    assert_eq!(sent["messages"][1], json!({"role": "assistant", "content": null, "tool_calls": calls}));
    let answer = json!({"role": "tool", "tool_call_id": "a", "name": "think", "content": "seen"});
    assert_eq!((&sent["messages"][2], &sent["tools"]), (&answer, &json!([{"type": "function"}])));

    strict.store(1, Ordering::Relaxed);
    endpoint.complete(&asked).await.unwrap();
    let sent = fake.asked("").pop().unwrap();
    assert_eq!(sent["messages"][1], json!({"role": "assistant", "content": first}));
    assert_eq!(sent["messages"][2], json!({"role": "user", "content": "seen"}));
}

#[tokio::test]
async fn who_answers_is_what_the_server_says_of_itself_and_what_it_says() {
    let other =
        |word: &'static str| Fake::start(move |path, _| if path == "/v1/models" { list(&["m"]) } else { text(word) });
    let (a, b, c) = (other("one"), other("one"), other("two"));
    let served = |url: String| async move { probed(&url, wanted()).await.unwrap().served };
    assert_eq!(served(a.url.clone()).await, served(b.url.clone()).await);
    assert_ne!(served(a.url.clone()).await.identity, served(c.url.clone()).await.identity);
    let error = probed(&format!("{},{}", a.url, c.url), wanted()).await.err().unwrap();
    assert!(error.to_string().contains("other weights?"), "{error}");
    // One that says something else every time has no fingerprint.
    let count = AtomicUsize::new(0);
    let fickle = Fake::start(move |path, _| match path {
        "/v1/models" => list(&["m"]),
        _ => text(&count.fetch_add(1, Ordering::Relaxed).to_string()),
    });
    assert_eq!(served(fickle.url.clone()).await.identity, json!({"model": "m"}));
}

#[tokio::test]
async fn wrong_addresses_and_models_are_said_before_the_first_task() {
    let fake = Fake::start(|path, body| match path {
        "/v1/models" => list(&["m", "n"]),
        _ if body["model"] != "m" && body["model"] != "n" => (404, "no such model".into()),
        "/v1/chat/completions" => text("hello"),
        _ => (200, "<html>Welcome</html>".into()),
    });
    let unknown = |model: &str| format!("{}{model}", fake.url);
    let ask = |address: String| async move {
        let config = EndpointConfig { tries: 1, ..EndpointConfig::of(&address, 4, vec!["ROLEGRAFT_API_KEY"]) };
        probe(config, wanted()).await.map(|p| p.name).map_err(|e| e.to_string())
    };
    assert_eq!(ask(unknown("#n")).await.unwrap(), "n");
    for (address, expected) in [
        (unknown("#x"), "has no model `x`, but `m`, `n`"),
        (unknown(""), "several models: name one as"),
        (fake.url.trim_end_matches("/v1").to_owned(), "/v1"),
        ("http://127.0.0.1:1/v1#m".into(), "is the server running"),
    ] {
        let error = ask(address).await.unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    let one = Fake::start(|path, _| if path == "/v1/models" { list(&["only"]) } else { text("x") });
    assert_eq!(ask(one.url.clone()).await.unwrap(), "only");
    // A server that answers to every name does not have every model.
    let error = ask(format!("{}#other", one.url)).await.unwrap_err();
    assert!(error.contains("asked for it, `m` answers"), "{error}");
}

#[tokio::test]
async fn kinds_of_messages_that_a_template_refuses_are_said_before_the_first_task() {
    let strict = |refuses: &'static str| {
        Fake::start(move |path, body| match path {
            "/v1/models" => list(&["m"]),
            _ if body["messages"].as_array().into_iter().flatten().any(|m| m["role"] == refuses) => {
                refused("roles must alternate")
            }
            _ => text("hello"),
        })
    };
    let refused = probed(&strict("system").url, wanted()).await.unwrap().refused;
    assert!(refused[0].0[0] == Role::System && refused[0].1.contains("roles must alternate"), "{refused:?}");
    // An answer of a tool is said by the user where there is no other way.
    for (refuses, expected) in [("tool", "user"), ("nobody", "tool")] {
        let fake = strict(refuses);
        let model = probed(&fake.url, wanted()).await.unwrap().model;
        model
            .complete(&Request { messages: vec![Message::user("a"), Message::tool("b")].into(), ..request() })
            .await
            .unwrap();
        assert_eq!(fake.asked("/chat/completions").pop().unwrap()["messages"][1]["role"], expected);
    }
}

#[tokio::test]
async fn as_many_are_asked_at_once_as_may_be_and_twice_as_many_once_they_are_answered() {
    const ALL: usize = 24;
    for concurrency in [1, 6, 64] {
        // Nobody is answered before the test has looked.
        let (answers, told) = std::sync::mpsc::channel();
        let told = Mutex::new(told);
        let fake = Fake::start(move |_, _| {
            told.lock().unwrap().recv().unwrap();
            text("hello")
        });
        let config = EndpointConfig { concurrency, timeout: Duration::from_secs(60), ..config(&fake.url, 1) };
        let bounded = Arc::new(rolegraft_model::Endpoint::new(config).unwrap());
        let mut asked = tokio::task::JoinSet::new();
        for _ in 0..ALL {
            let bounded = bounded.clone();
            asked.spawn(async move { bounded.complete(&request()).await.unwrap() });
        }
        let (mut limit, mut answered) = (concurrency.min(4), 0);
        while answered < ALL {
            let open = limit.min(ALL - answered);
            while fake.asked("/chat/completions").len() < answered + open {
                tokio::task::yield_now().await;
            }
            // Another would have been asked while another client asked and got its answer.
            let other = Fake::start(|_, _| text("other"));
            endpoint(&other.url, 1).complete(&request()).await.unwrap();
            assert_eq!(fake.asked("/chat/completions").len(), answered + open, "of {concurrency}");
            (0..open).for_each(|_| answers.send(()).unwrap());
            answered += open;
            limit = concurrency.min(2 * limit);
        }
        assert_eq!(asked.join_all().await.len(), ALL);
    }
}
