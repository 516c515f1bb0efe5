//! Tries, waits and ends of requests: what no server says on purpose.

use crate::asking::{self, endpoint, request};
use crate::fake::{Fake, text};
use rolegraft_model::{ChatModel, EndpointConfig, ModelError};
use rolegraft_trajectory::{Finish, Spent};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A server that gives these answers in their order, and then the last again.
fn script(answers: Vec<(u16, String)>) -> Fake {
    let next = AtomicUsize::new(0);
    Fake::start(move |_, _| answers[next.fetch_add(1, Ordering::Relaxed).min(answers.len() - 1)].clone())
}

fn said(status: u16, body: &str) -> (u16, String) {
    (status, body.to_owned())
}

#[tokio::test]
async fn whatever_may_pass_is_tried_again_and_counted() {
    let mut answers: Vec<_> = [408, 425, 429, 500, 502, 503, 529].map(|status| said(status, "x")).into();
    answers.extend([
        said(200, "not json"),
        said(200, r#"{"choices":[]}"#),
        said(200, r#"{"error":{"message":"busy"}}"#),
    ]);
    answers.extend([said(200, r#"{"choices":[{"message":{"content":""},"finish_reason":"error"}]}"#)]);
    answers.extend([said(200, r#"{"choices":[{"message":{"content":""},"error":{"message":"cut"}}]}"#), text("hello")]);
    let fake = script(answers);
    let completion = endpoint(&fake.url, 20).complete(&request()).await.unwrap();
    let expected = Spent { calls: 1, failures: 12, prompt_tokens: 3, completion_tokens: 2 };
    assert_eq!((completion.text.as_str(), completion.spent), ("hello", expected));
}

#[tokio::test]
async fn what_no_try_mends_stops_at_once() {
    let stream = "data: {\"choices\":[]}\n\ndata: [DONE]\n\n";
    for (status, body, expected) in [
        (404, "no such model", "404"),
        (401, "no", "ROLEGRAFT_API_KEY"),
        (403, "no", "403"),
        (413, "<html>", "web page (413)"),
        (400, "who are you?", "400"),
        (307, "", "redirection (307)"),
        (400, r#"{"error":{"message":"Unknown parameter: 'seed'."}}"#, "--api-field seed="),
        (200, stream, "event stream"),
        (200, "<html>", "ending in /v1"),
    ] {
        let fake = script(vec![said(status, body)]);
        let error = endpoint(&fake.url, 5).complete(&request()).await.unwrap_err();
        assert!(matches!(&error, ModelError::Fatal(m) if m.contains(expected)), "{error}");
        assert_eq!(fake.asked("").len(), 1);
    }
}

#[tokio::test]
async fn repeated_tries_have_a_budget() {
    let fake = script(vec![said(503, "")]);
    let config = EndpointConfig { retries: 2, ..asking::config(&fake.url, 9) };
    let endpoint = rolegraft_model::Endpoint::new(config).unwrap();
    for tries in [3, 1] {
        let error = endpoint.complete(&request()).await.unwrap_err();
        assert!(matches!(&error, ModelError::Unavailable { tries: t, .. } if *t == tries), "{error}");
    }
    assert_eq!(fake.asked("").len(), 4);
}

/// A server that never says more than `start` on each connection.
async fn stalled(start: &'static str) -> String {
    use tokio::io::AsyncWriteExt;
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
async fn servers_that_hang_or_are_nowhere_end_in_time_with_the_address() {
    let slow = "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"choices\"";
    let plain = stalled("HTTP/1.1 400 Bad Request\r\n\r\n").await.replace("http:", "https:");
    let closed = { tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap() };
    let closed = format!("http://{closed}/v1");
    for url in [stalled("").await, stalled(slow).await, plain, closed, "http://no-such-host.invalid/v1".into()] {
        let error = endpoint(&url, 1).complete(&request()).await.unwrap_err();
        assert!(matches!(&error, ModelError::Unavailable { tries: 1, reason } if reason.contains(&url)), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_has_gone_is_waited_for_and_then_given_up() {
    let fake = Fake::start(|_, _| text("first"));
    let with = |patience| {
        let config = EndpointConfig { patience, ..asking::config(&fake.url, 3) };
        rolegraft_model::Endpoint::new(config).unwrap()
    };
    let (patient, hasty) = (with(Duration::from_secs(30)), with(Duration::from_millis(100)));
    for endpoint in [&patient, &hasty] {
        assert_eq!(endpoint.complete(&request()).await.unwrap().text, "first");
    }
    fake.stop();
    let waiting = tokio::spawn(async move { patient.complete(&request()).await });
    for _ in 0..2 {
        let error = hasty.complete(&request()).await.unwrap_err();
        assert!(matches!(&error, ModelError::Gone { url, .. } if *url == fake.url), "{error}");
    }
    // The patient one, which asked first, has met the closed port by now.
    assert!(!waiting.is_finished());
    let address = fake.url.trim_start_matches("http://").trim_end_matches("/v1");
    let back = Fake::on(address, |_, _| text("second"));
    assert_eq!(waiting.await.unwrap().unwrap().text, "second");
    back.stop();
}

#[tokio::test]
async fn one_of_two_servers_may_be_away() {
    let fake = Fake::start(|_, _| text("here"));
    let closed = { tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap() };
    let endpoint = endpoint(&format!("http://{closed}/v1,{}", fake.url), 3);
    for task in ["a", "b", "c", "d"] {
        let completion = endpoint.complete(&asking::of_task(task)).await.unwrap();
        assert_eq!((completion.text.as_str(), completion.finish), ("here", Finish::Stop));
    }
}
