//! A daemon that hangs, shims that hang, a daemon without descriptors: services and logs go on, and all recovers.

use std::{
    os::unix::net::UnixStream,
    process::Command,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use wharf_tests::{Daemon, alive, eventually, figure, processes_with};

use super::{pid_of, status};

fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

fn shims(daemon: &Daemon) -> Vec<i32> {
    let mark = daemon.home.join("state/shim").display().to_string();
    processes_with(&mark).into_iter().filter(|pid| *pid != daemon.pid()).collect()
}

/// The numbers that a counting unit has written so far, which must be without a hole.
fn counted(daemon: &Daemon, name: &str) -> u64 {
    let (mut cursor, mut next) = (format!("{name}/1/0"), 1);
    loop {
        let page = daemon.ok("service.logs", json!({ "name": name, "lines": 10_000, "cursor": cursor }));
        for line in page["lines"].as_array().unwrap() {
            assert_eq!(line, &json!(format!("line {next}")));
            next += 1;
        }
        cursor = page["cursor"].as_str().unwrap().to_owned();
        if page["more"] == false {
            return next - 1;
        }
    }
}

#[test]
fn p1_a_daemon_and_shims_that_hang_hold_no_service_and_no_log_up() {
    let daemon = Daemon::start();
    let script = "n=0; while :; do n=$((n+1)); echo line $n; sleep 0.01; done";
    daemon.run("counts", json!({ "argv": ["sh", "-c", script] }));
    let pid = pid_of(&daemon, "command@counts");
    let before = counted(&daemon, "command@counts");

    send(daemon.pid(), Signal::SIGSTOP);
    std::thread::sleep(Duration::from_secs(5));
    assert!(alive(pid));
    send(daemon.pid(), Signal::SIGCONT);
    let began = Instant::now();
    let during = counted(&daemon, "command@counts");
    let answered = began.elapsed();
    assert!(during > before + 200, "{before} lines before, {during} after five seconds of a stopped daemon");

    let held: Vec<i32> = shims(&daemon);
    assert!(!held.is_empty());
    held.iter().for_each(|pid| send(*pid, Signal::SIGSTOP));
    std::thread::sleep(Duration::from_secs(2));
    let after = counted(&daemon, "command@counts");
    assert!(after > during + 80, "{during} lines before, {after} after two seconds of stopped shims");
    // What is asked of a run whose shim hangs is done all the same.
    let began = Instant::now();
    daemon.ok("service.stop", json!({ "name": "command@counts" }));
    let stopped = began.elapsed();
    assert!(!alive(pid));
    eventually("the shim is told to go on, and says how it ended", Duration::from_secs(5), || {
        status(&daemon, "command@counts")["last_exit"]["kind"] == "signaled"
    });
    assert!(stopped < Duration::from_secs(5), "{stopped:?}");
    for pid in shims(&daemon) {
        send(pid, Signal::SIGCONT);
    }
    daemon.ok("service.start", json!({ "name": "command@counts" }));
    figure(
        "P1",
        &format!(
            "daemon stopped for 5 s: 0 of {during} lines lost, answers after {answered:.0?}; stop under a stopped shim {stopped:.0?}"
        ),
    );
}

#[test]
fn p17_a_daemon_without_descriptors_spins_not_and_takes_up_its_work_when_there_are_some() {
    let daemon = Daemon::start();
    daemon.run("lives", json!({ "argv": ["sleep", "1000"] }));
    let pid = pid_of(&daemon, "command@lives");
    let limit = |n: &str| {
        let set = Command::new("prlimit").args([format!("--pid={}", daemon.pid()), format!("--nofile={n}")]).status();
        assert!(set.unwrap().success());
    };
    limit("40:4096");
    let crowd: Vec<UnixStream> = (0..200).filter_map(|_| UnixStream::connect(daemon.socket()).ok()).collect();
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
        let fields: Vec<u64> =
            stat.rsplit(')').next().unwrap().split_whitespace().map(|f| f.parse().unwrap_or(0)).collect();
        fields[11] + fields[12]
    };
    let (before, began) = (ticks(), Instant::now());
    std::thread::sleep(Duration::from_secs(2));
    let busy = (ticks() - before) as f64 / began.elapsed().as_secs_f64();
    // Root still gets in: to look, and to stop what runs.
    let began = Instant::now();
    assert_eq!(status(&daemon, "command@lives")["pid"], pid);
    let answered = began.elapsed();
    let refused =
        daemon.call("service.start", json!({ "name": "command@more", "with": { "argv": ["sleep", "1000"] } }));
    daemon.ok("service.stop", json!({ "name": "command@lives" }));
    assert!(!alive(pid));
    drop(crowd);
    limit("1024:4096");
    eventually("it starts services again", Duration::from_secs(20), || {
        let started =
            daemon.call("service.start", json!({ "name": "command@after", "with": { "argv": ["sleep", "1000"] } }));
        started.is_ok()
    });
    figure(
        "P17",
        &format!(
            "{} clients and 40 descriptors: {busy:.0} % of a core, status after {answered:.0?}, a start {}",
            200,
            if refused.is_ok() { "went through" } else { "was refused with a reason" }
        ),
    );
    assert!(busy < 10.0, "{busy} % of a core");
}
