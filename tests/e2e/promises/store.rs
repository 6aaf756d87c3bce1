//! P8, P13: a full disk, and a state database that is gone or of yesterday.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::json;
use wharf_tests::{Daemon, alive, beside, cannot, eventually, figure, processes_with};

use super::{pid_of, status};

/// A small file system of its own, gone with the value.
struct Mount(PathBuf);

impl Mount {
    fn tmpfs(at: &Path, options: &str) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).status();
        mounted.is_ok_and(|s| s.success()).then(|| Self(at.to_owned()))
    }

    /// Not a byte is left.
    fn fill(&self) {
        let filler = format!("of={}", self.0.join("filler").display());
        let dd = |size: &str| {
            Command::new("dd")
                .args(["if=/dev/zero", size, &filler, "oflag=append", "conv=notrunc"])
                .stderr(Stdio::null())
                .status()
        };
        dd("bs=64k").unwrap();
        dd("bs=1").unwrap();
    }

    fn free(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// What SQLite says of the database, and how many units are in it.
fn integrity(home: &Path) -> String {
    let script =
        "import sqlite3,sys; print(sqlite3.connect(sys.argv[1]).execute('pragma integrity_check').fetchone()[0])";
    let said = Command::new("python3").args(["-c", script]).arg(home.join("state/wharf.db")).output().unwrap();
    String::from_utf8_lossy(&said.stdout).trim().to_owned() + String::from_utf8_lossy(&said.stderr).trim()
}

#[test]
fn p8_over_a_full_disk_and_kills_of_the_daemon_nothing_dies_and_nothing_acknowledged_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let Some(mount) = Mount::tmpfs(&home, "size=32m,mode=755") else {
        return cannot("P8", "a full disk (no right to mount a tmpfs)");
    };
    let mut daemon = Daemon::at(&home);
    daemon.launch();
    let sleeper = json!({ "argv": ["sleep", "1000"] });
    for n in 0..4 {
        daemon.run(&format!("s{n}"), sleeper.clone());
    }
    let pids: Vec<i32> = (0..4).map(|n| pid_of(&daemon, &format!("command@s{n}"))).collect();
    mount.fill();
    // What was acknowledged on a full disk holds on it: the room is kept for stops.
    daemon.ok("service.stop", json!({ "name": "command@s0" }));
    let mut answered = vec![];
    for _ in 0..3 {
        daemon.kill_9();
        let began = Instant::now();
        daemon.launch();
        answered.push(began.elapsed());
        eventually("all are adopted", Duration::from_secs(10), || {
            (1..4).all(|n| daemon.state(&format!("command@s{n}")) == "running")
        });
        assert!(pids[1..].iter().all(|pid| alive(*pid)));
        assert_eq!(status(&daemon, "command@s0")["want"], "down");
    }
    daemon.ok("service.logs", json!({ "name": "command@s1" }));
    daemon.ok("service.stop", json!({ "name": "command@s1" }));
    assert!(!alive(pids[1]));
    assert_eq!(status(&daemon, "command@s1")["want"], "down");

    mount.free();
    eventually("it takes on new things", Duration::from_secs(10), || {
        daemon.call("service.start", json!({ "name": "command@s0" })).is_ok()
    });
    assert_eq!(status(&daemon, "command@s1")["want"], "down");
    assert_eq!(pids[2..], [pid_of(&daemon, "command@s2"), pid_of(&daemon, "command@s3")]);
    daemon.kill_9();
    let checked = integrity(&home);
    assert_eq!(checked, "ok");
    daemon.launch();
    figure(
        "P8",
        &format!(
            "0 bytes free: 3 daemons killed and up again ({answered:.0?}), 0 services died, 2 stops kept, integrity {checked}"
        ),
    );
    drop(daemon);
}

#[test]
fn p8_a_full_disk_for_logs_holds_nothing_up_and_what_is_lost_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let Some(mount) = Mount::tmpfs(&home.join("logs"), "size=4m,mode=755") else {
        return cannot("P8", "a full disk for logs (no right to mount a tmpfs)");
    };
    let daemon = {
        let mut daemon = Daemon::at(&home);
        daemon.launch();
        daemon
    };
    // It goes on when a line cannot be written, as most programs do.
    let script = "trap '' PIPE; n=0; while :; do n=$((n+1)); echo line $n; sleep 0.005; done 2>/dev/null";
    let policy = json!({ "logs": { "rotate_bytes": 65536 } });
    daemon.ok(
        "service.start",
        json!({ "name": "command@w", "with": { "argv": ["bash", "-c", script] }, "policy": policy }),
    );
    let pid = pid_of(&daemon, "command@w");
    mount.fill();
    daemon.run("new", json!({ "argv": ["sleep", "1000"] }));
    daemon.ok("service.stop", json!({ "name": "command@new" }));
    daemon.ok("service.logs", json!({ "name": "command@w", "lines": 10 }));
    assert!(alive(pid));
    eventually("it is told", Duration::from_secs(10), || {
        let told = daemon.ok("event.watch", json!({ "since": 0, "limit": 1000 }));
        told["events"].as_array().unwrap().iter().any(|e| e["kind"] == "disk.low")
    });
    mount.free();
    let last = |daemon: &Daemon| {
        let page = daemon.ok("service.logs", json!({ "name": "command@w", "lines": 1 }));
        page["lines"][0].as_str().and_then(|l| l.strip_prefix("line ")?.parse::<u64>().ok()).unwrap_or(0)
    };
    let before = last(&daemon);
    eventually("its lines are kept again", Duration::from_secs(10), || last(&daemon) > before);
    assert_eq!(pid_of(&daemon, "command@w"), pid);
    figure("P8", "a full disk for logs: starts, stops, reads and the writer went on");
    drop(daemon);
}

/// A unit whose second copy would say so.
fn witness(daemon: &Daemon, name: &str) {
    let dir = daemon.home.join("witness");
    fs::create_dir_all(dir.join("locks")).unwrap();
    let unit = format!("command@{name}");
    let with = json!({ "argv": [beside("wharf-witness"), dir, unit, "-"] });
    daemon.ok("service.start", json!({ "name": unit, "with": with }));
}

fn witnesses(daemon: &Daemon) -> usize {
    let mark = format!("{}\0command@", daemon.home.join("witness").display());
    processes_with(&mark).len()
}

fn database(daemon: &Daemon) -> Vec<PathBuf> {
    let state = daemon.home.join("state");
    ["wharf.db", "wharf.db-wal", "wharf.db-shm"].iter().map(|name| state.join(name)).filter(|p| p.exists()).collect()
}

#[test]
fn p13_without_its_database_a_daemon_adopts_all_that_lives_and_starts_nothing_twice() {
    let mut daemon = Daemon::start();
    let names: Vec<String> = (0..10).map(|n| format!("w{n}")).collect();
    names.iter().for_each(|name| witness(&daemon, name));
    let pids = |daemon: &Daemon| names.iter().map(|n| pid_of(daemon, &format!("command@{n}"))).collect::<Vec<_>>();
    let before = pids(&daemon);
    daemon.kill_9();
    for file in database(&daemon) {
        fs::remove_file(file).unwrap();
    }
    let began = Instant::now();
    daemon.launch();
    eventually("all are adopted", Duration::from_secs(10), || {
        names.iter().all(|n| {
            daemon
                .call("service.status", json!({ "name": format!("command@{n}") }))
                .is_ok_and(|s| s["state"] == "running")
        })
    });
    let took = began.elapsed();
    assert_eq!(pids(&daemon), before);
    assert_eq!(witnesses(&daemon), names.len());
    // What it has adopted it can stop, and start once.
    daemon.ok("service.stop", json!({ "name": "command@w0" }));
    assert!(!alive(before[0]));
    assert!(!daemon.home.join("witness/doubles").exists());
    figure(
        "P13",
        &format!("database deleted: {} of {} adopted after {took:.0?}, 0 second copies", names.len(), names.len()),
    );
}

#[test]
fn p13_with_a_database_of_yesterday_nothing_runs_twice_and_nothing_that_lives_is_lost() {
    let mut daemon = Daemon::start();
    for name in ["stays", "restarted", "stopped"] {
        witness(&daemon, name);
    }
    daemon.kill_9();
    let copies: Vec<(PathBuf, Vec<u8>)> =
        database(&daemon).into_iter().map(|p| (p.clone(), fs::read(&p).unwrap())).collect();
    daemon.launch();
    // A day of work.
    daemon.ok("service.restart", json!({ "name": "command@restarted" }));
    daemon.ok("service.stop", json!({ "name": "command@stopped" }));
    witness(&daemon, "new");
    let alive_before: Vec<(String, i32)> = ["stays", "restarted", "new"]
        .iter()
        .map(|n| (format!("command@{n}"), pid_of(&daemon, &format!("command@{n}"))))
        .collect();
    daemon.kill_9();
    database(&daemon).iter().for_each(|file| fs::remove_file(file).unwrap());
    for (path, bytes) in &copies {
        fs::write(path, bytes).unwrap();
    }
    daemon.launch();
    eventually("all that lives is adopted", Duration::from_secs(10), || {
        alive_before.iter().all(|(name, _)| {
            daemon.call("service.status", json!({ "name": name })).is_ok_and(|s| s["state"] == "running")
        })
    });
    for (name, pid) in &alive_before {
        assert_eq!(pid_of(&daemon, name), *pid, "{name} was started again");
    }
    // It is wanted up in the old database, and nothing of it lives: it is started, once.
    eventually("what was wanted yesterday runs", Duration::from_secs(10), || {
        daemon.state("command@stopped") == "running"
    });
    assert_eq!(witnesses(&daemon), 4);
    // New runs have numbers that no old one had.
    daemon.ok("service.restart", json!({ "name": "command@stays" }));
    daemon.ok("service.restart", json!({ "name": "command@new" }));
    assert_eq!(witnesses(&daemon), 4);
    assert!(!daemon.home.join("witness/doubles").exists());
    figure("P13", "a database of yesterday: 3 of 3 adopted by their own processes, 0 second copies");
}
