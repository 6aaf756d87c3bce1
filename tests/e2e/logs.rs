//! What units write: none of it is lost, it is found again, and nobody pays for it.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use wharf_tests::{Daemon, eventually, wharf_binary};

const UNIT: &str = "command@x";

fn sh(script: &str) -> Value {
    json!({ "argv": ["sh", "-c", script] })
}

fn start(daemon: &Daemon, script: &str, logs: Value) {
    daemon.ok("service.start", json!({ "name": UNIT, "with": sh(script), "policy": { "logs": logs } }));
}

fn logs(daemon: &Daemon, more: Value) -> Value {
    let mut params = json!({ "name": UNIT });
    for (key, value) in more.as_object().unwrap() {
        params[key] = value.clone();
    }
    daemon.ok("service.logs", params)
}

fn texts(report: &Value) -> Vec<&str> {
    report["lines"].as_array().unwrap().iter().map(|l| l.as_str().unwrap()).collect()
}

/// Processor time of a process until now, in milliseconds.
fn cpu_ms(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // utime and stime, in ticks of 10 ms.
    (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10
}

/// Reads numbered lines page by page: how many came, and whether each came once and in order.
struct Reading {
    cursor: Option<String>,
    next: u64,
    faults: Vec<String>,
}

impl Reading {
    fn new(cursor: &str) -> Self {
        Self { cursor: Some(cursor.to_owned()), next: 1, faults: vec![] }
    }

    /// To the present end.
    fn go_on(&mut self, daemon: &Daemon) {
        loop {
            let page = logs(daemon, json!({ "lines": 10_000, "cursor": self.cursor }));
            if page["gap_bytes"] != 0 {
                self.faults.push(format!("{} bytes are gone", page["gap_bytes"]));
            }
            for text in texts(&page) {
                if text != format!("line {}", self.next) {
                    self.faults.push(format!("{text:?} instead of line {}", self.next));
                }
                self.next = text.strip_prefix("line ").and_then(|n| n.parse().ok()).unwrap_or(self.next) + 1;
            }
            self.cursor = page["cursor"].as_str().map(str::to_owned);
            if page["more"] == false {
                return;
            }
        }
    }
}

#[test]
fn t2_two_hundred_thousand_lines_are_all_kept_and_cost_the_daemon_next_to_nothing() {
    let daemon = Daemon::start();
    let (go, done) = (daemon.home.join("go"), daemon.home.join("done"));
    let script = format!(
        "while ! [ -e {} ]; do sleep 0.05; done; seq -f 'line %.0f' 1 200000; touch {}; exec sleep 1000",
        go.display(),
        done.display()
    );
    start(&daemon, &script, json!({}));
    // What a start costs is over.
    std::thread::sleep(Duration::from_millis(500));
    let (before, began) = (cpu_ms(daemon.pid()), Instant::now());
    fs::write(&go, "").unwrap();
    eventually("all is written", Duration::from_secs(30), || done.exists());
    let writing = began.elapsed();
    std::thread::sleep(Duration::from_secs(1));
    let spent = cpu_ms(daemon.pid()) - before;
    let mut reading = Reading::new(&format!("{UNIT}/1/0"));
    let began = Instant::now();
    reading.go_on(&daemon);
    println!(
        "200,000 lines in {writing:?}: {spent} ms of the daemon's processor time in {:?}, {} lost; read in {:?}",
        writing + Duration::from_secs(1),
        200_001 - reading.next,
        began.elapsed()
    );
    assert_eq!((reading.next, &reading.faults[..]), (200_001, &[][..]));
    assert!(spent <= 100, "{spent} ms");
}

#[test]
fn p12_no_line_is_lost_over_rotations_kills_of_the_daemon_and_restarts_of_the_unit() {
    let mut daemon = Daemon::start();
    let count = daemon.home.join("count");
    // Goes on counting where its last run ended. It ends only where what it wrote and what it counted agree: a trap
    // that exits would run between the two, and the next run would write the same lines again.
    let script = format!(
        "exec 2>/dev/null; n=$(cat {0} 2>/dev/null || echo 1); trap 'over=1' TERM; while [ -z \"$over\" ]; do \
         e=$((n+80)); while [ $n -lt $e ]; do echo \"line $n\"; n=$((n+1)); done; echo $n > {0}; sleep 0.01; done",
        count.display()
    );
    start(&daemon, &script, json!({ "rotate_bytes": 4096, "keep_runs": 50 }));
    let mut reading = Reading::new(&format!("{UNIT}/1/0"));
    for round in 0..10 {
        std::thread::sleep(Duration::from_millis(100 + 37 * round));
        if round % 3 == 1 {
            daemon.ok("service.restart", json!({ "name": UNIT }));
        } else {
            daemon.kill_9();
            daemon.launch();
        }
        reading.go_on(&daemon);
    }
    daemon.ok("service.stop", json!({ "name": UNIT }));
    reading.go_on(&daemon);
    let written: u64 = fs::read_to_string(&count).unwrap().trim().parse().unwrap();
    let folder = daemon.home.join("logs").join(UNIT);
    let archives: usize = (1..=10)
        .map(|run| fs::read_dir(folder.join(run.to_string())).into_iter().flatten().flatten())
        .map(|names| names.filter(|e| e.path().extension().is_some_and(|x| x == "zst")).count())
        .sum();
    println!("FIGURE P12: {} lines, {archives} archives, faults: {:?}", reading.next - 1, reading.faults);
    assert!(archives >= 5, "{archives} archives");
    assert!(reading.next >= written && reading.next > 1_000, "{} of {written}", reading.next);
    assert_eq!(reading.faults, [] as [String; 0]);
}

#[test]
fn p12_a_service_that_truncates_its_own_log_is_found_out_and_read_on() {
    let daemon = Daemon::start();
    let go = daemon.home.join("go");
    let script = format!(
        "seq 1 1000; while ! [ -e {} ]; do sleep 0.05; done; echo new > /dev/stdout; sleep 0.5; echo later; exec sleep 1000",
        go.display()
    );
    start(&daemon, &script, json!({}));
    eventually("it has written", Duration::from_secs(5), || texts(&logs(&daemon, json!({}))).last() == Some(&"1000"));
    let cursor = logs(&daemon, json!({}))["cursor"].clone();
    fs::write(&go, "").unwrap();
    eventually("it goes on", Duration::from_secs(5), || {
        texts(&logs(&daemon, json!({ "cursor": cursor }))) == ["new", "later"]
    });
    let log = daemon.log();
    assert!(log.contains("run 1 truncated its own log: 3893 bytes are lost; with logs.pipe"), "{log}");
    let all = logs(&daemon, json!({ "cursor": format!("{UNIT}/1/0") }));
    assert_eq!((&all["gap_bytes"], texts(&all)), (&json!(3893), vec!["new", "later"]));
}

#[test]
fn p12_on_a_file_system_without_holes_all_is_kept_and_it_is_said_once() {
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let logs_dir = home.path().join("logs");
    fs::create_dir(&logs_dir).unwrap();
    let mount = format!("mount -t ramfs -o mode=700 none {}", logs_dir.display());
    let can = Command::new("unshare").args(["-m", "sh", "-c", &mount]).output();
    if !can.is_ok_and(|o| o.status.success()) {
        println!("CANNOT BE DONE HERE: mounting a file system without holes");
        return;
    }
    let script = home.path().join("wharf");
    let wharf = wharf_binary();
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = daemon ] || exec {0} \"$@\"\nexec unshare -m sh -c '{mount}; exec {0} daemon'\n",
        wharf.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let mut daemon = Daemon::at(home.path()).with_binary(&script);
    daemon.launch();
    start(&daemon, "seq -f 'line %.0f' 1 20000; exec sleep 1000", json!({ "rotate_bytes": 4096 }));
    let mut reading = Reading::new(&format!("{UNIT}/1/0"));
    eventually("all is read", Duration::from_secs(10), || {
        reading.go_on(&daemon);
        reading.next == 20_001
    });
    assert_eq!(reading.faults, [] as [String; 0]);
    assert_eq!(daemon.log().matches("its file system has no holes").count(), 1, "{}", daemon.log());
    daemon.cli(&["down"]);
}

#[test]
fn t21_a_service_that_logs_the_same_error_is_degraded_with_the_line_and_recovers() {
    let daemon = Daemon::start();
    let well = daemon.home.join("well");
    let script = format!(
        "n=0; while :; do n=$((n+1)); [ -e {} ] && echo fine || echo \"$(date +%s) ERROR no route to db, try $n\"; sleep 0.2; done",
        well.display()
    );
    start(&daemon, &script, json!({ "error_repeats": 3, "error_window_s": 2 }));
    eventually("it is degraded", Duration::from_secs(10), || daemon.state(UNIT) == "degraded");
    let status = daemon.ok("service.status", json!({ "name": UNIT }));
    assert!(status["error_message"].as_str().unwrap().contains("ERROR no route to db, try"), "{status}");
    assert_eq!(status["restart_count"], 0);
    fs::write(&well, "").unwrap();
    eventually("it is well again", Duration::from_secs(10), || daemon.state(UNIT) == "running");
    let status = daemon.ok("service.status", json!({ "name": UNIT }));
    assert_eq!(status["error_message"], Value::Null, "{status}");
}

#[test]
fn what_is_followed_comes_at_once_in_order_and_over_a_restart() {
    let daemon = Daemon::start();
    start(
        &daemon,
        "echo \"run $$\"; trap 'echo bye; exit 0' TERM; while :; do date +%s.%N; sleep 0.1; done",
        json!({}),
    );
    let mut child = daemon.command().args(["logs", "-f", "--json", UNIT]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(|l| serde_json::from_str::<Value>(&l.unwrap()).unwrap_or_else(|e| panic!("{e}")));
    let (mut late, mut seen) = (vec![], vec![]);
    let mut take = |count: usize, late: &mut Vec<f64>| {
        for line in lines.by_ref().take(count) {
            let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
            if let Ok(written) = line["line"].as_str().unwrap().parse::<f64>() {
                late.push(now - written);
            }
            seen.push((line["run"].as_u64().unwrap(), line["cursor"].as_str().unwrap().to_owned()));
            assert_eq!(line["gap_bytes"], 0);
        }
        seen.clone()
    };
    take(20, &mut late);
    daemon.ok("service.restart", json!({ "name": UNIT }));
    let seen = take(25, &mut late);
    child.kill().unwrap();
    child.wait().unwrap();
    late.sort_by(f64::total_cmp);
    println!(
        "followed lines came after {:.1} ms (median), {:.1} ms (worst)",
        late[late.len() / 2] * 1e3,
        late[late.len() - 1] * 1e3
    );
    assert!(late[late.len() / 2] < 0.25, "{late:?}");
    assert_eq!((seen[0].0, seen[44].0), (1, 2));
    // Whoever was cut off goes on behind any line, and gets the rest once.
    let rest = logs(&daemon, json!({ "cursor": seen[9].1, "lines": 35 }));
    let cursors: Vec<String> = rest["entries"]
        .as_array()
        .unwrap()
        .iter()
        .skip(1)
        .map(|e| format!("{UNIT}/{}/{}", e["run"], e["offset"]))
        .collect();
    let expected: Vec<&String> =
        seen[10..44].iter().map(|(_, cursor)| cursor).filter(|c| !rest_starts(&rest, c)).collect();
    assert_eq!(cursors.iter().filter(|c| !c.ends_with("/0")).collect::<Vec<_>>(), expected);
}

/// A cursor behind a run's last line is no line's start.
fn rest_starts(rest: &Value, cursor: &str) -> bool {
    !rest["entries"].as_array().unwrap().iter().any(|e| cursor.ends_with(&format!("/{}/{}", e["run"], e["offset"])))
}

#[test]
fn lines_are_found_by_time_expression_level_and_run() {
    let daemon = Daemon::start();
    start(
        &daemon,
        "echo 'early'; sleep 1.5; echo '{\"level\":\"error\",\"msg\":\"no disk\",\"dev\":\"sda\"}'; \
         echo 'level=warn msg=\"slow disk\" ms=7'; echo 'INFO ready'; printf 'no end'; exec sleep 1000",
        json!({}),
    );
    eventually("it has written all", Duration::from_secs(5), || texts(&logs(&daemon, json!({}))).len() == 5);
    let serious = logs(&daemon, json!({ "level": "warn" }));
    assert_eq!(serious["entries"][0]["level"], "error");
    assert_eq!(serious["entries"][0]["msg"], "no disk");
    assert_eq!(serious["entries"][0]["fields"], json!({ "dev": "sda" }));
    assert_eq!(serious["entries"][1]["msg"], "slow disk");
    assert_eq!(texts(&serious).len(), 2);
    assert_eq!(texts(&logs(&daemon, json!({ "grep": "^INFO|ear.y" }))), ["early", "INFO ready"]);
    let early = logs(&daemon, json!({ "grep": "early" }))["entries"][0]["at"].as_f64().unwrap();
    let since = logs(&daemon, json!({ "since": early + 0.5 }));
    assert_eq!(texts(&since).len(), 4, "{since}");
    assert_eq!(texts(&logs(&daemon, json!({ "until": early + 0.5 }))), ["early"]);
    assert_eq!(texts(&logs(&daemon, json!({ "since": -3600 }))).len(), 5);
    assert_eq!(since["entries"][3]["ended"], false);
    // A line without its end is not passed by: its cursor is before it.
    assert!(texts(&logs(&daemon, json!({ "cursor": since["cursor"] }))).is_empty());
    daemon.ok("service.restart", json!({ "name": UNIT }));
    assert_eq!(texts(&logs(&daemon, json!({ "cursor": since["cursor"], "lines": 2 })))[0], "no end");
    assert_eq!(texts(&logs(&daemon, json!({ "run": 1 }))).len(), 5);
    let said = daemon.cli_ok(&["logs", UNIT, "--level", "warn", "--run", "1"]);
    assert_eq!(
        said.out,
        "{\"level\":\"error\",\"msg\":\"no disk\",\"dev\":\"sda\"}\nlevel=warn msg=\"slow disk\" ms=7\n"
    );
}

#[test]
fn wrong_questions_are_named_with_the_next_thing_to_do() {
    let daemon = Daemon::start();
    start(&daemon, "echo x; exec sleep 1000", json!({}));
    let wrong = [
        (json!({ "name": UNIT, "grep": "(" }), "grep is no regular expression"),
        (json!({ "name": UNIT, "cursor": "x" }), "\"x\" is no cursor"),
        (json!({ "name": UNIT, "cursor": "redis/1/1" }), "is of redis, not of command@x"),
        (json!({ "name": UNIT, "level": "loud" }), "loud"),
        (json!({ "name": UNIT, "follow": true }), "follow needs a stream"),
    ];
    for (params, message) in wrong {
        let error = daemon.err("service.logs", params.clone());
        assert_eq!(error["code"], -32602, "{params}: {error}");
        assert!(error["message"].as_str().unwrap().contains(message), "{params}: {error}");
    }
    let said = daemon.cli(&["logs", "--since", "yesterday", UNIT]);
    assert_eq!(said.code, 2);
    assert!(said.err.contains("30s, 5m, 2h"), "{said:?}");
}

#[test]
fn what_is_kept_is_what_the_policy_says() {
    let daemon = Daemon::start();
    start(&daemon, "echo \"I am $$\"; exec sleep 1000", json!({ "keep_runs": 2 }));
    for _ in 0..5 {
        daemon.ok("service.restart", json!({ "name": UNIT }));
    }
    let folder = daemon.home.join("logs").join(UNIT);
    eventually("old logs are gone", Duration::from_secs(5), || {
        let mut names: Vec<String> =
            fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|n| n.ends_with(".log"));
        names.sort();
        names == ["4.log", "5.log", "6.log"]
    });
    eventually("the log is read", Duration::from_secs(5), || texts(&logs(&daemon, json!({ "since": -60 }))).len() == 3);
    assert_eq!(texts(&logs(&daemon, json!({}))).len(), 1, "of the newest run");
    let page = logs(&daemon, json!({ "cursor": format!("{UNIT}/1/0") }));
    assert_eq!(texts(&page).len(), 3);
    assert!(page["gap_bytes"].as_u64().unwrap() >= 3 * "I am 1\n".len() as u64, "{page}");
}
