//! The audit log: who changed what, a line before and a line after each call that changes something.
//!
//! `audit.jsonl` of the state folder, mode 0600, rotated by size. Every line carries the SHA-256 of the
//! line before it, so that one that is taken out or rewritten shows. A call that a daemon did not live
//! to answer has its first line alone; the next daemon closes it with the outcome `unknown`.
//!
//! Writing is one `write` to the page cache. What cannot be written is counted and told in the next
//! line that can: a full disk never makes a stop fail.

mod redact;
mod who;

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use async_trait::async_trait;
use jsonrpsee_types::ErrorObjectOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};
use sha2::{Digest, Sha256};
use wharf_api::{Caller, Class, Follow, Methods, WatchParams, failure_of};
use wharf_model::{ErrorKind, Phase, RunId, UnitName};

use crate::{
    engine::{Engine, Shared},
    jsonl::Lines,
    redaction, turn,
};

const MOST_BYTES: u64 = 2 << 20;
const KEPT: usize = 8;

/// What every line has, around what it says.
#[derive(Serialize)]
struct Line<'a> {
    seq: u64,
    at_ms: i64,
    boot_ms: u64,
    boot: &'a str,
    #[serde(flatten)]
    says: &'a Value,
    /// Lines before this one that could not be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    missed: Option<u64>,
    /// SHA-256 of the line before this one, as it stands in the file.
    prev: &'a str,
}

/// What is read back of a line.
#[derive(Deserialize)]
struct Kept {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    line: String,
    call: Option<u64>,
}

/// The file and where its chain is.
pub struct AuditLog {
    boot: String,
    chain: Mutex<Chain>,
}

struct Chain {
    lines: Lines,
    /// The number of the last line.
    seq: u64,
    /// Its hash.
    prev: String,
    missed: u64,
}

impl Chain {
    /// Writes what `says` says with the next number.
    fn write(&mut self, boot: &str, says: &Value) -> io::Result<()> {
        let now = turn::now();
        let missed = Some(self.missed).filter(|n| *n > 0);
        let (at_ms, boot_ms, prev) = (now.wall_ms, now.boot_ms, self.prev.as_str());
        let says = &redaction::record(says.clone());
        let line = Line { seq: self.seq, at_ms, boot_ms, boot, says, missed, prev };
        let line = serde_json::to_string(&line)?;
        self.lines.append(&line)?;
        self.prev = digest(&line);
        Ok(())
    }

    fn put(&mut self, boot: &str, says: &Value) {
        match self.write(boot, says) {
            Ok(()) => self.missed = 0,
            Err(e) => {
                if self.missed == 0 {
                    tracing::warn!("the audit log cannot be written: {e}");
                }
                self.missed += 1;
            }
        }
    }
}

fn digest(line: &str) -> String {
    Sha256::digest(line).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl AuditLog {
    /// The log of a state folder; closes what an earlier daemon left open.
    pub fn open(state: &Path, boot: &str) -> Self {
        let lines = Lines::new(state.join("audit.jsonl"), MOST_BYTES, KEPT);
        let (seq, prev, open) = look_back(&lines);
        let log = Self { boot: boot.into(), chain: Mutex::new(Chain { lines, seq, prev, missed: 0 }) };
        for call in open {
            log.add(|_| json!({ "line": "end", "call": call, "outcome": "unknown" }));
        }
        log.add(|_| json!({ "line": "daemon", "pid": std::process::id(), "version": env!("CARGO_PKG_VERSION") }));
        log
    }

    /// Adds a line, which may want to know its own number; gives the number.
    fn add(&self, says: impl FnOnce(u64) -> Value) -> u64 {
        let mut chain = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
        chain.seq += 1;
        let seq = chain.seq;
        chain.put(&self.boot, &says(seq));
        seq
    }
}

/// The last number, the last hash, and the calls that are open: those after the last line of a daemon.
fn look_back(lines: &Lines) -> (u64, String, Vec<u64>) {
    let (mut newest, mut open, mut ended) = (None, BTreeSet::new(), vec![]);
    'files: for path in lines.files() {
        for text in Lines::read(&path).unwrap_or_default().iter().rev() {
            // A line that was torn has a hash like any other.
            let kept = serde_json::from_str(text).unwrap_or(Kept { seq: 0, line: String::new(), call: None });
            let (seq, _) = newest.get_or_insert_with(|| (0, digest(text)));
            *seq = kept.seq.max(*seq);
            match (kept.line.as_str(), kept.call) {
                ("daemon", _) => break 'files,
                ("end", Some(call)) => ended.push(call),
                ("begin", Some(call)) => _ = open.insert(call),
                _ => {}
            }
        }
    }
    ended.iter().for_each(|call| _ = open.remove(call));
    let (seq, prev) = newest.unwrap_or_default();
    (seq, prev, open.into_iter().collect())
}

/// How many lines the files hold, if each carries the hash of the one before it; else the first that does not.
///
/// # Errors
/// Where a file cannot be read, or with the number of the line at which the chain is broken.
pub fn verify(state: &Path) -> Result<usize, String> {
    #[derive(Deserialize)]
    struct Link {
        prev: String,
    }
    let files: Vec<PathBuf> = Lines::new(state.join("audit.jsonl"), MOST_BYTES, KEPT).files();
    let (mut count, mut before) = (0, None);
    for path in files.iter().rev() {
        for line in Lines::read(path).map_err(|e| format!("{}: {e}", path.display()))? {
            count += 1;
            // The first one's predecessor was rotated away, or never was. A torn line names none.
            if let (Some(before), Ok(Link { prev })) = (&before, serde_json::from_str(&line))
                && prev != *before
            {
                return Err(format!("{}: line {count} does not follow the one before it", path.display()));
            }
            before = Some(digest(&line));
        }
    }
    Ok(count)
}

/// A socket's methods, with what every socket of the daemon has: the audit, and the events.
pub struct Audited {
    shared: Arc<Shared>,
    methods: Arc<dyn Methods>,
    socket: &'static str,
}

impl Audited {
    /// `socket` is the name by which its calls are recorded.
    pub fn new(engine: &Engine, methods: Arc<dyn Methods>, socket: &'static str) -> Self {
        Self { shared: engine.shared.clone(), methods, socket }
    }

    fn begin(&self, caller: &Caller, method: &str, params: Option<&RawValue>) -> Open {
        let params = redact::params(params);
        let unit = redact::unit(&params);
        let before = unit.as_ref().map(|unit| state(&self.shared, unit));
        let own = who::unit_of(&self.shared, caller.peer.pid);
        let call = self.shared.audit.add(|seq| {
            json!({
                "line": "begin", "call": seq, "socket": self.socket, "method": method,
                "uid": caller.peer.uid, "gid": caller.peer.gid, "pid": caller.peer.pid,
                "caller": own, "client": caller.client, "params": params, "unit": unit, "before": before,
            })
        });
        Open { shared: self.shared.clone(), call, unit, began: Instant::now(), outcome: None }
    }
}

/// A unit's run and phase, as they were published last.
#[derive(Serialize)]
struct State {
    run: Option<RunId>,
    phase: Option<Phase>,
}

fn state(shared: &Shared, unit: &UnitName) -> State {
    let world = shared.world.load();
    let unit = world.get(unit);
    State { run: unit.and_then(|u| u.life.run()), phase: unit.map(|u| u.phase()) }
}

/// A call that has its first line. Dropped, it gets its second one, however it ended.
struct Open {
    shared: Arc<Shared>,
    call: u64,
    unit: Option<UnitName>,
    began: Instant,
    outcome: Option<Value>,
}

impl Drop for Open {
    fn drop(&mut self) {
        let cut_off = if std::thread::panicking() { "panicked" } else { "left" };
        let mut says = self.outcome.take().unwrap_or_else(|| json!({ "outcome": cut_off }));
        says["line"] = "end".into();
        says["call"] = self.call.into();
        says["duration_ms"] = (self.began.elapsed().as_micros() as f64 / 1000.0).into();
        if let Some(unit) = &self.unit {
            says["after"] = json!(state(&self.shared, unit));
        }
        self.shared.audit.add(|_| says);
    }
}

impl Audited {
    /// The call, once more where a name was not known while executables were still being asked for theirs: nothing
    /// was done then.
    async fn asked(
        &self,
        caller: &Caller,
        method: &str,
        params: Option<&RawValue>,
    ) -> Result<Box<RawValue>, ErrorObjectOwned> {
        let was_complete = self.shared.catalogue.is_complete();
        let result = self.methods.call(caller, method, params).await;
        let unknown = result.as_ref().is_err_and(|error| failure_of(error).kind == ErrorKind::NotFound);
        if was_complete || !unknown {
            return result;
        }
        self.shared.catalogue.complete().await;
        self.methods.call(caller, method, params).await
    }
}

#[async_trait]
impl Methods for Audited {
    async fn call(
        &self,
        caller: &Caller,
        method: &str,
        params: Option<&RawValue>,
    ) -> Result<Box<RawValue>, ErrorObjectOwned> {
        match self.methods.class(method) {
            // What is not known does nothing.
            Some(Class::Read | Class::Logs) | None => redaction::outcome(self.asked(caller, method, params).await),
            Some(Class::Control | Class::Install) => {
                let mut open = self.begin(caller, method, params);
                let result = redaction::outcome(self.asked(caller, method, params).await);
                open.outcome = Some(match &result {
                    Ok(_) => json!({ "outcome": "ok" }),
                    Err(error) => {
                        let failure = failure_of(error);
                        json!({ "outcome": "error", "code": error.code(), "kind": failure.kind, "retryable": failure.retryable })
                    }
                });
                result
            }
        }
    }

    fn class(&self, method: &str) -> Option<Class> {
        self.methods.class(method)
    }

    fn follow(&self, params: &WatchParams) -> Option<Follow> {
        Some(self.shared.bus.follow(params))
    }

    fn document(&self) -> &'static str {
        self.methods.document()
    }

    fn health(&self) -> Box<RawValue> {
        self.methods.health()
    }

    fn card(&self) -> Box<RawValue> {
        self.methods.card()
    }
}

#[cfg(test)]
mod tests;
