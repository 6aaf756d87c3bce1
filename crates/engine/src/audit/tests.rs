//! Pairs, the chain, what a crash and a full disk leave.

use std::fs;

use super::*;

fn lines(state: &Path) -> Vec<Value> {
    let log = Lines::new(state.join("audit.jsonl"), MOST_BYTES, KEPT);
    let read = log.files().into_iter().rev().flat_map(|path| Lines::read(&path).unwrap());
    read.map(|line| serde_json::from_str(&line).unwrap_or(Value::Null)).collect()
}

fn begin(log: &AuditLog) -> u64 {
    log.add(|seq| json!({ "line": "begin", "call": seq, "method": "service.stop" }))
}

#[test]
fn what_a_dead_daemon_left_open_is_closed_as_unknown_once() {
    let dir = tempfile::tempdir().unwrap();
    let log = AuditLog::open(dir.path(), "b1");
    let (first, second) = (begin(&log), begin(&log));
    log.add(|_| json!({ "line": "end", "call": first, "outcome": "ok" }));
    drop(log);
    for boot in ["b2", "b3"] {
        drop(AuditLog::open(dir.path(), boot));
    }
    let all = lines(dir.path());
    let closed: Vec<&Value> = all.iter().filter(|line| line["outcome"] == "unknown").collect();
    assert_eq!(closed.len(), 1, "{all:#?}");
    assert_eq!((&closed[0]["call"], &closed[0]["boot"]), (&json!(second), &json!("b2")));
    let seqs: Vec<u64> = all.iter().map(|line| line["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=all.len() as u64).collect::<Vec<_>>());
    assert_eq!(verify(dir.path()), Ok(all.len()));
}

#[test]
fn a_line_that_is_changed_or_taken_out_shows() {
    let dir = tempfile::tempdir().unwrap();
    let log = AuditLog::open(dir.path(), "b1");
    (0..10).for_each(|_| _ = begin(&log));
    let path = dir.path().join("audit.jsonl");
    let whole = fs::read_to_string(&path).unwrap();
    fs::write(&path, whole.replacen("service.stop", "service.list", 1)).unwrap();
    assert!(verify(dir.path()).is_err());
    let without: String = whole.lines().enumerate().filter(|(n, _)| *n != 4).map(|(_, l)| format!("{l}\n")).collect();
    fs::write(&path, without).unwrap();
    assert!(verify(dir.path()).unwrap_err().contains("line 5"));
    fs::write(&path, whole).unwrap();
    assert_eq!(verify(dir.path()), Ok(11));
}

#[test]
fn the_chain_goes_on_through_rotation_and_a_torn_line() {
    let dir = tempfile::tempdir().unwrap();
    let log = AuditLog::open(dir.path(), "b1");
    let open = begin(&log);
    let long = "x".repeat(8000);
    for _ in 0..600 {
        let call = log.add(|seq| json!({ "line": "begin", "call": seq, "method": long }));
        log.add(|_| json!({ "line": "end", "call": call, "outcome": "ok" }));
    }
    drop(log);
    let path = dir.path().join("audit.jsonl");
    fs::write(&path, fs::read_to_string(&path).unwrap() + "{\"seq\":").unwrap();
    drop(AuditLog::open(dir.path(), "b2"));
    assert!(fs::read_dir(dir.path()).unwrap().count() > 2, "it was rotated");
    let all = lines(dir.path());
    assert_eq!(verify(dir.path()), Ok(all.len()));
    let closed: Vec<&Value> =
        all.iter().filter(|line| line["outcome"] == "unknown").map(|line| &line["call"]).collect();
    assert_eq!(closed, [&json!(open)], "found two files back");
}

#[test]
fn a_full_disk_is_counted_and_nobody_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let log = AuditLog::open(dir.path(), "b1");
    begin(&log);
    fs::remove_file(&path).unwrap();
    // The file is open still; the next daemon, or the next rotation, has the new one.
    log.chain.lock().unwrap().lines = Lines::new(path, MOST_BYTES, KEPT);
    begin(&log);
    let all = lines(dir.path());
    assert_eq!((all.len(), &all[0]["missed"], &all[0]["seq"]), (1, &json!(2), &json!(3)));
}

/// A call waits for two of these: the figure is printed, the bound is generous.
#[test]
fn what_a_line_costs() {
    let dir = tempfile::tempdir().unwrap();
    let log = AuditLog::open(dir.path(), "b1");
    let began = Instant::now();
    (0..10_000).for_each(|_| _ = begin(&log));
    let each = began.elapsed() / 10_000;
    println!("a line of the audit log: {each:?}");
    assert!(each < std::time::Duration::from_millis(1), "{each:?}");
}
