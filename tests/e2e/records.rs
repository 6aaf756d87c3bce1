//! What was asked for is written down: operations in their log, and a line before and a line after each
//! call that changes something.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::unix::{fs::symlink, net::UnixStream},
    time::Duration,
};

use serde_json::{Value, json};
use wharf_api::Class;
use wharf_tests::{Daemon, eventually, post, request, wharf_binary};

fn sleeper(daemon: &Daemon, name: &str) {
    daemon.run(name, json!({ "argv": ["sleep", "1000"] }));
}

fn audit(daemon: &Daemon) -> Vec<Value> {
    let text = fs::read_to_string(daemon.home.join("state/audit.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// The lines of calls, by the number of the call.
fn calls(daemon: &Daemon) -> BTreeMap<u64, Vec<Value>> {
    let mut calls = BTreeMap::<u64, Vec<Value>>::new();
    for line in audit(daemon) {
        if let Some(call) = line["call"].as_u64() {
            calls.entry(call).or_default().push(line);
        }
    }
    calls
}

#[test]
fn every_call_that_changes_something_leaves_two_lines_and_no_other_leaves_one() {
    let daemon = Daemon::start();
    let canary = "canary-4711";
    let with = json!({ "argv": ["sh", "-c", "sleep 1000", "sh", "--password", canary], "env": { "PLAIN": canary } });
    daemon.ok("service.start", json!({ "name": "command@a", "with": with }));
    let before = calls(&daemon).len();
    assert_eq!(before, 1);
    let mut changing = 0;
    for (socket, methods) in
        [(daemon.socket(), wharf_api::service_methods()), (daemon.rpc_socket(), wharf_api::rpc_methods())]
    {
        for method in methods {
            let changes = matches!(method.class, Class::Control | Class::Install);
            // One that can be done or not, and one that nobody can read.
            for params in [json!({ "name": "command@a" }), json!({ "what": "is this" })] {
                let follows = ["service.logs", "event.watch"].contains(&method.name);
                if follows && params.get("name").is_some() {
                    continue;
                }
                let call = json!({ "jsonrpc": "2.0", "id": 1, "method": method.name, "params": params }).to_string();
                let head = "POST /rpc HTTP/1.1\r\nContent-Type: application/json\r\nX-Client-Id: tests";
                request(&socket, head, &call).unwrap();
                changing += usize::from(changes);
                let all = calls(&daemon);
                assert_eq!(all.len(), before + changing, "{} {params}", method.name);
                if !changes {
                    continue;
                }
                let (_, lines) = all.last_key_value().unwrap();
                let [begin, end] = &lines[..] else { panic!("{}: {lines:#?}", method.name) };
                assert_eq!((&begin["line"], &end["line"]), (&json!("begin"), &json!("end")));
                assert_eq!((&begin["method"], &begin["client"]), (&json!(method.name), &json!("tests")));
                assert_eq!(begin["pid"].as_u64(), Some(std::process::id().into()));
                assert!(begin["uid"].is_u64() && begin["gid"].is_u64() && begin["boot_ms"].is_u64());
                let outcome = end["outcome"].as_str().unwrap();
                assert!(matches!(outcome, "ok" | "error"), "{end}");
                assert_eq!(outcome == "error", end["code"].is_i64(), "{end}");
            }
        }
    }
    assert!(changing >= 14, "{changing} calls");
    let first = calls(&daemon).into_iter().next().unwrap().1;
    assert_eq!((&first[0]["before"]["run"], &first[1]["after"]["phase"]), (&Value::Null, &json!("running")));
    for name in ["audit.jsonl", "ops.jsonl"] {
        let path = daemon.home.join("state").join(name);
        assert!(!fs::read_to_string(&path).unwrap().contains(canary), "{name} has the secret");
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_unit_that_calls_is_named() {
    let daemon = Daemon::start();
    sleeper(&daemon, "victim");
    let script =
        format!("{} --socket {} stop command@victim; sleep 1000", wharf_binary().display(), daemon.socket().display());
    daemon.run("caller", json!({ "argv": ["sh", "-c", script] }));
    eventually("the unit has stopped the other", Duration::from_secs(10), || {
        daemon.state("command@victim") == "stopped"
    });
    let stops: Vec<Value> = audit(&daemon).into_iter().filter(|line| line["method"] == "service.stop").collect();
    assert_eq!(
        (stops.len(), &stops[0]["caller"], &stops[0]["unit"]),
        (1, &json!("command@caller"), &json!("command@victim"))
    );
    let starts: Vec<Value> = audit(&daemon).into_iter().filter(|line| line["method"] == "service.start").collect();
    assert!(starts.iter().all(|line| line["caller"].is_null()), "{starts:#?}");
}

#[test]
fn a_call_that_a_kill_cut_off_is_closed_as_unknown() {
    let mut daemon = Daemon::start();
    let with = json!({ "argv": ["sleep", "1000"], "health": { "exec": ["false"] } });
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "service.start", "params": { "name": "command@never", "with": with } });
    let socket = daemon.socket();
    let asking = std::thread::spawn(move || post(&socket, &call.to_string()));
    eventually("the call has its first line", Duration::from_secs(10), || calls(&daemon).len() == 1);
    daemon.kill_9();
    let _ = asking.join().unwrap();
    assert_eq!(calls(&daemon).into_values().map(|lines| lines.len()).collect::<Vec<_>>(), [1]);
    for _ in 0..2 {
        daemon.launch();
        let lines = calls(&daemon).into_values().next().unwrap();
        assert_eq!((lines.len(), &lines[1]["outcome"]), (2, &json!("unknown")), "closed, and once");
        daemon.terminate();
    }
    daemon.launch();
    let ops = daemon.ok("op.list", json!({ "unit": "command@never", "all": true }));
    let outcomes: Vec<&Value> = ops["operations"].as_array().unwrap().iter().map(|op| &op["outcome"]).collect();
    assert!(outcomes.contains(&&json!("interrupted")), "{ops:#}");
}

#[test]
fn a_caller_that_leaves_is_written_down_too() {
    let daemon = Daemon::start();
    let with = json!({ "argv": ["sleep", "1000"], "health": { "exec": ["false"] } });
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "service.start", "params": { "name": "command@never", "with": with } }).to_string();
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    let head = "POST /rpc HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: ";
    stream.write_all(format!("{head}{}\r\n\r\n{call}", call.len()).as_bytes()).unwrap();
    eventually("it has its first line", Duration::from_secs(10), || calls(&daemon).len() == 1);
    drop(stream);
    eventually("it has its second line", Duration::from_secs(10), || {
        calls(&daemon).into_values().next().is_some_and(|lines| lines.len() == 2 && lines[1]["outcome"] == "left")
    });
}

#[test]
fn files_that_cannot_be_written_hold_nothing_up() {
    let mut daemon = Daemon::prepare();
    let state = daemon.home.join("state");
    fs::create_dir_all(&state).unwrap();
    for name in ["audit.jsonl", "ops.jsonl"] {
        symlink("/dev/full", state.join(name)).unwrap();
    }
    daemon.launch();
    sleeper(&daemon, "a");
    daemon.ok("service.stop", json!({ "name": "command@a" }));
    assert_eq!(daemon.state("command@a"), "stopped");
    let log = daemon.log();
    let said = |what: &str| log.lines().filter(|line| line.contains(what)).count();
    assert_eq!(
        (said("the audit log cannot be written"), said("the log of operations cannot be written")),
        (1, 1),
        "{log}"
    );
    // With room again the next daemon adds the operations, and says how many lines are missing… to itself alone.
    daemon.terminate();
    for name in ["audit.jsonl", "ops.jsonl"] {
        fs::remove_file(state.join(name)).unwrap();
    }
    daemon.launch();
    let kept = fs::read_to_string(state.join("ops.jsonl")).unwrap();
    let kinds: Vec<Value> = kept.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["kind"].clone()).collect();
    assert_eq!(kinds, ["start", "stop"]);
}

#[test]
fn operations_are_listed_and_outlive_their_unit() {
    let daemon = Daemon::start();
    sleeper(&daemon, "a");
    sleeper(&daemon, "b");
    for _ in 0..40 {
        daemon.ok("service.restart", json!({ "name": "command@a" }));
    }
    let ids = |params: Value| -> Vec<u64> {
        let list = daemon.ok("op.list", params);
        list["operations"].as_array().unwrap().iter().map(|op| op["id"].as_u64().unwrap()).collect()
    };
    assert_eq!(ids(json!({ "unit": "command@a" })).len(), 32);
    assert_eq!(ids(json!({ "unit": "command@a", "all": true })).len(), 41);
    assert_eq!(ids(json!({})).len(), 33);
    let newest = daemon.ok("op.list", json!({ "limit": 1 }));
    assert_eq!((&newest["operations"][0]["kind"], &newest["more"]), (&json!("restart"), &json!(true)));
    daemon.ok("service.delete", json!({ "name": "command@a" }));
    let all = ids(json!({ "all": true }));
    assert_eq!(all.len(), 43, "one delete more, and none is lost");
    assert!(all.is_sorted_by(|a, b| a > b), "{all:?}");
    let table = daemon.cli_ok(&["ops", "--all", "-n", "3"]).out;
    assert!(table.contains("command@a") && table.contains("delete") && table.lines().count() == 4, "{table}");
    assert_eq!(
        daemon.cli_ok(&["ops", "command@b", "--json"]).json(),
        daemon.ok("op.list", json!({ "unit": "command@b" }))
    );
    assert_eq!(daemon.err("op.list", json!({ "unit": "reddis" }))["code"], -32001);
    assert_eq!(daemon.cli(&["ops", "reddis"]).code, 3);
}
