//! What comes back of what the units wrote: lines through `service.logs` with cursors, ends through events.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    thread::JoinHandle,
};

use serde_json::{Value, json};

use crate::Daemon;

/// One unit's log, read from its first line on.
#[derive(Debug, Default)]
pub struct Reading {
    cursor: Option<String>,
    /// Of each life: its run, and the number of the last line.
    pub last: BTreeMap<String, (u64, u64)>,
    /// What is not as it was written.
    pub faults: Vec<String>,
    /// Lines in all.
    pub lines: u64,
}

impl Reading {
    /// One page more; whether there is another.
    pub fn page(&mut self, daemon: &Daemon, unit: &str) -> bool {
        let cursor = self.cursor.clone().unwrap_or_else(|| format!("{unit}/1/0"));
        let page = match daemon.call("service.logs", json!({ "name": unit, "lines": 5_000, "cursor": cursor })) {
            Ok(page) => page,
            Err(error) => {
                self.faults.push(format!("{unit}: {error}"));
                return false;
            }
        };
        if page["gap_bytes"] != 0 {
            self.faults.push(format!("{unit}: {} bytes are gone", page["gap_bytes"]));
        }
        for entry in page["entries"].as_array().into_iter().flatten() {
            // A line without its end comes again.
            if entry["ended"] == true {
                self.line(unit, entry["run"].as_u64().unwrap_or(0), entry["text"].as_str().unwrap_or_default());
            } else {
                self.faults.push(format!("{unit}: torn: {entry}"));
            }
        }
        self.cursor = page["cursor"].as_str().map(str::to_owned);
        page["more"] == true
    }

    fn line(&mut self, unit: &str, run: u64, text: &str) {
        self.lines += 1;
        let words: Vec<&str> = text.split(' ').collect();
        let number = words.get(2).and_then(|n| n.parse::<u64>().ok());
        let (&[whose, life, _], Some(number)) = (&words[..], number) else {
            return self.faults.push(format!("{unit}: torn: {text:?}"));
        };
        let (of, last) = self.last.entry(life.to_owned()).or_insert((run, 0));
        if whose != unit || *of != run || number != *last + 1 {
            self.faults.push(format!("{unit}: run {run}: {text:?} after line {last} of run {of}"));
        }
        *last = number;
    }
}

/// Listens to the ends of runs until the daemon dies: unit, run, exit.
pub fn listen(socket: PathBuf) -> JoinHandle<Vec<(String, u64, Value)>> {
    std::thread::spawn(move || {
        let mut bytes = vec![];
        if let Ok(mut stream) = UnixStream::connect(socket) {
            let head =
                "GET /events?since=0&kind=unit.ended HTTP/1.1\r\nHost: a\r\nAccept: application/x-ndjson\r\n\r\n";
            let _ = stream.write_all(head.as_bytes());
            let mut buffer = [0; 16_384];
            // What came before the connection broke counts.
            while let Ok(n @ 1..) = stream.read(&mut buffer) {
                bytes.extend_from_slice(&buffer[..n]);
            }
        }
        let rows = String::from_utf8_lossy(&bytes).into_owned();
        let rows = rows.lines().filter_map(|line| serde_json::from_str::<Value>(line.trim()).ok());
        rows.filter_map(|r| Some((r["unit"].as_str()?.to_owned(), r["run"].as_u64()?, r["exit"].clone()))).collect()
    })
}
