//! llama: a real model server from PyPI, on demand behind a front; two that cannot be resident together take turns.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use wharf_tests::{Daemon, eventually, figure, free_port};

use crate::front::{Heard, Line};

const GIB: u64 = 1 << 30;
const SOON: Duration = Duration::from_secs(60);
/// How long the two are asked.
const LOAD: Duration = Duration::from_secs(20);

/// A daemon with one simulated device of 8 GiB.
fn with_a_device() -> Daemon {
    let mut daemon = Daemon::prepare();
    fs::create_dir_all(daemon.home.join("config")).unwrap();
    fs::write(daemon.home.join("config/gpus.toml"), "[[device]]\nid = \"sim-0\"\ntotal = \"8GiB\"\n").unwrap();
    daemon.launch();
    daemon
}

fn complete(line: &mut Line, prompt: &str) -> Heard {
    line.post("/v1/completions", &json!({ "prompt": prompt, "max_tokens": 8, "temperature": 0 })).unwrap()
}

#[track_caller]
fn text_of(heard: &Heard) -> String {
    assert_eq!(heard.status, 200, "{heard:?}");
    let answer: Value = serde_json::from_str(&heard.body).unwrap();
    assert_eq!(answer["usage"]["completion_tokens"], 8, "{answer}");
    answer["choices"][0]["text"].as_str().unwrap().to_owned()
}

#[test]
fn a_model_of_pypi_answers_as_openai_does_and_needs_no_gpu_unless_it_says_so() {
    let mut daemon = Daemon::prepare();
    daemon.launch();
    let port = free_port();
    daemon.ok("service.install", json!({ "name": "llama" }));
    let with = json!({ "ports": { "http": port }, "idle_stop_s": 1 });
    daemon.ok("service.start", json!({ "name": "llama", "with": with }));
    let mut line = Line::to(port).unwrap();
    let models: Value = serde_json::from_str(&line.get("/v1/models").unwrap().body).unwrap();
    assert_eq!(models["data"][0]["id"], "llama", "{models}");
    let first = text_of(&complete(&mut line, "the sea"));
    eventually("it is idle and stops", SOON, || daemon.state("llama") == "stopped");
    let asked = Instant::now();
    let second = text_of(&complete(&mut line, "the sea"));
    figure("llama: a completion that starts its model (CPU, tiny)", &format!("{:?}", asked.elapsed()));
    assert_eq!(first, second, "the same model and the same question");
    let messages = json!([{ "role": "user", "content": "hello" }]);
    let chat = json!({ "messages": messages, "max_tokens": 4, "stream": true });
    let stream = line.post("/v1/chat/completions", &chat).unwrap();
    assert!(stream.head.contains("text/event-stream"), "{stream:?}");
    assert!(stream.body.matches("data: {").count() >= 4 && stream.body.contains("data: [DONE]"), "{stream:?}");
    assert_eq!(daemon.ok("service.verify", json!({ "name": "llama" }))["ok"], true);
    daemon.ok("service.stop", json!({ "name": "llama" }));
    // T24.
    if daemon.ok("gpu.list", json!({}))["devices"].as_array().is_some_and(Vec::is_empty) {
        let with = json!({ "vram": "5GiB" });
        let error = daemon.err("service.start", json!({ "name": "llama", "with": with }));
        assert!(error["message"].as_str().unwrap().contains("no GPU"), "{error}");
    }
}

/// What was seen of the ledger while the two were asked.
#[derive(Default)]
struct Seen {
    looks: u32,
    most_bytes: u64,
    holders: BTreeSet<String>,
    /// Who was seen to have it last, and how often that was another than before.
    last: String,
    turns: u32,
}

#[test]
fn two_models_that_do_not_fit_together_take_turns_and_no_request_is_lost() {
    let daemon = with_a_device();
    let mut ports = BTreeMap::new();
    for (nth, name) in ["llama@a", "llama@b"].into_iter().enumerate() {
        daemon.ok("service.install", json!({ "name": name }));
        let port = free_port();
        ports.insert(name, port);
        let with = json!({ "vram": "5GiB", "ports": { "http": port }, "idle_stop_s": 3, "threads": 1 });
        let policy = json!({ "gpu": { "min_residency_ms": 2_000 } });
        daemon.ok("service.start", json!({ "name": name, "with": with, "policy": policy }));
        if nth == 0 {
            eventually("it has rested", SOON, || daemon.state(name) == "stopped");
        }
    }
    let over = AtomicBool::new(false);
    let seen = Mutex::new(Seen::default());
    let served = std::thread::scope(|scope| {
        let (daemon, over, seen) = (&daemon, &over, &seen);
        let clients: Vec<_> = ports
            .iter()
            .flat_map(|(name, port)| (0..4).map(|nth| (*name, *port, nth)))
            .map(|(name, port, nth)| {
                scope.spawn(move || {
                    let mut line = Line::to(port).unwrap();
                    let mut took = vec![];
                    while !over.load(Ordering::Relaxed) {
                        let asked = Instant::now();
                        text_of(&complete(&mut line, &format!("{name} {nth}")));
                        took.push(asked.elapsed());
                    }
                    (name, took)
                })
            })
            .collect();
        let begun = Instant::now();
        while begun.elapsed() < LOAD {
            look(daemon, &mut seen.lock().unwrap());
            std::thread::sleep(Duration::from_millis(20));
        }
        over.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    let seen = seen.into_inner().unwrap();
    assert!(seen.most_bytes <= 8 * GIB && seen.most_bytes >= 5 * GIB, "{} bytes of 8 GiB", seen.most_bytes);
    assert_eq!(seen.holders.len(), 2, "both had the device: {:?}", seen.holders);
    let mut longest = Duration::ZERO;
    for (name, took) in &served {
        assert!(!took.is_empty(), "a client of {name} was never served");
        longest = longest.max(*took.iter().max().unwrap());
    }
    let of = |name: &str| served.iter().filter(|(of, _)| *of == name).map(|(_, took)| took.len()).sum::<usize>();
    let turns = seen.turns;
    assert!(turns >= 3, "they took turns {turns} times");
    let (a, b) = (of("llama@a"), of("llama@b"));
    let text = format!(
        "{a} and {b} completions in {LOAD:?} by 4 clients each, none lost; {turns} turns; longest wait {longest:?}; \
         at most {:.1} GiB in {} looks",
        seen.most_bytes as f64 / GIB as f64,
        seen.looks
    );
    figure("llama: two of 5 GiB on 8 GiB", &text);
    for name in ports.keys() {
        eventually("it is idle and stops", SOON, || daemon.state(name) == "stopped");
    }
}

/// Both the ledger's figure and the device's own.
fn look(daemon: &Daemon, seen: &mut Seen) {
    let list = daemon.ok("gpu.list", json!({}));
    let device = &list["devices"][0];
    let leases = device["charges"].as_array().unwrap();
    let charged: u64 = leases.iter().filter_map(|lease| lease["charge_bytes"].as_u64()).sum();
    seen.looks += 1;
    seen.most_bytes = seen.most_bytes.max(charged).max(device["used_bytes"].as_u64().unwrap_or(0));
    for lease in leases {
        let name = lease["holder"].as_str().unwrap_or_default();
        if lease["state"] == "active" {
            seen.turns += u32::from(!seen.last.is_empty() && seen.last != name);
            seen.last = name.to_owned();
            seen.holders.insert(name.to_owned());
        }
    }
}

#[test]
fn a_killed_daemon_breaks_what_is_in_flight_at_its_front_and_the_next_one_serves_at_once() {
    let mut daemon = with_a_device();
    let port = free_port();
    daemon.ok("service.install", json!({ "name": "llama@a" }));
    let with = json!({ "vram": "5GiB", "ports": { "http": port }, "idle_stop_s": 60 });
    daemon.ok("service.start", json!({ "name": "llama@a", "with": with }));
    let before = text_of(&complete(&mut Line::to(port).unwrap(), "the sea"));
    let pid = daemon.ok("service.status", json!({ "name": "llama@a" }))["pid"].clone();
    let mut line = Line::to(port).unwrap();
    let chat = json!({ "prompt": "the sea", "max_tokens": 1_500, "stream": true, "ignore_eos": true }).to_string();
    line.send(&format!("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{chat}", chat.len()))
        .unwrap();
    while !line.line().unwrap().starts_with("data: ") {}
    daemon.kill_9();
    let rest: Vec<String> = std::iter::from_fn(|| line.line().ok().filter(|text| !text.is_empty())).collect();
    assert!(!rest.iter().any(|text| text.contains("[DONE]")), "it breaks: this is the limitation");
    daemon.launch();
    let begun = Instant::now();
    let mut line = None;
    eventually("the next daemon listens", SOON, || {
        line = Line::to(port).ok();
        line.is_some()
    });
    let after = text_of(&complete(&mut line.unwrap(), "the sea"));
    figure("llama: the first completion after kill -9 of the daemon", &format!("{:?}", begun.elapsed()));
    assert_eq!(before, after);
    assert_eq!(daemon.ok("service.status", json!({ "name": "llama@a" }))["pid"], pid, "the same process goes on");
}
