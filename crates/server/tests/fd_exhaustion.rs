//! T37: no file descriptors left. The server runs in a child process of its own, under a low limit.

mod support;

use std::io::BufRead;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::Client;

const PING: &[u8] = br#"{"jsonrpc":"2.0","method":"ping","id":1}"#;

struct Served {
    child: Child,
    path: std::path::PathBuf,
}

impl Served {
    fn new() -> Self {
        // target/debug/deps/fd_exhaustion-…: examples lie beside deps.
        let me = std::env::current_exe().unwrap();
        let examples = me.parent().and_then(std::path::Path::parent).unwrap().join("examples");
        let mut child =
            Command::new(examples.join("few_files")).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        let path = lines.map(Result::unwrap).find_map(|line| Some(line.strip_prefix("at ")?.into())).unwrap();
        Self { child, path }
    }

    /// CPU time used so far, of both kinds.
    fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = fields[11..=12].iter().map(|t| t.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[test]
fn t37_an_admin_gets_in_when_files_have_run_out_and_nothing_spins() {
    let served = Served::new();
    let crowd: Vec<_> = (0..200).map(|_| Client::new(&served.path)).collect();
    for _ in 0..20 {
        let begun = Instant::now();
        assert_eq!(Client::new(&served.path).rpc(PING).json()["result"], "pong");
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    }
    let before = served.cpu();
    std::thread::sleep(Duration::from_secs(2));
    let used = served.cpu() - before;
    assert!(used < Duration::from_millis(100), "{used:?} of CPU time in 2 s");
    drop(crowd);
}

#[test]
fn t37_with_every_connection_busy_nothing_spins_and_a_place_is_used_when_it_is_free() {
    let served = Served::new();
    let body = r#"{"jsonrpc":"2.0","method":"wait","id":1}"#;
    let head = "POST /rpc HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
    let start = |_| {
        let mut client = Client::new(&served.path);
        client.send(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
        client
    };
    let crowd: Vec<_> = (0..60).map(start).collect();
    std::thread::sleep(Duration::from_millis(500));
    let before = served.cpu();
    std::thread::sleep(Duration::from_secs(2));
    let used = served.cpu() - before;
    assert!(used < Duration::from_millis(100), "{used:?} of CPU time in 2 s");
    drop(crowd);
    for _ in 0..20 {
        assert_eq!(Client::new(&served.path).rpc(PING).json()["result"], "pong");
    }
}
