//! What a newcomer, a script and an agent see: `up`, the four paths of the socket, the document's
//! examples, tables, `--json`, exit codes.

use std::{
    io::{BufRead, Read},
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use std::sync::{Mutex, MutexGuard};
use wharf_tests::{Daemon, Document, alive, eventually, free_port, get, listens, post};

/// hello's usual port is for one test at a time.
fn usual_port() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(|e| e.into_inner())
}

#[test]
fn up_detached_starts_hello_and_prints_what_to_try_and_down_ends_it_all() {
    let _turn = usual_port();
    let daemon = Daemon::prepare();
    let up = daemon.cli_ok(&["up", "--detach"]);
    for part in ["hello", "running", "service.sock", "wharf status hello"] {
        assert!(up.out.contains(part), "{part:?} is missing: {}", up.out);
    }
    let status = daemon.cli_ok(&["status", "hello", "--json"]).json();
    let (pid, port) = (status["pid"].as_i64().unwrap() as i32, status["port"].as_u64().unwrap() as u16);
    assert!(alive(pid) && listens(port));
    let again = daemon.cli_ok(&["up", "--detach"]);
    assert!(again.out.contains("running"), "{}", again.out);
    assert_eq!(daemon.cli_ok(&["status", "hello", "--json"]).json()["pid"], pid);

    daemon.cli_ok(&["down", "--leave-running"]);
    assert!(alive(pid), "down --leave-running ended a service");
    assert_eq!(daemon.cli(&["status", "hello"]).code, 6);
    daemon.cli_ok(&["up", "--detach"]);
    assert_eq!(daemon.cli_ok(&["status", "hello", "--json"]).json()["pid"], pid, "it was not adopted");

    daemon.cli_ok(&["down"]);
    eventually("hello has ended", Duration::from_secs(5), || !alive(pid));
    assert!(!daemon.socket().exists());
    // Down is for now: what was wanted comes back.
    daemon.cli_ok(&["up", "--detach"]);
    eventually("hello runs again", Duration::from_secs(5), || daemon.state("hello") == "running");
    daemon.cli_ok(&["down"]);
}

#[test]
fn up_in_the_foreground_serves_until_ctrl_c_and_services_go_on() {
    let _turn = usual_port();
    let daemon = Daemon::prepare();
    let mut up = daemon.command().arg("up").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("hello runs", Duration::from_secs(20), || {
        get(&daemon.socket(), "/health").is_ok() && daemon.state("hello") == "running"
    });
    let pid = daemon.ok("service.status", json!({ "name": "hello" }))["pid"].as_i64().unwrap() as i32;
    // As a person would: the table first, then Ctrl-C.
    let mut lines = std::io::BufReader::new(up.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut out = String::new();
    while !out.contains("stop everything") {
        out += &lines.next().unwrap_or_else(|| panic!("up ended before its table did: {out}"));
        out.push('\n');
    }
    assert!(out.contains("hello") && out.contains("service.sock"), "{out}");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(up.id().cast_signed()), nix::sys::signal::Signal::SIGINT)
        .unwrap();
    assert!(up.wait().unwrap().success());
    assert!(alive(pid));
    daemon.cli_ok(&["down"]);
    assert!(!alive(pid));
}

#[test]
fn the_four_paths_of_the_socket() {
    let daemon = Daemon::start();
    let socket = daemon.socket();
    let document = get(&socket, "/openrpc.json").unwrap();
    assert_eq!((document.status, document.header("content-type")), (200, Some("application/json")));
    assert_eq!(document.body, wharf_api::SERVICE_DOCUMENT);
    let call = post(&socket, r#"{"jsonrpc":"2.0","method":"rpc.discover","id":1}"#).unwrap();
    let discovered: Value = serde_json::from_str(&call.body).unwrap();
    assert_eq!(discovered["result"], serde_json::from_str::<Value>(&document.body).unwrap());
    let health: Value = serde_json::from_str(&get(&socket, "/health").unwrap().body).unwrap();
    assert_eq!((&health["status"], &health["service"]), (&json!("healthy"), &json!("wharf")));
    let card: Value = serde_json::from_str(&get(&socket, "/.well-known/heroservice.json").unwrap().body).unwrap();
    assert_eq!((&card["openrpc"], &card["rpc"]), (&json!("/openrpc.json"), &json!("/rpc")));
    assert!(card["service_id"].is_string());
}

/// Every example of the document is executed. A method's own example may need that a unit runs,
/// so `hello` is started before each.
#[test]
fn every_example_of_the_document_is_true() {
    let _turn = usual_port();
    let daemon = Daemon::start();
    let hello = json!({ "name": "hello" });
    let mut count = 0;
    for (method, name, params, _) in Document::load().examples() {
        if daemon.state("hello") != "running" && method != "service.start" {
            daemon.ok("service.start", hello.clone());
        }
        if let Err(error) = daemon.call(&method, params.clone()) {
            panic!("{method}, example {name:?} {params}: {error:#}");
        }
        count += 1;
    }
    assert!(count >= 16, "{count} examples for sixteen methods");
}

#[test]
fn lists_and_tables_say_what_the_rpc_says() {
    let daemon = Daemon::start();
    let rows = daemon.cli_ok(&["list", "--json"]).json();
    assert_eq!(rows, daemon.ok("service.list", json!({})));
    let named = |name: &str| rows.as_array().unwrap().iter().find(|r| r["name"] == name).cloned();
    for name in [
        "redis",
        "postgres",
        "caddy",
        "nats",
        "llama",
        "python-api@alden",
        "python-api@vault",
        "python-api@core",
        "python-api@synapse",
    ] {
        let row = named(name).unwrap_or_else(|| panic!("{name} is not listed"));
        assert_eq!((&row["status"], &row["version_installed"]), (&json!("not_installed"), &Value::Null), "{row}");
    }
    assert_eq!(named("hello").unwrap()["status"], "stopped");
    let table = daemon.cli_ok(&["service", "list"]).out;
    for row in rows.as_array().unwrap() {
        let name = row["name"].as_str().unwrap();
        let line = table.lines().find(|l| l.contains(name)).unwrap_or_else(|| panic!("{name}: {table}"));
        assert!(line.contains(row["status"].as_str().unwrap()), "{line}");
    }
    assert!(!table.contains('\u{1b}'), "colours where there is no terminal");
}

#[test]
fn exit_codes_hints_and_json_errors() {
    let daemon = Daemon::start();
    let unknown = daemon.cli(&["status", "reddis"]);
    assert_eq!(unknown.code, 3, "{unknown:?}");
    assert!(unknown.err.contains("error:") && unknown.err.contains("did you mean redis?"), "{unknown:?}");
    let not_installed = daemon.cli(&["start", "redis"]);
    assert_eq!(not_installed.code, 4, "{not_installed:?}");
    assert!(not_installed.err.contains("hint: wharf install redis"), "{not_installed:?}");
    assert_eq!(daemon.cli(&["no-such-verb"]).code, 2);
    assert_eq!(daemon.cli(&["start", "../etc"]).code, 2);
    let json_error = daemon.cli(&["start", "redis", "--json"]);
    let error: Value = serde_json::from_str(&json_error.err).unwrap_or_else(|e| panic!("{e}: {json_error:?}"));
    assert_eq!((&error["error"]["code"], &error["error"]["kind"]), (&json!(-32002), &json!("conflict")));
    assert!(json_error.out.is_empty());
    let lost = daemon.command().args(["--socket", "/nonexistent/service.sock", "list"]).output().unwrap();
    assert_eq!(lost.status.code(), Some(6));
    assert!(String::from_utf8_lossy(&lost.stderr).contains("wharf up"));
}

#[test]
fn run_keeps_any_program_and_many_go_through_one_batch() {
    let daemon = Daemon::start();
    let port = free_port();
    let http = format!("http={port}");
    let port_text = port.to_string();
    daemon.cli_ok(&[
        "run",
        "--name",
        "web",
        "--port",
        &http,
        "--health",
        "http:/",
        "--",
        "python3",
        "-m",
        "http.server",
        &port_text,
        "--bind",
        "127.0.0.1",
    ]);
    assert!(listens(port));
    assert_eq!(daemon.state("command@web"), "running");
    let calls: Vec<Value> = (0..40)
        .map(|n| {
            let with = json!({ "argv": ["sleep", "1000"] });
            json!({ "jsonrpc": "2.0", "id": n, "method": "service.start", "params": { "name": format!("command@b{n}"), "with": with } })
        })
        .collect();
    let reply = post(&daemon.socket(), &Value::from(calls).to_string()).unwrap();
    let answers: Vec<Value> = serde_json::from_str(&reply.body).unwrap();
    assert_eq!(answers.len(), 40);
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(answer["id"], n);
        assert!(alive(answer["result"]["pid"].as_i64().unwrap_or_else(|| panic!("{answer}")) as i32));
    }
}

#[test]
fn without_wait_the_operation_comes_at_once_and_its_end_is_in_the_log_of_operations() {
    let daemon = Daemon::start();
    let with = json!({ "argv": ["sh", "-c", "sleep 1; touch ready; exec sleep 1000"], "health": { "exec": ["test", "-e", "ready"] } });
    let began = Instant::now();
    let begun = daemon.ok("service.start", json!({ "name": "command@slow", "with": with, "wait": false }));
    assert!(began.elapsed() < Duration::from_millis(800));
    assert_eq!((&begun["operation"]["kind"], &begun["operation"]["outcome"]), (&json!("start"), &json!("running")));
    assert_eq!(daemon.state("command@slow"), "starting");
    // The same start, asked again, waits for the same operation.
    daemon.ok("service.start", json!({ "name": "command@slow" }));
    assert!(began.elapsed() > Duration::from_millis(900), "started is ready, not spawned");
    let ops = daemon.ok("service.inspect", json!({ "name": "command@slow" }))["recent_ops"].clone();
    assert_eq!((&ops[0]["id"], &ops[0]["outcome"]), (&begun["operation"]["id"], &json!("done")), "{ops}");
}

#[test]
fn logs_follow_what_is_written_later() {
    let daemon = Daemon::start();
    daemon.run("ticks", json!({ "argv": ["sh", "-c", "n=0; while :; do n=$((n+1)); echo tick $n; sleep 0.05; done"] }));
    let mut follow = daemon.command().args(["logs", "-f", "command@ticks"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = follow.stdout.take().unwrap();
    let mut seen = String::new();
    let until = Instant::now() + Duration::from_secs(10);
    let mut buffer = [0; 4096];
    while seen.lines().count() < 30 && Instant::now() < until {
        let read = out.read(&mut buffer).unwrap();
        seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    follow.kill().unwrap();
    follow.wait().unwrap();
    let ticks: Vec<u64> = seen.lines().take(30).filter_map(|l| l.strip_prefix("tick ")?.parse().ok()).collect();
    assert_eq!(ticks.len(), 30, "{seen}");
    assert!(ticks.windows(2).all(|w| w[1] == w[0] + 1), "{ticks:?}");
}

#[test]
fn completions_man_page_and_generic_calls() {
    let daemon = Daemon::start();
    for shell in ["bash", "zsh", "fish"] {
        assert!(daemon.cli_ok(&["completions", shell]).out.contains("wharf"), "{shell}");
    }
    assert!(daemon.cli_ok(&["man"]).out.contains(".TH"));
    let started =
        daemon.cli_ok(&["rpc", "call", "service.start", "name=hello", "with:={\"ports\":{\"http\":\"auto\"}}"]).json();
    assert_eq!(started["name"], "hello");
    let document = daemon.cli_ok(&["rpc", "discover", "service"]).json();
    assert_eq!(document["methods"].as_array().unwrap().len(), 16);
    let failed = daemon.cli(&["rpc", "call", "service.start", "nmae=hello"]);
    assert_eq!(failed.code, 2, "{failed:?}");
}

#[test]
fn parameters_are_laid_over_the_kept_ones_and_hints_work_when_typed() {
    let daemon = Daemon::start();
    let (first, second) = (free_port(), free_port());
    let with = |name: &str| daemon.ok("service.inspect", json!({ "name": name }))["with"].clone();
    let one = format!("http={first}");
    daemon.cli_ok(&["run", "--name", "p", "--port", &one, "--env", "A=1", "--health", "none", "--", "sleep", "1000"]);
    // Another port, and the rest stays.
    let two = format!("http={second}");
    let refused = daemon.cli(&["start", "command@p", "--port", &two]);
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(refused.err.contains("--reset"), "{refused:?}");
    daemon.cli_ok(&["start", "command@p", "--port", &two, "--reset"]);
    assert_eq!(
        (&with("command@p")["ports"], &with("command@p")["env"]),
        (&json!({ "http": second }), &json!({ "A": "1" }))
    );
    // A run names everything: what it leaves out is taken back.
    daemon.cli_ok(&["run", "--name", "p", "--reset", "--", "sleep", "2000"]);
    assert_eq!((&with("command@p")["argv"], &with("command@p")["env"]), (&json!(["sleep", "2000"]), &Value::Null));
    // The hint of a taken port, typed as it stands.
    let holder = format!("http={first}");
    daemon.cli_ok(&["run", "--name", "holder", "--port", &holder, "--", "sleep", "1000"]);
    let taken = daemon.cli(&["run", "--name", "late", "--port", &holder, "--", "sleep", "1000"]);
    assert_eq!(taken.code, 4, "{taken:?}");
    assert!(taken.err.contains("wharf start command@late --port http=auto"), "{taken:?}");
    daemon.cli_ok(&["start", "command@late", "--port", "http=auto"]);
    assert_eq!(daemon.state("command@late"), "running");
}

#[test]
fn what_dies_at_once_is_a_failed_start() {
    let daemon = Daemon::start();
    for (name, program) in [("f", "false"), ("t", "true")] {
        let said = daemon.cli(&["run", "--name", name, "--", program]);
        assert_eq!(said.code, 8, "{said:?}");
        assert!(said.err.contains("before it was ready"), "{said:?}");
        daemon.cli_ok(&["stop", &format!("command@{name}")]);
    }
    assert_eq!(daemon.cli(&["delete", "command@nobody"]).code, 3);
    assert_eq!(daemon.cli(&["start", "command@nobody"]).code, 3);
    let twice = daemon.cli(&["run", "--name", "x", "--port", "a=9001", "--port", "a=9002", "--", "sleep", "1"]);
    assert_eq!(twice.code, 2, "{twice:?}");
}

#[test]
fn an_upgrade_of_what_has_no_versions_changes_nothing() {
    let daemon = Daemon::start();
    let started = daemon.ok("service.start", json!({ "name": "hello", "with": { "ports": { "http": "auto" } } }));
    assert_eq!(daemon.ok("service.upgrade", json!({ "name": "hello" }))["changed"], false);
    assert_eq!(daemon.ok("service.status", json!({ "name": "hello" }))["pid"], started["pid"]);
}

#[test]
fn a_daemon_that_is_stopped_is_told_from_one_that_is_slow() {
    let daemon = Daemon::start();
    let pid = nix::unistd::Pid::from_raw(daemon.pid());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    let began = Instant::now();
    let said = daemon.cli(&["status", "hello"]);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
    assert_eq!(said.code, 5, "{said:?}");
    assert!(began.elapsed() < Duration::from_secs(20) && said.err.contains("hint:"), "{said:?}");
    assert_eq!(daemon.cli_ok(&["status", "hello", "--json"]).json()["name"], "hello");
}

/// The very first start, in the background, from a shell that closes what it makes to others.
#[test]
fn a_first_start_leaves_the_home_folder_open_for_services_of_another_user() {
    use std::os::unix::fs::PermissionsExt;
    if !nix::unistd::geteuid().is_root() {
        println!("CANNOT BE DONE HERE: a service of another user needs root");
        return;
    }
    for mask in ["022", "077"] {
        let outer = Daemon::prepare();
        let daemon = Daemon::at(&outer.home.join("home"));
        let begin = format!("umask {mask}; exec \"$0\" \"$@\"");
        let own = daemon.command();
        let mut up = std::process::Command::new("sh");
        up.args(["-c", &begin]).arg(own.get_program()).args(["daemon", "--replace", "--detach"]);
        up.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = up.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let mode = |path: &str| std::fs::metadata(daemon.home.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(""), mode("state"), mode("run")), (0o755, 0o700, 0o700), "umask {mask}");
        let with = json!({ "argv": ["sh", "-c", "id -un; exec sleep 1000"] });
        let policy = json!({ "run_as": "nobody" });
        daemon.ok("service.start", json!({ "name": "command@other", "with": with, "policy": policy }));
        let pid = daemon.ok("service.status", json!({ "name": "command@other" }))["pid"].as_i64().unwrap();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let uid = nix::unistd::User::from_name("nobody").unwrap().unwrap().uid;
        assert!(status.contains(&format!("Uid:\t{uid}\t{uid}")), "{status}");
    }
}
