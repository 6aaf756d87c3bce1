//! The real servers, from install to delete: by a person with the CLI, then by a program with curl.
//! The default ports are tried too, so these take turns.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use serde_json::{Value, json};
use wharf_tests::{Daemon, alive, eventually, free_port, listens, processes_with};

/// Downloads and CPU are for one journey at a time.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(|e| e.into_inner())
}

/// How a journey acts: through the CLI, or through curl.
trait Way {
    fn act(&self, daemon: &Daemon, op: &str, name: &str, with: Option<&Value>) -> Value;
}

struct Cli;

impl Way for Cli {
    fn act(&self, daemon: &Daemon, op: &str, name: &str, with: Option<&Value>) -> Value {
        let with = with.map(Value::to_string);
        let mut args = vec!["service", op, name, "--json"];
        if let Some(with) = &with {
            args.extend(["--with-json", with]);
        }
        let result = daemon.cli_ok(&args).json();
        daemon.conforms(&format!("service.{op}"), &json!({ "name": name }), &result);
        result
    }
}

struct Curl;

impl Way for Curl {
    fn act(&self, daemon: &Daemon, op: &str, name: &str, with: Option<&Value>) -> Value {
        let mut params = json!({ "name": name });
        if let Some(with) = with {
            params["with"] = with.clone();
        }
        let call = json!({ "jsonrpc": "2.0", "id": "j", "method": format!("service.{op}"), "params": params });
        let output = Command::new("curl")
            .args(["-sS", "--unix-socket"])
            .arg(daemon.socket())
            .args(["-H", "Content-Type: application/json", "--data-binary", &call.to_string(), "http://wharf/rpc"])
            .output()
            .unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
        assert!(answer.get("error").is_none(), "{op} {name}: {answer:#}\n{}", daemon.log());
        daemon.conforms(&format!("service.{op}"), &call["params"], &answer["result"]);
        answer["result"].clone()
    }
}

/// install → start → health → logs → restart → stop → delete.
fn journey(daemon: &Daemon, way: &dyn Way, name: &str, with: &Value, use_it: &dyn Fn(&BTreeMap<String, u16>)) {
    let installed = way.act(daemon, "install", name, Some(with));
    assert!(installed["version"].is_string() && installed["digest"].as_str().unwrap().len() == 64, "{installed}");
    assert_eq!(way.act(daemon, "install", name, None)["digest"], installed["digest"], "install is repeatable");
    let started = way.act(daemon, "start", name, None);
    let pid = started["pid"].as_i64().unwrap() as i32;
    let ports: BTreeMap<String, u16> = serde_json::from_value(started["ports"].clone()).unwrap();
    assert!(alive(pid) && !ports.is_empty(), "{started}");
    assert!(ports.values().all(|p| listens(*p)), "started is ready: {started}");
    let health = way.act(daemon, "health", name, None);
    assert_eq!(health["healthy"], true, "{health}");
    use_it(&ports);
    let verify = way.act(daemon, "verify", name, None);
    assert_eq!(verify["ok"], true, "{verify:#}");
    assert!(way.act(daemon, "logs", name, None)["lines"].is_array());
    let restarted = way.act(daemon, "restart", name, None);
    let second = restarted["pid"].as_i64().unwrap() as i32;
    assert!(second != pid && alive(second) && !alive(pid), "{restarted}");
    assert!(ports.values().all(|p| listens(*p)));
    let stopped = way.act(daemon, "stop", name, None);
    assert!(!alive(second), "{stopped}");
    assert!(["exited", "signaled"].contains(&stopped["last_exit"]["kind"].as_str().unwrap()), "{stopped}");
    assert!(ports.values().all(|p| !listens(*p)), "it still listens");
    assert_eq!(way.act(daemon, "status", name, None)["state"], "stopped");
    way.act(daemon, "delete", name, None);
    assert_eq!(way.act(daemon, "status", name, None)["state"], "not_installed");
    let ours = processes_with(&format!("WHARF_UNIT={name}"));
    let ours: Vec<i32> = ours.into_iter().filter(|p| environ_has(*p, &daemon.home)).collect();
    assert!(ours.is_empty(), "left over: {ours:?}");
}

fn environ_has(pid: i32, home: &Path) -> bool {
    let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    String::from_utf8_lossy(&environ).contains(&home.display().to_string())
}

fn both_ways(name: &str, with: impl Fn() -> Value, use_it: impl Fn(&BTreeMap<String, u16>)) {
    let _turn = turn();
    let daemon = Daemon::start();
    for way in [&Cli as &dyn Way, &Curl] {
        journey(&daemon, way, name, &with(), &use_it);
    }
}

fn http_get(port: u16, path: &str) -> String {
    http(port, "GET", path, "")
}

fn http(port: u16, method: &str, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json");
    write!(stream, "{head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()).unwrap();
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    text
}

#[test]
fn redis() {
    both_ways(
        "redis",
        || json!({ "ports": { "main": free_port() } }),
        |ports| {
            let mut stream = TcpStream::connect(("127.0.0.1", ports["main"])).unwrap();
            stream.write_all(b"SET boat wharf\r\nGET boat\r\n").unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let mut answer = [0; 64];
            let mut read = 0;
            while !String::from_utf8_lossy(&answer[..read]).contains("wharf") {
                read += stream.read(&mut answer[read..]).unwrap();
            }
        },
    );
}

#[test]
fn caddy() {
    both_ways(
        "caddy",
        || json!({ "ports": { "http": free_port(), "admin": free_port() } }),
        |ports| {
            assert!(http_get(ports["http"], "/").starts_with("HTTP/1.1 200"));
            assert!(http_get(ports["admin"], "/config/").starts_with("HTTP/1.1 200"));
        },
    );
}

#[test]
fn nats() {
    both_ways(
        "nats",
        || json!({ "ports": { "main": free_port(), "monitor": free_port() } }),
        |ports| {
            let mut stream = TcpStream::connect(("127.0.0.1", ports["main"])).unwrap();
            let mut greeting = [0; 4];
            stream.read_exact(&mut greeting).unwrap();
            assert_eq!(&greeting, b"INFO");
        },
    );
}

#[test]
fn postgres_and_its_data_survives_a_delete_without_purge() {
    let _turn = turn();
    let daemon = Daemon::start();
    let port = free_port();
    let with = json!({ "ports": { "main": port } });
    let psql = |sql: &str| -> String {
        let inspect = daemon.ok("service.inspect", json!({ "name": "postgres" }));
        let client = inspect["installed"]["binaries"]["psql"].as_str().map_or_else(|| "psql".to_owned(), str::to_owned);
        let output = Command::new(client)
            .args(["-h", &socket_dir(&daemon), "-p", &port.to_string(), "-U", "postgres", "-Atc", sql])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    for (n, way) in [&Cli as &dyn Way, &Curl].into_iter().enumerate() {
        journey(&daemon, way, "postgres", &with, &|_| {
            psql("CREATE TABLE IF NOT EXISTS boats(name text)");
            psql("INSERT INTO boats VALUES ('kept')");
            // The second journey finds what the first one left behind.
            assert_eq!(psql("SELECT count(*) FROM boats"), (n + 1).to_string());
            let pid = daemon.ok("service.status", json!({ "name": "postgres" }))["pid"].as_i64().unwrap();
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let uid: u32 = status
                .lines()
                .find(|l| l.starts_with("Uid:"))
                .unwrap()
                .split_whitespace()
                .nth(1)
                .unwrap()
                .parse()
                .unwrap();
            assert_ne!(uid, 0, "postgres runs as root");
        });
    }
    let gone = daemon.ok("service.delete", json!({ "name": "postgres", "purge_binaries": true, "purge_data": true }));
    assert_eq!(gone["data_kept_in"], Value::Null, "{gone}");
    assert!(!daemon.home.join("data/postgres").exists() && !daemon.home.join("store/postgres").exists());
}

fn socket_dir(daemon: &Daemon) -> String {
    let mut found = vec![daemon.home.join("units")];
    while let Some(dir) = found.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(".s.PGSQL.") {
                return dir.display().to_string();
            }
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                found.push(entry.path());
            }
        }
    }
    panic!("postgres has no socket below {}", daemon.home.display());
}

#[test]
fn four_python_apis_as_hearthlink_has_them() {
    let _turn = turn();
    let daemon = Daemon::start();
    let names = [("alden", 8888), ("vault", 8001), ("core", 8000), ("synapse", 8002)];
    for way in [&Cli as &dyn Way, &Curl] {
        for (instance, _) in names {
            way.act(&daemon, "install", &format!("python-api@{instance}"), None);
        }
        // HL-35: a port that is taken is found before anything is started.
        for (instance, port) in names {
            let name = format!("python-api@{instance}");
            let started = way.act(&daemon, "start", &name, None);
            assert_eq!(started["ports"].as_object().unwrap().values().next().unwrap(), port, "{started}");
            let body = http_get(port, "/health");
            assert!(body.contains("application/json"), "{body}");
            let health: Value = serde_json::from_str(body.split("\r\n\r\n").nth(1).unwrap().trim())
                .unwrap_or_else(|e| panic!("{e}: {body}"));
            assert_eq!((&health["status"], &health["service"]), (&json!("healthy"), &json!(format!("{instance}-api"))));
            assert_eq!(health["version"], "1.0.0");
            assert!(health["timestamp"].as_str().unwrap().contains('T'));
            let status = way.act(&daemon, "status", &name, None);
            assert_eq!((&status["port"], &status["status"]), (&json!(port), &json!("running")));
            assert_eq!(status["health_check_url"], format!("http://127.0.0.1:{port}/health"));
            assert_eq!(way.act(&daemon, "health", &name, None)["healthy"], true);
            assert_eq!(way.act(&daemon, "verify", &name, None)["ok"], true);
        }
        let key = vault_key(&daemon);
        let kept = http(8001, "PUT", "/memory/boat", "{\"value\":\"wharf\"}");
        assert!(kept.starts_with("HTTP/1.1 20"), "{kept}");
        assert!(http_get(8001, "/memory/boat").contains("wharf"));
        for (instance, port) in names {
            let name = format!("python-api@{instance}");
            way.act(&daemon, "logs", &name, None);
            way.act(&daemon, "restart", &name, None);
            assert!(listens(port));
        }
        assert_eq!(vault_key(&daemon), key, "the key is made once");
        for (instance, port) in names {
            let name = format!("python-api@{instance}");
            way.act(&daemon, "stop", &name, None);
            way.act(&daemon, "delete", &name, None);
            eventually("its port is free", Duration::from_secs(2), || !listens(port));
        }
    }
}

/// The key in the vault's environment; it stands in one 0600 file and in no answer.
fn vault_key(daemon: &Daemon) -> String {
    use std::os::unix::fs::PermissionsExt;
    let status = daemon.ok("service.status", json!({ "name": "python-api@vault" }));
    let environ = fs::read(format!("/proc/{}/environ", status["pid"])).unwrap();
    let environ = String::from_utf8_lossy(&environ).into_owned();
    let key = environ
        .split('\0')
        .find_map(|v| v.strip_prefix("HEARTHLINK_VAULT_KEY="))
        .expect("the vault has its key")
        .to_owned();
    assert!(key.len() >= 32);
    let holders: Vec<_> = fs::read_dir(daemon.home.join("secrets"))
        .unwrap()
        .flatten()
        .filter(|e| fs::read_to_string(e.path()).is_ok_and(|t| t.contains(&key)))
        .collect();
    assert_eq!(holders.len(), 1);
    assert_eq!(holders[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);
    for method in ["service.inspect", "service.troubleshoot", "service.logs"] {
        let answer = daemon.ok(method, json!({ "name": "python-api@vault" }));
        assert!(!answer.to_string().contains(&key), "{method} shows the key");
    }
    key
}

#[test]
fn an_upgrade_runs_the_newer_version() {
    let _turn = turn();
    let daemon = Daemon::start();
    let with = json!({ "ports": { "http": free_port(), "admin": free_port() } });
    let newest = daemon.ok("service.install", json!({ "name": "caddy", "with": with }))["version"].clone();
    let error = daemon.err("service.install", json!({ "name": "caddy", "version": "0.0.1" }));
    let offered = format!("{} {}", error["message"], error["data"]);
    let older = offered
        .split(|c: char| !c.is_ascii_digit() && c != '.')
        .find(|v| v.matches('.').count() == 2 && *v != newest && *v != "0.0.1")
        .unwrap_or_else(|| panic!("no older version is on offer: {error}"))
        .to_owned();
    daemon.ok("service.install", json!({ "name": "caddy", "version": older }));
    daemon.ok("service.start", json!({ "name": "caddy" }));
    let before = daemon.ok("service.status", json!({ "name": "caddy" }));
    assert_eq!(before["version"], older);
    let report = daemon.ok("service.upgrade", json!({ "name": "caddy" }));
    assert_eq!((&report["from"], &report["to"], &report["changed"]), (&json!(older), &newest, &json!(true)));
    let after = daemon.ok("service.status", json!({ "name": "caddy" }));
    assert_eq!((&after["state"], &after["version"]), (&json!("running"), &newest));
    assert_ne!(before["pid"], after["pid"]);
    assert_eq!(daemon.ok("service.upgrade", json!({ "name": "caddy" }))["changed"], false);
    assert_eq!(
        daemon.ok("service.status", json!({ "name": "caddy" }))["pid"],
        after["pid"],
        "nothing newer, nothing stopped"
    );
}

/// The daemon is killed at several moments of an install: what was there still starts, the next try
/// succeeds, and nothing half placed is left.
#[test]
fn an_install_survives_being_killed_at_any_moment_and_can_be_repeated() {
    let _turn = turn();
    let mut daemon = Daemon::start();
    let with = json!({ "ports": { "main": "auto", "monitor": "auto" } });
    for delay_ms in [30, 300, 900, 1500, 2200] {
        let params = json!({ "name": "nats", "reset": true, "wait": false, "with": with });
        daemon.ok("service.install", params);
        std::thread::sleep(Duration::from_millis(delay_ms));
        daemon.kill_9();
        daemon.launch();
        let state = daemon.state("nats");
        assert!(["not_installed", "stopped"].contains(&state.as_str()), "{state}");
        if state == "stopped" {
            daemon.ok("service.start", json!({ "name": "nats" }));
            daemon.ok("service.stop", json!({ "name": "nats" }));
        }
    }
    daemon.ok("service.install", json!({ "name": "nats", "reset": true, "with": with }));
    daemon.ok("service.start", json!({ "name": "nats" }));
    assert_eq!(daemon.ok("service.verify", json!({ "name": "nats" }))["ok"], true);
    let staging = fs::read_dir(daemon.home.join("store/.staging")).map(|d| d.count()).unwrap_or(0);
    assert_eq!(staging, 0, "a staging folder is left over");
    let ops = daemon.ok("service.inspect", json!({ "name": "nats" }))["recent_ops"].clone();
    assert!(ops.as_array().unwrap().iter().all(|op| op["outcome"] != "running"), "{ops:#}");
}

#[test]
fn what_is_placed_and_changed_afterwards_is_found_by_verify() {
    let _turn = turn();
    let daemon = Daemon::start();
    let installed = daemon.ok("service.install", json!({ "name": "nats" }));
    assert_eq!(daemon.ok("service.verify", json!({ "name": "nats" }))["ok"], true);
    let binary = installed["installed_paths"][0].as_str().unwrap().to_owned();
    let mut bytes = fs::read(&binary).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&binary, bytes).unwrap();
    let verify = daemon.ok("service.verify", json!({ "name": "nats" }));
    assert_eq!(verify["ok"], false, "{verify:#}");
    daemon.ok("service.install", json!({ "name": "nats", "reset": true }));
    assert_eq!(daemon.ok("service.verify", json!({ "name": "nats" }))["ok"], true);
}
