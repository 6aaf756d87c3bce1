//! P4, P5, P16: a thousand real units, adopted by a new daemon, watched, and cheap.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use wharf_tests::{Daemon, eventually, figure, get};

use super::{SLACK, batches};

const UNITS: usize = 1_000;
const DEATHS: usize = 200;

fn name(n: usize) -> String {
    format!("command@c{n}")
}

fn running(daemon: &Daemon) -> usize {
    let list = daemon.ok("service.list", json!({}));
    list.as_array().unwrap().iter().filter(|row| row["status"] == "running").count()
}

fn pids(daemon: &Daemon) -> Vec<Value> {
    let params = (0..UNITS).map(|n| json!({ "name": name(n) }));
    batches(daemon, "service.status", params).into_iter().map(|s| s["pid"].clone()).collect()
}

#[test]
fn p4_p5_p16_a_thousand_units_are_adopted_are_watched_and_cost_little() {
    let mut daemon = Daemon::start();
    let began = Instant::now();
    let with = json!({ "argv": ["/bin/sleep", "100000"] });
    batches(&daemon, "service.start", (0..UNITS).map(|n| json!({ "name": name(n), "with": with, "wait": false })));
    eventually("a thousand units run", Duration::from_secs(120), || running(&daemon) == UNITS);
    figure("P4", &format!("{UNITS} units run {:.2} s after the first request", began.elapsed().as_secs_f64()));

    adopted(&mut daemon);
    // What a start of the daemon costs is over, the closer watch of the first minute is not.
    std::thread::sleep(Duration::from_secs(3));
    footprint(&daemon);
    noticed(&daemon);

    // So that the end is not a thousand polite stops in the sum of all tests.
    let stops = (0..UNITS).map(|n| json!({ "name": name(n), "wait": false }));
    batches(&daemon, "service.stop", stops);
    eventually("all are stopped", Duration::from_secs(120), || running(&daemon) == 0);
}

fn adopted(daemon: &mut Daemon) {
    let before = pids(daemon);
    let (mut answers, mut adoptions) = (vec![], vec![]);
    for _ in 0..3 {
        daemon.kill_9();
        let began = Instant::now();
        daemon.begin();
        while get(&daemon.socket(), "/health").is_err() {
            assert!(began.elapsed() < Duration::from_secs(20), "no answer: {}", daemon.log());
            std::thread::sleep(Duration::from_millis(1));
        }
        answers.push(began.elapsed());
        while running(daemon) < UNITS {
            assert!(began.elapsed() < Duration::from_secs(30), "{} of {UNITS} are adopted", running(daemon));
            std::thread::sleep(Duration::from_millis(5));
        }
        adoptions.push(began.elapsed());
    }
    assert!(before == pids(daemon), "a unit was started again");
    let (answer, adoption) = (answers.iter().max().unwrap(), adoptions.iter().max().unwrap());
    figure("P4", &format!("answers after {answer:.0?}, {UNITS} adopted after {adoption:.0?} (worst of 3)"));
    assert!(*answer < Duration::from_millis(300) * SLACK, "{answers:?}");
    assert!(*adoption < Duration::from_secs(1) * SLACK, "{adoptions:?}");
}

/// Kilobytes of a field like `VmRSS:` or `Pss:`.
fn kib(pid: &str, file: &str, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// How often each thread of these processes has waited and was woken, by its number.
fn wakes<'a>(pids: impl Iterator<Item = &'a String>) -> BTreeMap<String, u64> {
    let count = |task: &Path| {
        let text = fs::read_to_string(task.join("status")).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with("voluntary_ctxt_switches"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    let tasks = pids.flat_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten());
    tasks.filter_map(|e| Some((e.file_name().into_string().ok()?, count(&e.path())?))).collect()
}

/// Of those who still live, and of the new ones all.
fn woken(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> u64 {
    after.iter().map(|(tid, count)| count - before.get(tid).unwrap_or(&0)).sum()
}

fn footprint(daemon: &Daemon) {
    let of_ours = |pid: &String| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).starts_with(&format!("{}/state/shim", daemon.home.display()))
    };
    let all = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().into_string().ok());
    let shims: Vec<String> = all.filter(of_ours).collect();
    assert!(shims.len() >= UNITS, "{} shims", shims.len());
    let daemon_pid = daemon.pid().to_string();
    let rss = kib(&daemon_pid, "status", "VmRSS:") as f64 / 1024.0;
    let pss = shims.iter().map(|pid| kib(pid, "smaps_rollup", "Pss:")).sum::<u64>() as f64 / shims.len() as f64;
    let span = Duration::from_secs(10);
    let count = || (wakes([&daemon_pid].into_iter()), wakes(shims.iter()));
    let before = count();
    std::thread::sleep(span);
    let after = count();
    let (of_daemon, of_shims) = (woken(&before.0, &after.0), woken(&before.1, &after.1));
    figure(
        "P16",
        &format!(
            "with {UNITS} idle units the daemon has {rss:.1} MiB and wakes {:.1} times a second; a shim has {pss:.0} KiB (PSS); \
             all shims and the launcher together wake {of_shims} times in {span:?}",
            of_daemon as f64 / span.as_secs_f64()
        ),
    );
    assert_eq!(of_shims, 0, "shims or the launcher wake up");
    assert!(of_daemon <= 10 * u64::from(SLACK), "{of_daemon} wake-ups of the daemon in {span:?}");
    // A debug build is larger: its code is in memory too.
    assert!(rss < 100.0, "{rss} MiB");
    assert!(pss < 150.0, "{pss} KiB");
}

fn noticed(daemon: &Daemon) {
    let pids = pids(daemon);
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let head = "GET /events?kind=unit HTTP/1.1\r\nHost: a\r\nAccept: application/x-ndjson\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut buffer = [0; 65_536];
    // The head of the answer: from here on all is told.
    assert!(stream.read(&mut buffer).unwrap() > 0);
    let mut took = vec![];
    for (n, pid) in pids.iter().enumerate().step_by(UNITS / DEATHS) {
        let about = format!("\"unit\":\"{}\"", name(n));
        let mut seen = String::new();
        let began = Instant::now();
        let pid = nix::unistd::Pid::from_raw(pid.as_i64().unwrap().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        while !seen.contains(&about) {
            let n = stream.read(&mut buffer).unwrap();
            seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
        took.push(began.elapsed());
        std::thread::sleep(Duration::from_millis(5));
    }
    took.sort();
    let (middle, p99) = (took[took.len() / 2], took[took.len() * 99 / 100]);
    figure("P5", &format!("{DEATHS} exits among {UNITS} units noticed after {middle:.1?}, p99 {p99:.1?}"));
    // The last hundredth is what else the machine does.
    assert!(middle < Duration::from_millis(10) * SLACK && p99 < Duration::from_millis(500), "{middle:?}, p99 {p99:?}");
}
