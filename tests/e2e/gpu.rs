//! Who may use which GPU, by a real daemon: on devices of a file, with programs that take what they would take.

mod by_hand;
mod crowd;
mod ease;
mod holder;
mod journey;
mod run;
mod strangers;

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use wharf_tests::{Daemon, FakeGpus, alive, eventually, fake_engine};

const GIB: u64 = 1 << 30;
const SOON: Duration = Duration::from_secs(15);

/// A daemon on a machine with these devices.
fn daemon(devices: &[(&str, &str)]) -> Daemon {
    let mut daemon = Daemon::prepare();
    fs::create_dir_all(daemon.home.join("config")).unwrap();
    let text: String =
        devices.iter().map(|(id, total)| format!("[[device]]\nid = \"{id}\"\ntotal = \"{total}\"\n")).collect();
    fs::write(daemon.home.join("config/gpus.toml"), text).unwrap();
    daemon.launch();
    daemon
}

/// A program that nobody asked to, which takes so much of a device. It ends with the value.
struct Stranger(Child);

impl Stranger {
    fn takes(daemon: &Daemon, device: &str, bytes: u64) -> Self {
        let mut engine = Command::new(fake_engine());
        engine.args(["--bytes", &bytes.to_string(), "--device", device]).env_remove("PORT");
        engine.env("WHARF_SIMULATED_FOLDER", daemon.home.join("units/.gpus")).stdout(Stdio::piped());
        let mut child = engine.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "ready"), "it has its memory");
        Self(child)
    }

    /// One that only lives, and can hold a lease.
    fn lives() -> Self {
        Self(Command::new("sleep").arg("600").spawn().unwrap())
    }

    fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Params of a start of a program that takes so much of a GPU and says that it needs a little more.
fn engine(name: &str, gib: u64) -> Value {
    let bytes = (gib * GIB - (GIB >> 2)).to_string();
    json!({
        "name": format!("command@{name}"),
        "with": { "argv": [fake_engine().display().to_string(), "--bytes", bytes] },
        "policy": { "gpu": { "vram_bytes": gib * GIB, "min_residency_ms": 0 } },
    })
}

/// Params of an acquire for a process that lives.
fn wish(holder: &Stranger, gib: u64) -> Value {
    json!({ "request": { "vram_bytes": gib * GIB, "min_residency_ms": 0 }, "pid": holder.pid(), "wait_ms": 0 })
}

/// The states of a unit's leases.
fn leases(daemon: &Daemon, unit: &str) -> Vec<Value> {
    daemon.ok("gpu.leases", json!({ "unit": unit }))["leases"].as_array().unwrap().clone()
}

fn headroom(daemon: &Daemon, at: usize) -> u64 {
    daemon.ok("gpu.list", json!({ "fresh_within_ms": 2000 }))["devices"][at]["headroom_bytes"].as_u64().unwrap()
}

fn pid_of(daemon: &Daemon, unit: &str) -> i32 {
    i32::try_from(daemon.ok("service.status", json!({ "name": unit }))["pid"].as_i64().unwrap_or(0)).unwrap()
}

/// SN-5 one GPU service at a time where both do not fit; SN-32 another one is looked for; SN-33 without `force` it is
/// refused; SN-34, SN-7 with it the other is stopped first; SN-6, SN-36, SN-37, SN-46, SN-47 who runs is known.
#[test]
fn t1_a_start_without_force_stops_nobody_and_names_the_holder_and_with_it_the_holder_goes_first() {
    let daemon = daemon(&[("sim-0", "8GiB")]);
    daemon.ok("service.start", engine("first", 6));
    let held = leases(&daemon, "command@first");
    assert_eq!((held.len(), &held[0]["state"]), (1, &json!("active")), "SN-6, SN-37: who has the GPU is known");
    let devices = daemon.ok("gpu.list", json!({}))["devices"].clone();
    assert_eq!(devices[0]["charges"][0]["holder"], "command@first", "SN-6, SN-37: also from the device's side");
    assert_eq!(daemon.state("command@first"), "running", "SN-36");
    let first = pid_of(&daemon, "command@first");

    let refused = daemon.err("service.start", engine("second", 6));
    assert_eq!(refused["code"], -32002, "SN-32, SN-33: a conflict, 409 in REST");
    let text = refused["message"].as_str().unwrap();
    assert!(text.contains("command@first"), "the holder is named: {text}");
    assert_eq!(refused["data"]["detail"]["blockers"][0]["leases"][0]["holder"], "command@first");
    assert_eq!(pid_of(&daemon, "command@first"), first, "nothing was stopped");
    assert!(alive(first));
    assert_ne!(daemon.state("command@second"), "running", "and nothing started");
    assert!(leases(&daemon, "command@second").is_empty());
    let said = daemon.cli(&["start", "command@second"]);
    assert_eq!(said.code, 4, "{said:?}");
    assert!(said.err.contains("command@first"), "{said:?}");

    let mut forced = engine("second", 6);
    forced["force"] = true.into();
    daemon.ok("service.start", forced);
    assert!(!alive(first), "SN-34, SN-7: the holder was stopped first");
    assert_eq!(leases(&daemon, "command@second")[0]["state"], "active");
    let over = |row: &Value| row["state"] == "queued";
    assert!(leases(&daemon, "command@first").iter().all(over), "SN-47: it has nothing, and waits at most");
    assert_ne!(daemon.state("command@first"), "running", "SN-46");
    let devices = daemon.ok("gpu.list", json!({}))["devices"].clone();
    assert_eq!(devices[0]["charges"].as_array().unwrap().len(), 1, "SN-5: one of them: {devices:#}");
    assert_eq!(devices[0]["charges"][0]["holder"], "command@second", "SN-7, SN-47");
    let history = daemon.ok("event.watch", json!({ "since": 0, "kinds": ["gpu.lease"], "limit": 1000 }));
    let states: Vec<(&str, &str)> = history["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["unit"].as_str().unwrap(), row["state"].as_str().unwrap()))
        .collect();
    let at = |wanted: (&str, &str)| states.iter().rposition(|state| *state == wanted).unwrap();
    let (gone, granted) = (at(("command@first", "gone")), at(("command@second", "starting")));
    assert!(gone < granted, "SN-5: never both: {states:?}");

    daemon.ok("service.stop", json!({ "name": "command@second" }));
    eventually("the first, which is wanted still, has its turn again", SOON, || {
        daemon.state("command@first") == "running"
    });
    daemon.ok("service.stop", json!({ "name": "command@first" }));
    eventually("SN-47: nobody has a GPU", SOON, || {
        daemon.ok("gpu.leases", json!({}))["leases"].as_array().unwrap().is_empty()
    });
}

#[test]
fn t24_on_a_host_without_a_gpu_a_service_that_needs_one_is_refused_and_not_started() {
    let daemon = Daemon::start();
    let bare = daemon.ok("gpu.list", json!({ "fresh_within_ms": 5000 }));
    if bare["devices"].as_array().is_some_and(|all| !all.is_empty()) {
        println!("CANNOT BE DONE HERE: a host without a GPU: this one has {}", bare["devices"][0]["name"]);
        return;
    }
    let refused = daemon.err("service.start", engine("needy", 6));
    assert!(refused["message"].as_str().unwrap().contains("host has no GPU"), "LM-123: {refused:#}");
    assert_eq!(refused["code"], -32008);
    assert_ne!(daemon.state("command@needy"), "running");
    let said = daemon.cli(&["gpu", "run", "--vram", "1GiB", "--", "true"]);
    assert_eq!((said.code, said.err.contains("host has no GPU")), (4, true), "{said:?}");
    assert!(daemon.cli_ok(&["gpu"]).out.contains("this host has no GPU"));
}

/// Acceptance 4.
#[test]
fn t50_an_impossible_request_evicts_nobody() {
    let daemon = daemon(&[("sim-0", "8GiB"), ("sim-1", "8GiB")]);
    daemon.ok("service.start", engine("model", 6));
    let before = (pid_of(&daemon, "command@model"), daemon.ok("gpu.leases", json!({}))["leases"][0]["lease"].clone());
    let program = Stranger::lives();
    for need in [
        json!({ "vram_bytes": 9 * GIB, "preempt": "force" }),
        json!({ "devices": 3, "vram_bytes": GIB, "preempt": "force" }),
        json!({ "devices": 2, "vram_bytes": 8 * GIB, "preempt": "force", "alternatives": [{ "devices": 5 }] }),
    ] {
        let refused = daemon.err("gpu.acquire", json!({ "request": need, "pid": program.pid() }));
        assert_eq!(refused["code"], -32010, "{refused:#}");
        assert!(refused["data"]["detail"]["largest_bytes"].as_u64().is_some(), "the most there is: {refused:#}");
        let plan = daemon.ok("gpu.plan", json!({ "request": need }));
        assert_eq!((&plan["feasible"], plan["actions"].as_array().unwrap().len()), (&json!(false), 0));
    }
    let after = (pid_of(&daemon, "command@model"), daemon.ok("gpu.leases", json!({}))["leases"][0]["lease"].clone());
    assert_eq!(before, after, "the same run with the same lease");
}

#[test]
fn t52_a_renewal_after_release_or_expiry_is_refused() {
    let daemon = daemon(&[("sim-0", "8GiB")]);
    let (program, other) = (Stranger::lives(), Stranger::lives());
    let mut params = wish(&program, 2);
    params["client_key"] = "job-1".into();
    let granted = daemon.ok("gpu.acquire", params.clone());
    let again = daemon.ok("gpu.acquire", params);
    for field in ["lease", "epoch"] {
        assert_eq!(again["lease"][field], granted["lease"][field], "the same key is the same lease");
    }
    let held = json!({ "lease": granted["lease"]["lease"], "epoch": granted["lease"]["epoch"] });
    daemon.ok("gpu.renew", held.clone());
    let stale = json!({ "lease": held["lease"], "epoch": held["epoch"].as_u64().unwrap() + 1 });
    assert_eq!(daemon.err("gpu.renew", stale)["code"], -32015, "another grant's number");
    daemon.ok("gpu.release", held.clone());
    assert_eq!(daemon.err("gpu.renew", held.clone())["code"], -32015, "released");
    assert_eq!(daemon.err("gpu.release", held)["code"], -32015, "and only once");

    let mut params = wish(&other, 2);
    params["ttl_ms"] = 1000.into();
    let granted = daemon.ok("gpu.acquire", params);
    let held = json!({ "lease": granted["lease"]["lease"], "epoch": granted["lease"]["epoch"] });
    std::thread::sleep(Duration::from_millis(600));
    daemon.ok("gpu.renew", held.clone());
    std::thread::sleep(Duration::from_millis(600));
    daemon.ok("gpu.renew", held.clone());
    eventually("nobody renews it", SOON, || daemon.ok("gpu.leases", json!({}))["leases"][0]["state"] == "expired");
    assert_eq!(daemon.err("gpu.renew", held)["code"], -32015, "a renewal revives nothing");
    assert!(headroom(&daemon, 0) < 6 * GIB, "its holder lives: it counts");
    drop(other);
    eventually("its holder's end gives it back", SOON, || headroom(&daemon, 0) > 7 * GIB);
}

/// T51, acceptance 3.
#[test]
fn a_stranger_who_takes_memory_between_plan_and_acquire_is_named() {
    let daemon = daemon(&[("sim-0", "8GiB")]);
    let program = Stranger::lives();
    let request = json!({ "vram_bytes": 6 * GIB });
    assert_eq!(daemon.ok("gpu.plan", json!({ "request": request }))["at_once"], true);
    let stranger = Stranger::takes(&daemon, "sim-0", 5 * GIB);
    let refused = daemon.err("gpu.acquire", wish(&program, 6));
    assert_eq!(refused["code"], -32013, "{refused:#}");
    let name = format!("wharf-fake-engine (pid {}", stranger.pid());
    assert!(refused["message"].as_str().unwrap().contains(&name), "{refused:#}");
    let listed = daemon.ok("gpu.processes", json!({}));
    assert_eq!(listed["processes"][0]["whose"], "foreign", "{listed:#}");
    drop(stranger);
    assert_eq!(daemon.ok("gpu.acquire", wish(&program, 6))["lease"]["state"], "active", "it has left");
}

/// Acceptance 5.
#[test]
fn a_holder_that_hears_no_sigterm_is_killed_and_its_memory_seen_back_before_the_next_one_starts() {
    let daemon = daemon(&[("sim-0", "8GiB")]);
    let mut deaf = daemon.command();
    let bytes = (5 * GIB).to_string();
    deaf.args(["gpu", "run", "--vram", "6GiB", "--drain", "1s", "--name", "deaf", "--"]);
    deaf.arg(fake_engine()).args(["--bytes", &bytes, "--on-term", "ignore"]).stdout(Stdio::null());
    let mut deaf = deaf.spawn().unwrap();
    let victim = deaf.id().cast_signed();
    eventually("it has its memory", SOON, || daemon.ok("gpu.processes", json!({}))["processes"][0]["whose"] == "lease");

    let began = Instant::now();
    let mut forced = engine("next", 6);
    forced["force"] = true.into();
    daemon.ok("service.start", forced);
    assert!(began.elapsed() >= Duration::from_secs(1), "it had its second to end: {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(!deaf.wait().unwrap().success() && !alive(victim));
    let history = daemon.ok("event.watch", json!({ "since": 0, "kinds": ["gpu.lease"], "limit": 1000 }));
    let rows = history["events"].as_array().unwrap();
    let at = |holder: &str, state: &str| {
        let is_it = |row: &Value| row["holder"].as_str().unwrap().starts_with(holder) && row["state"] == state;
        rows.iter().position(is_it).unwrap_or_else(|| panic!("{holder} {state}: {rows:#?}"))
    };
    let order = [at("deaf", "draining"), at("deaf", "reclaiming"), at("deaf", "gone"), at("command@next", "starting")];
    assert!(order.is_sorted(), "{order:?}");
}

/// The rest of acceptance 5. The driver that keeps the memory is the stand-in.
#[test]
fn memory_that_does_not_come_back_is_quarantined_and_handed_to_nobody() {
    const CARD: &str = "GPU-00000000-0000-0000-0000-00000000000c";
    let (mut daemon, gpus) = FakeGpus::daemon(&[CARD]);
    daemon.launch();
    let mut leaky = daemon.command();
    leaky.args(["gpu", "run", "--vram", "6GiB", "--name", "leaky", "--"]);
    leaky.arg(fake_engine()).args(["--bytes", &(5 * GIB).to_string(), "--leaks"]).stdout(Stdio::null());
    let mut leaky = leaky.spawn().unwrap();
    eventually("it has its memory", SOON, || gpus.taken(CARD) == 5 * GIB);
    eventually("and was seen", SOON, || daemon.ok("gpu.processes", json!({}))["processes"][0]["whose"] == "lease");
    leaky.kill().unwrap();
    leaky.wait().unwrap();
    let lease = || daemon.ok("gpu.leases", json!({}))["leases"][0].clone();
    eventually("its memory is awaited", SOON, || lease()["state"] == "reclaiming");
    let program = Stranger::lives();
    assert_eq!(daemon.err("gpu.acquire", wish(&program, 6))["code"], -32011, "it is not handed out meanwhile");
    eventually("in vain", Duration::from_secs(60), || lease()["state"] == "quarantined");
    assert!(lease()["devices"][0]["charge_bytes"].as_u64().unwrap() >= 4 * GIB, "{:#}", lease());
    let said = daemon.cli_ok(&["gpu"]).out;
    assert!(said.contains("quarantined") && said.contains("leaky"), "{said}");
    assert_eq!(daemon.ok("gpu.acquire", wish(&program, 2))["lease"]["state"], "active", "what is left is of use");
}

/// Acceptance 8.
#[test]
fn what_a_plan_says_is_what_the_acquire_does() {
    let daemon = daemon(&[("sim-0", "8GiB"), ("sim-1", "12GiB"), ("sim-2", "16GiB")]);
    let mut holders = vec![];
    for need in [
        json!({ "vram_bytes": 3 * GIB }),
        json!({ "vram_bytes": 5 * GIB }),
        json!({ "vram_bytes": 11 * GIB }),
        json!({ "devices": 2, "vram_bytes": 2 * GIB }),
        json!({ "vram_bytes": 30 * GIB }),
        json!({ "exclusive": true }),
        json!({ "vram_bytes": 7 * GIB, "alternatives": [{ "vram_bytes": 4 * GIB }] }),
        json!({ "vram_bytes": 15 * GIB, "preempt": "force" }),
    ] {
        let holder = Stranger::lives();
        let mut params = json!({ "request": need, "pid": holder.pid(), "wait_ms": 0 });
        let plan = daemon.ok("gpu.plan", json!({ "request": need }));
        params["dry_run"] = true.into();
        let dry = daemon.ok("gpu.acquire", params.clone());
        assert_eq!(dry["plan"]["placement"], plan["placement"], "{need}");
        params["dry_run"] = false.into();
        let chosen = |rows: &Value| -> Vec<String> {
            rows.as_array().unwrap().iter().map(|share| share["device"].to_string()).collect()
        };
        match daemon.call("gpu.acquire", params) {
            Ok(granted) => {
                assert_eq!(plan["feasible"], true, "{need}: {plan:#}");
                assert_eq!(chosen(&granted["lease"]["devices"]), chosen(&plan["placement"]), "{need}");
                assert_eq!(granted["lease"]["alternative"], plan["alternative"], "{need}");
            }
            Err(refused) => {
                assert_eq!(plan["feasible"], false, "{need}: {refused:#}");
                assert_eq!(refused["data"]["kind"], plan["failure"]["kind"], "{need}");
            }
        }
        holders.push(holder);
    }
}
