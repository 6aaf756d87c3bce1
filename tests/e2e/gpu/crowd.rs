//! Many who want one device, on the stand-in driver that gives memory back late: nobody runs out of memory, nobody is
//! forgotten, whatever happens to the daemon meanwhile.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use wharf_tests::{Daemon, FakeGpus, fake_engine};

use super::{GIB, SOON, Stranger};

const CARD: &str = "GPU-00000000-0000-0000-0000-0000000000aa";

/// A machine with one card of so many GiB whose memory comes back 150 ms after an end.
fn machine(gib: u64) -> (Daemon, FakeGpus) {
    let daemon = Daemon::prepare();
    let gpus = FakeGpus::new(&daemon.home, &[(CARD, gib * GIB)]);
    gpus.edit(|state| state.release_lag_ms = 150);
    let mut daemon = gpus.env().iter().fold(daemon, |daemon, (name, value)| daemon.with_env(name, value));
    daemon.launch();
    (daemon, gpus)
}

/// Numbers that look like chance: the same in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// Looks ten times a second until told to end: the most that was really taken, and how often the ledger counted less
/// than its holders had.
fn watched(daemon: &Daemon, gpus: &FakeGpus, over: &AtomicBool) -> (u64, u32, u32) {
    let (mut most, mut short, mut looks) = (0, 0, 0);
    while !over.load(Ordering::Relaxed) {
        let before = gpus.taken(CARD);
        let list = daemon.call("gpu.list", json!({}));
        let after = gpus.taken(CARD);
        if let Some(card) = list.ok().and_then(|list| list["devices"].as_array()?.first().cloned()) {
            let charges = card["charges"].as_array().cloned().unwrap_or_default();
            let charged: u64 = charges.iter().filter_map(|row| row["charge_bytes"].as_u64()).sum();
            // Memory comes and goes between two looks: what was there before and after must be in the ledger.
            short += u32::from(charged < before.min(after));
            most = most.max(before).max(after);
            looks += 1;
        }
        thread::sleep(Duration::from_millis(100));
    }
    (most, short, looks)
}

#[test]
fn arbiter_1_three_of_60_gib_on_141_gib_never_run_out_of_memory() {
    let (daemon, gpus) = machine(141);
    let env: serde_json::Map<String, Value> =
        gpus.env().into_iter().map(|(name, value)| (name, value.into())).collect();
    let names = ["command@a", "command@b", "command@c"];
    let bytes = (60 * GIB).to_string();
    let engine = fake_engine().display().to_string();
    for name in names {
        let with = json!({ "argv": [engine, "--bytes", bytes, "--load-ms", "30"], "env": env });
        let policy = json!({
            "gpu": { "vram_bytes": 60 * GIB, "min_residency_ms": 0 }, "restart": { "budget": 0 }, "ready_after_ms": 60,
        });
        daemon.ok("service.install", json!({ "name": name, "with": with, "policy": policy }));
    }
    let over = AtomicBool::new(false);
    let ((most, short, looks), starts) = thread::scope(|scope| {
        let looking = scope.spawn(|| watched(&daemon, &gpus, &over));
        let (mut chance, mut starts) = (Chance(7), 0);
        let end = Instant::now() + Duration::from_secs(15);
        while Instant::now() < end {
            let name = names[chance.below(3) as usize];
            // Who is sent away meanwhile says so: that is no fault.
            let started = daemon.call("service.start", json!({ "name": name, "force": true }));
            starts += u32::from(started.is_ok());
        }
        over.store(true, Ordering::Relaxed);
        (looking.join().unwrap(), starts)
    });
    let ooms: usize = names
        .iter()
        .map(|name| {
            let logs = daemon.ok("service.logs", json!({ "name": name, "lines": 10_000 }));
            logs["lines"].as_array().unwrap().iter().filter(|line| **line == "out of memory").count()
        })
        .sum();
    println!(
        "FIGURE arbiter 1: {starts} starts of three 60 GiB services on 141 GiB: {ooms} out of memory, at most {} GiB \
         taken; ledger below the driver in {short} of {looks} looks",
        most / GIB
    );
    assert!(starts > 20, "{starts}");
    assert_eq!((ooms, short), (0, 0));
    assert!(most <= 141 * GIB);
}

/// An acquire of which the daemon may die: the grant, where one came back.
fn tried(daemon: &Daemon, wish: &Value) -> Option<Value> {
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "gpu.acquire", "params": wish });
    let reply = wharf_tests::post(&daemon.rpc_socket(), &call.to_string()).ok()?;
    let answer: Value = serde_json::from_str(&reply.body).ok()?;
    answer.get("result").cloned()
}

#[test]
fn arbiter_2_a_daemon_that_is_killed_again_and_again_loses_no_lease_and_grants_none_twice() {
    let (mut daemon, _gpus) = machine(16);
    let mut chance = Chance(11);
    let mut holders: Vec<(Stranger, String)> = vec![];
    let (mut kills, mut granted) = (0, 0);
    for round in 0..25 {
        // Asked for with a key, so that a caller whose connection broke can ask again and gets the same.
        let stranger = Stranger::lives();
        let key = format!("round-{round}");
        let wish = json!({
            "request": { "vram_bytes": 2 * GIB }, "pid": stranger.pid(), "wait_ms": 0, "client_key": key,
        });
        let after_ms = chance.below(12);
        let pid = daemon.pid();
        let killer = thread::spawn(move || {
            thread::sleep(Duration::from_millis(after_ms));
            wharf_tests::signal(pid, "KILL");
        });
        let first = tried(&daemon, &wish);
        killer.join().unwrap();
        kills += 1;
        daemon.kill_9();
        daemon.launch();
        let again = daemon.call("gpu.acquire", wish);
        if let Some(first) = &first {
            let again = again.as_ref().unwrap_or_else(|e| panic!("what was granted is gone: {e}"));
            let of = |answer: &Value| (answer["lease"]["lease"].clone(), answer["lease"]["epoch"].clone());
            assert_eq!(of(first), of(again), "the same key, the same grant");
        }
        if again.is_ok() {
            granted += 1;
            holders.push((stranger, key));
        }
        let card = daemon.ok("gpu.list", json!({ "fresh_within_ms": 5000 }))["devices"][0].clone();
        let charges = card["charges"].as_array().cloned().unwrap_or_default();
        let charged: u64 = charges.iter().filter_map(|row| row["charge_bytes"].as_u64()).sum();
        assert_eq!(charged, holders.len() as u64 * 2 * GIB, "a lease each, and no other: {card:#}");
        if holders.len() > 5 {
            drop(holders.remove(0));
            wharf_tests::eventually("its lease is over", SOON, || {
                daemon.ok("gpu.leases", json!({}))["leases"].as_array().unwrap().len() == holders.len()
            });
        }
    }
    println!("FIGURE arbiter 2: {kills} kills of the daemon around a grant: {granted} granted, 0 lost, 0 twice");
    assert!(granted >= 20, "{granted}");
}
