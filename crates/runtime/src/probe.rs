//! One question to a run, asked over the network, a Unix socket or a program.
//!
//! It owns time limits and the wording of the evidence. What the answers mean over time is the core's.

mod http;

use std::{net::Ipv4Addr, time::Duration};

use futures_util::{FutureExt, future::BoxFuture, future::join_all};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use wharf_model::{Failure, Health, Verdict};
use wharf_services::{Command, Context, Output, Probe};

/// How much of an answer is looked at.
const ANSWER_BYTES: usize = 64 * 1024;

/// Runs the program of an `Exec` probe.
pub(crate) type RunToEnd<'a> = &'a (dyn Fn(Command) -> BoxFuture<'a, Result<Output, Failure>> + Send + Sync);

/// Asks, within the context's time limit.
pub(crate) fn ask<'a>(cx: &'a Context, probe: Probe, exec: RunToEnd<'a>) -> BoxFuture<'a, Result<Health, Failure>> {
    let limit_ms = if cx.probe_timeout_ms == 0 { 5_000 } else { cx.probe_timeout_ms };
    async move {
        let asked = async {
            Ok(match probe {
                Probe::Http(http) => http::ask(&http).await,
                Probe::Tcp { port } => match connect(port).await {
                    Ok(_) => Health::healthy(format!("port {port} accepts connections")),
                    Err(e) => Health::unhealthy(reason(&e)),
                },
                Probe::Exchange { port, send, expect } => exchange(port, &send, &expect).await,
                Probe::Exec(command) => judge(exec(Command { limit_ms, ..command }).await)?,
                Probe::All(probes) => worst(join_all(probes.into_iter().map(|p| ask(cx, p, exec))).await)?,
            })
        };
        let limit = Duration::from_millis(limit_ms);
        timeout(limit, asked).await.unwrap_or_else(|_| Ok(Health::unhealthy(format!("no answer within {limit_ms} ms"))))
    }
    .boxed()
}

async fn connect(port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    // A port of the range for outgoing connections can be connected to itself while nobody listens.
    match stream.local_addr()? == stream.peer_addr()? {
        true => Err(std::io::ErrorKind::ConnectionRefused.into()),
        false => Ok(stream),
    }
}

/// The kernel's words without its number.
fn reason(e: &std::io::Error) -> String {
    e.kind().to_string()
}

async fn exchange(port: u16, send: &[u8], expect: &str) -> Health {
    let asked = async {
        let mut stream = connect(port).await?;
        stream.write_all(send).await?;
        let (mut answer, mut buffer) = (Vec::new(), [0; 1024]);
        while answer.len() < ANSWER_BYTES && !contains(&answer, expect) {
            match stream.read(&mut buffer).await? {
                0 => break,
                n => answer.extend_from_slice(&buffer[..n]),
            }
        }
        std::io::Result::Ok(answer)
    };
    match asked.await {
        Ok(answer) if contains(&answer, expect) => Health::healthy(format!("answered {}", quoted(&answer))),
        Ok(answer) => Health::unhealthy(format!("answered {}, and not {expect:?}", quoted(&answer))),
        Err(e) => Health::unhealthy(reason(&e)),
    }
}

fn contains(answer: &[u8], expect: &str) -> bool {
    let expect = expect.as_bytes();
    expect.is_empty() && !answer.is_empty() || !expect.is_empty() && answer.windows(expect.len()).any(|w| w == expect)
}

/// The beginning of an answer, in quotes, for people.
fn quoted(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(&answer[..answer.len().min(400)]);
    let text = text.trim();
    let short: String = text.chars().take(80).collect();
    format!("{short:?}{}", if short.len() < text.len() { "…" } else { "" })
}

fn judge(output: Result<Output, Failure>) -> Result<Health, Failure> {
    let output = output?;
    let said = crate::tool::last_lines(&output, 1).pop().unwrap_or_default();
    let said = if said.is_empty() { said } else { format!(": {}", quoted(said.as_bytes())) };
    Ok(match output.code {
        0 => Health::healthy(format!("exit code 0{said}")),
        code => Health::unhealthy(format!("exit code {code}{said}")),
    })
}

fn worst(answers: Vec<Result<Health, Failure>>) -> Result<Health, Failure> {
    let answers: Vec<Health> = answers.into_iter().collect::<Result<_, _>>()?;
    let of = |verdict| answers.iter().find(|h| h.verdict == verdict).cloned();
    Ok(of(Verdict::Unhealthy)
        .or_else(|| of(Verdict::Degraded))
        .unwrap_or_else(|| Health::healthy(answers.iter().map(|h| h.detail.as_str()).collect::<Vec<_>>().join("; "))))
}

#[cfg(test)]
mod tests {
    use std::{io::Write, net::TcpListener, time::Instant};

    use serde_json::json;
    use wharf_services::{HttpAt, HttpProbe};

    use super::*;
    use crate::testing::context;

    async fn asked(probe: Probe, limit_ms: u64) -> Health {
        let mut cx = context(&std::env::temp_dir(), "hello");
        cx.probe_timeout_ms = limit_ms;
        ask(&cx, probe, &|_| async { Ok(Output { code: 4, stdout: "no\n".into(), stderr: String::new() }) }.boxed())
            .await
            .unwrap()
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
        let mut probe = HttpProbe::new(HttpAt::Port(port), "/health");
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
        assert_eq!(asked(Probe::Tcp { port: gone }, 5_000).await.detail, "connection refused");
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
        let mut probe = HttpProbe::new(HttpAt::Port(port), "/");
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
        let at = HttpAt::Socket(path);
        assert_eq!(asked(Probe::Http(HttpProbe::new(at.clone(), "/")), 5_000).await.detail, "HTTP 200");
        std::fs::remove_file(dir.path().join("s")).unwrap();
        assert!(!asked(Probe::Http(HttpProbe::new(at, "/")), 5_000).await.is_ready());

        let redis = server("+PONG\r\n");
        let ping = |expect: &str| Probe::Exchange { port: redis, send: b"PING\r\n".into(), expect: expect.into() };
        assert_eq!(asked(ping("+PONG"), 5_000).await, Health::healthy("answered \"+PONG\""));
        assert!(!asked(ping("+NO"), 5_000).await.is_ready());
        assert_eq!(asked(Probe::Exec(Command::default()), 5_000).await.detail, "exit code 4: \"no\"");
        let all = Probe::All(vec![ping("PONG"), Probe::Exec(Command::default())]);
        assert_eq!(asked(all, 5_000).await.detail, "exit code 4: \"no\"");
    }
}
