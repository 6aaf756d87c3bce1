//! Probes against servers that answer well, badly, slowly and never.

use std::{io::Write, net::TcpListener, time::Instant};

use serde_json::json;

use super::*;
use crate::testing::context;

/// A machine whose programs all end with code 4, and that keeps no logs.
struct Nothing;

impl Around for Nothing {
    fn run_to_end<'a>(&'a self, _: &'a Context, _: Command) -> BoxFuture<'a, Result<Output, Failure>> {
        async { Ok(Output { code: 4, stdout: "no\n".into(), stderr: String::new() }) }.boxed()
    }

    fn log(&self, _: &Context, _: &str) -> Option<(PathBuf, Cursor)> {
        None
    }

    fn listens<'a>(&'a self, _: &'a Context) -> BoxFuture<'a, Option<Listens>> {
        async { Some(Listens::default()) }.boxed()
    }
}

async fn asked(probe: Probe, limit_ms: u64) -> Health {
    let mut cx = context(&std::env::temp_dir(), "hello");
    cx.probe_timeout_ms = limit_ms;
    ask(&cx, probe, &Nothing).await.unwrap()
}

/// Answers every connection with the same bytes.
fn server(answer: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let mut request = [0; 2048];
            let _ = std::io::Read::read(&mut stream, &mut request);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    port
}

fn http(port: u16, status: Option<&str>) -> Probe {
    let mut probe = HttpProbe::new(Endpoint::Port(port), "/health");
    probe.json.extend(status.map(|s| ("/status".to_owned(), json!(s))));
    Probe::Http(probe)
}

/// T12.
#[tokio::test]
async fn a_200_whose_body_says_sick_is_unhealthy() {
    let sick = server("HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\n{\"status\":\"sick\"}");
    let health = asked(http(sick, Some("healthy")), 5_000).await;
    assert_eq!(health, Health::unhealthy("HTTP 200, but /status is \"sick\" and not \"healthy\""));
    assert_eq!(asked(http(sick, Some("sick")), 5_000).await, Health::healthy("HTTP 200"));
    assert_eq!(asked(http(sick, None), 5_000).await, Health::healthy("HTTP 200"));
    let odd = server("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    assert_eq!(asked(http(odd, Some("healthy")), 5_000).await.detail, "HTTP 200, but the body is no JSON: \"ok\"");
}

#[tokio::test]
async fn what_is_not_200_and_who_does_not_answer_are_told_apart() {
    let down = server("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(asked(http(down, None), 5_000).await.detail, "HTTP 503, and not 200");
    let moved = server("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(asked(http(moved, None), 5_000).await.detail, "HTTP 302, and not 200");
    let gone = crate::ports::free().unwrap();
    assert_eq!(asked(http(gone, None), 5_000).await.detail, "connection refused");
    assert_eq!(asked(Probe::Connect(Endpoint::Port(gone)), 5_000).await.detail, "connection refused");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let began = Instant::now();
    let health = asked(http(silent.local_addr().unwrap().port(), None), 150).await;
    assert_eq!(health.detail, "no answer within 150 ms");
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn an_endless_body_is_cut() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // An answer before the question is no HTTP, and is refused.
            let _ = std::io::Read::read(&mut stream, &mut [0; 2048]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            while stream.write_all(&[b'x'; 4096]).is_ok() {}
        }
    });
    let mut probe = HttpProbe::new(Endpoint::Port(port), "/");
    probe.contains = Some("y".into());
    let health = asked(Probe::Http(probe), 5_000).await;
    assert_eq!(health.detail, "HTTP 200, but the body does not contain \"y\"");
}

#[tokio::test]
async fn http_over_a_socket_bytes_programs_and_all_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = std::io::Read::read(&mut stream, &mut [0; 2048]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    });
    let at = Endpoint::Socket(path);
    assert_eq!(asked(Probe::Http(HttpProbe::new(at.clone(), "/")), 5_000).await.detail, "HTTP 200");
    std::fs::remove_file(dir.path().join("s")).unwrap();
    assert!(!asked(Probe::Http(HttpProbe::new(at, "/")), 5_000).await.is_ready());

    let redis = server("+PONG\r\n");
    let ping =
        |expect: &str| Probe::Exchange { at: Endpoint::Port(redis), send: b"PING\r\n".into(), expect: expect.into() };
    assert_eq!(asked(ping("+PONG"), 5_000).await, Health::healthy("answered \"+PONG\""));
    assert!(!asked(ping("+NO"), 5_000).await.is_ready());
    assert_eq!(asked(Probe::Exec(Command::default()), 5_000).await.detail, "exit code 4: \"no\"");
    let all = Probe::All(vec![ping("PONG"), Probe::Exec(Command::default())]);
    assert_eq!(asked(all, 5_000).await.detail, "exit code 4: \"no\"");
}

#[tokio::test]
async fn the_request_is_as_it_was_asked_for_and_the_status_may_be_a_range() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut probe = HttpProbe::new(Endpoint::Port(listener.local_addr().unwrap().port()), "/rpc?x=1");
    probe.method = "POST".into();
    probe.headers = vec![("host".into(), "example.org".into()), ("X-Key".into(), "k".into())];
    probe.body = "{\"id\":1}".into();
    probe.status = vec![204..=204, 300..=399];
    probe.matches = None;
    let seen = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 2048];
        let length = std::io::Read::read(&mut stream, &mut request).unwrap();
        stream.write_all(b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n").unwrap();
        String::from_utf8_lossy(&request[..length]).into_owned()
    });
    assert_eq!(asked(Probe::Http(probe), 5_000).await, Health::healthy("HTTP 302"));
    let seen = seen.join().unwrap();
    assert!(seen.starts_with("POST /rpc?x=1 HTTP/1.1\r\n"), "{seen}");
    assert!(seen.ends_with("\r\n\r\n{\"id\":1}") && seen.contains("content-length: 8\r\n"), "{seen}");
    assert_eq!(seen.to_lowercase().matches("host:").count(), 1, "{seen}");
    assert!(seen.contains("host: example.org") && seen.contains("x-key: k"), "{seen}");
}

#[tokio::test]
async fn a_body_is_held_against_an_expression() {
    let port = server("HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\nworkers: 3 of 4");
    let matching = |pattern: &str| {
        let mut probe = HttpProbe::new(Endpoint::Port(port), "/");
        probe.matches = Some(pattern.into());
        Probe::Http(probe)
    };
    assert_eq!(asked(matching("workers: [1-9]"), 5_000).await, Health::healthy("HTTP 200"));
    let health = asked(matching("workers: 0"), 5_000).await;
    assert_eq!(health.detail, "HTTP 200, but the body does not match \"workers: 0\": \"workers: 3 of 4\"");
}

#[tokio::test]
async fn a_server_that_drips_is_cut_at_the_time_limit_in_its_head_and_in_its_body() {
    for begin in ["HTTP/1.1 200 OK\r\nx: ", "HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n"] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = std::io::Read::read(&mut stream, &mut [0; 2048]);
                let _ = stream.write_all(begin.as_bytes());
                while stream.write_all(b"x").is_ok() {
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        });
        let mut probe = HttpProbe::new(Endpoint::Port(port), "/");
        probe.contains = Some("y".into());
        let began = Instant::now();
        assert_eq!(asked(Probe::Http(probe), 200).await.detail, "no answer within 200 ms");
        assert!(began.elapsed() < Duration::from_secs(1));
    }
}

#[tokio::test]
async fn a_head_without_an_end_takes_no_memory() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = std::io::Read::read(&mut stream, &mut [0; 2048]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ");
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
    });
    let health = asked(Probe::Http(HttpProbe::new(Endpoint::Port(port), "/")), 5_000).await;
    assert!(health.detail.starts_with("no HTTP answer"), "{health:?}");
}

#[tokio::test]
async fn one_of_several_is_enough_for_any_and_none_is_told_with_all_reasons() {
    let redis = server("+PONG\r\n");
    let ping =
        |expect: &str| Probe::Exchange { at: Endpoint::Port(redis), send: b"PING\r\n".into(), expect: expect.into() };
    let fails = || Probe::Exec(Command::default());
    let any = Probe::Any(vec![fails(), Probe::All(vec![Probe::Process, ping("PONG")])]);
    assert!(asked(any, 5_000).await.is_ready());
    let none = asked(Probe::Any(vec![fails(), Probe::LogLine("x".into())]), 5_000).await;
    assert!(none.detail.contains("exit code 4") && none.detail.contains("its run is over"), "{none:?}");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let slow = HttpProbe::new(Endpoint::Port(silent.local_addr().unwrap().port()), "/");
    let began = Instant::now();
    assert!(asked(Probe::Any(vec![Probe::Http(slow), ping("PONG")]), 5_000).await.is_ready());
    assert!(began.elapsed() < Duration::from_secs(1), "a good answer waits for nobody");
}

#[tokio::test]
async fn unix_sockets_and_servers_of_ipv6_alone_are_reached() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let probe = || Probe::Connect(Endpoint::Socket(path.clone()));
    assert!(asked(probe(), 1_000).await.detail.contains("not found"));
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    assert!(asked(probe(), 1_000).await.is_ready());
    drop(listener);
    assert!(asked(probe(), 1_000).await.detail.contains("refused"), "a socket file that nobody listens on");
    match TcpListener::bind("[::1]:0") {
        Ok(six) => {
            let port = six.local_addr().unwrap().port();
            assert!(asked(Probe::Connect(Endpoint::Port(port)), 1_000).await.is_ready());
        }
        Err(e) => eprintln!("CANNOT BE DONE HERE: a server of IPv6 alone ({e})"),
    }
}
