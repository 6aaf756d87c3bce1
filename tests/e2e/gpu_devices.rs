//! Devices as a daemon shows them: on a stand-in driver, from a file, and where there are none.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use wharf_tests::{Daemon, FakeGpus, beside, eventually, fake_engine};

const GIB: u64 = 1 << 30;
const CARD: &str = "GPU-00000000-0000-0000-0000-00000000000a";

/// A program outside of Wharf, ended with the value.
struct Outside(Child);

impl Outside {
    /// Until it has its memory.
    fn ready(mut engine: Command) -> Self {
        let mut child = engine.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "ready"), "it has its memory");
        Self(child)
    }

    fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The device after a measurement.
fn row(daemon: &Daemon, id: &str) -> Value {
    let list = daemon.ok("gpu.list", json!({ "fresh_within_ms": 5000 }));
    let found = list["devices"].as_array().unwrap().iter().find(|device| device["id"] == id);
    found.unwrap_or_else(|| panic!("{id} is not in {list:#}")).clone()
}

fn askers_of(daemon: &Daemon) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{0}/task/{0}/children", daemon.pid())).unwrap_or_default();
    let asks = |pid: &i32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.ends_with(b"\0gpu-probe\0"));
    // Any thread of the daemon may have started it.
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap().flatten();
    let texts = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let mut pids: Vec<i32> = texts
        .chain([text])
        .flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>())
        .collect();
    pids.sort_unstable();
    pids.dedup();
    pids.into_iter().filter(asks).collect()
}

#[test]
fn t54_a_driver_that_hangs_holds_up_nobody_and_its_figures_grow_old() {
    let (mut daemon, gpus) = FakeGpus::daemon(&[CARD]);
    daemon.launch();
    let engine = Outside::ready(gpus.engine(&["--bytes", &(3 * GIB).to_string(), "--device", CARD]));
    let card = row(&daemon, CARD);
    assert_eq!((card["used_bytes"].as_u64(), card["stale"].as_bool()), (Some(3 * GIB), Some(false)));
    assert_eq!(card["foreign"][0]["pid"], engine.pid(), "who never asked is named: {card:#}");
    assert_eq!(card["foreign"][0]["program"], "wharf-fake-engine");
    let before = askers_of(&daemon);
    assert_eq!(before.len(), 1);

    gpus.edit(|state| state.hang.insert("nvmlDeviceGetMemoryInfo_v2".into()));
    let began = Instant::now();
    // It asks the driver, waits as long as it is allowed to, and answers with what is known.
    daemon.ok("gpu.list", json!({ "fresh_within_ms": 300 }));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    for method in ["gpu.list", "service.list", "gpu.queue"] {
        let began = Instant::now();
        daemon.ok(method, json!({}));
        assert!(began.elapsed() < Duration::from_millis(500), "{method}: {:?}", began.elapsed());
    }
    eventually("the problem is named", Duration::from_secs(10), || {
        let problems = daemon.ok("gpu.list", json!({}))["problems"].to_string();
        problems.contains("a call of the driver hangs")
    });
    eventually("the hung process is gone", Duration::from_secs(10), || {
        !fs::exists(format!("/proc/{}", before[0])).unwrap()
    });

    gpus.edit(|state| state.hang.clear());
    eventually("the next answer is right", Duration::from_secs(20), || {
        let card = row(&daemon, CARD);
        card["stale"] == false && card["measured_age_ms"].as_u64().unwrap() < 1000 && card["used_bytes"] == 3 * GIB
    });
    assert_ne!(askers_of(&daemon), before, "another process asks");
}

#[test]
fn the_run_that_holds_memory_is_named_whichever_of_its_processes_has_it() {
    let (mut daemon, gpus) = FakeGpus::daemon(&[CARD]);
    daemon.launch();
    let env: serde_json::Map<String, Value> =
        gpus.env().into_iter().map(|(name, value)| (name, value.into())).collect();
    let engine = fake_engine().display().to_string();
    let bytes = GIB.to_string();
    let argv = [engine.as_str(), "--bytes", &bytes, "--device", CARD, "--fork"];
    let started = daemon.run("engine", json!({ "argv": argv, "env": env }));
    eventually("its helper has the memory", Duration::from_secs(10), || gpus.taken(CARD) == GIB);
    let listed = daemon.ok("gpu.processes", json!({}));
    let holder = &listed["processes"][0];
    assert_eq!(
        (holder["unit"].as_str(), holder["used_bytes"].as_u64()),
        (Some("command@engine"), Some(GIB)),
        "{listed:#}"
    );
    assert_ne!(holder["pid"], started["pid"], "it is a helper, not the main process");
    daemon.ok("service.stop", json!({ "name": "command@engine" }));
    assert_eq!(gpus.taken(CARD), 0, "its helper hears no SIGTERM, and ends with its run");
}

#[test]
fn devices_of_a_file_are_filled_by_programs_and_need_no_driver() {
    let mut daemon = Daemon::prepare();
    fs::create_dir_all(daemon.home.join("config")).unwrap();
    fs::write(daemon.home.join("config/gpus.toml"), "[[device]]\nid = \"sim-0\"\ntotal = \"8GiB\"\n").unwrap();
    daemon.launch();
    assert_eq!(row(&daemon, "sim-0")["used_bytes"], 0);
    let mut engine = Command::new(fake_engine());
    engine.args(["--bytes", &GIB.to_string(), "--device", "sim-0"]).env_remove("PORT").env_remove("WHARF_FAKE_NVML");
    let engine = Outside::ready({
        engine.env("WHARF_SIMULATED_FOLDER", daemon.home.join("units/.gpus"));
        engine
    });
    let card = row(&daemon, "sim-0");
    assert_eq!((card["used_bytes"].as_u64(), card["vendor"].as_str()), (Some(GIB), Some("simulated")));
    drop(engine);
    assert_eq!(row(&daemon, "sim-0")["used_bytes"], 0, "death gives it back");
    assert_eq!(askers_of(&daemon), [0; 0], "nothing asks a driver");
}

#[test]
fn the_check_of_a_machine_is_complete_where_everything_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let gpus = FakeGpus::new(dir.path(), &[(CARD, 128 * GIB)]);
    gpus.edit(|state| (state.listed_lag_ms, state.release_lag_ms) = (20, 60));
    let library = gpus.env()[0].1.clone();
    std::os::unix::fs::symlink(library, dir.path().join("libcuda.so.1")).unwrap();
    let mut check = Command::new(beside("wharf-gpu-check"));
    check.arg("--short").envs(gpus.env()).env("LD_LIBRARY_PATH", dir.path()).stderr(Stdio::null());
    let out = check.output().unwrap();
    let report = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success(), "{report}");
    for number in 1..=11 {
        let part = report.split("\n## ").find(|part| part.starts_with(&format!("{number}. "))).unwrap();
        // The daemon is tried elsewhere, and PyTorch needs a real device.
        assert_eq!(part.contains("CANNOT BE DONE HERE"), matches!(number, 10 | 11), "{part}");
    }
    assert!(report.contains("| 20 GiB, SIGKILL"), "{report}");
    eventually("it leaves nothing", Duration::from_secs(5), || gpus.taken(CARD) == 0);

    let mut bare = Command::new(beside("wharf-gpu-check"));
    let out = bare
        .env("WHARF_NVML_LIB", dir.path().join("none"))
        .env("WHARF_GPUS", dir.path().join("none"))
        .output()
        .unwrap();
    let said = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success() && said.starts_with("CANNOT BE DONE HERE"), "{said}");
}
