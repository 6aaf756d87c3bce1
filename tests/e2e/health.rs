//! Health as its operator sees it: how units are found to be ready and well, and what they say of themselves.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use wharf_tests::{Daemon, alive, eventually, free_port, listens};

/// The program that does what its arguments say.
fn talker() -> PathBuf {
    let path = std::env::current_exe().unwrap().parent().and_then(Path::parent).unwrap().join("wharf-talker");
    assert!(path.exists(), "{} is missing: cargo build --workspace", path.display());
    path
}

/// The parameters of a command that does these steps, then waits.
fn steps(steps: &[String]) -> Value {
    let argv: Vec<String> =
        [talker().display().to_string()].into_iter().chain(steps.iter().cloned()).chain(["wait".into()]).collect();
    json!({ "argv": argv })
}

fn status(daemon: &Daemon, name: &str) -> Value {
    daemon.ok("service.status", json!({ "name": format!("command@{name}") }))
}

/// Begins a start without waiting for it.
fn begin(daemon: &Daemon, name: &str, with: &Value, policy: &Value) {
    let params = json!({ "name": format!("command@{name}"), "with": with, "policy": policy, "wait": false });
    daemon.ok("service.start", params);
}

fn count(file: &Path) -> usize {
    fs::read_to_string(file).map(|text| text.lines().count()).unwrap_or(0)
}

/// The socket that the unit's program was told of.
fn notify_socket(pid: &Value) -> PathBuf {
    let environ = fs::read(format!("/proc/{pid}/environ")).unwrap();
    let environ = String::from_utf8_lossy(&environ).into_owned();
    environ.split('\0').find_map(|v| v.strip_prefix("NOTIFY_SOCKET=")).expect("it has a NOTIFY_SOCKET").into()
}

/// T3: a counter that is set back at the first healthy probe would never get there.
#[test]
fn t3_what_passes_a_probe_and_dies_for_ever_is_given_up_in_bounded_time() {
    let daemon = Daemon::start();
    let (port, starts) = (free_port(), daemon.home.join("starts"));
    let mut with = steps(&[
        format!("mark:{}", starts.display()),
        format!("serve:{port}:200:ok"),
        "sleep:250".into(),
        "exit:3".into(),
    ]);
    with["health"] = json!({ "http": { "port": port, "path": "/health" } });
    let policy = json!({ "restart": { "budget": 4, "delay_ms": 20, "max_delay_s": 1, "slow_retry_s": 0 } });
    begin(&daemon, "flaps", &with, &policy);
    eventually("it is given up", Duration::from_secs(20), || status(&daemon, "flaps")["state"] == "failed");
    let told = status(&daemon, "flaps");
    assert_eq!(count(&starts), 5, "one start and four restarts: {told}");
    assert_eq!(told["last_exit"], json!({ "kind": "exited", "code": 3 }));
    assert!(!told["given_up"].is_null(), "{told}");
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(count(&starts), 5, "it was started again");
}

/// T12, with a body that is held against an expression and a status that is a range.
#[test]
fn t12_a_good_status_with_a_bad_body_is_not_ready() {
    let daemon = Daemon::start();
    let port = free_port();
    let mut with = steps(&[format!("serve:{port}:207:workers 0 of 4")]);
    with["ports"] = json!({ "http": port });
    with["health"] = json!({ "http": { "path": "/health", "status": "2xx", "matches": "workers [1-9]" } });
    with["start_timeout_s"] = json!(1);
    let error = daemon.err("service.start", json!({ "name": "command@idle", "with": with }));
    let causes = error["data"]["causes"].to_string();
    assert!(causes.contains("HTTP 207, but the body does not match"), "{error}");
    daemon.ok("service.stop", json!({ "name": "command@idle" }));
    with["health"]["http"]["matches"] = json!("workers [0-9]");
    daemon.run("idle", with);
    assert_eq!(daemon.ok("service.health", json!({ "name": "command@idle" }))["detail"], "HTTP 207");
}

/// T20, scaled down: four minutes are four seconds here.
#[test]
fn t20_a_model_that_loads_slowly_is_starting_all_the_while_and_says_how_far_it_is() {
    let daemon = Daemon::start();
    let (port, starts) = (free_port(), daemon.home.join("starts"));
    let mut load = vec![format!("mark:{}", starts.display())];
    for part in 1..=8 {
        load.extend([format!("say:STATUS=loading layer {part} of 8"), "sleep:500".into()]);
    }
    load.push(format!("serve:{port}:200:ok"));
    load.push("say:STATUS=serving".into());
    let mut with = steps(&load);
    with["health"] = json!({ "http": { "port": port, "path": "/health" } });
    with["start_timeout_s"] = json!(60);
    // It is listened to, and ready is what its port says.
    begin(&daemon, "model", &with, &json!({ "watchdog_ms": 60_000 }));
    let (began, mut seen) = (Instant::now(), vec![]);
    loop {
        let told = status(&daemon, "model");
        if told["state"] == "running" {
            break;
        }
        assert_eq!(told["state"], "starting", "{told}");
        assert!(began.elapsed() < Duration::from_secs(30), "{told}");
        seen.extend(told["status_text"].as_str().map(str::to_owned));
        seen.dedup();
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(began.elapsed() >= Duration::from_secs(4), "it was ready before it had loaded");
    let layers = seen.iter().filter(|text| text.contains("loading layer")).count();
    assert!(layers >= 6, "of eight layers {layers} were seen: {seen:?}");
    assert_eq!((count(&starts), &status(&daemon, "model")["restart_count"]), (1, &json!(0)));
    let shown = daemon.cli_ok(&["status", "command@model"]).out;
    assert!(shown.contains("serving"), "{shown}");
    println!("T20: starting for {:.1} s, {layers} of 8 steps of progress seen, 1 start", began.elapsed().as_secs_f64());
}

/// T20 without a word of the program's own: its last probe is what there is to say.
#[test]
fn t20_a_program_that_says_nothing_shows_its_last_probe() {
    let daemon = Daemon::start();
    let port = free_port();
    let mut with = steps(&["sleep:2500".into(), format!("serve:{port}:200:ok")]);
    with["health"] = json!({ "http": { "port": port, "path": "/health" } });
    begin(&daemon, "mute", &with, &Value::Null);
    eventually("its last probe is shown", Duration::from_secs(2), || {
        daemon.cli_ok(&["status", "command@mute"]).out.contains("its last probe: connection refused")
    });
    eventually("it is ready", Duration::from_secs(10), || status(&daemon, "mute")["state"] == "running");
    assert!(status(&daemon, "mute")["status_text"].is_null());
}

/// T20: the program asks for more time than it was given.
#[test]
fn t20_a_start_that_is_extended_outlives_its_time_limit() {
    let daemon = Daemon::start();
    let starts = daemon.home.join("starts");
    let mut load = vec![format!("mark:{}", starts.display())];
    for _ in 0..8 {
        load.extend(["say:EXTEND_TIMEOUT_USEC=1500000".into(), "sleep:400".into()]);
    }
    load.push("say:READY=1\\nSTATUS=serving".into());
    let mut with = steps(&load);
    with["health"] = json!("notify");
    with["start_timeout_s"] = json!(1);
    let began = Instant::now();
    daemon.run("slow", with.clone());
    assert!(began.elapsed() >= Duration::from_millis(3_200), "{:?}", began.elapsed());
    let told = status(&daemon, "slow");
    assert_eq!(
        (&told["state"], &told["restart_count"], &told["status_text"]),
        (&json!("running"), &json!(0), &json!("serving"))
    );
    assert_eq!(count(&starts), 1);
    // One that does not ask is ended at its limit.
    with = steps(&["sleep:60000".into()]);
    with["health"] = json!("notify");
    with["start_timeout_s"] = json!(1);
    let error = daemon.err("service.start", json!({ "name": "command@late", "with": with }));
    assert!(error["message"].as_str().unwrap().contains("not ready within 1 s"), "{error}");
}

#[test]
fn a_program_that_no_longer_says_that_it_is_alive_is_restarted() {
    let daemon = Daemon::start();
    let starts = daemon.home.join("starts");
    let with = steps(&[
        format!("mark:{}", starts.display()),
        "say:READY=1".into(),
        "every:100:WATCHDOG=1".into(),
        "sleep:2000".into(),
        "quiet".into(),
    ]);
    let policy = json!({ "notify": true, "watchdog_ms": 600, "restart": { "delay_ms": 10 } });
    begin(&daemon, "hangs", &with, &policy);
    eventually("it runs", Duration::from_secs(5), || status(&daemon, "hangs")["state"] == "running");
    std::thread::sleep(Duration::from_millis(1_200));
    assert_eq!(count(&starts), 1, "it was restarted although it said that it is alive");
    eventually("it is restarted", Duration::from_secs(5), || count(&starts) >= 2);
    assert_eq!(status(&daemon, "hangs")["last_end"], "watchdog_timeout");
}

#[test]
fn a_program_that_says_that_it_is_sick_is_restarted_and_its_period_counts() {
    let daemon = Daemon::start();
    let (sick, period) = (daemon.home.join("sick"), daemon.home.join("period"));
    let policy = json!({ "notify": true, "watchdog_ms": 60_000, "restart": { "delay_ms": 10 } });
    let ready = "say:READY=1".to_owned();
    let with =
        steps(&[format!("mark:{}", sick.display()), ready.clone(), "sleep:500".into(), "say:WATCHDOG=trigger".into()]);
    begin(&daemon, "sick", &with, &policy);
    let with = steps(&[format!("mark:{}", period.display()), ready, "say:WATCHDOG_USEC=500000".into()]);
    begin(&daemon, "period", &with, &policy);
    eventually("both are restarted", Duration::from_secs(10), || count(&sick) >= 2 && count(&period) >= 2);
    for name in ["sick", "period"] {
        assert_eq!(status(&daemon, name)["last_end"], "watchdog_timeout", "{name}");
    }
}

/// A fleeting helper of the program's own is heard; who does not belong to the run is not.
#[test]
fn only_processes_of_the_run_are_heard() {
    let daemon = Daemon::start();
    let mut with = steps(&[]);
    with["health"] = json!("notify");
    with["start_timeout_s"] = json!(60);
    begin(&daemon, "quiet", &with, &Value::Null);
    eventually("it has a process", Duration::from_secs(5), || !status(&daemon, "quiet")["pid"].is_null());
    let socket = notify_socket(&status(&daemon, "quiet")["pid"]);
    UnixDatagram::unbound().unwrap().send_to(b"READY=1\nSTATUS=forged", &socket).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let told = status(&daemon, "quiet");
    assert_eq!((&told["state"], &told["status_text"]), (&json!("starting"), &Value::Null), "{told}");
    assert!(daemon.log().contains("not of its run"), "{}", daemon.log());

    if Command::new("systemd-notify").arg("--version").output().is_err() {
        println!("CANNOT BE DONE HERE: systemd-notify is not installed");
        return;
    }
    let script = "systemd-notify --ready --status='up by a helper'; exec sleep 1000";
    daemon.run("helper", json!({ "argv": ["sh", "-c", script], "health": "notify", "start_timeout_s": 10 }));
    assert_eq!(status(&daemon, "helper")["status_text"], "up by a helper");
}

/// A program that hands over to another process of its own, and ends: the run goes on.
#[test]
fn a_run_goes_on_with_the_main_process_that_it_names() {
    if Command::new("systemd-notify").arg("--version").output().is_err() {
        println!("CANNOT BE DONE HERE: systemd-notify is not installed");
        return;
    }
    let daemon = Daemon::start();
    let starts = daemon.home.join("starts");
    let script = format!("echo x >> {}; sleep 1000 & systemd-notify --ready MAINPID=$!; exit 0", starts.display());
    daemon.run("hands-over", json!({ "argv": ["sh", "-c", script], "health": "notify", "start_timeout_s": 10 }));
    std::thread::sleep(Duration::from_millis(500));
    let told = status(&daemon, "hands-over");
    assert_eq!((&told["state"], count(&starts)), (&json!("running"), 1), "{told}");
    let pid = told["pid"].as_i64().unwrap() as i32;
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim(), "sleep");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM).unwrap();
    eventually("its end is the run's", Duration::from_secs(5), || count(&starts) == 2);
    assert_eq!(status(&daemon, "hands-over")["last_exit"]["kind"], "signaled");
}

#[test]
fn what_is_said_while_no_daemon_lives_is_heard_by_the_next_one() {
    let mut daemon = Daemon::start();
    let (starts, go) = (daemon.home.join("starts"), daemon.home.join("went"));
    let mut with = steps(&[
        format!("mark:{}", starts.display()),
        "sleep:1500".into(),
        "say:READY=1\\nSTATUS=said in the dark".into(),
        format!("mark:{}", go.display()),
    ]);
    with["health"] = json!("notify");
    with["start_timeout_s"] = json!(30);
    begin(&daemon, "dark", &with, &Value::Null);
    eventually("it has begun", Duration::from_secs(5), || count(&starts) == 1);
    daemon.kill_9();
    eventually("it has said it", Duration::from_secs(5), || go.exists());
    daemon.launch();
    eventually("it is known to be ready", Duration::from_secs(5), || status(&daemon, "dark")["state"] == "running");
    assert_eq!(status(&daemon, "dark")["status_text"], "said in the dark");
    assert_eq!(count(&starts), 1);
}

/// The kernel keeps but a few datagrams for a reader that is gone: a program must not hang on them.
#[test]
fn a_program_that_talks_on_is_not_held_up_by_a_dead_daemon() {
    let mut daemon = Daemon::start();
    let (starts, beats) = (daemon.home.join("starts"), daemon.home.join("beats"));
    let mut list = vec![format!("mark:{}", starts.display()), "say:READY=1".into(), "every:20:WATCHDOG=1".into()];
    // Said by the main thread: if it hung, no beat would follow.
    let beat = [format!("mark:{}", beats.display()), "try:STATUS=beats".into(), "sleep:25".into()];
    list.extend((0..400).flat_map(|_| beat.clone()));
    let with = steps(&list);
    begin(&daemon, "talks", &with, &json!({ "notify": true, "watchdog_ms": 1_000 }));
    eventually("it runs", Duration::from_secs(5), || status(&daemon, "talks")["state"] == "running");
    let pid = status(&daemon, "talks")["pid"].clone();
    daemon.kill_9();
    let before = count(&beats);
    std::thread::sleep(Duration::from_millis(2_500));
    let during = count(&beats) - before;
    assert!(during > 40, "without a daemon it came {during} times as far as one in 25 ms");
    daemon.launch();
    // It goes on saying that it is alive, to the new daemon.
    std::thread::sleep(Duration::from_millis(2_500));
    let told = status(&daemon, "talks");
    assert_eq!(
        (&told["state"], &told["pid"], &told["status_text"]),
        (&json!("running"), &pid, &json!("beats")),
        "{told}"
    );
    assert_eq!(count(&starts), 1);
    println!("without a daemon for 2.5 s the program went on: {during} beats of 100");
}

#[test]
fn ready_by_a_line_of_its_log_and_well_by_its_socket() {
    let daemon = Daemon::start();
    let socket = daemon.home.join("app.sock");
    let list = [
        "log:loading".into(),
        "sleep:600".into(),
        format!("serve:{}:200:fine", socket.display()),
        "log:now listening on it".into(),
    ];
    let with = steps(&list);
    let argv: Vec<&str> = with["argv"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
    let health = format!("unix:{}:/health", socket.display());
    let mut line = vec!["run", "--name", "app", "--ready", "log:listening on", "--health", &health];
    line.extend(["--policy", "probe_early_ms=100", "--policy", "failure_threshold=2", "--"]);
    line.extend(&argv);
    let began = Instant::now();
    daemon.cli_ok(&line);
    assert!(began.elapsed() >= Duration::from_millis(600), "{:?}", began.elapsed());
    eventually("it is asked over its socket", Duration::from_secs(5), || {
        daemon.ok("service.health", json!({ "name": "command@app" }))["detail"] == "HTTP 200"
    });
    // From now on it is sick, and the line in its log does not help.
    let pid = status(&daemon, "app")["pid"].as_i64().unwrap();
    fs::remove_file(&socket).unwrap();
    eventually("it is restarted", Duration::from_secs(10), || {
        status(&daemon, "app")["pid"].as_i64().is_some_and(|now| now != pid)
    });
    assert_eq!(status(&daemon, "app")["last_end"], "unhealthy");
}

#[test]
fn one_of_several_ports_is_enough_for_any_and_all_want_each() {
    let daemon = Daemon::start();
    let (up, down) = (free_port(), free_port());
    let ask = |port: u16| json!({ "tcp": { "port": port } });
    let mut with = steps(&[format!("serve:{up}:200:ok")]);
    with["start_timeout_s"] = json!(1);
    with["health"] = json!({ "any": [ask(down), { "all": ["process", ask(up)] }] });
    daemon.run("any", with.clone());
    daemon.ok("service.stop", json!({ "name": "command@any" }));
    with["health"] = json!({ "all": [ask(up), ask(down)] });
    let error = daemon.err("service.start", json!({ "name": "command@all", "with": with }));
    assert!(error["data"]["causes"].to_string().contains("connection refused"), "{error}");
    assert!(!listens(down));
}

#[test]
fn a_question_that_cannot_be_asked_is_refused_before_anything_starts() {
    let daemon = Daemon::start();
    for (health, said) in [
        (json!({ "http": { "port": "web", "path": "/" } }), "no port \"web\""),
        (json!({ "log": "(" }), "no regular expression"),
        (json!({ "ready": { "exec": [] } }), "exec is empty"),
        (json!({ "htpp": {} }), "htpp"),
    ] {
        let with = json!({ "argv": ["sleep", "1000"], "ports": { "main": "auto" }, "health": health });
        let error = daemon.err("service.start", json!({ "name": "command@bad", "with": with }));
        assert_eq!(error["code"], -32602, "{error}");
        assert!(error["message"].as_str().unwrap().contains(said), "{health}: {error}");
    }
}

/// A unit that nobody can ask is not asked: it wakes nobody up.
#[test]
fn a_unit_without_a_question_is_never_probed() {
    let daemon = Daemon::start();
    daemon.run("plain", json!({ "argv": ["sleep", "1000"] }));
    let first = status(&daemon, "plain");
    std::thread::sleep(Duration::from_secs(6));
    let later = status(&daemon, "plain");
    assert_eq!((&later["state"], &later["healthy"]), (&json!("running"), &json!(true)));
    assert_eq!(first["last_health_check"], later["last_health_check"], "it was asked");
    assert!(alive(later["pid"].as_i64().unwrap() as i32));
}

/// The real programs: Redis and Caddy say by sd_notify that they are ready.
#[test]
fn redis_and_caddy_say_themselves_that_they_are_ready() {
    let daemon = Daemon::start();
    let binary = |service: &str, name: &str| -> PathBuf {
        let installed = daemon.ok("service.install", json!({ "name": service }));
        let paths = installed["installed_paths"].as_array().unwrap();
        paths.iter().map(|p| PathBuf::from(p.as_str().unwrap())).find(|p| p.ends_with(name)).unwrap()
    };
    let port = free_port();
    let redis = binary("redis", "redis-server");
    let libraries = redis.ancestors().nth(3).unwrap().join("usr/lib/x86_64-linux-gnu");
    daemon.run(
        "redis",
        json!({
            "argv": [redis, "--port", port.to_string(), "--supervised", "systemd", "--save", ""],
            "env": { "LD_LIBRARY_PATH": libraries }, "ports": { "main": port },
            "health": { "ready": "notify", "live": { "resp": {} } },
        }),
    );
    assert!(listens(port));
    let told = status(&daemon, "redis");
    assert!(told["status_text"].as_str().is_some_and(|text| text.contains("Ready")), "{told}");
    assert_eq!(daemon.ok("service.health", json!({ "name": "command@redis" }))["detail"], "answered \"+PONG\"");

    let (port, admin) = (free_port(), free_port());
    let file = daemon.home.join("Caddyfile");
    fs::write(&file, format!("{{\n admin 127.0.0.1:{admin}\n}}\nhttp://127.0.0.1:{port} {{\n respond \"hi\"\n}}\n"))
        .unwrap();
    let caddy = binary("caddy", "caddy");
    daemon.run(
        "caddy",
        json!({
            "argv": [caddy, "run", "--adapter", "caddyfile", "--config", file],
            "ports": { "http": port, "admin": admin },
            "health": { "ready": "notify", "live": { "http": { "port": "http" } } },
        }),
    );
    assert!(listens(port));
    assert_eq!(daemon.ok("service.health", json!({ "name": "command@caddy" }))["detail"], "HTTP 200");
    // It stops by its own word, and its end is told as it was.
    let stopped = daemon.ok("service.stop", json!({ "name": "command@caddy" }));
    assert_eq!(stopped["last_exit"]["kind"], "exited", "{stopped}");
}
