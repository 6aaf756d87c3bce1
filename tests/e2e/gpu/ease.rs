//! Holders that make room and stay: parked, woken, made smaller; and those that only say so.

use std::time::Duration;

use serde_json::{Value, json};
use wharf_tests::{Daemon, alive, eventually, fake_engine, free_port};

use super::{GIB, SOON, Stranger, daemon, headroom, leases, pid_of, wish};
use crate::front::Line;

/// An engine of 6 GiB that can sleep with 1 GiB, and can do with 3.
fn sleeper(name: &str, gpu: &Value) -> Value {
    let port = free_port();
    let at = |path: &str| format!("http://127.0.0.1:{port}{path}");
    let mut policy = json!({ "vram_bytes": 6 * GIB, "min_residency_ms": 0, "preempt": "force" });
    policy.as_object_mut().unwrap().extend(gpu.as_object().unwrap().clone());
    json!({
        "name": format!("command@{name}"),
        "with": {
            "argv": [fake_engine().display().to_string(), "--bytes", (6 * GIB - (GIB >> 2)).to_string()],
            "ports": { "http": port },
            "health": { "http": { "port": "http", "path": "/health" } },
            "park": ["curl", "-sf", "-X", "POST", at(&format!("/sleep/{GIB}"))],
            "wake": ["curl", "-sf", "-X", "POST", at("/wake")],
            "downsize": ["sh", "-c", format!("curl -sf -X POST {}$WHARF_GPU_BYTES", at("/hold/"))],
        },
        "policy": { "gpu": policy, "failure_threshold": 2, "probe_early_ms": 200, "probe_steady_ms": 200 },
    })
}

fn lease_state(daemon: &Daemon, unit: &str) -> String {
    leases(daemon, unit)
        .iter()
        .find(|row| row["wakes"].is_null())
        .map_or_else(String::new, |row| row["state"].as_str().unwrap().into())
}

/// The mildest that is enough: a unit that can sleep is not stopped, and comes back without loading.
#[test]
fn who_can_sleep_sleeps_while_another_has_the_device_and_wakes_up_again() {
    let daemon = daemon(&[("sim-0", "8GiB")]);
    let can_sleep = json!({ "parked_bytes": GIB });
    daemon.ok("service.start", sleeper("first", &can_sleep));
    let first = pid_of(&daemon, "command@first");
    let plan = daemon.ok("gpu.plan", json!({ "request": { "vram_bytes": 6 * GIB, "preempt": "force" } }));
    assert_eq!(
        (&plan["actions"][0]["do"], &plan["actions"][0]["frees_bytes"]),
        (&json!("park"), &json!(5 * GIB)),
        "{plan:#}"
    );
    let text = plan["explain"][0].as_str().unwrap();
    assert!(text.starts_with("would park command@first (5.0 GiB"), "{text}");

    daemon.ok("service.start", sleeper("second", &can_sleep));
    let second = pid_of(&daemon, "command@second");
    assert_eq!(
        (lease_state(&daemon, "command@first").as_str(), alive(first)),
        ("parked", true),
        "it sleeps, and lives"
    );
    assert_eq!(lease_state(&daemon, "command@second"), "active");
    assert!(headroom(&daemon, 0) < GIB, "what it kept counts");
    // Its health question is answered by 503 all the while: nobody starts it anew for that.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!((daemon.state("command@first").as_str(), pid_of(&daemon, "command@first")), ("running", first));

    // A start of one that sleeps wakes it, and the other has to sleep in its stead.
    daemon.ok("service.start", json!({ "name": "command@first" }));
    assert_eq!(pid_of(&daemon, "command@first"), first, "the same process");
    assert_eq!(lease_state(&daemon, "command@first"), "active");
    assert_eq!((lease_state(&daemon, "command@second").as_str(), alive(second)), ("parked", true));
    let told = daemon.cli_ok(&["gpu", "leases"]).out;
    assert!(told.contains("parked"), "{told}");
}

#[test]
fn a_sleeper_is_known_to_a_new_daemon_and_wakes_there() {
    let mut daemon = daemon(&[("sim-0", "8GiB")]);
    daemon.ok("service.start", sleeper("model", &json!({ "parked_bytes": GIB })));
    let pid = pid_of(&daemon, "command@model");
    let said = daemon.cli_ok(&["gpu", "park", "command@model"]).out;
    assert!(said.contains("sleeps"), "{said}");
    assert_eq!(lease_state(&daemon, "command@model"), "parked");
    assert!(headroom(&daemon, 0) > 6 * GIB, "its memory can be handed out");
    daemon.kill_9();
    daemon.launch();
    eventually("the new daemon knows that it sleeps", SOON, || lease_state(&daemon, "command@model") == "parked");
    let said = daemon.cli_ok(&["gpu", "unpark", "command@model"]).out;
    assert!(said.contains("is awake"), "{said}");
    assert_eq!((lease_state(&daemon, "command@model").as_str(), pid_of(&daemon, "command@model")), ("active", pid));
    assert!(headroom(&daemon, 0) < 2 * GIB);
}

#[test]
fn who_can_do_with_less_is_made_smaller_and_works_on() {
    let daemon = daemon(&[("sim-0", "8GiB")]);
    daemon.ok("service.start", sleeper("model", &json!({ "parked_bytes": GIB, "downsize_bytes": 3 * GIB })));
    let pid = pid_of(&daemon, "command@model");
    let other = Stranger::lives();
    let mut asks = wish(&other, 4);
    asks["request"]["preempt"] = json!("force");
    asks["wait_ms"] = json!(20_000);
    let granted = daemon.ok("gpu.acquire", asks);
    assert_eq!(granted["lease"]["state"], "active", "{granted:#}");
    let row = &leases(&daemon, "command@model")[0];
    assert_eq!((&row["state"], &row["devices"][0]["declared_bytes"]), (&json!("active"), &json!(3 * GIB)), "{row:#}");
    assert_eq!(pid_of(&daemon, "command@model"), pid);
}

/// Nobody is believed before it was seen: one that says that it sleeps and keeps its memory is stopped in time.
#[test]
fn who_only_says_that_it_sleeps_is_stopped_before_another_has_its_memory() {
    let daemon = daemon(&[("sim-0", "8GiB")]);
    let mut liar = sleeper("liar", &json!({ "parked_bytes": GIB, "drain_ms": 1_000, "preempt": "never" }));
    liar["with"]["park"] = json!(["true"]);
    daemon.ok("service.start", liar);
    let pid = pid_of(&daemon, "command@liar");
    let other = Stranger::lives();
    let mut asks = wish(&other, 6);
    asks["request"]["preempt"] = json!("force");
    asks["wait_ms"] = json!(90_000);
    let granted = daemon.ok("gpu.acquire", asks);
    assert_eq!(granted["lease"]["state"], "active", "{granted:#}");
    assert!(!alive(pid), "its memory was never seen back: it had to end");
}

#[test]
fn a_program_is_asked_by_its_heartbeat_and_says_when_it_sleeps() {
    let daemon = daemon(&[("sim-0", "8GiB")]);
    let (holder, other) = (Stranger::lives(), Stranger::lives());
    let mut asks = wish(&holder, 6);
    asks["request"]["parked_bytes"] = json!(GIB);
    let lease = daemon.ok("gpu.acquire", asks)["lease"].clone();
    let own = json!({ "lease": lease["lease"], "epoch": lease["epoch"] });
    let mut asks = wish(&other, 6);
    asks["request"]["preempt"] = json!("force");
    asks["wait_ms"] = json!(0);
    // Who does not wait has the patience for one who makes room; the heartbeat comes meanwhile.
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| daemon.ok("gpu.acquire", asks));
        eventually("the heartbeat says what is wanted", SOON, || {
            let renewed = daemon.ok("gpu.renew", own.clone());
            let wish = &renewed["asked_to_yield"];
            (&wish["do"], &wish["to_bytes"]) == (&json!("park"), &json!(GIB))
        });
        let mut sleeps = own.clone();
        sleeps["keeps_bytes"] = json!(GIB);
        let ack = daemon.ok("gpu.park", sleeps);
        assert_eq!(ack["state"], "parked");
        assert_eq!(waits.join().unwrap()["lease"]["state"], "active");
    });
    let refused = daemon.err("gpu.unpark", json!({ "lease": own["lease"], "epoch": own["epoch"], "wait_ms": 0 }));
    assert_eq!(refused["code"], -32011, "another has it: {refused:#}");
    let stale = daemon.err("gpu.park", json!({ "lease": own["lease"], "epoch": 99 }));
    assert_eq!(stale["code"], -32015, "{stale:#}");
    drop(other);
    let awake = daemon.ok("gpu.unpark", json!({ "lease": own["lease"], "epoch": own["epoch"], "wait_ms": 20_000 }));
    assert_eq!(awake["state"], "active");
}

/// Whoever knocks at the front of one that sleeps is held until it is awake.
#[test]
fn a_request_at_its_front_wakes_a_unit_that_sleeps() {
    let daemon = daemon(&[("sim-0", "8GiB")]);
    let (front, inner) = (free_port(), free_port());
    let at = |path: &str| format!("http://127.0.0.1:{inner}{path}");
    let run = format!("exec {} --bytes {} --port {inner}", fake_engine().display(), 5 * GIB);
    daemon.ok(
        "service.start",
        json!({
            "name": "command@model",
            "with": {
                "argv": ["sh", "-c", run], "ports": { "http": front, "inner": inner },
                "health": { "http": { "port": "inner", "path": "/health" } },
                "park": ["curl", "-sf", "-X", "POST", at(&format!("/sleep/{GIB}"))],
                "wake": ["curl", "-sf", "-X", "POST", at("/wake")],
            },
            "policy": {
                "gpu": { "vram_bytes": 6 * GIB, "min_residency_ms": 0, "parked_bytes": GIB },
                "on_demand": { "front": { "http": "inner" }, "idle_stop_s": 0 },
            },
        }),
    );
    let pid = pid_of(&daemon, "command@model");
    daemon.cli_ok(&["gpu", "park", "command@model"]);
    assert_eq!(lease_state(&daemon, "command@model"), "parked");
    let heard = Line::to(front).unwrap().get("/v1/models").unwrap();
    assert_eq!(heard.status, 200, "it was awake before it was asked: {heard:?}");
    assert_eq!((lease_state(&daemon, "command@model").as_str(), pid_of(&daemon, "command@model")), ("active", pid));
}
