//! How units are supervised: needs, jobs, schedules, use on demand, presets, exits, preconditions, hooks.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use wharf_tests::{Daemon, alive, eventually, free_port, parent_of, signal};

const SOON: Duration = Duration::from_secs(15);

fn sh(script: &str) -> Value {
    json!({ "argv": ["sh", "-c", script] })
}

fn start(daemon: &Daemon, name: &str, with: Value, policy: Value) -> Result<Value, Value> {
    daemon.call("service.start", json!({ "name": format!("command@{name}"), "with": with, "policy": policy }))
}

#[track_caller]
fn started(daemon: &Daemon, name: &str, with: Value, policy: Value) {
    start(daemon, name, with, policy).unwrap_or_else(|e| panic!("{name}: {e}"));
}

fn status(daemon: &Daemon, name: &str) -> Value {
    daemon.ok("service.status", json!({ "name": format!("command@{name}") }))
}

fn needs(names: &[&str]) -> Value {
    json!({ "needs": names.iter().map(|n| json!({ "unit": format!("command@{n}") })).collect::<Vec<_>>() })
}

/// A program that writes its name to a file when it begins, and takes its time to end.
fn telling(daemon: &Daemon, name: &str, stop_s: &str) -> Value {
    let book = daemon.home.join("book");
    let book = book.display();
    sh(&format!(
        "trap 'sleep {stop_s}; echo -{name} >> {book}; exit 0' TERM; echo +{name} >> {book}; while :; do sleep 0.05; done"
    ))
}

fn book(daemon: &Daemon) -> Vec<String> {
    fs::read_to_string(daemon.home.join("book")).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn place(book: &[String], line: &str) -> usize {
    book.iter().position(|l| l == line).unwrap_or_else(|| panic!("{line} is not in {book:?}"))
}

#[test]
fn a_unit_starts_after_what_it_needs_and_takes_it_along() {
    let daemon = Daemon::start();
    for (name, of) in [("db", &[][..]), ("cache", &[]), ("api", &["db", "cache"]), ("web", &["api"])] {
        started(&daemon, name, telling(&daemon, name, "0"), needs(of));
    }
    for name in ["web", "api", "cache", "db"] {
        daemon.ok("service.stop", json!({ "name": format!("command@{name}") }));
    }
    fs::remove_file(daemon.home.join("book")).unwrap();
    daemon.ok("service.start", json!({ "name": "command@web" }));
    let book = book(&daemon);
    assert_eq!(book.len(), 4, "{book:?}");
    for (first, second) in [("+db", "+api"), ("+cache", "+api"), ("+api", "+web")] {
        assert!(place(&book, first) < place(&book, second), "{book:?}");
    }
    for name in ["db", "cache", "api", "web"] {
        assert_eq!(status(&daemon, name)["state"], "running", "{name}");
    }
}

#[test]
fn t19_a_stop_of_ten_slow_services_takes_as_long_as_the_slowest_in_order() {
    let daemon = Daemon::start();
    started(&daemon, "base", telling(&daemon, "base", "0.1"), json!({}));
    for n in 0..10 {
        let name = format!("top{n}");
        started(&daemon, &name, telling(&daemon, &name, "1"), needs(&["base"]));
    }
    let began = Instant::now();
    daemon.ok("service.stop", json!({ "name": "command@base" }));
    let took = began.elapsed();
    let book = book(&daemon);
    assert_eq!(book.iter().filter(|l| l.starts_with('-')).count(), 11, "{book:?}");
    assert_eq!(book.last().map(String::as_str), Some("-base"), "what is needed ends last: {book:?}");
    println!("eleven units stopped in {} ms; each of ten takes 1,000 ms", took.as_millis());
    assert!(took < Duration::from_secs(5), "one after the other would take ten seconds: {took:?}");
    let why = daemon.ok("deps.why", json!({ "name": "command@top3" }));
    assert_eq!(why["state"], "blocked");
    assert!(why["answer"].as_str().unwrap().contains("command@base, which is stopped"), "{why}");
    daemon.ok("service.start", json!({ "name": "command@base" }));
    eventually("they come back with what they need", SOON, || {
        (0..10).all(|n| status(&daemon, &format!("top{n}"))["state"] == "running")
    });
}

#[test]
fn needs_in_a_ring_are_refused_and_the_ring_is_named() {
    let daemon = Daemon::start();
    started(&daemon, "a", sh("exec sleep 1000"), json!({}));
    started(&daemon, "b", sh("exec sleep 1000"), needs(&["a"]));
    started(&daemon, "c", sh("exec sleep 1000"), needs(&["b"]));
    let refused = start(&daemon, "a", sh("exec sleep 1000"), needs(&["c"])).unwrap_err();
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("command@a -> command@c -> command@b -> command@a"), "{message}");
    assert_eq!(status(&daemon, "a")["state"], "running", "what was refused changed nothing");
}

#[test]
fn a_need_that_fails_is_told_to_whoever_starts_what_needs_it() {
    let daemon = Daemon::start();
    let never = json!({ "restart": { "budget": 0 } });
    let _ = start(&daemon, "db", sh("echo no disk; exit 4"), never);
    let refused = start(&daemon, "api", sh("exec sleep 1000"), needs(&["db"]));
    // The start of the need is tried once more for it, and fails again.
    let refused = refused.unwrap_err();
    assert!(refused["message"].as_str().unwrap().contains("needs command@db, which is"), "{refused}");
    let why = daemon.ok("deps.why", json!({ "name": "command@api" }));
    assert!(why["because"].to_string().contains("command@db is failed"), "{why}");
    let said = daemon.cli(&["why", "command@api"]);
    assert_eq!(said.code, 0);
    assert!(said.out.lines().count() < 24, "more than a screen: {}", said.out);
    assert!(said.out.contains("wharf start command@db"), "{}", said.out);
}

#[test]
fn a_soft_need_that_is_not_there_is_no_obstacle() {
    let daemon = Daemon::start();
    let soft = json!({ "needs": [{ "unit": "command@vault", "soft": true }] });
    started(&daemon, "alden", sh("exec sleep 1000"), soft);
    assert_eq!(status(&daemon, "alden")["state"], "running");
}

#[test]
fn needs_are_kept_over_the_death_of_the_daemon() {
    let mut daemon = Daemon::start();
    started(&daemon, "db", sh("exec sleep 1000"), json!({}));
    started(&daemon, "api", sh("exec sleep 1000"), needs(&["db"]));
    let pids = [status(&daemon, "db")["pid"].clone(), status(&daemon, "api")["pid"].clone()];
    daemon.kill_9();
    daemon.launch();
    eventually("both are adopted", SOON, || {
        [status(&daemon, "db")["pid"].clone(), status(&daemon, "api")["pid"].clone()] == pids
    });
    let graph = daemon.ok("deps.graph", json!({ "format": "text" }));
    assert_eq!(graph["drawing"], "command@api  running\n└─ command@db  running\n");
}

#[test]
fn a_job_that_ends_well_is_done_and_is_what_others_wait_for() {
    let daemon = Daemon::start();
    let flag = daemon.home.join("migrated");
    started(&daemon, "migrate", sh(&format!("sleep 0.5; touch {}", flag.display())), json!({ "job": true }));
    let check = format!("test -e {} && exec sleep 1000", flag.display());
    started(&daemon, "api", sh(&check), needs(&["migrate"]));
    assert_eq!(status(&daemon, "api")["state"], "running");
    let job = status(&daemon, "migrate");
    assert_eq!((&job["state"], &job["want"], &job["last_end"]), (&json!("stopped"), &json!("up"), &json!("by_itself")));
    assert_eq!(job["restart_count"], 0, "{job}");
    let why = daemon.ok("deps.why", json!({ "name": "command@migrate" }));
    assert!(why["answer"].as_str().unwrap().contains("has done its work"), "{why}");
}

#[test]
fn a_scheduled_job_is_not_down_when_it_is_not_running() {
    let daemon = Daemon::start();
    let book = daemon.home.join("ran");
    let with = sh(&format!("echo ran >> {}", book.display()));
    // Six fields: every second.
    started(&daemon, "tick", with, json!({ "schedule": "* * * * * *" }));
    eventually("it ran three times", SOON, || fs::read_to_string(&book).is_ok_and(|t| t.lines().count() >= 3));
    let ops = daemon.ok("service.status", json!({ "name": "command@tick" }));
    assert_eq!(ops["want"], "up");
    assert_eq!(ops["restart_count"], 0, "that it ends is no death: {ops}");
    assert!(ops["next_due"].as_f64().is_some(), "{ops}");
    daemon.ok("service.stop", json!({ "name": "command@tick" }));
    let ran = fs::read_to_string(&book).unwrap();
    std::thread::sleep(Duration::from_millis(2_500));
    assert_eq!(fs::read_to_string(&book).unwrap(), ran, "a stopped schedule goes on");
}

#[test]
fn a_unit_on_demand_starts_with_its_first_connection_and_stops_when_nobody_uses_it() {
    let daemon = Daemon::start();
    let port = free_port();
    let with = json!({
        "argv": ["python3", "-m", "http.server", "--bind", "127.0.0.1", port.to_string()],
        "ports": { "http": port }, "health": { "tcp": { "port": "http" } },
    });
    started(&daemon, "lazy", with, json!({ "on_demand": { "idle_stop_s": 2 } }));
    eventually("nobody uses it: it stops", SOON, || status(&daemon, "lazy")["state"] == "stopped");
    let rested = status(&daemon, "lazy");
    assert_eq!((&rested["want"], &rested["last_end"]), (&json!("on_demand"), &json!("idle")));
    let mut answer = String::new();
    eventually("its port is listened on", SOON, || {
        let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { return false };
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        stream.read_to_string(&mut answer).unwrap();
        true
    });
    assert!(answer.starts_with("HTTP/1.0 200"), "the first caller is served: {answer:?}");
    assert_eq!(status(&daemon, "lazy")["state"], "running");
    assert_eq!(status(&daemon, "lazy")["restart_count"], 0);
    daemon.ok("service.stop", json!({ "name": "command@lazy" }));
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err(), "a stopped unit has no open door");
}

#[test]
fn presets_bounded_gives_up_and_observe_never_restarts() {
    let daemon = Daemon::start();
    let quick = json!({ "preset": "bounded", "restart": { "delay_ms": 10 } });
    started(&daemon, "bounded", sh("sleep 0.4; exit 3"), quick);
    eventually("it is given up", Duration::from_secs(30), || status(&daemon, "bounded")["state"] == "failed");
    let found = status(&daemon, "bounded");
    assert_eq!((&found["given_up"], &found["restart_count"]), (&json!("restart_intensity"), &json!(5)), "{found}");
    assert_eq!(found["restart_backoff"], Value::Null, "bounded: nobody tries again");
    started(&daemon, "observe", sh("sleep 0.4; exit 3"), json!({ "preset": "observe" }));
    eventually("it is down", SOON, || status(&daemon, "observe")["state"] == "failed");
    let found = status(&daemon, "observe");
    assert_eq!((&found["given_up"], &found["restart_count"]), (&json!("never_restarted"), &json!(0)), "{found}");
}

#[test]
fn exit_codes_mean_what_the_policy_says() {
    let daemon = Daemon::start();
    let exits = json!({ "exits": { "0": "stop", "78": "fail" }, "restart": { "delay_ms": 10 } });
    started(&daemon, "done", sh("sleep 0.4; exit 0"), exits.clone());
    eventually("its work is done", SOON, || status(&daemon, "done")["state"] == "stopped");
    started(&daemon, "config", sh("sleep 0.4; exit 78"), exits.clone());
    eventually("a final code is final", SOON, || status(&daemon, "config")["state"] == "failed");
    assert_eq!(status(&daemon, "config")["given_up"], "exit_rule");
    started(&daemon, "other", sh("sleep 0.4; exit 1"), exits);
    eventually("any other is a death", SOON, || status(&daemon, "other")["restart_count"].as_u64() > Some(0));
}

#[test]
fn t3_a_child_that_dies_after_its_first_healthy_probe_is_given_up_within_bounded_time() {
    let daemon = Daemon::start();
    let port = free_port();
    let script = format!("timeout 0.6 python3 -m http.server --bind 127.0.0.1 {port}; exit 1");
    let with = json!({
        "argv": ["sh", "-c", script], "ports": { "http": port }, "health": { "tcp": { "port": "http" } },
    });
    let _ = start(&daemon, "flaps", with, json!({ "restart": { "delay_ms": 20 } }));
    eventually("it is given up", Duration::from_secs(40), || status(&daemon, "flaps")["state"] == "failed");
    assert_eq!(status(&daemon, "flaps")["given_up"], "restart_intensity");
}

#[test]
fn t23_what_is_missing_is_named_before_the_start_and_there_is_no_crash_loop() {
    let daemon = Daemon::start();
    let tried = daemon.home.join("tried");
    let with = sh(&format!("echo x >> {}; exec sleep 1000", tried.display()));
    for (requirement, named) in [
        (json!({ "device": "/dev/no-such-kvm" }), "/dev/no-such-kvm"),
        (json!({ "env": "SOME_API_KEY" }), "SOME_API_KEY"),
        (json!({ "program": "no-such-ffmpeg" }), "no-such-ffmpeg"),
        (json!("display"), "display"),
        (json!({ "version": { "program": "python3", "at_least": "99.1" } }), "99.1 or newer"),
    ] {
        let refused = start(&daemon, "needy", with.clone(), json!({ "requires": [requirement] })).unwrap_err();
        assert_eq!(refused["code"], -32008, "{refused}");
        assert!(refused["message"].as_str().unwrap().contains(named), "{refused}");
        assert!(refused["data"]["hint"].is_string(), "{refused}");
    }
    assert!(!tried.exists(), "it was started all the same");
    started(&daemon, "needy", with, json!({ "requires": [{ "device": "/dev/null" }, { "program": "sh" }] }));
}

#[test]
fn a_preflight_that_fails_keeps_the_program_from_starting_and_is_tried_again() {
    let daemon = Daemon::start();
    let (flag, hooked) = (daemon.home.join("ok"), daemon.home.join("hooked"));
    let policy = json!({
        "preflight": ["sh", "-c", format!("test -e {} || {{ echo no schema yet; exit 9; }}", flag.display())],
        "post_start": ["touch", hooked], "restart": { "delay_ms": 50 },
    });
    let refused = start(&daemon, "checked", sh("exec sleep 1000"), policy).unwrap_err();
    assert!(refused.to_string().contains("no schema yet"), "its words are quoted: {refused}");
    fs::write(&flag, "").unwrap();
    daemon.ok("service.start", json!({ "name": "command@checked" }));
    assert_eq!(status(&daemon, "checked")["state"], "running");
    eventually("the hook ran when it was ready", SOON, || hooked.exists());
}

#[test]
fn a_service_that_another_supervisor_runs_is_not_run_twice() {
    let daemon = Daemon::start();
    let pid_file = daemon.home.join("other.pid");
    let mut other = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    fs::write(&pid_file, other.id().to_string()).unwrap();
    let defer = json!({ "defer": format!("pid_file:{}", pid_file.display()) });
    let refused = start(&daemon, "twice", sh("exec sleep 1000"), defer).unwrap_err();
    assert_eq!(refused["code"], -32008, "{refused}");
    assert!(refused["message"].as_str().unwrap().contains(&format!("pid {}", other.id())), "{refused}");
    other.kill().unwrap();
    other.wait().unwrap();
    daemon.ok("service.start", json!({ "name": "command@twice" }));
    assert_eq!(status(&daemon, "twice")["state"], "running");
}

#[test]
fn a_stop_signal_and_its_time_are_the_policys() {
    let daemon = Daemon::start();
    let said = daemon.home.join("said");
    let with =
        sh(&format!("trap 'echo usr1 > {}; exit 0' USR1; trap '' TERM; while :; do sleep 0.05; done", said.display()));
    started(&daemon, "own", with, json!({ "stop_signal": "USR1", "stop_timeout_ms": 20_000 }));
    daemon.ok("service.stop", json!({ "name": "command@own" }));
    assert_eq!(fs::read_to_string(&said).unwrap().trim(), "usr1");
    assert_eq!(status(&daemon, "own")["last_end"], "stopped");
    started(&daemon, "deaf", sh("trap '' TERM; while :; do sleep 0.05; done"), json!({ "stop_timeout_ms": 200 }));
    let pid = status(&daemon, "deaf")["pid"].as_i64().unwrap() as i32;
    daemon.ok("service.stop", json!({ "name": "command@deaf" }));
    assert!(!alive(pid));
    assert_eq!(status(&daemon, "deaf")["last_end"], "killed");
}

#[test]
fn a_retired_unit_is_kept_and_refuses_to_start() {
    let daemon = Daemon::start();
    started(&daemon, "old", sh("exec sleep 1000"), json!({}));
    daemon.ok("service.stop", json!({ "name": "command@old", "retire": true }));
    let found = status(&daemon, "old");
    assert_eq!((&found["state"], &found["want"]), (&json!("stopped"), &json!("retired")));
    let refused = daemon.call("service.start", json!({ "name": "command@old" })).unwrap_err();
    assert!(refused["message"].as_str().unwrap().contains("retired"), "{refused}");
    daemon.ok("service.install", json!({ "name": "command@old" }));
    daemon.ok("service.start", json!({ "name": "command@old" }));
}

#[test]
fn changes_to_a_policy_are_kept_and_what_no_policy_has_is_refused() {
    let mut daemon = Daemon::start();
    started(&daemon, "web", sh("exec sleep 1000"), json!({ "restart": { "budget": 2 }, "stop_timeout_ms": 1234 }));
    daemon.kill_9();
    daemon.launch();
    daemon.ok("service.start", json!({ "name": "command@web", "policy": { "stop_timeout_ms": null } }));
    let found = daemon.ok("service.inspect", json!({ "name": "command@web" }));
    assert_eq!(found["policy_changes"], json!({ "restart": { "budget": 2 } }));
    assert_eq!(
        (&found["policy"]["restart"]["budget"], &found["policy"]["stop_timeout_ms"]),
        (&json!(2), &json!(10_000))
    );
    let said = daemon.cli(&["start", "command@web", "--policy", "restart.bugdet=3"]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.err.contains("restart.bugdet") && said.err.contains("hint:"), "{}", said.err);
}

/// The shim is held up: that the program has ended is known before anybody can say how.
#[test]
fn a_job_whose_exit_code_comes_late_is_done_all_the_same() {
    let daemon = Daemon::start();
    let (go, ran) = (daemon.home.join("go"), daemon.home.join("ran"));
    let script = format!("echo x >> {}; while [ ! -e {} ]; do sleep 0.02; done", ran.display(), go.display());
    let policy = json!({ "job": true });
    let begun = json!({ "name": "command@late", "with": sh(&script), "policy": policy, "wait": false });
    daemon.ok("service.start", begun);
    eventually("it works", SOON, || ran.exists() && status(&daemon, "late")["pid"].is_i64());
    let pid = status(&daemon, "late")["pid"].as_i64().unwrap() as i32;
    signal(parent_of(pid), "STOP");
    fs::write(&go, "").unwrap();
    eventually("its end is known", SOON, || status(&daemon, "late")["state"] == "stopped");
    let job = status(&daemon, "late");
    assert_eq!((&job["want"], &job["last_end"], &job["restart_count"]), (&json!("up"), &json!("by_itself"), &json!(0)));
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(fs::read_to_string(&ran).unwrap().lines().count(), 1, "a job that was done was done again");
    assert_eq!(status(&daemon, "late")["state"], "stopped");
}

/// A stranger has its port for a while, and nothing else changes meanwhile.
#[test]
fn a_unit_on_demand_opens_its_door_as_soon_as_its_port_is_free() {
    let mut daemon = Daemon::start();
    let port = free_port();
    let with = json!({
        "argv": ["python3", "-m", "http.server", "--bind", "127.0.0.1", port.to_string()],
        "ports": { "http": port }, "health": { "tcp": { "port": "http" } },
    });
    started(&daemon, "lazy", with, json!({ "on_demand": { "idle_stop_s": 1 } }));
    eventually("nobody uses it: it stops", SOON, || status(&daemon, "lazy")["state"] == "stopped");
    daemon.kill_9();
    let stranger = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    daemon.launch();
    std::thread::sleep(Duration::from_millis(500));
    drop(stranger);
    eventually("whoever comes is heard", Duration::from_secs(5), || {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
    });
    eventually("it runs", SOON, || status(&daemon, "lazy")["state"] == "running");
}

/// Whoever woke it is not left waiting for a unit that was given up.
#[test]
fn a_caller_who_wakes_a_unit_that_cannot_run_is_hung_up_on() {
    let daemon = Daemon::start();
    let (port, fine) = (free_port(), daemon.home.join("fine"));
    fs::write(&fine, "").unwrap();
    let script = format!("test -e {} && exec python3 -m http.server --bind 127.0.0.1 {port}", fine.display());
    let with = json!({
        "argv": ["sh", "-c", script], "ports": { "http": port }, "health": { "tcp": { "port": "http" } },
    });
    started(&daemon, "lazy", with, json!({ "on_demand": { "idle_stop_s": 1 }, "restart": { "budget": 0 } }));
    eventually("nobody uses it: it stops", SOON, || status(&daemon, "lazy")["state"] == "stopped");
    fs::remove_file(&fine).unwrap();
    let mut caller = None;
    eventually("its port is listened on", SOON, || {
        caller = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok();
        caller.is_some()
    });
    let mut caller = caller.unwrap();
    caller.set_read_timeout(Some(SOON)).unwrap();
    let heard = caller.read(&mut [0; 1]);
    assert!(
        matches!(&heard, Ok(0)) || heard.as_ref().is_err_and(|e| e.kind() == ErrorKind::ConnectionReset),
        "{heard:?}"
    );
    assert_eq!(status(&daemon, "lazy")["state"], "failed");
}
