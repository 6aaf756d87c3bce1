//! A listening socket that a program outside is given open: `handoff: fd`, and `wharf ports run`.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use serde_json::{Value, json};
use wharf_tests::{Daemon, cannot, eventually, free_port, listens};

use super::{Stranger, told};

/// Python that serves its passed socket when it is told to: one line in, one line out.
const SERVER: &str = "import os,socket,sys
assert os.environ['LISTEN_PID']==str(os.getpid()) and os.environ['LISTEN_FDS']=='1', os.environ
s=socket.socket(fileno=3)
assert s.getsockname()[1]==int(os.environ['PORT'])
print('up',os.environ['PORT'],os.environ['LISTEN_FDNAMES'],flush=True)
sys.stdin.readline()
while True:
 c,_=s.accept()
 c.sendall(b'served '+c.recv(99))
 c.close()";

#[test]
fn a_program_finds_its_port_open_and_who_came_before_it_is_served() {
    let daemon = Daemon::start();
    let args = ["ports", "run", "web", "--service", "ci", "--range", "ui", "--", "python3", "-c", SERVER];
    let mut command = daemon.command();
    command.args(args).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    lines.read_line(&mut first).unwrap();
    let words: Vec<&str> = first.split_whitespace().collect();
    let port: u16 = words[1].parse().unwrap();
    assert_eq!((words[0], words[2]), ("up", "web"), "{first}");
    assert!((8060..=8079).contains(&port), "{first}");
    // Nobody accepts yet, and nobody is refused.
    let mut early: Vec<TcpStream> = (0..5).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    for (n, client) in early.iter_mut().enumerate() {
        write!(client, "{n}").unwrap();
    }
    let rows = daemon.ok("port.leases", json!({}));
    let row = &rows["leases"][0];
    assert_eq!((&row["handoff"], &row["holder_pid"]), (&json!("fd"), &json!(child.id())), "{rows}");
    let found = daemon.ok("port.whois", json!({ "port": port }));
    let holder = &found["holders"][0];
    assert_eq!((&holder["pid"], &holder["lease"]), (&json!(child.id()), &row["lease"]), "{found}");
    let held = json!({ "lease": row["lease"], "epoch": row["epoch"] });
    assert_eq!(daemon.ok("port.confirm", held)["listeners"][0]["pid"], child.id());
    let hurts = daemon.ok("port.drift", json!({ "advice": false }));
    assert_eq!(hurts["drift"], json!([]), "{hurts}");
    writeln!(child.stdin.as_mut().unwrap()).unwrap();
    for (n, client) in early.iter_mut().enumerate() {
        let mut answer = String::new();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, format!("served {n}"));
    }
    // With the program everything ends: the lease, and the daemon's copy of the socket.
    child.kill().unwrap();
    child.wait().unwrap();
    let (event, _) = told(&daemon, "port.freed", port, 0, Duration::from_secs(10));
    assert_eq!(event["why"], "its holder has ended", "{event}");
    assert_eq!(daemon.ok("port.leases", json!({}))["leases"], json!([]));
    eventually("nobody listens any more", Duration::from_secs(5), || !listens(port));
    assert!(!Path::new(row["socket"].as_str().unwrap()).exists(), "the way to the socket is left");
}

/// Python that fetches the sockets at a path, and says how many came with what.
fn fetch(socket: &str) -> String {
    format!(
        "import socket,sys\nc=socket.socket(socket.AF_UNIX)\nc.connect({socket:?})\n\
         text,fds,_,_=socket.recv_fds(c,4096,64)\nprint(len(fds),text.decode().strip(),flush=True)"
    )
}

#[test]
fn the_sockets_are_fetched_as_often_as_is_needed_and_by_the_leases_user_alone() {
    let daemon = Daemon::start();
    let ask = json!({ "port_name": "web", "service": "ci", "handoff": "fd", "count": 2, "ttl_ms": 600_000, "client_key": "k" });
    let leased = daemon.ok("port.lease", ask.clone());
    let socket = leased["socket"].as_str().unwrap().to_owned();
    let port = leased["ports"][0].as_u64().unwrap() as u16;
    assert!(listens(port), "the port does not listen before its program begins");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&socket).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    // A program that is restarted fetches them again, and who connects meanwhile waits.
    for _ in 0..3 {
        let got = std::process::Command::new("python3").args(["-c", &fetch(&socket)]).output().unwrap();
        let text = String::from_utf8(got.stdout).unwrap();
        let (count, words) = text.split_once(' ').unwrap();
        let words: Value = serde_json::from_str(words).unwrap();
        assert_eq!(count, "2");
        assert_eq!((&words["ports"], &words["lease"]), (&leased["ports"], &leased["lease"]), "{words}");
        assert!(listens(port));
    }
    assert_eq!(daemon.ok("port.lease", ask)["socket"], json!(socket), "the same request is the same lease");
    let would = json!({ "port_name": "x", "handoff": "fd", "ttl_ms": 1000, "dry_run": true });
    assert_eq!(daemon.ok("port.lease", would)["socket"], json!(null));
    for (more, word) in [(json!({ "protocol": "udp" }), "TCP"), (json!({ "network": "cluster" }), "own network")] {
        let mut odd = json!({ "port_name": "x", "handoff": "fd", "ttl_ms": 1000 });
        odd.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let error = daemon.err("port.lease", odd);
        assert!(error["code"] == -32602 && error["message"].as_str().unwrap().contains(word), "{error}");
    }
    // Another user is given nothing, were the folder ever so open.
    if nix::unistd::geteuid().is_root() {
        let open = |path: &Path, mode| {
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        };
        let path = Path::new(&socket);
        for (path, mode) in [(path, 0o666), (path.parent().unwrap(), 0o755), (&daemon.home.join("run"), 0o755)] {
            open(path, mode);
        }
        let script = format!("import os,socket\nos.setuid(65534)\n{}", fetch(&socket));
        let got = std::process::Command::new("python3").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&got.stdout).trim(), "0", "{got:?}");
        open(&daemon.home.join("run"), 0o700);
    } else {
        cannot("SCM_RIGHTS", "another user's request needs root");
    }
    daemon.ok("port.release", json!({ "lease": leased["lease"] }));
    assert!(UnixStream::connect(&socket).is_err() && !listens(port));
}

#[test]
fn a_handed_port_outlives_the_daemon_in_its_programs_hands() {
    let mut daemon = Daemon::start();
    let port = free_port();
    let args = ["ports", "run", "web", "--port", &port.to_string(), "--", "python3", "-c", SERVER];
    let mut server = Stranger::begin(daemon.command().args(args));
    writeln!(server.stdin.as_mut().unwrap()).unwrap();
    let ask = || -> std::io::Result<String> {
        let mut client = TcpStream::connect(("127.0.0.1", port))?;
        client.write_all(b"x")?;
        let mut answer = String::new();
        client.read_to_string(&mut answer)?;
        Ok(answer)
    };
    assert_eq!(ask().unwrap(), "served x");
    daemon.kill_9();
    assert_eq!(ask().unwrap(), "served x", "without a daemon");
    daemon.launch();
    assert_eq!(ask().unwrap(), "served x");
    let rows = daemon.ok("port.leases", json!({}));
    assert_eq!((&rows["leases"][0]["holder_pid"], &rows["leases"][0]["socket"]), (&json!(server.pid()), &json!(null)));
    drop(server);
    eventually("its end is seen by the next daemon", Duration::from_secs(10), || {
        daemon.ok("port.leases", json!({}))["leases"] == json!([])
    });
    // A port that somebody has is not handed out, and nothing is left of the try.
    let _taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let said = daemon.cli(&["ports", "run", "web", "--port", &port.to_string(), "--", "true"]);
    assert_eq!(said.code, 4, "{said:?}");
    assert_eq!(daemon.ok("port.leases", json!({}))["leases"], json!([]));
}

#[test]
fn a_socket_that_nobody_has_fetched_yet_is_kept_open_by_the_next_daemon() {
    let mut daemon = Daemon::start();
    let leased = daemon.ok("port.lease", json!({ "port_name": "web", "handoff": "fd", "ttl_ms": 600_000 }));
    let port = leased["ports"][0].as_u64().unwrap() as u16;
    let is_open = |daemon: &Daemon| {
        let row = daemon.ok("port.leases", json!({}))["leases"][0].clone();
        let Some(socket) = row["socket"].as_str() else { return false };
        let got = std::process::Command::new("python3").args(["-c", &fetch(socket)]).output().unwrap();
        got.stdout.starts_with(b"1 ") && listens(port)
    };
    assert!(is_open(&daemon));
    daemon.kill_9();
    daemon.launch();
    assert!(is_open(&daemon), "after kill -9");
    let pid = daemon.pid();
    let mut next = daemon.command();
    let log = std::fs::OpenOptions::new().append(true).open(daemon.home.join("daemon.log")).unwrap();
    next.args(["daemon", "--replace"]).stdout(std::process::Stdio::null()).stderr(log);
    let mut next = next.spawn().unwrap();
    eventually("the old daemon has ended", Duration::from_secs(30), || !wharf_tests::alive(pid));
    eventually("the next daemon keeps it open", Duration::from_secs(10), || is_open(&daemon));
    assert_eq!(daemon.ok("rpc.health", json!({}))["pid"], next.id());
    let hurts = daemon.ok("port.watch", json!({ "since": 0 }));
    assert!(!hurts.to_string().contains("port.intruder"), "the old daemon was taken for a stranger: {hurts}");
    daemon.cli_ok(&["down"]);
    next.wait().unwrap();
}
