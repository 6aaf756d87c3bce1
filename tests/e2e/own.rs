//! Services of a user's own: executables in the services folder, on the real daemon.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use wharf_tests::{Daemon, alive, cannot, eventually, free_port, listens, root};

const LONG: Duration = Duration::from_secs(30);

fn folder(daemon: &Daemon) -> PathBuf {
    let folder = daemon.home.join("config/services");
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn put(daemon: &Daemon, name: &str, mode: u32, text: &str) -> PathBuf {
    let path = folder(daemon).join(name);
    // Another file in its place, as an editor does it: one that is being run cannot be written to.
    let draft = path.with_extension("draft");
    fs::write(&draft, text).unwrap();
    fs::set_permissions(&draft, fs::Permissions::from_mode(mode)).unwrap();
    fs::rename(&draft, &path).unwrap();
    path
}

fn example(daemon: &Daemon, name: &str) {
    put(daemon, name, 0o755, &fs::read_to_string(root().join("examples/services").join(name)).unwrap());
}

/// A service that answers what it is told to.
fn script(summary: &str, start: &str) -> String {
    format!(
        "#!/bin/sh\ncase $1 in facts) echo '{{\"summary\": \"{summary}\"}}';; start) {start};; *) echo '{{}}';; esac\n"
    )
}

const SLEEPS: &str = "echo '{\"argv\": [\"sleep\", \"1000\"]}'";

fn has_python() -> bool {
    Command::new("python3").arg("--version").output().is_ok_and(|said| said.status.success())
}

fn names(daemon: &Daemon) -> Vec<String> {
    let rows = daemon.ok("service.list", json!({}));
    rows.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_python_example_is_installed_runs_and_ends() {
    if !has_python() {
        return cannot("the Python example", "needs python3");
    }
    let mut daemon = Daemon::prepare();
    example(&daemon, "clock.py");
    daemon.launch();
    let inspection = daemon.ok("service.inspect", json!({ "name": "clock" }));
    assert_eq!(inspection["definition"]["summary"], "Tells the time over HTTP", "{inspection}");
    assert_eq!(inspection["params_schema"]["properties"]["format"]["default"], "%H:%M:%S", "{inspection}");
    let wrong = daemon.err("service.install", json!({ "name": "clock", "version": "9" }));
    assert!(wrong["message"].as_str().unwrap().contains("there is no version 9"), "{wrong}");
    assert_eq!(wrong["data"]["hint"], "on offer: 1.0", "{wrong}");
    let installed = daemon.ok("service.install", json!({ "name": "clock" }));
    assert_eq!(installed["version"], "1.0", "{installed}");
    assert_eq!(daemon.ok("service.verify", json!({ "name": "clock" }))["ok"], true);
    let port = free_port();
    let with = json!({ "format": "it is %Y", "ports": { "main": port } });
    let bad = daemon.err("service.start", json!({ "name": "clock", "with": { "formta": "x" } }));
    assert!(bad["message"].as_str().unwrap().contains("formta"), "{bad}");
    daemon.ok("service.start", json!({ "name": "clock", "with": with }));
    let health = daemon.ok("service.health", json!({ "name": "clock" }));
    assert!(health.to_string().contains("it is 20"), "its own words are the evidence: {health}");
    let pid = daemon.ok("service.status", json!({ "name": "clock" }))["pid"].as_i64().unwrap() as i32;
    let began = Instant::now();
    daemon.ok("service.stop", json!({ "name": "clock" }));
    assert!(!alive(pid) && !listens(port));
    let log = daemon.ok("service.logs", json!({ "name": "clock" })).to_string();
    assert!(log.contains("KeyboardInterrupt"), "it was asked by INT, after {:?}: {log}", began.elapsed());
    // What it has to tell goes to the daemon's log, with its name and verb.
    assert!(daemon.log().contains("clock install: made "), "{}", daemon.log());
    daemon.ok("service.delete", json!({ "name": "clock", "purge_binaries": true }));
    assert!(!daemon.home.join("store/clock").exists());
}

#[test]
fn the_shell_example_runs_and_is_supervised_like_any_other() {
    let mut daemon = Daemon::prepare();
    example(&daemon, "beacon.sh");
    daemon.launch();
    daemon.ok("service.start", json!({ "name": "beacon", "with": { "every_s": 1 } }));
    let beat = daemon.home.join("data/beacon/beat");
    eventually("a beat", LONG, || beat.exists());
    let status = daemon.ok("service.status", json!({ "name": "beacon" }));
    let pid = status["pid"].as_i64().unwrap() as i32;
    assert_eq!(status["state"], "running", "{status}");
    // A death is a death: the shim saw it, and the daemon starts it again.
    wharf_tests::signal(pid, "KILL");
    eventually("another run", LONG, || {
        let status = daemon.ok("service.status", json!({ "name": "beacon" }));
        status["state"] == "running" && status["pid"].as_i64() != Some(i64::from(pid))
    });
    // Another daemon adopts it, and knows its service at once.
    let pid = daemon.ok("service.status", json!({ "name": "beacon" }))["pid"].clone();
    daemon.kill_9();
    daemon.launch();
    let status = daemon.ok("service.status", json!({ "name": "beacon" }));
    assert_eq!((&status["pid"], &status["state"]), (&pid, &json!("running")), "{status}");
    let health = daemon.ok("service.health", json!({ "name": "beacon" }));
    assert!(health.to_string().contains("the last beat"), "{health}");
    daemon.ok("service.stop", json!({ "name": "beacon" }));
    assert!(!alive(pid.as_i64().unwrap() as i32));
}

#[test]
fn a_file_that_is_no_service_is_named_and_the_rest_works() {
    let mut daemon = Daemon::prepare();
    put(&daemon, "good.sh", 0o755, &script("good", SLEEPS));
    put(&daemon, "plain", 0o644, "not executable");
    put(&daemon, "open", 0o777, "#!/bin/sh\ntouch \"$0.was-run\"\n");
    put(&daemon, "nonsense", 0o755, "#!/bin/sh\necho hello\n");
    put(&daemon, "hangs", 0o755, "#!/bin/sh\nexec sleep 1000\n");
    put(&daemon, "fails", 0o755, "#!/bin/sh\necho 'no licence' >&2; exit 7\n");
    put(&daemon, "hello", 0o755, &script("takes a name that is taken", SLEEPS));
    let began = Instant::now();
    daemon.launch();
    // The one that hangs holds up nobody: the daemon answers, and the good one runs.
    assert!(names(&daemon).contains(&"hello".to_owned()));
    eventually("the good one is known", LONG, || names(&daemon).contains(&"good".to_owned()));
    daemon.ok("service.start", json!({ "name": "good" }));
    assert_eq!(daemon.state("good"), "running");
    let report = daemon.ok("discovery.rescan", json!({}));
    assert_eq!(report["services"].as_array().unwrap().len(), 1, "{report:#}");
    let error = |name: &str| -> Value {
        let path = folder(&daemon).join(name);
        let errors = report["errors"].as_array().unwrap();
        errors
            .iter()
            .find(|e| e["path"] == path.to_str().unwrap())
            .unwrap_or_else(|| panic!("{name}: {report:#}"))
            .clone()
    };
    for (name, says) in [
        ("plain", "not executable"),
        ("open", "others can write"),
        ("nonsense", "hello"),
        ("hangs", "did not end within 5 s"),
        ("fails", "no licence"),
        ("hello", "already"),
    ] {
        let error = error(name);
        assert!(error["message"].as_str().unwrap().contains(says), "{name}: {error}");
        assert!(!error["hint"].as_str().unwrap().is_empty());
    }
    assert_eq!(report["errors"].as_array().unwrap().len(), 6, "{report:#}");
    assert!(!folder(&daemon).join("open.was-run").exists(), "what others can write is never run");
    assert!(daemon.log().contains("/hangs"), "the daemon's log names it, too; {:?}", began.elapsed());
    let said = daemon.cli(&["discover", "--own"]);
    assert!(said.code == 8 && said.out.contains("good.sh") && said.err.contains("chmod go-w"), "{said:?}");
    let doctor = daemon.cli(&["doctor", "--json"]).json();
    let found = doctor["findings"].as_array().unwrap().iter().filter(|f| f["id"] == "service-unusable").count();
    assert_eq!(found, 6, "{doctor:#}");
}

#[test]
fn what_changes_in_the_folder_is_known_after_another_look() {
    let daemon = Daemon::start();
    let unknown = daemon.err("service.start", json!({ "name": "late" }));
    assert!(unknown["data"]["hint"].as_str().unwrap().contains("wharf discover --own"), "{unknown}");
    put(&daemon, "late", 0o755, &script("came late", SLEEPS));
    daemon.cli_ok(&["discover", "--own"]);
    daemon.ok("service.start", json!({ "name": "late" }));
    let pid = daemon.ok("service.status", json!({ "name": "late" }))["pid"].as_i64().unwrap() as i32;
    // A slip in the file: what it said last holds, so that its run is still asked how it is.
    put(&daemon, "late", 0o755, "#!/bin/sh\nsyntax error here (\n");
    let report = daemon.ok("discovery.rescan", json!({}));
    assert!(report["errors"][0]["hint"].as_str().unwrap().contains("what it said last holds"), "{report:#}");
    assert!(names(&daemon).contains(&"late".to_owned()) && alive(pid));
    // Open to others, it is not run any more, whatever it said before.
    put(&daemon, "late", 0o757, &script("came late", "touch was-run; echo '{\"argv\": [\"sleep\", \"1000\"]}'"));
    let refused = daemon.err("service.restart", json!({ "name": "late" }));
    assert!(refused.to_string().contains("others can write"), "{refused}");
    assert!(!daemon.home.join("data/late/was-run").exists());
    // Gone, it is no service; what was made of it is still there to be deleted.
    fs::remove_file(folder(&daemon).join("late")).unwrap();
    daemon.ok("discovery.rescan", json!({}));
    daemon.ok("service.delete", json!({ "name": "late" }));
    assert!(!names(&daemon).contains(&"late".to_owned()));
}

#[test]
fn what_an_executable_says_in_the_middle_of_its_life_is_taken_as_it_is() {
    let mut daemon = Daemon::prepare();
    let at = |name: &str| daemon.home.join(name).display().to_string();
    let (sick, bye) = (at("sick"), at("bye"));
    let text = format!(
        "#!/bin/sh\ncase $1 in\n\
         facts) echo '{{\"summary\": \"x\", \"instances\": [\"a\", \"b\"], \"policy\": {{\"probe_early_ms\": 100, \"probe_steady_ms\": 100}}}}';;\n\
         start) echo starting >&2; echo '{{\"argv\": [\"sleep\", \"1000\"], \"env\": {{\"WHO\": \"'$WHARF_INSTANCE'\"}}}}';;\n\
         health) [ -e {sick} ] && echo '{{\"ok\": false, \"why\": \"it says so itself\"}}' || echo '{{\"ok\": true}}';;\n\
         stop) touch {bye}; echo '{{\"signal\": \"QUIT\"}}';;\nesac\n"
    );
    put(&daemon, "pair", 0o755, &text);
    put(&daemon, "refuses", 0o755, &script("x", "echo '{\"error\": \"no key\", \"hint\": \"make one\"}'"));
    put(&daemon, "mute", 0o755, &script("x", "exec sleep 1000"));
    put(&daemon, "wrong", 0o755, &script("x", "echo '{\"argv\": [\"/nowhere/x\"]}'"));
    daemon.launch();
    eventually("all are known", LONG, || names(&daemon).contains(&"wrong".to_owned()));
    daemon.ok("service.start", json!({ "name": "pair@a" }));
    let pid = daemon.ok("service.status", json!({ "name": "pair@a" }))["pid"].as_i64().unwrap() as i32;
    let environ = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    assert!(environ.contains("WHO=a\0"), "{environ}");
    fs::write(&sick, "").unwrap();
    eventually("it is told as it says", LONG, || {
        daemon.ok("service.status", json!({ "name": "pair@a" })).to_string().contains("it says so itself")
    });
    fs::remove_file(&sick).unwrap();
    daemon.ok("service.stop", json!({ "name": "pair@a" }));
    assert!(Path::new(&bye).exists(), "its own stop was asked");
    let refused = daemon.err("service.start", json!({ "name": "refuses" }));
    assert!(refused.to_string().contains("no key") && refused.to_string().contains("make one"), "{refused}");
    let wrong = daemon.err("service.start", json!({ "name": "wrong" }));
    assert!(wrong.to_string().contains("/nowhere/x"), "{wrong}");
    // One whose start hangs is given up; meanwhile all others go on.
    let mute = json!({ "name": "mute", "policy": { "start_timeout_ms": 2_000, "restart": { "budget": 0, "slow_retry_s": 0 } } });
    let mute = daemon.err("service.start", mute);
    assert!(mute.to_string().contains("within"), "{mute}");
}
