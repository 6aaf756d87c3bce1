//! The catalogue: real servers of Debian, of PyPI and of npm, those of releases by stand-ins, the shapes that services come in, and the page that lists them.

mod machine;
mod npm;
mod shapes;
mod stand_ins;

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    time::Duration,
};

use serde_json::{Value, json};
use wharf_tests::{Daemon, listens, root};

/// An answer's body; empty where nobody answers.
fn get(port: u16, path: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return String::new() };
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    let mut text = String::new();
    if stream.write_all(head.as_bytes()).is_ok() {
        let _ = stream.read_to_string(&mut text);
    }
    text
}

/// Where a program of a unit is placed.
fn placed(daemon: &Daemon, unit: &str, program: &str) -> PathBuf {
    let found = daemon.ok("service.inspect", json!({ "name": unit }));
    PathBuf::from(
        found["installed"]["binaries"][program].as_str().unwrap_or_else(|| panic!("{unit} has no {program}: {found}")),
    )
}

/// The versions that lie in the store of a service.
fn versions(daemon: &Daemon, service: &str) -> Vec<String> {
    let Ok(folder) = fs::read_dir(daemon.home.join("store").join(service)) else { return vec![] };
    let is_version = |entry: &fs::DirEntry| entry.file_type().unwrap().is_dir();
    folder.flatten().filter(is_version).map(|entry| entry.file_name().into_string().unwrap()).collect()
}

/// HS-135, HS-140: code that compiles is not a service that runs.
#[test]
fn four_servers_of_debian_from_install_to_delete() {
    let daemon = Daemon::start();
    for (name, ports, version) in [
        ("etcd", json!({ "client": "auto", "peer": "auto" }), "3.4"),
        ("node-exporter", json!({ "main": "auto" }), "1.5"),
        ("prometheus", json!({ "main": "auto" }), "2.42"),
        ("mosquitto", json!({ "main": "auto" }), "2.0"),
    ] {
        let installed = daemon.ok("service.install", json!({ "name": name, "with": { "ports": ports } }));
        assert!(!version.is_empty() && installed["version"].is_string(), "{installed}");
        let started = daemon.ok("service.start", json!({ "name": name }));
        let ports: Vec<u16> =
            started["ports"].as_object().unwrap().values().map(|p| p.as_u64().unwrap() as u16).collect();
        assert!(ports.iter().all(|port| listens(*port)), "{name}: {started}");
        let health = daemon.ok("service.health", json!({ "name": name }));
        assert_eq!(health["healthy"], true, "{name}: {health}");
        match name {
            "node-exporter" => assert!(get(ports[0], "/metrics").contains("node_cpu_seconds_total")),
            "prometheus" => assert!(get(ports[0], "/api/v1/query?query=up").contains("\"status\":\"success\"")),
            "mosquitto" => assert_eq!(health["detail"], "takes MQTT connections"),
            _ => assert!(get(ports[0], "/version").contains("etcdserver"), "{name}"),
        }
        let verify = daemon.ok("service.verify", json!({ "name": name }));
        assert_eq!(verify["ok"], true, "{name}: {verify:#}");
        let stopped = daemon.ok("service.stop", json!({ "name": name }));
        assert_ne!(stopped["last_exit"]["kind"], "killed", "{name}: {stopped}");
        assert!(!ports.iter().any(|port| listens(*port)), "{name} still listens");
        daemon.ok("service.delete", json!({ "name": name, "purge_binaries": true }));
        assert_eq!(versions(&daemon, name), [] as [String; 0], "{name}");
    }
}

/// HS-138, HS-140: the page says of each service that there is whether it was seen to work, when and how.
#[test]
fn the_page_of_the_catalogue_is_what_the_program_says() {
    let said = Daemon::prepare().cli_ok(&["catalogue-page"]).out;
    let kept = fs::read_to_string(root().join("docs/catalogue.md")).unwrap();
    assert!(kept == said, "docs/catalogue.md is old: cargo xtask docs");
    let head = kept.split("## What was seen").next().unwrap();
    let mut listed: Vec<&str> = head.lines().filter_map(|l| l.strip_prefix("| `")?.split('`').next()).collect();
    let catalogue = wharf_services::Catalogue::built_in();
    let mut known: Vec<&str> = catalogue.names().collect();
    listed.sort_unstable();
    known.sort_unstable();
    assert_eq!(listed, known, "exactly the services of the catalogue");
    for name in ["etcd", "prometheus", "node-exporter", "mosquitto", "redis", "caddy"] {
        let row = head.lines().find(|l| l.starts_with(&format!("| `{name}` |"))).unwrap();
        assert!(
            row.trim_end_matches(" |").rsplit("| ").next().unwrap().starts_with("20"),
            "{name} was never tried: {row}"
        );
    }
}

/// What is known of a service is known without a daemon, and says the same with one.
#[test]
fn services_are_found_by_words_and_told_before_they_are_installed() {
    let mut daemon = Daemon::prepare();
    let found = daemon.cli_ok(&["search", "mqtt", "--json"]).json();
    let names: Vec<&str> = found.as_array().unwrap().iter().map(|f| f["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["mosquitto", "mosquitto-clients"]);
    assert!(daemon.cli_ok(&["search", "speech", "text"]).out.contains("whisper"));
    assert!(daemon.cli_ok(&["search", "nothing-like-it"]).out.is_empty());
    let without = daemon.cli_ok(&["info", "vllm", "--json"]).json();
    daemon.launch();
    let with = daemon.cli_ok(&["info", "vllm", "--json"]).json();
    assert_eq!(without, with);
    assert_eq!(with["needs"], json!(["linux-x86_64", "a GPU of NVIDIA"]));
    let text = daemon.cli_ok(&["info", "mosquitto"]).out;
    for part in ["Debian package mosquitto", "main 1883", "MQTT CONNECT on main", "to be ready", "cannot"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(daemon.cli_ok(&["info", "command"]).out.contains("Any program"), "a template is told too");
    assert_ne!(daemon.cli(&["info", "no-such-service"]).code, 0);
    let inspected: Value = daemon.ok("service.inspect", json!({ "name": "mosquitto" }));
    assert_eq!(inspected["definition"]["health"], "MQTT CONNECT on main");
}
