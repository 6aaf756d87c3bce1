//! Command lines and what becomes of them: the call that is made, and the exit code of its answer.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    process::{Command, Output},
    sync::{Arc, Mutex},
    thread,
};

use serde_json::{Value, json};

type Calls = Arc<Mutex<Vec<Value>>>;

/// Stands in for a daemon: keeps the calls, and answers each with what `answer` says of its params.
struct Ground {
    folder: tempfile::TempDir,
    calls: Calls,
}

impl Ground {
    fn answering(answer: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        let calls = Calls::default();
        let (kept, answer) = (calls.clone(), Arc::new(answer));
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let (kept, answer) = (kept.clone(), answer.clone());
                thread::spawn(move || while converse(&stream, &kept, &*answer).is_some() {});
            }
        });
        Self { folder, calls }
    }

    fn wharf(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_wharf"))
            .args(args)
            .env("WHARF_SOCKET", self.folder.path().join("s"))
            .current_dir("/usr")
            .output()
            .unwrap()
    }

    /// The method and params of each call that a command line makes.
    fn calls_of(&self, line: &str) -> Vec<(String, Value)> {
        self.wharf(&line.split(' ').collect::<Vec<_>>());
        let calls = std::mem::take(&mut *self.calls.lock().unwrap());
        calls.into_iter().map(|call| (call["method"].as_str().unwrap().to_owned(), call["params"].clone())).collect()
    }
}

fn converse(stream: &UnixStream, kept: &Calls, answer: &dyn Fn(&Value) -> Value) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        (reader.read_line(&mut head).ok()? > 0).then_some(())?;
    }
    let length = head.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let call: Value = serde_json::from_slice(&body).ok()?;
    let mut reply = answer(&call["params"]);
    reply["jsonrpc"] = json!("2.0");
    reply["id"] = call["id"].clone();
    kept.lock().unwrap().push(call);
    let reply = reply.to_string();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", reply.len());
    let mut writer = stream;
    writer.write_all((head + &reply).as_bytes()).ok()
}

fn error(code: i32, kind: &str) -> Value {
    let data = json!({ "kind": kind, "service": "redis", "retryable": false, "hint": "do this", "causes": ["that"] });
    json!({ "error": { "code": code, "message": "no", "data": data } })
}

#[test]
fn a_line_is_its_call() {
    let ground = Ground::answering(|_| error(-32001, "not_found"));
    let lines = [
        ("list", "service.list", json!({})),
        ("status", "service.list", json!({})),
        ("status redis", "service.status", json!({"name": "redis"})),
        ("service status redis", "service.status", json!({"name": "redis"})),
        ("health python-api@vault", "service.health", json!({"name": "python-api@vault"})),
        ("inspect redis", "service.inspect", json!({"name": "redis"})),
        ("verify redis", "service.verify", json!({"name": "redis"})),
        ("start redis", "service.start", json!({"name": "redis", "reset": false, "force": false, "wait": true})),
        ("start redis --force", "service.start", json!({"name": "redis", "reset": false, "force": true, "wait": true})),
        (
            "start redis --reset --version 7.0.15 --port main=6380 --with a.b=1 --no-wait",
            "service.start",
            json!({"name": "redis", "reset": true, "force": false, "version": "7.0.15", "wait": false,
                   "with": {"a": {"b": 1}, "ports": {"main": 6380}}}),
        ),
        (
            "service stop redis",
            "service.stop",
            json!({"name": "redis", "keep_want": false, "retire": false, "wait": true}),
        ),
        (
            "stop redis --keep-want",
            "service.stop",
            json!({"name": "redis", "keep_want": true, "retire": false, "wait": true}),
        ),
        ("restart redis --no-wait", "service.restart", json!({"name": "redis", "force": false, "wait": false})),
        (
            "install redis --mode source --version latest --reset",
            "service.install",
            json!({"name": "redis", "mode": "source", "version": "latest", "reset": true, "wait": true}),
        ),
        ("build redis", "service.build", json!({"name": "redis", "wait": true})),
        ("upgrade redis --version 8", "service.upgrade", json!({"name": "redis", "version": "8", "wait": true})),
        (
            "delete redis --purge --yes",
            "service.delete",
            json!({"name": "redis", "purge_binaries": true, "purge_data": true, "wait": true}),
        ),
        ("logs -n 5 redis", "service.logs", json!({"name": "redis", "lines": 5, "follow": false})),
        ("logs -f redis", "service.logs", json!({"name": "redis", "lines": 100, "follow": true})),
        (
            "logs redis --since 5m --grep a.b --level error --run 7",
            "service.logs",
            json!({"name": "redis", "lines": 10000, "follow": false, "since": -300.0, "grep": "a.b", "level": "error",
                   "run": 7}),
        ),
        (
            "logs redis --cursor redis/42/183320 --until 2026-11-21T08:00:00Z",
            "service.logs",
            json!({"name": "redis", "lines": 10000, "follow": false, "until": 1_795_248_000.0,
                   "cursor": "redis/42/183320"}),
        ),
        ("troubleshoot redis", "service.troubleshoot", json!({"name": "redis", "lines": 50})),
        ("rpc call service.stop name=redis wait:=false", "service.stop", json!({"name": "redis", "wait": false})),
        ("rpc discover", "rpc.discover", json!({})),
        (
            "run --name web --port http=auto --health http:/ --detach -- bin/env --fast",
            "service.start",
            json!({"name": "command@web", "reset": false, "force": false, "wait": false, "with": {
                "argv": ["/usr/bin/env", "--fast"], "cwd": "/usr", "ports": {"http": "auto"}, "env": null, "env_file": null, "start_timeout_s": null, "stop_signal": null, "stop_timeout_s": null,
                "health": {"http": {"port": "http", "path": "/"}}}}),
        ),
    ];
    for (line, method, params) in lines {
        assert_eq!(ground.calls_of(line), [(method.to_owned(), params)], "wharf {line}");
    }
}

#[test]
fn several_names_are_one_call_each_and_a_name_said_twice_is_one() {
    let ground = Ground::answering(|_| error(-32001, "not_found"));
    let calls: BTreeMap<String, usize> =
        ground.calls_of("stop redis hello redis").into_iter().fold(BTreeMap::new(), |mut all, (_, params)| {
            *all.entry(params["name"].as_str().unwrap().to_owned()).or_default() += 1;
            all
        });
    assert_eq!(calls, BTreeMap::from([("hello".into(), 1), ("redis".into(), 1)]));
}

#[test]
fn the_exit_code_is_the_kind_of_the_failure() {
    for (code, kind, exit) in [
        (-32001, "not_found", 3),
        (-32002, "conflict", 4),
        (-32003, "port_taken", 4),
        (-32004, "timeout", 5),
        (-32005, "permission", 7),
        (-32006, "service_failed", 8),
        (-32007, "install_failed", 8),
        (-32008, "precondition", 4),
        (-32009, "storage", 1),
        (-32602, "invalid_params", 2),
        (-32603, "internal", 1),
    ] {
        let kind = kind.to_owned();
        let ground = Ground::answering(move |_| error(code, &kind));
        let output = ground.wharf(&["start", "redis"]);
        assert_eq!(output.status.code(), Some(exit), "{code}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "error: no\n  because that\nhint: do this\n");
        assert!(output.stdout.is_empty());
    }
    let ground = Ground::answering(|_| json!({ "error": { "code": -32601, "message": "Method not found" } }));
    assert_eq!(ground.wharf(&["rpc", "call", "service.no_such"]).status.code(), Some(2));
    let nobody = ground.wharf(&["--socket", "/nowhere/s", "list"]);
    assert_eq!(nobody.status.code(), Some(6));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("hint: `wharf up` starts one"));
    assert_eq!(ground.wharf(&["no-such-verb"]).status.code(), Some(2));
    assert_eq!(ground.wharf(&["start", "../etc"]).status.code(), Some(2));
}

#[test]
fn a_program_reads_one_result_or_an_array_of_them() {
    let ground = Ground::answering(|params| match params["name"].as_str() {
        Some("gone") => error(-32001, "not_found"),
        _ => json!({ "result": { "name": params["name"], "stopped_at": 1.50, "last_exit": null, "duration_ms": 3 } }),
    });
    let read = |args: &[&str]| {
        let output = ground.wharf(args);
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap_or_default();
        (output.status.code(), json(&output.stdout), json(&output.stderr))
    };
    let (exit, result, _) = read(&["stop", "redis", "--json"]);
    assert_eq!((exit, &result["name"]), (Some(0), &json!("redis")));
    let (exit, results, error) = read(&["stop", "redis", "gone", "hello", "--json"]);
    assert_eq!(exit, Some(3));
    assert_eq!((&results[0]["name"], &results[2]["name"]), (&json!("redis"), &json!("hello")));
    assert_eq!(results[1], error);
    assert_eq!(error["error"]["code"], -32001);
    assert_eq!(error["error"]["data"]["causes"], json!(["that"]));
    let (exit, nothing, error) = read(&["stop", "gone", "--json"]);
    assert_eq!((exit, nothing), (Some(3), Value::Null));
    assert_eq!((&error["error"]["kind"], &error["error"]["hint"]), (&json!("not_found"), &json!("do this")));
}

#[test]
fn a_check_that_finds_something_is_exit_code_8() {
    let ground = Ground::answering(|params| {
        json!({ "result": {
            "name": params["name"], "healthy": params["name"] == "hello", "verdict": "unhealthy", "detail": "HTTP 503",
            "state": "running", "checked_at": 1.0, "duration_ms": 0.5
        }})
    });
    assert_eq!(ground.wharf(&["health", "hello"]).status.code(), Some(0));
    assert_eq!(ground.wharf(&["health", "hello", "redis"]).status.code(), Some(8));
}
