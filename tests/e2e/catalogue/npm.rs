//! Services from npm, for real: from install to delete, and what each is for.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use serde_json::{Value, json};
use wharf_tests::{Daemon, cannot, listens};

use super::{get, versions};

/// One that runs, with what a start said. `None`: the registry is not there for everybody.
fn running(daemon: &Daemon, name: &str, with: Value) -> Option<Value> {
    match daemon.call("service.install", json!({ "name": name, "with": with })) {
        Ok(installed) => assert_eq!(installed["source"], "npm", "{installed}"),
        Err(error) if error.to_string().contains("was not reached") => {
            cannot(&format!("{name} is installed from npm"), "a package registry is not reached from here");
            return None;
        }
        Err(error) => panic!("{name}: {error:#}"),
    }
    let started = daemon.ok("service.start", json!({ "name": name }));
    let ports: Vec<u16> = ports(&started);
    assert!(ports.iter().all(|port| listens(*port)), "{name}: {started}");
    let health = daemon.ok("service.health", json!({ "name": name }));
    assert_eq!(health["healthy"], true, "{name}: {health}");
    // With what really listens, and where.
    let verify = daemon.ok("service.verify", json!({ "name": name }));
    assert_eq!(verify["ok"], true, "{name}: {verify:#}");
    Some(started)
}

fn ports(started: &Value) -> Vec<u16> {
    started["ports"].as_object().unwrap().values().map(|port| port.as_u64().unwrap() as u16).collect()
}

/// Stops and deletes it; nothing of it listens, runs or lies there afterwards.
fn gone(daemon: &Daemon, name: &str, started: &Value) {
    let stopped = daemon.ok("service.stop", json!({ "name": name }));
    assert_ne!(stopped["last_exit"]["kind"], "killed", "{name}: {stopped}");
    assert!(!ports(started).iter().any(|port| listens(*port)), "{name} still listens");
    daemon.ok("service.delete", json!({ "name": name, "purge_binaries": true, "purge_data": true }));
    assert_eq!(versions(daemon, name), [] as [String; 0], "{name}");
    assert!(!daemon.home.join("data").join(name).exists(), "{name} has left its data");
}

/// One request with a body; the answer with its head.
fn send(port: u16, method: &str, path: &str, headers: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n{headers}");
    write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    text
}

/// HS-135: three listeners, one health.
#[test]
fn restate_runs_with_its_three_listeners() {
    let daemon = Daemon::start();
    let with = json!({ "ports": { "ingress": "auto", "admin": "auto", "node": "auto" } });
    let Some(started) = running(&daemon, "restate", with) else { return };
    let port = |name: &str| started["ports"][name].as_u64().unwrap() as u16;
    assert!(get(port("admin"), "/version").contains("1.7.12"), "{}", get(port("admin"), "/version"));
    assert!(get(port("ingress"), "/restate/health").starts_with("HTTP/1.1 200"));
    let placed = daemon.home.join("store/restate/current");
    assert!(!placed.join("bin/node").exists(), "no Node runs it");
    gone(&daemon, "restate", &started);
}

/// HS-135: without a folder it says hello, with one it serves that, and what changes in it.
#[test]
fn vite_serves_a_folder_of_ones_own() {
    let daemon = Daemon::start();
    let Some(started) = running(&daemon, "vite-web", json!({ "ports": { "http": "auto" } })) else { return };
    let port = ports(&started)[0];
    assert!(get(port, "/").contains("Vite is running."), "{}", get(port, "/"));
    daemon.ok("service.stop", json!({ "name": "vite-web" }));
    let root = daemon.home.join("shop");
    fs::create_dir_all(&root).unwrap();
    fs::write(root.join("index.html"), "<h1>A shop</h1><script type=module src=/main.ts></script>").unwrap();
    fs::write(root.join("main.ts"), "const price: number = 7\nconsole.log(price)\n").unwrap();
    let with = json!({ "root": root, "ports": { "http": "auto" } });
    let started = daemon.ok("service.start", json!({ "name": "vite-web", "with": with }));
    let port = ports(&started)[0];
    assert!(get(port, "/").contains("A shop") && get(port, "/").contains("/@vite/client"), "{}", get(port, "/"));
    let script = get(port, "/main.ts");
    assert!(script.contains("const price = 7"), "it makes JavaScript of TypeScript: {script}");
    assert_eq!(daemon.ok("service.health", json!({ "name": "vite-web" }))["healthy"], true);
    gone(&daemon, "vite-web", &started);
}

/// HS-135: a greeting of MCP and the list of its tools.
#[test]
fn server_everything_speaks_mcp_and_listens_on_this_machine_alone() {
    let daemon = Daemon::start();
    let with = json!({ "ports": { "main": "auto" } });
    let Some(started) = running(&daemon, "server-everything", with) else { return };
    let port = ports(&started)[0];
    let ask = |session: &str, body: Value| {
        let headers = "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n";
        send(port, "POST", "/mcp", &format!("{headers}{session}"), &body.to_string())
    };
    let client =
        json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
    let welcome = ask("", json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": client }));
    assert!(welcome.contains("serverInfo"), "{welcome}");
    let session = welcome.lines().find(|line| line.to_ascii_lowercase().starts_with("mcp-session-id:")).unwrap();
    let session = format!("{session}\r\n");
    ask(&session, json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
    let tools = ask(&session, json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/list" }));
    assert!(tools.contains("\"echo\""), "{tools}");
    gone(&daemon, "server-everything", &started);
}

/// HS-135: an object that is put is there, as a file too.
#[test]
fn s3rver_keeps_an_object() {
    let daemon = Daemon::start();
    let with = json!({ "buckets": ["pictures"], "ports": { "main": "auto" } });
    let Some(started) = running(&daemon, "s3rver", with) else { return };
    let port = ports(&started)[0];
    assert!(get(port, "/").contains("ListAllMyBucketsResult"), "{}", get(port, "/"));
    assert!(daemon.home.join("data/s3rver/pictures").is_dir(), "the bucket is there from the start");
    gone(&daemon, "s3rver", &started);
}
