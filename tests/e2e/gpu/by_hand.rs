//! What people do by hand below `wharf gpu`, and what they read.

use serde_json::{Value, json};
use wharf_tests::{Daemon, alive, eventually, fake_engine, signal};

use super::{GIB, SOON, Stranger, daemon, engine, headroom, pid_of, wish};

fn said(daemon: &Daemon, args: &[&str]) -> String {
    daemon.cli_ok(args).out
}

/// LM-35: warm-up and drain of a unit's lease; LM-88: who the clients are, with their profiles and leases.
#[test]
fn a_unit_is_warmed_up_and_drained_and_clients_are_known() {
    let daemon = daemon(&[("sim-0", "8GiB")]);
    daemon.ok("service.start", engine("model", 6));
    daemon.ok("service.stop", json!({ "name": "command@model" }));
    let warmed = daemon.ok("gpu.warmup", json!({ "unit": "command@model" }));
    assert_eq!(warmed["lease"]["state"], "active", "LM-35: ready, not only begun");
    assert!(warmed["took_ms"].as_u64().unwrap() > 0);
    assert_eq!(daemon.ok("gpu.warmup", json!({ "unit": "command@model" }))["took_ms"], 0, "it is warm");
    let pid = pid_of(&daemon, "command@model");

    let clients = daemon.ok("gpu.clients", json!({}));
    let row = &clients["clients"][0];
    assert_eq!((&row["client"], &row["kind"]), (&json!("command@model"), &json!("unit")), "LM-88");
    assert_eq!(row["profile"]["vram_bytes"], 6 * GIB);
    assert_eq!(row["leases"], json!([warmed["lease"]["lease"]]));
    let text = said(&daemon, &["gpu", "clients"]);
    assert!(text.contains("command@model") && text.contains("6.0 GiB") && text.contains("normal"), "{text}");

    let text = said(&daemon, &["gpu", "drain", "command@model"]);
    assert!(text.contains("their memory is back"), "LM-35: {text}");
    assert!(!alive(pid));
    assert!(headroom(&daemon, 0) > 7 * GIB);
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(daemon.state("command@model"), "stopped", "it does not come back by itself");
    assert_eq!(daemon.ok("service.status", json!({ "name": "command@model" }))["want"], "up", "and stays wanted");
    let text = said(&daemon, &["gpu", "warmup", "command@model"]);
    assert!(text.starts_with("command@model is ready after") && text.contains("6.0 GiB of sim-0"), "{text}");
    let learned = daemon.ok("gpu.calibrate", json!({}));
    let row = &learned["holders"][0];
    assert_eq!((&row["holder"], row["loads"].as_u64() > Some(1)), (&json!("command@model"), true), "{learned:#}");
    let text = said(&daemon, &["gpu", "calibrate"]);
    assert!(text.contains("command@model") && text.contains("6.0 GiB"), "{text}");
    let refused = daemon.err("gpu.warmup", json!({ "unit": "hello" }));
    assert_eq!(refused["code"], -32008, "it asks for none: {refused:#}");
}

/// LM-32: a GPU status command.
#[test]
fn a_person_reads_who_has_what_and_what_a_wish_would_come_to() {
    let daemon = daemon(&[("sim-0", "8GiB"), ("sim-1", "8GiB")]);
    daemon.ok("service.start", engine("model", 6));
    let text = said(&daemon, &["gpu"]);
    for part in ["0 sim-0\n", "1 sim-1\n", "[AAAA", "A  command@model", "active", "can be handed out"] {
        assert!(text.contains(part), "LM-32: {part:?} is not in\n{text}");
    }
    let whole: Value = daemon.cli_ok(&["gpu", "--json"]).json();
    assert_eq!(whole["devices"]["devices"].as_array().unwrap().len(), 2);
    assert_eq!(whole["queue"]["waiting"], json!([]));

    let text = said(&daemon, &["gpu", "plan", "--vram", "5GiB"]);
    assert!(text.starts_with("yes, at once\n  fits on sim-1"), "{text}");
    let never = daemon.cli(&["gpu", "plan", "--vram", "22GiB"]);
    assert_eq!(never.code, 4);
    assert!(never.out.starts_with("no\n") && never.out.contains("7.7 GiB"), "the most there is: {never:?}");
    let wait = daemon.cli(&["gpu", "plan", "--vram", "5GiB", "--devices", "2"]);
    assert_eq!(wait.code, 4);
    assert!(
        wait.out.starts_with("not now: it would wait, as number 1") && wait.out.contains("command@model"),
        "{wait:?}"
    );
    let text = said(&daemon, &["gpu", "plan", "--vram", "5GiB", "--devices", "2", "--preempt", "force"]);
    assert!(text.contains("would stop command@model (6.0 GiB, reload"), "{text}");
    assert_eq!(daemon.cli(&["gpu", "plan", "--vram", "lots"]).code, 2);
    let misspelled = daemon.err("gpu.acquire", json!({ "request": { "vram": GIB } }));
    assert_eq!(misspelled["code"], -32602, "a misspelled size is not a whole device");

    let worth = daemon.ok("gpu.explain", json!({ "unit": "command@model" }))["value"].clone();
    let [reload, expected, credit, weight, value] =
        ["reload_ms", "expected_uses_micro", "credit_ms", "weight", "value"].map(|name| worth[name].as_u64().unwrap());
    assert_eq!(
        (reload * expected / 1_000_000 + credit) * weight / 60,
        value,
        "what is shown is what decides: {worth:#}"
    );
    assert!(value > 0 && expected > 0 && weight == 60, "{worth:#}");
    let text = said(&daemon, &["gpu", "explain", "command@model"]);
    assert!(text.contains("command@model has its devices") && text.contains("worth"), "{text}");
    let text = said(&daemon, &["gpu", "ps"]);
    assert!(text.contains("wharf-fake-engine") && text.contains("command@model's, by lease-"), "{text}");
    let text = said(&daemon, &["gpu", "leases"]);
    assert!(text.contains("command@model") && text.contains("5.7 GiB"), "{text}");
}

#[test]
fn devices_are_kept_free_and_taken_out_of_use_and_holders_are_pinned_by_hand() {
    let mut daemon = daemon(&[("sim-0", "8GiB"), ("sim-1", "8GiB")]);
    said(&daemon, &["gpu", "reserve", "0", "3GiB"]);
    said(&daemon, &["gpu", "taint", "sim-1", "--reason", "the fan is loud"]);
    daemon.kill_9();
    daemon.launch();
    eventually("it outlives the daemon", SOON, || headroom(&daemon, 0) < 5 * GIB);
    let program = Stranger::lives();
    let refused = daemon.err(
        "gpu.acquire",
        json!({
            "request": { "vram_bytes": GIB, "only": ["sim-1"] }, "pid": program.pid(), "wait_ms": 0
        }),
    );
    assert_eq!(refused["code"], -32017, "{refused:#}");
    assert!(refused["message"].as_str().unwrap().contains("the fan is loud"), "{refused:#}");
    said(&daemon, &["gpu", "untaint", "1"]);
    said(&daemon, &["gpu", "reserve", "0", "0"]);

    let granted = daemon.ok("gpu.acquire", wish(&program, 6));
    let lease = format!("lease-{}", granted["lease"]["lease"]);
    assert_eq!(said(&daemon, &["gpu", "pin", &lease, "1h"]).trim(), format!("{lease} is pinned for 1 h"));
    let revoked = daemon.cli(&["gpu", "revoke", &lease]);
    assert_eq!((revoked.code, revoked.err.contains("--force")), (4, true), "{revoked:?}");
    let mut forced = engine("model", 6);
    forced["policy"]["gpu"]["only"] =
        granted["lease"]["devices"][0]["device"].clone().as_str().map(|id| json!([id])).unwrap();
    forced["force"] = true.into();
    let refused = daemon.err("service.start", forced);
    assert_eq!(refused["code"], -32002, "pinned is pinned: {refused:#}");
    assert!(alive(program.pid()));

    let text = said(&daemon, &["gpu", "drain", "--device", "sim-0", "--force", "--reason", "driver update"]);
    assert!(text.contains("their memory is back") || text.contains("nobody was there"), "{text}");
    let device = daemon.ok("gpu.list", json!({}))["devices"][0].clone();
    assert_eq!(device["taints"][0]["reason"], "driver update");
    assert_eq!(device["charges"], json!([]));
}

#[test]
fn a_service_gets_its_gpu_by_a_flag_and_keeps_it_over_restarts_deaths_and_daemons() {
    let mut daemon = daemon(&[("sim-0", "8GiB")]);
    let engine = fake_engine().display().to_string();
    let bytes = (5 * GIB).to_string();
    said(&daemon, &["run", "--name", "model", "--gpu", "6GiB", "--", &engine, "--bytes", &bytes]);
    let policy = daemon.ok("service.inspect", json!({ "name": "command@model" }))["policy"]["gpu"].clone();
    assert_eq!(policy["vram_bytes"], 6 * GIB);
    let row = || daemon.ok("gpu.leases", json!({ "unit": "command@model" }))["leases"][0].clone();
    let first = row();
    said(&daemon, &["restart", "command@model"]);
    eventually("the old memory is back, the new is there", SOON, || {
        let list = daemon.ok("gpu.leases", json!({}));
        list["leases"].as_array().unwrap().len() == 1 && list["leases"][0]["state"] == "active"
    });
    assert!(row()["epoch"].as_u64() > first["epoch"].as_u64(), "another grant");

    let pid = pid_of(&daemon, "command@model");
    signal(pid, "KILL");
    eventually("it lives again, with its GPU", SOON, || {
        daemon.state("command@model") == "running" && pid_of(&daemon, "command@model") != pid
    });
    eventually("one lease", SOON, || {
        let list = daemon.ok("gpu.leases", json!({}));
        list["leases"].as_array().unwrap().len() == 1 && list["leases"][0]["state"] == "active"
    });
    let (before, pid) = (row(), pid_of(&daemon, "command@model"));
    daemon.kill_9();
    daemon.launch();
    let after = daemon.ok("gpu.leases", json!({ "unit": "command@model" }))["leases"][0].clone();
    assert_eq!((&after["lease"], &after["epoch"]), (&before["lease"], &before["epoch"]), "C15: it is found again");
    eventually("the same run", SOON, || pid_of(&daemon, "command@model") == pid);
    let env = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert!(String::from_utf8_lossy(&env).contains("WHARF_GPU_DEVICES=sim-0\0"), "C16: it sees its own device");
}

/// C16: a program that asked for no GPU is shown none where Wharf hands them out.
#[test]
fn a_service_without_a_gpu_sees_none() {
    let daemon = daemon(&[("sim-0", "8GiB")]);
    daemon.ok("gpu.list", json!({ "fresh_within_ms": 5000 }));
    daemon.run("plain", json!({ "argv": ["sleep", "600"] }));
    let env = std::fs::read(format!("/proc/{}/environ", pid_of(&daemon, "command@plain"))).unwrap();
    let env = String::from_utf8_lossy(&env).into_owned();
    assert!(env.contains("CUDA_VISIBLE_DEVICES=\0"), "{}", env.replace('\0', "\n"));
}
