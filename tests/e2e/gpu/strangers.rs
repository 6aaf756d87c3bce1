//! Programs that never asked: adopted, ignored, and told of as it happens.

use std::{fs, process::Stdio};

use serde_json::{Value, json};
use wharf_tests::{Daemon, FakeGpus, alive, cannot, eventually, fake_engine};

use super::{GIB, SOON, Stranger, daemon, leases, wish};

const CARD: &str = "GPU-00000000-0000-0000-0000-0000000000ad";

/// A daemon on a machine with one card of 8 GiB, and its driver.
fn machine() -> (Daemon, FakeGpus) {
    let (mut daemon, gpus) = FakeGpus::daemon(&[CARD]);
    daemon.launch();
    (daemon, gpus)
}

/// A program that takes so much of the card without asking.
fn outside(gpus: &FakeGpus, args: &[&str]) -> Stranger {
    let mut engine = gpus.engine(&[&["--device", CARD], args].concat());
    let child = engine.stdout(Stdio::null()).spawn().unwrap();
    eventually("it has its memory", SOON, || gpus.taken(CARD) > 0);
    Stranger(child)
}

fn card(daemon: &Daemon) -> Value {
    daemon.ok("gpu.list", json!({ "fresh_within_ms": 5000 }))["devices"][0].clone()
}

/// Whose each process is, as `gpu ps` has it.
fn whose(daemon: &Daemon, pid: i32) -> Value {
    let all = daemon.ok("gpu.processes", json!({}));
    let row = all["processes"].as_array().unwrap().iter().find(|row| row["pid"] == pid).cloned();
    row.map_or(Value::Null, |row| row["whose"].clone())
}

#[test]
fn a_stranger_is_adopted_counts_as_a_holder_over_daemons_and_gives_its_memory_back_at_its_end() {
    let (mut daemon, gpus) = machine();
    let stranger = outside(&gpus, &["--bytes", &(3 * GIB).to_string()]);
    let pid = stranger.pid();
    eventually("all of it is there", SOON, || gpus.taken(CARD) == 3 * GIB);
    let before = card(&daemon);
    assert_eq!((&before["foreign"][0]["pid"], &before["foreign"][0]["ignored"]), (&json!(pid), &json!(false)));

    let said = daemon.cli_ok(&["gpu", "adopt", &pid.to_string(), "--label", "notebook"]).out;
    assert!(said.starts_with(&format!("notebook (pid {pid}) has lease-")) && said.contains("3.0 GiB of"), "{said}");
    let row = daemon.ok("gpu.leases", json!({}))["leases"][0].clone();
    assert_eq!((&row["state"], &row["evictable"]), (&json!("active"), &json!(false)), "it never agreed to leave");
    assert_eq!(row["devices"][0]["charge_bytes"], 3 * GIB);
    let after = card(&daemon);
    assert_eq!((&after["foreign_bytes"], &after["charged_bytes"]), (&json!(0), &json!(3 * GIB)), "{after:#}");
    assert_eq!(after["headroom_bytes"], before["headroom_bytes"], "nothing has moved");
    assert_eq!(whose(&daemon, pid), "lease");
    let again = daemon.err("gpu.adopt", json!({ "pid": pid }));
    assert_eq!(again["code"], -32002, "it has one: {again:#}");

    // It keeps others out, by its name, and even they who may make others leave do not make it leave.
    let program = Stranger::lives();
    let mut wants = wish(&program, 6);
    wants["request"]["preempt"] = "lower".into();
    wants["request"]["importance"] = 100.into();
    let refused = daemon.err("gpu.acquire", wants);
    assert!(refused["message"].as_str().unwrap().contains("notebook"), "{refused:#}");
    assert!(alive(pid));

    daemon.kill_9();
    daemon.launch();
    let found = daemon.ok("gpu.leases", json!({}))["leases"][0].clone();
    assert_eq!((&found["lease"], &found["epoch"]), (&row["lease"], &row["epoch"]), "it outlives the daemon");
    drop(stranger);
    eventually("its end is the lease's", SOON, || {
        daemon.ok("gpu.leases", json!({}))["leases"].as_array().unwrap().is_empty()
    });
    assert_eq!(daemon.ok("gpu.acquire", wish(&program, 6))["lease"]["state"], "active");
}

#[test]
fn only_ones_own_programs_that_have_memory_and_are_nobodys_are_adopted() {
    let daemon = daemon(&[("sim-0", "8GiB")]);
    let idle = Stranger::lives();
    let refused = daemon.err("gpu.adopt", json!({ "pid": idle.pid() }));
    assert_eq!(refused["code"], -32008, "it has nothing: {refused:#}");
    assert!(refused["data"]["hint"].as_str().unwrap().contains("wharf gpu ps"), "{refused:#}");
    let gone = daemon.err("gpu.adopt", json!({ "pid": 4_000_000 }));
    assert_eq!(gone["code"], -32008, "{gone:#}");
    // A unit without a lease that takes memory all the same.
    let argv =
        [fake_engine().display().to_string(), "--bytes".into(), GIB.to_string(), "--device".into(), "sim-0".into()];
    let env = json!({ "WHARF_SIMULATED_FOLDER": daemon.home.join("units/.gpus") });
    let unit = daemon.run("sly", json!({ "argv": argv, "env": env }));
    let pid = i32::try_from(unit["pid"].as_i64().unwrap()).unwrap();
    eventually("it is seen", SOON, || whose(&daemon, pid) == "unit");
    let refused = daemon.err("gpu.adopt", json!({ "pid": pid }));
    assert_eq!(refused["code"], -32002, "its policy is the way: {refused:#}");
    assert!(refused["data"]["hint"].as_str().unwrap().contains("wharf start command@sly --gpu"), "{refused:#}");
    let holder = Stranger::lives();
    daemon.ok("gpu.acquire", wish(&holder, 6));
    let stranger = Stranger::takes(&daemon, "sim-0", GIB / 2);
    let refused = daemon.err("gpu.adopt", json!({ "pid": stranger.pid(), "vram_bytes": 4 * GIB }));
    assert_eq!(refused["code"], -32011, "no 4 GiB are there to promise: {refused:#}");
    assert_eq!(leases(&daemon, "command@sly"), [] as [Value; 0]);
}

#[test]
fn who_is_ignored_is_taken_and_no_news_over_daemons_until_it_ends() {
    let (mut daemon, gpus) = machine();
    let desktop = outside(&gpus, &["--bytes", &GIB.to_string(), "--graphics"]);
    let pid = desktop.pid();
    eventually("all of it is there", SOON, || gpus.taken(CARD) == GIB);
    let foreign = |daemon: &Daemon| {
        let told = daemon.ok("gpu.watch", json!({ "since": 0, "limit": 1000 }));
        let rows = told["events"].as_array().unwrap().clone();
        rows.iter().filter(|row| row["kind"] == "gpu.foreign").count()
    };
    let free = card(&daemon)["headroom_bytes"].clone();
    eventually("it is news", SOON, || foreign(&daemon) == 1);
    let said = daemon.cli_ok(&["gpu", "ignore", &pid.to_string()]).out;
    assert_eq!(said.trim(), format!("process {pid} is no news any more; its 1.0 GiB count as taken"));
    assert_eq!(whose(&daemon, pid), "ignored");
    let shown = daemon.cli_ok(&["gpu", "ps"]).out;
    assert!(shown.contains("no lease, ignored"), "{shown}");
    assert_eq!(card(&daemon)["headroom_bytes"], free, "it is taken as before");

    daemon.kill_9();
    daemon.launch();
    let after = card(&daemon);
    assert_eq!((&after["headroom_bytes"], &after["foreign"][0]["ignored"]), (&free, &json!(true)), "{after:#}");
    assert_eq!(foreign(&daemon), 0, "a new daemon does not tell of it either");
    let other = outside(&gpus, &["--bytes", &(2 * GIB).to_string()]);
    eventually("of another it does", SOON, || {
        card(&daemon);
        foreign(&daemon) > 0
    });
    drop(other);
    drop(desktop);
    eventually("its end is known", SOON, || whose(&daemon, pid) == Value::Null);
    let undone = daemon.err("gpu.ignore", json!({ "pid": pid }));
    assert_eq!(undone["code"], -32008, "there is none any more: {undone:#}");
}

/// gpu.watch: what people wait for, as it comes.
#[test]
fn what_happens_to_gpus_is_told_as_it_happens() {
    let (daemon, gpus) = machine();
    let out = daemon.home.join("watched");
    let mut watch = daemon.command();
    watch.args(["gpu", "watch", "--since", "0", "--json"]).stdout(fs::File::create(&out).unwrap());
    let _watch = Stranger(watch.stderr(Stdio::null()).spawn().unwrap());
    let rows = || -> Vec<Value> {
        let text = fs::read_to_string(&out).unwrap();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    let told = |kind: &str| rows().into_iter().filter(|row| row["kind"] == kind).collect::<Vec<Value>>();

    let stranger = outside(&gpus, &["--bytes", &(3 * GIB).to_string()]);
    eventually("all of it is there", SOON, || gpus.taken(CARD) == 3 * GIB);
    card(&daemon);
    eventually("a stranger", SOON, || told("gpu.foreign").iter().any(|row| row["bytes"] == 3 * GIB));
    drop(stranger);
    let taint = |effect: &str| daemon.ok("gpu.taint", json!({ "device": CARD, "effect": effect, "reason": "the fan" }));
    taint("no_new");
    taint("usual");
    eventually("a taint, and its end", SOON, || told("gpu.device").len() == 2);
    assert_eq!(told("gpu.device")[0]["what"], "takes nothing new: the fan");

    eventually("it has left", SOON, || card(&daemon)["foreign_bytes"] == 0);
    let mut leaky = daemon.command();
    leaky.args(["gpu", "run", "--vram", "7GiB", "--name", "leaky", "--"]);
    leaky.arg(fake_engine()).args(["--bytes", &(7 * GIB + GIB / 2).to_string(), "--leaks"]).stdout(Stdio::null());
    let leaky = Stranger(leaky.spawn().unwrap());
    eventually("a grant", SOON, || told("gpu.lease").iter().any(|row| row["state"] == "active"));
    eventually("more than was declared", SOON, || told("gpu.over_declared").len() == 1);
    eventually("hardly anything is left", SOON, || !told("gpu.headroom_low").is_empty());
    let low = &told("gpu.headroom_low")[0];
    assert!(low["headroom_bytes"].as_u64().unwrap() * 20 < low["total_bytes"].as_u64().unwrap(), "{low}");
    drop(leaky);
    eventually("memory that does not come back", std::time::Duration::from_secs(60), || told("gpu.leak").len() == 1);
    let leak = &told("gpu.leak")[0];
    assert!(leak["holder"].as_str().unwrap().contains("leaky"), "{leak}");
    assert!(leak["bytes"].as_u64().unwrap() > 6 * GIB, "{leak}");
    assert_eq!(told("gpu.headroom_low").len(), 1, "once");
    assert!(rows().iter().all(|row| row["kind"].as_str().unwrap().starts_with("gpu.")), "{:#?}", rows());

    // The same without a stream.
    let report = daemon.ok("gpu.watch", json!({ "since": 0, "limit": 3 }));
    assert_eq!((report["events"].as_array().unwrap().len(), &report["more"]), (3, &json!(true)));
    let first = report["events"][0]["seq"].as_u64().unwrap();
    assert!(first > 1, "the start of the daemon is no news of GPUs");
}

/// A unit that is to be kept to what it declared, on a driver that knows limits.
#[test]
fn a_unit_is_kept_to_what_it_declared_where_the_driver_can_and_its_lease_says_by_what() {
    let (mut daemon, gpus) = FakeGpus::daemon(&[CARD]);
    daemon.launch();
    let backend = card(&daemon)["limits_backend"].clone();
    assert!(backend == "nvml-misc" || backend == "nvml-dmem", "{backend}");
    let env: serde_json::Map<String, Value> =
        gpus.env().into_iter().map(|(name, value)| (name, value.into())).collect();
    let start = |name: &str, limit: &str| {
        let argv = [fake_engine().display().to_string(), "--bytes".into(), (GIB / 2).to_string()];
        let gpu = json!({ "vram_bytes": GIB, "limit": limit, "min_residency_ms": 0 });
        daemon.ok(
            "service.start",
            json!({
                "name": format!("command@{name}"), "with": { "argv": argv, "env": env }, "policy": { "gpu": gpu },
            }),
        );
    };
    let enforced = |name: &str| leases(&daemon, &format!("command@{name}"))[0]["enforced"].clone();
    start("free", "none");
    start("hard", "hard");
    let pid = daemon.ok("service.status", json!({ "name": "command@hard" }))["pid"].clone();
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    if !cgroup.contains("command@hard:") {
        assert_eq!(enforced("hard"), "none", "without a cgroup of its own nothing keeps it");
        return cannot("a run that is kept to its GPU memory", "runs have no cgroup of their own here");
    }
    eventually("it is kept to it", SOON, || enforced("hard") == "nvml");
    let limits = gpus.edit(|state| state.limits.clone());
    assert_eq!(limits.len(), 1, "who asked for no limit has none: {limits:?}");
    assert_eq!((limits[0].soft, limits[0].hard, limits[0].device.as_str()), (0, GIB, CARD));
    assert!(limits[0].cgroup.starts_with("/sys/fs/cgroup") && limits[0].cgroup.contains("command@hard:"), "{limits:?}");
    assert_eq!(enforced("free"), "none");
    start("soft", "soft");
    eventually("and softly", SOON, || enforced("soft") == "nvml");
    let soft = gpus.edit(|state| state.limits.last().cloned()).unwrap();
    assert_eq!((soft.soft, soft.hard), (GIB, u64::MAX));

    // A driver that will not: it runs, and is watched.
    gpus.edit(|state| state.errors.insert("nvmlDeviceSetMemoryLimits_v1".into(), 4));
    start("denied", "hard");
    eventually("it says why", SOON, || daemon.log().contains("could not be limited: that takes root"));
    assert_eq!((enforced("denied"), daemon.state("command@denied").as_str()), (json!("none"), "running"));
}

/// A live unit keeps its GPU where the database that knew of its lease was lost.
#[test]
fn a_unit_that_lives_has_its_lease_again_after_the_database_was_lost() {
    let mut daemon = daemon(&[("sim-0", "8GiB"), ("sim-1", "8GiB")]);
    let mut start = super::engine("model", 6);
    start["policy"]["gpu"]["only"] = json!(["sim-1"]);
    daemon.ok("service.start", start);
    let pid = super::pid_of(&daemon, "command@model");
    daemon.kill_9();
    for entry in fs::read_dir(daemon.home.join("state")).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("wharf.db") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    daemon.launch();
    eventually("it is adopted", SOON, || super::pid_of(&daemon, "command@model") == pid);
    eventually("with a lease for what it was promised", SOON, || {
        let rows = leases(&daemon, "command@model");
        let row = rows.first().cloned().unwrap_or_default();
        (&row["state"], &row["devices"][0]["device"]) == (&json!("active"), &json!("sim-1"))
            && row["devices"][0]["declared_bytes"] == 6 * GIB
    });
    let list = daemon.ok("gpu.list", json!({ "fresh_within_ms": 5000 }));
    let there = list["devices"].as_array().unwrap().iter().find(|device| device["id"] == "sim-1").unwrap().clone();
    assert_eq!((&there["foreign_bytes"], &there["charged_bytes"]), (&json!(0), &json!(6 * GIB)), "{there:#}");
    assert_eq!(whose(&daemon, pid), "lease");
    let program = Stranger::lives();
    let mut wants = wish(&program, 4);
    wants["request"]["only"] = json!(["sim-1"]);
    let refused = daemon.err("gpu.acquire", wants);
    assert!(refused["message"].as_str().unwrap().contains("command@model"), "its holder is named: {refused:#}");
    daemon.ok("service.stop", json!({ "name": "command@model" }));
    eventually("and its end is the lease's", SOON, || leases(&daemon, "command@model").is_empty());
}
