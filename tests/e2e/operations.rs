//! Operations as their users see them: an upgrade that goes back by itself, a rollback, a deploy, a plan, a cancel, the
//! order of many upgrades, and what the store keeps.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use wharf_tests::{Daemon, Fault, Forge, ReleaseServer, eventually, figure, free_port, stand_in, tar_gz};

use crate::source::{fetch, with_sources};

/// A program that never gets ready.
const DEAD: &str = "#!/bin/sh\necho this version needs a file that is not there\nexit 3\n";
const MUTE: &str = "#!/bin/sh\nexec sleep 1000\n";

/// A forge with versions of `them/NAME`, each what it says.
fn forge(server: &ReleaseServer, name: &str, versions: &[(&str, Vec<u8>)]) {
    let repo = server.forge(Forge::GitHub, "them", name);
    for (version, bytes) in versions {
        repo.release(&format!("v{version}")).asset("thing-bin", bytes.clone()).checksums("SHA256SUMS");
    }
}

fn daemon_of(server: &ReleaseServer) -> Daemon {
    let mut daemon = with_sources().with_env("WHARF_MIRRORS", &server.mirrors());
    daemon.launch();
    daemon
}

fn with(name: &str, port: u16) -> Value {
    json!({
        "from": "github", "of": format!("them/{name}"), "assets": ["thing-bin"], "binaries": ["thing-bin"],
        "ports": { "main": port },
    })
}

/// Installs this version of a unit and starts it.
fn up(daemon: &Daemon, unit: &str, version: &str) -> u16 {
    let port = free_port();
    let service = unit.split('@').next().unwrap();
    daemon.ok("service.install", json!({ "name": unit, "version": version, "with": with(service, port) }));
    daemon.ok("service.start", json!({ "name": unit }));
    port
}

/// What a server answers; none where there is nobody, or somebody who leaves.
fn asked(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn version(daemon: &Daemon, unit: &str) -> Value {
    daemon.ok("service.status", json!({ "name": unit }))["version"].clone()
}

fn last_op(daemon: &Daemon, unit: &str) -> Value {
    daemon.ok("op.list", json!({ "unit": unit, "limit": 1 }))["operations"][0].clone()
}

/// T42, HS-47: whatever the new version does wrong, the old one runs again by itself, and the operation says why.
#[test]
fn t42_an_upgrade_whose_new_version_never_gets_ready_goes_back_by_itself() {
    let server = ReleaseServer::start();
    forge(&server, "thing", &[("1", stand_in()), ("2", DEAD.into()), ("3", MUTE.into()), ("4", stand_in())]);
    let daemon = daemon_of(&server);
    let port = up(&daemon, "thing", "1");
    daemon.ok("service.start", json!({ "name": "thing", "policy": { "start_timeout_ms": 2500 }, "reset": true }));
    for (bad, why) in [("2", "exited with code 3"), ("3", "not ready")] {
        let failed = daemon.err("service.upgrade", json!({ "name": "thing", "version": bad }));
        let said = failed["message"].as_str().unwrap();
        assert!(said.contains("could not upgrade thing") && said.contains(why), "{failed}");
        assert!(failed["data"]["hint"].as_str().unwrap().contains("version 1 runs again"), "{failed}");
        assert_eq!(version(&daemon, "thing"), "1");
        assert_eq!(daemon.state("thing"), "running");
        assert!(fetch(port).ends_with("fine"));
        let op = last_op(&daemon, "thing");
        assert_eq!((&op["kind"], &op["outcome"]), (&json!("upgrade"), &json!("failed")), "HS-24: {op}");
        // What the store calls current is what runs.
        let current = fs::read_link(daemon.home.join("store/thing/current")).unwrap();
        assert!(current.to_str().unwrap().starts_with("1-"), "{current:?}");
    }
    // The failures of another version are not held against this one.
    let done = daemon.ok("service.upgrade", json!({ "name": "thing", "version": "4" }));
    assert_eq!((&done["from"], &done["to"], &done["changed"]), (&json!("1"), &json!("4"), &json!(true)));
    let pid = daemon.ok("service.status", json!({ "name": "thing" }))["pid"].clone();
    // HS-23: the same once more changes nothing, and what runs goes on running.
    let again = daemon.ok("service.upgrade", json!({ "name": "thing", "version": "4" }));
    assert_eq!(again["changed"], false, "{again}");
    assert_eq!(daemon.ok("service.status", json!({ "name": "thing" }))["pid"], pid);
}

/// T42 across the daemon's own death: an upgrade that it did not live to see goes on, and goes back.
#[test]
fn t42_an_upgrade_that_its_daemon_did_not_outlive_goes_on_and_goes_back() {
    let server = ReleaseServer::start();
    forge(&server, "thing", &[("1", stand_in()), ("2", MUTE.into())]);
    let mut daemon = daemon_of(&server);
    let port = up(&daemon, "thing", "1");
    daemon.ok("service.start", json!({ "name": "thing", "policy": { "start_timeout_ms": 3000 }, "reset": true }));
    let begun = daemon.ok("service.upgrade", json!({ "name": "thing", "version": "2", "wait": false }));
    eventually("the new version is tried", Duration::from_secs(20), || {
        version(&daemon, "thing") == "2" && daemon.state("thing") == "starting"
    });
    daemon.kill_9();
    daemon.launch();
    eventually("the old one is back", Duration::from_secs(30), || {
        version(&daemon, "thing") == "1" && daemon.state("thing") == "running"
    });
    assert!(fetch(port).ends_with("fine"));
    let op = last_op(&daemon, "thing");
    assert_eq!(op["id"], begun["operation"]["id"], "it is the same operation");
    assert_eq!(op["outcome"], "failed", "{op}");
    assert!(op["failure"]["hint"].as_str().unwrap().contains("version 1 runs again"), "{op}");
}

#[test]
fn a_rollback_runs_the_version_before_and_once_more_the_later_one() {
    let server = ReleaseServer::start();
    forge(&server, "thing", &[("1", stand_in()), ("2", stand_in()), ("3", DEAD.into())]);
    let mut daemon = daemon_of(&server);
    let port = up(&daemon, "thing", "1");
    let none = daemon.cli(&["rollback", "thing"]);
    assert_ne!(none.code, 0, "{none:?}");
    assert!(none.err.contains("no version before the present one"), "{none:?}");
    daemon.ok("service.upgrade", json!({ "name": "thing", "version": "2" }));
    let plan = daemon.cli_ok(&["rollback", "thing", "--dry-run"]).out;
    assert!(plan.contains("if it does not get ready, 2 comes back by itself"), "{plan}");
    let said = daemon.cli_ok(&["rollback", "thing"]).out;
    assert!(said.contains("thing is back from 2 to 1"), "{said}");
    assert!(fetch(port).ends_with("fine"));
    // The way is kept by whoever dies meanwhile.
    daemon.kill_9();
    daemon.launch();
    assert_eq!(version(&daemon, "thing"), "1");
    assert_eq!(daemon.ok("op.rollback", json!({ "name": "thing" }))["to"], "2");
    // Installed over what runs, and found to be dead when it is stopped and started: one word, and the old one runs.
    daemon.ok("service.install", json!({ "name": "thing", "version": "3" }));
    assert_eq!(version(&daemon, "thing"), "3");
    daemon.err("service.restart", json!({ "name": "thing" }));
    assert_eq!(daemon.ok("op.rollback", json!({ "name": "thing" }))["to"], "2");
    eventually("it runs", Duration::from_secs(20), || daemon.state("thing") == "running");
    assert!(fetch(port).ends_with("fine"));
}

/// HS-57: build and install, restart, verify: one operation.
#[test]
fn hs57_a_deploy_places_starts_and_verifies_or_leaves_all_as_it_was() {
    let server = ReleaseServer::start();
    forge(&server, "thing", &[("1", stand_in()), ("2", DEAD.into())]);
    let daemon = daemon_of(&server);
    let port = free_port();
    let deploy = |version: &str| json!({ "name": "thing", "version": version, "with": with("thing", port) });
    // The first one, of what is not there, fails whole: nothing of it stays.
    let failed = daemon.err("op.deploy", deploy("9"));
    assert!(failed["message"].as_str().unwrap().contains("could not deploy thing"), "{failed}");
    assert_eq!(daemon.state("thing"), "not_installed");
    let done = daemon.ok("op.deploy", deploy("1"));
    assert_eq!((&done["from"], &done["to"], &done["ok"]), (&Value::Null, &json!("1"), &json!(true)), "{done}");
    assert!(done["checks"].as_array().unwrap().iter().any(|c| c["check"] == "listens on loopback only"), "{done}");
    assert!(fetch(port).ends_with("fine"));
    let op = last_op(&daemon, "thing");
    assert_eq!((&op["kind"], &op["outcome"]), (&json!("deploy"), &json!("done")));
    daemon.ok("service.stop", json!({ "name": "thing" }));
    // What was down before is down afterwards.
    let failed = daemon.err("op.deploy", deploy("2"));
    assert!(failed["data"]["hint"].as_str().unwrap().contains("version 1 is in its place again"), "{failed}");
    assert_eq!((version(&daemon, "thing"), daemon.state("thing")), (json!("1"), "stopped".into()));
    let said = daemon.cli_ok(&["deploy", "thing", "--version", "1"]).out;
    assert!(said.contains("thing 1 is deployed and runs with PID"), "{said}");
    // HS-23: what carries nothing of its own is deployed as often as one likes.
    let hello = json!({ "name": "hello", "with": { "ports": { "http": "auto" } } });
    for _ in 0..2 {
        assert_eq!(daemon.ok("op.deploy", hello.clone())["ok"], true);
    }
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let server = ReleaseServer::start();
    forge(&server, "thing", &[("1", stand_in()), ("2", stand_in())]);
    let daemon = daemon_of(&server);
    let port = free_port();
    let plan = daemon.ok("op.plan", json!({ "name": "thing", "kind": "install", "with": with("thing", port) }));
    assert_eq!((&plan["from"], &plan["to"]), (&Value::Null, &json!("2")), "the latest is looked up: {plan}");
    assert_eq!(plan["places"][0]["is_there"], false, "{plan}");
    assert!(plan["places"][0]["source"].as_str().unwrap().contains("github.com/them/thing"), "{plan}");
    assert_eq!(daemon.state("thing"), "not_installed");
    assert!(!daemon.home.join("store/thing").exists(), "nothing was placed");
    let up = up(&daemon, "thing", "1");
    let pid = daemon.ok("service.status", json!({ "name": "thing" }))["pid"].clone();
    let said = daemon.cli_ok(&["upgrade", "thing", "--dry-run"]).out;
    for line in ["thing 2 is fetched", "thing is stopped and started", "if it does not get ready, 1 comes back"] {
        assert!(said.contains(line), "{said}");
    }
    assert_eq!(daemon.ok("service.status", json!({ "name": "thing" }))["pid"], pid);
    assert!(fetch(up).ends_with("fine"));
    assert_eq!(daemon.ok("store.list", json!({ "service": "thing" }))["versions"].as_array().unwrap().len(), 1);
    let refused = daemon.err("op.plan", json!({ "name": "thing", "kind": "stop" }));
    assert!(refused["data"]["hint"].as_str().unwrap().contains("install, build, upgrade"), "{refused}");
}

/// An operation is told while it is under way, and can be given up.
#[test]
fn an_install_that_is_cancelled_leaves_nothing_and_holds_up_nobody() {
    let server = ReleaseServer::start();
    let repo = server.forge(Forge::GitHub, "them", "thing");
    repo.release("v1").asset("thing-bin", stand_in()).checksums("SHA256SUMS");
    let big = [stand_in(), vec![7; 20 << 20]].concat();
    repo.release("v2").faulty("thing-bin", big, Fault::Slow(200_000)).checksums("SHA256SUMS");
    let daemon = daemon_of(&server);
    let port = up(&daemon, "thing", "1");
    let begun = daemon.ok("service.upgrade", json!({ "name": "thing", "version": "2", "wait": false }));
    let staging = daemon.home.join("store/.staging");
    let is_at_work = || fs::read_dir(&staging).is_ok_and(|mut dir| dir.next().is_some());
    eventually("it is being fetched", Duration::from_secs(20), is_at_work);
    let id = begun["operation"]["id"].to_string();
    // Whoever did not ask for it can watch it.
    let steps = || {
        daemon.ok("event.watch", json!({ "since": 0, "kinds": ["op.progress"], "units": ["thing"] }))["events"].clone()
    };
    let is_halfway = |step: &Value| {
        let part = step["done"].as_u64().zip(step["total"].as_u64());
        step["op"] == begun["operation"]["id"] && part.is_some_and(|(done, total)| 0 < done && done < total)
    };
    eventually("its progress is an event", Duration::from_secs(20), || {
        steps().as_array().unwrap().iter().any(is_halfway)
    });
    let told = steps().as_array().unwrap().len();
    assert!(told < 60, "once a second, and not at every step: {told}");
    let said = daemon.cli_ok(&["cancel", &id]).out;
    assert!(said.contains("upgrade of thing is cancelled"), "{said}");
    eventually("nothing of it is left", Duration::from_secs(20), || !is_at_work());
    let op = last_op(&daemon, "thing");
    assert!(op["failure"]["message"].as_str().unwrap().contains("somebody cancelled it"), "{op}");
    assert_eq!((version(&daemon, "thing"), daemon.state("thing")), (json!("1"), "running".into()));
    assert!(fetch(port).ends_with("fine"));
    let twice = daemon.err("op.cancel", json!({ "op": begun["operation"]["id"] }));
    assert_eq!(twice["data"]["kind"], "not_found", "{twice}");
    // The first install of all: the unit is gone with it.
    let params = json!({ "name": "other", "version": "2", "with": with("thing", free_port()), "wait": false });
    let begun = daemon.ok("service.install", params);
    eventually("it is being fetched", Duration::from_secs(20), is_at_work);
    // By the unit that it is of.
    let said = daemon.cli_ok(&["cancel", "other"]).out;
    assert!(
        said.contains(&format!("install of other is cancelled (operation {})", begun["operation"]["id"])),
        "{said}"
    );
    assert_eq!(daemon.state("other"), "not_installed");
    let idle = daemon.cli(&["cancel", "other"]);
    assert_eq!(idle.code, 4, "{idle:?}");
    assert!(idle.err.contains("nothing is under way with other"), "{idle:?}");
    // A start that waits for its program is given up, too: it is stopped.
    let with = json!({
        "argv": ["sleep", "1000"], "ports": { "main": free_port() }, "health": { "tcp": { "port": "main" } },
    });
    let slow = json!({ "name": "command@slow", "wait": false, "with": with });
    let begun = daemon.ok("service.start", slow);
    daemon.ok("op.cancel", json!({ "op": begun["operation"]["id"] }));
    eventually("it is stopped", Duration::from_secs(20), || daemon.state("command@slow") == "stopped");
}

/// HS-74: `wharf outdated` and `wharf upgrade --all`: what others need first, and the first failure ends it.
#[test]
fn hs74_all_are_upgraded_one_by_one_in_the_order_of_their_needs() {
    let server = ReleaseServer::start();
    forge(&server, "thing", &[("1", stand_in()), ("2", stand_in())]);
    forge(&server, "other", &[("1", stand_in()), ("2", DEAD.into())]);
    let daemon = daemon_of(&server);
    let (other, thing) = (up(&daemon, "other", "1"), up(&daemon, "thing", "1"));
    // By name `other` would come first.
    let needs = json!({ "name": "other", "policy": { "needs": [{ "unit": "thing" }] }, "reset": true });
    daemon.ok("service.start", needs);
    let found = daemon.ok("store.outdated", json!({}));
    let rows: Vec<_> = found["units"].as_array().unwrap().iter().map(|row| (&row["name"], &row["is_fresh"])).collect();
    assert_eq!(rows, [(&json!("thing"), &json!(false)), (&json!("other"), &json!(false))], "{found}");
    let said = daemon.cli(&["outdated"]);
    assert_eq!(said.code, 8, "{said:?}");
    let said = daemon.cli(&["upgrade", "--all"]);
    assert!(said.code != 0, "{said:?}");
    assert!(said.out.contains("thing is upgraded from 1 to 2"), "{said:?}");
    assert!(said.err.contains("could not upgrade other"), "{said:?}");
    assert_eq!((version(&daemon, "thing"), version(&daemon, "other")), (json!("2"), json!("1")));
    assert!(fetch(thing).ends_with("fine") && fetch(other).ends_with("fine"));
    // With the forge mended, the same once more does the rest and touches nothing else.
    let pid = daemon.ok("service.status", json!({ "name": "thing" }))["pid"].clone();
    forge(&server, "other", &[("3", stand_in())]);
    daemon.cli_ok(&["upgrade", "--all"]);
    assert_eq!(version(&daemon, "other"), "3");
    assert_eq!(daemon.ok("service.status", json!({ "name": "thing" }))["pid"], pid);
    assert_eq!(daemon.cli_ok(&["outdated", "thing"]).code, 0);
    assert!(daemon.cli_ok(&["upgrade", "--all"]).out.contains("as new as it can be"));
}

#[test]
fn garbage_is_what_no_unit_has_or_can_go_back_to() {
    let server = ReleaseServer::start();
    let versions: Vec<(&str, Vec<u8>)> = ["1", "2", "3", "4"].map(|v| (v, stand_in())).to_vec();
    forge(&server, "thing", &versions);
    let daemon = daemon_of(&server);
    up(&daemon, "thing@a", "1");
    let port = free_port();
    daemon.ok("service.install", json!({ "name": "thing@b", "version": "2", "with": with("thing", port) }));
    for version in ["3", "4"] {
        daemon.ok("service.upgrade", json!({ "name": "thing@b", "version": version }));
    }
    let of = |row: &Value| row["version"].as_str().unwrap().to_owned();
    let list = || {
        let list = daemon.ok("store.list", json!({ "service": "thing" }));
        list["versions"].as_array().unwrap().iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(list(), ["4", "3", "2", "1"]);
    let would = daemon.ok("store.gc", json!({ "dry_run": true }));
    let what: Vec<&str> = would["garbage"].as_array().unwrap().iter().map(|g| g["what"].as_str().unwrap()).collect();
    assert_eq!(what, ["thing 2"], "1 runs, 3 is the way back, 4 is current: {would}");
    assert_eq!(list().len(), 4, "a dry run removes nothing");
    let said = daemon.cli_ok(&["gc"]).out;
    assert!(said.contains("thing 2") && said.contains("freed"), "{said}");
    assert_eq!(list(), ["4", "3", "1"]);
    assert_eq!(daemon.ok("op.rollback", json!({ "name": "thing@b" }))["to"], "3");
    assert!(daemon.cli_ok(&["versions", "thing"]).out.contains("thing@a"));
    assert!(daemon.cli_ok(&["gc"]).out.contains("nothing to remove"));
}

/// The real thing: caddy of Debian to caddy of PyPI, under traffic, with a file that the new one does not understand
/// first.
#[test]
fn caddy_is_upgraded_under_traffic_back_by_itself_and_then_for_real() {
    let daemon = Daemon::start();
    let file = daemon.home.join("Caddyfile");
    let site = "http://:{$PORT_HTTP} {\n\tbind 127.0.0.1\n\trespond \"it is here\" 200\n}\n";
    // The new one has no such option any more.
    fs::write(
        &file,
        format!("{{\n\tadmin {{$CADDY_ADMIN}}\n\tauto_https off\n\ton_demand_tls {{\n\t\tinterval 2m\n\t\tburst 5\n\t}}\n}}\n{site}"),
    )
    .unwrap();
    let port = free_port();
    let with = json!({ "config": file, "ports": { "http": port, "admin": "auto" } });
    let old = daemon.ok("service.install", json!({ "name": "caddy", "version": "2.6.2-5", "with": with }));
    assert_eq!((&old["version"], &old["source"]), (&json!("2.6.2-5"), &json!("debian")), "{old}");
    daemon.ok("service.start", json!({ "name": "caddy" }));
    let (stop, gaps) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new((0_u64, 0_u64, Duration::ZERO))));
    let traffic = thread::spawn({
        let (stop, gaps) = (stop.clone(), gaps.clone());
        move || {
            let mut last = Instant::now();
            while !stop.load(Ordering::Relaxed) {
                let served = asked(port).is_some_and(|answer| answer.contains("it is here"));
                let mut gaps = gaps.lock().unwrap();
                if served {
                    gaps.0 += 1;
                    gaps.2 = gaps.2.max(last.elapsed());
                    last = Instant::now();
                } else {
                    gaps.1 += 1;
                }
                drop(gaps);
                thread::sleep(Duration::from_millis(5));
            }
        }
    });
    let failed = daemon.err("service.upgrade", json!({ "name": "caddy", "version": "2.11.7" }));
    assert!(failed["message"].as_str().unwrap().contains("caddy exited with code 1"), "{failed}");
    assert!(failed["data"]["hint"].as_str().unwrap().contains("version 2.6.2-5 runs again"), "{failed}");
    assert_eq!(version(&daemon, "caddy"), "2.6.2-5");
    assert!(fetch(port).contains("it is here"));
    fs::write(&file, format!("{{\n\tadmin {{$CADDY_ADMIN}}\n\tauto_https off\n}}\n{site}")).unwrap();
    let done = daemon.ok("service.upgrade", json!({ "name": "caddy", "version": "2.11.7" }));
    assert_eq!((&done["from"], &done["to"]), (&json!("2.6.2-5"), &json!("2.11.7")), "{done}");
    assert!(fetch(port).contains("it is here"));
    assert_eq!(daemon.ok("service.health", json!({ "name": "caddy" }))["healthy"], true);
    stop.store(true, Ordering::Relaxed);
    traffic.join().unwrap();
    let (served, refused, longest) = *gaps.lock().unwrap();
    let text = format!("{served} requests served, {refused} refused, longest gap {longest:?}");
    figure("caddy 2.6.2 to 2.11.7 under traffic, a failing try first", &text);
    assert!(served > 50, "there was traffic: {served}");
    assert_eq!(daemon.ok("op.rollback", json!({ "name": "caddy" }))["to"], "2.6.2-5");
    assert!(fetch(port).contains("it is here"));
}

/// A machine without a network: the publisher's archive is brought by hand, whatever is around it.
#[test]
fn a_file_of_this_machine_is_placed_instead_of_what_the_service_would_fetch() {
    let daemon = Daemon::start();
    let file = daemon.home.join("caddy_2.99.0_linux_amd64.tar.gz");
    fs::write(&file, tar_gz(&[("LICENSE", &b"free"[..]), ("caddy-2.99.0/caddy", &stand_in()[..])])).unwrap();
    let planned =
        daemon.cli_ok(&["install", "caddy", "--from", file.to_str().unwrap(), "--version", "2.99.0", "--dry-run"]);
    assert!(planned.out.contains("2.99.0") && planned.out.contains(file.to_str().unwrap()), "{planned:?}");
    assert!(!daemon.home.join("store/caddy").exists(), "only said");
    let bare = daemon.err("op.plan", json!({ "name": "hello", "kind": "install", "from": file }));
    assert!(bare["message"].as_str().unwrap().contains("no program of its own"), "as the install would: {bare}");
    let said = daemon.cli_ok(&["install", "caddy", "--from", file.to_str().unwrap(), "--version", "2.99.0"]).out;
    assert!(said.contains("caddy 2.99.0 is installed from file"), "{said}");
    assert_eq!(daemon.ok("service.verify", json!({ "name": "caddy" }))["ok"], true);
    let placed = daemon.ok("service.inspect", json!({ "name": "caddy" }))["installed"].clone();
    let program = placed["binaries"]["caddy"].as_str().unwrap();
    assert_eq!(fs::read(program).unwrap(), stand_in());
    let refused = daemon.err("service.install", json!({ "name": "caddy", "from": "caddy.tar.gz" }));
    assert!(refused["message"].as_str().unwrap().contains("no whole path"), "{refused}");
    let absent = daemon.err("service.install", json!({ "name": "caddy", "from": "/nowhere/caddy.tar.gz" }));
    assert!(absent["message"].as_str().unwrap().contains("/nowhere/caddy.tar.gz"), "{absent}");
    assert_eq!(version(&daemon, "caddy"), "2.99.0", "what was there is there");
}

/// Three installs at once of three services share nothing, and finish.
#[test]
fn three_installs_at_once_finish_and_share_nothing() {
    let server = ReleaseServer::start();
    forge(&server, "thing", &[("1", stand_in())]);
    forge(&server, "other", &[("1", stand_in())]);
    let daemon = daemon_of(&server);
    let names = ["thing@a", "thing@b", "other"];
    thread::scope(|scope| {
        for name in names {
            let daemon = &daemon;
            scope.spawn(move || {
                let service = name.split('@').next().unwrap();
                daemon.ok("service.install", json!({ "name": name, "with": with(service, free_port()) }))
            });
        }
    });
    for name in names {
        assert_eq!(version(&daemon, name), "1");
    }
    assert_eq!(fs::read_dir(daemon.home.join("store/.staging")).unwrap().count(), 0);
}
