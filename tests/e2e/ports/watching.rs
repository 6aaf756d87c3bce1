//! `port.watch`: who comes, who goes, and what is wrong, as it happens.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    process::Stdio,
    time::Duration,
};

use serde_json::{Value, json};
use wharf_tests::{Daemon, free_port};

use super::{REUSEADDR, Stranger, listener, newest, told, unit};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn who_comes_and_who_goes_on_a_port_that_somebody_has_is_told() {
    let mut daemon = Daemon::start();
    let (own, declared, nobodys) = (free_port(), free_port(), free_port());
    unit(&daemon, "web", own, &listener("127.0.0.1", own, REUSEADDR, ""));
    let (event, _) = told(&daemon, "port.appeared", own, 0, SOON);
    assert_eq!((&event["unit"], &event["address"]), (&json!("command@web"), &json!("127.0.0.1")), "{event}");
    daemon.ok("port.declare", json!({ "service": "grafana", "port": declared }));
    let _unseen = TcpListener::bind(("127.0.0.1", nobodys)).unwrap();
    let server = Stranger::python(&listener("127.0.0.1", declared, REUSEADDR, ""));
    let (event, _) = told(&daemon, "port.appeared", declared, 0, SOON);
    assert!(event["text"].as_str().unwrap().contains(&format!("pid {}", server.pid())), "{event}");
    let pid = server.pid();
    drop(server);
    let (event, _) = told(&daemon, "port.vanished", declared, 0, SOON);
    assert!(event["text"].as_str().unwrap().contains(&format!("pid {pid}")), "{event}");
    // A stop of the last unit that has a port is told, too.
    daemon.ok("port.undeclare", json!({ "service": "grafana" }));
    let since = newest(&daemon);
    daemon.ok("service.stop", json!({ "name": "command@web" }));
    let (event, _) = told(&daemon, "port.vanished", own, since, SOON);
    assert_eq!(event["unit"], "command@web", "{event}");
    // What nobody has is nobody's news, and neither is who was there before this life of the daemon.
    daemon.ok("service.start", json!({ "name": "command@web" }));
    told(&daemon, "port.appeared", own, since, SOON);
    daemon.kill_9();
    daemon.launch();
    let second = free_port();
    unit(&daemon, "second", second, &listener("127.0.0.1", second, REUSEADDR, ""));
    told(&daemon, "port.appeared", second, 0, SOON);
    let all = daemon.ok("port.watch", json!({ "since": 0 }));
    let ports: Vec<&Value> = all["events"].as_array().unwrap().iter().map(|event| &event["port"]).collect();
    assert!(ports.iter().all(|port| **port == second), "{all:#}");
}

#[test]
fn the_stream_has_ports_alone_and_those_that_were_asked_for() {
    let daemon = Daemon::start();
    let (one, other) = (free_port(), free_port());
    for (name, port) in [("one", one), ("other", other)] {
        unit(&daemon, name, port, &listener("127.0.0.1", port, REUSEADDR, ""));
        told(&daemon, "port.appeared", port, 0, SOON);
    }
    let all = daemon.ok("port.watch", json!({ "since": 0 }));
    let events = all["events"].as_array().unwrap();
    assert!(events.iter().all(|event| event["kind"].as_str().unwrap().starts_with("port.")), "{all:#}");
    assert!(events.iter().any(|event| event["port"] == other), "{all:#}");
    let only = daemon.ok("port.watch", json!({ "since": 0, "ports": [one] }));
    assert!(only["events"].as_array().unwrap().iter().all(|event| event["port"] == one), "{only:#}");
    let none = daemon.ok("port.watch", json!({ "since": 0, "units": ["redis"] }));
    assert_eq!(none["events"], json!([]));
    let error = daemon.err("port.watch", json!({ "kinds": ["unit.phase"] }));
    assert_eq!(error["code"], -32602, "{error}");
    // Followed, as a person does.
    let mut command = daemon.command();
    command.args(["ports", "watch", "--since", "0", "--json", &one.to_string()]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["kind"], "port.appeared");
    daemon.ok("service.stop", json!({ "name": "command@one" }));
    let event = next();
    assert_eq!((&event["kind"], &event["port"]), (&json!("port.vanished"), &json!(one)), "{event}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_unit_that_runs_and_does_not_listen_is_told_after_a_while() {
    let daemon = Daemon::start();
    let port = free_port();
    let with = json!({ "argv": ["sleep", "1000"], "ports": { "main": port }, "health": "none" });
    daemon.run("mute", with);
    let (event, took) = told(&daemon, "port.drift", port, 0, Duration::from_secs(40));
    assert_eq!((&event["drift"], &event["unit"]), (&json!("not_listening"), &json!("command@mute")), "{event}");
    assert!(took > Duration::from_secs(5), "it had no time to begin: {took:?}");
    assert!(event["fix"].as_str().unwrap().contains("wharf logs command@mute"), "{event}");
    // Two units that declare one port take turns.
    let with = json!({ "argv": ["sleep", "1000"], "ports": { "main": port }, "health": "none" });
    let error = daemon.err("service.start", json!({ "name": "command@twin", "with": with }));
    assert_eq!(error["code"], -32003, "{error}");
    let (event, _) = told(&daemon, "port.drift", port, event["seq"].as_u64().unwrap(), Duration::from_secs(20));
    assert_eq!(event["drift"], "declared_twice", "{event}");
}
