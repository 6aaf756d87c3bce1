//! Leases of programs outside: kept by a socket, durable, fenced, and over with their holder.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use wharf_tests::{Daemon, eventually, figure, free_port, listens};

use super::{REUSEADDR, Stranger, listener, told};

fn leases(daemon: &Daemon) -> Value {
    daemon.ok("port.leases", json!({}))["leases"].clone()
}

fn port_of(leased: &Value) -> u16 {
    leased["ports"][0].as_u64().unwrap() as u16
}

/// A process that waits, to hold things.
fn holder() -> Stranger {
    Stranger::begin(Command::new("sh").args(["-c", "echo up; read line"]))
}

#[test]
fn arbiter_2_a_lease_outlives_kill_9_of_the_daemon_and_is_never_granted_twice() {
    let mut daemon = Daemon::start();
    let holder = holder();
    let ask = |key: &str| json!({ "port_name": "api", "service": "ci", "holder_pid": holder.pid(), "client_key": key });
    let mut known = vec![];
    for round in 0..5 {
        let leased = daemon.ok("port.lease", ask(&format!("k{round}")));
        assert!(!known.contains(&leased["ports"]), "{leased} was granted before: {known:?}");
        known.push(leased["ports"].clone());
        daemon.kill_9();
        // What was answered is there; nobody may have the port meanwhile but by force.
        daemon.launch();
        let again = daemon.ok("port.lease", ask(&format!("k{round}")));
        assert_eq!(
            (&again["lease"], &again["epoch"]),
            (&leased["lease"], &leased["epoch"]),
            "the same key, another lease"
        );
        assert_eq!(again["ports"], leased["ports"]);
        let rows = leases(&daemon);
        assert_eq!(rows.as_array().unwrap().len(), round + 1, "{rows}");
        assert!(rows.as_array().unwrap().iter().all(|row| row["parked"] == true), "{rows}");
    }
    // The holder dies while no daemon lives: the next one notices.
    daemon.kill_9();
    drop(holder);
    daemon.launch();
    eventually("leases of a dead holder are over", Duration::from_secs(5), || leases(&daemon) == json!([]));
    let next = daemon.ok("port.lease", json!({ "port_name": "x", "ttl_ms": 60_000 }));
    assert_eq!(next["lease"], 6, "a number was handed out twice: {next}");
}

#[test]
fn a_parked_port_is_kept_from_chance_and_open_to_its_server() {
    let daemon = Daemon::start();
    let holder = holder();
    let leased = daemon.ok("port.lease", json!({ "port_name": "web", "holder_pid": holder.pid() }));
    assert_eq!(leased["handoff_used"], "park");
    let port = port_of(&leased);
    assert!(!listens(port), "a parked port answers");
    let answer = daemon.ok("port.whois", json!({ "port": port }))["answer"].clone();
    assert!(answer.as_str().unwrap().contains("nobody listens; it belongs to the lease"), "{answer}");
    let bare = Command::new("python3")
        .args(["-c", &format!("import socket\nsocket.socket().bind(('127.0.0.1',{port}))")])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&bare.stderr).contains("Address already in use"), "{bare:?}");
    // A unit is not given it either, neither by number nor by chance.
    let with = json!({ "argv": ["sleep", "1000"], "ports": { "main": port }, "health": "none" });
    let error = daemon.err("service.start", json!({ "name": "command@x", "with": with }));
    assert_eq!(error["code"], -32003, "{error}");
    assert!(error["message"].as_str().unwrap().contains("is leased to"), "{error}");
    // Servers set SO_REUSEADDR.
    drop(TcpListener::bind(("127.0.0.1", port)).unwrap());
    let plain = daemon.ok("port.lease", json!({ "port_name": "old", "handoff": "plain", "holder_pid": holder.pid() }));
    let bare = format!("import socket\nsocket.socket().bind(('127.0.0.1',{}))", port_of(&plain));
    assert!(Command::new("python3").args(["-c", &bare]).status().unwrap().success());
    // UDP has no parking: a second socket would be given a part of what is sent.
    let udp = daemon.ok("port.lease", json!({ "port_name": "dns", "protocol": "udp", "holder_pid": holder.pid() }));
    assert_eq!(udp["handoff_used"], "plain");
}

#[test]
fn a_start_and_a_lease_that_meet_do_not_both_get_the_port() {
    let daemon = Daemon::start();
    let ports = wharf_tests::free_ports(12);
    let (mut starts, mut leased) = (0, 0);
    for (n, port) in ports.iter().enumerate() {
        let with = json!({ "argv": ["sleep", "1000"], "ports": { "main": port }, "health": "none" });
        let start = json!({ "name": format!("command@race{n}"), "with": with });
        let lease = json!({ "port_name": "race", "port": port, "ttl_ms": 600_000, "sticky": false });
        let (started, taken) = thread::scope(|scope| {
            let start = scope.spawn(|| daemon.call("service.start", start));
            // Sometimes before it, sometimes after it.
            thread::sleep(Duration::from_micros(700 * (n as u64 % 6)));
            let lease = scope.spawn(|| daemon.call("port.lease", lease));
            (start.join().unwrap(), lease.join().unwrap())
        });
        assert!(started.is_ok() != taken.is_ok(), "port {port}: {started:?} and {taken:?}");
        starts += u32::from(started.is_ok());
        leased += u32::from(taken.is_ok());
    }
    figure("I4", &format!("{starts} starts and {leased} leases won their port, never both"));
}

#[test]
fn who_has_lost_a_lease_is_refused() {
    let daemon = Daemon::start();
    let ask = json!({ "port_name": "api", "service": "ci", "ttl_ms": 60_000, "client_key": "ci-1" });
    let leased = daemon.ok("port.lease", ask.clone());
    let held = json!({ "lease": leased["lease"], "epoch": leased["epoch"] });
    assert_eq!(daemon.ok("port.lease", ask.clone())["epoch"], leased["epoch"], "the same request is the same lease");
    assert!(daemon.ok("port.renew", held.clone())["expires_in_ms"].as_u64().unwrap() > 59_000);
    // Another holder takes it over by the key: the first one's word counts no more.
    let taken = holder();
    let mut over = ask.clone();
    over["holder_pid"] = json!(taken.pid());
    let over = daemon.ok("port.lease", over);
    assert_eq!((&over["lease"], &over["ports"]), (&leased["lease"], &leased["ports"]));
    for method in ["port.renew", "port.confirm", "port.release"] {
        let error = daemon.err(method, held.clone());
        assert_eq!((&error["code"], &error["data"]["kind"]), (&json!(-32036), &json!("stale_port_epoch")), "{error}");
    }
    let held = json!({ "lease": over["lease"], "epoch": over["epoch"] });
    assert_eq!(daemon.ok("port.release", held.clone())["ports"], leased["ports"]);
    let error = daemon.err("port.renew", held);
    assert_eq!(error["code"], -32036, "{error}");
    // The number is remembered.
    let again = daemon.ok("port.lease", ask);
    assert_eq!(again["ports"], leased["ports"]);
    assert!(again["epoch"].as_u64() > over["epoch"].as_u64());
}

#[test]
fn a_lease_ends_with_its_time_and_with_its_holder() {
    let daemon = Daemon::start();
    let short = daemon.ok("port.lease", json!({ "port_name": "short", "ttl_ms": 300 }));
    let (event, took) = told(&daemon, "port.freed", port_of(&short), 0, Duration::from_secs(5));
    assert_eq!(event["why"], "it was not renewed", "{event}");
    assert!(took >= Duration::from_millis(150), "{took:?}");
    let kept = daemon.ok("port.lease", json!({ "port_name": "kept", "ttl_ms": 600 }));
    let held = json!({ "lease": kept["lease"], "epoch": kept["epoch"] });
    for _ in 0..5 {
        thread::sleep(Duration::from_millis(250));
        daemon.ok("port.renew", held.clone());
    }
    // Through the command line: for as long as the program behind it runs.
    let mut run = Stranger::begin(daemon.command().args([
        "ports",
        "lease",
        "web",
        "--service",
        "ci",
        "--range",
        "ui",
        "--",
        "sh",
        "-c",
        "echo $PORT; read line",
    ]));
    let rows = leases(&daemon);
    let row = rows.as_array().unwrap().iter().find(|row| row["service"] == "ci").unwrap();
    assert_eq!(row["holder_pid"], run.pid(), "{row}");
    let port = port_of(row);
    assert!((8060..=8079).contains(&port), "SN-83: {row}");
    writeln!(run.stdin.as_mut().unwrap()).unwrap();
    let (event, _) = told(&daemon, "port.freed", port, 0, Duration::from_secs(5));
    assert_eq!(event["why"], "its holder has ended", "{event}");
    run.child.wait().unwrap();
    // Without a time or a process it ends with whoever asked: here, this very process.
    let own = daemon.ok("port.lease", json!({ "port_name": "own" }));
    assert_eq!(own["holder_pid"], std::process::id());
}

#[test]
fn a_dry_run_and_the_lease_that_follows_agree() {
    let daemon = Daemon::start();
    for (name, more) in
        [("a", json!({})), ("b", json!({ "range": "gpu" })), ("c", json!({ "count": 3, "contiguous": true }))]
    {
        let mut ask = json!({ "port_name": name, "service": "dry", "ttl_ms": 60_000 });
        ask.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut dry = ask.clone();
        dry["dry_run"] = json!(true);
        let would = daemon.ok("port.lease", dry);
        assert_eq!(would["lease"], json!(null));
        let leased = daemon.ok("port.lease", ask);
        assert_eq!(would["ports"], leased["ports"]);
        assert_eq!(leased["env"]["PORT"], leased["ports"][0].to_string());
    }
    assert_eq!(leases(&daemon).as_array().unwrap().len(), 3, "a dry run took a lease");
}

/// Connects again and again, and counts.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    served: AtomicU32,
    refused: AtomicU32,
    /// Somebody else has answered.
    strange: AtomicU32,
}

impl Load {
    fn begin(port: u16) -> (Arc<Self>, thread::JoinHandle<()>) {
        let load = Arc::new(Self::default());
        let counts = load.clone();
        let clients = thread::spawn(move || {
            while !counts.stop.load(Ordering::Relaxed) {
                counts.connect(port);
                thread::sleep(Duration::from_millis(2));
            }
        });
        (load, clients)
    }

    fn connect(&self, port: u16) {
        let Ok(mut line) = TcpStream::connect(("127.0.0.1", port)) else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let mut said = String::new();
        let _ = line.set_read_timeout(Some(Duration::from_secs(10)));
        let _ = line.read_to_string(&mut said);
        match said.as_str() {
            "mine" => self.served.fetch_add(1, Ordering::Relaxed),
            // A server that is ended while it answers has cut its own line: nobody else has spoken.
            "" => 0,
            _ => self.strange.fetch_add(1, Ordering::Relaxed),
        };
    }

    /// Until that many more were served.
    #[track_caller]
    fn serves(&self, more: u32) {
        let until = self.served.load(Ordering::Relaxed) + more;
        let is_so = || self.served.load(Ordering::Relaxed) >= until;
        eventually("clients are served", Duration::from_secs(20), is_so);
    }

    fn end(&self, clients: thread::JoinHandle<()>) -> (u32, u32, u32) {
        self.stop.store(true, Ordering::Relaxed);
        clients.join().unwrap();
        let count = |of: &AtomicU32| of.load(Ordering::Relaxed);
        (count(&self.served), count(&self.refused), count(&self.strange))
    }
}

/// Answers every connection with one word.
fn answers(word: &str) -> String {
    format!("while True:\n c,_=s.accept()\n c.sendall(b'{word}')\n c.close()")
}

#[test]
fn arbiter_10_a_restart_under_load_never_shows_another_program_on_the_port() {
    let daemon = Daemon::start();
    let holder = holder();
    let leased = daemon.ok("port.lease", json!({ "port_name": "load", "holder_pid": holder.pid() }));
    let port = port_of(&leased);
    let script = listener("127.0.0.1", port, REUSEADDR, &answers("mine"));
    let mut server = Stranger::python(&script);
    let (load, clients) = Load::begin(port);
    // Programs that ask the kernel for any port, or for this one without an option, are never given it.
    let tries = Arc::new(AtomicU32::new(0));
    let (told, counted) = (load.clone(), tries.clone());
    let thief = thread::spawn(move || {
        while !told.stop.load(Ordering::Relaxed) {
            let any = TcpListener::bind("127.0.0.1:0").unwrap();
            assert_ne!(any.local_addr().unwrap().port(), port, "chance has given the port away");
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let bare = format!(
        "import socket,time\nn=0\nprint('up',flush=True)\nwhile True:\n try:\n  s=socket.socket();s.bind(('127.0.0.1',{port}));\
         s.listen();print('stolen',flush=True);time.sleep(99)\n except OSError: time.sleep(0.005)"
    );
    let bare = Stranger::python(&bare);
    for _ in 0..3 {
        load.serves(20);
        drop(server);
        thread::sleep(Duration::from_millis(100));
        server = Stranger::python(&script);
    }
    load.serves(20);
    let (served, refused, strange) = load.end(clients);
    thief.join().unwrap();
    assert_eq!(strange, 0, "somebody else has answered on the port");
    assert!(refused > 0, "nobody came while there was no server");
    drop((server, bare));
    let tries = tries.load(Ordering::Relaxed);
    figure(
        "arbiter 10",
        &format!("park: 3 restarts, {served} served, {refused} refused, 0 met another; {tries} binds by chance"),
    );
}

#[test]
fn arbiter_10_a_passed_socket_refuses_nobody_across_restarts() {
    let daemon = Daemon::start();
    let port = free_port();
    let script = format!(
        "import socket,os\nassert os.environ['LISTEN_FDS']=='1'\ns=socket.socket(fileno=3)\ns.setblocking(True)\n{}",
        answers("mine")
    );
    let with = json!({ "argv": ["python3", "-c", script], "ports": { "main": port }, "health": { "tcp": { "port": "main" } } });
    let policy = json!({ "on_demand": { "pass_sockets": true } });
    daemon.ok("service.start", json!({ "name": "command@fd", "with": with, "policy": policy }));
    let (load, clients) = Load::begin(port);
    for _ in 0..3 {
        load.serves(20);
        daemon.ok("service.restart", json!({ "name": "command@fd" }));
    }
    load.serves(20);
    let (served, refused, strange) = load.end(clients);
    assert_eq!((refused, strange), (0, 0), "{served} were served");
    figure("arbiter 10", &format!("fd: 3 restarts, {served} served, 0 refused"));
}
