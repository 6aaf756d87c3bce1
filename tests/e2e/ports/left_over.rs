//! Left-overs of a daemon before this one: a run that nobody knows any more, and whose process holds a port.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::json;
use wharf_tests::{Daemon, alive, eventually, free_port, listens};

use super::{REUSEADDR, Stranger, listener, unit};

/// The files of this name below a folder.
fn named(folder: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(named(&path, name));
        } else if path.ends_with(name) {
            found.push(path);
        }
    }
    found
}

#[test]
fn jc_63_a_left_over_of_ours_is_named_and_reclaimed_and_nobody_else_is() {
    let mut daemon = Daemon::start();
    let port = free_port();
    unit(&daemon, "worker", port, &listener("127.0.0.1", port, REUSEADDR, ""));
    let holder = daemon.ok("port.whois", json!({ "port": port }))["holders"][0]["pid"].as_i64().unwrap() as i32;
    // The daemon dies, and with it goes what it knew: the journal is lost with what stands beside the run, and the record
    // of the start is cut short.
    daemon.kill_9();
    for path in named(&daemon.home.join("state"), "wharf.db") {
        for end in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{end}", path.display()));
        }
    }
    for path in named(&daemon.home.join("run/runs"), "unit.json") {
        fs::remove_file(path).unwrap();
    }
    let starts = named(&daemon.home.join("run/runs"), "start");
    assert_eq!(starts.len(), 1, "{starts:?}");
    let record = fs::read(&starts[0]).unwrap();
    fs::write(&starts[0], &record[..record.len() / 2]).unwrap();
    daemon.launch();
    let known = daemon.ok("service.list", json!({})).to_string();
    assert!(!known.contains("command@worker"), "{known}\n{}", daemon.log());
    assert!(alive(holder) && listens(port), "nothing is left over: {}", daemon.log());

    // JC-63, as C12 decides it: nobody is killed for a start. It fails at once and says who is in the way, down to pid,
    // program and user, and whether that is one of ours.
    let with = json!({ "argv": ["sleep", "1000"], "ports": { "main": port }, "health": "none" });
    let start = json!({ "name": "command@next", "with": with });
    let error = daemon.err("service.start", start.clone());
    assert_eq!(error["code"], -32003, "JC-63: {error}");
    let message = error["message"].as_str().unwrap();
    let uid = nix::unistd::geteuid().as_raw();
    for word in [format!("pid {holder}"), "python3".into(), format!("uid {uid}")] {
        assert!(message.contains(&word), "JC-63: {word}: {error}");
    }
    let hint = error["data"]["hint"].as_str().unwrap();
    assert!(hint.contains("left-over of ours") && hint.contains(&format!("wharf ports evict {port}")), "{error}");
    assert!(alive(holder), "JC-63: a start has killed somebody");

    let said = daemon.cli_ok(&["ports", "evict", &port.to_string()]);
    assert!(said.out.contains("of command@worker, which is over"), "{}", said.out);
    assert!(said.out.contains(&format!("port {port} is free")), "{}", said.out);
    eventually("the left-over has ended", Duration::from_secs(10), || !alive(holder) && !listens(port));
    daemon.ok("service.start", start);
    daemon.ok("service.stop", json!({ "name": "command@next" }));

    // JC-63: whom Wharf has not started is named the same way, and never reclaimed.
    let stranger = Stranger::begin(Command::new("python3").args(["-c", &listener("127.0.0.1", port, REUSEADDR, "")]));
    let error = daemon.err("service.start", json!({ "name": "command@next" }));
    let (message, hint) = (error["message"].as_str().unwrap(), error["data"]["hint"].as_str().unwrap());
    assert!(message.contains(&format!("pid {}", stranger.pid())) && !hint.contains("evict"), "JC-63: {error}");
    let error = daemon.err("port.evict", json!({ "port": port }));
    assert_eq!(error["code"], -32034, "JC-63: {error}");
    assert!(alive(stranger.pid()), "JC-63: a stranger was ended");
}
