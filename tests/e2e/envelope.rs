//! The strict envelope, on the real daemon. The server's own tests try every case; here each trap
//! is tried once more where a user would meet it.

use std::{
    fs,
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use wharf_tests::{Daemon, eventually, exchange, get, post, request};

fn answer(daemon: &Daemon, body: &str) -> Value {
    let reply = post(&daemon.socket(), body).unwrap();
    assert_eq!(reply.status, 200, "{body}: {reply:?}");
    serde_json::from_str(&reply.body).unwrap_or_else(|e| panic!("{e}: {reply:?}"))
}

/// Section 7 of the JSON-RPC 2.0 specification, with the daemon's own methods in place of the
/// specification's toys: what is sent, and what must come back (none: 204 and nothing).
#[test]
fn the_fifteen_examples_of_section_7() {
    let daemon = Daemon::start();
    let missing = json!({ "code": -32601 });
    let invalid = json!({ "jsonrpc": "2.0", "error": { "code": -32600 }, "id": null });
    let unparsed = json!({ "jsonrpc": "2.0", "error": { "code": -32700 }, "id": null });
    let hello = |id: Value| json!({ "jsonrpc": "2.0", "result": { "name": "hello" }, "id": id });
    let table: [(&str, &str, Option<Value>); 15] = [
        (
            "positional 1",
            r#"{"jsonrpc": "2.0", "method": "service.status", "params": ["hello"], "id": 1}"#,
            Some(hello(json!(1))),
        ),
        (
            "positional 2",
            r#"{"jsonrpc": "2.0", "method": "service.logs", "params": ["hello", 3], "id": 2}"#,
            Some(hello(json!(2))),
        ),
        (
            "named 1",
            r#"{"jsonrpc": "2.0", "method": "service.logs", "params": {"name": "hello", "lines": 3}, "id": 3}"#,
            Some(hello(json!(3))),
        ),
        (
            "named 2",
            r#"{"jsonrpc": "2.0", "method": "service.logs", "params": {"lines": 3, "name": "hello"}, "id": 4}"#,
            Some(hello(json!(4))),
        ),
        ("notification 1", r#"{"jsonrpc": "2.0", "method": "service.status", "params": ["hello"]}"#, None),
        ("notification 2", r#"{"jsonrpc": "2.0", "method": "foobar"}"#, None),
        (
            "no such method",
            r#"{"jsonrpc": "2.0", "method": "foobar", "id": "1"}"#,
            Some(json!({ "jsonrpc": "2.0", "error": missing, "id": "1" })),
        ),
        ("invalid JSON", r#"{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]"#, Some(unparsed.clone())),
        ("invalid request", r#"{"jsonrpc": "2.0", "method": 1, "params": "bar"}"#, Some(invalid.clone())),
        (
            "batch, invalid JSON",
            r#"[{"jsonrpc": "2.0", "method": "rpc.health", "id": "1"}, {"jsonrpc": "2.0", "method""#,
            Some(unparsed),
        ),
        ("empty batch", "[]", Some(invalid.clone())),
        ("invalid batch of one", "[1]", Some(json!([invalid]))),
        ("invalid batch", "[1,2,3]", Some(json!([invalid, invalid, invalid]))),
        (
            "mixed batch",
            r#"[{"jsonrpc": "2.0", "method": "service.status", "params": ["hello"], "id": "1"},
                {"jsonrpc": "2.0", "method": "service.status", "params": ["hello"]},
                {"foo": "boo"},
                {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
                {"jsonrpc": "2.0", "method": "rpc.health", "id": "9"}]"#,
            Some(json!([
                hello(json!("1")), invalid, { "jsonrpc": "2.0", "error": missing, "id": "5" },
                { "jsonrpc": "2.0", "result": { "service": "wharf" }, "id": "9" },
            ])),
        ),
        (
            "batch of notifications",
            r#"[{"jsonrpc": "2.0", "method": "service.status", "params": ["hello"]}, {"jsonrpc": "2.0", "method": "foobar"}]"#,
            None,
        ),
    ];
    for (what, sent, expected) in table {
        let reply = post(&daemon.socket(), sent).unwrap();
        match expected {
            None => assert_eq!((reply.status, reply.body.as_str()), (204, ""), "{what}"),
            Some(expected) => {
                assert_eq!(reply.status, 200, "{what}");
                let came: Value = serde_json::from_str(&reply.body).unwrap();
                assert!(holds(&came, &expected), "{what}: {came:#} does not hold {expected:#}");
            }
        }
    }
}

/// Every field of the pattern stands in the value; arrays are equally long.
fn holds(value: &Value, pattern: &Value) -> bool {
    match (value, pattern) {
        (Value::Object(v), Value::Object(p)) => p.iter().all(|(k, p)| v.get(k).is_some_and(|v| holds(v, p))),
        (Value::Array(v), Value::Array(p)) => v.len() == p.len() && v.iter().zip(p).all(|(v, p)| holds(v, p)),
        _ => value == pattern,
    }
}

#[test]
fn t30_ids_come_back_byte_for_byte() {
    let daemon = Daemon::start();
    for id in ["-1", "1.5", "\"\"", "null", "1e3", "123456789012345678901234567890", "\"\\u0041\""] {
        let body = format!(r#"{{"jsonrpc":"2.0","method":"service.status","params":{{"name":"hello"}},"id":{id}}}"#);
        let reply = post(&daemon.socket(), &body).unwrap();
        assert!(reply.body.contains(&format!("\"id\":{id}")), "{id}: {}", reply.body);
        assert!(reply.body.contains("\"result\""), "{id}: {}", reply.body);
    }
    let twice = answer(&daemon, r#"{"jsonrpc":"2.0","method":"rpc.health","id":1,"id":2}"#);
    assert_eq!((&twice["error"]["code"], &twice["id"]), (&json!(-32600), &Value::Null));
}

#[test]
fn t31_a_notification_runs_and_gets_204() {
    let daemon = Daemon::start();
    let with = json!({ "argv": ["sleep", "1000"] });
    let start =
        json!({ "jsonrpc": "2.0", "method": "service.start", "params": { "name": "command@quiet", "with": with } });
    let reply = post(&daemon.socket(), &start.to_string()).unwrap();
    assert_eq!((reply.status, reply.body.as_str()), (204, ""));
    eventually("it has run", Duration::from_secs(5), || {
        daemon.call("service.status", json!({ "name": "command@quiet" })).is_ok_and(|s| s["state"] == "running")
    });
    let batch = json!([start, start]);
    assert_eq!(post(&daemon.socket(), &batch.to_string()).unwrap().status, 204);
}

#[test]
fn t32_json_that_is_no_request_is_32600() {
    let daemon = Daemon::start();
    for body in
        ["1", "\"x\"", "{}", "null", "true", r#"{"method":1}"#, r#"{"jsonrpc":"1.0","method":"rpc.health","id":1}"#]
    {
        assert_eq!(answer(&daemon, body)["error"]["code"], -32600, "{body}");
    }
    assert_eq!(answer(&daemon, "{")["error"]["code"], -32700);
}

#[test]
fn t33_garbage_and_silence_slow_nobody() {
    let daemon = Daemon::start();
    let mut rude: Vec<UnixStream> = (0..40).map(|_| UnixStream::connect(daemon.socket()).unwrap()).collect();
    for (n, stream) in rude.iter_mut().enumerate() {
        // Every third says nothing at all.
        match n % 3 {
            0 => drop(stream.write_all(b"\x00\xff\x13garbage\r\n\r\n")),
            1 => drop(stream.write_all(b"POST /rpc HTTP/1.1\r\nHost: w\r\nContent-Length: 999\r\n\r\n{")),
            _ => {}
        }
    }
    let began = Instant::now();
    for _ in 0..50 {
        daemon.ok("service.status", json!({ "name": "hello" }));
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?} for 50 calls", began.elapsed());
}

#[test]
fn t34_a_request_that_is_half_sent_is_closed_after_the_time_limit() {
    let daemon = Daemon::start();
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    stream.write_all(b"POST /rpc HTTP/1.1\r\nHost: wh").unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let began = Instant::now();
    let mut rest = vec![];
    stream.read_to_end(&mut rest).expect("the daemon closes it");
    assert!(began.elapsed() > Duration::from_secs(5), "closed after {:?}", began.elapsed());
}

#[test]
fn t35_two_hosts_or_none_are_400() {
    let daemon = Daemon::start();
    for hosts in ["", "Host: a\r\nHost: b\r\n"] {
        let text =
            exchange(&daemon.socket(), format!("GET /health HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n").as_bytes())
                .unwrap();
        assert!(text.starts_with("HTTP/1.1 400"), "{hosts:?}: {text}");
    }
}

#[test]
fn t36_a_request_larger_than_the_limit_is_413_and_costs_no_memory() {
    let daemon = Daemon::start();
    let rss = || -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    daemon.ok("rpc.health", json!({}));
    let before = rss();
    for _ in 0..20 {
        let head =
            "POST /rpc HTTP/1.1\r\nHost: w\r\nContent-Type: application/json\r\nContent-Length: 536870912\r\n\r\n";
        let mut stream = UnixStream::connect(daemon.socket()).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        let block = vec![b' '; 1 << 20];
        // The daemon may close while we still write.
        for _ in 0..4 {
            let _ = stream.write_all(&block);
        }
        let mut answer = vec![0; 32];
        let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
        let read = stream.read(&mut answer).unwrap_or(0);
        assert!(
            String::from_utf8_lossy(&answer[..read]).contains("413"),
            "{:?}",
            String::from_utf8_lossy(&answer[..read])
        );
    }
    assert!(rss() < before + 8 * 1024, "{before} KiB before, {} KiB after", rss());
}

#[test]
fn t37_with_no_descriptor_left_an_admin_still_gets_in_and_nothing_spins() {
    let daemon = Daemon::start();
    let pid = daemon.pid();
    let limit = std::process::Command::new("prlimit").args([format!("--pid={pid}"), "--nofile=40:40".into()]).status();
    assert!(limit.unwrap().success());
    let ticks = || -> u64 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let idle: Vec<UnixStream> = (0..60).filter_map(|_| UnixStream::connect(daemon.socket()).ok()).collect();
    assert!(idle.len() > 30);
    let (began, before) = (Instant::now(), ticks());
    assert_eq!(daemon.ok("service.status", json!({ "name": "hello" }))["name"], "hello");
    std::thread::sleep(Duration::from_secs(2));
    let cpu = (ticks() - before) as f64 / 100.0 / began.elapsed().as_secs_f64();
    assert!(cpu < 0.10, "the daemon used {:.0} % of a core", cpu * 100.0);
    assert_eq!(daemon.ok("service.status", json!({ "name": "hello" }))["name"], "hello");
    drop(idle);
}

#[test]
fn t38_a_socket_folder_that_others_can_enter_is_refused_with_the_fix() {
    let daemon = Daemon::prepare();
    let run = daemon.home.join("run");
    fs::create_dir_all(&run).unwrap();
    fs::set_permissions(&run, fs::Permissions::from_mode(0o777)).unwrap();
    let said = daemon.cli(&["daemon"]);
    assert_ne!(said.code, 0);
    assert!(said.err.contains("chmod 700"), "{said:?}");
    fs::set_permissions(&run, fs::Permissions::from_mode(0o700)).unwrap();
    let mut daemon = daemon;
    daemon.launch();
    let mode = |path: std::path::PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(run), mode(daemon.socket())), (0o700, 0o600));
}

#[test]
fn what_is_no_json_call_is_refused_by_http() {
    let daemon = Daemon::start();
    let socket = daemon.socket();
    let call = r#"{"jsonrpc":"2.0","method":"rpc.health","id":1}"#;
    assert_eq!(request(&socket, "POST /rpc HTTP/1.1\r\nContent-Type: text/plain", call).unwrap().status, 415);
    assert_eq!(request(&socket, "POST /rpc HTTP/1.1", call).unwrap().status, 415);
    let with_origin = "POST /rpc HTTP/1.1\r\nContent-Type: application/json\r\nOrigin: http://evil.example";
    assert_eq!(request(&socket, with_origin, call).unwrap().status, 403);
    let not_allowed = get(&socket, "/rpc").unwrap();
    assert_eq!((not_allowed.status, not_allowed.header("allow")), (405, Some("POST")));
    assert_eq!(get(&socket, "/etc/passwd").unwrap().status, 404);
}
