//! Bad input and bad luck: a clear error with a hint, nothing half done, nothing lost.

use std::{fs, process::Command, time::Duration};

use serde_json::json;
use wharf_tests::{Daemon, eventually};

fn hint(error: &serde_json::Value) -> &str {
    error["data"]["hint"].as_str().unwrap_or_else(|| panic!("no hint: {error:#}"))
}

#[test]
fn wrong_params_are_named_and_change_nothing() {
    let daemon = Daemon::start();
    let cases = [
        ("service.start", json!({}), "name"),
        ("service.start", json!({ "name": 7 }), "string"),
        ("service.start", json!({ "name": "hello", "nmae": 1 }), "nmae"),
        ("service.start", json!({ "name": "../../etc" }), "not a unit name"),
        ("service.start", json!({ "name": "hello", "with": { "ports": { "http": "eighty" } } }), "with"),
        ("service.start", json!({ "name": "hello", "with": { "ports": { "htpp": 80 } } }), "htpp"),
        ("service.start", json!({ "name": "hello", "with": { "color": 1 } }), "color"),
        ("service.start", json!({ "name": "command@x", "with": { "argv": "ls" } }), "argv"),
        ("service.logs", json!({ "name": "hello", "lines": -1 }), "-1"),
    ];
    for (method, params, part) in cases {
        let error = daemon.err(method, params.clone());
        assert_eq!(error["code"], -32602, "{method} {params}: {error}");
        assert!(error["message"].as_str().unwrap().contains(part), "{method} {params}: {error}");
        hint(&error);
    }
    assert_eq!(daemon.state("hello"), "stopped");
    assert!(daemon.ok("service.list", json!({})).as_array().unwrap().iter().all(|r| r["name"] != "command@x"));
}

#[test]
fn unknown_names_get_the_name_that_was_meant() {
    let daemon = Daemon::start();
    for method in
        ["status", "inspect", "start", "stop", "install", "delete", "logs", "health", "verify", "troubleshoot"]
    {
        let error = daemon.err(&format!("service.{method}"), json!({ "name": "postgre" }));
        assert_eq!(error["code"], -32001, "{method}: {error}");
        assert!(hint(&error).contains("postgres"), "{method}: {error}");
    }
    let error = daemon.err("service.start", json!({ "name": "python-api" }));
    assert!(hint(&error).contains("python-api@alden"), "{error}");
}

#[test]
fn a_missing_program_is_named_before_anything_runs() {
    let daemon = Daemon::start();
    let error =
        daemon.err("service.start", json!({ "name": "command@gone", "with": { "argv": ["no-such-program-here"] } }));
    assert_eq!(error["code"], -32008, "{error}");
    assert!(error["message"].as_str().unwrap().contains("no-such-program-here"), "{error}");
    hint(&error);
    let status = daemon.call("service.status", json!({ "name": "command@gone" }));
    assert!(status.is_err() || status.unwrap()["pid"].is_null());
    let error = daemon.err(
        "service.start",
        json!({ "name": "command@lost", "with": { "argv": ["true"], "cwd": "/no/such/folder" } }),
    );
    assert!(error["message"].as_str().unwrap().contains("/no/such/folder"), "{error}");
    let error = daemon.err(
        "service.start",
        json!({ "name": "command@env", "with": { "argv": ["sleep", "9"], "env_file": "/no/env" } }),
    );
    assert_eq!(error["code"], -32008, "{error}");
}

#[test]
fn a_service_that_never_gets_ready_is_a_timeout_that_quotes_the_last_probe() {
    let daemon = Daemon::start();
    let port = wharf_tests::free_port();
    let with = json!({
        "argv": ["sleep", "1000"], "ports": { "http": port }, "start_timeout_s": 1,
        "health": { "http": { "port": "http", "path": "/" } },
    });
    let error = daemon.err("service.start", json!({ "name": "command@never", "with": with }));
    assert_eq!(error["code"], -32004, "{error}");
    assert!(error["data"]["causes"].to_string().contains("refused"), "{error}");
    let trouble = daemon.ok("service.troubleshoot", json!({ "name": "command@never" }));
    assert!(!trouble["findings"].as_array().unwrap().is_empty(), "{trouble}");
    daemon.ok("service.stop", json!({ "name": "command@never" }));
}

#[test]
fn one_death_more_than_the_budget_is_failed_with_the_reason() {
    let daemon = Daemon::start();
    let with = json!({
        "argv": ["sh", "-c", "echo going down >&2; sleep 0.05; exit 9"],
        "restart": { "budget": 1, "max_delay_s": 1 },
    });
    daemon.call("service.start", json!({ "name": "command@mortal", "with": with })).ok();
    eventually("it is given up", Duration::from_secs(10), || daemon.state("command@mortal") == "failed");
    let status = daemon.ok("service.status", json!({ "name": "command@mortal" }));
    assert!(status["error_message"].as_str().unwrap().contains("not restarting"), "{status}");
    assert_eq!((&status["restart_count"], &status["status"]), (&json!(1), &json!("error")));
}

#[test]
fn three_failed_probes_in_a_row_restart_it() {
    let daemon = Daemon::start();
    let port = wharf_tests::free_port();
    let root = daemon.home.join("www");
    fs::create_dir_all(&root).unwrap();
    let good = "{\"status\":\"healthy\"}";
    fs::write(root.join("health"), good).unwrap();
    let with = json!({
        "argv": ["python3", "-m", "http.server", port.to_string(), "--bind", "127.0.0.1", "--directory", root],
        "ports": { "http": port },
        "health": { "http": { "port": "http", "path": "/health", "json": { "/status": "healthy" } } },
    });
    let first = daemon.run("sick", with)["pid"].clone();
    fs::write(root.join("health"), "{\"status\":\"sick\"}").unwrap();
    eventually("the first failed probe is told", Duration::from_secs(8), || {
        daemon.state("command@sick") == "unhealthy"
    });
    assert_eq!(
        daemon.ok("service.status", json!({ "name": "command@sick" }))["pid"],
        first,
        "restarted after one failure"
    );
    eventually("the third failure ends it", Duration::from_secs(20), || {
        let state = daemon.state("command@sick");
        state == "backoff" || state == "stopping"
    });
    fs::write(root.join("health"), good).unwrap();
    eventually("it runs again", Duration::from_secs(15), || daemon.state("command@sick") == "running");
    let status = daemon.ok("service.status", json!({ "name": "command@sick" }));
    assert_eq!(status["restart_count"], 1, "{status}");
    assert_ne!(status["pid"], first);
}

#[test]
fn a_dead_registry_is_an_install_that_fails_with_a_hint_and_leaves_nothing() {
    let daemon = Daemon::prepare()
        .with_env("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
        .with_env("PIP_FIND_LINKS", "")
        .with_env("PIP_NO_INDEX", "0");
    let mut daemon = daemon;
    daemon.launch();
    let error = daemon.err("service.install", json!({ "name": "nats" }));
    assert_eq!(error["code"], -32007, "{error}");
    hint(&error);
    assert!(!error["data"]["causes"].as_array().unwrap().is_empty(), "{error}");
    assert_eq!(daemon.state("nats"), "not_installed");
    let store = daemon.home.join("store");
    let left: Vec<_> = fs::read_dir(store.join("nats")).map(|d| d.flatten().collect()).unwrap_or_default();
    assert!(left.is_empty(), "{left:?}");
    let staging = fs::read_dir(store.join(".staging")).map(|d| d.count()).unwrap_or(0);
    assert_eq!(staging, 0, "a staging folder is left over");
}

/// A small tmpfs as the whole installation, filled to the last byte.
#[test]
fn a_full_disk_stops_nothing_that_runs_and_takes_on_nothing_new() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    fs::create_dir(&home).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m,mode=755", "tmpfs"]).arg(&home).status();
    if !mounted.is_ok_and(|s| s.success()) {
        println!("CANNOT BE DONE HERE: a full disk (no right to mount a tmpfs)");
        return;
    }
    struct Mount(std::path::PathBuf);
    impl Drop for Mount {
        fn drop(&mut self) {
            let _ = Command::new("umount").args(["-l"]).arg(&self.0).status();
        }
    }
    let _mount = Mount(home.clone());
    let mut daemon = Daemon::at(&home);
    daemon.launch();
    daemon.run("lives", json!({ "argv": ["sleep", "1000"] }));
    let pid = daemon.ok("service.status", json!({ "name": "command@lives" }))["pid"].as_i64().unwrap() as i32;
    let filler = home.join("filler");
    let _ = Command::new("dd")
        .args(["if=/dev/zero", "bs=64k"])
        .arg(format!("of={}", filler.display()))
        .stderr(std::process::Stdio::null())
        .status();

    // New things are refused one way or another, and say why.
    let mut refused = None;
    for n in 0..200 {
        let with = json!({ "argv": ["sleep", "1000"] });
        if let Err(error) = daemon.call("service.start", json!({ "name": format!("command@n{n}"), "with": with })) {
            refused = Some(error);
            break;
        }
    }
    let error = refused.expect("two hundred units were started on a full disk");
    assert_eq!(error["code"], -32009, "{error}");
    hint(&error);
    assert!(wharf_tests::alive(pid));
    daemon.ok("service.status", json!({ "name": "command@lives" }));
    daemon.ok("service.logs", json!({ "name": "command@lives" }));
    daemon.ok("service.stop", json!({ "name": "command@lives" }));
    assert!(!wharf_tests::alive(pid));

    fs::remove_file(&filler).unwrap();
    daemon.run("after", json!({ "argv": ["sleep", "1000"] }));
    assert_eq!(daemon.ok("rpc.health", json!({}))["status"], "healthy");
    drop(daemon);
}

#[test]
fn a_state_database_that_is_no_database_is_refused_and_kept() {
    let daemon = Daemon::prepare();
    let state = daemon.home.join("state");
    fs::create_dir_all(&state).unwrap();
    let db = fs::read_dir(&state).map(|_| state.join("wharf.db")).unwrap();
    fs::write(&db, "not a database, not at all. ".repeat(100)).unwrap();
    let said = daemon.cli(&["daemon"]);
    assert_ne!(said.code, 0, "{said:?}");
    assert!(said.err.contains("hint:"), "{said:?}");
    assert!(fs::read_to_string(&db).unwrap().starts_with("not a database"));
    fs::remove_file(&db).unwrap();
}
