//! What it costs the daemon to ask a thousand units how they are, every five seconds.
//!
//! `cargo build --release -p wharf && WHARF_BIN=target/release/wharf cargo run -p wharf-tests --example probe_cost`
//! Arguments: how many units, for how many seconds.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use wharf_tests::Daemon;

fn main() {
    let mut args = std::env::args().skip(1).map(|a| a.parse::<u64>().expect("a number"));
    let (units, seconds) = (args.next().unwrap_or(1_000), args.next().unwrap_or(30));
    let (port, asked) = server();
    let questions = [
        ("nothing", json!("none")),
        ("tcp", json!({ "tcp": { "port": port } })),
        ("http", json!({ "http": { "port": port, "path": "/health" } })),
        ("http, JSON body", json!({ "http": { "port": port, "path": "/health", "json": { "/status": "healthy" } } })),
    ];
    println!("{units} units asked every 5 s, for {seconds} s each:");
    for (name, question) in questions {
        let daemon = Daemon::start();
        start(&daemon, units, &question);
        std::thread::sleep(Duration::from_secs(6));
        let (before, questions) = (cpu_ms(daemon.pid()), asked.load(Ordering::Relaxed));
        let began = Instant::now();
        std::thread::sleep(Duration::from_secs(seconds));
        let wall_ms = began.elapsed().as_millis() as f64;
        let used = cpu_ms(daemon.pid()) - before;
        let asked = asked.load(Ordering::Relaxed) - questions;
        let each = if asked == 0 { 0.0 } else { used * 1000.0 / asked as f64 };
        println!("  {name:<16} {:5.2} % of a core, {asked} probes, {each:.0} us each", used * 100.0 / wall_ms);
    }
}

fn start(daemon: &Daemon, units: u64, question: &Value) {
    let policy = json!({ "probe_early_ms": 5_000, "probe_steady_ms": 5_000 });
    for n in 0..units {
        let with = json!({ "argv": ["sleep", "1000"], "health": question });
        let mut params = json!({ "name": format!("command@u{n}"), "with": with, "wait": false });
        if question != "none" {
            params["policy"] = policy.clone();
        }
        daemon.ok("service.start", params);
    }
    let until = Instant::now() + Duration::from_secs(300);
    loop {
        let rows = daemon.ok("service.list", json!({}));
        let rows = rows["services"].as_array().or_else(|| rows.as_array()).cloned().unwrap_or_default();
        if rows.iter().filter(|row| row["status"] == "running").count() as u64 >= units {
            return;
        }
        assert!(Instant::now() < until, "not all of them run");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Answers every request on one port, and counts connections.
fn server() -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(AtomicU64::new(0));
    let count = asked.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            count.fetch_add(1, Ordering::Relaxed);
            let _ = stream.read(&mut [0; 2048]);
            let body = "{\"status\":\"healthy\"}";
            let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
    });
    (port, asked)
}

/// User and system time of a process, in milliseconds.
fn cpu_ms(pid: i32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks * 10.0
}
