//! The units, what is asked of them, and what must be true of them after each answer.

use std::{
    path::{Path, PathBuf},
    thread::JoinHandle,
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use super::Dice;
use crate::http;

/// So many units.
pub const UNITS: usize = 20;
/// The first so many are never asked for anything after their start.
const LEFT_ALONE: usize = 8;
/// What the units are like (`wharf-witness`). The first eight are those that are left alone.
const KINDS: [&str; UNITS] =
    ["-", "-", "-", "-", "l", "-", "c", "cl", "-", "-", "c", "s", "l", "cl", "-", "sl", "-", "c", "l", "-"];

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    Start,
    Stop,
    Restart,
    /// A start with another parameter.
    Change(u64),
}

/// What came of it.
#[derive(Debug)]
pub enum Answer {
    Acknowledged,
    Refused,
    CutOff,
}

/// A unit, as those who ask see it.
#[derive(Debug)]
pub struct Unit {
    pub name: String,
    pub kind: &'static str,
    pub is_left_alone: bool,
    /// What Wharf may take it to be wanted: two answers only while a request was cut off.
    pub wants: Vec<&'static str>,
    /// The parameters that its next life may have.
    pub generations: Vec<u64>,
    /// When it was asked for anything that may end a life, in nanoseconds of the boot clock.
    pub asked_ns: Vec<u64>,
}

/// All of them.
pub fn units() -> Vec<Unit> {
    let unit = |(n, kind): (usize, &&'static str)| Unit {
        name: format!("command@u{n}"),
        kind,
        is_left_alone: n < LEFT_ALONE,
        wants: vec!["up"],
        generations: vec![0],
        asked_ns: vec![],
    };
    KINDS.iter().enumerate().map(unit).collect()
}

/// The boot clock, as the witnesses read it.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

impl Unit {
    /// It ends by itself now and then.
    pub fn crashes(&self) -> bool {
        self.kind.contains('c')
    }

    /// The first start.
    pub fn first(&self, witness: &Path, dir: &Path) -> Value {
        let policy = json!({
            "restart": { "budget": 1_000_000_000, "delay_ms": 10, "max_delay_s": 1, "stable_s": 1, "flap_budget": 0 },
            "stop_timeout_ms": 150,
            "logs": { "rotate_bytes": if self.kind.contains('l') { 4096 } else { 1 << 20 }, "keep_runs": 1_000_000, "error_repeats": 0 },
        });
        let with = json!({ "argv": [witness, dir, self.name, self.kind], "env": { "GEN": "0" } });
        json!({ "name": self.name, "with": with, "policy": policy, "wait": false })
    }

    /// What is asked next.
    pub fn next(&self, dice: &mut Dice) -> Ask {
        match dice.below(100) {
            0..35 => Ask::Start,
            35..60 => Ask::Stop,
            60..82 => Ask::Restart,
            _ => Ask::Change(self.generations.iter().max().unwrap_or(&0) + 1),
        }
    }

    /// It is being asked: both what was and what is asked for may be true from now on.
    pub fn asked(&mut self, ask: Ask) {
        let want = ask.want();
        if !self.wants.contains(&want) {
            self.wants.push(want);
        }
        if let Ask::Change(to) = ask {
            self.generations.push(to);
        }
        if ask != Ask::Start {
            self.asked_ns.push(now_ns());
        }
    }

    /// It was acknowledged: nothing else may be true.
    pub fn acknowledged(&mut self, ask: Ask) {
        self.wants = vec![ask.want()];
        if let Ask::Change(to) = ask {
            self.generations = vec![to];
        }
    }
}

impl Ask {
    fn want(self) -> &'static str {
        match self {
            Self::Start | Self::Restart | Self::Change(_) => "up",
            Self::Stop => "down",
        }
    }

    fn call(self, name: &str) -> Value {
        let (method, params) = match self {
            Self::Start => ("service.start", json!({ "name": name, "wait": false })),
            Self::Stop => ("service.stop", json!({ "name": name, "wait": false })),
            Self::Restart => ("service.restart", json!({ "name": name, "wait": false })),
            Self::Change(to) => {
                let with = json!({ "env": { "GEN": to.to_string() } });
                ("service.start", json!({ "name": name, "with": with, "reset": true, "wait": false }))
            }
        };
        json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params })
    }

    /// Asks on a connection of its own, beside everything else.
    pub fn send(self, socket: PathBuf, name: &str) -> JoinHandle<Answer> {
        let body = self.call(name).to_string();
        // As a patient client does: what is refused for the moment is asked again, until the daemon dies.
        std::thread::spawn(move || {
            loop {
                let Ok(reply) = http::post(&socket, &body) else { return Answer::CutOff };
                match serde_json::from_str::<Value>(&reply.body) {
                    Ok(answer) if answer.get("result").is_some() => return Answer::Acknowledged,
                    Ok(answer) if answer["error"]["data"]["retryable"] == true => {}
                    Ok(_) => return Answer::Refused,
                    Err(_) => return Answer::CutOff,
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        })
    }
}
