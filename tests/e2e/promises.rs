//! The promises of docs/promises.md, on the real daemon. Each test prints its figure; a bound that depends on the
//! machine is asserted five times looser than it is promised, because machines are shared and noisy.

mod archives;
mod clocks;
mod crowd;
mod pids;
mod power;
mod stopped;
mod store;
mod storms;

use serde_json::{Value, json};
use wharf_tests::{Daemon, post};

/// How much looser a bound of time is asserted than promised.
const SLACK: u32 = 5;

/// Many calls in batches of fifty; their results in the order of the calls.
#[track_caller]
fn batches(daemon: &Daemon, method: &str, params: impl Iterator<Item = Value>) -> Vec<Value> {
    let params: Vec<Value> = params.collect();
    let mut results = vec![];
    for some in params.chunks(50) {
        let call =
            |(id, params): (usize, &Value)| json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let body: Vec<Value> = some.iter().enumerate().map(call).collect();
        let reply = post(&daemon.socket(), &Value::from(body).to_string()).unwrap();
        let mut answers: Vec<Value> = serde_json::from_str(&reply.body).unwrap();
        answers.sort_by_key(|a| a["id"].as_u64());
        for mut answer in answers {
            assert!(answer["error"].is_null(), "{method}: {answer}");
            results.push(answer["result"].take());
        }
    }
    results
}

fn status(daemon: &Daemon, name: &str) -> Value {
    daemon.ok("service.status", json!({ "name": name }))
}

#[track_caller]
fn pid_of(daemon: &Daemon, name: &str) -> i32 {
    let status = status(daemon, name);
    status["pid"].as_i64().and_then(|p| i32::try_from(p).ok()).unwrap_or_else(|| panic!("no pid: {status}"))
}
