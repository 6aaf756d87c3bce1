//! Ports: who has which, leases of programs outside, strangers told within a second, left-overs ended.

mod handed;
mod leases;
mod left_over;
mod register;
mod strangers;
mod table;
mod watching;
mod whois;

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::{Child, ChildStdin, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use wharf_tests::{Daemon, beside};

/// Python that listens: `how` are its socket options, `more` what it does besides.
fn listener(address: &str, port: u16, how: &str, more: &str) -> String {
    format!(
        "import socket,time,sys,os\ns=socket.socket(socket.AF_INET6 if ':' in '{address}' else socket.AF_INET)\n\
         O=socket.SOL_SOCKET\n{how}\ns.bind(('{address}',{port}))\ns.listen()\nprint('up',flush=True)\n{more}\n\
         time.sleep(1000)"
    )
}

const REUSEPORT: &str = "s.setsockopt(O,socket.SO_REUSEPORT,1)";
const REUSEADDR: &str = "s.setsockopt(O,socket.SO_REUSEADDR,1)";
/// Says what is sent to it, for as long as somebody sends.
const ECHO: &str = "import threading\ndef talk(c):\n while True:\n  d=c.recv(99)\n  if not d: return\n  c.sendall(d)\n\
                    while True:\n c,_=s.accept()\n threading.Thread(target=talk,args=(c,)).start()";

/// A program of nobody's. It ends with the value.
struct Stranger {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
    stdin: Option<ChildStdin>,
}

impl Stranger {
    /// Begins, and waits for its first line.
    #[track_caller]
    fn begin(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().unwrap());
        let mut stranger = Self { child, lines: BufReader::new(stdout), stdin };
        assert_ne!(stranger.line(), "", "it ended before its first line");
        stranger
    }

    fn python(script: &str) -> Self {
        Self::begin(Command::new("python3").args(["-c", script]))
    }

    /// A server of the user nobody. Needs root.
    fn of_nobody(port: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("talker");
        fs::copy(beside("wharf-talker"), &program).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new(program);
        command.current_dir("/").uid(65_534).args([&format!("serve:{port}:200:x"), "log:up", "wait"]);
        Self::begin(&mut command)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A unit that listens.
fn unit(daemon: &Daemon, name: &str, port: u16, script: &str) -> Value {
    let with = json!({
        "argv": ["python3", "-c", script], "ports": { "main": port }, "health": { "tcp": { "port": "main" } },
    });
    daemon.run(name, with)
}

/// Waits for an event of this kind about this port: it, and how long it took.
#[track_caller]
fn told(daemon: &Daemon, kind: &str, port: u16, since: u64, limit: Duration) -> (Value, Duration) {
    let began = Instant::now();
    let mut next = since;
    loop {
        let left = limit.saturating_sub(began.elapsed()).as_millis() as u64;
        let params = json!({ "since": next, "kinds": [kind], "wait_ms": left });
        let report = daemon.ok("event.watch", params);
        next = report["next"].as_u64().unwrap();
        for event in report["events"].as_array().unwrap() {
            let is_it =
                event["port"] == port || event["ports"].as_array().is_some_and(|all| all.contains(&json!(port)));
            if event["kind"] == kind && is_it {
                return (event.clone(), began.elapsed());
            }
        }
        assert!(began.elapsed() < limit, "no {kind} for {port} within {limit:?}\n{}", daemon.log());
    }
}

/// The number of the newest event.
fn newest(daemon: &Daemon) -> u64 {
    daemon.ok("event.watch", json!({}))["next"].as_u64().unwrap()
}

/// The kinds of drift of a port.
fn drift(daemon: &Daemon, port: u16) -> Vec<String> {
    let report = daemon.ok("port.drift", json!({}));
    let rows = report["drift"].as_array().unwrap().iter();
    rows.filter(|row| row["port"] == port).map(|row| row["kind"].as_str().unwrap().to_owned()).collect()
}
