//! The store under a real daemon: a changed program is not started, and large installs stay small in memory.

use std::{fs, time::Duration};

use serde_json::json;
use wharf_tests::{Daemon, Fault, Forge, ReleaseServer, eventually, figure, free_port, stand_in, tar_zst};

use super::with_sources;

/// A binary that somebody has changed is refused, by name, and is placed again by an install.
#[test]
fn a_changed_program_is_not_started() {
    let mut daemon = Daemon::prepare().with_binary(env!("CARGO_BIN_EXE_wharf-with-sources"));
    daemon.launch();
    let program = daemon.home.join("thing-1");
    fs::write(&program, stand_in()).unwrap();
    let with = json!({ "from": "file", "of": program, "binaries": ["thing"], "ports": { "main": free_port() } });
    daemon.ok("service.install", json!({ "name": "thing", "with": with }));
    daemon.ok("service.start", json!({ "name": "thing" }));
    daemon.ok("service.stop", json!({ "name": "thing" }));
    let placed = daemon.home.join("store/thing/current/bin/thing");
    let mut bytes = fs::read(&placed).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&placed, bytes).unwrap();
    let error = daemon.err("service.start", json!({ "name": "thing" }));
    let said = error.to_string();
    assert!(said.contains("thing of thing is not the program that was placed, so it is not started"), "{error:#}");
    assert!(said.contains("wharf install thing --reset"), "{error:#}");
    daemon.ok("service.stop", json!({ "name": "thing" }));
    let checks = daemon.ok("service.verify", json!({ "name": "thing" }));
    assert_eq!(checks["ok"], false, "{checks:#}");
    // HS-74: an install sees that what lies there is not what it was.
    daemon.ok("service.install", json!({ "name": "thing", "with": with }));
    assert_eq!(daemon.ok("service.verify", json!({ "name": "thing" }))["ok"], true);
    daemon.ok("service.start", json!({ "name": "thing" }));
}

/// A line of a process's status, in KiB.
fn kib(pid: i32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// 200 MB, cut in the middle, bare and packed: what the daemon holds in memory stays below 40 MiB. Of a program that
/// was built without optimisation the code alone has more: then what comes on top is judged.
#[test]
fn an_install_of_200_mb_leaves_the_daemon_small() {
    const BYTES: usize = 200_000_000;
    let mut program = stand_in();
    // What does not compress: a generator of random numbers from a book.
    let mut x = 88_172_645_463_325_252_u64;
    while program.len() < BYTES {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        program.extend(x.to_le_bytes());
    }
    let server = ReleaseServer::start();
    let repo = server.forge(Forge::GitHub, "them", "thing");
    let packed = tar_zst(&[("thing-1/thing", &program)]);
    let cut = Fault::Cut { after: BYTES / 2, times: 1 };
    repo.release("v1").faulty("thing-linux-amd64", program, cut).checksums("SHA256SUMS");
    repo.release("v2").asset("thing.tar.zst", packed).checksums("SHA256SUMS");
    let mut daemon = with_sources().with_env("WHARF_MIRRORS", &server.mirrors());
    daemon.launch();
    for (version, asset) in [("1", "thing-linux-amd64"), ("2", "thing.tar.zst")] {
        let with = json!({ "from": "github", "of": "them/thing", "assets": [asset], "binaries": ["thing"] });
        fs::write(format!("/proc/{}/clear_refs", daemon.pid()), "5").unwrap();
        let (before, code) = (kib(daemon.pid(), "VmRSS"), kib(daemon.pid(), "RssFile"));
        let call = json!({ "name": "thing", "with": with, "version": version });
        let placed = daemon.ok("service.install", call);
        assert_eq!(placed["version"], version);
        let peak = kib(daemon.pid(), "VmHWM");
        let text =
            format!("{asset}: the daemon held {peak} KiB at most, {} more than before ({code} of code)", peak - before);
        figure("an install of 200 MB", &text);
        let most = if cfg!(debug_assertions) { before.max(16 * 1024) + 24 * 1024 } else { 40 * 1024 };
        assert!(peak < most, "{text}");
    }
    let placed = daemon.home.join("store/thing/current/thing");
    assert!(fs::metadata(placed).unwrap().len() >= BYTES as u64);
    eventually("nothing in staging", Duration::from_secs(5), || {
        fs::read_dir(daemon.home.join("store/.staging")).unwrap().count() == 0
    });
}
