//! The last judgement: what the units wrote down of themselves, held against what Wharf told of them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{judge::Promise, lives::Life, round::Loop};

/// A request reaches its unit within this time, over the death of a daemon too.
const REACH_NS: u64 = 5_000_000_000;

impl Loop {
    pub(super) fn judge_lines(&mut self, unit: &str, lives: &[Life]) {
        let reading = &self.readings[unit];
        self.counts.lines += reading.lines;
        for fault in &reading.faults {
            self.verdict.broken(Promise::Lines, fault.clone());
        }
        for life in lives {
            let (run, last) = reading.last.get(&life.name).copied().unwrap_or((life.run, 0));
            if last < life.count || run != life.run {
                let what = format!("{unit} run {run}: {last} of {} lines of run {}", life.count, life.run);
                self.verdict.broken(Promise::Lines, what);
            }
        }
    }

    pub(super) fn judge_lives(&mut self, at: usize, lives: &[Life]) {
        let unit = &self.units[at];
        let mut runs = BTreeSet::new();
        for (n, life) in lives.iter().enumerate() {
            // It was dead by then.
            let next_ns = lives.get(n + 1).map_or(u64::MAX, |next| next.born_ns);
            let who = format!("{} run {}", unit.name, life.run);
            if !runs.insert(life.run) {
                self.verdict.broken(Promise::Double, format!("{who} began twice"));
            }
            let asked = |until: u64| {
                let from = life.born_ns.saturating_sub(REACH_NS);
                unit.asked_ns.iter().any(|at| (from..=until).contains(at))
            };
            for (signal, sender, at) in &life.signals {
                // SIGCONT lets a stopped process hear SIGTERM.
                let is_meant = matches!(signal, 15 | 18) && self.daemons.contains(sender);
                if !is_meant || !asked(*at) {
                    self.verdict.broken(Promise::WrongSignal, format!("{who} got signal {signal} from pid {sender}"));
                }
            }
            if life.planned.is_none() && !asked(next_ns) {
                self.verdict.broken(Promise::Died, format!("{who} (pid {}) is gone without a word", life.pid));
            }
            let told = self.ends.get(&(unit.name.clone(), life.run));
            let was_asked = !life.signals.is_empty() || asked(next_ns);
            match told.map(|exit| (exit["kind"].as_str().unwrap_or(""), exit)) {
                None => self.counts.untold += 1,
                Some(("unknown", _)) if self.shims_killed.contains(&(unit.name.clone(), life.run)) => {
                    self.counts.unknown += 1
                }
                Some((_, exit)) if life.ended_as(exit, was_asked) => self.counts.exact += 1,
                Some((_, exit)) => {
                    let shim = if self.shims_killed.contains(&(unit.name.clone(), life.run)) {
                        "killed"
                    } else {
                        "left alone"
                    };
                    let what = format!("{who} is told as {exit}, planned was {:?}; its shim was {shim}", life.planned);
                    self.verdict.broken(Promise::Exit, what);
                }
            }
        }
    }
}

impl Life {
    /// Whether this is how it ended. Who was asked to end may have been killed on the way.
    fn ended_as(&self, exit: &Value, was_asked: bool) -> bool {
        let killed = json!({ "kind": "signaled", "signal": 9 });
        match self.planned {
            Some(code @ 0..) => *exit == json!({ "kind": "exited", "code": code }) || was_asked && *exit == killed,
            Some(signal) => *exit == json!({ "kind": "signaled", "signal": -signal }),
            None => was_asked && *exit == killed,
        }
    }
}
