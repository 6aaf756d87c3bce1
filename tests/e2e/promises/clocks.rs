//! P15: the wall clock steps by ten years, the boot clock by days. Services, waits and durations are as before.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use wharf_tests::{Daemon, cannot, eventually, figure, wharf_binary};

use super::{pid_of, status};

fn libfaketime() -> Option<PathBuf> {
    let dirs = fs::read_dir("/usr/lib").ok()?.flatten().map(|e| e.path().join("faketime/libfaketime.so.1"));
    dirs.chain([PathBuf::from("/usr/lib/faketime/libfaketime.so.1")]).find(|p| p.exists())
}

/// Every number of milliseconds or of a restart in an answer, by name.
fn numbers<'a>(value: &'a Value, found: &mut Vec<(&'a str, f64)>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if let Some(number) = value.as_f64() {
                    found.push((key, number));
                }
                numbers(value, found);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| numbers(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// No duration is negative, or longer than this test.
fn durations_are_sane(what: &Value) {
    let mut found = vec![];
    numbers(what, &mut found);
    let is_duration = |name: &str| matches!(name, "uptime_ms" | "duration_ms" | "restart_backoff" | "after_ms");
    for (name, value) in found.into_iter().filter(|(name, _)| is_duration(name)) {
        assert!((0.0..600_000.0).contains(&value), "{name} {value}: {what}");
    }
}

fn is_as_before(daemon: &Daemon, pids: &[(String, i32)]) {
    for (name, pid) in pids {
        let found = status(daemon, name);
        assert_eq!((&found["pid"], &found["restart_count"]), (&json!(pid), &json!(0)), "{found}");
        durations_are_sane(&found);
        durations_are_sane(&daemon.ok("service.inspect", json!({ "name": name })));
    }
    durations_are_sane(&daemon.ok("rpc.health", json!({})));
}

fn begin(daemon: &Daemon) -> Vec<(String, i32)> {
    daemon.run("plain", json!({ "argv": ["sleep", "1000"] }));
    daemon.run("probed", json!({ "argv": ["sleep", "1000"], "health": { "exec": ["true"] } }));
    ["command@plain", "command@probed"].map(|name| (name.to_owned(), pid_of(daemon, name))).to_vec()
}

#[test]
fn p15_a_wall_clock_that_steps_by_ten_years_starts_nothing_and_ends_no_wait() {
    let Some(library) = libfaketime() else {
        return cannot("P15", "steps of the wall clock (libfaketime is not installed)");
    };
    let mut daemon = Daemon::prepare();
    let clock = daemon.home.join("clock");
    fs::write(&clock, "+0\n").unwrap();
    daemon = daemon
        .with_env("LD_PRELOAD", &library.display().to_string())
        .with_env("FAKETIME_TIMESTAMP_FILE", &clock.display().to_string())
        .with_env("FAKETIME_NO_CACHE", "1")
        .with_env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    daemon.launch();
    let year = |daemon: &Daemon| {
        let told = daemon.ok("event.watch", json!({ "limit": 1 }));
        1970 + told["events"][0]["at_ms"].as_i64().unwrap() / 31_556_952_000
    };
    let pids = begin(&daemon);
    let now = year(&daemon);
    let book = daemon.home.join("jobs");
    let job = json!({ "argv": ["sh", "-c", format!("echo x >> {}", book.display())] });
    daemon.ok("service.start", json!({ "name": "command@job", "with": job, "policy": { "job": true, "schedule": "0 3 * * *" }, "wait": false }));
    let jobs = || fs::read_to_string(&book).unwrap_or_default().lines().count();
    let mut seen = vec![];
    for (step, years) in [("+10y", 10), ("-10y", -10), ("+0", 0)] {
        // Each step falls into a wait for a restart, which must be neither shorter nor longer for it.
        let starts = daemon.home.join(format!("starts{years}"));
        let waiting = waits(&daemon, &starts, years);
        fs::write(&clock, format!("{step}\n")).unwrap();
        std::thread::sleep(Duration::from_secs(1));
        daemon.run(&format!("after{years}"), json!({ "argv": ["sleep", "1000"] }));
        seen.push(year(&daemon) - now);
        is_as_before(&daemon, &pids);
        ends(&starts, waiting);
        durations_are_sane(&daemon.ok("op.list", json!({})));
        let began = Instant::now();
        daemon.kill_9();
        daemon.launch();
        eventually("all are adopted", Duration::from_secs(10), || {
            pids.iter().all(|(name, _)| daemon.state(name) == "running")
        });
        assert!(began.elapsed() < Duration::from_secs(10));
        is_as_before(&daemon, &pids);
    }
    assert_eq!(seen, [10, -10, 0], "the clock did not step: is the binary static?");
    figure(
        "P15",
        &format!(
            "3 steps of the wall clock by 10 and 20 years: 0 restarts, 0 early ends of a wait, {} runs of a daily job",
            jobs()
        ),
    );
    assert!(jobs() <= 3, "a daily job ran {} times", jobs());
}

/// A unit that dies now and is to be started again in three seconds.
fn waits(daemon: &Daemon, starts: &Path, n: i32) -> Instant {
    let script =
        format!("echo x >> {0}; [ $(wc -l < {0}) -ge 2 ] && exec sleep 1000; sleep 0.3; exit 3", starts.display());
    let policy = json!({ "restart": { "delay_ms": 3000 } });
    let name = format!("command@waits{n}");
    daemon.ok(
        "service.start",
        json!({ "name": name, "with": { "argv": ["bash", "-c", script] }, "policy": policy, "wait": false }),
    );
    eventually("it has died", Duration::from_secs(10), || daemon.state(&name) == "backoff");
    Instant::now()
}

fn ends(starts: &Path, since: Instant) {
    let count = || fs::read_to_string(starts).unwrap().lines().count();
    while since.elapsed() < Duration::from_millis(2_500) {
        assert_eq!(count(), 1, "the wait ended {:?} after the death", since.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
    eventually("the wait ends", Duration::from_secs(10), || count() == 2);
}

#[test]
fn p15_another_boot_clock_is_no_reason_to_start_anything() {
    let is_there = Command::new("unshare").args(["--time", "--boottime", "864000", "true"]).status();
    if !is_there.is_ok_and(|s| s.success()) {
        return cannot("P15", "steps of the boot clock (no right to a time namespace)");
    }
    let mut daemon = Daemon::start();
    let pids = begin(&daemon);
    // Ten days in one step, and back: as if the machine had slept while no daemon lived.
    for days in [10_u64, 0] {
        daemon.kill_9();
        let script = daemon.home.join("elsewhere");
        let offset = (days * 86_400).to_string();
        let text = format!(
            "#!/bin/sh\nexec unshare --time --boottime {offset} --monotonic {offset} --kill-child {} \"$@\"\n",
            wharf_binary().display()
        );
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut elsewhere = Daemon::at(&daemon.home).with_binary(&script);
        elsewhere.launch();
        eventually("all are adopted", Duration::from_secs(10), || {
            pids.iter().all(|(name, _)| elsewhere.state(name) == "running")
        });
        std::thread::sleep(Duration::from_secs(1));
        for (name, pid) in &pids {
            let found = status(&elsewhere, name);
            assert_eq!((&found["pid"], &found["restart_count"]), (&json!(pid), &json!(0)), "{found}");
            // The run began in another time: how long ago cannot be told better than this.
            assert!(found["uptime_ms"].as_u64().is_some(), "{found}");
        }
        elsewhere.kill_9();
        // unshare's child ends with it.
        std::thread::sleep(Duration::from_millis(200));
        std::mem::forget(elsewhere);
        daemon.launch();
    }
    is_as_before(&daemon, &pids);
    figure("P15", "the boot clock 10 days ahead and back: 0 restarts");
    cannot("P15", "a suspend of the machine (nobody may put it to sleep); a boot clock that jumps stands for it");
}
