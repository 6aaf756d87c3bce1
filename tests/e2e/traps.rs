//! Faults seen in the systems that Wharf replaces and in their peers, each tried on the real daemon.

use std::{
    fs,
    io::Read,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use wharf_tests::{Daemon, alive, eventually, free_port, listens, parent_of, processes_with, signal};

fn sh(script: &str) -> Value {
    json!({ "argv": ["sh", "-c", script] })
}

fn pid_of(daemon: &Daemon, name: &str) -> i32 {
    daemon.ok("service.status", json!({ "name": name }))["pid"].as_i64().unwrap_or(0) as i32
}

fn run_of(daemon: &Daemon, name: &str) -> u64 {
    daemon.ok("service.status", json!({ "name": name }))["run"].as_u64().unwrap()
}

#[test]
fn t2_ten_mebibytes_of_output_without_a_reader_block_nobody() {
    let daemon = Daemon::start();
    let flag = daemon.home.join("done");
    let script = format!(
        "yes 0123456789012345678901234567890123456789 | head -c 12000000; touch {}; exec sleep 1000",
        flag.display()
    );
    daemon.run("loud", sh(&script));
    eventually("the child has written it all", Duration::from_secs(30), || flag.exists());
    assert_eq!(daemon.state("command@loud"), "running");
    let logs = daemon.ok("service.logs", json!({ "name": "command@loud", "lines": 5 }));
    assert_eq!(logs["lines"].as_array().unwrap().len(), 5);
    assert_eq!(logs["more"], true);
}

#[test]
fn t4_a_stop_during_backoff_stops_at_once_and_it_stays_stopped() {
    let daemon = Daemon::start();
    let ready = daemon.home.join("ready");
    let mut with = sh("sleep 0.6; exit 3");
    with["ports"] = json!({});
    daemon.run("dies", with);
    eventually("it waits for its next try", Duration::from_secs(10), || daemon.state("command@dies") == "backoff");
    let status = daemon.ok("service.status", json!({ "name": "command@dies" }));
    assert!(status["restart_backoff"].as_f64().unwrap() > 0.0, "{status}");
    assert_eq!(status["last_exit"], json!({ "kind": "exited", "code": 3 }));
    let began = Instant::now();
    daemon.ok("service.stop", json!({ "name": "command@dies" }));
    assert!(began.elapsed() < Duration::from_secs(1));
    let runs = daemon.ok("service.status", json!({ "name": "command@dies" }))["restart_count"].clone();
    std::thread::sleep(Duration::from_secs(3));
    let status = daemon.ok("service.status", json!({ "name": "command@dies" }));
    assert_eq!((&status["state"], &status["restart_count"]), (&json!("stopped"), &runs));
    assert!(!ready.exists());
}

#[test]
fn t5_a_child_that_ignores_term_and_a_grandchild_in_its_own_session_are_gone_when_stop_returns() {
    let daemon = Daemon::start();
    let mark = format!("wharf-t5-{}", std::process::id());
    let script = format!(
        "trap '' TERM; setsid sh -c 'trap \"\" TERM; : {mark}; while :; do sleep 1; done' & while :; do sleep 1; done"
    );
    let mut with = sh(&script);
    with["stop_timeout_s"] = json!(1);
    daemon.run("stubborn", with);
    eventually("both live", Duration::from_secs(5), || processes_with(&mark).len() >= 2);
    let began = Instant::now();
    let stopped = daemon.ok("service.stop", json!({ "name": "command@stubborn" }));
    assert_eq!(processes_with(&mark), Vec::<i32>::new(), "left over after the stop");
    assert!(began.elapsed() >= Duration::from_millis(900), "it was not given its time");
    assert_eq!(stopped["last_exit"], json!({ "kind": "signaled", "signal": 9 }));
}

#[test]
fn t6_kill_9_of_the_daemon_and_a_new_one_adopts_and_starts_nothing_twice() {
    let mut daemon = Daemon::start();
    let starts = daemon.home.join("starts");
    let count = || fs::read_to_string(&starts).map_or(0, |s| s.lines().count());
    let script = format!("echo x >> {}; n=0; while :; do n=$((n+1)); echo line $n; sleep 0.05; done", starts.display());
    daemon.run("kept", sh(&script));
    daemon.ok("service.restart", json!({ "name": "command@kept" }));
    let port = free_port();
    daemon.ok("service.start", json!({ "name": "hello", "with": { "ports": { "http": port } } }));
    let before = daemon.ok("service.status", json!({ "name": "command@kept" }));
    let hello = pid_of(&daemon, "hello");
    daemon.kill_9();
    let pid = before["pid"].as_i64().unwrap() as i32;
    assert!(alive(pid) && alive(hello) && listens(port), "a service died with the daemon");
    daemon.launch();
    eventually("both are adopted", Duration::from_secs(5), || {
        daemon.state("command@kept") == "running" && daemon.state("hello") == "running"
    });
    let after = daemon.ok("service.status", json!({ "name": "command@kept" }));
    for field in ["pid", "run", "started_at", "restart_count", "want"] {
        assert_eq!(before[field], after[field], "{field}");
    }
    assert_eq!(before["restart_count"], 1);
    assert!(after["uptime_ms"].as_u64() > before["uptime_ms"].as_u64());
    assert_eq!(pid_of(&daemon, "hello"), hello);
    assert_eq!(count(), 2, "it was started again");
    // What it wrote while nobody was there is not lost.
    let logs = daemon.ok("service.logs", json!({ "name": "command@kept", "lines": 10000 }));
    let lines: Vec<u64> = logs["lines"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|l| l.as_str()?.strip_prefix("line ")?.parse().ok())
        .collect();
    assert!(lines.windows(2).all(|w| w[1] == w[0] + 1), "a line is missing or doubled");
    daemon.ok("service.stop", json!({ "name": "command@kept" }));
    assert!(!alive(pid));
}

#[test]
fn t6_an_exit_while_no_daemon_lives_is_told_exactly() {
    let mut daemon = Daemon::start();
    let go = daemon.home.join("go");
    daemon.run("ends", sh(&format!("while ! [ -e {} ]; do sleep 0.01; done; exit 37", go.display())));
    let pid = pid_of(&daemon, "command@ends");
    daemon.kill_9();
    fs::write(&go, "").unwrap();
    eventually("it has ended", Duration::from_secs(5), || !alive(pid));
    daemon.launch();
    eventually("its death is known", Duration::from_secs(5), || {
        let status = daemon.ok("service.status", json!({ "name": "command@ends" }));
        status["last_exit"] == json!({ "kind": "exited", "code": 37 })
    });
}

#[test]
fn t7_a_second_daemon_refuses_with_the_pid_of_the_first_and_the_first_still_answers() {
    let daemon = Daemon::start();
    let second = daemon.cli(&["daemon"]);
    assert_ne!(second.code, 0);
    assert!(second.err.contains(&daemon.pid().to_string()), "{second:?}");
    assert!(second.err.contains("hint:"), "{second:?}");
    assert_eq!(daemon.ok("rpc.health", json!({}))["pid"], daemon.pid());
}

#[test]
fn t10_a_start_command_that_prints_help_and_exits_0_is_a_failed_start_that_says_so() {
    let daemon = Daemon::start();
    let port = free_port();
    let with = json!({
        "argv": ["sh", "-c", "echo 'usage: agent-mail [OPTIONS] COMMAND'; exit 0"],
        "ports": { "http": port }, "health": { "http": { "port": "http", "path": "/health" } },
    });
    let error = daemon.err("service.start", json!({ "name": "command@help", "with": with }));
    assert_eq!(error["code"], -32006, "{error}");
    assert!(error["message"].as_str().unwrap().contains("code 0 before it was ready"), "{error}");
    assert!(error["data"]["causes"].to_string().contains("usage: agent-mail"), "{error}");
    daemon.ok("service.stop", json!({ "name": "command@help" }));
}

#[test]
fn t11_an_env_file_cannot_override_a_forced_variable() {
    let daemon = Daemon::start();
    let file = daemon.home.join("env");
    fs::write(&file, "WHARF_UNIT=evil\nexport COLOUR='dark blue'\nPORT=1\n# a comment\n").unwrap();
    let port = free_port();
    let with = json!({
        "argv": ["sh", "-c", "echo \"unit=$WHARF_UNIT colour=$COLOUR port=$PORT home=$HOME\"; exec sleep 1000"],
        "env_file": file, "ports": { "http": port }, "health": "none",
    });
    daemon.run("env", with);
    let expected = format!("unit=command@env colour=dark blue port={port}");
    eventually("its environment is in the log", Duration::from_secs(5), || {
        let logs = daemon.ok("service.logs", json!({ "name": "command@env" }));
        logs["lines"].to_string().contains(&expected)
    });
}

#[test]
fn t12_http_200_with_a_body_that_says_unhealthy_is_unhealthy() {
    let daemon = Daemon::start();
    let port = free_port();
    let root = daemon.home.join("www");
    fs::create_dir_all(&root).unwrap();
    fs::write(root.join("health"), "{\"status\":\"healthy\"}").unwrap();
    let with = json!({
        "argv": ["python3", "-m", "http.server", port.to_string(), "--bind", "127.0.0.1", "--directory", root],
        "ports": { "http": port },
        "health": { "http": { "port": "http", "path": "/health", "json": { "/status": "healthy" } } },
    });
    daemon.run("body", with);
    assert_eq!(daemon.ok("service.health", json!({ "name": "command@body" }))["healthy"], true);
    fs::write(root.join("health"), "{\"status\":\"unhealthy\"}").unwrap();
    let health = daemon.ok("service.health", json!({ "name": "command@body" }));
    assert_eq!(health["healthy"], false, "{health}");
    assert!(health["detail"].as_str().unwrap().contains("unhealthy"), "{health}");
}

#[test]
fn t15_two_units_with_one_port_are_reported_before_either_starts() {
    let daemon = Daemon::start();
    let port = free_port();
    let with = |_: &str| json!({ "argv": ["sleep", "1000"], "ports": { "http": port }, "health": "none" });
    for name in ["command@one", "command@two"] {
        let report = daemon.ok("service.install", json!({ "name": name, "with": with(name) }));
        let warned = report["warnings"].to_string();
        assert_eq!(warned.contains("command@one"), name == "command@two", "{report}");
    }
    let verify = daemon.ok("service.verify", json!({ "name": "command@one" }));
    assert_eq!(verify["ok"], false, "{verify}");
    assert!(verify["checks"].to_string().contains("command@two"), "{verify}");
    daemon.ok("service.start", json!({ "name": "command@one" }));
    let error = daemon.err("service.start", json!({ "name": "command@two" }));
    assert_eq!(error["code"], -32003, "{error}");
    assert!(error["message"].as_str().unwrap().contains("command@one"), "{error}");
    assert_eq!(daemon.state("command@two"), "stopped");
}

#[test]
fn t15_a_port_that_a_stranger_holds_is_named_with_its_holder_before_the_start() {
    let daemon = Daemon::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let error = daemon.err("service.start", json!({ "name": "hello", "with": { "ports": { "http": port } } }));
    assert_eq!(error["code"], -32003, "{error}");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains(&format!("port {port} is taken by")) && message.contains(&std::process::id().to_string()),
        "{error}"
    );
    assert!(error["data"]["hint"].as_str().unwrap().contains("--port http=auto"), "{error}");
    // The stranger is left alone, and the way out that the hint names works.
    assert!(listens(port));
    let started = daemon.ok("service.start", json!({ "name": "hello", "with": { "ports": { "http": "auto" } } }));
    assert!(listens(started["ports"]["http"].as_u64().unwrap() as u16));
}

#[test]
fn t17_a_stop_of_one_run_never_acts_on_the_next() {
    let daemon = Daemon::start();
    let mut with = sh("trap 'sleep 0.3; exit 0' TERM; while :; do sleep 0.02; done");
    with["stop_timeout_s"] = json!(1);
    daemon.run("again", with);
    // A kill timer of the first run is due a second after its stop: the run that follows must not feel it.
    daemon.ok("service.restart", json!({ "name": "command@again" }));
    let before = daemon.ok("service.status", json!({ "name": "command@again" }));
    std::thread::sleep(Duration::from_millis(1800));
    let after = daemon.ok("service.status", json!({ "name": "command@again" }));
    assert_eq!((&before["pid"], &before["run"], &after["state"]), (&after["pid"], &after["run"], &json!("running")));
}

#[test]
fn t18_a_service_outlives_every_thread_that_could_have_made_it() {
    // Threads of the daemon's pool come and go: with PR_SET_PDEATHSIG a service would die with one.
    let mut daemon = Daemon::start();
    let names: Vec<String> = (0..12).map(|n| format!("command@w{n}")).collect();
    for name in &names {
        let with = sh("exec sleep 1000");
        daemon.ok("service.start", json!({ "name": name, "with": with }));
    }
    let pids: Vec<i32> = names.iter().map(|n| pid_of(&daemon, n)).collect();
    // Blocking threads end after ten idle seconds.
    std::thread::sleep(Duration::from_secs(12));
    assert!(pids.iter().all(|p| alive(*p)), "a service died with a thread");
    daemon.terminate();
    assert!(pids.iter().all(|p| alive(*p)), "a service died with the daemon");
    daemon.launch();
    assert_eq!(pids, names.iter().map(|n| pid_of(&daemon, n)).collect::<Vec<_>>());
}

/// The journal is lost: what lives is known by what stands beside its run, and nothing starts twice.
#[test]
fn t6_with_the_state_database_deleted_services_are_adopted_all_the_same() {
    let mut daemon = Daemon::start();
    let starts = daemon.home.join("starts");
    daemon.run("kept", sh(&format!("echo x >> {}; exec sleep 1000", starts.display())));
    let before = daemon.ok("service.status", json!({ "name": "command@kept" }));
    daemon.kill_9();
    for entry in fs::read_dir(daemon.home.join("state")).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("wharf.db") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    daemon.launch();
    eventually("it is adopted", Duration::from_secs(5), || {
        daemon.call("service.status", json!({ "name": "command@kept" })).is_ok_and(|s| s["state"] == "running")
    });
    let after = daemon.ok("service.status", json!({ "name": "command@kept" }));
    assert_eq!((&before["pid"], &before["run"]), (&after["pid"], &after["run"]));
    let again = daemon.ok("service.start", json!({ "name": "command@kept" }));
    assert_eq!(again["pid"], before["pid"]);
    assert_eq!(fs::read_to_string(&starts).unwrap().lines().count(), 1, "it was started again");
}

/// A download does not hold up a stop, and an install that is given up leaves the unit as it was.
#[test]
fn a_start_that_hangs_before_its_process_is_made_can_be_stopped() {
    let daemon = Daemon::start();
    let with = json!({ "argv": ["sleep", "1000"], "health": { "exec": ["sleep", "1000"] }, "start_timeout_s": 60 });
    daemon.ok("service.start", json!({ "name": "command@hangs", "with": with, "wait": false }));
    let began = Instant::now();
    daemon.ok("service.stop", json!({ "name": "command@hangs" }));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(daemon.state("command@hangs"), "stopped");
}

/// A new daemon clears away what no journal knows, and never what is started in its first instant.
#[test]
fn a_unit_that_is_started_in_the_first_instant_of_a_daemon_lives() {
    let mut daemon = Daemon::start();
    for n in 0..10 {
        daemon.run(&format!("old{n}"), sh("exec sleep 1000"));
    }
    for round in 0..5 {
        daemon.kill_9();
        daemon.launch();
        let pids: Vec<i32> = (0..3)
            .map(|n| {
                let name = format!("new{round}-{n}");
                daemon.run(&name, json!({ "argv": ["sleep", "1000"], "health": { "exec": ["true"] } }))["pid"]
                    .as_i64()
                    .unwrap() as i32
            })
            .collect();
        std::thread::sleep(Duration::from_millis(300));
        assert!(pids.iter().all(|p| alive(*p)), "round {round}: a new unit was taken for a left-over");
    }
}

/// A client in a process of its own, whose connection to the port stands when this returns.
fn connected_client(port: u16) -> std::process::Child {
    let connect = format!(
        "import socket,time; s=socket.create_connection(('127.0.0.1',{port})); print(flush=True); time.sleep(60)"
    );
    let mut client = Command::new("python3").args(["-c", &connect]).stdout(Stdio::piped()).spawn().unwrap();
    let mut told = [0];
    client.stdout.as_mut().unwrap().read_exact(&mut told).expect("the client did not connect");
    client
}

#[test]
fn t8_a_port_that_is_held_harms_neither_its_holder_nor_that_ones_clients() {
    let daemon = Daemon::start();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let mut client = connected_client(port);
    let (connection, _) = holder.accept().unwrap();
    let with = json!({ "argv": ["sleep", "1000"], "ports": { "main": port } });
    let refused = daemon.err("service.start", json!({ "name": "command@port", "with": with }));
    assert_eq!(refused["code"], -32003, "{refused}");
    assert!(client.try_wait().unwrap().is_none(), "the client was ended");
    assert!(connection.peer_addr().is_ok());
    // And a unit whose own clients live on when it is stopped.
    drop((connection, holder));
    client.kill().unwrap();
    client.wait().unwrap();
    let with = json!({
        "argv": ["python3", "-m", "http.server", "--bind", "127.0.0.1", port.to_string()],
        "ports": { "main": port }, "health": { "tcp": { "port": "main" } },
    });
    daemon.ok("service.start", json!({ "name": "command@port", "with": with, "reset": true }));
    let mut client = connected_client(port);
    daemon.ok("service.restart", json!({ "name": "command@port" }));
    assert!(client.try_wait().unwrap().is_none(), "a restart ended a client of the port");
    client.kill().unwrap();
    client.wait().unwrap();
}

#[test]
fn t22_what_was_never_placed_is_not_installed_and_not_stopped() {
    let daemon = Daemon::start();
    assert_eq!(daemon.state("redis"), "not_installed");
    let refused = daemon.err("service.start", json!({ "name": "redis" }));
    assert!(refused["message"].as_str().unwrap().contains("not installed"), "{refused}");
    assert_eq!(refused["data"]["hint"], "wharf install redis");
    assert_eq!(daemon.state("hello"), "stopped", "what needs no install is only stopped");
}

/// A start that is on its way to the launcher when it is stopped: it is over when the stop says so.
#[test]
fn what_was_stopped_before_it_began_never_begins() {
    let daemon = Daemon::start();
    daemon.run("first", sh("exec sleep 1000"));
    let launcher = parent_of(parent_of(pid_of(&daemon, "command@first")));
    let ran = daemon.home.join("ran");
    let script = format!("echo x >> {}; exec sleep 1000", ran.display());
    signal(launcher, "STOP");
    daemon.ok("service.start", json!({ "name": "command@second", "with": sh(&script), "wait": false }));
    std::thread::sleep(Duration::from_millis(100));
    let began = Instant::now();
    daemon.ok("service.stop", json!({ "name": "command@second" }));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    signal(launcher, "CONT");
    daemon.run("third", sh("exec sleep 1000"));
    std::thread::sleep(Duration::from_millis(300));
    assert!(!ran.exists(), "it began after it was stopped");
    assert_eq!(daemon.state("command@second"), "stopped");
}

fn copy_all(from: &Path, to: &Path) {
    let done = Command::new("cp").args(["-a", "-T"]).args([from, to]).status().unwrap();
    assert!(done.success());
}

/// The journal's files, and a copy of them elsewhere.
fn journal(daemon: &Daemon) -> Vec<(PathBuf, PathBuf)> {
    let copies = daemon.home.join("copies");
    fs::create_dir_all(&copies).unwrap();
    let files = ["wharf.db", "wharf.db-wal", "wharf.db-shm"];
    files.iter().map(|name| (daemon.home.join("state").join(name), copies.join(name))).collect()
}

/// The daemon is killed in the instant after a delete, before the last run's folder went.
#[test]
fn a_unit_that_was_deleted_does_not_come_back() {
    let mut daemon = Daemon::start();
    let starts = daemon.home.join("starts");
    daemon.run("gone", sh(&format!("echo x >> {}; exec sleep 1000", starts.display())));
    let run = run_of(&daemon, "command@gone");
    let folder = daemon.home.join("run/runs/command@gone").join(run.to_string());
    let copy = daemon.home.join("copy");
    copy_all(&folder, &copy);
    daemon.ok("service.delete", json!({ "name": "command@gone", "purge_data": true }));
    eventually("its folder has gone", Duration::from_secs(5), || !folder.exists());
    daemon.kill_9();
    fs::create_dir_all(folder.parent().unwrap()).unwrap();
    copy_all(&copy, &folder);
    daemon.launch();
    eventually("its folder goes again", Duration::from_secs(5), || !folder.exists());
    daemon.err("service.status", json!({ "name": "command@gone" }));
    assert_eq!(fs::read_to_string(&starts).unwrap().lines().count(), 1, "it was started again");
}

/// What was known from beside its run is in the journal from then on: the daemon after the next knows it too.
#[test]
fn t6_with_the_state_database_deleted_the_daemon_after_the_next_knows_all_that_lives() {
    let mut daemon = Daemon::start();
    let starts = daemon.home.join("starts");
    daemon.run("kept", sh(&format!("echo x >> {}; exec sleep 1000", starts.display())));
    let pid = pid_of(&daemon, "command@kept");
    daemon.kill_9();
    for (file, _) in journal(&daemon) {
        let _ = fs::remove_file(file);
    }
    for n in 0..3 {
        daemon.launch();
        eventually("it is adopted", Duration::from_secs(5), || pid_of(&daemon, "command@kept") == pid);
        // Something else is written into the new journal.
        daemon.run(&format!("other{n}"), sh("exec sleep 1000"));
        daemon.kill_9();
    }
    daemon.launch();
    eventually("it is adopted", Duration::from_secs(5), || daemon.state("command@kept") == "running");
    assert_eq!(pid_of(&daemon, "command@kept"), pid);
    assert_eq!(fs::read_to_string(&starts).unwrap().lines().count(), 1, "it was started again");
}

/// An older copy of the journal is put back, and the newest run has nothing beside it.
#[test]
fn t6_with_an_older_state_database_the_newest_run_counts() {
    let mut daemon = Daemon::start();
    let starts = daemon.home.join("starts");
    let script = format!("echo x >> {}; exec sleep 1000", starts.display());
    daemon.run("moves", sh(&script));
    let first = run_of(&daemon, "command@moves");
    daemon.terminate();
    for (file, copy) in journal(&daemon) {
        let _ = fs::copy(file, copy);
    }
    daemon.launch();
    let runs = daemon.home.join("run/runs/command@moves");
    daemon.ok("service.restart", json!({ "name": "command@moves" }));
    let second = run_of(&daemon, "command@moves");
    assert_ne!(first, second);
    let (older, copy) = (runs.join(second.to_string()), daemon.home.join("copy"));
    copy_all(&older, &copy);
    daemon.ok("service.restart", json!({ "name": "command@moves" }));
    let newest = run_of(&daemon, "command@moves");
    eventually("the run before has gone", Duration::from_secs(5), || !older.exists());
    let pid = pid_of(&daemon, "command@moves");
    daemon.kill_9();
    copy_all(&copy, &older);
    fs::remove_file(runs.join(newest.to_string()).join("unit.json")).unwrap();
    for (file, copy) in journal(&daemon) {
        let _ = fs::remove_file(&file);
        let _ = fs::copy(copy, file);
    }
    for n in 0..2 {
        daemon.launch();
        eventually("it is adopted", Duration::from_secs(5), || daemon.state("command@moves") == "running");
        assert_eq!(pid_of(&daemon, "command@moves"), pid);
        daemon.run(&format!("other{n}"), sh("exec sleep 1000"));
        daemon.kill_9();
    }
    assert_eq!(fs::read_to_string(&starts).unwrap().lines().count(), 3, "it was started again");
    daemon.launch();
}

/// A run that stands in no journal is ended, and its unit is not started beside it, however early somebody asks.
#[test]
fn nothing_is_started_beside_a_run_of_no_journal() {
    let mut daemon = Daemon::start();
    let (lock, twice) = (daemon.home.join("lock"), daemon.home.join("twice"));
    let script = format!("flock -n 9 || echo x >> {}; exec sleep 1000", twice.display());
    let alone = json!({ "argv": ["sh", "-c", format!("exec 9>{}; {script}", lock.display())] });
    daemon.run("slow", sh("exec sleep 1000"));
    let slow = pid_of(&daemon, "command@slow");
    daemon.terminate();
    for (file, copy) in journal(&daemon) {
        let _ = fs::copy(file, copy);
    }
    daemon.launch();
    daemon.run("stray", alone.clone());
    let run = run_of(&daemon, "command@stray");
    let stray = pid_of(&daemon, "command@stray");
    daemon.kill_9();
    // Nothing says whose it is; and another look takes its time, since how that one ended is not known yet.
    fs::remove_file(daemon.home.join("run/runs/command@stray").join(run.to_string()).join("unit.json")).unwrap();
    for (file, copy) in journal(&daemon) {
        let _ = fs::remove_file(&file);
        let _ = fs::copy(copy, file);
    }
    signal(parent_of(slow), "STOP");
    signal(slow, "KILL");
    daemon.launch();
    daemon.run("stray", alone);
    assert!(!alive(stray), "the run of no journal lives");
    std::thread::sleep(Duration::from_millis(200));
    assert!(!twice.exists(), "it was started beside another run of its own");
    assert_ne!(pid_of(&daemon, "command@stray"), stray);
}
