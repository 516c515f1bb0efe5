//! OpenAI-compatible servers.

use crate::client::{Answer, Client, EndpointConfig};
use crate::{ChatModel, Completion, ModelError, Reply, Request};
use rolegraft_trajectory::calls::{self, NativeCall};
use rolegraft_trajectory::{Finish, Role, Spent};
use serde_json::{Value, json};

/// A client of `/chat/completions`.
pub struct Endpoint(Client);

impl Endpoint {
    /// A client; the key comes from the environment.
    ///
    /// # Errors
    /// If there is no URL, or no TLS on this machine.
    pub fn new(config: EndpointConfig) -> Result<Self, ModelError> {
        Client::new(config).map(Self)
    }

    fn body(&self, request: &Request) -> Value {
        let native = request.tools.is_some();
        let mut open_call = None;
        let messages: Vec<Value> = request
            .messages
            .iter()
            .map(|m| match m.role {
                Role::Assistant if native => {
                    let (content, made) = calls::read(&m.content);
                    // upstream (tau-bench): only the first call is executed, and only it is remembered.
                    let Some(call) = made.into_iter().next() else { return plain(m.role, &m.content) };
                    open_call = Some((call.id.clone(), call.name.clone()));
                    let content = if content.is_empty() { Value::Null } else { content.into() };
                    json!({"role": "assistant", "content": content, "tool_calls": [{"id": call.id, "type": "function",
                        "function": {"name": call.name, "arguments": call.arguments}}]})
                }
                Role::Tool => match &open_call {
                    Some((id, name)) => {
                        json!({"role": "tool", "tool_call_id": id, "name": name, "content": m.content})
                    }
                    // Servers want a call's id in a tool message; a plain user turn carries the same text.
                    None => plain(Role::User, &m.content),
                },
                role => plain(role, &m.content),
            })
            .collect();
        let mut body = json!({
            "model": self.0.config.model, "messages": messages, "max_tokens": request.sampling.max_tokens,
            "temperature": request.sampling.temperature, "top_p": request.sampling.top_p,
            "seed": request.key.bits(0) >> 33,
        });
        if let Some(tools) = &request.tools {
            body["tools"] = Value::Array(tools.to_vec());
        }
        body
    }
}

fn plain(role: Role, content: &str) -> Value {
    json!({"role": role.as_str(), "content": content})
}

/// What a server's answer says, calls included; `None` if it has no choice.
fn completion(json: &Value, native: bool) -> Option<Completion> {
    let choice = &json["choices"][0];
    let message = choice.get("message")?;
    let content = message["content"].as_str().unwrap_or_default();
    let made: Vec<NativeCall> = message["tool_calls"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|_| native)
        .map(|call| NativeCall {
            id: call["id"].as_str().unwrap_or_default().to_owned(),
            name: call["function"]["name"].as_str().unwrap_or_default().to_owned(),
            arguments: match &call["function"]["arguments"] {
                Value::String(text) => text.clone(),
                // Some servers send what they parsed.
                other => other.to_string(),
            },
        })
        .collect();
    let count = |name: &str| json["usage"][name].as_u64().unwrap_or(0);
    Some(Completion {
        text: calls::write(content, &made),
        ids: Vec::new(),
        finish: if choice["finish_reason"] == "length" { Finish::Length } else { Finish::Stop },
        spent: Spent {
            calls: 1,
            failures: 0,
            prompt_tokens: count("prompt_tokens"),
            completion_tokens: count("completion_tokens"),
        },
    })
}

impl ChatModel for Endpoint {
    fn complete<'a>(&'a self, request: &'a Request) -> Reply<'a> {
        Box::pin(async move {
            let read = |json: &Value| completion(json, request.tools.is_some());
            let answer = self.0.post("/chat/completions", &self.body(request), request.key, read).await?;
            Ok(match answer {
                (Answer::Overflow, _) => Completion::overflow(),
                (Answer::Given(mut completion), failures) => {
                    completion.spent.failures = u64::from(failures);
                    completion
                }
            })
        })
    }
    fn concurrency(&self) -> usize {
        self.0.config.concurrency
    }
    fn has_native_tools(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KEY_VARIABLE, Sampling};
    use rolegraft_trajectory::{EpisodeKey, Key, Message, Seed};
    use std::time::{Duration, SystemTime};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A server that gives one scripted answer a connection.
    async fn server(answers: Vec<String>) -> (String, tokio::task::JoinHandle<Vec<String>>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let task = tokio::spawn(async move {
            let mut seen = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = vec![0; 1 << 16];
                let n = stream.read(&mut buffer).await.unwrap();
                seen.push(String::from_utf8_lossy(&buffer[..n]).into_owned());
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            }
            seen
        });
        (url, task)
    }
    fn answer(status: &str, headers: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
    }
    fn request() -> Request {
        Request {
            episode: EpisodeKey { suite: "s".into(), task: "t".into(), trial: 0 },
            turn: 0,
            messages: vec![Message::user("hi")].into(),
            recorded: Default::default(),
            tools: None,
            sampling: Sampling { temperature: 0.0, top_p: 1.0, max_tokens: 5 },
            key: Key::new(Seed(1)),
        }
    }
    fn endpoint(url: String, tries: u32) -> Endpoint {
        let config = EndpointConfig::of(&format!("{url}#m"), 1, vec![KEY_VARIABLE]);
        Endpoint::new(EndpointConfig { tries, timeout: Duration::from_secs(2), ..config }).unwrap()
    }
    const GOOD: &str = r#"{"choices":[{"message":{"content":"hello"},"finish_reason":"stop"}]}"#;

    #[tokio::test]
    async fn transient_failures_are_tried_again() {
        let (url, seen) = server(vec![
            answer("429 Too Many Requests", "retry-after: 0\r\n", "slow down"),
            answer("503 Unavailable", "retry-after: Thu, 01 Jan 1970 00:00:00 GMT\r\n", "<html>"),
            answer("200 OK", "", "<html>not json</html>"),
            answer("200 OK", "", r#"{"choices":[]}"#),
            "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"cut".into(),
            answer("200 OK", "", GOOD),
        ])
        .await;
        assert_eq!(endpoint(url, 9).complete(&request()).await.unwrap().text, "hello");
        assert_eq!(seen.await.unwrap().len(), 6);
    }

    #[tokio::test]
    async fn permanent_failures_stop_and_overflow_is_an_answer() {
        let (url, _seen) = server(vec![
            answer("401 Unauthorized", "", "no"),
            answer("400 Bad Request", "", "maximum context length is 8"),
            answer("200 OK", "", r#"{"choices":[{"message":{"content":null}}]}"#),
        ])
        .await;
        let endpoint = endpoint(url, 3);
        assert!(matches!(endpoint.complete(&request()).await, Err(ModelError::Fatal(m)) if m.contains(KEY_VARIABLE)));
        assert_eq!(endpoint.complete(&request()).await.unwrap().finish, Finish::ContextLimit);
        assert_eq!(endpoint.complete(&request()).await.unwrap().text, "");
    }

    /// A server that never says more than `start` on each connection.
    async fn stalled(start: &'static str) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(start.as_bytes()).await;
                open.push(stream);
            }
        });
        url
    }

    #[tokio::test]
    async fn every_transient_status_is_tried_again_and_counted() {
        let transient = ["408 Timeout", "429 Slow", "500 Oops", "502 Gateway", "503 Busy", "529 Overloaded"];
        let soon = "retry-after: 0\r\n";
        let mut answers: Vec<String> = transient.iter().map(|status| answer(status, soon, "x")).collect();
        let in_a_moment = httpdate::fmt_http_date(SystemTime::now());
        answers.push(answer("429 Slow", &format!("retry-after: {in_a_moment}\r\n"), ""));
        let usage =
            r#"{"choices":[{"message":{"content":"hello"}}],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#;
        answers.push(answer("200 OK", "", usage));
        let (url, _seen) = server(answers).await;
        let completion = endpoint(url, 9).complete(&request()).await.unwrap();
        let expected = Spent { calls: 1, failures: 7, prompt_tokens: 3, completion_tokens: 2 };
        assert_eq!((completion.text.as_str(), completion.spent), ("hello", expected));
    }

    #[tokio::test]
    async fn what_no_try_mends_stops_at_once() {
        let stream = "data: {\"choices\":[]}\n\ndata: {\"choices\":[]}\n\ndata: [DONE]\n\n";
        for (status, body, expected) in [
            ("404 Not Found", "no such model", "404"),
            ("403 Forbidden", "no", "403"),
            ("413 Too Large", "<html>", "413"),
            ("400 Bad", "temperature?", "400"),
            ("200 OK", stream, "event stream"),
        ] {
            let (url, seen) = server(vec![answer(status, "", body)]).await;
            let error = endpoint(url, 5).complete(&request()).await.unwrap_err();
            assert!(matches!(&error, ModelError::Fatal(m) if m.contains(expected)), "{error}");
            assert_eq!(seen.await.unwrap().len(), 1);
        }
        for (status, body) in [
            ("413 Too Large", "prompt is too long: 9 tokens"),
            ("200 OK", r#"{"error":{"code":"context_length_exceeded"}}"#),
        ] {
            let (url, _) = server(vec![answer(status, "", body)]).await;
            assert_eq!(endpoint(url, 5).complete(&request()).await.unwrap().finish, Finish::ContextLimit);
        }
    }

    #[tokio::test]
    async fn endpoints_that_hang_or_are_nowhere_end_in_time() {
        let slow = "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"choices\"";
        let plain = stalled("HTTP/1.1 400 Bad Request\r\n\r\n").await.replace("http:", "https:");
        for url in [stalled("").await, stalled(slow).await, plain, "http://no-such-host.invalid/v1".into()] {
            let error = endpoint(url.clone(), 1).complete(&request()).await.unwrap_err();
            assert!(matches!(&error, ModelError::Unavailable { tries: 1, reason } if reason.contains(&url)), "{error}");
        }
    }

    #[tokio::test]
    async fn repeated_tries_have_a_budget() {
        let busy = || answer("503 Busy", "retry-after: 0\r\n", "");
        let (url, seen) = server((0..4).map(|_| busy()).collect()).await;
        let mut endpoint = endpoint(url, 9);
        endpoint.0.config.retries = 2;
        for tries in [3, 1] {
            let error = endpoint.complete(&request()).await.unwrap_err();
            assert!(matches!(&error, ModelError::Unavailable { tries: t, .. } if *t == tries), "{error}");
        }
        assert_eq!(seen.await.unwrap().len(), 4);
    }

    #[tokio::test]
    async fn native_calls_keep_their_characters() {
        let call = |id: &str| json!({"id": id, "function": {"name": "think", "arguments": "{\"thought\":  1"}});
        let body = json!({"choices": [{"message": {"content": null, "tool_calls": [call("a"), call("b")]}}]});
        let (url, seen) = server(vec![answer("200 OK", "", &body.to_string()), answer("200 OK", "", GOOD)]).await;
        let endpoint = endpoint(url, 1);
        let mut request = Request { tools: Some(std::sync::Arc::new(vec![json!({"type": "function"})])), ..request() };
        let first = endpoint.complete(&request).await.unwrap().text;
        assert_eq!(calls::read(&first).1[1].arguments, "{\"thought\":  1");
        std::sync::Arc::make_mut(&mut request.messages).extend([Message::assistant(first), Message::tool("seen")]);
        endpoint.complete(&request).await.unwrap();
        let sent = seen.await.unwrap().pop().unwrap();
        let sent: Value = serde_json::from_str(sent.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        let function = json!({"name": "think", "arguments": "{\"thought\":  1"});
        let calls = json!([{"id": "a", "type": "function", "function": function}]);
        assert_eq!(sent["messages"][1], json!({"role": "assistant", "content": null, "tool_calls": calls}));
        let answer = json!({"role": "tool", "tool_call_id": "a", "name": "think", "content": "seen"});
        assert_eq!((&sent["messages"][2], &sent["tools"]), (&answer, &json!([{"type": "function"}])));
    }

    #[tokio::test]
    async fn refused_connections_end_with_the_address() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = endpoint(format!("http://{address}/v1"), 2).complete(&request()).await.unwrap_err();
        assert!(
            matches!(&error, ModelError::Unavailable { tries: 2, reason } if reason.contains(&address.to_string())),
            "{error}"
        );
    }
}
