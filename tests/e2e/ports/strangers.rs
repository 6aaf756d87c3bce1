//! Strangers on ports: second listeners, intruders, open doors, and left-overs that are ended.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;
use wharf_tests::{Daemon, alive, eventually, figure, free_port, listens};

use super::{ECHO, REUSEADDR, REUSEPORT, Stranger, drift, listener, newest, told, unit};

/// A told thing is told within a second; reading it takes a moment more.
const SECOND: Duration = Duration::from_millis(1_000);

/// A second; more where this machine is so busy that looking at the ports takes long: who listens is asked every 0.9 s,
/// and what is new is looked at twice.
fn a_second_here(daemon: &Daemon) -> Duration {
    let look = || {
        let began = Instant::now();
        daemon.ok("port.drift", json!({}));
        began.elapsed()
    };
    let longest = (0..3).map(|_| look()).max().unwrap();
    SECOND.max(Duration::from_millis(900) + 5 * longest)
}

#[test]
fn t55_a_second_listener_is_told_within_a_second() {
    let daemon = Daemon::start();
    let port = free_port();
    unit(&daemon, "llm", port, &listener("127.0.0.1", port, REUSEPORT, ""));
    // Nothing is wrong, and nothing is told.
    thread::sleep(Duration::from_millis(1_200));
    let quiet = daemon.ok("event.watch", json!({ "since": 0, "kinds": ["port.duplicate", "port.intruder"] }));
    assert_eq!(quiet["events"], json!([]), "{quiet}");
    let mut worst = Duration::ZERO;
    for address in ["127.0.0.1", "0.0.0.0", "127.0.0.1"] {
        let since = newest(&daemon);
        let began = Instant::now();
        let second = Stranger::python(&listener(address, port, REUSEPORT, ""));
        let up = Instant::now();
        let (event, _) = told(&daemon, "port.duplicate", port, since, Duration::from_secs(5));
        // From the moment when it said that it listens; it began to a little before.
        let took = up.elapsed();
        worst = worst.max(took);
        let limit = a_second_here(&daemon);
        assert!(took < limit, "told after {took:?}, not {limit:?} ({:?} after its start)", began.elapsed());
        assert_eq!((&event["unit"], &event["port"]), (&json!("command@llm"), &json!(port)), "{event}");
        let text = event["text"].as_str().unwrap();
        assert!(text.contains(&format!("pid {}", second.pid())) && text.contains("unit command@llm"), "{text}");
        assert_eq!(drift(&daemon, port), ["duplicate", "ephemeral_overlap"]);
        drop(second);
        eventually("the end of the second is seen", Duration::from_secs(3), || drift(&daemon, port).len() == 1);
        // Seen by the watch, too: the next one is news again.
        thread::sleep(a_second_here(&daemon));
    }
    figure("T55", &format!("a second listener is told after {worst:.0?} (worst of 3)"));
}

/// How often the daemon's threads have waited and were woken.
fn wakes(pid: i32) -> BTreeMap<OsString, u64> {
    let count = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("status")).ok()?;
        let line = text.lines().find(|line| line.starts_with("voluntary_ctxt_switches"))?;
        Some((task.file_name(), line.split_whitespace().nth(1)?.parse().ok()?))
    };
    fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().filter_map(count).collect()
}

#[test]
fn p16_the_watch_wakes_once_a_second_and_never_without_ports() {
    let daemon = Daemon::start();
    let span = Duration::from_secs(5);
    let woken = || {
        // What the last call has set going comes to rest.
        thread::sleep(Duration::from_millis(1_500));
        let before = wakes(daemon.pid());
        thread::sleep(span);
        // A thread that has ended wakes no more.
        let after = wakes(daemon.pid());
        after.iter().map(|(task, count)| count - before.get(task).unwrap_or(&0)).sum::<u64>()
    };
    let idle = woken();
    let leased = daemon.ok("port.lease", json!({ "port_name": "x", "ttl_ms": 600_000 }));
    let watching = woken();
    daemon.ok("port.release", json!({ "lease": leased["lease"] }));
    let again = woken();
    figure(
        "P16",
        &format!("ports: in {span:?} the daemon wakes {watching} times with a leased port, {idle} and {again} without"),
    );
    assert!(idle <= 2 && again <= 2, "{idle} and {again} wake-ups without a port to watch");
    // Once in 900 ms, and what a thread of the runtime adds now and then.
    assert!(watching <= 8, "{watching} wake-ups in {span:?}");
}

#[test]
fn arbiter_9_the_second_server_of_a_port_is_refused_before_it_starts() {
    let daemon = Daemon::start();
    let port = free_port();
    let mark = daemon.home.join("second");
    unit(&daemon, "one", port, &listener("127.0.0.1", port, REUSEPORT, ""));
    let script = format!("open('{}','w')\n{}", mark.display(), listener("127.0.0.1", port, REUSEPORT, ""));
    let with = json!({ "argv": ["python3", "-c", script], "ports": { "main": port }, "health": "none" });
    let error = daemon.err("service.start", json!({ "name": "command@two", "with": with }));
    assert_eq!(error["code"], -32003, "{error}");
    assert!(error["message"].as_str().unwrap().contains("command@one"), "{error}");
    assert!(!mark.exists(), "the second server was started");
    // A program outside is not given it either.
    let error = daemon.err("port.lease", json!({ "port_name": "x", "port": port }));
    assert_eq!(error["code"], -32030, "{error}");
    assert!(error["message"].as_str().unwrap().contains("command@one"), "{error}");
    // A stopped unit keeps its number.
    daemon.ok("service.stop", json!({ "name": "command@one" }));
    let error = daemon.err("port.lease", json!({ "port_name": "x", "port": port }));
    assert_eq!(error["data"]["kind"], "port_conflict", "{error}");
    assert!(error["message"].as_str().unwrap().contains("the unit command@"), "{error}");
}

#[test]
fn an_intruder_on_a_leased_port_is_named_and_not_confirmed() {
    let daemon = Daemon::start();
    let mut holder = Stranger::python("import sys\nprint('up',flush=True)\nsys.stdin.readline()");
    let leased = daemon.ok("port.lease", json!({ "port_name": "api", "service": "ci", "holder_pid": holder.pid() }));
    let port = leased["ports"][0].as_u64().unwrap() as u16;
    let held = json!({ "lease": leased["lease"], "epoch": leased["epoch"], "timeout_ms": 100 });
    let error = daemon.err("port.confirm", held.clone());
    assert_eq!(error["data"]["kind"], "timeout", "{error}");
    let since = newest(&daemon);
    // With SO_REUSEADDR a stranger can listen beside the socket that keeps the port: then it is named.
    let intruder = Stranger::python(&listener("127.0.0.1", port, REUSEADDR, ""));
    let (event, took) = told(&daemon, "port.intruder", port, since, Duration::from_secs(5));
    let limit = a_second_here(&daemon);
    assert!(took < limit, "{took:?}, not {limit:?}");
    assert_eq!(event["lease"], leased["lease"], "{event}");
    let error = daemon.err("port.confirm", held.clone());
    assert_eq!((&error["code"], &error["data"]["kind"]), (&json!(-32033), &json!("intruder")), "{error}");
    assert_eq!(error["data"]["detail"]["holders"][0]["pid"], intruder.pid(), "{error}");
    assert_eq!(drift(&daemon, port), ["intruder"]);
    drop(intruder);
    // What the holder itself starts is the right one.
    let script = listener("127.0.0.1", port, REUSEADDR, "");
    holder = Stranger::begin(Command::new("sh").args(["-c", "echo up; exec \"$@\"", "sh", "python3", "-c", &script]));
    let again = json!({ "port_name": "api", "service": "ci", "holder_pid": holder.pid() });
    eventually("the first holder's end has freed it", Duration::from_secs(5), || {
        daemon.ok("port.leases", json!({}))["leases"] == json!([])
    });
    assert_eq!(holder.line(), "up");
    let error = daemon.err("port.lease", json!({ "port_name": "api", "service": "ci", "port": port }));
    assert_eq!(error["code"], -32030, "{error}");
    let leased = daemon.ok("port.lease", again);
    assert_ne!(leased["ports"][0], port, "a sticky number that somebody has is not handed out");
}

#[test]
fn c22_what_was_promised_to_this_machine_alone_is_told_when_it_is_open() {
    let daemon = Daemon::start();
    let (closed, open, meant) = (free_port(), free_port(), free_port());
    fs::create_dir_all(daemon.home.join("config")).unwrap();
    fs::write(daemon.home.join("config/ports.toml"), "[units.\"command@meant\"]\nbind = \"any\"\n").unwrap();
    for (name, address, port) in [("closed", "127.0.0.1", closed), ("open", "0.0.0.0", open), ("meant", "::", meant)] {
        unit(&daemon, name, port, &listener(address, port, "", ""));
    }
    let (event, _) = told(&daemon, "port.open", open, 0, Duration::from_secs(5));
    assert_eq!(event["unit"], "command@open", "{event}");
    assert_eq!(drift(&daemon, open), ["open", "ephemeral_overlap"]);
    for port in [closed, meant] {
        assert_eq!(drift(&daemon, port), ["ephemeral_overlap"]);
    }
    let said = daemon.cli(&["ports", "drift"]);
    assert_eq!(said.code, 8, "{said:?}");
    assert!(said.out.contains(&format!("command@open listens on 0.0.0.0:{open}")), "{}", said.out);
}

#[test]
fn t8_a_left_over_is_ended_and_the_clients_of_its_port_live() {
    let daemon = Daemon::start();
    // A shell takes a port, starts a server on it, and dies without it.
    let mut holder = Stranger::begin(Command::new("sh").args(["-c", "echo up; read port; python3 -c \"$0\" $port & wait", &format!(
        "import sys\nport=int(sys.argv[1])\nimport socket,time\ns=socket.socket()\nO=socket.SOL_SOCKET\n{REUSEADDR}\n\
         s.bind(('127.0.0.1',port))\ns.listen()\nprint('up',flush=True)\n{ECHO}"
    )]));
    let leased = daemon.ok("port.lease", json!({ "port_name": "echo", "holder_pid": holder.pid() }));
    let port = leased["ports"][0].as_u64().unwrap() as u16;
    writeln!(holder.stdin.as_mut().unwrap(), "{port}").unwrap();
    assert_eq!(holder.line(), "up");
    let held = json!({ "lease": leased["lease"], "epoch": leased["epoch"] });
    let confirmed = daemon.ok("port.confirm", held);
    let server = confirmed["listeners"][0]["pid"].as_i64().unwrap() as i32;
    assert_ne!(server, holder.pid(), "the holder's child listens");
    // While the lease lives, nobody is a left-over.
    let error = daemon.err("port.evict", json!({ "port": port }));
    assert_eq!(error["code"], -32034, "{error}");

    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut other = Stranger::python(&format!(
        "import socket,sys\nc=socket.create_connection(('127.0.0.1',{port}))\nprint('up',flush=True)\n\
         sys.stdin.readline()\nprint('lives',flush=True)"
    ));
    client.write_all(b"hello").unwrap();
    client.read_exact(&mut [0; 5]).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(holder.pid()), nix::sys::signal::Signal::SIGKILL).unwrap();
    let (event, _) = told(&daemon, "port.freed", port, 0, Duration::from_secs(5));
    assert_eq!(event["why"], "its holder has ended", "{event}");
    assert!(alive(server) && listens(port), "the left-over listens on");

    // C12: a unit that wants the port is told that a left-over of ours has it, and how to end that.
    let with = json!({ "argv": ["sleep", "9"], "ports": { "main": port }, "health": "none" });
    let error = daemon.err("service.start", json!({ "name": "command@next", "with": with }));
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(&format!("pid {server}")), "{error}");
    let hint = error["data"]["hint"].as_str().unwrap();
    assert!(hint.contains("left-over of ours") && hint.contains(&format!("wharf ports evict {port}")), "{error}");

    let would = daemon.ok("port.evict", json!({ "port": port, "dry_run": true }));
    assert_eq!((&would["evicted"][0]["pid"], &would["evicted"][0]["how"]), (&json!(server), &json!(null)), "{would}");
    assert!(alive(server), "a dry run has ended it");
    let error = daemon.err("port.evict", json!({ "port": port, "pid": server, "identity": "1" }));
    assert_eq!(error["code"], -32034, "another process of that number is none: {error}");
    let said = daemon.cli_ok(&["ports", "evict", &port.to_string()]);
    assert!(said.out.contains(&format!("port {port} is free")), "{}", said.out);
    assert!(!alive(server) && !listens(port));
    // The clients were not touched: they see the end of their connection, and live.
    writeln!(other.stdin.as_mut().unwrap()).unwrap();
    assert_eq!(other.line(), "lives");
    assert_eq!(client.read(&mut [0; 5]).unwrap_or(0), 0);
}

#[test]
fn t8_nobody_else_is_ended() {
    let daemon = Daemon::start();
    let port = free_port();
    let refused = |port: u16, word: &str| {
        let error = daemon.err("port.evict", json!({ "port": port }));
        assert_eq!(error["code"], -32034, "{error}");
        assert!(error["message"].as_str().unwrap().contains(word), "{word}: {error}");
    };
    refused(port, "nobody listens");
    let stranger = Stranger::python(&listener("127.0.0.1", port, "", ""));
    refused(port, "none that Wharf has started or leased to");
    assert!(alive(stranger.pid()));
    let own = free_port();
    unit(&daemon, "own", own, &listener("127.0.0.1", own, "", ""));
    refused(own, "unit command@own");
    // A container engine's, by its name.
    let folder = tempfile::tempdir().unwrap();
    let engine = folder.path().join("docker-proxy");
    fs::copy(wharf_tests::beside("wharf-talker"), &engine).unwrap();
    let port = free_port();
    let proxy = Stranger::begin(Command::new(&engine).args([&format!("serve:{port}:200:x"), "log:up", "wait"]));
    refused(port, "for a container");
    assert!(alive(proxy.pid()) && alive(stranger.pid()) && listens(own));
    // A user's process is no other user's to end, lease or no lease.
    if !nix::unistd::geteuid().is_root() {
        wharf_tests::cannot("T8", "another user's process needs root");
        return;
    }
    let port = free_port();
    let theirs = Stranger::of_nobody(port);
    refused(port, "none that Wharf has started");
    assert!(alive(theirs.pid()));
}
