//! The doctor: real left-overs and real strangers are made, and each is named, and gone where it can be.

use std::{
    fs,
    io::Read,
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use serde_json::{Value, json};
use wharf_tests::{Daemon, Said, alive, eventually, free_port, signal};

/// The findings of this kind.
fn of<'a>(diagnosis: &'a Value, id: &str) -> Vec<&'a Value> {
    diagnosis["findings"].as_array().unwrap().iter().filter(|found| found["id"] == id).collect()
}

fn doctor(daemon: &Daemon) -> Value {
    daemon.ok("infra.doctor", json!({}))
}

#[track_caller]
fn one<'a>(diagnosis: &'a Value, id: &str, severity: &str) -> &'a Value {
    let found = of(diagnosis, id);
    assert_eq!(found.len(), 1, "{id}: {diagnosis:#}");
    assert_eq!(found[0]["severity"], severity, "{:#}", found[0]);
    found[0]
}

/// Findings that are about this installation, not about the machine.
fn about_us(diagnosis: &Value) -> Vec<&Value> {
    let ours =
        ["run-", "shim-", "cgroup-", "socket-", "notify-", "credentials-l", "staging-", "store-l", "mode-", "owner-"];
    let all = diagnosis["findings"].as_array().unwrap().iter();
    all.filter(|found| ours.iter().any(|part| found["id"].as_str().unwrap().starts_with(part))).collect()
}

/// A program that listens at a port, also beside another one.
fn listener(address: &str, port: u16) -> String {
    format!(
        "import socket,time\ns=socket.socket()\ns.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEPORT,1)\n\
         s.bind(('{address}',{port}))\ns.listen()\nprint('up',flush=True)\ntime.sleep(1000)"
    )
}

/// Somebody else's listener. It ends with the value.
struct Stranger(Child);

impl Stranger {
    fn listens(address: &str, port: u16) -> Self {
        let mut child = Command::new("python3")
            .args(["-c", &listener(address, port)])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 2];
        child.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
        Self(child)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_sound_installation_has_nothing_to_be_mended() {
    let daemon = Daemon::start();
    for n in 0..3 {
        daemon.run(&format!("u{n}"), json!({ "argv": ["sleep", "1000"] }));
    }
    let diagnosis = doctor(&daemon);
    assert_eq!(about_us(&diagnosis), Vec::<&Value>::new());
    assert!(of(&diagnosis, "daemon-down").is_empty());
    assert!(diagnosis["checked"].as_u64().unwrap() > 25, "{diagnosis:#}");
    let all = daemon.ok("infra.doctor", json!({ "all": true }));
    assert_eq!(of(&all, "run-identity").len(), 3, "each run was compared: {all:#}");
    let said = daemon.cli(&["doctor"]);
    assert_eq!(said.code, i32::from(diagnosis["ok"] == false), "{said:?}");
    assert!(said.out.contains("things looked at"), "{said:?}");
    // What nobody lives in, starts or stops, is no finding in the middle of a storm either.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..5 {
                daemon.ok("service.restart", json!({ "name": "command@u0" }));
            }
        });
        for _ in 0..3 {
            assert_eq!(about_us(&doctor(&daemon)), Vec::<&Value>::new());
        }
    });
}

#[test]
fn what_was_left_behind_is_named_and_cleared_away() {
    let mut daemon = Daemon::start();
    daemon.run("lives", json!({ "argv": ["sleep", "1000"] }));
    let status = daemon.ok("service.status", json!({ "name": "command@lives" }));
    let run = daemon.home.join("run/runs/command@lives").join(status["run"].to_string());
    // A folder of a run that no unit knows; a notify socket; secrets; half an install; open folders.
    let stray = daemon.home.join("run/runs/redis/900001");
    fs::create_dir_all(&stray).unwrap();
    let notify = daemon.home.join("units/.notify/900001");
    fs::create_dir_all(notify.parent().unwrap()).unwrap();
    drop(UnixDatagram::bind(&notify).unwrap());
    let secrets = secrets_place(&daemon).join("900001");
    fs::create_dir_all(&secrets).unwrap();
    let staging = daemon.home.join("store/.staging/half");
    fs::create_dir_all(&staging).unwrap();
    let old = SystemTime::now() - Duration::from_secs(7200);
    fs::File::open(&staging).unwrap().set_modified(old).unwrap();
    fs::set_permissions(daemon.home.join("logs"), fs::Permissions::from_mode(0o755)).unwrap();
    let group = empty_group(&run);

    let diagnosis = doctor(&daemon);
    assert_eq!(one(&diagnosis, "run-leftover", "note")["detail"], stray.display().to_string());
    assert_eq!(one(&diagnosis, "notify-leftover", "note")["objects"][0], notify.display().to_string());
    assert_eq!(one(&diagnosis, "credentials-leftover", "warning")["objects"][0], secrets.display().to_string());
    assert_eq!(one(&diagnosis, "staging-leftover", "note")["objects"][0], staging.display().to_string());
    one(&diagnosis, "mode-folder", "error");
    assert_eq!((&diagnosis["ok"], daemon.cli(&["doctor"]).code), (&json!(false), 1));
    match &group {
        Some(group) => {
            assert_eq!(one(&diagnosis, "cgroup-leftover", "note")["objects"][0], group.display().to_string())
        }
        None => println!("CANNOT BE DONE HERE: an empty cgroup needs a writable cgroup2"),
    }
    assert!(stray.exists() && notify.exists() && secrets.exists() && staging.exists(), "a look changes nothing");

    // Only what is named.
    let mended = daemon.ok("infra.mend", json!({ "ids": ["staging-leftover"] }));
    assert_eq!(mended["mended"].as_array().unwrap().len(), 1, "{mended}");
    assert!(!staging.exists() && stray.exists());
    let asked = daemon.cli(&["doctor", "--fix"]);
    assert_eq!(asked.code, 2, "nobody can be asked here: {asked:?}");
    assert!(stray.exists());
    let fixed = daemon.cli_ok(&["doctor", "--fix", "--yes"]);
    assert!(fixed.out.contains("removed run 900001 of redis"), "{fixed:?}");
    assert!(!stray.exists() && !notify.exists() && !secrets.exists());
    assert!(group.is_none_or(|group| !group.exists()));
    assert_eq!(fs::metadata(daemon.home.join("logs")).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(about_us(&doctor(&daemon)), Vec::<&Value>::new());
    let pid = status["pid"].as_i64().unwrap() as i32;
    assert!(alive(pid) && run.exists(), "what lives is left alone");
    daemon.kill_9();
    assert!(alive(pid));
}

fn secrets_place(daemon: &Daemon) -> std::path::PathBuf {
    let all = daemon.ok("infra.doctor", json!({ "all": true }));
    let place = one(&all, "credentials-tmpfs", "ok")["detail"].as_str().unwrap().to_owned();
    place.rsplit(' ').next().unwrap().into()
}

/// An empty cgroup beside a live run's one.
fn empty_group(run: &Path) -> Option<std::path::PathBuf> {
    let record = String::from_utf8_lossy(&fs::read(run.join("start")).unwrap()).into_owned();
    let from = record.find("/sys/fs/cgroup")?;
    let path: String = record[from..].chars().take_while(|c| !c.is_control()).collect();
    let group = Path::new(&path).parent()?.join("redis:900002");
    fs::create_dir(&group).ok()?;
    Some(group)
}

#[test]
fn without_a_daemon_it_reads_the_state_and_looks_at_what_lives() {
    let mut daemon = Daemon::start();
    for name in ["stays", "dies"] {
        daemon.run(name, json!({ "argv": ["sleep", "1000"] }));
    }
    let pid = |name: &str| daemon.ok("service.status", json!({ "name": name }))["pid"].as_i64().unwrap() as i32;
    let (stays, dies) = (pid("command@stays"), pid("command@dies"));
    daemon.kill_9();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(dies), nix::sys::signal::Signal::SIGKILL).unwrap();
    eventually("it is dead", Duration::from_secs(5), || !alive(dies));
    let json = |said: &Said| -> Value { serde_json::from_str(&said.out).unwrap() };
    let said = daemon.cli(&["doctor", "--json"]);
    let diagnosis = json(&said);
    assert_eq!(said.code, 1, "{said:?}");
    let down = one(&diagnosis, "daemon-down", "error");
    assert_eq!(down["fix"]["command"], "wharf up");
    assert!(down["detail"].as_str().unwrap().contains("2 units are wanted, 1 runs live"), "{down}");
    assert_eq!(one(&diagnosis, "run-lost", "warning")["objects"][0], "command@dies");
    assert_eq!(of(&diagnosis, "socket-leftover").len(), 3, "{diagnosis:#}");
    let fixed = daemon.cli(&["doctor", "--fix", "--yes", "--json"]);
    assert_eq!(json(&fixed)["mended"].as_array().unwrap().len(), 3, "{fixed:?}");
    assert!([daemon.socket(), daemon.rpc_socket(), daemon.admin_socket()].iter().all(|socket| !socket.exists()));
    assert!(alive(stays), "a doctor ends nobody");
    daemon.launch();
    assert_eq!(daemon.ok("service.status", json!({ "name": "command@stays" }))["pid"], stays);
    eventually("what died is started again", Duration::from_secs(10), || daemon.state("command@dies") == "running");
    assert_eq!(about_us(&doctor(&daemon)), Vec::<&Value>::new());
}

#[test]
fn a_stranger_on_a_units_port_is_named() {
    let daemon = Daemon::start();
    let (port, shared, outside) = (free_port(), free_port(), free_port());
    let waits = json!({ "argv": ["sleep", "1000"], "ports": { "http": port }, "health": "none" });
    daemon.ok("service.install", json!({ "name": "command@waits", "with": waits }));
    let stranger = Stranger::listens("127.0.0.1", port);
    for (name, address, port) in [("twice", "127.0.0.1", shared), ("open", "0.0.0.0", outside)] {
        let argv = json!(["python3", "-c", listener(address, port)]);
        daemon.run(name, json!({ "argv": argv, "ports": { "main": port }, "health": { "tcp": { "port": "main" } } }));
    }
    let second = Stranger::listens("127.0.0.1", shared);
    let diagnosis = doctor(&daemon);
    let taken = one(&diagnosis, "port-taken", "warning");
    let title = taken["title"].as_str().unwrap();
    assert!(title.contains(&format!("port {port} (http) of command@waits is taken by python3")), "{taken}");
    assert!(title.contains(&format!("pid {}", stranger.0.id())), "{taken}");
    let twice = one(&diagnosis, "port-duplicate", "error");
    assert!(twice["title"].as_str().unwrap().contains(&format!("pid {}", second.0.id())), "{twice}");
    assert_eq!(twice["objects"], json!(["command@twice", format!("port {shared}")]));
    let open = one(&diagnosis, "port-open", "warning");
    assert_eq!(open["objects"], json!(["command@open"]));
    drop((stranger, second));
    let diagnosis = doctor(&daemon);
    assert!(of(&diagnosis, "port-taken").is_empty() && of(&diagnosis, "port-duplicate").is_empty(), "{diagnosis:#}");
}

#[test]
fn what_a_unit_is_given_is_looked_at_too() {
    let daemon = Daemon::start();
    let outside = tempfile::tempdir().unwrap();
    let (secret, env) = (outside.path().join("secret"), outside.path().join("env"));
    fs::write(&secret, "value-of-a-secret").unwrap();
    fs::write(&env, "A=1\n").unwrap();
    for path in [&secret, &env] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    }
    let with = json!({ "argv": ["sleep", "1000"], "env_file": env });
    let secrets = json!({ "KEY": { "from": format!("file:{}", secret.display()) } });
    let policy = json!({ "secrets": secrets, "run_as": "no-such-user", "limits": { "memory_bytes": 1 << 30 } });
    daemon.ok("service.install", json!({ "name": "command@given", "with": with, "policy": policy }));
    let diagnosis = doctor(&daemon);
    assert_eq!(one(&diagnosis, "secret-file-open", "warning")["objects"][0], secret.display().to_string());
    assert_eq!(one(&diagnosis, "env-file-open", "note")["objects"][0], env.display().to_string());
    assert_eq!(one(&diagnosis, "user-unknown", "error")["objects"][0], "command@given");
    let all = daemon.ok("infra.doctor", json!({ "all": true }));
    let limited = of(&all, "limit-memory")[0];
    let is_whole = limited["detail"].as_str().unwrap().contains("cgroup");
    assert_eq!(limited["severity"], if is_whole { "ok" } else { "warning" }, "{limited}");
    assert!(!diagnosis.to_string().contains("value-of-a-secret"));
}

#[test]
fn a_program_that_was_replaced_under_the_daemon_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let binary = dir.path().join("wharf");
    fs::copy(wharf_tests::wharf_binary(), &binary).unwrap();
    let mut daemon = Daemon::prepare().with_binary(&binary);
    daemon.launch();
    assert!(of(&doctor(&daemon), "daemon-binary-replaced").is_empty());
    let new = dir.path().join("new");
    fs::copy(wharf_tests::wharf_binary(), &new).unwrap();
    fs::rename(&new, &binary).unwrap();
    let diagnosis = doctor(&daemon);
    let found = one(&diagnosis, "daemon-binary-replaced", "warning");
    assert_eq!(found["fix"]["command"], "wharf daemon --replace --detach");
}

#[test]
fn a_daemon_that_hangs_is_named_and_the_rest_is_looked_at_without_it() {
    let daemon = Daemon::start();
    daemon.run("lives", json!({ "argv": ["sleep", "1000"] }));
    let stray = daemon.home.join("run/runs/redis/900001");
    fs::create_dir_all(&stray).unwrap();
    let pid = daemon.pid();
    signal(pid, "STOP");
    let began = Instant::now();
    let said = daemon.cli(&["doctor", "--json"]);
    let (took, fixed) = (began.elapsed(), daemon.cli(&["doctor", "--fix", "--yes"]));
    signal(pid, "CONT");
    assert!(took < Duration::from_secs(8), "{took:?}");
    let diagnosis = said.json();
    let hangs = one(&diagnosis, "daemon-silent", "error");
    assert_eq!((said.code, &hangs["objects"][0]), (1, &json!(format!("pid {pid}"))), "{hangs}");
    assert!(hangs["fix"]["text"].as_str().unwrap().contains(&format!("kill -CONT {pid}")), "{hangs}");
    assert!(of(&diagnosis, "daemon-down").is_empty(), "{diagnosis:#}");
    one(&diagnosis, "run-leftover", "note");
    assert!(fixed.code != 0 && fixed.err.contains("hangs") && stray.exists(), "{fixed:?}");
    assert!(of(&doctor(&daemon), "daemon-silent").is_empty());
    assert_eq!(daemon.cli(&["doctor", "--fix", "--yes"]).err, "");
}
