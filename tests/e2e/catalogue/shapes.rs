//! Shapes of services, a real one each: what brings another up first, what shares a library or its programs with
//! another, what runs many times from one file, what is never started.

use std::{path::Path, process::Command, time::Duration};

use serde_json::{Value, json};
use wharf_tests::{Daemon, eventually, listens};

use super::{get, placed, versions};

const SOON: Duration = Duration::from_secs(60);

/// HS-102: a start brings up what its service's code needs, which is installed with it, and finds where it listens.
#[test]
fn prometheus_brings_node_exporter_up_first() {
    let daemon = Daemon::start();
    daemon.ok("service.install", json!({ "name": "node-exporter", "with": { "ports": { "main": "auto" } } }));
    daemon.ok("service.delete", json!({ "name": "node-exporter" }));
    assert_eq!(daemon.state("node-exporter"), "not_installed");
    let with = json!({ "machine": true, "every_s": 1, "ports": { "main": "auto" } });
    daemon.ok("service.install", json!({ "name": "prometheus", "with": with }));
    assert_eq!(daemon.state("node-exporter"), "stopped", "what it needs is installed with it");
    // Not the usual number: it must be found.
    daemon.ok("service.install", json!({ "name": "node-exporter", "with": { "ports": { "main": "auto" } } }));
    let started = daemon.ok("service.start", json!({ "name": "prometheus" }));
    let node = daemon.ok("service.status", json!({ "name": "node-exporter" }));
    assert_eq!(node["state"], "running", "HS-102: {node}");
    assert!(node["started_at"].as_f64() < started["started_at"].as_f64(), "first: {node} {started}");
    let port = started["ports"]["main"].as_u64().unwrap() as u16;
    let asks = format!("\"127.0.0.1:{}\"", node["port"]);
    eventually("it has asked node-exporter", SOON, || {
        let body = get(port, "/api/v1/query?query=up%7Bjob=%22node%22%7D");
        body.contains(&asks) && body.contains(",\"1\"]")
    });
    // What is needed goes last.
    daemon.ok("service.stop", json!({ "name": "prometheus" }));
    assert_eq!(daemon.state("node-exporter"), "running", "it is stopped by whoever wants that");
}

/// HS-104: a child that is a service of its own runs its mother's program, which lies in the store once.
#[test]
fn the_proxy_of_etcd_is_a_child_with_its_mothers_programs() {
    let daemon = Daemon::start();
    daemon.ok("service.install", json!({ "name": "etcd@a" }));
    let with = json!({ "of": "etcd@a", "ports": { "client": "auto" } });
    daemon.ok("service.install", json!({ "name": "etcd-proxy", "with": with }));
    let child = daemon.ok("service.start", json!({ "name": "etcd-proxy" }));
    assert_eq!(daemon.state("etcd@a"), "running", "HS-102: the mother comes first");
    assert_eq!(versions(&daemon, "etcd").len(), 1);
    assert_eq!(versions(&daemon, "etcd-proxy"), [] as [String; 0], "HS-104: nothing is placed twice");
    assert_eq!(placed(&daemon, "etcd-proxy", "etcd"), placed(&daemon, "etcd@a", "etcd"));
    let ctl = placed(&daemon, "etcd@a", "etcdctl");
    let say = |port: &Value, words: &[&str]| {
        let output = Command::new(&ctl)
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints=127.0.0.1:{port}"))
            .args(words)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    say(&child["ports"]["client"], &["put", "boat", "wharf"]);
    let mother = daemon.ok("service.status", json!({ "name": "etcd@a" }));
    assert!(say(&mother["ports"]["client"], &["get", "boat"]).contains("wharf"), "it went through");
    // The mother's programs stay as long as a child uses them.
    daemon.ok("service.stop", json!({ "name": "etcd-proxy" }));
    daemon.ok("service.delete", json!({ "name": "etcd@a", "purge_binaries": true }));
    assert_eq!(versions(&daemon, "etcd").len(), 1, "its child still has them");
    assert_eq!(daemon.ok("service.verify", json!({ "name": "etcd-proxy" }))["ok"], true);
}

/// Sends or reads a message by a broker's own socket.
fn client(program: &Path, socket: &Path, words: &[&str]) -> String {
    let libraries = program.ancestors().nth(2).unwrap().join("lib");
    let folders: Vec<String> =
        std::fs::read_dir(libraries).into_iter().flatten().flatten().map(|e| e.path().display().to_string()).collect();
    let output = Command::new(program)
        .env("LD_LIBRARY_PATH", folders.join(":"))
        .arg("--unix")
        .arg(socket)
        .args(["-t", "boats"])
        .args(words)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// HS-105: any number of them from one file, each with its own port, socket and data. What is only placed is not started.
#[test]
fn two_brokers_from_one_file_share_nothing_but_their_program() {
    let daemon = Daemon::start();
    daemon.ok("service.install", json!({ "name": "mosquitto-clients" }));
    let error = daemon.err("service.start", json!({ "name": "mosquitto-clients" }));
    assert!(error["message"].as_str().unwrap().contains("nothing to start"), "HS-86: {error}");
    assert_eq!(daemon.state("mosquitto-clients"), "stopped", "nobody tries it again and again");
    let mut ports = vec![];
    for name in ["mosquitto@home", "mosquitto@boat"] {
        daemon.ok("service.install", json!({ "name": name }));
        let started = daemon.ok("service.start", json!({ "name": name }));
        ports.push(started["ports"]["main"].as_u64().unwrap() as u16);
    }
    assert!(ports[0] != ports[1] && ports.iter().all(|port| listens(*port)), "HS-105: {ports:?}");
    assert_eq!(versions(&daemon, "mosquitto").len(), 1);
    let socket = |name: &str| daemon.home.join("units").join(name).join("mosquitto.sock");
    let (send, read) =
        (placed(&daemon, "mosquitto-clients", "mosquitto_pub"), placed(&daemon, "mosquitto-clients", "mosquitto_sub"));
    client(&send, &socket("mosquitto@home"), &["-m", "ahoy", "-r"]);
    assert_eq!(client(&read, &socket("mosquitto@home"), &["-C", "1", "-W", "10"]), "ahoy");
    assert_eq!(client(&read, &socket("mosquitto@boat"), &["-C", "1", "-W", "1"]), "", "the other heard nothing");
}

/// HS-103: a library is placed once, with the first service that rests on it, and found by both.
#[test]
fn two_services_share_one_library_that_is_placed_once() {
    let daemon = Daemon::start();
    daemon.ok("service.install", json!({ "name": "piper" }));
    assert_eq!(daemon.state("onnxruntime"), "stopped", "it came along");
    let library = placed(&daemon, "onnxruntime", "libonnxruntime_providers_shared.so");
    daemon.ok("service.install", json!({ "name": "whisper", "with": { "ports": { "main": "auto" } } }));
    assert_eq!(versions(&daemon, "onnxruntime").len(), 1, "HS-103");
    assert_eq!(placed(&daemon, "onnxruntime", "libonnxruntime_providers_shared.so"), library);
    for service in ["piper", "whisper"] {
        let python = placed(&daemon, service, "python");
        let own = python.ancestors().nth(2).unwrap().join("lib");
        let listed = Command::new("find").arg(own).args(["-name", "onnxruntime"]).output().unwrap();
        assert!(listed.stdout.is_empty(), "{service} has one of its own: {listed:?}");
    }
    // faster_whisper imports it at once.
    let started = daemon.ok("service.start", json!({ "name": "whisper" }));
    let port = started["ports"]["main"].as_u64().unwrap() as u16;
    assert!(get(port, "/v1/models").contains("base"));
    let pid = started["pid"].as_i64().unwrap();
    let folder = library.ancestors().nth(3).unwrap().display().to_string();
    let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert!(String::from_utf8_lossy(&environ).contains(&format!("PYTHONPATH={folder}")), "it is this one");
    let error = daemon.err("service.start", json!({ "name": "piper" }));
    assert!(error["message"].as_str().unwrap().contains("no voice"), "{error}");
    let voice = daemon.home.join("silence.onnx");
    let script = wharf_tests::root().join("tests/e2e/catalogue/silence.py");
    assert!(Command::new("python3").arg(script).arg(&voice).status().unwrap().success());
    let with = json!({ "voice": voice, "ports": { "main": "auto" } });
    let started = daemon.ok("service.start", json!({ "name": "piper", "with": with }));
    let port = started["ports"]["main"].as_u64().unwrap() as u16;
    let url = format!("http://127.0.0.1:{port}/synthesize");
    let said = Command::new("curl").args(["-sf", "--json", "{\"text\": \"ahoy\"}", &url]).output().unwrap();
    assert!(said.stdout.starts_with(b"RIFF") && said.stdout.len() > 5_512, "the library computes: {:?}", said.status);
}
