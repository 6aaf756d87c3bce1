//! P6, P7: a stop is complete, whatever is to be stopped; a service that dies at once is not tried for ever.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::json;
use wharf_tests::{Daemon, beside, eventually, figure, processes_with};

use super::{SLACK, status};

const BOMB: usize = 1_000;
const GRACE: Duration = Duration::from_millis(200);

#[test]
fn p6_a_bomb_of_a_thousand_processes_is_gone_right_after_the_kill() {
    let daemon = Daemon::start();
    let mark = daemon.home.join("bomb").display().to_string();
    let with = json!({ "argv": [beside("wharf-witness"), mark, "x", "bomb", BOMB.to_string()] });
    let policy = json!({ "stop_timeout_ms": GRACE.as_millis() as u64 });
    daemon.ok("service.start", json!({ "name": "command@bomb", "with": with, "policy": policy }));
    eventually("all processes are there", Duration::from_secs(60), || {
        let logs = daemon.ok("service.logs", json!({ "name": "command@bomb" }));
        logs["lines"].as_array().unwrap().iter().any(|line| line == &format!("all {BOMB} are there"))
    });
    let before = processes_with(&mark).len();
    let began = Instant::now();
    let report = daemon.ok("service.stop", json!({ "name": "command@bomb" }));
    let took = began.elapsed();
    let left = processes_with(&mark);
    assert_eq!(left, Vec::<i32>::new(), "processes live on");
    assert!(before > BOMB, "{before} processes");
    assert!(took >= GRACE, "it was to ignore SIGTERM: {report}");
    let after_kill = took - GRACE;
    figure(
        "P6",
        &format!("{before} processes that ignore SIGTERM and replace each other: gone {after_kill:.0?} after SIGKILL"),
    );
    assert!(after_kill < Duration::from_millis(200) * SLACK, "{after_kill:?}");
    assert_eq!(status(&daemon, "command@bomb")["last_end"], "killed");
}

#[test]
fn p7_a_service_that_dies_at_once_is_started_seven_times_at_most() {
    let daemon = Daemon::start();
    let starts = daemon.home.join("starts");
    let script = format!("echo $$ >> {}; sleep 0.05; exit 7", starts.display());
    // Everything as usual but for shorter waits: a storm would be the harder.
    let policy = json!({ "restart": { "delay_ms": 20, "max_delay_s": 1 } });
    let params =
        json!({ "name": "command@storm", "with": { "argv": ["sh", "-c", script] }, "policy": policy, "wait": false });
    daemon.ok("service.start", params);
    eventually("it is given up", Duration::from_secs(30), || status(&daemon, "command@storm")["state"] == "failed");
    std::thread::sleep(Duration::from_secs(2));
    let count = fs::read_to_string(&starts).unwrap().lines().count();
    let found = status(&daemon, "command@storm");
    figure("P7", &format!("started {count} times, then failed: {}", found["given_up"]));
    assert!((2..=7).contains(&count), "{count} starts");
    assert_eq!(found["given_up"], "restart_intensity", "{found}");
    // Those who listen are told.
    let told = daemon.ok("event.watch", json!({ "since": 0, "kinds": ["unit.phase"], "limit": 1000 }));
    assert!(told["events"].as_array().unwrap().iter().any(|e| e["to"] == "failed" && e["unit"] == "command@storm"));
}
