//! The body of the process that asks NVIDIA's driver: `wharf gpu-probe`.
//!
//! Owns the two ends of its pipe. A driver call that never returns ends with this process and holds up
//! nobody else: the daemon kills it and starts another one. It ends by itself with the daemon, hung or not, and when
//! nobody asks for a while: an open driver keeps devices awake and cannot be upgraded.

use std::{
    io::{self, BufRead, Write},
    sync::mpsc,
    thread,
    time::Duration,
};

use super::{
    IDLE_MS, LIBRARY,
    nvml::Library,
    reading::{Line, Question, Said},
};

/// Answers on standard output what is asked on standard input, a question a line, until that ends.
///
/// # Errors
/// What standard output says; nobody is there to hear it.
pub fn serve() -> io::Result<()> {
    // Best effort: `ps` shows what it is.
    let _ = std::fs::write("/proc/self/comm", "wharf-gpu-probe");
    let (asked, questions) = mpsc::channel::<Question>();
    thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Some(question) = line.ok().and_then(|line| serde_json::from_str(&line).ok()) else { break };
            if asked.send(question).is_err() {
                break;
            }
        }
        // The daemon is gone. The other thread may be in a call that never returns, and so may whatever
        // the library does at a proper end.
        wharf_sys::process::exit_now(0);
    });
    let named = std::env::var_os(LIBRARY).filter(|path| !path.is_empty());
    let library = match Library::open(named.as_deref()) {
        Ok(library) => library,
        Err(why) => return tell(0, why),
    };
    let mut session = library.session();
    tell(0, Said::Opened)?;
    while let Ok(Question { id, limit }) = questions.recv_timeout(idle()) {
        let said = match limit {
            None => session.read().map_or_else(Said::Refused, |reading| Said::Reading(Box::new(reading))),
            Some(limit) => session.limit(&limit).map_or_else(Said::Refused, |()| Said::Set),
        };
        tell(id, said)?;
    }
    tell(0, Said::Closed)
}

/// After this long without a question there is none to wait for.
fn idle() -> Duration {
    let named = std::env::var(IDLE_MS).ok().and_then(|ms| ms.parse().ok());
    named.map_or(Duration::from_secs(60), Duration::from_millis)
}

fn tell(id: u64, said: Said) -> io::Result<()> {
    let mut line = serde_json::to_vec(&Line { id, said })?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}
