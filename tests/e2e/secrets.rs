//! Secrets by reference: a run gets them, and nobody else sees them.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};
use wharf_tests::{Daemon, alive, eventually, request};

const BY_FILE: &str = "canary-file-7f3a/with+chars ü";
const BY_ENV: &str = "canary-env-\"quoted\"-91bc";
const BY_COMMAND: &str = "canary-command-55d0-value";

/// Writes every secret in every form, as programs do that print their environment.
const TELLS: &str = r#"
for name in BY_FILE BY_ENV BY_COMMAND GENERATED; do
  value=$(cat "$CREDENTIALS_DIRECTORY/$name")
  echo "plain $name=$value"
  printf '%s' "$value" | base64 -w0 | sed 's/^/base64 /'; echo
  printf 'user:%s' "$value" | base64 -w0 | sed 's/^/basic /'; echo
  printf '%s' "$value" | od -An -tx1 -v | tr -d '\n' | sed 's/ /%/g; s/^/url /'; echo
  printf '{"level":"error","msg":"json %s","value":"%s"}\n' "$name" "$(printf '%s' "$value" | sed 's/"/\\"/g')"
done
echo "variable BY_ENV=$BY_ENV"
env | grep -v ^GENERATED >&2
"#;

struct Ground {
    daemon: Daemon,
    outside: tempfile::TempDir,
}

impl Ground {
    fn new() -> Self {
        let outside = tempfile::Builder::new().prefix("wharf-secrets-").tempdir().unwrap();
        fs::write(outside.path().join("value"), BY_FILE).unwrap();
        let script = outside.path().join("vault");
        fs::write(&script, format!("#!/bin/sh\necho '{BY_COMMAND}'\n")).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
        let mut daemon = Daemon::prepare().with_env("WHARF_TEST_CANARY", BY_ENV);
        daemon.launch();
        Self { daemon, outside }
    }

    fn secrets(&self) -> Value {
        let at = |name: &str| self.outside.path().join(name).display().to_string();
        json!({
            "BY_FILE": { "from": format!("file:{}", at("value")) },
            "BY_ENV": { "from": "env:WHARF_TEST_CANARY", "env": true },
            "BY_COMMAND": { "from": format!("command:{} --get 'a key'", at("vault")), "env": true },
            "GENERATED": { "from": "generate:24" },
        })
    }

    fn start(&self, name: &str, script: &str, policy: Value) -> Result<Value, Value> {
        let mut policy = policy;
        policy["secrets"] = self.secrets();
        let with = json!({ "argv": ["sh", "-c", script] });
        let name = format!("command@{name}");
        self.daemon.call("service.start", json!({ "name": name, "with": with, "policy": policy }))
    }

    /// The generated ones of all units, as they lie in their files.
    fn canaries(&self) -> Vec<String> {
        let mut canaries = vec![BY_FILE.to_owned(), BY_ENV.to_owned(), BY_COMMAND.to_owned()];
        let files = fs::read_dir(self.daemon.home.join("secrets")).unwrap().flatten();
        canaries.extend(files.map(|file| fs::read_to_string(file.path()).unwrap()));
        canaries
    }
}

/// Where a run of a unit has its secrets.
fn folder_of(daemon: &Daemon, name: &str) -> PathBuf {
    let pid = daemon.ok("service.status", json!({ "name": name }))["pid"].as_i64().unwrap();
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
    let text = String::from_utf8_lossy(&environment).into_owned();
    let found = text.split('\0').find_map(|v| v.strip_prefix("CREDENTIALS_DIRECTORY="));
    found.expect("no CREDENTIALS_DIRECTORY").into()
}

fn is_tmpfs(path: &Path) -> bool {
    rustix::fs::statfs(path).unwrap().f_type == 0x0102_1994
}

#[test]
fn a_run_gets_its_secrets_in_memory_and_they_go_with_it() {
    let ground = Ground::new();
    let daemon = &ground.daemon;
    ground.start("holds", "exec sleep 1000", json!({})).unwrap();
    let folder = folder_of(daemon, "command@holds");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert!(is_tmpfs(&folder), "{}", folder.display());
    assert_eq!((mode(&folder), mode(&folder.join("BY_FILE"))), (0o500, 0o400));
    assert_eq!(fs::read_to_string(folder.join("BY_COMMAND")).unwrap(), BY_COMMAND);
    assert_eq!(fs::read_to_string(folder.join("GENERATED")).unwrap().len(), 48);
    let generated = fs::read_to_string(folder.join("GENERATED")).unwrap();
    daemon.ok("service.restart", json!({ "name": "command@holds" }));
    eventually("the old run's secrets are gone", Duration::from_secs(5), || !folder.exists());
    let second = folder_of(daemon, "command@holds");
    assert_eq!(fs::read_to_string(second.join("GENERATED")).unwrap(), generated, "made once");
    daemon.ok("service.stop", json!({ "name": "command@holds" }));
    eventually("the secrets are gone", Duration::from_secs(5), || !second.exists());
    daemon.ok("service.delete", json!({ "name": "command@holds", "purge_data": true }));
    assert_eq!(fs::read_dir(daemon.home.join("secrets")).unwrap().count(), 0, "a purge takes the generated ones");
}

#[test]
fn secrets_of_a_run_that_ended_while_no_daemon_lived_are_removed_by_the_next() {
    let mut ground = Ground::new();
    for name in ["dies", "lives"] {
        ground.start(name, "exec sleep 1000", json!({})).unwrap();
    }
    let (dies, lives) = (folder_of(&ground.daemon, "command@dies"), folder_of(&ground.daemon, "command@lives"));
    let pid = ground.daemon.ok("service.status", json!({ "name": "command@dies" }))["pid"].as_i64().unwrap() as i32;
    // One that no unit knows.
    let stray = dies.with_file_name("999999");
    fs::create_dir(&stray).unwrap();
    ground.daemon.kill_9();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    eventually("it is dead", Duration::from_secs(5), || !alive(pid));
    assert!(dies.exists(), "nobody was there to remove them");
    ground.daemon.launch();
    eventually("they are removed", Duration::from_secs(5), || !dies.exists() && !stray.exists());
    assert!(lives.exists() && lives.join("BY_FILE").exists(), "those of a run that lives stay");
}

#[test]
fn a_secret_that_cannot_be_had_blocks_its_unit_and_names_the_reference() {
    let ground = Ground::new();
    let daemon = &ground.daemon;
    let missing = ground.outside.path().join("later");
    let from = format!("file:{}", missing.display());
    let with = json!({ "argv": ["sleep", "1000"] });
    let policy = json!({ "secrets": { "KEY": { "from": from } } });
    let error = daemon.err("service.start", json!({ "name": "command@waits", "with": with, "policy": policy }));
    assert_eq!(error["code"], -32008, "{error}");
    assert!(
        error["message"].as_str().unwrap().contains(&format!("the secret KEY cannot be had from {from}")),
        "{error}"
    );
    fs::write(&missing, "it-is-there-now").unwrap();
    daemon.ok("service.start", json!({ "name": "command@waits" }));
    for bad in [json!({ "KEY": { "from": "gopher:x" } }), json!({ "a-b": { "from": "env:X", "env": true } })] {
        let params = json!({ "name": "command@bad", "with": { "argv": ["true"] }, "policy": { "secrets": bad } });
        assert_eq!(daemon.err("service.start", params)["code"], -32602);
    }
}

#[test]
fn variables_that_look_like_secrets_are_not_shown() {
    let daemon = Daemon::start();
    let with = json!({ "argv": ["sleep", "1000"], "env": { "API_TOKEN": "shown-to-nobody", "MODE": "fast" } });
    daemon.run("quiet", with);
    let inspected = daemon.ok("service.inspect", json!({ "name": "command@quiet" }));
    assert_eq!(inspected["with"]["env"], json!({ "API_TOKEN": "•••", "MODE": "fast" }));
    assert!(!daemon.cli_ok(&["inspect", "command@quiet"]).out.contains("shown-to-nobody"));
}

/// Every text of the surface, by the call that gave it.
fn surface(daemon: &Daemon, units: &[&str]) -> Vec<(String, String)> {
    let mut said = vec![];
    let mut ask = |method: &str, params: Value| {
        let answer = match daemon.call(method, params.clone()) {
            Ok(reply) => reply.to_string(),
            Err(error) => error.to_string(),
        };
        said.push((format!("{method} {params}"), answer));
    };
    for unit in units {
        let named = json!({ "name": unit });
        for method in ["inspect", "status", "health", "troubleshoot", "verify"] {
            ask(&format!("service.{method}"), named.clone());
        }
        ask("service.logs", json!({ "name": unit, "lines": 1000 }));
        ask("deps.why", named);
    }
    ask("service.list", json!({}));
    ask("op.list", json!({ "all": true }));
    ask("event.watch", json!({ "since": 0 }));
    ask("deps.graph", json!({ "format": "text" }));
    ask("rpc.health", json!({}));
    for (unit, args) in units.iter().flat_map(|unit| [(unit, "logs"), (unit, "troubleshoot"), (unit, "inspect")]) {
        let cli = daemon.cli(&[args, unit]);
        said.push((format!("wharf {args} {unit}"), format!("{}{}", cli.out, cli.err)));
    }
    said
}

/// A log that is followed, as a stream: what came within a second.
fn followed(daemon: &Daemon, unit: &str, run: &Value) -> String {
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "service.logs",
        "params": { "name": unit, "follow": true, "lines": 1000, "run": run } });
    let head = "POST /rpc HTTP/1.1\r\nContent-Type: application/json\r\nAccept: application/x-ndjson";
    request(&daemon.socket(), head, &call.to_string()).unwrap().body
}

/// Files that Wharf writes. What services themselves write, and the files that keep generated values, are not its own.
fn files_below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(kind) = entry.metadata() else { continue };
        if kind.is_dir() {
            files_below(&path, found);
        } else if kind.is_file() && kind.size() > 0 {
            found.push(path);
        }
    }
}

/// The forms in which a value must not be found either.
fn forms(canary: &str) -> Vec<String> {
    let escaped = Value::from(canary).to_string();
    let escaped = escaped[1..escaped.len() - 1].to_owned();
    let url: String = canary.bytes().map(|b| format!("%{b:02x}")).collect();
    let mut forms = vec![canary.to_owned(), escaped.clone(), Value::from(escaped).to_string().replace('"', "")];
    let encode = |text: &str| {
        let mut child = std::process::Command::new("base64")
            .arg("-w0")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    };
    // Without the ends, which depend on what stands beside it.
    forms.push(encode(canary).trim_end_matches('=')[..12].to_owned());
    forms.push(encode(&format!("user:{canary}"))[12..24].to_owned());
    forms.push(url);
    forms
}

/// P19.
#[test]
fn p19_secrets_are_found_nowhere() {
    let mut ground = Ground::new();
    let units = ["command@tells", "command@fails", "command@sick", "command@checks"];
    ground.start("tells", &format!("{TELLS}\nexec sleep 1000"), json!({})).unwrap();
    let quick = json!({ "restart": { "budget": 1, "delay_ms": 10 }, "start_timeout_ms": 5000, "ready_after_ms": 500 });
    let mut dies = quick.clone();
    // It dies before it counts as ready, however slow the machine is.
    (dies["ready_after_ms"], dies["start_timeout_ms"]) = (json!(20_000), json!(30_000));
    ground.start("fails", &format!("{TELLS}\nexit 3"), dies).unwrap_err();
    let mut sick = quick.clone();
    sick["secrets"] = ground.secrets();
    let with = json!({ "argv": ["sleep", "1000"], "health": { "exec": ["sh", "-c", format!("{TELLS}\nexit 1")] } });
    ground.daemon.err("service.start", json!({ "name": "command@sick", "with": with, "policy": sick }));
    let mut checks = quick;
    checks["preflight"] = json!(["sh", "-c", format!("{TELLS}\nexit 1")]);
    ground.start("checks", "exec sleep 1000", checks).unwrap_err();

    let canaries = ground.canaries();
    assert_eq!(canaries.len(), 3 + units.len());
    let raw = |unit: &str| {
        let files = fs::read_dir(ground.daemon.home.join("logs").join(unit)).unwrap().flatten();
        files
            .filter(|f| f.path().extension().is_some_and(|e| e == "log"))
            .map(|f| fs::read_to_string(f.path()).unwrap())
            .collect::<String>()
    };
    eventually("the service has told all", Duration::from_secs(5), || raw("command@tells").contains("PATH="));
    assert!([BY_FILE, BY_ENV, BY_COMMAND].iter().all(|canary| raw("command@tells").contains(canary)), "it has them");

    let needles: Vec<String> = canaries.iter().flat_map(|canary| forms(canary)).collect();
    let mut places = 0;
    for life in ["of the daemon that gave them", "of the next daemon"] {
        if life == "of the next daemon" {
            ground.daemon.kill_9();
            ground.daemon.launch();
            eventually("it is adopted", Duration::from_secs(5), || ground.daemon.state("command@tells") == "running");
        }
        let daemon = &ground.daemon;
        let logs = daemon.ok("service.logs", json!({ "name": "command@tells", "lines": 1000 })).to_string();
        assert!(logs.matches("[redacted]").count() > 20, "{logs}");
        let mut searched: Vec<(String, Vec<u8>)> =
            surface(daemon, &units).into_iter().map(|(place, text)| (place, text.into_bytes())).collect();
        let over = daemon.ok("service.logs", json!({ "name": "command@fails", "lines": 1 }))["run"].clone();
        searched.push(("a followed log".into(), followed(daemon, "command@fails", &over).into_bytes()));
        let mut files = vec![];
        for folder in ["state", "run", "units", "store", "cache"] {
            files_below(&daemon.home.join(folder), &mut files);
        }
        files.push(daemon.home.join("daemon.log"));
        // The shim's program is ours, and large.
        files.retain(|file| !file.starts_with(daemon.home.join("state/shim")));
        searched.extend(files.into_iter().map(|f| (f.display().to_string(), fs::read(&f).unwrap_or_default())));
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let path = process.path().join("cmdline");
            if let Ok(line) = fs::read(&path)
                && process.file_name().to_string_lossy().parse::<u32>().is_ok_and(|pid| pid != std::process::id())
            {
                searched.push((path.display().to_string(), line));
            }
        }
        for kept in ["wharf.db", "wharf.db-wal", "audit.jsonl", "ops.jsonl", "unit.json"] {
            assert!(
                searched.iter().any(|(place, text)| place.ends_with(kept) && !text.is_empty()),
                "{kept} was not searched"
            );
        }
        for (place, text) in &searched {
            let text = String::from_utf8_lossy(text);
            for form in &needles {
                assert!(
                    !text.contains(form.as_str()),
                    "{form} is in {place}, {life}: {}",
                    text.chars().take(4000).collect::<String>()
                );
            }
        }
        places += searched.len();
    }
    println!(
        "FIGURE P19: {} secrets in {} forms, 0 occurrences in {places} places",
        canaries.len(),
        forms("x-x-x-x-x-x-x").len()
    );
}

/// A process of the daemon's own user cannot look into it, and no core is dumped of it.
#[test]
fn the_daemons_memory_is_closed() {
    let mut daemon = Daemon::prepare().with_env("WHARF_DUMPABLE", "");
    daemon.launch();
    let all = daemon.ok("infra.doctor", json!({ "all": true }));
    let found = all["findings"].as_array().unwrap().iter().find(|f| f["id"] == "daemon-open-memory").unwrap();
    assert_eq!(found["severity"], "ok", "the daemon itself says so: {found}");
    let pid = daemon.pid();
    // What is not dumpable belongs to root in /proc, and its limits say 0.
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    let status = |pid: i32| {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        text.lines().find_map(|l| l.strip_prefix("CoreDumping:").map(str::to_owned)).unwrap_or_default()
    };
    assert_eq!(status(pid).trim(), "0");
    if !nix::unistd::geteuid().is_root() {
        assert!(fs::read(format!("/proc/{pid}/environ")).is_err(), "its environment can be read");
    }
    daemon.run("usual", json!({ "argv": ["sleep", "1000"] }));
    let pid = daemon.ok("service.status", json!({ "name": "command@usual" }))["pid"].as_i64().unwrap();
    assert!(fs::read(format!("/proc/{pid}/environ")).is_ok(), "a service is as usual");
}

#[test]
fn a_unit_runs_as_the_user_that_its_policy_names() {
    let daemon = Daemon::start();
    let with =
        json!({ "argv": ["sh", "-c", "id -u; id -G; touch mine; cat $CREDENTIALS_DIRECTORY/KEY; exec sleep 1000"] });
    let start = |name: &str, user: &str| {
        let policy = json!({ "run_as": user, "secrets": { "KEY": { "from": "generate:8" } } });
        daemon.call("service.start", json!({ "name": format!("command@{name}"), "with": with, "policy": policy }))
    };
    let unknown = start("nobody-knows", "no-such-user").unwrap_err();
    assert_eq!(unknown["code"], -32008, "{unknown}");
    assert!(unknown["message"].as_str().unwrap().contains("there is no user \"no-such-user\""), "{unknown}");
    if !nix::unistd::geteuid().is_root() {
        let refused = start("other", "daemon").unwrap_err();
        assert_eq!(refused["code"], -32005, "{refused}");
        println!("CANNOT BE DONE HERE: a run as another user needs a daemon of root");
        return;
    }
    start("other", "daemon").unwrap();
    let status = daemon.ok("service.status", json!({ "name": "command@other" }));
    let pid = status["pid"].as_i64().unwrap();
    assert_eq!(fs::metadata(format!("/proc/{pid}")).unwrap().uid(), 1);
    let made = daemon.home.join("data/command@other/mine");
    eventually("it wrote into its folder", Duration::from_secs(5), || made.exists());
    assert_eq!(fs::metadata(&made).unwrap().uid(), 1);
    eventually("it could read its secret", Duration::from_secs(5), || {
        daemon.ok("service.logs", json!({ "name": "command@other" }))["lines"].to_string().contains("[redacted]")
    });
    let folder = folder_of(&daemon, "command@other");
    assert_eq!(fs::metadata(folder.join("KEY")).unwrap().uid(), 1);
}
