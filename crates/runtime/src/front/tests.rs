//! A front before a program that comes and goes: what its clients see.

use std::{
    io::{Read, Write},
    net::TcpStream as Client,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener as Listener,
};

use super::*;

const SOON: Duration = Duration::from_secs(10);

fn terms(hold_ms: u64, most_held: usize) -> Terms {
    Terms { hold: Duration::from_millis(hold_ms), most_held }
}

fn open(terms: Terms) -> Front {
    Front::open(0, terms, Arc::default()).unwrap()
}

/// One request by hand; the whole answer.
async fn ask(port: u16, request: String) -> String {
    tokio::task::spawn_blocking(move || {
        let mut client = Client::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        client.set_read_timeout(Some(SOON)).unwrap();
        client.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        answer
    })
    .await
    .unwrap()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: front\r\nConnection: close\r\n\r\n")
}

/// A program that answers each connection with this text, and tells what it was asked.
async fn program(answer: &'static str) -> (u16, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let socket = Listener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = socket.accept().await.unwrap();
            let mut asked = vec![0; 4096];
            let n = stream.read(&mut asked).await.unwrap();
            asked.truncate(n);
            let _ = tell.send(String::from_utf8_lossy(&asked).into_owned());
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (port, told)
}

async fn until(front: &Front, what: &str, is_so: impl Fn(Counts) -> bool) {
    let limit = tokio::time::Instant::now() + SOON;
    while !is_so(front.counts()) {
        assert!(tokio::time::Instant::now() < limit, "{what}: {:?}", front.counts());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_request_is_held_until_the_gate_opens_and_is_answered_then() {
    let front = open(terms(60_000, 10));
    let (port, mut told) = program("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await;
    let waiting = tokio::spawn(ask(front.port(), get("/held?x=1")));
    until(&front, "it is held", |counts| counts.held == 1 && counts.in_flight == 0).await;
    front.set(Gate::Open(port));
    let answer = waiting.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("hello"), "{answer}");
    assert!(told.recv().await.unwrap().starts_with("GET /held?x=1 HTTP/1.1\r\n"));
    until(&front, "nothing is left", |counts| counts.is_idle()).await;
}

#[tokio::test]
async fn a_client_that_leaves_is_not_held_any_more() {
    let front = open(terms(60_000, 10));
    let mut client = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, front.port())).await.unwrap();
    client.write_all(get("/").as_bytes()).await.unwrap();
    until(&front, "it is held", |counts| counts.held == 1).await;
    drop(client);
    until(&front, "it is forgotten", |counts| counts.is_idle()).await;
}

#[tokio::test]
async fn who_waits_too_long_or_is_one_too_many_or_in_vain_is_told_why() {
    let front = open(terms(300, 1));
    front.set(Gate::Shut(Some("GPU 0 is taken".into())));
    let first = tokio::spawn(ask(front.port(), get("/")));
    until(&front, "it is held", |counts| counts.held == 1).await;
    let second = ask(front.port(), get("/")).await;
    assert!(second.starts_with("HTTP/1.1 503 ") && second.contains("too_many_held"), "{second}");
    let first = first.await.unwrap();
    assert!(first.starts_with("HTTP/1.1 503 ") && first.contains("GPU 0 is taken"), "{first}");
    assert!(first.to_ascii_lowercase().contains("\r\nretry-after: 5\r\n"), "{first}");
    front.set(Gate::Refuses { why: "given up".into(), retry_after_s: 77 });
    let third = ask(front.port(), get("/")).await;
    assert!(third.contains("given up") && third.to_ascii_lowercase().contains("\r\nretry-after: 77\r\n"), "{third}");
}

#[tokio::test]
async fn a_stream_passes_as_it_comes_and_is_in_flight_to_its_end() {
    let front = open(terms(60_000, 10));
    let socket = Listener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    front.set(Gate::Open(socket.local_addr().unwrap().port()));
    let mut client = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, front.port())).await.unwrap();
    client.write_all(get("/events").as_bytes()).await.unwrap();
    let (mut program, _) = socket.accept().await.unwrap();
    let mut asked = [0; 1024];
    let _ = program.read(&mut asked).await.unwrap();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    program.write_all(head.as_bytes()).await.unwrap();
    let mut heard = String::new();
    for nth in 0..3 {
        program.write_all(format!("9\r\ndata: {nth}\n\n\r\n").as_bytes()).await.unwrap();
        // Each part arrives before the next is written.
        while !heard.contains(&format!("data: {nth}")) {
            let mut part = [0; 1024];
            let n = tokio::time::timeout(SOON, client.read(&mut part)).await.unwrap().unwrap();
            assert!(n > 0, "{heard}");
            heard.push_str(&String::from_utf8_lossy(&part[..n]));
        }
        assert_eq!(front.counts().in_flight, 1);
    }
    front.set(Gate::Shut(None));
    assert!(tokio::time::timeout(Duration::from_millis(50), front.drained()).await.is_err(), "it is not at its end");
    program.write_all(b"0\r\n\r\n").await.unwrap();
    tokio::time::timeout(SOON, front.drained()).await.unwrap();
}

#[tokio::test]
async fn a_connection_outlives_programs_and_bodies_pass_whole() {
    let front = open(terms(60_000, 10));
    let port = front.port();
    let (first, mut told_first) = program("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst").await;
    let (second, mut told_second) = program("HTTP/1.1 201 Made\r\nContent-Length: 6\r\n\r\nsecond").await;
    front.set(Gate::Open(first));
    let mut client = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    let post = "POST /x HTTP/1.1\r\nHost: front\r\nContent-Length: 4\r\n\r\nbody";
    let mut answer = [0; 4096];
    client.write_all(post.as_bytes()).await.unwrap();
    let n = client.read(&mut answer).await.unwrap();
    assert!(String::from_utf8_lossy(&answer[..n]).ends_with("first"));
    assert!(told_first.recv().await.unwrap().ends_with("body"));
    until(&front, "it is answered", |counts| counts.is_idle()).await;
    front.set(Gate::Shut(None));
    client.write_all(post.as_bytes()).await.unwrap();
    until(&front, "it is held on the same connection", |counts| counts.held == 1).await;
    front.set(Gate::Open(second));
    let n = client.read(&mut answer).await.unwrap();
    let text = String::from_utf8_lossy(&answer[..n]).into_owned();
    assert!(text.starts_with("HTTP/1.1 201 ") && text.ends_with("second"), "{text}");
    assert!(told_second.recv().await.unwrap().ends_with("body"));
}

#[tokio::test]
async fn what_can_be_asked_twice_is_asked_again_and_what_cannot_is_told() {
    let front = open(terms(60_000, 10));
    let socket = Listener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    front.set(Gate::Open(socket.local_addr().unwrap().port()));
    let program = tokio::spawn(async move {
        let mut asked = [0; 1024];
        for nth in 0..3 {
            let (mut stream, _) = socket.accept().await.unwrap();
            let _ = stream.read(&mut asked).await.unwrap();
            if nth == 1 {
                stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            }
        }
    });
    let answer = ask(front.port(), get("/")).await;
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    let post = "POST / HTTP/1.1\r\nHost: front\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx";
    let answer = ask(front.port(), post.into()).await;
    assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("broke_off"), "{answer}");
    program.await.unwrap();
}

#[tokio::test]
async fn an_upgrade_is_passed_on_both_ways() {
    let front = open(terms(60_000, 10));
    let socket = Listener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    front.set(Gate::Open(socket.local_addr().unwrap().port()));
    let mut client = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, front.port())).await.unwrap();
    let ask = "GET /ws HTTP/1.1\r\nHost: front\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    client.write_all(ask.as_bytes()).await.unwrap();
    let (mut program, _) = socket.accept().await.unwrap();
    let mut text = [0; 1024];
    let n = program.read(&mut text).await.unwrap();
    assert!(String::from_utf8_lossy(&text[..n]).to_ascii_lowercase().contains("upgrade: websocket"));
    let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    program.write_all(switch).await.unwrap();
    let n = client.read(&mut text).await.unwrap();
    assert!(text[..n].starts_with(b"HTTP/1.1 101 "));
    client.write_all(b"ping").await.unwrap();
    let n = program.read(&mut text).await.unwrap();
    assert_eq!(&text[..n], b"ping");
    program.write_all(b"pong").await.unwrap();
    let n = client.read(&mut text).await.unwrap();
    assert_eq!(&text[..n], b"pong");
    assert_eq!(front.counts().in_flight, 1);
    drop((client, program));
    tokio::time::timeout(SOON, front.drained()).await.unwrap();
}
