//! Leases of programs outside: kept by a socket, durable, fenced, and over with their holder.

use std::{
    io::Write,
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
        assert_eq!((&again["lease"], &again["epoch"]), (&leased["lease"], &leased["epoch"]), "the same key, another lease");
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
    let error = daemon.err("port.lease", json!({ "port_name": "x", "handoff": "fd", "holder_pid": holder.pid() }));
    assert!(error["data"]["hint"].as_str().unwrap().contains("pass_sockets"), "{error}");
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
        "ports", "lease", "web", "--service", "ci", "--range", "ui", "--", "sh", "-c", "echo $PORT; read line",
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
    for (name, more) in [("a", json!({})), ("b", json!({ "range": "gpu" })), ("c", json!({ "count": 3, "contiguous": true }))] {
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

/// Connects again and again: how many were let in, how many were refused, how many met somebody else.
fn load(port: u16, stop: &Arc<AtomicBool>) -> thread::JoinHandle<(u32, u32, u32)> {
    use std::io::Read;
    let stop = stop.clone();
    thread::spawn(move || {
        let (mut served, mut refused, mut strange) = (0, 0, 0);
        while !stop.load(Ordering::Relaxed) {
            match TcpStream::connect(("127.0.0.1", port)) {
                Ok(mut line) => {
                    let mut said = String::new();
                    let _ = line.set_read_timeout(Some(Duration::from_secs(10)));
                    let _ = line.read_to_string(&mut said);
                    // A server that is ended while it answers has cut its own line: nobody else has spoken.
                    if said == "mine" { served += 1 } else if !said.is_empty() { strange += 1 }
                }
                Err(_) => refused += 1,
            }
            thread::sleep(Duration::from_millis(2));
        }
        (served, refused, strange)
    })
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
    let stop = Arc::new(AtomicBool::new(false));
    let script = listener("127.0.0.1", port, REUSEADDR, &answers("mine"));
    let mut server = Stranger::python(&script);
    let clients = load(port, &stop);
    // Programs that ask the kernel for any port, or for this one without an option, are never given it.
    let tries = Arc::new(AtomicU32::new(0));
    let (thieves_stop, counted) = (stop.clone(), tries.clone());
    let thief = thread::spawn(move || {
        while !thieves_stop.load(Ordering::Relaxed) {
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
        thread::sleep(Duration::from_millis(150));
        drop(server);
        thread::sleep(Duration::from_millis(100));
        server = Stranger::python(&script);
    }
    thread::sleep(Duration::from_millis(150));
    stop.store(true, Ordering::Relaxed);
    let (served, refused, strange) = clients.join().unwrap();
    thief.join().unwrap();
    assert_eq!(strange, 0, "somebody else has answered on the port");
    assert!(served > 20 && refused > 0, "{served} served, {refused} refused");
    drop((server, bare));
    let tries = tries.load(Ordering::Relaxed);
    figure("arbiter 10", &format!("park: 3 restarts, {served} served, {refused} refused, 0 met another; {tries} binds by chance"));
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
    let stop = Arc::new(AtomicBool::new(false));
    let clients = load(port, &stop);
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(150));
        daemon.ok("service.restart", json!({ "name": "command@fd" }));
    }
    thread::sleep(Duration::from_millis(150));
    stop.store(true, Ordering::Relaxed);
    let (served, refused, strange) = clients.join().unwrap();
    assert_eq!((refused, strange), (0, 0), "{served} were served");
    assert!(served > 5, "{served}");
    figure("arbiter 10", &format!("fd: 3 restarts, {served} served, 0 refused"));
}
