//! What happens is told: as a stream, over restarts, to slow readers and past hostile ones.

use std::{
    collections::VecDeque,
    fs,
    io::{ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use wharf_tests::{Daemon, Document, eventually, get, post, request, wharf_binary};

/// `GET /events`, read as it comes.
struct Tail {
    stream: UnixStream,
    raw: Vec<u8>,
    text: String,
    rows: VecDeque<Value>,
    ids: Vec<String>,
    has_ended: bool,
}

impl Tail {
    fn open(socket: &Path, query: &str, head: &str) -> Self {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        stream.write_all(format!("GET /events{query} HTTP/1.1\r\nHost: a\r\n{head}\r\n").as_bytes()).unwrap();
        let mut tail =
            Self { stream, raw: vec![], text: String::new(), rows: VecDeque::new(), ids: vec![], has_ended: false };
        let until = Instant::now() + Duration::from_secs(10);
        while !tail.raw.windows(4).any(|w| w == b"\r\n\r\n") {
            assert!(Instant::now() < until, "no answer");
            tail.take();
        }
        let at = tail.raw.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        let head: Vec<u8> = tail.raw.drain(..at + 4).collect();
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head} {}", String::from_utf8_lossy(&tail.raw));
        tail.unpack();
        tail
    }

    fn take(&mut self) {
        let mut buffer = [0; 65_536];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.has_ended = true,
            Ok(n) => self.raw.extend_from_slice(&buffer[..n]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(e) if e.kind() == ErrorKind::ConnectionReset => self.has_ended = true,
            Err(e) => panic!("{e}"),
        }
    }

    /// Chunks become text, text becomes rows.
    fn unpack(&mut self) {
        while let Some(at) = self.raw.windows(2).position(|w| w == b"\r\n") {
            let size = usize::from_str_radix(std::str::from_utf8(&self.raw[..at]).unwrap(), 16).unwrap();
            if self.raw.len() < at + 2 + size + 2 {
                break;
            }
            self.has_ended |= size == 0;
            self.text.push_str(std::str::from_utf8(&self.raw[at + 2..at + 2 + size]).unwrap());
            self.raw.drain(..at + 2 + size + 2);
        }
        while let Some(at) = self.text.find('\n') {
            let line: String = self.text.drain(..=at).collect();
            if let Some(id) = line.strip_prefix("id: ") {
                self.ids.push(id.trim().to_owned());
            } else if line.trim_start_matches("data: ").starts_with('{') {
                self.rows.push_back(serde_json::from_str(line.trim_start_matches("data: ")).unwrap());
            }
        }
    }

    /// The next row.
    #[track_caller]
    fn next(&mut self) -> Value {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(row) = self.rows.pop_front() {
                return row;
            }
            assert!(!self.has_ended && Instant::now() < until, "nothing more has happened");
            self.take();
            self.unpack();
        }
    }

    /// Rows up to and with the first that is meant.
    #[track_caller]
    fn until(&mut self, is_meant: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut rows = vec![];
        loop {
            rows.push(self.next());
            if is_meant(&rows[rows.len() - 1]) {
                return rows;
            }
        }
    }
}

fn seqs(rows: &[Value]) -> Vec<u64> {
    rows.iter().map(|row| row["seq"].as_u64().unwrap()).collect()
}

fn has_ended(kind: &'static str) -> impl Fn(&Value) -> bool {
    move |row| row["kind"] == "op.ended" && row["operation"]["kind"] == kind
}

const LINES: &str = "Accept: application/x-ndjson\r\n";

fn sleeper(daemon: &Daemon, name: &str) {
    daemon.run(name, json!({ "argv": ["sleep", "1000"] }));
}

#[test]
fn a_start_is_told_in_order_as_events_and_as_lines_on_both_sockets() {
    let daemon = Daemon::start();
    let mut tails = [
        Tail::open(&daemon.socket(), "?since=0", ""),
        Tail::open(&daemon.rpc_socket(), "?since=0", LINES),
        Tail::open(&daemon.rpc_socket(), "?since=0&unit=command%40a&kind=unit", "Accept: text/event-stream\r\n"),
    ];
    sleeper(&daemon, "b");
    sleeper(&daemon, "a");
    daemon.ok("service.stop", json!({ "name": "command@a" }));
    let all = tails[0].until(has_ended("stop"));
    assert_eq!(seqs(&all), (1..=all.len() as u64).collect::<Vec<_>>(), "numbered from one, without a hole");
    assert_eq!(all[0]["kind"], "daemon.started");
    assert_eq!(all, tails[1].until(has_ended("stop")), "both sockets tell the same");
    let boot = all[0]["boot"].as_str().unwrap();
    let ids: Vec<String> = all.iter().map(|row| format!("{boot}-{}", row["seq"])).collect();
    assert_eq!(tails[0].ids, ids);
    assert!(tails[1].ids.is_empty());
    let document = Document::load_rpc();
    all.iter().for_each(|row| document.check_event("event.notice", row).unwrap());

    let phases = tails[2].until(|row| row["to"] == "stopped" && row["from"] == "stopping");
    let phases: Vec<&Value> = phases.iter().filter(|row| row["kind"] == "unit.phase").collect();
    assert!(phases.iter().all(|row| row["unit"] == "command@a"), "{phases:#?}");
    let told: Vec<&str> = phases.iter().filter_map(|row| row["to"].as_str()).collect();
    assert_eq!(told, ["starting", "running", "stopping", "stopped"]);
    assert!(phases[1]["run"].is_u64(), "{phases:#?}");
    let ended: Vec<&Value> = all.iter().filter(|row| row["kind"] == "unit.ended").collect();
    assert_eq!((ended.len(), &ended[0]["reason"]), (1, &json!("stopped")), "{ended:?}");
}

#[test]
fn a_reader_goes_on_over_a_kill_and_is_told_that_it_is_another_life() {
    let mut daemon = Daemon::start();
    sleeper(&daemon, "a");
    let mut tail = Tail::open(&daemon.socket(), "?since=0", "");
    let seen = tail.until(has_ended("start"));
    let (last, id) = (seen.last().unwrap().clone(), tail.ids.last().unwrap().clone());

    // In the same life: nothing twice, nothing lost.
    daemon.ok("service.stop", json!({ "name": "command@a" }));
    let mut again = Tail::open(&daemon.socket(), "?since=0", &format!("Last-Event-ID: {id}\r\n"));
    assert_eq!(again.next()["seq"].as_u64().unwrap(), last["seq"].as_u64().unwrap() + 1);
    sleeper(&daemon, "a");

    daemon.kill_9();
    daemon.launch();
    let mut after = Tail::open(&daemon.socket(), "", &format!("Last-Event-ID: {id}\r\n"));
    let gap = after.next();
    assert_eq!((&gap["kind"], &gap["named"], &gap["since"]), (&json!("gap.boot"), &last["boot"], &last["seq"]));
    let began = after.next();
    assert_eq!((&began["kind"], &began["seq"], &began["units"]), (&json!("daemon.started"), &json!(1), &json!(1)));
    assert!(began["boot"] != last["boot"] && began["boot"] == gap["boot"]);
    let adopted = after.until(|row| row["kind"] == "unit.phase" && row["to"] == "running");
    assert_eq!(adopted.last().unwrap()["unit"], "command@a", "what lives is told again");

    // The same over event.watch, and a daemon that ends says so to everybody.
    let params = json!({ "since": last["seq"], "boot": last["boot"], "limit": 2 });
    let report = daemon.ok("event.watch", params);
    assert_eq!((&report["events"][0]["kind"], &report["events"][1]["seq"]), (&json!("gap.boot"), &json!(1)));
    daemon.terminate();
    let rest = after.until(|row| row["kind"] == "daemon.stopping");
    assert!(!rest.is_empty());
    eventually("the stream ends", Duration::from_secs(5), || {
        after.take();
        after.unpack();
        after.has_ended
    });
}

#[test]
fn the_command_line_follows_over_a_restart() {
    let mut daemon = Daemon::start();
    sleeper(&daemon, "a");
    let shown = daemon.cli_ok(&["events", "command@a"]).out;
    assert!(shown.contains("starting -> running") && shown.contains("start 1 done"), "{shown}");
    let kept = daemon.cli_ok(&["events", "--json", "--since", "0", "--kind", "op"]).out;
    let kinds: Vec<Value> = kept.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["kind"].clone()).collect();
    assert_eq!(kinds, ["op.began", "op.ended"]);
    assert_eq!(daemon.cli(&["events", "--kind", "nope"]).code, 2);

    let out = daemon.home.join("followed");
    let mut follow = daemon
        .command()
        .args(["events", "-f", "--json"])
        .stdout(fs::File::create(&out).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let read = || -> Vec<Value> {
        let text = fs::read_to_string(&out).unwrap();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    let has = |kind: &str| read().iter().any(|row| row["kind"] == kind);
    eventually("it shows what was", Duration::from_secs(10), || has("daemon.started"));
    daemon.terminate();
    eventually("it shows the end", Duration::from_secs(10), || has("daemon.stopping"));
    daemon.launch();
    eventually("it goes on with the next daemon", Duration::from_secs(10), || has("gap.boot"));
    daemon.ok("service.stop", json!({ "name": "command@a" }));
    eventually("it shows the stop", Duration::from_secs(10), || read().iter().any(has_ended("stop")));
    follow.kill().unwrap();
    follow.wait().unwrap();
    let all = read();
    let pairs: Vec<String> = all.iter().map(|row| format!("{}{}{}", row["boot"], row["seq"], row["kind"])).collect();
    let distinct: std::collections::BTreeSet<&String> = pairs.iter().collect();
    assert_eq!(distinct.len(), pairs.len(), "nothing is shown twice: {pairs:#?}");
}

fn resident_kib(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A connection that is kept.
struct Kept(UnixStream);

impl Kept {
    fn open(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self(stream)
    }

    fn rpc(&mut self, body: &str) -> String {
        let head = "POST /rpc HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: ";
        self.0.write_all(format!("{head}{}\r\n\r\n{body}", body.len()).as_bytes()).unwrap();
        let mut raw = vec![];
        let mut buffer = vec![0; 65_536];
        loop {
            let read = self.0.read(&mut buffer).unwrap();
            assert!(read > 0, "the connection was closed");
            raw.extend_from_slice(&buffer[..read]);
            let Some(at) = raw.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&raw[..at]).to_ascii_lowercase();
            let length =
                head.lines().find_map(|l| l.strip_prefix("content-length: ")).unwrap().parse::<usize>().unwrap();
            if raw.len() >= at + 4 + length {
                return String::from_utf8(raw[at + 4..at + 4 + length].to_vec()).unwrap();
            }
        }
    }
}

/// Each stop of a unit that is stopped is an operation: two events.
#[test]
fn a_reader_that_never_reads_holds_no_memory_and_the_others_miss_nothing() {
    const UNITS: usize = 64;
    const EVENTS: u64 = 100_000;
    let daemon = Daemon::start();
    for n in 0..UNITS {
        sleeper(&daemon, &format!("u{n}"));
    }
    let stops = |wait| -> String {
        let call = |n: usize| {
            let params = json!({ "name": format!("command@u{n}"), "wait": wait });
            json!({ "jsonrpc": "2.0", "id": n, "method": "service.stop", "params": params })
        };
        Value::from((0..UNITS).map(call).collect::<Vec<_>>()).to_string()
    };
    post(&daemon.socket(), &stops(true)).unwrap();
    // They never read: on the wire of one lies an answer that fills its buffers.
    let stuck: Vec<UnixStream> = ["", LINES]
        .into_iter()
        .map(|head| {
            let mut stream = UnixStream::connect(daemon.socket()).unwrap();
            stream.write_all(format!("GET /events?since=0 HTTP/1.1\r\nHost: a\r\n{head}\r\n").as_bytes()).unwrap();
            stream
        })
        .collect();
    let watch = json!({ "jsonrpc": "2.0", "id": 1, "method": "event.watch", "params": { "since": 0 } }).to_string();
    let mut stuck_call = UnixStream::connect(daemon.rpc_socket()).unwrap();
    let head = format!("POST /rpc HTTP/1.1\r\nHost: a\r\n{LINES}Content-Type: application/json\r\n");
    stuck_call.write_all(format!("{head}Content-Length: {}\r\n\r\n{watch}", watch.len()).as_bytes()).unwrap();

    let readers: Vec<_> = ["", LINES]
        .into_iter()
        .map(|head| {
            let mut tail = Tail::open(&daemon.rpc_socket(), "", head);
            std::thread::spawn(move || {
                let first = tail.next()["seq"].as_u64().unwrap();
                let mut last = first;
                while last < first + EVENTS {
                    let row = tail.next();
                    assert_eq!(row["seq"].as_u64(), Some(last + 1), "{row}");
                    last += 1;
                }
            })
        })
        .collect();
    let body = stops(false);
    let mut kept = Kept::open(&daemon.socket());
    (0..20).for_each(|_| _ = kept.rpc(&body));
    let before = resident_kib(daemon.pid());
    let began = Instant::now();
    while readers.iter().any(|reader| !reader.is_finished()) {
        kept.rpc(&body);
        assert!(began.elapsed() < Duration::from_secs(300), "100,000 events took too long");
    }
    let took = began.elapsed();
    readers.into_iter().for_each(|reader| reader.join().unwrap());
    let after = resident_kib(daemon.pid());
    println!(
        "{EVENTS} events in {took:?}: two readers have all of them; resident {before} -> {after} KiB beside three that read nothing"
    );
    assert!(after < before + 20 * 1024, "the daemon grew from {before} to {after} KiB");
    drop((stuck, stuck_call));
    // Audit lines and operations of all that are in files, which were rotated.
    for name in ["audit", "ops"] {
        let files: Vec<_> = fs::read_dir(daemon.home.join("state")).unwrap().flatten().collect();
        let ours = files.iter().filter(|f| f.file_name().to_string_lossy().starts_with(name));
        let bytes: u64 = ours.map(|f| f.metadata().unwrap().len()).sum();
        assert!((1..=20 << 20).contains(&bytes), "{name}: {bytes} bytes");
    }
    for n in 0..UNITS {
        daemon.ok("service.delete", json!({ "name": format!("command@u{n}") }));
    }
}

#[test]
fn readers_are_bounded_and_a_refusal_says_what_to_do() {
    let daemon = Daemon::start();
    let mut open: Vec<Tail> = (0..128).map(|_| Tail::open(&daemon.socket(), "?since=0", "")).collect();
    let refused = get(&daemon.rpc_socket(), "/events").unwrap();
    assert_eq!(refused.status, 503, "{refused:?}");
    let body: Value = serde_json::from_str(&refused.body).unwrap();
    assert_eq!(body["error"]["data"]["retryable"], true);
    assert!(body["error"]["data"]["hint"].as_str().unwrap().contains("wait_ms"), "{body}");
    // Calls have their places, and so has who asks without a stream.
    assert_eq!(daemon.state("hello"), "stopped");
    assert_eq!(daemon.ok("event.watch", json!({ "since": 0 }))["events"][0]["kind"], "daemon.started");
    drop(open.pop());
    eventually("a place is free", Duration::from_secs(5), || {
        let mut stream = UnixStream::connect(daemon.socket()).unwrap();
        stream.write_all(b"GET /events?since=0 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut answer = [0; 15];
        stream.read_exact(&mut answer).unwrap();
        answer == *b"HTTP/1.1 200 OK"
    });

    for (head, status) in [("HEAD /events", 405), ("POST /events", 405), ("DELETE /events", 405)] {
        let reply = request(&daemon.socket(), &format!("{head} HTTP/1.1"), "").unwrap();
        assert_eq!((reply.status, reply.header("allow")), (status, Some("GET")), "{head}");
    }
    for query in ["since=x", "unit=..", "kind=nope", "sicne=1"] {
        let reply = get(&daemon.socket(), &format!("/events?{query}")).unwrap();
        let body: Value = serde_json::from_str(&reply.body).unwrap();
        assert_eq!((reply.status, &body["error"]["code"]), (400, &json!(-32602)), "{query}");
    }
}

/// 256 connections that read nothing, write garbage, or write a byte now and then; one that is well.
#[test]
fn p17_hostile_connections_do_not_hold_up_one_that_is_well() {
    let daemon = Daemon::start();
    sleeper(&daemon, "a");
    let socket = daemon.socket();
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"service.status","params":{"name":"command@a"}}"#;
    let measure = |kept: &mut Kept| {
        let mut took: Vec<Duration> = (0..1_000)
            .map(|_| {
                let began = Instant::now();
                assert!(kept.rpc(ping).contains("running"));
                began.elapsed()
            })
            .collect();
        took.sort();
        (took[500], took[990])
    };
    let mut kept = Kept::open(&socket);
    let (alone, before) = (measure(&mut kept), resident_kib(daemon.pid()));
    let mut hostile: Vec<UnixStream> = vec![];
    for n in 0..256 {
        let mut stream = UnixStream::connect(&socket).unwrap();
        let begin: &[u8] = match n % 4 {
            0 => b"GET /events?since=0 HTTP/1.1\r\nHost: a\r\n\r\n",
            1 => b"POST /rpc HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 999999\r\n\r\n{",
            2 => b"POST /rpc HTTP/1.1\r\nHo",
            _ => &[0xff; 4096],
        };
        // Whoever was sent away meanwhile cannot write.
        let _ = stream.write_all(begin);
        stream.set_nonblocking(true).unwrap();
        hostile.push(stream);
    }
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let dripping = {
        let stop = stop.clone();
        std::thread::spawn(move || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                hostile.iter_mut().for_each(|stream| _ = stream.write(b"x"));
                std::thread::sleep(Duration::from_millis(20));
            }
            hostile
        })
    };
    // A newcomer gets in, whoever has to make room.
    let mut kept = Kept::open(&socket);
    let beside = measure(&mut kept);
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let after = resident_kib(daemon.pid());
    println!("FIGURE P17: status p50, p99 alone {alone:?}, beside 256 hostile connections {beside:?}");
    println!("FIGURE P17: daemon resident {before} -> {after} KiB");
    // Twice is the promise; below some milliseconds other tests of the machine are what is measured.
    assert!(beside.1 < (alone.1 * 2).max(Duration::from_millis(10)), "p99 {:?}", beside.1);
    assert!(after < before + 64 * 1024);
    drop(dripping.join().unwrap());
}

#[test]
fn rpc_sock_has_its_document_and_the_command_line_finds_both() {
    let daemon = Daemon::start();
    let document = get(&daemon.rpc_socket(), "/openrpc.json").unwrap();
    assert_eq!(document.body, wharf_api::RPC_DOCUMENT);
    let asked = post(&daemon.rpc_socket(), r#"{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}"#).unwrap();
    let asked: Value = serde_json::from_str(&asked.body).unwrap();
    assert_eq!(asked["result"], serde_json::from_str::<Value>(wharf_api::RPC_DOCUMENT).unwrap());
    let health = daemon.cli_ok(&["rpc", "call", "rpc.health"]).json();
    assert_eq!(health["service"], "wharf");
    let watched = daemon.cli_ok(&["rpc", "call", "event.watch", "since:=0"]).json();
    assert_eq!(watched["events"][0]["kind"], "daemon.started");
    let both = daemon.cli_ok(&["rpc", "discover"]).out;
    let documents: Vec<Value> = serde_json::Deserializer::from_str(&both).into_iter().map(Result::unwrap).collect();
    let count = |n: usize| documents[n]["methods"].as_array().unwrap().len();
    assert_eq!((documents.len(), count(0)), (2, 16));
    assert_eq!(count(1), wharf_api::rpc_methods().len());
    assert_eq!(daemon.cli_ok(&["rpc", "discover", "rpc"]).json(), documents[1]);
    // Neither socket takes the other's calls.
    for (socket, method) in [(daemon.socket(), "event.watch"), (daemon.rpc_socket(), "service.list")] {
        let reply = post(&socket, &json!({ "jsonrpc": "2.0", "id": 1, "method": method }).to_string()).unwrap();
        assert!(reply.body.contains("-32601"), "{reply:?}");
    }
    for (method, name, params, _) in Document::load_rpc().examples() {
        // Those of other namespaces have units that they need; their own tests make them.
        if ["event.watch", "op.list"].contains(&method.as_str()) && params.get("unit").is_none() {
            daemon.call(&method, params.clone()).unwrap_or_else(|e| panic!("{method}, {name}: {e:#}"));
        }
    }
}

/// A daemon that was named with `--socket` has its other socket beside it.
#[test]
fn a_named_socket_has_its_neighbour() {
    let mut daemon = Daemon::prepare();
    let folder = daemon.home.join("elsewhere");
    let socket = folder.join("w.sock");
    let mut child = Command::new(wharf_binary())
        .env("WHARF_HOME", &daemon.home)
        .args(["daemon", "--socket"])
        .arg(&socket)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("both answer", Duration::from_secs(20), || {
        [&socket, &folder.join("w.rpc.sock")].into_iter().all(|path| get(path, "/health").is_ok())
    });
    let named = daemon.command().arg("--socket").arg(&socket).args(["events", "--json"]).output().unwrap();
    assert!(String::from_utf8_lossy(&named.stdout).contains("daemon.started"), "{named:?}");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id().cast_signed()), nix::sys::signal::Signal::SIGTERM)
        .unwrap();
    child.wait().unwrap();
    daemon.kill_9();
}
