//! What the service manager inside a router promised, as far as no other test holds it: the HS rows of
//! docs/requirements.md. Builds, releases, definitions, sockets, the environment, the rules of the catalogue.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use serde_json::{Value, json};
use wharf_model::{Facts, Health, Installed, Policy, Signal, Verdict};
use wharf_services::{Catalogue, Context, Deed, Recording, Result, Run, Service, Wanted};
use wharf_tests::{Daemon, Forge, ReleaseServer, alive, beside, eventually, free_port, get, root, stand_in};

use super::house;

const SOON: Duration = Duration::from_secs(10);

/// A daemon that knows `echo`, which is built from source.
fn with_echo() -> Daemon {
    Daemon::prepare().with_binary(env!("CARGO_BIN_EXE_wharf-with-echo"))
}

fn pid(daemon: &Daemon, name: &str) -> i32 {
    daemon.ok("service.status", json!({ "name": name }))["pid"].as_i64().unwrap() as i32
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).unwrap().permissions().mode() & 0o111 == 0o111
}

/// HS-16: of every service, whatever it is made of.
#[test]
fn inspect_tells_the_nine_things_of_a_definition() {
    let mut daemon = with_echo();
    daemon.launch();
    let rows = daemon.ok("service.list", json!({}));
    for row in rows.as_array().unwrap() {
        let told = daemon.ok("service.inspect", json!({ "name": row["name"] }));
        let facts = &told["definition"];
        // Where its source is, where it is installed, where its logs go.
        for field in ["source", "target", "logs"] {
            assert!(facts[field].as_str().is_some_and(|text| !text.is_empty()), "{row} {field}: {facts:#}");
        }
        // Its programs, its environment, its ports, what it uses.
        for field in ["commands", "env", "ports", "uses"] {
            assert!(facts[field].is_array(), "{row} {field}: {facts:#}");
        }
        assert!(facts["commands"].as_array().is_some_and(|all| !all.is_empty()), "{row}: {facts:#}");
        assert!(told["policy"].is_object() && told["params_schema"].is_object(), "{row}: {told:#}");
    }
    let echo = daemon.ok("service.inspect", json!({ "name": "echo" }))["definition"].clone();
    assert_eq!((&echo["build"], &echo["commands"]), (&json!("cargo build --release"), &json!(["echo"])));
    assert_eq!((&echo["target"], &echo["ports"][0]["default"]), (&json!("store/echo"), &json!(7007)));
}

/// HS-38, HS-93, HS-94.
#[test]
fn inspect_shows_the_last_five_operations_and_troubleshoot_the_log_beside_them() {
    let daemon = Daemon::start();
    daemon.run("a", json!({ "argv": ["sh", "-c", "echo the last word; exec sleep 1000"] }));
    for _ in 0..6 {
        daemon.ok("service.restart", json!({ "name": "command@a" }));
    }
    let inspected = daemon.ok("service.inspect", json!({ "name": "command@a" }));
    let ids: Vec<u64> =
        inspected["recent_ops"].as_array().unwrap().iter().map(|op| op["id"].as_u64().unwrap()).collect();
    assert!(ids.len() == 5 && ids.is_sorted_by(|a, b| a > b), "five, the newest first: {ids:?}");
    eventually("its log is in its troubleshooting", SOON, || {
        let told = daemon.ok("service.troubleshoot", json!({ "name": "command@a" }));
        assert_eq!((&told["recent_ops"], &told["status"]["state"]), (&inspected["recent_ops"], &json!("running")));
        told["log_tail"].to_string().contains("the last word")
    });
    let said = daemon.cli_ok(&["troubleshoot", "command@a"]).out;
    assert!(said.contains("running") && said.contains("the last word"), "{said}");
}

/// HS-23.
#[test]
fn what_is_asked_for_twice_is_done_once() {
    let mut daemon = with_echo();
    daemon.launch();
    let echo = json!({ "name": "echo" });
    let built = daemon.ok("service.build", echo.clone());
    assert_eq!(daemon.ok("service.build", echo.clone())["installed_paths"], built["installed_paths"]);
    let installed = daemon.ok("service.install", echo.clone());
    let again = daemon.ok("service.install", echo.clone());
    assert_eq!((&again["digest"], &again["installed_paths"]), (&installed["digest"], &built["installed_paths"]));
    daemon.ok("service.start", json!({ "name": "echo", "with": { "ports": { "main": free_port() } } }));
    let first = pid(&daemon, "echo");
    daemon.ok("service.start", echo.clone());
    assert_eq!(pid(&daemon, "echo"), first, "it was started again");
    for _ in 0..2 {
        daemon.ok("service.stop", echo.clone());
    }
    assert!(!alive(first) && daemon.state("echo") == "stopped");
    for _ in 0..2 {
        daemon.ok("service.delete", json!({ "name": "echo", "purge_binaries": true }));
    }
    assert_eq!(daemon.state("echo"), "not_installed");
}

/// HS-18, HS-63, HS-65, HS-66, HS-71: by the command line, as HS-78 and HS-80 have it.
#[test]
fn a_build_goes_below_cargo_target_dir_and_what_it_made_is_copied_where_programs_are() {
    let daemon = with_echo();
    let target = daemon.home.join("target");
    let mut daemon = daemon.with_env("CARGO_TARGET_DIR", target.to_str().unwrap());
    daemon.launch();
    let report = daemon.cli_ok(&["service", "install", "echo", "--mode", "source", "--reset", "--json"]).json();
    assert_eq!((&report["source"], &report["version"]), (&json!("source"), &json!("0.3.1")), "{report}");
    let made = target.join("wharf/echo/release/echo");
    let placed = Path::new(report["installed_paths"][0].as_str().unwrap());
    assert!(placed.starts_with(daemon.home.join("store/echo")) && placed.ends_with("bin/echo"), "{report}");
    assert!(is_executable(placed) && fs::read(&made).unwrap() == fs::read(placed).unwrap());
    assert_ne!(fs::metadata(&made).unwrap().ino(), fs::metadata(placed).unwrap().ino(), "a copy, no link");
    let refused = daemon.cli(&["service", "install", "hello", "--mode", "source"]);
    assert!(refused.code == 8 && refused.err.contains("--mode download"), "{refused:?}");
}

/// HS-67.
#[test]
fn a_failed_build_quotes_the_last_two_hundred_lines() {
    let mut daemon = with_echo();
    daemon.launch();
    let tree = daemon.home.join("broken");
    fs::create_dir_all(tree.join("src")).unwrap();
    let manifest = "[package]\nname = \"echo\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n";
    fs::write(tree.join("Cargo.toml"), manifest).unwrap();
    // Each of these is several lines of the compiler's.
    let wrong = "    let _: u8 = \"text\";\n".repeat(100);
    fs::write(tree.join("src/main.rs"), format!("fn main() {{\n{wrong}}}\n")).unwrap();
    let error = daemon.err("service.build", json!({ "name": "echo", "with": { "tree": tree } }));
    let causes = error["data"]["causes"].as_array().unwrap();
    assert_eq!(causes.len(), 200, "{} lines", causes.len());
    assert!(causes.iter().any(|line| line.as_str().unwrap().contains("could not compile")), "the last ones: {error:#}");
}

/// HS-64, HS-69, HS-71, HS-72, and HS-132 as a person types it: install, start, status, health, stop.
#[test]
fn each_program_of_the_latest_release_is_fetched_by_its_name_and_runs() {
    let arch = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let names = [format!("thing-linux-{arch}-musl"), format!("tool-linux-{arch}-musl")];
    let server = ReleaseServer::start();
    let repo = server.forge(Forge::GitHub, "them", "thing");
    repo.release("v1.0.0").asset(&names[0], "an old one");
    repo.release("v1.2.3").asset(&names[0], stand_in()).asset(&names[1], stand_in()).checksums("SHA256SUMS");
    let mut daemon = Daemon::prepare()
        .with_binary(env!("CARGO_BIN_EXE_wharf-with-sources"))
        .with_env("WHARF_MIRRORS", &server.mirrors());
    daemon.launch();
    let before = SystemTime::now() - Duration::from_secs(2);
    let with = json!({
        "from": "github", "of": "them/thing", "binaries": ["thing", "tool"], "ports": { "main": free_port() },
    });
    let line = ["service", "install", "thing", "--mode", "download", "--version", "latest", "--json", "--with-json"];
    let report = daemon.cli_ok(&[&line[..], &[with.to_string().as_str()]].concat()).json();
    assert_eq!((&report["version"], &report["source"]), (&json!("1.2.3"), &json!("release")), "{report}");
    let paths = report["installed_paths"].as_array().unwrap();
    assert_eq!(paths.len(), 2, "{report}");
    for path in paths.iter().map(|path| Path::new(path.as_str().unwrap())) {
        assert!(is_executable(path), "{}", path.display());
        assert!(
            fs::metadata(path).unwrap().modified().unwrap() >= before,
            "{} is as old as the release",
            path.display()
        );
    }
    let seen = server.seen();
    for name in &names {
        assert_eq!(seen.iter().filter(|asked| asked.path.ends_with(name.as_str())).count(), 1, "{name}: {seen:?}");
    }
    daemon.cli_ok(&["service", "start", "thing"]);
    assert!(daemon.cli_ok(&["service", "status", "thing"]).out.contains("running"));
    assert_eq!(daemon.cli_ok(&["service", "health", "thing", "--json"]).json()["healthy"], true);
    daemon.cli_ok(&["service", "stop", "thing"]);
    let status = daemon.cli_ok(&["service", "status", "thing", "--json"]).json();
    assert_eq!((&status["state"], &status["pid"]), (&json!("stopped"), &Value::Null), "{status}");
}

/// HS-43, HS-118.
#[test]
fn a_start_refuses_another_version_and_begins_anew_only_where_that_is_asked() {
    let daemon = Daemon::start();
    let error = daemon.err("service.start", json!({ "name": "hello", "version": "9.9.9" }));
    assert_eq!(error["code"], -32002, "{error}");
    assert!(error["message"].as_str().unwrap().contains("not 9.9.9"), "{error}");
    assert_eq!(daemon.state("hello"), "stopped");
    daemon.ok("service.start", json!({ "name": "hello", "with": { "ports": { "http": "auto" } } }));
    let first = pid(&daemon, "hello");
    daemon.ok("service.start", json!({ "name": "hello" }));
    assert_eq!(pid(&daemon, "hello"), first);
    daemon.ok("service.start", json!({ "name": "hello", "reset": true }));
    assert!(pid(&daemon, "hello") != first && !alive(first));
}

/// HS-30, HS-31, HS-32, HS-33, HS-131: by the program that everybody has, and each socket is a service of its own.
#[test]
fn curl_gets_the_document_and_each_socket_has_an_id_of_its_own() {
    let daemon = Daemon::start();
    let curl = |path: &str| {
        let url = format!("http://x{path}");
        let output =
            Command::new("curl").args(["-sSf", "--unix-socket"]).arg(daemon.socket()).arg(url).output().unwrap();
        assert!(output.status.success(), "{path}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(curl("/openrpc.json"), wharf_api::SERVICE_DOCUMENT);
    assert!(curl("/health").contains("\"healthy\""));
    let card = |socket: &Path| -> Value {
        serde_json::from_str(&get(socket, "/.well-known/heroservice.json").unwrap().body).unwrap()
    };
    let (service, rpc) = (card(&daemon.socket()), card(&daemon.rpc_socket()));
    assert_eq!(serde_json::from_str::<Value>(&curl("/.well-known/heroservice.json")).unwrap(), service);
    assert_ne!(service["service_id"], rpc["service_id"], "a scanner would take them for one");
    assert_eq!(service["socket"], daemon.socket().to_str().unwrap());
    assert_eq!(rpc["socket"], daemon.rpc_socket().to_str().unwrap());
}

/// HS-61, HS-120: a program that speaks OpenRPC binds another socket than its definition says. That is no health.
#[test]
fn health_is_asked_of_the_socket_that_was_named_and_of_no_other() {
    let daemon = Daemon::start();
    let (named, bound) = (daemon.home.join("rpc.sock"), daemon.home.join("flat.sock"));
    let document = r#"{"openrpc":"1.3.2","info":{"title":"thing"}}"#;
    let with = |socket: &Path| {
        json!({
            "argv": [beside("wharf-talker"), format!("serve:{}:200:{document}", bound.display()), "wait"],
            "health": { "http": { "socket": socket, "path": "/openrpc.json", "json": { "/info/title": "thing" } } },
            "start_timeout_s": 3,
        })
    };
    let error = daemon.err("service.start", json!({ "name": "command@flat", "with": with(&named) }));
    assert_eq!(error["code"], -32004, "{error}");
    assert!(error["data"]["causes"].to_string().contains(named.to_str().unwrap()), "it says where it asked: {error}");
    let instead = format!("it listens on {}", bound.display());
    assert!(error["data"]["causes"].to_string().contains(&instead), "and where it would be heard: {error}");
    daemon.ok("service.stop", json!({ "name": "command@flat" }));
    let _ = fs::remove_file(&bound);
    daemon.ok("service.start", json!({ "name": "command@flat", "with": with(&bound) }));
    let health = daemon.ok("service.health", json!({ "name": "command@flat" }));
    assert_eq!((&health["healthy"], &health["detail"]), (&json!(true), &json!("HTTP 200")), "{health}");
}

/// HS-62.
#[test]
fn what_a_daemon_in_the_background_tells_stands_in_its_file() {
    let daemon = Daemon::prepare();
    daemon.cli_ok(&["daemon", "--replace", "--detach"]);
    daemon.ok("service.start", json!({ "name": "hello", "with": { "ports": { "http": "auto" } } }));
    let file = daemon.home.join("run/daemon.log");
    eventually("the start is in its file", SOON, || {
        fs::read_to_string(&file).is_ok_and(|text| text.contains("Started hello with PID"))
    });
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}

/// HS-101: said as it is, by a file, from the environment of the caller's daemon, the home folder, a port.
#[test]
fn a_program_gets_its_variables_from_every_kind_of_source() {
    let mut daemon =
        Daemon::prepare().with_env("HERO_CALLER", "of-the-caller").with_env("HERO_STRANGER", "not-asked-for");
    daemon.launch();
    let file = daemon.home.join("env");
    fs::write(&file, "BY_FILE='two words'\n").unwrap();
    let port = free_port();
    let with = json!({
        "argv": ["sleep", "1000"], "env": { "LITERAL": "1" }, "env_file": file,
        "ports": { "main": port }, "health": "none",
    });
    let policy = json!({ "secrets": { "PASSED": { "from": "env:HERO_CALLER", "env": true } } });
    daemon.ok("service.start", json!({ "name": "command@env", "with": with, "policy": policy }));
    let environ = fs::read(format!("/proc/{}/environ", pid(&daemon, "command@env"))).unwrap();
    let environ = String::from_utf8_lossy(&environ).into_owned();
    let has = |variable: &str| environ.split('\0').any(|found| found == variable);
    for variable in ["LITERAL=1", "BY_FILE=two words", "PASSED=of-the-caller", &format!("PORT={port}")] {
        assert!(has(variable), "{variable}: {environ:?}");
    }
    assert!(environ.split('\0').any(|found| found.starts_with("HOME=/")), "{environ:?}");
    assert!(!environ.contains("not-asked-for"), "nothing comes along by chance");
}

/// HS-148: without being told to, the daemon listens on no TCP port.
#[test]
fn a_daemon_listens_on_no_tcp_port() {
    let daemon = Daemon::start();
    let mut listening = vec![];
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if fields.get(3) == Some(&"0A") {
                listening.push(format!("socket:[{}]", fields[9]));
            }
        }
    }
    let open = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().flatten();
    let own: Vec<String> =
        open.filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.display().to_string())).collect();
    assert!(own.iter().any(|link| link.starts_with("socket:")), "its own sockets are seen: {own:?}");
    assert!(!own.iter().any(|link| listening.contains(link)), "{own:?}");
}

/// A service that says what only it can know.
struct Bare;

#[async_trait]
impl Service for Bare {
    fn facts(&self) -> Facts {
        Facts::new("bare", "Does nothing").port("main", 7007)
    }

    async fn install(&self, cx: &Context, _: &Wanted) -> Result<Installed> {
        Ok(cx.nothing_to_place())
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        cx.run("sleep").arg("1000").spawn().await
    }
}

/// HS-97, HS-126: all the rest has a default.
#[tokio::test]
async fn a_service_that_says_only_what_is_its_own_gets_the_rest() {
    let hands = Arc::new(Recording::default());
    let cx = hands.context(&Bare, Value::Null).unwrap();
    assert!(Bare.needs_install() && !Bare.is_tool() && Bare.rests_on().is_empty());
    assert_eq!((Bare.policy(&Value::Null), cx.port("main")), (Policy::default(), 7007));
    let of_instance = Bare.ports(&"bare@a".parse().unwrap(), &Value::Null).unwrap();
    assert_eq!(of_instance[0].choice.to_string(), "auto", "instances do not fight for one port");
    let built = Bare.build(&cx, &Wanted::default()).await.unwrap();
    assert_eq!((built.installed_paths.len(), built.note.as_str()), (0, "nothing to build"));
    let health: Health = Bare.health(&cx).await.unwrap();
    assert_eq!((health.verdict, health.detail.as_str()), (Verdict::Healthy, "its process lives"));
    Bare.start(&cx).await.unwrap();
    Bare.stop(&cx).await.unwrap();
    let deeds = hands.deeds();
    assert!(matches!(&deeds[0], Deed::Spawn(command) if command.program == "sleep"), "{deeds:?}");
    assert_eq!(deeds[1..], [Deed::Signal(Signal::Term)]);
}

/// HS-99: what a service does differently stands in its own file. `command` alone is known by name elsewhere: it is the
/// one of which units are made from nothing.
#[test]
fn no_crate_but_the_catalogues_knows_a_service_by_its_name() {
    let catalogue = Catalogue::built_in();
    let mut looked_at = 0;
    for path in house::sources() {
        let place = path.strip_prefix(root()).unwrap();
        let of_engine = ["core", "engine", "server", "api", "runtime"]
            .iter()
            .any(|name| place.starts_with(format!("crates/{name}/src")));
        let is_test = place.components().any(|part| part.as_os_str() == "tests") || place.ends_with("tests.rs");
        if !of_engine || is_test {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in lines {
            let named = catalogue.names().find(|name| *name != "command" && line.contains(&format!("\"{name}\"")));
            assert_eq!(named, None, "{}: {line}", path.display());
        }
        looked_at += 1;
    }
    assert!(looked_at > 100, "{looked_at} files");
}

/// HS-84 to HS-88: what is no service is not in the list, and the list says why.
#[test]
fn what_the_catalogue_leaves_out_is_said_where_it_is_made() {
    let source = fs::read_to_string(root().join("crates/services/src/catalogue.rs")).unwrap();
    let said: Vec<&str> = source.lines().filter_map(|line| line.strip_prefix("/// Left out: ")).collect();
    assert!(said.len() >= 3 && said.iter().all(|reason| reason.contains(": ")), "what, and why: {said:?}");
    let catalogue = Catalogue::built_in();
    for name in ["wharf", "docker", "systemd"] {
        assert!(catalogue.get(name).is_none(), "{name} is a service");
        assert!(said.iter().any(|reason| reason.to_lowercase().contains(name)), "nothing is said of {name}: {said:?}");
    }
}

/// HS-130: what a merge must pass, and that the continuous integration runs exactly that.
#[test]
fn the_gate_is_format_clippy_build_and_tests() {
    let text = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    assert!(text(".ci/run").contains("cargo xtask test") && text("README.md").contains("cargo xtask test"));
    let task = text("xtask/src/test.rs");
    for part in [
        r#""fmt", "--all", "--check""#,
        r#""--workspace", "--all-targets", "--", "-D", "warnings""#,
        r#""build", "--locked", "--workspace""#,
        r#""test", "--locked", "--workspace""#,
        r#""test", "--locked", "--package", "wharf-tests""#,
    ] {
        assert!(task.contains(part), "xtask/src/test.rs does not run {part}");
    }
}

/// HS-115, the sockets: that of a program that was killed does not keep the next one from binding there.
#[test]
fn the_socket_of_a_killed_program_is_cleared_before_the_next_start() {
    let daemon = Daemon::start();
    let folder = daemon.home.join("units/command@bound");
    let code = "import socket, sys, time; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); time.sleep(1000)";
    let (socket, notes) = (folder.join("x.sock"), folder.join("notes"));
    let argv = json!({ "argv": ["python3", "-c", code, socket], "restart": { "delay_ms": 10 } });
    daemon.run("bound", argv);
    eventually("it is bound", SOON, || socket.exists());
    fs::write(&notes, "kept").unwrap();
    let first = pid(&daemon, "command@bound");
    assert!(Command::new("kill").args(["-9", &first.to_string()]).status().unwrap().success());
    eventually("the next one runs", SOON, || {
        let status = daemon.ok("service.status", json!({ "name": "command@bound" }));
        status["state"] == "running" && status["pid"] != first && socket.exists()
    });
    assert_eq!(daemon.ok("service.status", json!({ "name": "command@bound" }))["restart_count"], 1);
    assert_eq!(fs::read_to_string(&notes).unwrap(), "kept", "nothing but sockets goes");
}
