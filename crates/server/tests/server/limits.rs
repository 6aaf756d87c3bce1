//! Clients that are slow, greedy, many, or speak nonsense.

use std::io::Write;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use wharf_server::Limits;

use crate::support::{Client, House, eventually};

const PING: &[u8] = br#"{"jsonrpc":"2.0","method":"ping","id":1}"#;
const POST: &str = "POST /rpc HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";

fn short() -> Limits {
    let time = Duration::from_millis(200);
    Limits { header_time: time, body_time: time, ..Limits::default() }
}

fn start_wait(client: &mut Client) {
    let body = r#"{"jsonrpc":"2.0","method":"wait","id":1}"#;
    client.send(format!("{POST}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
}

#[test]
fn t33_garbage_silence_and_slowness_slow_nobody() {
    let house = House::new();
    let silent: Vec<_> = (0..20).map(|_| house.client()).collect();
    let mut slow: Vec<_> = (0..20).map(|_| house.client()).collect();
    let mut good = house.client();
    let begun = Instant::now();
    for n in 0..400 {
        let mut garbage = house.client();
        _ = garbage.stream.write_all(b"\x00\xff\x16\x03\x01 garbage {{{{\r\n\r\n");
        for client in &mut slow {
            client.send(&POST.as_bytes()[n % 40..n % 40 + usize::from(n < 40)]);
        }
        assert_eq!(good.rpc(PING).json()["result"], "pong");
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    drop(silent);
}

#[test]
fn t34_half_sent_requests_are_closed() {
    let house = House::with(short());
    for half in ["", "P", "POST /rpc HTTP/1.1\r\nHost: a\r\nContent-"] {
        let mut client = house.client();
        client.send(half.as_bytes());
        let begun = Instant::now();
        assert!(client.is_closed_within(Duration::from_secs(5)), "{half:?}");
        assert!(begun.elapsed() > Duration::from_millis(100), "{half:?}: too early");
    }
}

#[test]
fn t34_dribbling_does_not_renew_the_time() {
    let house = House::with(short());
    let mut client = house.client();
    let begun = Instant::now();
    for byte in POST.bytes().cycle() {
        if client.stream.write_all(&[byte]).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn t34_a_body_that_does_not_end_is_408() {
    let house = House::with(short());
    for framing in
        ["Content-Length: 40\r\n\r\n{", "Content-Length: 40\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n3\r\n{"]
    {
        let mut client = house.client();
        client.send(format!("{POST}{framing}").as_bytes());
        let got = client.response();
        assert_eq!((got.status, got.header("connection")), (408, Some("close")), "{framing}");
        assert!(client.is_closed_within(Duration::from_secs(5)));
    }
}

#[test]
fn t34_a_kept_connection_and_a_long_call_outlive_the_header_time() {
    let house = House::with(short());
    let mut client = house.client();
    assert_eq!(client.rpc(PING).status, 200);
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(client.get("/nowhere", "").status, 404);
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(client.rpc(PING).status, 200);
    assert_eq!(client.rpc(br#"{"jsonrpc":"2.0","method":"sleep","params":[700],"id":1}"#).json()["result"], 700);
}

#[test]
fn a_connection_without_requests_is_closed_after_the_idle_time() {
    let house = House::with(Limits { idle_time: Duration::from_millis(200), ..Limits::default() });
    let mut client = house.client();
    assert_eq!(client.rpc(PING).status, 200);
    assert!(client.is_closed_within(Duration::from_secs(5)));
}

/// Resident memory, in bytes.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn t36_a_request_over_the_limit_is_413_and_costs_no_memory() {
    let house = House::new();
    assert_eq!(
        house.rpc(&format!("{}{}", " ".repeat(1024 * 1024 - PING.len()), str::from_utf8(PING).unwrap())).status,
        200
    );
    let before = resident();
    let piece = vec![b' '; 64 * 1024];
    for framing in ["Content-Length: 536870912", "Content-Length: 1048577", "Transfer-Encoding: chunked"] {
        let mut client = house.client();
        client.send(format!("{POST}{framing}\r\n\r\n").as_bytes());
        // As much as the server takes before it answers and closes.
        let mut sent = 0;
        let chunk = format!("{:x}\r\n", piece.len());
        while sent < 512 * 1024 * 1024 {
            let wrote = if framing.starts_with('T') {
                client.stream.write_all(&[chunk.as_bytes(), &piece, b"\r\n"].concat())
            } else {
                client.stream.write_all(&piece)
            };
            if wrote.is_err() {
                break;
            }
            sent += piece.len();
        }
        let got = client.response();
        assert_eq!((got.status, got.header("connection"), got.code()), (413, Some("close"), -32600), "{framing}");
        assert!(sent < 16 * 1024 * 1024, "{framing}: {sent} bytes were taken");
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 64 * 1024 * 1024, "grown by {grown}");
    assert_eq!(house.ran(), 1);
}

#[test]
fn larger_bodies_share_a_budget() {
    let limits = Limits { budget_bytes: 1024 * 1024, body_time: Duration::from_millis(500), ..Limits::default() };
    let house = House::with(limits);
    let mut hog = house.client();
    hog.send(format!("{POST}Content-Length: 1048576\r\n\r\n{{").as_bytes());
    std::thread::sleep(Duration::from_millis(50));
    // Small bodies go on; a large one waits until the hog has run out of time.
    assert_eq!(house.rpc(str::from_utf8(PING).unwrap()).status, 200);
    let large = format!("{}{}", " ".repeat(300_000), str::from_utf8(PING).unwrap());
    assert!(matches!(house.rpc(&large).status, 200 | 408));
    assert_eq!(hog.response().status, 408);
    assert_eq!(house.rpc(&large).status, 200);
}

#[test]
fn the_longest_idle_connection_makes_room() {
    let house = House::with(Limits { connections: 3, root_connections: 0, ..Limits::default() });
    let mut idle: Vec<_> = (0..3).map(|_| house.client()).collect();
    for client in &mut idle {
        assert_eq!(client.rpc(PING).status, 200);
    }
    assert_eq!(idle[0].rpc(PING).status, 200);
    assert_eq!(house.client().rpc(PING).status, 200);
    assert!(idle[1].is_closed_within(Duration::from_secs(5)));
    assert_eq!(idle[0].rpc(PING).status, 200);
    assert_eq!(idle[2].rpc(PING).status, 200);
}

#[test]
fn calls_are_never_cut_off_to_make_room() {
    let house = House::with(Limits { connections: 2, root_connections: 0, ..Limits::default() });
    let mut busy: Vec<_> = (0..2).map(|_| house.client()).collect();
    busy.iter_mut().for_each(start_wait);
    eventually("both wait", || house.toy.begun.load(Ordering::SeqCst) == 2);
    let mut late = house.client();
    assert_eq!(late.response().status, 503);
    assert_eq!(house.toy.ended.load(Ordering::SeqCst), 0);
    busy.pop();
    eventually("one place is free", || house.toy.ended.load(Ordering::SeqCst) == 1);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(house.rpc(str::from_utf8(PING).unwrap()).status, 200);
}

#[test]
fn shutdown_lets_calls_end_closes_the_idle_and_removes_the_socket() {
    let mut house = House::new();
    let mut idle = house.client();
    assert_eq!(idle.rpc(PING).status, 200);
    let mut busy = house.client();
    let body = r#"{"jsonrpc":"2.0","method":"sleep","params":[500],"id":1}"#;
    busy.send(format!("{POST}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
    eventually("the call runs", || house.ran() == 2);
    house.begin_stop();
    let begun = Instant::now();
    assert!(idle.is_closed_within(Duration::from_millis(400)));
    assert_eq!(busy.response().json()["result"], 500);
    house.wait_stopped();
    assert!(begun.elapsed() < Duration::from_millis(1500));
    assert!(!house.path.exists());
}

#[test]
fn shutdown_drops_what_does_not_end() {
    let mut house = House::with(Limits { drain_time: Duration::from_millis(200), ..Limits::default() });
    let mut busy = house.client();
    start_wait(&mut busy);
    eventually("the call runs", || house.ran() == 1);
    house.begin_stop();
    let begun = Instant::now();
    house.wait_stopped();
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(house.toy.ended.load(Ordering::SeqCst), 1);
}
