//! The transport's own rules.

use crate::support::{DOCUMENT, House};

const PING: &[u8] = br#"{"jsonrpc":"2.0","method":"ping","id":1}"#;

/// Sends a request head with PING as its body on a new connection, and gives the status.
fn status(house: &House, head: &str) -> u16 {
    let mut client = house.client();
    client.send(&[head.as_bytes(), PING].concat());
    let got = client.response();
    if got.status >= 400 && !got.body.is_empty() {
        assert_eq!(got.json()["jsonrpc"], "2.0", "{head}");
        assert!(got.json()["id"].is_null() && got.json()["error"]["code"].is_i64(), "{head}");
    }
    got.status
}

fn post(headers: &str) -> String {
    format!("POST /rpc HTTP/1.1\r\n{headers}Content-Length: {}\r\n\r\n", PING.len())
}

#[test]
fn t35_exactly_one_host() {
    let house = House::new();
    let json = "Content-Type: application/json\r\n";
    assert_eq!(status(&house, &post(&format!("Host: a\r\n{json}"))), 200);
    assert_eq!(status(&house, &post(json)), 400);
    assert_eq!(status(&house, &post(&format!("Host: a\r\nHost: a\r\n{json}"))), 400);
    assert_eq!(status(&house, &post(&format!("Host: a\r\n{json}hOST: b\r\n"))), 400);
    assert_eq!(house.ran(), 1);
}

#[test]
fn what_a_browser_could_send_is_refused() {
    let house = House::new();
    let cases = [
        ("Host: a\r\nContent-Type: application/json\r\nOrigin: http://a\r\n", 403),
        ("Host: a\r\nContent-Type: application/json\r\nOrigin: null\r\n", 403),
        ("Host: a\r\nContent-Type: text/plain\r\n", 415),
        ("Host: a\r\nContent-Type: application/jsonx\r\n", 415),
        ("Host: a\r\nContent-Type: text/plain\r\nContent-Type: application/json\r\n", 415),
        ("Host: a\r\n", 415),
        ("Host: a\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n", 415),
        ("Host: a\r\nContent-Type: Application/JSON ; charset=utf-8\r\n", 200),
    ];
    for (headers, wanted) in cases {
        assert_eq!(status(&house, &post(headers)), wanted, "{headers}");
    }
    assert_eq!(house.ran(), 1);
}

#[test]
fn two_framings_of_one_body_are_refused() {
    let house = House::new();
    for framing in
        ["Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\ncontent-LENGTH: 5\r\n"]
    {
        let head = format!("POST /rpc HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{framing}\r\n");
        let mut client = house.client();
        client.send(head.as_bytes());
        client.send(b"0\r\n\r\n");
        let got = client.response();
        assert_eq!((got.status, got.header("connection")), (400, Some("close")));
        // The same, with each byte on its own.
        let mut client = house.client();
        for byte in head.as_bytes() {
            client.send(&[*byte]);
        }
        assert_eq!(client.response().status, 400);
    }
    assert_eq!(house.ran(), 0);
}

#[test]
fn chunked_bodies_are_read() {
    let house = House::new();
    let mut client = house.client();
    for _ in 0..2 {
        client.send(
            b"POST /rpc HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        let (one, two) = PING.split_at(7);
        for piece in [one, two] {
            client.send(format!("{:x}\r\n", piece.len()).as_bytes());
            client.send(piece);
            client.send(b"\r\n");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        client.send(b"0\r\n\r\n");
        assert_eq!(client.response().json()["result"], "pong");
    }
}

#[test]
fn routes_and_methods() {
    let house = House::new();
    let mut client = house.client();
    assert_eq!(client.get("/health", "").json()["status"], "ok");
    assert_eq!(client.get("/.well-known/heroservice.json", "").json()["name"], "toy");
    let got = client.get("/nowhere", "");
    assert_eq!((got.status, got.code()), (404, -32600));
    let got = client.get("/rpc", "");
    assert_eq!((got.status, got.header("allow"), got.code()), (405, Some("POST"), -32600));
    client.send(b"DELETE /health HTTP/1.1\r\nHost: a\r\n\r\n");
    let got = client.response();
    assert_eq!((got.status, got.header("allow")), (405, Some("GET, HEAD")));
    client.send(b"HEAD /openrpc.json HTTP/1.1\r\nHost: a\r\n\r\n");
    let got = client.response_to(false);
    assert_eq!((got.status, got.header("content-length")), (200, Some(DOCUMENT.len().to_string().as_str())));
    assert_eq!(client.get("/health", "").status, 200);
}

#[test]
fn the_document_is_served_byte_for_byte_and_only_when_it_is_new() {
    let house = House::new();
    let mut client = house.client();
    let got = client.get("/openrpc.json", "");
    assert_eq!((got.status, got.text(), got.header("content-type")), (200, DOCUMENT, Some("application/json")));
    let etag = got.header("etag").unwrap().to_owned();
    for tags in [etag.clone(), format!("\"x\", W/{etag}"), "*".into()] {
        let got = client.get("/openrpc.json", &format!("If-None-Match: {tags}\r\n"));
        assert_eq!((got.status, got.text(), got.header("etag")), (304, "", Some(etag.as_str())));
    }
    assert_eq!(client.get("/openrpc.json", "If-None-Match: \"x\"\r\n").status, 200);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let house = House::new();
    let mut client = house.client();
    let one = |id: u32| {
        let body = format!(r#"{{"jsonrpc":"2.0","method":"ping","id":{id}}}"#);
        let length = body.len();
        format!(
            "POST /rpc HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    };
    client.send((0..50).map(one).collect::<String>().as_bytes());
    for id in 0..50 {
        assert_eq!(client.response().json()["id"], id);
    }
}

#[test]
fn half_of_the_next_request_does_not_hold_a_reply_back() {
    let house = House::new();
    let mut client = house.client();
    let whole = [post("Host: a\r\nContent-Type: application/json\r\n").as_bytes(), PING].concat();
    let (begin, rest) = whole.split_at(9);
    client.send(&[&whole, begin].concat());
    assert_eq!(client.response().json()["result"], "pong");
    client.send(rest);
    assert_eq!(client.response().json()["result"], "pong");
}
