//! What holders say of themselves, and what is told of them.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use wharf_tests::{Daemon, Document, eventually, fake_engine};

use super::{GIB, SOON, Stranger, daemon, engine, headroom, wish};

fn held(granted: &Value) -> Value {
    json!({ "lease": granted["lease"]["lease"], "epoch": granted["lease"]["epoch"] })
}

/// A call whose answer is read line by line, by hand.
fn begin(daemon: &Daemon, params: &Value) -> UnixStream {
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "gpu.acquire", "params": params }).to_string();
    let mut stream = UnixStream::connect(daemon.rpc_socket()).unwrap();
    let head = "POST /rpc HTTP/1.1\r\nHost: wharf\r\nContent-Type: application/json\r\nAccept: application/x-ndjson";
    write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    stream
}

fn waiting(daemon: &Daemon) -> usize {
    daemon.ok("gpu.queue", json!({}))["waiting"].as_array().unwrap().len()
}

#[test]
fn who_works_is_left_in_peace_and_who_has_nothing_to_do_leaves_for_others() {
    let daemon = daemon(&[("sim-0", "8GiB")]);
    let (worker, asker) = (Stranger::lives(), Stranger::lives());
    let granted = daemon.ok("gpu.acquire", wish(&worker, 6));
    let held = held(&granted);
    let mut busy = held.clone();
    busy["requests"] = 2.into();
    daemon.ok("gpu.busy", busy);
    let mut polite = wish(&asker, 6);
    polite["request"]["preempt"] = "idle".into();
    let refused = daemon.err("gpu.acquire", polite.clone());
    assert_eq!(refused["code"], -32011);
    let stays = &refused["data"]["detail"]["blockers"][0]["leases"][0]["stays"];
    assert_eq!(stays, "it works on 2 requests", "{refused:#}");
    assert_eq!(daemon.err("gpu.revoke", json!({ "lease": held["lease"] }))["code"], -32021, "by hand neither");
    daemon.ok("gpu.idle", held);
    let began = Instant::now();
    assert_eq!(daemon.ok("gpu.acquire", polite)["lease"]["state"], "active");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop(worker);
}

#[test]
fn a_lease_shrinks_always_and_grows_only_into_what_is_free() {
    let daemon = daemon(&[("sim-0", "8GiB")]);
    let (one, two) = (Stranger::lives(), Stranger::lives());
    let mut size = held(&daemon.ok("gpu.acquire", wish(&one, 5)));
    size["vram_bytes"] = (7 * GIB).into();
    daemon.ok("gpu.acquire", wish(&two, 2));
    let refused = daemon.err("gpu.update", size.clone());
    assert_eq!(refused["code"], -32016, "it never waits while it holds: {refused:#}");
    size["vram_bytes"] = GIB.into();
    daemon.ok("gpu.update", size.clone());
    assert!(headroom(&daemon, 0) > 4 * GIB);
    size["vram_bytes"] = (5 * GIB).into();
    daemon.ok("gpu.update", size);
}

#[test]
fn who_takes_more_than_it_declared_and_who_never_asked_are_told() {
    let daemon = daemon(&[("sim-0", "8GiB")]);
    let mut greedy = engine("greedy", 2);
    greedy["with"]["argv"] = json!([fake_engine().display().to_string(), "--bytes", (5 * GIB).to_string()]);
    daemon.ok("service.start", greedy);
    let _stranger = Stranger::takes(&daemon, "sim-0", GIB);
    let told = |kind: &str| {
        daemon.ok("gpu.list", json!({ "fresh_within_ms": 2000 }));
        let history = daemon.ok("event.watch", json!({ "since": 0, "kinds": [kind], "limit": 10 }));
        history["events"].as_array().unwrap().first().cloned()
    };
    eventually("the greedy one is told", SOON, || told("gpu.over_declared").is_some());
    let row = told("gpu.over_declared").unwrap();
    assert_eq!((&row["unit"], &row["measured_bytes"]), (&json!("command@greedy"), &json!(5 * GIB)), "{row:#}");
    eventually("the stranger is told", SOON, || told("gpu.foreign").is_some());
    let row = told("gpu.foreign").unwrap();
    assert!(row["who"][0].as_str().unwrap().contains("wharf-fake-engine (pid "), "{row:#}");
    let said = daemon.cli_ok(&["events", "--kind", "gpu"]).out;
    assert!(said.contains("takes 5.0 GiB on sim-0 and declared 2.0 GiB"), "{said}");
    assert!(said.contains("1.0 GiB of sim-0 taken without a lease"), "{said}");
    assert!(headroom(&daemon, 0) < 2 * GIB, "what is measured counts, not what was declared");
    let learned = daemon.ok("gpu.calibrate", json!({}));
    assert!(learned["holders"][0]["suggested_bytes"].as_u64() > Some(5 * GIB), "{learned:#}");
}

#[test]
fn who_waits_is_told_where_it_stands_and_who_hangs_up_takes_its_request_along() {
    let daemon = daemon(&[("sim-0", "8GiB")]);
    let (first, second) = (Stranger::lives(), Stranger::lives());
    let granted = daemon.ok("gpu.acquire", wish(&first, 6));
    let mut params = wish(&second, 6);
    params.as_object_mut().unwrap().remove("wait_ms");
    let hangs_up = begin(&daemon, &params);
    eventually("it waits", SOON, || waiting(&daemon) == 1);
    drop(hangs_up);
    eventually("nobody asks any more", SOON, || waiting(&daemon) == 0);

    params["client_key"] = "comes-back".into();
    let hangs_up = begin(&daemon, &params);
    eventually("it waits", SOON, || waiting(&daemon) == 1);
    drop(hangs_up);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(waiting(&daemon), 1, "with a key it may come back");
    let mut again = BufReader::new(begin(&daemon, &params)).lines().map(Result::unwrap);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(waiting(&daemon), 1, "and is the same request");
    daemon.ok("gpu.release", held(&granted));
    let document = Document::load_rpc();
    let answer = again.find_map(|line| {
        let said: Value = serde_json::from_str(&line).ok()?;
        if said["method"] == "gpu.progress" {
            document.check_event("gpu.progress", &said["params"]).unwrap();
        }
        said.get("result").cloned()
    });
    let answer = answer.expect("an answer");
    document.check_result("gpu.acquire", &answer).unwrap();
    assert_eq!(answer["lease"]["client_key"], "comes-back");
    assert_eq!(answer["lease"]["held_by"]["pid"], second.pid());
}
