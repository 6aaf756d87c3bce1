//! The figures, each beside its floor, in one run. Never a test: machines are shared and noisy.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::ground::{cargo, root, step};

const CALLS: usize = 40_000;

/// One line of the table.
struct Line {
    what: &'static str,
    seen: String,
    beside: String,
    goal: &'static str,
    met: bool,
}

/// `cargo xtask bench`, `cargo xtask bench arbiter`.
pub fn run(args: &[String]) -> Result<(), String> {
    if args.first().is_some_and(|what| what == "arbiter") {
        return crate::bench_arbiter::run(&args[1..]);
    }
    step("release build", &mut cargo(&["build", "--release", "--locked", "--package", "wharf"]))?;
    let bench = Bench::start()?;
    let mut lines = bench.round_trip()?;
    lines.push(bench.throughput()?);
    lines.push(bench.whole_process()?);
    lines.push(bench.start_to_ready()?);
    lines.extend(bench.memory()?);
    println!("\n{:<44} {:>16}  {:<34} {:<22} met", "what", "seen", "beside", "goal");
    for Line { what, seen, beside, goal, met } in &lines {
        println!("{what:<44} {seen:>16}  {beside:<34} {goal:<22} {}", if *met { "yes" } else { "NO" });
    }
    Ok(())
}

struct Bench {
    home: PathBuf,
    binary: PathBuf,
    daemon: Child,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.command(&["down"]).output();
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        let _ = fs::remove_dir_all(&self.home);
    }
}

impl Bench {
    fn start() -> Result<Self, String> {
        let home = std::env::temp_dir().join(format!("wharf-bench-{}", std::process::id()));
        fs::create_dir_all(&home).map_err(|e| e.to_string())?;
        let binary = root().join("target/release/wharf");
        let daemon = Command::new(&binary)
            .arg("daemon")
            .arg("--echo-socket")
            .arg(home.join("echo.sock"))
            .env("WHARF_HOME", &home)
            .env("WHARF_LOG", "warn")
            .stdin(Stdio::null())
            .spawn()
            .map_err(|e| e.to_string())?;
        let bench = Self { home, binary, daemon };
        let until = Instant::now() + Duration::from_secs(20);
        while UnixStream::connect(bench.socket()).is_err() || UnixStream::connect(bench.home.join("echo.sock")).is_err()
        {
            if Instant::now() > until {
                return Err("the daemon does not answer".into());
            }
            thread::sleep(Duration::from_millis(10));
        }
        bench.call("service.start", json!({ "name": "hello", "with": { "ports": { "http": "auto" } } }))?;
        for n in 0..9 {
            let with = json!({ "argv": ["sleep", "1000000"] });
            bench.call("service.start", json!({ "name": format!("command@sleep{n}"), "with": with }))?;
        }
        Ok(bench)
    }

    fn socket(&self) -> PathBuf {
        self.home.join("run/service.sock")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(args).env("WHARF_HOME", &self.home).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn call(&self, method: &str, params: Value) -> Result<Value, String> {
        let mut wire = Wire::connect(&self.socket())?;
        let body = wire.call(&request(method, &params))?;
        let answer: Value = serde_json::from_slice(body).map_err(|e| e.to_string())?;
        match answer.get("error") {
            Some(error) => Err(format!("{method}: {error}")),
            None => Ok(answer["result"].clone()),
        }
    }

    /// `service.status` on a kept connection beside a byte that comes back, turn about.
    fn round_trip(&self) -> Result<Vec<Line>, String> {
        let bytes = request("service.status", &json!({ "name": "hello" }));
        let mut wire = Wire::connect(&self.socket())?;
        let mut raw = UnixStream::connect(self.home.join("echo.sock")).map_err(|e| e.to_string())?;
        let (mut echoes, mut calls) = (vec![], vec![]);
        // One of each in turn: what the scheduler does to one it does to the other.
        for _ in 0..CALLS {
            let began = Instant::now();
            raw.write_all(b"x").and_then(|()| raw.read_exact(&mut [0])).map_err(|e| e.to_string())?;
            echoes.push(began.elapsed());
            let began = Instant::now();
            wire.call(&bytes)?;
            calls.push(began.elapsed());
        }
        let (echoes, calls) = (sorted(echoes), sorted(calls));
        let line = |what, p, times: f64, goal| {
            let (call, echo) = (micros(&calls, p), micros(&echoes, p));
            let beside = format!("raw echo {echo:.1} µs: {:.2} times", call / echo);
            Line { what, seen: format!("{call:.1} µs"), beside, goal, met: call <= times * echo }
        };
        Ok(vec![
            line("service.status, kept connection, p50", 0.50, 3.0, "3 times the echo"),
            line("service.status, kept connection, p99", 0.99, 10.0, "10 times the echo"),
        ])
    }

    /// 64 connections, each with one call under way.
    fn throughput(&self) -> Result<Line, String> {
        let bytes = request("service.status", &json!({ "name": "hello" }));
        let limit = Duration::from_secs(3);
        let half = |socket: PathBuf, bytes: Vec<u8>| {
            thread::spawn(move || -> Result<u64, String> {
                let mut wires = (0..32).map(|_| Wire::connect(&socket)).collect::<Result<Vec<_>, _>>()?;
                let (began, mut count) = (Instant::now(), 0);
                while began.elapsed() < limit {
                    for wire in &mut wires {
                        wire.send(&bytes)?;
                    }
                    for wire in &mut wires {
                        wire.receive()?;
                        count += 1;
                    }
                }
                Ok(count)
            })
        };
        let halves = [half(self.socket(), bytes.clone()), half(self.socket(), bytes)];
        let mut calls = 0;
        for half in halves {
            calls += half.join().map_err(|_| "a load thread ended")??;
        }
        let rate = calls as f64 / limit.as_secs_f64();
        Ok(Line {
            what: "requests a second, 64 connections",
            seen: format!("{rate:.0}"),
            beside: "load made on the same two cores".into(),
            goal: "40,000 or more",
            met: rate >= 40_000.0,
        })
    }

    fn whole_process(&self) -> Result<Line, String> {
        let time = |make: &dyn Fn() -> Command| -> Result<Duration, String> {
            let began = Instant::now();
            let status = make().status().map_err(|e| e.to_string())?;
            if status.success() { Ok(began.elapsed()) } else { Err("wharf status hello failed".into()) }
        };
        let (mut ours, mut floor) = (vec![], vec![]);
        for _ in 0..200 {
            ours.push(time(&|| self.command(&["status", "hello"]))?);
            floor.push(time(&|| Command::new("/bin/true"))?);
        }
        let (ours, floor) = (micros(&sorted(ours), 0.5) / 1000.0, micros(&sorted(floor), 0.5) / 1000.0);
        Ok(Line {
            what: "wharf status hello, whole process, p50",
            seen: format!("{ours:.2} ms"),
            beside: format!("/bin/true {floor:.2} ms"),
            goal: "3 ms",
            met: ours <= 3.0,
        })
    }

    fn start_to_ready(&self) -> Result<Line, String> {
        let mut times = vec![];
        for _ in 0..20 {
            self.call("service.stop", json!({ "name": "hello" }))?;
            let began = Instant::now();
            self.call("service.start", json!({ "name": "hello" }))?;
            times.push(began.elapsed());
        }
        let times = sorted(times);
        let p50 = micros(&times, 0.5) / 1000.0;
        Ok(Line {
            what: "hello, start request to ready, p50",
            seen: format!("{p50:.1} ms"),
            beside: format!("slowest of 20: {:.1} ms", micros(&times, 1.0) / 1000.0),
            goal: "50 ms",
            met: p50 <= 50.0,
        })
    }

    fn memory(&self) -> Result<Vec<Line>, String> {
        thread::sleep(Duration::from_secs(1));
        let rss = field(&format!("/proc/{}/status", self.daemon.id()), "VmRSS:")?;
        let mut shims = vec![];
        for entry in fs::read_dir("/proc").map_err(|e| e.to_string())?.flatten() {
            let exe = fs::read_link(entry.path().join("exe")).unwrap_or_default();
            if exe.starts_with(&self.home) && exe.to_string_lossy().contains("shim") {
                shims.push(field(&entry.path().join("smaps_rollup").display().to_string(), "Pss:")?);
            }
        }
        let worst = shims.iter().copied().max().ok_or("no shim was found")?;
        Ok(vec![
            Line {
                what: "daemon RSS with 10 services",
                seen: format!("{:.1} MiB", rss as f64 / 1024.0),
                beside: String::new(),
                goal: "under 25 MiB",
                met: rss < 25 * 1024,
            },
            Line {
                what: "shim PSS, the largest",
                seen: format!("{worst} KiB"),
                beside: format!("of {} shims", shims.len()),
                goal: "under 150 KiB",
                met: worst < 150,
            },
        ])
    }
}

fn field(path: &str, name: &str) -> Result<u64, String> {
    let text = fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
    let line = text.lines().find_map(|l| l.strip_prefix(name)).ok_or_else(|| format!("{path} has no {name}"))?;
    line.split_whitespace().next().and_then(|n| n.parse().ok()).ok_or_else(|| format!("{path}: {line}"))
}

fn sorted(mut times: Vec<Duration>) -> Vec<Duration> {
    times.sort();
    times
}

fn micros(sorted: &[Duration], p: f64) -> f64 {
    let at = ((sorted.len() as f64 * p) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or(f64::NAN, |d| d.as_secs_f64() * 1e6)
}

fn request(method: &str, params: &Value) -> Vec<u8> {
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
    let head = "POST /rpc HTTP/1.1\r\nHost: wharf\r\nContent-Type: application/json";
    format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// HTTP/1.1 by hand on a kept connection: what a client costs is not what is measured.
struct Wire {
    stream: UnixStream,
    buffer: Vec<u8>,
    answer: std::ops::Range<usize>,
}

impl Wire {
    fn connect(socket: &Path) -> Result<Self, String> {
        let stream = UnixStream::connect(socket).map_err(|e| e.to_string())?;
        Ok(Self { stream, buffer: vec![0; 64 << 10], answer: 0..0 })
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.stream.write_all(bytes).map_err(|e| e.to_string())
    }

    fn receive(&mut self) -> Result<&[u8], String> {
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]).map_err(|e| e.to_string())?;
            if read == 0 {
                return Err("the daemon closed the connection".into());
            }
            filled += read;
            let Some(head) = find(&self.buffer[..filled], b"\r\n\r\n") else { continue };
            let text = std::str::from_utf8(&self.buffer[..head]).map_err(|e| e.to_string())?;
            let length = text
                .lines()
                .find_map(|l| l.split_once(':').filter(|(n, _)| n.eq_ignore_ascii_case("content-length")))
                .and_then(|(_, v)| v.trim().parse::<usize>().ok())
                .ok_or("an answer without Content-Length")?;
            if filled >= head + 4 + length {
                self.answer = head + 4..head + 4 + length;
                return Ok(&self.buffer[self.answer.clone()]);
            }
        }
    }

    fn call(&mut self, bytes: &[u8]) -> Result<&[u8], String> {
        self.send(bytes)?;
        self.receive()
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}
