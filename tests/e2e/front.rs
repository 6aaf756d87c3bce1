//! Fronts: Wharf listens for a unit that runs on demand, and no request is lost while it comes and goes.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use wharf_tests::{Daemon, eventually, figure, free_port, signal};

const SOON: Duration = Duration::from_secs(20);

/// A client's connection, kept alive.
pub struct Line {
    stream: BufReader<TcpStream>,
}

/// What was answered.
#[derive(Debug)]
pub struct Heard {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Line {
    pub fn to(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(120)))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    pub fn get(&mut self, path: &str) -> io::Result<Heard> {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: front\r\n\r\n"))?;
        self.hear()
    }

    pub fn post(&mut self, path: &str, body: &Value) -> io::Result<Heard> {
        let body = body.to_string();
        let kind = "Content-Type: application/json";
        let length = body.len();
        self.send(&format!("POST {path} HTTP/1.1\r\nHost: front\r\n{kind}\r\nContent-Length: {length}\r\n\r\n{body}"))?;
        self.hear()
    }

    pub fn send(&mut self, text: &str) -> io::Result<()> {
        self.stream.get_mut().write_all(text.as_bytes())
    }

    /// The next line; empty at the end.
    pub fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        Ok(line)
    }

    pub fn hear(&mut self) -> io::Result<Heard> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let line = self.line()?;
            if line.is_empty() {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("hung up after {head:?}")));
            }
            head.push_str(&line);
        }
        let head = head.to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let mut body = vec![];
        if let Some(length) = field("content-length:") {
            body = vec![0; length.parse().unwrap()];
            self.stream.read_exact(&mut body)?;
        } else if field("transfer-encoding:") == Some("chunked") {
            loop {
                let size = self.line()?;
                let Ok(size) = usize::from_str_radix(size.trim(), 16) else {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a chunk broke off"));
                };
                let mut part = vec![0; size + 2];
                self.stream.read_exact(&mut part)?;
                if size == 0 {
                    break;
                }
                body.extend_from_slice(&part[..size]);
            }
        }
        Ok(Heard { status, head, body: String::from_utf8_lossy(&body).into_owned() })
    }
}

/// It takes its time to start, says its pid, and streams.
const PROGRAM: &str = r#"
import http.server, os, sys, time
time.sleep(float(sys.argv[1]))
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.path == "/stream":
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for nth in range(6):
                part = f"data: {nth}\n\n".encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                self.wfile.flush()
                time.sleep(0.25)
            self.wfile.write(b"0\r\n\r\n")
            return
        if self.path == "/slow":
            time.sleep(0.05)
        self.say(f"{os.getpid()} {self.path}")
    def do_POST(self):
        self.say(str(len(self.rfile.read(int(self.headers["Content-Length"])))))
    def say(self, text):
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT_INNER"])), Handler).serve_forever()
"#;

const UNIT: &str = "command@fronted";

fn with(port: u16, delay_s: &str) -> Value {
    json!({
        "argv": ["python3", "-c", PROGRAM, delay_s],
        "ports": { "http": port, "inner": "auto" },
        "health": { "tcp": { "port": "inner" } },
    })
}

fn on_demand(idle_stop_s: u64) -> Value {
    json!({ "idle_stop_s": idle_stop_s, "front": { "http": "inner" } })
}

#[track_caller]
fn start(daemon: &Daemon, with: Value, policy: Value) {
    daemon.ok("service.start", json!({ "name": UNIT, "with": with, "policy": policy }));
}

#[test]
fn a_request_wakes_its_unit_and_the_clients_connection_outlives_it() {
    let daemon = Daemon::start();
    let port = free_port();
    start(&daemon, with(port, "0.5"), json!({ "on_demand": on_demand(1) }));
    let mut line = Line::to(port).unwrap();
    let first = line.get("/a").unwrap();
    assert!(first.status == 200 && first.body.ends_with(" /a"), "{first:?}");
    // An open connection is no use: a request is.
    eventually("nobody asks it anything: it stops", SOON, || daemon.state(UNIT) == "stopped");
    assert_eq!(daemon.ok("service.status", json!({ "name": UNIT }))["last_end"], "idle");
    let asked = Instant::now();
    let second = line.get("/b").unwrap();
    assert!(second.status == 200 && second.body.ends_with(" /b"), "{second:?}");
    assert!(asked.elapsed() >= Duration::from_millis(500), "it had to start first");
    let pid = |heard: &Heard| heard.body.split(' ').next().unwrap().to_owned();
    assert_ne!(pid(&first), pid(&second), "another process answers on the same connection");
    figure("front: a request that wakes a unit which takes 500 ms", &format!("{:?}", asked.elapsed()));
    let large = json!({ "text": "x".repeat(3 << 20) });
    let heard = line.post("/p", &large).unwrap();
    assert_eq!(heard.body, large.to_string().len().to_string(), "a body of 3 MiB passes whole");
    daemon.ok("service.stop", json!({ "name": UNIT }));
    eventually("a stopped unit has no open front", SOON, || Line::to(port).is_err());
}

#[test]
fn no_request_is_lost_while_its_unit_is_restarted_and_killed() {
    let daemon = Daemon::start();
    let port = free_port();
    let policy = json!({ "on_demand": on_demand(60), "restart": { "delay_ms": 10 } });
    start(&daemon, with(port, "0.2"), policy);
    let over = AtomicBool::new(false);
    let served = std::thread::scope(|scope| {
        let client = || {
            let mut line = Line::to(port).unwrap();
            let mut served = 0_u32;
            while !over.load(Ordering::Relaxed) {
                let heard = line.get("/slow").unwrap();
                assert_eq!(heard.status, 200, "{heard:?}");
                served += 1;
            }
            served
        };
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(client)).collect();
        for _ in 0..2 {
            std::thread::sleep(Duration::from_millis(300));
            daemon.ok("service.restart", json!({ "name": UNIT }));
        }
        std::thread::sleep(Duration::from_millis(300));
        let pid = daemon.ok("service.status", json!({ "name": UNIT }))["pid"].as_i64().unwrap();
        signal(i32::try_from(pid).unwrap(), "KILL");
        std::thread::sleep(Duration::from_millis(1_500));
        over.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).sum::<u32>()
    });
    assert!(served > 20, "{served}");
    figure("front: requests served over two restarts and a kill, none lost", &served.to_string());
}

#[test]
fn a_stream_passes_unbuffered_and_a_stop_waits_for_its_end() {
    let daemon = Daemon::start();
    let port = free_port();
    start(&daemon, with(port, "0"), json!({ "on_demand": on_demand(60) }));
    let mut line = Line::to(port).unwrap();
    let asked = Instant::now();
    line.send("GET /stream HTTP/1.1\r\nHost: front\r\n\r\n").unwrap();
    while !line.line().unwrap().starts_with("data: 0") {}
    assert!(
        asked.elapsed() < Duration::from_millis(700),
        "the first of 1.5 s comes at once: {:?}",
        &format!("{:?}", asked.elapsed())
    );
    let (daemon, stopper) = (&daemon, Instant::now());
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| daemon.ok("service.stop", json!({ "name": UNIT })));
        let mut last = String::new();
        loop {
            let text = line.line().unwrap();
            if text.starts_with("data:") {
                last.clone_from(&text);
            }
            if text == "0\r\n" || text.is_empty() {
                break;
            }
        }
        assert_eq!(last.trim(), "data: 5", "it was not cut");
        stop.join().unwrap();
    });
    assert!(stopper.elapsed() >= Duration::from_millis(900), "the stop waited: {:?}", stopper.elapsed());
    assert_eq!(daemon.ok("service.status", json!({ "name": UNIT }))["last_end"], "stopped");
}

#[test]
fn who_cannot_be_served_is_told_why() {
    let daemon = Daemon::start();
    let (port, fine) = (free_port(), daemon.home.join("fine"));
    fs::write(&fine, "").unwrap();
    let script = format!("test -e {} && exec python3 -m http.server --bind 127.0.0.1 $PORT_INNER", fine.display());
    let with = json!({
        "argv": ["sh", "-c", script], "ports": { "http": port, "inner": "auto" },
        "health": { "tcp": { "port": "inner" } },
    });
    start(&daemon, with, json!({ "on_demand": on_demand(1), "restart": { "budget": 0 } }));
    eventually("it stops", SOON, || daemon.state(UNIT) == "stopped");
    fs::remove_file(&fine).unwrap();
    let mut line = Line::to(port).unwrap();
    let heard = line.get("/").unwrap();
    assert_eq!(heard.status, 503, "{heard:?}");
    assert!(heard.head.contains("retry-after: "), "{heard:?}");
    let error: Value = serde_json::from_str(&heard.body).unwrap();
    assert!(error["error"]["message"].as_str().unwrap().contains("given up"), "{error}");
    // What it lacks may come: it is waited for, but not for ever.
    let policy = json!({ "on_demand": { "hold_s": 1 }, "requires": [{ "file": fine }] });
    let _ = daemon.call("service.stop", json!({ "name": UNIT }));
    fs::write(&fine, "").unwrap();
    daemon.ok("service.start", json!({ "name": UNIT, "policy": policy }));
    eventually("it stops", SOON, || daemon.state(UNIT) == "stopped");
    fs::remove_file(&fine).unwrap();
    let heard = Line::to(port).unwrap().get("/").unwrap();
    assert!(heard.status == 503 && heard.body.contains("not_ready") && heard.body.contains("fine"), "{heard:?}");
    fs::write(&fine, "").unwrap();
    eventually("it is served once that is there", SOON, || Line::to(port).unwrap().get("/").unwrap().status == 200);
}

#[test]
fn a_front_names_two_ports_of_its_unit_and_comes_back_with_the_next_daemon() {
    let mut daemon = Daemon::start();
    let port = free_port();
    for (front, said) in [(json!({ "http": "nosuch" }), "no port"), (json!({ "http": "http" }), "behind a front")] {
        let policy = json!({ "on_demand": { "front": front } });
        let error = daemon.err("service.start", json!({ "name": UNIT, "with": with(port, "0"), "policy": policy }));
        assert!(error["message"].as_str().unwrap().contains(said), "{error}");
        assert!(error["data"]["hint"].as_str().unwrap().contains("it has: http, inner"), "{error}");
    }
    start(&daemon, with(port, "0"), json!({ "on_demand": on_demand(60) }));
    let mut line = Line::to(port).unwrap();
    let before = line.get("/a").unwrap();
    line.send("GET /stream HTTP/1.1\r\nHost: front\r\n\r\n").unwrap();
    while !line.line().unwrap().starts_with("data: 0") {}
    daemon.kill_9();
    // The limitation: what was in flight at its front breaks with the daemon.
    let rest: Vec<String> = std::iter::from_fn(|| line.line().ok().filter(|text| !text.is_empty())).collect();
    assert!(!rest.iter().any(|text| text.starts_with("data: 5")), "{rest:?}");
    assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok(), "nobody listens meanwhile");
    daemon.launch();
    let begun = Instant::now();
    let mut line = None;
    eventually("the next daemon listens", SOON, || {
        line = Line::to(port).ok();
        line.is_some()
    });
    let after = line.unwrap().get("/a").unwrap();
    figure("front: a new daemon's first answer, from its own first", &format!("{:?}", begun.elapsed()));
    assert_eq!(before.body, after.body, "the same process goes on");
}
