//! Answers that are streams.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use wharf_server::Limits;

use crate::support::{House, eventually};

const EVENTS: &str = "Accept: text/event-stream, application/json\r\n";

fn count(n: u32) -> String {
    json!({"jsonrpc":"2.0","method":"count","params":[n],"id":"c"}).to_string()
}

/// The notifications and the response at the end, in order.
fn check(messages: &[Value], n: u64) {
    assert_eq!(messages.len() as u64, n + 1);
    for (at, message) in messages[..messages.len() - 1].iter().enumerate() {
        assert_eq!(message, &json!({"jsonrpc":"2.0","method":"toy.count","params":{"n":at}}));
    }
    assert_eq!(messages.last().unwrap(), &json!({"jsonrpc":"2.0","id":"c","result":"done"}));
}

#[test]
fn events_carry_the_notifications_and_then_the_response() {
    let house = House::new();
    let mut client = house.client();
    for n in [0, 3, 5000] {
        let got = client.rpc_with(EVENTS, count(n).as_bytes());
        assert_eq!((got.status, got.header("content-type")), (200, Some("text/event-stream")));
        let read = |event: &str| {
            let data = event.strip_prefix("event: message\ndata: ").unwrap();
            serde_json::from_str(data).unwrap()
        };
        let messages: Vec<Value> = got.text().split_terminator("\n\n").map(read).collect();
        check(&messages, n.into());
    }
}

#[test]
fn lines_are_one_message_each() {
    let got = House::new().client().rpc_with("Accept: application/x-ndjson\r\n", count(1000).as_bytes());
    assert_eq!(got.header("content-type"), Some("application/x-ndjson"));
    let messages: Vec<Value> = got.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    check(&messages, 1000);
}

#[test]
fn only_one_call_with_an_id_is_streamed() {
    let house = House::new();
    let mut client = house.client();
    assert_eq!(client.rpc_with("Accept: application/json\r\n", count(3).as_bytes()).json()["result"], "unary");
    assert_eq!(client.rpc_with(EVENTS, br#"{"jsonrpc":"2.0","method":"update"}"#).status, 204);
    let got = client.rpc_with(EVENTS, format!("[{}]", count(3)).as_bytes());
    assert_eq!((got.header("content-type"), &got.json()[0]["result"]), (Some("application/json"), &json!("unary")));
    assert_eq!(client.rpc_with(EVENTS, b"{").code(), -32700);
    let got = client.rpc_with(EVENTS, br#"{"jsonrpc":"2.0","method":"panic","id":1}"#);
    assert!(got.text().contains("-32603") && !got.text().contains("secret"));
}

#[test]
fn a_silent_stream_says_that_it_is_alive() {
    let house = House::with(Limits { keep_alive: Duration::from_millis(50), ..Limits::default() });
    let mut client = house.client();
    let got = client.rpc_with(EVENTS, br#"{"jsonrpc":"2.0","method":"sleep","params":[400],"id":1}"#);
    assert!(got.text().matches(": keep-alive\n\n").count() >= 3, "{}", got.text());
    assert!(got.text().ends_with("data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":400}\n\n"));
}

#[test]
fn closing_the_connection_drops_the_call() {
    let house = House::new();
    for (n, headers) in [EVENTS, "", "Accept: application/x-ndjson\r\n"].into_iter().enumerate() {
        let mut client = house.client();
        let body = r#"{"jsonrpc":"2.0","method":"wait","id":1}"#;
        let length = body.len();
        client.send(
            format!("POST /rpc HTTP/1.1\r\nHost: a\r\n{headers}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
                .as_bytes(),
        );
        eventually("the call begins", || house.toy.begun.load(Ordering::SeqCst) == n + 1);
        assert_eq!(house.toy.ended.load(Ordering::SeqCst), n);
        drop(client);
        eventually("the call is dropped", || house.toy.ended.load(Ordering::SeqCst) == n + 1);
    }
}

#[test]
fn a_reader_that_reads_nothing_holds_the_call_back_and_not_the_server() {
    let house = House::new();
    let mut stuck = house.client();
    let body = count(1_000_000);
    let length = body.len();
    stuck.send(
        format!("POST /rpc HTTP/1.1\r\nHost: a\r\n{EVENTS}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
            .as_bytes(),
    );
    std::thread::sleep(Duration::from_millis(300));
    let begun = std::time::Instant::now();
    for _ in 0..100 {
        assert_eq!(house.rpc(r#"{"jsonrpc":"2.0","method":"ping","id":1}"#).status, 200);
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
}
