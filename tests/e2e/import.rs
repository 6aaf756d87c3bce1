//! A crate of a user's own, made by `wharf new`, and in it a service from each kind of file that `wharf import` reads.
//!
//! One crate and one build for all: it compiles the whole of Wharf.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};
use wharf_tests::{Daemon, alive, beside, cannot, eventually, free_ports, root, wharf_binary};

const LONG: Duration = Duration::from_secs(30);

struct Yard {
    dir: tempfile::TempDir,
    wharf: Daemon,
}

impl Yard {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("wharf-import-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir, wharf: Daemon::prepare() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file below the yard; `@WHARF@` in it is the program under test.
    fn put(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text.replace("@WHARF@", wharf_binary().to_str().unwrap())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn import(&self, file: &str) -> Value {
        let out = self.path("my-services");
        let said = self.wharf.cli_ok(&["import", file, "--out", out.to_str().unwrap(), "--json"]).json();
        assert!(said["services"].as_array().is_some_and(|services| !services.is_empty()), "{said:#}");
        said
    }

    /// The machine's cargo in the crate, with what was built for these tests.
    fn cargo(&self, args: &[&str]) -> String {
        let target = beside("wharf").ancestors().nth(2).unwrap().to_owned();
        let mut cargo = Command::new("cargo");
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CARGO_") && name != "CARGO_HOME") {
            cargo.env_remove(name);
        }
        let said = cargo
            .args(args)
            .arg("--offline")
            .current_dir(self.path("my-services"))
            .env("CARGO_TARGET_DIR", target)
            .output()
            .unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
        assert!(said.status.success(), "cargo {args:?}: {text}");
        text
    }
}

/// `GET path` on this machine.
fn is_healthy(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let mut answer = String::new();
    let asked = stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    asked.and_then(|()| stream.read_to_string(&mut answer)).is_ok() && answer.starts_with("HTTP/1.1 200")
}

fn notes(said: &Value) -> String {
    said.to_string()
}

fn pid(daemon: &Daemon, unit: &str) -> i32 {
    daemon.ok("service.status", json!({ "name": unit }))["pid"].as_i64().unwrap() as i32
}

fn proc_file(pid: i32, file: &str) -> String {
    let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap();
    String::from_utf8_lossy(&bytes).replace('\0', "\n")
}

fn procfile(yard: &Yard) {
    yard.put("app/.env", "NAME=harbour\n");
    let file = yard.put(
        "app/Procfile",
        "# ours\nweb: @WHARF@ serve-hello --port $PORT\nworker: WHO=\"two words\" /bin/sleep 1000\n",
    );
    let said = yard.import(&file);
    assert_eq!(said["services"][0]["module"], "web", "{said:#}");
    assert!(notes(&said).contains("foreman"), "{said:#}");
}

fn process_compose(yard: &Yard, port: u16) {
    let text = format!(
        "processes:\n  store:\n    command: '@WHARF@ serve-hello --port {port}'\n    \
         readiness_probe: {{http_get: {{port: {port}, path: /health}}, period_seconds: 1}}\n    \
         liveness_probe: {{exec: {{command: 'test -e {{{{.MARK}}}}'}}, period_seconds: 1}}\n    \
         vars: {{MARK: {mark}}}\n    availability: {{restart: always}}\n  \
         reader:\n    command: 'echo ready; sleep 1000'\n    ready_log_line: ready\n    \
         depends_on: {{store: {{condition: process_healthy}}}}\n    log_location: /tmp/x\n",
        mark = yard.put("app/mark", ""),
    );
    let said = yard.import(&yard.put("app/process-compose.yaml", &text));
    assert!(notes(&said).contains("wharf logs reader"), "{said:#}");
}

fn pm2(yard: &Yard, port: u16) {
    yard.put("app/mesh.sh", "#!/bin/bash\nexec @WHARF@ serve-hello --port \"$PORT\"\n");
    let app = format!(
        "{{ name: 'mesh', script: 'mesh.sh', instances: 2, kill_timeout: 4000, max_memory_restart: '200M', \
         env: {{ PORT: {port}, MODE: ['a', 'b'].join('-') }}, watch: true }}"
    );
    let has_node = Command::new("node").arg("--version").output().is_ok_and(|said| said.status.success());
    let said = if has_node {
        let text = format!("console.log('noise');\nmodule.exports = {{ apps: [{app}] }};\n");
        yard.import(&yard.put("app/ecosystem.config.js", &text))
    } else {
        cannot("pm2's JavaScript", "needs node; its JSON is imported instead");
        let text = format!(
            "{{\"apps\": [{{\"name\": \"mesh\", \"script\": \"mesh.sh\", \"instances\": 2, \"max_memory_restart\": \"200M\", \
             \"env\": {{\"PORT\": {port}, \"MODE\": \"a-b\"}}, \"watch\": true}}]}}"
        );
        yard.import(&yard.put("app/ecosystem.json", &text))
    };
    for says in ["watch", "max_memory_restart"] {
        assert!(notes(&said).contains(says), "{said:#}");
    }
}

fn supervisord(yard: &Yard) {
    yard.put(
        "app/crew.sh",
        "#!/bin/sh\ntrap 'echo got INT; exit 0' INT\necho \"$1 $NUMBER\"\nwhile :; do sleep 0.1; done\n",
    );
    let text = "[program:crew]\ncommand=/bin/sh crew.sh \"member %(process_num)02d\"\nnumprocs=2\nstartsecs=1\n\
                environment=NUMBER=%(process_num)d\ndirectory=%(here)s\nstopsignal=INT\numask=027\n\
                stdout_logfile=/tmp/x\n[group:all]\nprograms=crew\n";
    let said = yard.import(&yard.put("app/supervisord.conf", text));
    assert!(notes(&said).contains("the group all") && notes(&said).contains("wharf logs crew"), "{said:#}");
}

fn systemd(yard: &Yard) {
    let (before, after) = (yard.path("app/before"), yard.path("app/after"));
    let text = format!(
        "[Unit]\nDescription=Ebb and flow\nAfter=network.target\n[Service]\nEnvironmentFile=-{env}\n\
         ExecStartPre=/bin/touch {before}\nExecStart=/bin/sh -c 'echo \"${{LEVEL}} ${{TIDE}}\" > \"${{STATE_DIRECTORY}}/level\"; exec sleep 1000' $EXTRA\n\
         ExecStop=/bin/touch {after}\nStateDirectory=tide\nLimitNOFILE=512\nPrivateTmp=yes\n\
         Restart=on-failure\nTimeoutStopSec=5s\n[Install]\nWantedBy=multi-user.target\n",
        env = yard.put("units/tide.env", "TIDE=low\n"),
        before = before.display(),
        after = after.display(),
    );
    yard.put("units/tide.service", &text);
    yard.put("units/tide.service.d/10-level.conf", "[Service]\nEnvironment=LEVEL=high\n");
    yard.put("units/gauge.service", "[Service]\nType=oneshot\nExecStart=/bin/echo measured\n");
    yard.put("units/gauge.timer", "[Timer]\nOnCalendar=*-*-* 04:10:00\n");
    let said = yard.import(yard.path("units").to_str().unwrap());
    for says in ["PrivateTmp", "STATE_DIRECTORY", "[Install]"] {
        assert!(notes(&said).contains(says), "{says}: {said:#}");
    }
}

#[test]
fn a_crate_of_ones_own_with_a_service_from_each_kind_of_file() {
    let yard = Yard::new();
    let top = yard.path("my-services");
    let made = yard.wharf.cli_ok(&["new", top.to_str().unwrap(), "--json"]).json();
    assert_eq!(made["name"], "my-services", "{made}");
    let again = yard.wharf.cli(&["new", top.to_str().unwrap()]);
    assert!(again.code == 4 && again.err.contains("is there already"), "{again:?}");
    let ports = free_ports(4);
    procfile(&yard);
    process_compose(&yard, ports[0]);
    pm2(&yard, ports[1]);
    supervisord(&yard);
    systemd(&yard);
    let twice =
        yard.wharf.cli(&["import", yard.path("app/Procfile").to_str().unwrap(), "--out", top.to_str().unwrap()]);
    assert!(twice.code == 4 && twice.err.contains("web.rs"), "{twice:?}");
    let said = yard.cargo(&["test", "--lib"]);
    assert!(said.contains("test result: ok. 2 passed"), "its sample's test passes: {said}");
    let said = yard.cargo(&["build"]);
    assert!(!said.contains("src/services"), "a warning about what was written: {said}");
    let binary = beside("wharf").with_file_name("my-services");
    let mut daemon = Daemon::prepare().with_binary(&binary);
    daemon.launch();
    sample(&daemon, ports[2]);
    from_procfile(&daemon, ports[3]);
    from_process_compose(&daemon, &yard, ports[0]);
    from_pm2(&daemon, ports[1]);
    from_supervisord(&daemon);
    from_systemd(&daemon, &yard);
    daemon.cli_ok(&["down"]);
}

fn sample(daemon: &Daemon, port: u16) {
    daemon.ok("service.start", json!({ "name": "greeter", "with": { "name": "all", "ports": { "http": port } } }));
    assert!(proc_file(pid(daemon, "greeter"), "environ").contains("GREETED=all\n"));
    let wrong = daemon.err("service.start", json!({ "name": "greeter", "with": { "nmae": "x" } }));
    assert!(wrong["message"].as_str().unwrap().contains("nmae"), "{wrong}");
}

fn from_procfile(daemon: &Daemon, port: u16) {
    daemon.ok("service.start", json!({ "name": "web", "with": { "ports": { "main": port } } }));
    assert!(is_healthy(port));
    // The shell has made way for the program: signals reach it, and it is the one that is watched.
    let web = pid(daemon, "web");
    assert!(proc_file(web, "cmdline").contains("serve-hello") && proc_file(web, "environ").contains("NAME=harbour\n"));
    daemon.ok("service.start", json!({ "name": "worker" }));
    assert!(proc_file(pid(daemon, "worker"), "environ").contains("WHO=two words\n"));
}

fn from_process_compose(daemon: &Daemon, yard: &Yard, port: u16) {
    // What it needs comes first, and is ready before it.
    daemon.ok("service.start", json!({ "name": "reader" }));
    assert_eq!((daemon.state("store").as_str(), daemon.state("reader").as_str()), ("running", "running"));
    assert!(is_healthy(port));
    let first = pid(daemon, "store");
    fs::remove_file(yard.path("app/mark")).unwrap();
    eventually("its liveness probe fails, and it is started again", LONG, || !alive(first));
    yard.put("app/mark", "");
}

fn from_pm2(daemon: &Daemon, port: u16) {
    for (instance, port) in [("0", None), ("1", port.checked_add(1))] {
        let unit = format!("mesh@{instance}");
        // The second one's number is a neighbour's: it may be taken here.
        let declared =
            daemon.ok("service.inspect", json!({ "name": unit }))["definition"]["ports"][0]["default"].clone();
        assert!(port.is_none_or(|port| declared == port), "{unit}: {declared}");
        let with = if port.is_some() { json!({ "ports": { "main": "auto" } }) } else { json!({}) };
        daemon.ok("service.start", json!({ "name": unit, "with": with }));
        let environ = proc_file(pid(daemon, &unit), "environ");
        assert!(
            environ.contains("MODE=a-b\n") && environ.contains(&format!("NODE_APP_INSTANCE={instance}\n")),
            "{environ}"
        );
        let inspection = daemon.ok("service.inspect", json!({ "name": unit }));
        assert_eq!(inspection["policy"]["limits"]["memory_bytes"], 200 << 20, "{inspection}");
        assert_eq!(inspection["policy"]["stop_signal"], "INT");
    }
    let second = daemon.ok("service.status", json!({ "name": "mesh@1" }))["port"].as_u64().unwrap();
    assert!(is_healthy(second as u16));
}

fn from_supervisord(daemon: &Daemon) {
    for unit in ["crew@0", "crew@1"] {
        daemon.ok("service.start", json!({ "name": unit }));
    }
    let log = |unit: &str| daemon.ok("service.logs", json!({ "name": unit })).to_string();
    eventually("what it was given", LONG, || log("crew@1").contains("member 01 1"));
    daemon.ok("service.stop", json!({ "name": "crew@1" }));
    assert!(log("crew@1").contains("got INT"), "{}", log("crew@1"));
    assert_eq!(daemon.state("crew@0"), "running");
}

fn from_systemd(daemon: &Daemon, yard: &Yard) {
    daemon.ok("service.start", json!({ "name": "tide" }));
    let level = daemon.home.join("data/tide/level");
    eventually("the level is written down", LONG, || fs::read_to_string(&level).is_ok_and(|text| text == "high low\n"));
    let limits = proc_file(pid(daemon, "tide"), "limits");
    assert!(limits.lines().any(|line| line.starts_with("Max open files") && line.contains("512")), "{limits}");
    assert!(yard.path("app/before").exists(), "ExecStartPre");
    let gauge = daemon.ok("service.inspect", json!({ "name": "gauge" }));
    assert_eq!(
        (&gauge["policy"]["job"], &gauge["policy"]["schedule"]),
        (&json!(true), &json!("10 4 * * *")),
        "{gauge}"
    );
    daemon.ok("service.stop", json!({ "name": "tide" }));
    assert!(Path::new(&yard.path("app/after")).exists(), "ExecStop");
}

#[test]
fn what_cannot_be_imported_is_refused_in_words() {
    let yard = Yard::new();
    let out = yard.path("out");
    let import = |file: &str, more: &[&str]| {
        let out = out.to_str().unwrap();
        yard.wharf.cli(&[&["import", file, "--out", out], more].concat())
    };
    let odd = import(&yard.put("odd", "hello there"), &[]);
    assert!(odd.code == 4 && odd.err.contains("--kind"), "{odd:?}");
    let gone = import(yard.path("gone").to_str().unwrap(), &[]);
    assert!(gone.code == 4 && gone.err.contains("gone"), "{gone:?}");
    let empty = import(&yard.put("x.service", "[Unit]\nDescription=x\n"), &[]);
    assert!(empty.code == 2 && empty.err.contains("[Service]"), "{empty:?}");
    let torn = import(&yard.put("process-compose.yaml", "processes: [\n"), &[]);
    assert!(torn.code == 2 && torn.err.contains("process-compose.yaml"), "{torn:?}");
    let crooked = import(&yard.put("ecosystem.config.js", "throw new Error('no secrets here');"), &[]);
    let why = ["no secrets here", "node cannot be run"].iter().any(|says| crooked.err.contains(says));
    assert!(crooked.code == 4 && why, "{crooked:?}");
    assert!(!out.exists(), "nothing was written");
    // Into any folder; then the lines that a list of services needs are said.
    let said = import(&yard.put("list", "web: ./x\n"), &[]);
    assert!(said.code == 0 && said.out.contains("mod web;") && said.out.contains(".with(web::Web)"), "{said:?}");
    let forced = import(&yard.put("list", "web: ./y\n"), &["--force"]);
    assert!(forced.code == 0 && fs::read_to_string(out.join("web.rs")).unwrap().contains("\"./y\""), "{forced:?}");
}

/// HS-142, HS-143, HS-144: the guide, the migration in four phases, the removal from the bottom up. What they tell a
/// person to type is there.
#[test]
fn the_pages_name_only_verbs_that_there_are() {
    let yard = Yard::new();
    let page = |path: &str| fs::read_to_string(root().join("docs").join(path)).unwrap();
    let migration = page("migration.md");
    let phases: Vec<&str> = migration.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(phases.iter().map(|phase| &phase[..2]).collect::<Vec<_>>(), ["1.", "2.", "3.", "4."], "{phases:?}");
    assert_eq!(migration.matches("**Back:**").count(), 4, "each phase has its way back");
    let help = yard.wharf.cli_ok(&["--help"]).out;
    let verbs: Vec<&str> = help
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|verb| !verb.is_empty())
        .collect();
    assert!(verbs.contains(&"import") && verbs.contains(&"new"), "{verbs:?}");
    let mut count = 0;
    for path in ["migration.md", "removal.md", "adding/README.md", "adding/service.md", "adding/executable.md"] {
        let text = page(path);
        for program in ["wharf ", "my-services "] {
            for part in text.split(&format!("`{program}")).skip(1).chain(text.split(&format!("\n{program}")).skip(1)) {
                let verb: String = part.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
                assert!(verbs.contains(&verb.as_str()), "{path}: there is no `{program}{verb}`");
                count += 1;
            }
        }
    }
    assert!(count > 30, "{count} were looked at");
}
