//! The journeys from end to end: one GPU, two services that want it, and what depends on them.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
};

use serde_json::{Value, json};
use wharf_tests::{alive, eventually, free_port};

use super::{GIB, SOON, Stranger, daemon, engine, headroom, leases, pid_of, wish};

/// What the engine on this port answers.
fn answer(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(SOON)).ok()?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// An engine that answers, and is ready when it does.
fn serving(name: &str, port: u16) -> Value {
    let mut start = engine(name, 6);
    let argv = start["with"]["argv"].as_array_mut().unwrap();
    argv.extend(["--port".into(), port.to_string().into()]);
    start["with"]["ports"] = json!({ "http": port });
    start["with"]["health"] = json!({ "http": { "path": "/" } });
    start
}

/// SN-98 to SN-101: a GPU service is started and works, another one fails, with `force` the first stops and the second
/// starts, and when all are stopped nothing is left. SN-89, SN-90: the refusal, and what `force` waits for.
#[test]
fn sn98_from_the_first_start_to_the_last_stop() {
    let daemon = daemon(&[("sim-0", "8GiB")]);
    let (one, two) = (free_port(), free_port());
    let free = headroom(&daemon, 0);
    daemon.ok("service.start", serving("one", one));
    assert_eq!(daemon.state("command@one"), "running", "SN-98");
    assert!(answer(one).is_some_and(|text| text.starts_with("HTTP/1.1 200")), "SN-98: it works");
    assert_eq!(leases(&daemon, "command@one")[0]["state"], "active", "SN-98: and has its GPU");
    let first = pid_of(&daemon, "command@one");

    let refused = daemon.err("service.start", serving("two", two));
    assert_eq!(refused["code"], -32002, "SN-99, SN-89: in use, a conflict: 409 in REST");
    assert_eq!(refused["data"]["detail"]["blockers"][0]["leases"][0]["holder"], "command@one", "SN-89: by whom");
    assert!(answer(two).is_none() && answer(one).is_some(), "SN-99: nothing else happened");

    let mut forced = serving("two", two);
    forced["force"] = true.into();
    daemon.ok("service.start", forced);
    assert!(!alive(first), "SN-100: the first is stopped");
    assert!(answer(one).is_none() && answer(two).is_some(), "SN-100: and the second works");
    let history = daemon.ok("event.watch", json!({ "since": 0, "kinds": ["gpu.lease", "unit.ended"], "limit": 1000 }));
    let rows = history["events"].as_array().unwrap();
    let at = |unit: &str, what: (&str, &str)| {
        rows.iter().rposition(|row| row["unit"] == unit && row[what.0] == what.1).unwrap_or_else(|| panic!("{rows:#?}"))
    };
    let order = [
        at("command@one", ("state", "draining")),
        at("command@one", ("kind", "unit.ended")),
        at("command@one", ("state", "gone")),
        at("command@two", ("state", "starting")),
    ];
    assert!(order.is_sorted(), "SN-90: its end, and its memory, are waited for: {order:?}");

    for name in ["command@one", "command@two"] {
        daemon.ok("service.stop", json!({ "name": name }));
    }
    eventually("SN-101: nobody has a GPU or waits for one", SOON, || {
        daemon.ok("gpu.leases", json!({}))["leases"].as_array().unwrap().is_empty()
    });
    assert_eq!(headroom(&daemon, 0), free, "SN-101: all memory is back");
    assert_eq!(daemon.ok("gpu.processes", json!({}))["processes"], json!([]), "SN-101: nobody is there");
    assert!(answer(one).is_none() && answer(two).is_none(), "SN-101: nobody listens");
    for name in ["command@one", "command@two"] {
        assert_eq!(daemon.state(name), "stopped", "SN-101");
    }
}

/// LM-122: a warm-up or a drain that fails is told as the failure of what it was asked of, with its code.
#[test]
fn lm122_a_failed_warm_up_or_drain_is_the_failure_of_the_unit_that_is_needed() {
    let daemon = daemon(&[("sim-0", "8GiB")]);
    let gpu = json!({ "vram_bytes": GIB, "min_residency_ms": 0 });
    let broken = json!({
        "name": "command@model", "with": { "argv": ["sh", "-c", "echo no weights; exit 22"] },
        "policy": { "gpu": gpu, "restart": { "budget": 0 } },
    });
    daemon.ok("service.install", broken);
    let failed = daemon.err("gpu.warmup", json!({ "unit": "command@model" }));
    assert_eq!((&failed["code"], &failed["data"]["service"]), (&json!(-32006), &json!("command@model")), "{failed:#}");
    assert!(failed["message"].as_str().unwrap().contains("22"), "LM-122: its exit code: {failed:#}");
    let said = daemon.cli(&["gpu", "warmup", "command@model"]);
    assert!(said.code != 0 && said.err.contains("22") && said.err.contains("command@model"), "{said:?}");

    // Who needs it is told whose failure it is, and with which code.
    let needs = json!({ "needs": [{ "unit": "command@model" }] });
    let chat = json!({ "name": "command@chat", "with": { "argv": ["sleep", "600"] }, "policy": needs });
    let refused = daemon.err("service.start", chat);
    let text = refused["message"].as_str().unwrap();
    assert!(text.contains("command@chat needs command@model"), "LM-122: whose: {refused:#}");
    assert!(refused["data"]["causes"].to_string().contains("exited with code 22"), "LM-122: its code: {refused:#}");
    let why = daemon.ok("deps.why", json!({ "name": "command@chat" }));
    assert!(why["because"].to_string().contains("exited with code 22"), "LM-122: {why:#}");

    // A drain that is refused: by whom, why, and with a code of its own.
    let holder = Stranger::lives();
    let granted = daemon.ok("gpu.acquire", wish(&holder, 2));
    let (lease, epoch) = (granted["lease"]["lease"].clone(), granted["lease"]["epoch"].clone());
    daemon.ok("gpu.busy", json!({ "lease": lease, "epoch": epoch, "requests": 3 }));
    let refused = daemon.err("gpu.drain", json!({ "lease": lease }));
    assert_eq!(refused["code"], -32021, "{refused:#}");
    assert!(refused["message"].as_str().unwrap().contains("works on 3 requests"), "LM-122: {refused:#}");
    let refused = daemon.err("gpu.drain", json!({ "unit": "command@chat" }));
    assert_eq!(refused["code"], -32002, "LM-122: it has none: {refused:#}");
    assert!(alive(holder.pid()));
}

/// SN-58: only what asks for a GPU sees one; C16: what asked for none is shown none where Wharf hands them out.
#[test]
fn sn58_only_a_service_that_asks_for_a_gpu_gets_gpu_devices() {
    let daemon = daemon(&[("sim-0", "8GiB"), ("sim-1", "8GiB")]);
    daemon.ok("gpu.list", json!({ "fresh_within_ms": 5000 }));
    daemon.ok("service.start", engine("with", 6));
    daemon.run("without", json!({ "argv": ["sleep", "600"] }));
    let seen = |name: &str| -> Vec<(String, String)> {
        let env = std::fs::read(format!("/proc/{}/environ", pid_of(&daemon, name))).unwrap();
        let text = String::from_utf8_lossy(&env).into_owned();
        let pairs = text.split('\0').filter_map(|line| line.split_once('='));
        let of_gpus =
            |name: &str| name.contains("VISIBLE_DEVICES") || name.contains("GPU") || name.contains("SIMULATED");
        pairs.filter(|(name, _)| of_gpus(name)).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    assert_eq!(seen("command@without"), [("CUDA_VISIBLE_DEVICES".to_owned(), String::new())], "SN-58");
    let with = seen("command@with");
    let granted = leases(&daemon, "command@with")[0]["devices"][0]["device"].as_str().unwrap().to_owned();
    assert!(with.contains(&("WHARF_GPU_DEVICES".to_owned(), granted)), "SN-58: {with:?}");
}
