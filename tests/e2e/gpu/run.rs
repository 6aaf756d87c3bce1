//! `wharf gpu run`: an outside program waits its turn, has its devices, and they go when it and its children have.

use std::{
    io::Read,
    process::{Child, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use wharf_tests::{Daemon, alive, eventually, fake_engine, signal};

use super::{GIB, SOON, daemon, headroom};

/// A `wharf gpu run` in the background.
struct Job(Child);

impl Job {
    fn begin(daemon: &Daemon, args: &[&str]) -> Self {
        let mut command = daemon.command();
        command.args(["gpu", "run"]).args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }

    /// Its exit code, and what it said on both.
    fn ended(mut self) -> (Option<i32>, String, String) {
        let status = self.0.wait().unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        self.0.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        self.0.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (status.code(), out, err)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn queue(daemon: &Daemon) -> Vec<String> {
    let queue = daemon.ok("gpu.queue", json!({}));
    let rows = queue["waiting"].as_array().unwrap();
    rows.iter().map(|row| row["holder"].as_str().unwrap().split(' ').next().unwrap().to_owned()).collect()
}

fn lease_of(daemon: &Daemon, name: &str) -> Option<Value> {
    let list = daemon.ok("gpu.leases", json!({}));
    let rows = list["leases"].as_array().unwrap();
    rows.iter().find(|row| row["held_by"]["label"] == name).cloned()
}

fn is_active(daemon: &Daemon, name: &str) -> bool {
    lease_of(daemon, name).is_some_and(|lease| lease["state"] == "active")
}

#[test]
fn a_program_waits_its_turn_and_sees_its_own_devices_and_no_others() {
    let daemon = daemon(&[("sim-0", "8GiB"), ("sim-1", "8GiB")]);
    let first = Job::begin(&daemon, &["--vram", "6GiB", "--devices", "2", "--name", "first", "--", "sleep", "600"]);
    eventually("it runs", SOON, || is_active(&daemon, "first"));
    let shown = "echo $WHARF_GPU_DEVICES+$CUDA_VISIBLE_DEVICES+$CUDA_DEVICE_ORDER+$WHARF_GPU_LEASE+$WHARF_GPU_EPOCH";
    let second = Job::begin(&daemon, &["--vram", "6GiB", "--only", "1", "--name", "second", "--", "sh", "-c", shown]);
    eventually("it waits", SOON, || queue(&daemon) == ["second"]);
    eventually("who waits, and for whom", SOON, || {
        let said = daemon.cli_ok(&["gpu", "queue"]).out;
        said.contains("1. second (pid") && said.contains("first (pid")
    });
    let said = daemon.cli(&["gpu", "run", "--vram", "6GiB", "--no-wait", "--", "true"]);
    assert_eq!((said.code, said.err.contains("first (pid")), (4, true), "it does not wait: {said:?}");
    let said = daemon.cli(&["gpu", "run", "--vram", "6GiB", "--wait", "300ms", "--", "true"]);
    assert_eq!(said.code, 5, "it does not wait for long: {said:?}");

    assert_eq!(lease_of(&daemon, "first").unwrap()["held_by"]["pid"], first.pid(), "the program is the holder");
    drop(first);
    let number = lease_of(&daemon, "second").map(|lease| lease["lease"].clone());
    let (code, out, err) = second.ended();
    assert_eq!(code, Some(0), "{err}");
    let fields: Vec<&str> = out.trim().split('+').collect();
    assert_eq!(fields[..3], ["sim-1", "", "PCI_BUS_ID"], "simulated ones are not CUDA's: none is seen there");
    assert_eq!(number.map(|n| n.to_string()).as_deref(), Some(fields[3]));
    assert!(fields[4].parse::<u64>().is_ok());
    assert!(err.contains("number 1 of the queue") && err.contains("first (pid"), "it said where it stood: {err}");
    eventually("all is free again", SOON, || headroom(&daemon, 0) > 7 * GIB && headroom(&daemon, 1) > 7 * GIB);
}

/// T53: the holder's main process is dead and its helper still has memory.
#[test]
fn t53_a_lease_lives_as_long_as_anything_of_its_tree_has_memory() {
    let daemon = daemon(&[("sim-0", "8GiB")]);
    let engine = fake_engine().display().to_string();
    let line = format!("{engine} --bytes {} & echo $!; wait", 3 * GIB);
    let job = Job::begin(&daemon, &["--vram", "4GiB", "--name", "tree", "--", "sh", "-c", &line]);
    let processes = || daemon.ok("gpu.processes", json!({}))["processes"].clone();
    eventually("its child has the memory", SOON, || processes()[0]["whose"] == "lease");
    let child = i32::try_from(processes()[0]["pid"].as_i64().unwrap()).unwrap();
    assert_ne!(child, job.pid());
    let lease = lease_of(&daemon, "tree").unwrap()["lease"].clone();
    drop(job);
    std::thread::sleep(Duration::from_secs(2));
    assert!(alive(child));
    let still = lease_of(&daemon, "tree").unwrap();
    assert_eq!((&still["lease"], &still["state"]), (&lease, &json!("active")), "the child has it");
    assert_eq!(processes()[0]["whose"], "lease");
    signal(child, "KILL");
    eventually("nothing of it lives", SOON, || lease_of(&daemon, "tree").is_none());
    assert!(headroom(&daemon, 0) > 7 * GIB);
}

#[test]
fn ctrl_c_while_it_waits_takes_the_request_back() {
    let daemon = daemon(&[("sim-0", "8GiB")]);
    let holder = Job::begin(&daemon, &["--name", "holder", "--", "sleep", "600"]);
    eventually("it runs", SOON, || is_active(&daemon, "holder"));
    let waiter = Job::begin(&daemon, &["--vram", "1GiB", "--name", "waiter", "--", "true"]);
    eventually("a device without a size is had alone, so it waits", SOON, || queue(&daemon) == ["waiter"]);
    signal(waiter.pid(), "INT");
    let (code, _, err) = waiter.ended();
    assert_eq!(code, Some(130), "{err}");
    assert!(err.contains("the request is taken back"), "{err}");
    assert_eq!(queue(&daemon), [""; 0]);
    let killed = Job::begin(&daemon, &["--vram", "1GiB", "--name", "killed", "--", "true"]);
    eventually("it waits", SOON, || queue(&daemon) == ["killed"]);
    drop(killed);
    eventually("one that is killed goes, too", SOON, || queue(&daemon).is_empty());
    drop(holder);
}

#[test]
fn a_program_that_cannot_be_run_gives_its_devices_back() {
    let daemon = daemon(&[("sim-0", "8GiB")]);
    let said = daemon.cli(&["gpu", "run", "--vram", "6GiB", "--", "/nonexistent/program"]);
    assert_eq!(said.code, 4, "{said:?}");
    assert!(said.err.contains("could not run /nonexistent/program"), "{said:?}");
    eventually("its devices are free", SOON, || headroom(&daemon, 0) > 7 * GIB);
    let said = daemon.cli(&["gpu", "run", "--vram", "1GiB", "--", "sh", "-c", "exit 7"]);
    assert_eq!(said.code, 7, "the exit code is the program's: {said:?}");
}

/// What was granted, and whose turn is next, outlives the daemon.
#[test]
fn a_daemon_that_is_killed_loses_no_lease_and_no_place_in_the_queue() {
    let mut daemon = daemon(&[("sim-0", "8GiB")]);
    let holder = Job::begin(&daemon, &["--vram", "6GiB", "--name", "holder", "--", "sleep", "600"]);
    eventually("it runs", SOON, || is_active(&daemon, "holder"));
    let mut waiting = vec![];
    for name in ["one", "two", "three"] {
        waiting.push(Job::begin(&daemon, &["--vram", "6GiB", "--name", name, "--", "sleep", "600"]));
        eventually("it waits", SOON, || queue(&daemon).last().is_some_and(|last| last == name));
    }
    let before = lease_of(&daemon, "holder").unwrap();
    daemon.kill_9();
    daemon.launch();
    let after = lease_of(&daemon, "holder").unwrap();
    for field in ["lease", "epoch", "state", "held_by", "client_key"] {
        assert_eq!(before[field], after[field], "{field}");
    }
    assert_eq!(queue(&daemon), ["one", "two", "three"], "in the same order");
    assert!(waiting.iter().all(|job| alive(job.pid())), "who waits, waits on");
    let second = daemon.cli(&["gpu", "run", "--vram", "6GiB", "--no-wait", "--", "true"]);
    assert_eq!(second.code, 4, "what was granted is not granted twice: {second:?}");

    for (name, next) in [("one", vec!["two", "three"]), ("two", vec!["three"])] {
        if name == "one" {
            signal(holder.pid(), "KILL");
        } else {
            drop(waiting.remove(0));
        }
        eventually("the next one has its turn", SOON, || is_active(&daemon, name));
        assert_eq!(queue(&daemon), next);
    }
    eventually("and has become its program", SOON, || {
        let line = std::fs::read(format!("/proc/{}/cmdline", waiting[0].pid())).unwrap_or_default();
        line.starts_with(b"sleep\0")
    });
}
