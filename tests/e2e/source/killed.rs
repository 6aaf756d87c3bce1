//! T43: killed at every step of an install, the old version starts, the next install succeeds, and nothing is left.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use serde_json::{Value, json};
use wharf_runtime::FAULT_POINTS;
use wharf_tests::{Daemon, Forge, ReleaseServer, alive, eventually, free_port, post, stand_in, tar_gz};

use super::{fetch, with_sources};

fn daemon_at(home: &Path, server: &ReleaseServer) -> Daemon {
    Daemon::at(home).with_binary(env!("CARGO_BIN_EXE_wharf-with-sources")).with_env("WHARF_MIRRORS", &server.mirrors())
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn t43_killed_at_any_step_the_old_version_starts_and_the_next_install_succeeds() {
    let server = ReleaseServer::start();
    let repo = server.forge(Forge::GitHub, "them", "thing");
    for version in ["1", "2"] {
        let about = format!("version {version}\n").into_bytes();
        let files = [("thing/thing", stand_in()), ("thing/about", about)];
        repo.release(&format!("v{version}")).asset("thing.tar.gz", tar_gz(&files)).checksums("SHA256SUMS");
    }
    for point in FAULT_POINTS {
        let ground = with_sources();
        let port = free_port();
        let with = json!({
            "from": "github", "of": "them/thing", "assets": ["thing.tar.gz"], "binaries": ["thing"],
            "ports": { "main": port },
        });
        let install = |version: &str| json!({ "name": "thing", "with": with, "version": version });
        let mut daemon = daemon_at(&ground.home, &server);
        daemon.launch();
        daemon.ok("service.install", install("1"));
        daemon.terminate();

        let mut doomed = daemon_at(&ground.home, &server).with_env("WHARF_FAULT", point);
        doomed.launch();
        let pid = doomed.pid();
        let call: Value = json!({ "jsonrpc": "2.0", "id": 1, "method": "service.install", "params": install("2") });
        let answer = post(&doomed.socket(), &call.to_string());
        // What unpacks is a process of its own: its death is a failure that is told.
        if point == "install.unpacking" {
            let answer = answer.unwrap().body;
            assert!(answer.contains("could not be unpacked"), "{point}: {answer}");
            doomed.kill_9();
        } else {
            assert!(answer.is_err(), "{point} was never reached: {answer:?}");
            eventually(point, Duration::from_secs(10), || !alive(pid));
        }
        doomed.kill_9();

        daemon.launch();
        assert_eq!(daemon.ok("service.status", json!({ "name": "thing" }))["version"], "1", "{point}");
        daemon.ok("service.start", json!({ "name": "thing" }));
        assert!(fetch(port).ends_with("fine"), "{point}: the old version does not answer");
        daemon.ok("service.stop", json!({ "name": "thing" }));
        let placed = daemon.ok("service.install", install("2"));
        assert_eq!(placed["version"], "2", "{point}");
        assert_eq!(daemon.ok("service.verify", json!({ "name": "thing" }))["ok"], true, "{point}");
        daemon.ok("service.start", json!({ "name": "thing" }));
        daemon.ok("service.stop", json!({ "name": "thing" }));
        let store = daemon.home.join("store");
        assert_eq!(names_in(&store.join(".staging")), [] as [String; 0], "{point}");
        let names = names_in(&store.join("thing"));
        assert_eq!(names.len(), 4, "{point}: two versions and two links: {names:?}");
        let leads = |link: &str| fs::read_to_string(store.join("thing").join(link).join("about")).unwrap();
        assert_eq!((leads("current"), leads("previous")), ("version 2\n".into(), "version 1\n".into()), "{point}");
        daemon.terminate();
    }
}

/// A tool of an install ends with the daemon that began it: nothing goes on writing behind the next one's back.
#[test]
fn t43_the_tools_of_an_install_end_with_a_killed_daemon() {
    let mut daemon = with_sources();
    let (waits, pids) = (daemon.home.join("waits.sh"), daemon.home.join("pids"));
    // What git speaks through: it says who it is and who began it, and waits for git's end.
    fs::write(&waits, format!("#!/bin/sh\necho $$ $PPID > {0}.new; mv {0}.new {0}; exec cat\n", pids.display()))
        .unwrap();
    fs::set_permissions(&waits, fs::Permissions::from_mode(0o755)).unwrap();
    // Without the second git asks it first what it is.
    daemon = daemon.with_env("GIT_SSH_COMMAND", waits.to_str().unwrap()).with_env("GIT_SSH_VARIANT", "ssh");
    daemon.launch();
    let with = json!({ "from": "git", "of": "ssh://git@127.0.0.1/them/thing", "binaries": ["thing"] });
    let begun = daemon.ok("service.install", json!({ "name": "thing", "with": with, "wait": false }));
    let told = || fs::read_to_string(&pids).unwrap_or_default();
    eventually("git waits for its peer", Duration::from_secs(20), || told().ends_with('\n'));
    let at_work: Vec<i32> = told().split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    assert!(at_work.iter().all(|pid| alive(*pid)), "{at_work:?}");
    daemon.kill_9();
    eventually("all of them end", Duration::from_secs(10), || at_work.iter().all(|pid| !alive(*pid)));
    daemon.launch();
    let ops = daemon.ok("op.list", json!({ "all": true }));
    let op = ops["operations"].as_array().unwrap().iter().find(|op| op["id"] == begun["operation"]["id"]).unwrap();
    assert_eq!(op["outcome"], "interrupted", "{op}");
    assert_eq!(daemon.state("thing"), "not_installed");
    daemon.ok("service.install", json!({ "name": "hello" }));
    daemon.ok("store.gc", json!({}));
    assert_eq!(names_in(&daemon.home.join("store/.staging")), [] as [String; 0], "nothing is left over");
}
